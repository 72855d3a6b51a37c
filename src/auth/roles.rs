//! A change of roles, in force on every instance.
//!
//! It stands in two places: with the member, and among what overrides older tokens. Nothing binds the two stores, so the order
//! does. First all are told what the member keeps, then the member is written, then all are told what he has now. So a fault or
//! a crash in between leaves nobody with what was taken from him, and what is told differs from what is stored; the next login
//! or refresh of the member, and the next renewal, sees that and tells it anew.

use crate::ids::MemberId;
use crate::problem::Problem;
use crate::store::{Member, NewRoles, SessionsOf, SignedIn};

use super::{Auth, ending};

/// How often a change of roles that met another one is told again.
const ROUNDS: usize = 4;

impl Auth {
    /// Tells what the member keeps of his roles when he is to have `wanted`. What he gets is told when it is stored.
    pub(super) async fn announce_kept_roles(&self, member: &Member, wanted: &[String]) -> Result<(), Problem> {
        let kept: Vec<String> = member.roles.iter().filter(|role| wanted.contains(role)).cloned().collect();
        self.announce_roles(&member.member_id, &kept).await
    }

    /// Tells every instance the roles that the member has now. `None` when there is none.
    pub(super) async fn publish_roles(&self, id: &MemberId) -> Result<Option<Member>, Problem> {
        let mut told: Option<Vec<String>> = None;
        let mut found = self.members.find(id).await?;
        for _ in 0..ROUNDS {
            let Some(member) = &found else { break };
            if told.as_ref() == Some(&member.roles) {
                break;
            }
            self.announce_roles(id, &member.roles).await?;
            told = Some(member.roles.clone());
            // Another change may have come between reading and telling; whoever reads last tells last.
            found = self.members.find(id).await?;
        }
        Ok(found)
    }

    async fn announce_roles(&self, id: &MemberId, roles: &[String]) -> Result<(), Problem> {
        let now = self.clock.now();
        // The member's own id is the last: who finds it told finds all told.
        for identity in self.members.identities(id).await?.into_iter().rev() {
            let until = self.revoked_until(now, None);
            let new = NewRoles { member_id: identity.member_id, roles: roles.to_vec(), at: now, until };
            let stands = self.settled(self.sessions.announce_roles(new)).await?;
            ending::put_roles(&self.revocations, &stands);
        }
        Ok(())
    }

    /// The member, whose tokens bear this id, with the roles that are in force. Where others were told than are stored, a change
    /// broke off or is under way: what is stored now is told.
    pub(super) async fn with_roles_in_force(&self, member: Member, id: &MemberId) -> Result<Member, Problem> {
        match self.revocations.roles().of(id) {
            Some(told) if *told != *member.roles => self.publish_roles(id).await?.ok_or_else(Problem::token_revoked),
            _ => Ok(member),
        }
    }

    /// What follows when members have become one: older tokens of each get the roles of all, and a ban is one of all. Who logs in
    /// next cannot see whether that was done when they were merged, only whether it stands.
    pub(super) async fn merged(&self, signed_in: &SignedIn) -> Result<(), Problem> {
        let SignedIn { member, merged, .. } = signed_in;
        let id = &member.member_id;
        if !merged.is_empty() {
            tracing::info!(member = id.as_str(), aliases = merged.len(), "members of one unionid were merged");
        }
        if !merged.is_empty() || !self.has_told_merged_roles(member).await? {
            self.publish_roles(id).await?;
        }
        if member.banned && (!merged.is_empty() || self.has_session(id).await?) {
            self.end_member(id).await?;
        }
        Ok(())
    }

    /// Of one who has no roles, or one id only, there is nothing to tell.
    async fn has_told_merged_roles(&self, member: &Member) -> Result<bool, Problem> {
        if member.roles.is_empty() {
            return Ok(true);
        }
        let ids = self.ids_of(&member.member_id).await?;
        let is_told = |id| self.revocations.roles().of(id).is_some_and(|told| *told == *member.roles);
        Ok(ids.len() == 1 || ids.iter().all(is_told))
    }

    async fn has_session(&self, id: &MemberId) -> Result<bool, Problem> {
        let now = self.clock.now();
        for id in self.ids_of(id).await? {
            if self.sessions.count(&SessionsOf::Member(id), 1, now).await? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
