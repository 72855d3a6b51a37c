//! [`Sessions`] in Redis. The order of the writes is the point here: see the [module](super).

use async_trait::async_trait;
use futures_util::future::try_join;

use super::Redis;
use super::keys::{digits, life, session_id, time};
use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId, OpenId, SessionId};
use crate::store::{
    CodeHash, Error, NewSession, RefreshHash, RefreshUse, Revoked, Rotation, SealedKey, SealedToken, Session, Sessions,
    UsedCode,
};

const NOT_NEW: Error = Error::Damaged("an id or a hash that must be new is there already");

#[async_trait]
impl Sessions for Redis {
    async fn open(&self, new: NewSession) -> Result<(), Error> {
        try_join(self.name_first_token(&new), self.list(&new)).await?;
        if !self.make(&new).await? {
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
        try_join(keep, self.use_code(&new)).await?;
        Ok(())
    }

    async fn find(&self, id: &SessionId, now: Timestamp) -> Result<Option<Session>, Error> {
        let standing = self.standing(id).await?.filter(|standing| standing.ends > now);
        Ok(standing.and_then(|standing| standing.session))
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
        let Some(id) = self.owner(shown).await? else { return Ok(Rotation::Unknown) };
        // Before the successor stands: as long as it does not, its name leads to a session that does not know it. The
        // name is derived from the token that was shown, so whoever races here writes the same.
        self.name_token(successor, &id, life(use_.now, use_.refresh_expires_at)).await?;
        match self.turn(&id, shown, successor, use_).await? {
            // Told by all who raced; the one who ends it says so.
            Rotation::Reused(session) => match self.end_one(&id, use_.now, use_.revoked_until).await? {
                true => Ok(Rotation::Reused(session)),
                false => Ok(Rotation::Ended),
            },
            other => Ok(other),
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
        self.end_listed((member, appid), spared, now, revoked_until).await
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

    async fn erase_keys(&self, appid: &AppId, openid: &OpenId) -> Result<(), Error> {
        self.forget(appid, openid).await
    }

    async fn keep_access_token(&self, appid: &AppId, line: &'static str, token: SealedToken) -> Result<(), Error> {
        self.put_access_token(appid, line, &token).await
    }

    async fn access_token(&self, appid: &AppId, line: &'static str) -> Result<Option<SealedToken>, Error> {
        self.get_access_token(appid, line).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, Error> {
        // All else goes by itself.
        self.forget_revocations(now).await
    }

    async fn ping(&self) -> Result<(), Error> {
        let _: Option<String> = self.link.read(redis::cmd("GET").arg(self.keys.birth())).await?;
        Ok(())
    }
}

impl Redis {
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

    /// The session is among its member's.
    async fn list(&self, new: &NewSession) -> Result<(), Error> {
        let session = &new.session;
        let key = self.keys.member(&session.member_id, &session.appid);
        let mut script = self.scripts.list.key(&key);
        script
            .arg(session.session_id.as_str())
            .arg(session.expires_at.millis())
            .arg(session.created_at.millis())
            .arg(life(session.created_at, session.expires_at));
        let _: u32 = self.link.run(&key, &script).await?;
        Ok(())
    }

    async fn use_code(&self, new: &NewSession) -> Result<(), Error> {
        let key = self.keys.code(&new.code);
        let (used_at, expires_at) = (digits(new.session.created_at), digits(new.code_expires_at));
        let value = format!("{used_at} {expires_at} {} {}", u8::from(new.is_new), new.session.session_id.as_str());
        let mut cmd = redis::cmd("SET");
        cmd.arg(&key).arg(value).arg("PX").arg(life(new.session.created_at, new.code_expires_at));
        self.link.write(&key, &cmd).await
    }
}
