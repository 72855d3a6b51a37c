//! What overrides tokens beside the end of single sessions, and what instances tell each other of all that.
//!
//! Each change is written where it is kept and, in the same step, told in a stream. An instance reads the stream from where
//! it was; when that place is no longer there (it was away for long, or Redis lost it), it reads everything.

use redis::Value;
use redis::streams::StreamRangeReply;

use super::keys::{digits, session_id, time};
use super::{Redis, birth_mark};
use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId};
use crate::store::shared::News;
use crate::store::{Error, NewRoles, Notice, Revoked};

/// How long the stream is.
pub(super) const LENGTH: u32 = 10_000;

const DAMAGED: Error = Error::Damaged("a notice in Redis holds what is never written there");

impl Redis {
    /// Writes an epoch of a member or an app, or roles, and tells it.
    pub(super) async fn notify(&self, notice: &Notice) -> Result<(), Error> {
        let (of, at, until, content) = match notice {
            Notice::Session(revoked) => return self.revoke(&revoked.session_id, revoked.until).await,
            Notice::Member { member_id, at, until } => (format!("member:{}", member_id.as_str()), at, until, None),
            Notice::App { appid, at, until } => (format!("app:{}", appid.as_str()), at, until, None),
            Notice::Roles(new) => (format!("roles:{}", new.member_id.as_str()), &new.at, &new.until, Some(&new.roles)),
        };
        let content = content.map(|roles| serde_json::json!(roles).to_string()).unwrap_or_default();
        let (key, news) = (self.keys.notices(), self.keys.news());
        let mut script = self.scripts.notify.key(&key);
        script.key(&news).arg(of).arg(digits(*at)).arg(digits(*until)).arg(content).arg(LENGTH);
        let _: u32 = self.link.run(&key, &script).await?;
        Ok(())
    }

    /// All that is live, but for revocations of single sessions.
    pub(super) async fn live_notices(&self, now: Timestamp) -> Result<Vec<Notice>, Error> {
        let all: Vec<(String, String)> = self.link.read(redis::cmd("HGETALL").arg(self.keys.notices())).await?;
        let mut live = Vec::new();
        for (of, value) in all {
            let (notice, until) = notice(&of, &value).ok_or(DAMAGED)?;
            live.extend((until > now).then_some(notice));
        }
        Ok(live)
    }

    /// Forgets what is no longer needed.
    pub(super) async fn forget_notices(&self, now: Timestamp) -> Result<u64, Error> {
        let (revocations, notices) = (self.keys.revocations(), self.keys.notices());
        let mut script = self.scripts.sweep.key(&revocations);
        script.key(&notices).arg(now.millis());
        self.link.run(&revocations, &script).await
    }

    /// What was told since `position`.
    pub(super) async fn since(&self, position: Option<&str>) -> Result<News, Error> {
        let (birth, news) = (self.keys.birth(), self.keys.news());
        let mut script = self.scripts.news.key(&birth);
        script.key(&news).arg(position.unwrap_or("-")).arg(LENGTH);
        let (mark, told): (Option<String>, Value) = self.link.run_reading(&script).await?;
        let Some(mark) = mark else {
            // It has come back empty: from now on it has a mark again.
            let mark = birth_mark(&self.link, &self.keys).await?;
            return Ok(News { birth_mark: mark, position: String::new(), notices: None });
        };
        let told: StreamRangeReply = redis::from_redis_value(told).map_err(|_| DAMAGED)?;
        let known = position.is_some_and(|position| told.ids.first().is_some_and(|first| first.id == position));
        let last = told.ids.last().map(|last| last.id.clone());
        let notices = if known {
            let mut notices = Vec::new();
            for entry in &told.ids[1..] {
                for (of, value) in &entry.map {
                    let value: String = redis::from_redis_value_ref(value).map_err(|_| DAMAGED)?;
                    notices.push(notice(of, &value).ok_or(DAMAGED)?.0);
                }
            }
            Some(notices)
        } else {
            None
        };
        let position = match last {
            Some(last) => last,
            // Something to hold on to: from an empty stream nobody could tell that entries were lost.
            None => {
                let mut begin = redis::cmd("XADD");
                begin.arg(&news).arg("*").arg("begin").arg("");
                self.link.write(&news, &begin).await?
            }
        };
        Ok(News { birth_mark: mark, position, notices })
    }
}

/// A notice as it stands in the stream or among the notices, and its end.
fn notice(of: &str, value: &str) -> Option<(Notice, Timestamp)> {
    let (kind, id) = of.split_once(':')?;
    if kind == "session" {
        let revoked = Revoked { session_id: session_id(id)?, until: time(value)? };
        let until = revoked.until;
        return Some((Notice::Session(revoked), until));
    }
    let mut parts = value.splitn(3, ' ');
    let (at, until, content) = (time(parts.next()?)?, time(parts.next()?)?, parts.next()?);
    let notice = match kind {
        "member" => Notice::Member { member_id: MemberId::parse(id).ok()?, at, until },
        "app" => Notice::App { appid: AppId::parse(id).ok()?, at, until },
        "roles" => {
            let roles = serde_json::from_str(content).ok()?;
            Notice::Roles(NewRoles { member_id: MemberId::parse(id).ok()?, roles, at, until })
        }
        _ => return None,
    };
    Some((notice, until))
}
