//! What operators do to members and their sessions: roles, ban, end, erase.
//!
//! The store is written first, then this instance's memory; every other instance hears of it from the store. A member has
//! one id for each app where members are merged; what is done here is done to all of them.

use crate::ids::{AppId, MemberId, SessionId};
use crate::problem::{Code, Problem};
use crate::store::{Identity, Member};
use crate::token::is_name;

use super::Auth;
use super::ending::resync;
use super::member::{MAX_NICKNAME, is_web_url};

/// Most roles of a member that operators give, and most characters of them together: they stand in every token.
const MAX_ROLES: usize = 64;
const MAX_ROLES_LENGTH: usize = 2048;

/// Longest reason of a ban, characters.
const MAX_REASON: usize = 500;

/// What is to be changed of a member; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberChange {
    /// The roles that operators give, all of them.
    pub roles: Option<Vec<String>>,
    /// Empty for none.
    pub nickname: Option<String>,
    /// Empty for none.
    pub avatar_url: Option<String>,
    /// Whether a ban is in force.
    pub banned: Option<bool>,
    /// Why; with `banned` alone.
    pub reason: Option<String>,
}

impl MemberChange {
    /// Whether it can be done.
    fn check(&self) -> Result<(), Problem> {
        let wrong = |detail: &'static str| Err(Problem::new(Code::InvalidRequest, detail));
        if self == &Self::default() {
            return wrong("Send at least one of `roles`, `nickname`, `avatar_url`, `banned`.");
        }
        let roles = self.roles.as_deref().unwrap_or_default();
        if !are_roles(roles) {
            return wrong("`roles` are at most 64 names of visible ASCII without comma, 2048 characters in all.");
        }
        let is_text = |text: &String, most| text.chars().count() <= most && !text.chars().any(char::is_control);
        if !self.nickname.as_ref().is_none_or(|nickname| is_text(nickname, MAX_NICKNAME)) {
            return wrong("`nickname` has at most 64 characters and no control characters.");
        }
        if !self.avatar_url.as_deref().is_none_or(is_web_url) {
            return wrong("`avatar_url` must be an http or https URL of at most 1024 bytes.");
        }
        if self.reason.is_some() && self.banned != Some(true) {
            return wrong("`reason` goes with `banned: true`.");
        }
        if !self.reason.as_ref().is_none_or(|reason| is_text(reason, MAX_REASON)) {
            return wrong("`reason` has at most 500 characters and no control characters.");
        }
        Ok(())
    }
}

/// Whether a member can have these: each can stand in a header, and all of them in a token.
pub(super) fn are_roles(roles: &[String]) -> bool {
    roles.len() <= MAX_ROLES
        && roles.iter().all(|role| is_name(role))
        && roles.iter().map(String::len).sum::<usize>() <= MAX_ROLES_LENGTH
}

impl MemberChange {
    /// Its name in the audit log.
    pub fn action(&self) -> &'static str {
        match self.banned {
            Some(true) => "members.ban",
            Some(false) => "members.unban",
            None if self.roles.is_some() => "members.set-roles",
            None => "members.set",
        }
    }
}

fn nobody() -> Problem {
    Problem::new(Code::RouteNotFound, "There is no member of this id.")
}

impl Auth {
    /// The change that this JSON object asks for.
    ///
    /// # Errors
    /// `invalid_request`.
    pub fn member_change(&self, body: &[u8]) -> Result<MemberChange, Problem> {
        let change: MemberChange = serde_json::from_slice(body).map_err(|_| {
            let detail =
                "Send a JSON object with any of `roles`, `nickname`, `avatar_url`, `banned`, `reason`, and no other.";
            Problem::new(Code::InvalidRequest, detail)
        })?;
        change.check().map(|()| change)
    }

    /// Changes a member; the changes are in force everywhere within a second.
    ///
    /// # Errors
    /// `route_not_found` when there is no such member. After `store_unavailable` a part of
    /// it may be done: do it again.
    pub async fn change_member(&self, id: &MemberId, change: &MemberChange) -> Result<Member, Problem> {
        let mut member = self.members.find(id).await?.ok_or_else(nobody)?;
        if change.nickname.is_some() || change.avatar_url.is_some() {
            let set = self.members.set_profile(id, change.nickname.as_deref(), change.avatar_url.as_deref());
            member = set.await?.ok_or_else(nobody)?;
        }
        if let Some(roles) = &change.roles {
            let wanted = [roles.as_slice(), &member.hook.roles].concat();
            self.announce_kept_roles(&member, &wanted).await?;
            self.members.set_roles(id, roles).await?.ok_or_else(nobody)?;
            member = self.publish_roles(id).await?.ok_or_else(nobody)?;
        }
        match change.banned {
            // First the ban, which lets nobody in any more; then the end of those who are in.
            Some(true) => {
                let reason = change.reason.as_deref().unwrap_or_default();
                member = self.members.set_ban(id, Some(reason)).await?.ok_or_else(nobody)?;
                self.end_member(id).await?;
            }
            Some(false) => member = self.members.set_ban(id, None).await?.ok_or_else(nobody)?,
            None => {}
        }
        Ok(member)
    }

    /// Ends all sessions of a member, in all apps. Returns how many.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn end_member(&self, id: &MemberId) -> Result<u64, Problem> {
        let now = self.clock.now();
        let until = self.revoked_until(now, None);
        let mut ended = 0;
        for member_id in self.ids_of(id).await? {
            // Memory first: a refusal too strict does no harm.
            self.revocations.revoke_member(&member_id, now, until);
            let sessions = self.settled(self.sessions.end_member(&member_id, now, until)).await?;
            for session in &sessions {
                self.revocations.revoke_session(session, until);
            }
            ended += sessions.len() as u64;
        }
        self.metrics.logouts.add(ended);
        Ok(ended)
    }

    /// Ends all sessions of an app. Returns how many.
    ///
    /// # Errors
    /// `store_unavailable`; what was begun is finished by a later sweep then.
    pub async fn end_app(&self, appid: &AppId) -> Result<u64, Problem> {
        let now = self.clock.now();
        // No token outlives its session.
        let until = self.revoked_until(now.plus(self.section.session_ttl), None);
        self.revocations.revoke_app(appid, now, until);
        let ended = self.settled(self.sessions.end_app(appid, now, until)).await?;
        // Those that the epoch does not reach were revoked one by one.
        resync(&*self.sessions, &self.revocations, now).await?;
        self.metrics.logouts.add(ended);
        Ok(ended)
    }

    /// Ends one session. True when it was live.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn end_session(&self, id: &SessionId) -> Result<bool, Problem> {
        let now = self.clock.now();
        let was_live = self.end(id, now, self.revoked_until(now, None)).await?;
        self.metrics.logouts.add(u64::from(was_live));
        Ok(was_live)
    }

    /// Erases a member: sessions, keys, profile, phone.
    ///
    /// # Errors
    /// `route_not_found` when there is none, `store_unavailable`.
    pub async fn erase_member(&self, id: &MemberId) -> Result<(), Problem> {
        let mut known = self.members.identities(id).await?;
        if known.is_empty() {
            return Err(nobody());
        }
        self.end_member(id).await?;
        self.erase_keys(&known).await?;
        self.erase_record(id, &mut known).await?;
        let now = self.clock.now();
        for identity in &known {
            let until = self.revoked_until(now, None);
            let ended = self.sessions.end_member(&identity.member_id, now, until);
            for session in self.settled(ended).await? {
                self.revocations.revoke_session(&session, until);
            }
        }
        self.erase_keys(&known).await
    }

    /// Erases the record of a member of whom these identities are `known`. Afterwards those are among them that went with it: a login that
    /// was under way, perhaps the first one in another app, has to be ended once more. One that comes later finds no member.
    pub(super) async fn erase_record(&self, id: &MemberId, known: &mut Vec<Identity>) -> Result<(), Problem> {
        for identity in self.members.erase(id).await? {
            if !known.contains(&identity) {
                known.push(identity);
            }
        }
        Ok(())
    }

    pub(super) async fn erase_keys(&self, known: &[Identity]) -> Result<(), Problem> {
        for Identity { appid, openid, .. } in known {
            self.sessions.erase_keys(appid, openid).await?;
        }
        Ok(())
    }

    /// Every id that the member's sessions may carry; this one alone when the member is gone.
    pub(super) async fn ids_of(&self, id: &MemberId) -> Result<Vec<MemberId>, Problem> {
        let mut ids: Vec<_> = self.members.identities(id).await?.into_iter().map(|known| known.member_id).collect();
        if !ids.contains(id) {
            ids.push(id.clone());
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_cannot_stand_is_refused() {
        let change = |text: &str| serde_json::from_str::<MemberChange>(text).unwrap().check();
        for good in [
            r#"{"roles":[]}"#,
            r#"{"roles":["vip","shop:read"],"nickname":""}"#,
            r#"{"banned":true,"reason":"刷单"}"#,
            r#"{"banned":false}"#,
        ] {
            assert!(change(good).is_ok(), "{good}");
        }
        for bad in [
            "{}",
            r#"{"roles":["a,b"]}"#,
            r#"{"roles":["管理"]}"#,
            r#"{"roles":[""]}"#,
            r#"{"nickname":"a\nb"}"#,
            r#"{"avatar_url":"javascript:x"}"#,
            r#"{"banned":false,"reason":"x"}"#,
        ] {
            assert_eq!(change(bad).unwrap_err().code(), Code::InvalidRequest, "{bad}");
        }
        let many = MemberChange { roles: Some(vec!["r".repeat(100); 30]), ..MemberChange::default() };
        assert!(many.check().is_err());
        assert!(serde_json::from_str::<MemberChange>(r#"{"role":["vip"]}"#).is_err(), "a slip is not ignored");
    }
}
