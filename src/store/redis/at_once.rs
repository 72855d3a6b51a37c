//! A login and a refresh in one step each, where all keys are on one server: one round trip in the place of several, and nothing
//! in between that a crash could leave.

use redis::Script;

use super::Redis;
use super::keys::{Keys, digits, life, session_id};
use super::link::Link;
use super::session::rotation;
use crate::ids::SessionId;
use crate::store::{Error, NewSession, RefreshHash, RefreshUse, Rotation, SessionsOf};

const DAMAGED: Error = Error::Damaged("a name in Redis leads to what is no session");

/// Whether this Redis lets a script reach over keys as a server by itself does. Clusters do not, and neither do proxies in
/// front of one that look like a server.
pub(super) async fn is_possible(link: &Link, keys: &Keys) -> bool {
    if link.is_cluster() {
        return false;
    }
    let script = Script::new(include_str!("scripts/at_once.lua"));
    let mut probe = script.key(keys.birth());
    probe.key(keys.apps()).arg(keys.key_bundle());
    let answered = link.run_reading::<u32>(&probe).await;
    if let Err(error) = &answered {
        tracing::info!(%error, "this Redis runs no script over several keys: a login and a refresh take several steps");
    }
    answered.is_ok()
}

impl Redis {
    /// Writes all of a login. Returns who has to make room, in which case the code is not written down yet; `None` when the
    /// session or its token is there already, and then nothing is written.
    pub(super) async fn log_in(&self, new: &NewSession) -> Result<Option<Vec<SessionId>>, Error> {
        let session = &new.session;
        let (id, created) = (session.session_id.as_str(), session.created_at);
        let key = self.keys.session(id);
        let mut script = self.scripts.log_in.key(self.keys.refresh(new.refresh));
        script
            .key(&key)
            .key(self.keys.list(&SessionsOf::Member(session.member_id.clone())))
            .key(self.keys.list(&SessionsOf::App(session.appid.clone())))
            .key(self.keys.apps())
            .key(self.keys.session_keys(&session.appid, &session.openid))
            .key(self.keys.code(&new.code));
        Self::describe(new, &mut script);
        let (sealed, exchanged_at) =
            new.session_key.as_ref().map_or((&b""[..], created), |key| (&key.sealed, key.exchanged_at));
        script
            .arg(id)
            .arg(life(created, new.refresh_expires_at))
            .arg(created.millis())
            .arg(new.max_sessions.map_or(0, std::num::NonZeroU32::get))
            .arg(sealed)
            .arg(digits(exchanged_at))
            .arg(Self::used(new))
            .arg(life(created, new.code_expires_at));
        let told: Vec<String> = self.link.run(&key, &script).await?;
        Ok(match told.split_first() {
            Some((is_new, surplus)) if is_new == "1" => Some(surplus.iter().filter_map(|id| session_id(id)).collect()),
            _ => None,
        })
    }

    /// Uses a token, as [`Redis::turn`] does, and names its successor. The session comes with what became of the token, or with
    /// `None` when it is revoked; `None` alone when nothing is known of the token.
    pub(super) async fn turn_by_name(
        &self,
        shown: RefreshHash,
        successor: RefreshHash,
        use_: RefreshUse,
    ) -> Result<Option<(SessionId, Option<Rotation>)>, Error> {
        let key = self.keys.refresh(shown);
        let mut script = self.scripts.refresh.key(&key);
        script
            .key(self.keys.refresh(successor))
            .key(self.keys.revocations())
            .arg(self.keys.session(""))
            .arg(life(use_.now, use_.refresh_expires_at));
        Self::describe_use(shown, successor, use_, &mut script);
        let told: Vec<String> = self.link.run(&key, &script).await?;
        let (id, told) = told.split_first().ok_or(DAMAGED)?;
        if id.is_empty() {
            return Ok(None);
        }
        let id = session_id(id).ok_or(DAMAGED)?;
        let became = if told == ["revoked"] { None } else { Some(rotation(&id, told)?) };
        Ok(Some((id, became)))
    }
}
