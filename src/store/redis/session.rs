//! One session and its refresh tokens: one key, read and changed as a whole. That its end was begun stands elsewhere, among the
//! revocations, and is asked wherever a session is asked for.

use futures_util::future::try_join;
use redis::ScriptInvocation;

use super::Redis;
use super::keys::{digits, life, session_id, time};
use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId, OpenId, SessionId};
use crate::store::{Error, NewSession, RefreshHash, RefreshUse, Rotation, Session};

const DAMAGED: Error = Error::Damaged("a session in Redis holds what is never written there");

/// Length of a time in a token's field.
const DIGITS: usize = 15;

/// What ending a session found.
pub(super) struct Ended {
    pub(super) was_live: bool,
    /// Until when its access tokens may live, if it is known.
    pub(super) access_until: Option<Timestamp>,
}

/// A session as it stands, and one of its tokens.
pub(super) struct Standing {
    /// `None` when it was ended, or revoked.
    pub(super) session: Option<Session>,
    pub(super) ends: Timestamp,
}

impl Redis {
    /// Writes the session with its first token. False when it is there already.
    pub(super) async fn make(&self, new: &NewSession) -> Result<bool, Error> {
        let key = self.keys.session(new.session.session_id.as_str());
        let mut script = self.scripts.open.key(&key);
        Self::describe(new, &mut script);
        self.link.run(&key, &script).await
    }

    /// Says of a new session what its script takes.
    pub(super) fn describe(new: &NewSession, script: &mut ScriptInvocation<'_>) {
        let session = &new.session;
        script
            .arg(session.member_id.as_str())
            .arg(session.appid.as_str())
            .arg(session.openid.as_str())
            .arg(digits(session.created_at))
            .arg(digits(session.expires_at))
            .arg(digits(new.access_until.min(session.expires_at)))
            .arg(&new.refresh.0[..])
            .arg(digits(new.refresh_expires_at.min(session.expires_at)))
            .arg(life(session.created_at, session.expires_at));
    }

    /// The session, whatever became of it; `None` when it is not known.
    pub(super) async fn standing(&self, id: &SessionId) -> Result<Option<Standing>, Error> {
        let found = self.fields(id, None).await?;
        Ok(found.map(|(standing, _)| standing))
    }

    /// The session and the end of one of its tokens; `None` when either is not known.
    pub(super) async fn standing_of_token(
        &self,
        id: &SessionId,
        token: RefreshHash,
    ) -> Result<Option<(Standing, Timestamp)>, Error> {
        let found = self.fields(id, Some(token)).await?;
        Ok(found.and_then(|(standing, token_ends)| Some((standing, token_ends?))))
    }

    async fn fields(
        &self,
        id: &SessionId,
        token: Option<RefreshHash>,
    ) -> Result<Option<(Standing, Option<Timestamp>)>, Error> {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(self.keys.session(id.as_str()));
        for field in ["m", "a", "o", "c", "x", "e"] {
            cmd.arg(field);
        }
        cmd.arg(token.as_ref().map_or(&b"-"[..], |token| &token.0[..]));
        type Fields = (
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<Vec<u8>>,
        );
        let (fields, revoked) = try_join(self.link.read::<Fields>(&cmd), self.is_revoked(id)).await?;
        let (member, app, openid, created, ends, ended, token) = fields;
        let (Some(member), Some(app), Some(created), Some(ends)) = (member, app, created, ends) else {
            return Ok(None);
        };
        let token_ends = match token {
            None => None,
            Some(token) => {
                let digits = token.get(..DIGITS).and_then(|digits| std::str::from_utf8(digits).ok());
                Some(digits.and_then(time).ok_or(DAMAGED)?)
            }
        };
        let ends_at = time(&ends).ok_or(DAMAGED)?;
        let session = match ended {
            Some(_) => None,
            None if revoked => None,
            None => {
                let openid = openid.ok_or(DAMAGED)?;
                Some(session(id, &[member, app, openid, created, ends]).ok_or(DAMAGED)?)
            }
        };
        Ok(Some((Standing { session, ends: ends_at }, token_ends)))
    }

    /// The session, if it lives; one of its access tokens may live until then.
    pub(super) async fn prolong_live(
        &self,
        id: &SessionId,
        now: Timestamp,
        access_until: Timestamp,
    ) -> Result<Option<Session>, Error> {
        let key = self.keys.session(id.as_str());
        let mut script = self.scripts.prolong.key(&key);
        script.arg(digits(now)).arg(digits(access_until));
        let told: Vec<String> = self.link.run(&key, &script).await?;
        match told.is_empty() {
            true => Ok(None),
            false => session(id, &told).map(Some).ok_or(DAMAGED),
        }
    }

    /// Uses a token of this session. Of reuse it only tells.
    pub(super) async fn turn(
        &self,
        id: &SessionId,
        shown: RefreshHash,
        successor: RefreshHash,
        use_: RefreshUse,
    ) -> Result<Rotation, Error> {
        let key = self.keys.session(id.as_str());
        let mut script = self.scripts.rotate.key(&key);
        Self::describe_use(shown, successor, use_, &mut script);
        rotation(id, &self.link.run::<Vec<String>>(&key, &script).await?)
    }

    /// Says of the use of a token what its script takes.
    pub(super) fn describe_use(
        shown: RefreshHash,
        successor: RefreshHash,
        use_: RefreshUse,
        script: &mut ScriptInvocation<'_>,
    ) {
        script
            .arg(&shown.0[..])
            .arg(&successor.0[..])
            .arg(digits(use_.now))
            .arg(u64::try_from(use_.grace.as_millis()).unwrap_or(u64::MAX))
            .arg(digits(use_.refresh_expires_at))
            .arg(digits(use_.revoked_until));
    }

    /// Marks the session as ended.
    pub(super) async fn mark_ended(&self, id: &SessionId, now: Timestamp) -> Result<Ended, Error> {
        let key = self.keys.session(id.as_str());
        let mut script = self.scripts.end.key(&key);
        script.arg(digits(now));
        let (live, access, member, app): (String, String, String, String) = self.link.run(&key, &script).await?;
        let was_live = live == "1";
        if was_live {
            // What stays in a list does no harm: whether a session lives is asked of the session.
            let (member, app) = (MemberId::parse(&member).ok(), AppId::parse(&app).ok());
            let _: Result<(), Error> = self.unlist(id, member.as_ref(), app.as_ref()).await;
        }
        Ok(Ended { was_live, access_until: time(&access).filter(|until| until.millis() > 0) })
    }

    /// Member and app of a session, ended or not, that has not expired.
    pub(super) async fn owner_named(&self, id: &SessionId, now: Timestamp) -> Result<Option<(MemberId, AppId)>, Error> {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(self.keys.session(id.as_str())).arg("m").arg("a").arg("x");
        let (member, app, ends): (Option<String>, Option<String>, Option<String>) = self.link.read(&cmd).await?;
        let (Some(member), Some(app), Some(ends)) = (member, app, ends) else { return Ok(None) };
        let owner = || Some((MemberId::parse(&member).ok()?, AppId::parse(&app).ok()?, time(&ends)?));
        let (member, app, ends) = owner().ok_or(DAMAGED)?;
        Ok((ends > now).then_some((member, app)))
    }

    /// The session that this token names, whether or not it stands.
    pub(super) async fn owner(&self, token: RefreshHash) -> Result<Option<SessionId>, Error> {
        let id: Option<String> = self.link.read(redis::cmd("GET").arg(self.keys.refresh(token))).await?;
        id.map(|id| session_id(&id).ok_or(DAMAGED)).transpose()
    }
}

/// What a script tells of a token of this session.
pub(super) fn rotation(id: &SessionId, told: &[String]) -> Result<Rotation, Error> {
    match told.split_first().map(|(what, rest)| (what.as_str(), rest)) {
        Some(("rotated", [fields @ .., till])) => {
            let session = session(id, fields).ok_or(DAMAGED)?;
            Ok(Rotation::Rotated { session, refresh_expires_at: time(till).ok_or(DAMAGED)? })
        }
        Some(("reused", [fields @ .., _])) => Ok(Rotation::Reused(session(id, fields).ok_or(DAMAGED)?)),
        Some(("ended", _)) => Ok(Rotation::Ended),
        Some(("unknown", _)) => Ok(Rotation::Unknown),
        Some(("foreign", _)) => {
            Err(Error::Damaged("the successor of this refresh token was derived with another refresh key"))
        }
        _ => Err(Error::Damaged("an id or a hash that must be new is there already")),
    }
}

/// From member, app, openid, login and end.
fn session(id: &SessionId, fields: &[String]) -> Option<Session> {
    let [member, app, openid, created, ends] = fields else { return None };
    Some(Session {
        session_id: id.clone(),
        member_id: MemberId::parse(member).ok()?,
        appid: AppId::parse(app).ok()?,
        openid: OpenId::parse(openid).ok()?,
        created_at: time(created)?,
        expires_at: time(ends)?,
    })
}
