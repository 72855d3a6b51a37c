//! Which sessions a member has, and an app: two sorted sets, by the beginnings of the sessions. A session's id begins with
//! the time of its login (UUIDv7), so this is the order of the ids.
//!
//! A list may name sessions that are gone; whether one lives is asked of the session. Whoever ends one takes it out.

use futures_util::future::try_join;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Redis;
use super::keys::{life, session_id};
use super::revocations::AT_ONCE;
use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId, SessionId};
use crate::store::{Error, NewSession, Session, SessionsOf};

/// Sessions that one step of a list looks at; more when fewer would not do.
const PAGE: usize = 200;

/// Oldest sessions of an app that one sweep looks at.
const SWEPT: usize = 500;

impl Redis {
    /// The session is among its member's and its app's. Returns those of the member that are too many now; they are still
    /// listed.
    pub(super) async fn enlist(&self, new: &NewSession) -> Result<Vec<SessionId>, Error> {
        let session = &new.session;
        let (id, begun) = (session.session_id.as_str(), session.created_at.millis());
        let of_app = self.keys.list(&SessionsOf::App(session.appid.clone()));
        let mut add = redis::cmd("ZADD");
        add.arg(&of_app).arg(begun).arg(id);
        // Every time, though it is there but for the first: a memory of that would outlive a Redis that was emptied.
        let (_, ()) = try_join(self.link.write::<u32>(&of_app, &add), self.know_app(&session.appid)).await?;
        let key = self.keys.list(&SessionsOf::Member(session.member_id.clone()));
        let mut script = self.scripts.list.key(&key);
        let most = new.max_sessions.map_or(0, std::num::NonZeroU32::get);
        script.arg(id).arg(begun).arg(life(session.created_at, session.expires_at)).arg(most);
        let surplus: Vec<String> = self.link.run(&key, &script).await?;
        Ok(surplus.iter().filter_map(|id| session_id(id)).collect())
    }

    /// Takes a session out of the lists.
    pub(super) async fn unlist(
        &self,
        id: &SessionId,
        member: Option<&MemberId>,
        appid: Option<&AppId>,
    ) -> Result<(), Error> {
        let of_member = member.map(|member| SessionsOf::Member(member.clone()));
        let of_app = appid.map(|appid| SessionsOf::App(appid.clone()));
        for of in [of_member, of_app].into_iter().flatten() {
            let key = self.keys.list(&of);
            let _: u32 = self.link.write(&key, redis::cmd("ZREM").arg(&key).arg(id.as_str())).await?;
        }
        Ok(())
    }

    /// All ids of a list.
    pub(super) async fn listed(&self, of: &SessionsOf) -> Result<Vec<SessionId>, Error> {
        let ids: Vec<String> = self.link.read(redis::cmd("ZRANGE").arg(self.keys.list(of)).arg(0).arg(-1)).await?;
        Ok(ids.iter().filter_map(|id| session_id(id)).collect())
    }

    /// The oldest that began before `at`.
    pub(super) async fn oldest(&self, of: &SessionsOf, at: Timestamp, limit: usize) -> Result<Vec<SessionId>, Error> {
        let mut cmd = redis::cmd("ZRANGEBYSCORE");
        cmd.arg(self.keys.list(of)).arg("-inf").arg(format!("({}", at.millis())).arg("LIMIT").arg(0).arg(limit);
        let ids: Vec<String> = self.link.read(&cmd).await?;
        Ok(ids.iter().filter_map(|id| session_id(id)).collect())
    }

    /// Those that say that they began at `at` or later.
    pub(super) async fn begun_since(&self, of: &SessionsOf, at: Timestamp) -> Result<Vec<SessionId>, Error> {
        let mut cmd = redis::cmd("ZRANGEBYSCORE");
        cmd.arg(self.keys.list(of)).arg(at.millis()).arg("+inf");
        let ids: Vec<String> = self.link.read(&cmd).await?;
        Ok(ids.iter().filter_map(|id| session_id(id)).collect())
    }

    /// Live sessions, newest first, after the last one of the page before.
    pub(super) async fn newest(
        &self,
        of: &SessionsOf,
        after: Option<&SessionId>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Session>, Error> {
        let mut live = Vec::new();
        let mut place = Place::after(after);
        while live.len() < limit {
            let page = self.before(of, &place).await?;
            let Some(last) = page.last().cloned() else { break };
            place = Place::after(Some(&last));
            let found = page.into_iter().map(|id| async move { self.standing(&id).await });
            let found: Vec<_> = stream::iter(found).buffered(AT_ONCE).try_collect().await?;
            let found = found.into_iter().flatten().filter(|standing| standing.ends > now);
            live.extend(found.filter_map(|standing| standing.session));
        }
        live.truncate(limit);
        Ok(live)
    }

    /// A page of ids that stand before a place, newest first; empty when there are none.
    async fn before(&self, of: &SessionsOf, place: &Place) -> Result<Vec<SessionId>, Error> {
        let mut size = PAGE;
        loop {
            let mut cmd = redis::cmd("ZREVRANGEBYSCORE");
            cmd.arg(self.keys.list(of)).arg(&place.from).arg("-inf").arg("LIMIT").arg(0).arg(size);
            let ids: Vec<String> = self.link.read(&cmd).await?;
            let all = ids.len() < size;
            let past: Vec<SessionId> =
                ids.iter().filter(|id| place.is_past(id)).filter_map(|id| session_id(id)).collect();
            if !past.is_empty() || all {
                return Ok(past);
            }
            // As many began in one millisecond.
            size *= 4;
        }
    }

    /// Drops what has gone from the lists of apps, oldest first. Those of members go with their last session.
    pub(super) async fn sweep_lists(&self) -> Result<u64, Error> {
        let apps: Vec<String> = self.link.read(redis::cmd("SMEMBERS").arg(self.keys.apps())).await?;
        let mut gone = 0;
        for appid in apps.iter().filter_map(|appid| AppId::parse(appid).ok()) {
            let of = SessionsOf::App(appid.clone());
            let oldest = self.oldest(&of, Timestamp::from_millis(i64::MAX >> 11), SWEPT).await?;
            for id in oldest {
                if self.standing(&id).await?.is_some() {
                    break;
                }
                self.unlist(&id, None, Some(&appid)).await?;
                gone += 1;
            }
        }
        Ok(gone)
    }

    /// The app is among those that have lists.
    async fn know_app(&self, appid: &AppId) -> Result<(), Error> {
        let key = self.keys.apps();
        let _: u32 = self.link.write(&key, redis::cmd("SADD").arg(&key).arg(appid.as_str())).await?;
        Ok(())
    }
}

/// Where a page begins: at the millisecond in the id of the last session, past that id.
struct Place {
    from: String,
    after: Option<String>,
}

impl Place {
    fn after(last: Option<&SessionId>) -> Self {
        let millis = last.and_then(|id| uuid::Uuid::try_parse(id.as_str()).ok()).map(|id| id.as_u128() >> 80);
        Self {
            from: millis.map_or_else(|| "+inf".to_owned(), |millis| millis.to_string()),
            after: last.map(|id| id.as_str().to_owned()),
        }
    }

    fn is_past(&self, id: &str) -> bool {
        self.after.as_deref().is_none_or(|after| id < after)
    }
}
