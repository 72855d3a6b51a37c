//! The end of sessions: revocation first, then the session. One, all of a member, all of an app.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Redis;
use super::keys::{begun, session_id};
use super::news::LENGTH;
use crate::clock::Timestamp;
use crate::ids::{AppId, SessionId};
use crate::store::{Error, Notice, Revoked, SessionsOf};

/// Sessions that are looked at, or ended, at the same time.
pub(super) const AT_ONCE: usize = 32;

/// Sessions of an app that one step of its end takes.
const PAGE: usize = 500;

impl Redis {
    /// Writes a revocation, in force until `until` at least, and tells it.
    pub(super) async fn revoke(&self, id: &SessionId, until: Timestamp) -> Result<(), Error> {
        let (key, news) = (self.keys.revocations(), self.keys.news());
        let mut script = self.scripts.revoke.key(&key);
        script.key(&news).arg(id.as_str()).arg(until.millis()).arg(LENGTH);
        let _: u32 = self.link.run(&key, &script).await?;
        Ok(())
    }

    /// Whether the end of this session was begun at least.
    pub(super) async fn is_revoked(&self, id: &SessionId) -> Result<bool, Error> {
        let until: Option<f64> =
            self.link.read(redis::cmd("ZSCORE").arg(self.keys.revocations()).arg(id.as_str())).await?;
        Ok(until.is_some())
    }

    /// Revokes first and marks then: see the [module](super).
    pub(super) async fn end_one(&self, id: &SessionId, now: Timestamp, until: Timestamp) -> Result<bool, Error> {
        self.revoke(id, until).await?;
        let ended = self.mark_ended(id, now).await?;
        if let Some(longer) = ended.access_until.filter(|longer| *longer > until) {
            self.revoke(id, longer).await?;
        }
        Ok(ended.was_live)
    }

    /// Ends those of `ids` that are live and that `wanted` is true of; returns them.
    pub(super) async fn end_these(
        &self,
        ids: Vec<SessionId>,
        wanted: impl Fn(&crate::store::Session) -> bool + Send + Sync,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<SessionId>, Error> {
        let wanted = &wanted;
        let endings = ids.into_iter().map(|id| async move {
            let standing = self.standing(&id).await?.filter(|standing| standing.ends > now);
            let live = standing.and_then(|standing| standing.session).is_some_and(|session| wanted(&session));
            let was_live = live && self.end_one(&id, now, until).await?;
            Ok::<_, Error>(was_live.then_some(id))
        });
        let ended: Vec<Option<SessionId>> = stream::iter(endings).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(ended.into_iter().flatten().collect())
    }

    /// Ends the sessions of an app that were opened before `at`, oldest first, a page at a time. The epoch of the app
    /// stands for their revocations.
    pub(super) async fn end_rest_of_app(&self, appid: &AppId, at: Timestamp) -> Result<u64, Error> {
        let of = SessionsOf::App(appid.clone());
        let mut ended = 0;
        loop {
            let ids = self.oldest(&of, at, PAGE).await?;
            let last = ids.len() < PAGE;
            let marks = ids.into_iter().map(|id| async move {
                let marked = self.mark_ended(&id, Timestamp::from_millis(0)).await?;
                // Of whom nothing is known any more, the list at least.
                self.unlist(&id, None, Some(appid)).await?;
                Ok::<_, Error>(marked.was_live)
            });
            let marks: Vec<bool> = stream::iter(marks).buffer_unordered(AT_ONCE).try_collect().await?;
            ended += marks.into_iter().filter(|was_live| *was_live).count() as u64;
            if last {
                return Ok(ended);
            }
        }
    }

    /// Ends what an end has left that broke off: of an app at any time, else before the last word of it is forgotten, since
    /// until then it is heeded wherever the session is asked for.
    pub(super) async fn finish_ends(&self, now: Timestamp) -> Result<(), Error> {
        for (notice, until) in self.all_notices().await? {
            match notice {
                Notice::App { appid, at, .. } if until > now => drop(self.end_rest_of_app(&appid, at).await?),
                Notice::Member { member_id, at, .. } if until <= now => {
                    let mut ids = self.listed(&SessionsOf::Member(member_id)).await?;
                    ids.retain(|id| begun(id).is_some_and(|begun| begun < at));
                    self.mark_all(ids).await?;
                }
                _ => {}
            }
        }
        let mut cmd = redis::cmd("ZRANGEBYSCORE");
        cmd.arg(self.keys.revocations()).arg("-inf").arg(now.millis());
        let ids: Vec<String> = self.link.read(&cmd).await?;
        self.mark_all(ids.iter().filter_map(|id| session_id(id)).collect()).await
    }

    async fn mark_all(&self, ids: Vec<SessionId>) -> Result<(), Error> {
        let marks =
            ids.into_iter().map(|id| async move { self.mark_ended(&id, Timestamp::from_millis(0)).await.map(drop) });
        stream::iter(marks).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Every revocation in force at `now`.
    pub(super) async fn live_revocations(&self, now: Timestamp) -> Result<Vec<Revoked>, Error> {
        let after = format!("({}", now.millis());
        let mut cmd = redis::cmd("ZRANGEBYSCORE");
        cmd.arg(self.keys.revocations()).arg(after).arg("+inf").arg("WITHSCORES");
        let pairs: Vec<(String, f64)> = self.link.read(&cmd).await?;
        let revoked = pairs.into_iter().map(|(id, until)| {
            let session_id = session_id(&id).ok_or(Error::Damaged("a revocation in Redis names no session"))?;
            Ok(Revoked { session_id, until: end(until) })
        });
        revoked.collect()
    }

    /// Those of these sessions whose revocation is in force at `now`.
    pub(super) async fn live_revocations_of(&self, ids: &[&SessionId], now: Timestamp) -> Result<Vec<Notice>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut cmd = redis::cmd("ZMSCORE");
        cmd.arg(self.keys.revocations());
        for id in ids {
            cmd.arg(id.as_str());
        }
        let scores: Vec<Option<f64>> = self.link.read(&cmd).await?;
        let known = ids.iter().zip(scores).filter_map(|(id, score)| Some(((*id).clone(), end(score?))));
        Ok(known.filter(|(_, until)| *until > now).map(|(id, until)| revoked(id, until)).collect())
    }
}

fn revoked(session_id: SessionId, until: Timestamp) -> Notice {
    Notice::Session(Revoked { session_id, until })
}

#[expect(clippy::cast_possible_truncation, reason = "whole milliseconds, written as such")]
fn end(score: f64) -> Timestamp {
    Timestamp::from_millis(score as i64)
}
