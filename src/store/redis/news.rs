//! What overrides tokens beside the end of single sessions, and what instances tell each other of all that.
//!
//! Each change is written where it is kept and, in the same step, told in a stream. An instance reads the stream from where
//! it was; when that place is no longer there (it was away for long, or Redis lost it), it reads everything.

use std::sync::atomic::Ordering;

use redis::Value;
use redis::streams::StreamRangeReply;

use super::keys::{digits, session_id, time};
use super::{Redis, birth_mark};
use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId};
use crate::store::shared::News;
use crate::store::{Error, NewRoles, Notice, NoticeOf, Revoked};

/// How long the stream is.
pub(super) const LENGTH: u32 = 10_000;

/// What is told, and kept, of what.
const KINDS: [&str; 4] = ["session", "member", "app", "roles"];

/// What is told first.
const BEGIN: &str = "begin";

const DAMAGED: Error = Error::Damaged("a notice in Redis holds what is never written there");

impl Redis {
    /// Writes an epoch of a member or an app, or roles, and tells it. Returns time and end of what stands now.
    pub(super) async fn notify(&self, notice: &Notice) -> Result<(Timestamp, Timestamp), Error> {
        let (of, at, until, content) = match notice {
            Notice::Session(Revoked { session_id, until }) => {
                self.revoke(session_id, *until).await?;
                return Ok((*until, *until));
            }
            Notice::Member { member_id, at, until } => (format!("member:{}", member_id.as_str()), at, until, None),
            Notice::App { appid, at, until } => (format!("app:{}", appid.as_str()), at, until, None),
            Notice::Roles(new) => (format!("roles:{}", new.member_id.as_str()), &new.at, &new.until, Some(&new.roles)),
        };
        let content = content.map(|roles| serde_json::json!(roles).to_string()).unwrap_or_default();
        let (key, news) = (self.keys.notices(), self.keys.news());
        let mut script = self.scripts.notify.key(&key);
        script.key(&news).arg(of).arg(digits(*at)).arg(digits(*until)).arg(content).arg(LENGTH);
        let stands: String = self.link.run(&key, &script).await?;
        let mut times = stands.splitn(3, ' ').filter_map(time);
        times.next().zip(times.next()).ok_or(DAMAGED)
    }

    /// All that is live, but for revocations of single sessions.
    pub(super) async fn live_notices(&self, now: Timestamp) -> Result<Vec<Notice>, Error> {
        let all = self.all_notices().await?.into_iter();
        Ok(all.filter(|(_, until)| *until > now).map(|(notice, _)| notice).collect())
    }

    /// Those of these that are live.
    pub(super) async fn live_of(&self, of: &[NoticeOf], now: Timestamp) -> Result<Vec<Notice>, Error> {
        let (mut sessions, mut fields) = (Vec::new(), Vec::new());
        for one in of {
            match one {
                NoticeOf::Session(id) => sessions.push(id),
                NoticeOf::Member(id) => fields.push(format!("member:{}", id.as_str())),
                NoticeOf::App(id) => fields.push(format!("app:{}", id.as_str())),
                NoticeOf::Roles(id) => fields.push(format!("roles:{}", id.as_str())),
            }
        }
        let mut live = self.live_revocations_of(&sessions, now).await?;
        if fields.is_empty() {
            return Ok(live);
        }
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(self.keys.notices()).arg(&fields);
        let values: Vec<Option<String>> = self.link.read(&cmd).await?;
        for (of, value) in fields.iter().zip(values) {
            let Some(value) = value else { continue };
            live.extend(self.known(of, &value)?.filter(|(_, until)| *until > now).map(|(notice, _)| notice));
        }
        Ok(live)
    }

    /// All that is kept, each with its end.
    pub(super) async fn all_notices(&self) -> Result<Vec<(Notice, Timestamp)>, Error> {
        let all: Vec<(String, String)> = self.link.read(redis::cmd("HGETALL").arg(self.keys.notices())).await?;
        let mut known = Vec::new();
        for (of, value) in all {
            known.extend(self.known(&of, &value)?);
        }
        Ok(known)
    }

    /// A notice and its end. Of a kind that this version does not know, nothing: in a deployment that is being upgraded, newer
    /// instances may tell what older ones have no part in, and these must not take it for damage and stop hearing all else.
    fn known(&self, of: &str, value: &str) -> Result<Option<(Notice, Timestamp)>, Error> {
        let kind = of.split_once(':').map_or(of, |(kind, _)| kind);
        if KINDS.contains(&kind) {
            return notice(of, value).map(Some).ok_or(DAMAGED);
        }
        if self.skipped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                kind,
                "a notice of a kind that this version does not know is passed over: is a newer one running?"
            );
        }
        Ok(None)
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
        script.key(&news).arg(position.unwrap_or_default()).arg(LENGTH);
        let (mark, told): (Option<String>, Value) = self.link.run_reading(&script).await?;
        let Some(mark) = mark else {
            // It has come back empty: from now on it has a mark again.
            let mark = birth_mark(&self.link, &self.keys).await?;
            return Ok(News { birth_mark: mark, position: None, notices: None, more: false });
        };
        let told: StreamRangeReply = redis::from_redis_value(told).map_err(|_| DAMAGED)?;
        let known = position.is_some_and(|position| told.ids.first().is_some_and(|first| first.id == position));
        // As many as were asked for: there may be more behind them.
        let more = position.is_some() && told.ids.len() >= LENGTH as usize;
        let last = told.ids.last().map(|last| last.id.clone());
        let notices = if known {
            let mut notices = Vec::new();
            for entry in &told.ids[1..] {
                for (of, value) in entry.map.iter().filter(|(of, _)| *of != BEGIN) {
                    let value: String = redis::from_redis_value_ref(value).map_err(|_| DAMAGED)?;
                    notices.extend(self.known(of, &value)?.map(|(notice, _)| notice));
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
                begin.arg(&news).arg("*").arg(BEGIN).arg("");
                self.link.write(&news, &begin).await?
            }
        };
        Ok(News { birth_mark: mark, position: Some(position), notices, more })
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
