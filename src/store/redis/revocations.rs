//! Revocations: one sorted set, and one line of news for each.

use futures_util::{StreamExt as _, stream};

use super::Redis;
use super::keys::session_id;
use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId, SessionId};
use crate::store::{Error, Revoked};

/// News that are kept. Whoever was away for longer reads everything.
const NEWS: u32 = 10_000;

/// Sessions of one member that are ended at the same time.
const AT_ONCE: usize = 16;

impl Redis {
    /// Writes a revocation, in force until `until` at least, and tells it.
    pub(super) async fn revoke(&self, id: &SessionId, until: Timestamp) -> Result<(), Error> {
        let (key, news) = (self.keys.revocations(), self.keys.news());
        let mut script = self.scripts.revoke.key(&key);
        script.key(&news).arg(id.as_str()).arg(until.millis()).arg(NEWS);
        let _: u32 = self.link.run(&key, &script).await?;
        Ok(())
    }

    /// Revokes first and marks then: see the [module](super).
    pub(super) async fn end_one(&self, id: &SessionId, now: Timestamp, until: Timestamp) -> Result<bool, Error> {
        self.revoke(id, until).await?;
        let ended = self.mark_ended(id, now).await?;
        if let Some(longer) = ended.access_until.filter(|longer| *longer > until) {
            self.revoke(id, longer).await?;
        }
        if let Some((member, appid)) = ended.member.filter(|_| ended.was_live) {
            // What stays in the list does no harm and goes with its end.
            let key = self.keys.member(&member, &appid);
            let _: Result<u32, Error> = self.link.write(&key, redis::cmd("ZREM").arg(&key).arg(id.as_str())).await;
        }
        Ok(ended.was_live)
    }

    /// Ends what is live of a member's sessions in an app.
    pub(super) async fn end_listed(
        &self,
        (member, appid): (&MemberId, &AppId),
        spared: Option<&SessionId>,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<SessionId>, Error> {
        let key = self.keys.member(member, appid);
        let after = format!("({}", now.millis());
        let ids: Vec<String> = self.link.read(redis::cmd("ZRANGEBYSCORE").arg(&key).arg(after).arg("+inf")).await?;
        let ids: Vec<SessionId> = ids.iter().filter_map(|id| session_id(id)).filter(|id| Some(id) != spared).collect();
        let mut endings = stream::iter(ids)
            .map(|id| async move {
                let live = self.standing(&id).await?.is_some_and(|s| s.session.is_some() && s.ends > now);
                let was_live = live && self.end_one(&id, now, until).await?;
                Ok::<_, Error>(was_live.then_some(id))
            })
            .buffer_unordered(AT_ONCE);
        let mut ended = Vec::new();
        while let Some(done) = endings.next().await {
            ended.extend(done?);
        }
        Ok(ended)
    }

    /// Every revocation in force at `now`.
    pub(super) async fn live_revocations(&self, now: Timestamp) -> Result<Vec<Revoked>, Error> {
        let after = format!("({}", now.millis());
        let mut cmd = redis::cmd("ZRANGEBYSCORE");
        cmd.arg(self.keys.revocations()).arg(after).arg("+inf").arg("WITHSCORES");
        let pairs: Vec<(String, f64)> = self.link.read(&cmd).await?;
        let revoked = pairs.into_iter().map(|(id, until)| {
            let session_id = session_id(&id).ok_or(Error::Damaged("a revocation in Redis names no session"))?;
            #[expect(clippy::cast_possible_truncation, reason = "whole milliseconds, written as such")]
            let until = Timestamp::from_millis(until as i64);
            Ok(Revoked { session_id, until })
        });
        revoked.collect()
    }

    /// Forgets what is no longer in force at `now`.
    pub(super) async fn forget_revocations(&self, now: Timestamp) -> Result<u64, Error> {
        let key = self.keys.revocations();
        let mut cmd = redis::cmd("ZREMRANGEBYSCORE");
        cmd.arg(&key).arg("-inf").arg(now.millis());
        self.link.write(&key, &cmd).await
    }
}
