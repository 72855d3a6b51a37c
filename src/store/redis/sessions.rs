//! [`Sessions`] in Redis. The order of the writes is the point here: see the [module](super).

use async_trait::async_trait;
use futures_util::future::try_join;

use super::Redis;
use super::keys::{digits, life, session_id, time};
use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId, OpenId, SessionId};
use crate::store::{
    CodeHash, Error, KeysPage, NewRoles, NewSession, Notice, NoticeOf, RefreshHash, RefreshUse, Revoked, Rotation,
    SealedKey, SealedToken, Session, Sessions, SessionsOf, UsedCode,
};

const NOT_NEW: Error = Error::Damaged("an id or a hash that must be new is there already");

#[async_trait]
impl Sessions for Redis {
    async fn open(&self, new: NewSession) -> Result<Vec<SessionId>, Error> {
        let surplus = if self.at_once {
            let surplus = self.log_in(&new).await?.ok_or(NOT_NEW)?;
            if surplus.is_empty() {
                return Ok(surplus);
            }
            surplus
        } else {
            self.open_in_steps(&new).await?
        };
        let now = new.session.created_at;
        let ended = self.end_these(surplus.clone(), |_| true, now, new.access_until).await?;
        // Now that they are over. Some were before; they would count again the next time.
        for id in &surplus {
            self.unlist(id, Some(&new.session.member_id), None).await?;
        }
        self.use_code(&new).await?;
        Ok(ended)
    }

    async fn find(&self, id: &SessionId, now: Timestamp) -> Result<Option<Session>, Error> {
        let standing = self.standing(id).await?.filter(|standing| standing.ends > now);
        Ok(standing.and_then(|standing| standing.session))
    }

    async fn owner_of(&self, id: &SessionId, now: Timestamp) -> Result<Option<(MemberId, AppId)>, Error> {
        self.owner_named(id, now).await
    }

    async fn prolong(&self, id: &SessionId, now: Timestamp, access_until: Timestamp) -> Result<Option<Session>, Error> {
        match self.is_revoked(id).await? {
            true => Ok(None),
            false => self.prolong_live(id, now, access_until).await,
        }
    }

    async fn used_code(&self, code: &CodeHash, now: Timestamp) -> Result<Option<UsedCode>, Error> {
        let text: Option<String> = self.link.read(redis::cmd("GET").arg(self.keys.code(code))).await?;
        let Some(text) = text else { return Ok(None) };
        let read = || {
            let mut parts = text.splitn(4, ' ');
            let (used_at, expires_at) = (time(parts.next()?)?, time(parts.next()?)?);
            let is_new = parts.next()? == "1";
            Some((UsedCode { session_id: session_id(parts.next()?)?, used_at, is_new }, expires_at))
        };
        let (used, expires_at) = read().ok_or(Error::Damaged("a used code in Redis holds what is never written"))?;
        Ok(Some(used).filter(|_| expires_at > now))
    }

    async fn rotate(&self, shown: RefreshHash, successor: RefreshHash, use_: RefreshUse) -> Result<Rotation, Error> {
        let turned = match self.at_once {
            true => self.turn_by_name(shown, successor, use_).await?,
            false => self.turn_in_steps(shown, successor, use_).await?,
        };
        let Some((id, became)) = turned else { return Ok(Rotation::Unknown) };
        match became {
            // Told by all who raced; the one who ends it says so.
            Some(Rotation::Reused(session)) => match self.end_one(&id, use_.now, use_.revoked_until).await? {
                true => Ok(Rotation::Reused(session)),
                false => Ok(Rotation::Ended),
            },
            Some(other) => Ok(other),
            // A session whose end broke off after its revocation was written is over, too.
            None => {
                let known = self.ended_by_refresh(shown, use_.now).await?.is_some();
                Ok(if known { Rotation::Ended } else { Rotation::Unknown })
            }
        }
    }

    async fn find_by_refresh(&self, shown: RefreshHash, now: Timestamp) -> Result<Option<Session>, Error> {
        let Some(id) = self.owner(shown).await? else { return Ok(None) };
        let found = self.standing_of_token(&id, shown).await?;
        let live = found.filter(|(standing, token_ends)| standing.ends > now && *token_ends > now);
        Ok(live.and_then(|(standing, _)| standing.session))
    }

    async fn ended_by_refresh(&self, shown: RefreshHash, now: Timestamp) -> Result<Option<SessionId>, Error> {
        let Some(id) = self.owner(shown).await? else { return Ok(None) };
        let found = self.standing_of_token(&id, shown).await?;
        let known = found.filter(|(standing, token_ends)| standing.ends > now && *token_ends > now);
        Ok(known.filter(|(standing, _)| standing.session.is_none()).map(|_| id))
    }

    async fn end(&self, id: &SessionId, now: Timestamp, revoked_until: Timestamp) -> Result<bool, Error> {
        self.end_one(id, now, revoked_until).await
    }

    async fn end_all(
        &self,
        member: &MemberId,
        appid: &AppId,
        spared: Option<&SessionId>,
        now: Timestamp,
        revoked_until: Timestamp,
    ) -> Result<Vec<SessionId>, Error> {
        let ids = self.listed(&SessionsOf::Member(member.clone())).await?;
        let ids = ids.into_iter().filter(|id| Some(id) != spared).collect();
        self.end_these(ids, |session| session.appid == *appid, now, revoked_until).await
    }

    async fn end_member(
        &self,
        member: &MemberId,
        at: Timestamp,
        revoked_until: Timestamp,
    ) -> Result<Vec<SessionId>, Error> {
        self.notify(&Notice::Member { member_id: member.clone(), at, until: revoked_until }).await?;
        let ids = self.listed(&SessionsOf::Member(member.clone())).await?;
        // Whatever they say of their beginning: the clock may be ahead where they were opened.
        self.end_these(ids, |_| true, at, revoked_until).await
    }

    async fn end_app(&self, appid: &AppId, at: Timestamp, until: Timestamp) -> Result<u64, Error> {
        let ahead = self.begun_since(&SessionsOf::App(appid.clone()), at).await?;
        self.notify(&Notice::App { appid: appid.clone(), at, until }).await?;
        let ahead = self.end_these(ahead, |_| true, at, until).await?;
        Ok(ahead.len() as u64 + self.end_rest_of_app(appid, at).await?)
    }

    async fn announce_roles(&self, roles: NewRoles) -> Result<NewRoles, Error> {
        let (at, until) = self.notify(&Notice::Roles(roles.clone())).await?;
        Ok(NewRoles { at, until, ..roles })
    }

    async fn notices(&self, now: Timestamp) -> Result<Vec<Notice>, Error> {
        self.live_notices(now).await
    }

    async fn notices_of(&self, of: &[NoticeOf], now: Timestamp) -> Result<Vec<Notice>, Error> {
        self.live_of(of, now).await
    }

    async fn list(
        &self,
        of: &SessionsOf,
        after: Option<&SessionId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Session>, Error> {
        self.newest(of, after, limit as usize, now).await
    }

    async fn count(&self, of: &SessionsOf, at_most: u32, now: Timestamp) -> Result<u32, Error> {
        let live = self.newest(of, None, at_most as usize, now).await?;
        Ok(u32::try_from(live.len()).unwrap_or(u32::MAX))
    }

    async fn revoked(&self, now: Timestamp) -> Result<Vec<Revoked>, Error> {
        self.live_revocations(now).await
    }

    async fn keep_key(&self, appid: &AppId, openid: &OpenId, key: SealedKey) -> Result<(), Error> {
        self.keep(appid, openid, &key).await
    }

    async fn session_keys(&self, appid: &AppId, openid: &OpenId) -> Result<Vec<SealedKey>, Error> {
        self.kept(appid, openid).await
    }

    async fn people_with_keys(&self, from: Option<&str>, limit: u32) -> Result<KeysPage, Error> {
        self.people(from, limit).await
    }

    async fn reseal_key(&self, appid: &AppId, openid: &OpenId, from: &[u8], to: Vec<u8>) -> Result<bool, Error> {
        self.reseal(appid, openid, from, &to).await
    }

    async fn erase_keys(&self, appid: &AppId, openid: &OpenId) -> Result<(), Error> {
        self.forget(appid, openid).await
    }

    async fn keep_access_token(&self, appid: &AppId, line: &'static str, token: SealedToken) -> Result<(), Error> {
        self.put_access_token(appid, line, &token).await
    }

    async fn access_token(&self, appid: &AppId, line: &'static str) -> Result<Option<SealedToken>, Error> {
        self.get_access_token(appid, line).await
    }

    async fn key_bundle(&self) -> Result<Option<Vec<u8>>, Error> {
        self.bundle().await
    }

    async fn replace_key_bundle(&self, from: Option<&[u8]>, to: &[u8]) -> Result<bool, Error> {
        self.replace_bundle(from, to).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, Error> {
        self.finish_ends(now).await?;
        // All else goes by itself.
        Ok(self.forget_notices(now).await? + self.sweep_lists().await?)
    }

    async fn ping(&self) -> Result<(), Error> {
        let _: Option<String> = self.link.read(redis::cmd("GET").arg(self.keys.birth())).await?;
        Ok(())
    }
}

impl Redis {
    /// All of a new session but its code; returns who has to make room for it.
    async fn open_in_steps(&self, new: &NewSession) -> Result<Vec<SessionId>, Error> {
        self.name_first_token(new).await?;
        if !self.make(new).await? {
            // The name led nowhere before, and must not lead to somebody else's session now.
            let key = self.keys.refresh(new.refresh);
            let _: u32 = self.link.write(&key, redis::cmd("DEL").arg(&key)).await?;
            return Err(NOT_NEW);
        }
        let keep = async {
            match &new.session_key {
                Some(key) => self.keep(&new.session.appid, &new.session.openid, key).await,
                None => Ok(()),
            }
        };
        // The list comes after the session, so that whoever takes it out of the list can end it; the code comes last, so
        // that nobody who repeats it finds a session that is in no list and no end of all would reach.
        Ok(try_join(self.enlist(new), keep).await?.0)
    }

    /// As [`Redis::turn_by_name`].
    async fn turn_in_steps(
        &self,
        shown: RefreshHash,
        successor: RefreshHash,
        use_: RefreshUse,
    ) -> Result<Option<(SessionId, Option<Rotation>)>, Error> {
        let Some(id) = self.owner(shown).await? else { return Ok(None) };
        // Before the successor stands: as long as it does not, its name leads to a session that does not know it. The
        // name is derived from the token that was shown, so whoever races here writes the same.
        let name = self.name_token(successor, &id, life(use_.now, use_.refresh_expires_at));
        let became = match try_join(name, self.is_revoked(&id)).await? {
            ((), true) => None,
            ((), false) => Some(self.turn(&id, shown, successor, use_).await?),
        };
        Ok(Some((id, became)))
    }

    /// What stands under the code that opened this session.
    pub(super) fn used(new: &NewSession) -> String {
        let (used_at, expires_at) = (digits(new.session.created_at), digits(new.code_expires_at));
        format!("{used_at} {expires_at} {} {}", u8::from(new.is_new), new.session.session_id.as_str())
    }

    /// The first token leads to the session; nobody else's may be of that name.
    async fn name_first_token(&self, new: &NewSession) -> Result<(), Error> {
        let key = self.keys.refresh(new.refresh);
        let life = life(new.session.created_at, new.refresh_expires_at);
        let mut cmd = redis::cmd("SET");
        cmd.arg(&key).arg(new.session.session_id.as_str()).arg("PX").arg(life).arg("NX");
        match self.link.write::<Option<String>>(&key, &cmd).await? {
            Some(_) => Ok(()),
            None => Err(NOT_NEW),
        }
    }

    async fn name_token(&self, token: RefreshHash, id: &SessionId, life: i64) -> Result<(), Error> {
        let key = self.keys.refresh(token);
        let mut cmd = redis::cmd("SET");
        cmd.arg(&key).arg(id.as_str()).arg("PX").arg(life);
        self.link.write(&key, &cmd).await
    }

    async fn use_code(&self, new: &NewSession) -> Result<(), Error> {
        let key = self.keys.code(&new.code);
        let mut cmd = redis::cmd("SET");
        cmd.arg(&key).arg(Self::used(new)).arg("PX").arg(life(new.session.created_at, new.code_expires_at));
        self.link.write(&key, &cmd).await
    }
}
