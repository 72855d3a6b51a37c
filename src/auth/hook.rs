//! The login hook: the business service is asked at each login, once WeChat has said who it is.
//!
//! `POST url {appid, openid, unionid?, member_id, is_new}`. 200 with `{roles?, claims?, user_id?}` lets the person in; what it
//! says replaces what it said before, and what it leaves out is gone. 403 with `{message}` refuses the login. Anything else
//! (no connection, no answer in time, another status, an answer that cannot stand) is a fault of the hook, and
//! `on_failure` decides: the login is refused, or goes on with what was known. After several faults in a row the hook is
//! left alone for a moment. Nothing is sent twice; a refresh asks nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::{StatusCode, redirect, retry};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{self, OnFailure};
use crate::ids::{AppId, MemberId, OpenId, UnionId, UserId};
use crate::problem::{Code, Problem};
use crate::store::{HookAnswer, Member};
use crate::token::is_reserved_claim;

use super::Auth;
use super::operate::are_roles;

/// Largest answer that is read, bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// Largest `claims` as JSON, bytes: they stand in every token.
const MAX_CLAIMS: usize = 2048;

/// Longest message of a refusal, characters.
const MAX_MESSAGE: usize = 200;

/// Faults in a row after which the hook is left alone, and for how long.
const FAULTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(5);

/// How the hook fares. Outlives a reload.
#[derive(Debug, Default)]
pub struct HookHealth {
    faults_in_a_row: AtomicU32,
    /// Steady milliseconds until which nobody asks.
    paused_until: AtomicU64,
    /// Answers of each kind, for metrics: let in, refused, fault, not asked.
    pub counts: HookCounts,
}

/// What came of the logins that the hook was to be asked about.
#[derive(Debug, Default)]
pub struct HookCounts {
    /// 200.
    pub allowed: AtomicU64,
    /// 403.
    pub refused: AtomicU64,
    /// No good answer.
    pub failed: AtomicU64,
    /// Not asked, after faults in a row.
    pub skipped: AtomicU64,
}

impl HookHealth {
    /// Whether it may be asked at this steady time. Of those who come after a pause one asks, and decides for the others.
    fn may_ask(&self, now: Duration) -> bool {
        if self.faults_in_a_row.load(Ordering::Acquire) < FAULTS {
            return true;
        }
        let until = self.paused_until.load(Ordering::Acquire);
        let now = millis(now);
        now >= until
            && self
                .paused_until
                .compare_exchange(until, now + millis(PAUSE), Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }

    fn answered(&self) {
        self.faults_in_a_row.store(0, Ordering::Release);
    }

    fn failed(&self, now: Duration) {
        if self.faults_in_a_row.fetch_add(1, Ordering::AcqRel) + 1 == FAULTS {
            self.paused_until.store(millis(now + PAUSE), Ordering::Release);
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The hook of one configuration.
#[derive(Debug, Clone)]
pub struct Hook {
    section: config::Hook,
    http: reqwest::Client,
    health: Arc<HookHealth>,
}

#[derive(Serialize)]
struct Question<'a> {
    appid: &'a AppId,
    openid: &'a OpenId,
    #[serde(skip_serializing_if = "Option::is_none")]
    unionid: Option<&'a UnionId>,
    member_id: &'a MemberId,
    is_new: bool,
}

#[derive(Deserialize, Default)]
struct Allowed {
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    claims: Map<String, Value>,
    user_id: Option<String>,
}

#[derive(Deserialize)]
struct Refused {
    #[serde(default)]
    message: String,
}

/// What it said.
#[derive(Debug)]
enum Said {
    Yes(HookAnswer),
    No(String),
}

/// Why it said nothing that counts. Holds nothing that it sent.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the login hook cannot be reached")]
    Connect(#[source] reqwest::Error),
    #[error("the login hook did not answer in time")]
    Timeout,
    #[error("the login hook is left alone after faults in a row")]
    Paused,
    #[error("the login hook answered {0}")]
    Status(u16),
    #[error("the login hook's answer cannot be used: {0}")]
    Answer(&'static str),
}

impl Hook {
    /// A client for the hook of this section; opens no connection yet.
    ///
    /// # Errors
    /// When the URL is `https` and the machine has no root certificates.
    pub fn new(section: &config::Hook, health: Arc<HookHealth>) -> Result<Self, reqwest::Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("wxgate/", env!("CARGO_PKG_VERSION")))
            .timeout(section.timeout)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .no_proxy();
        if section.url.starts_with("http:") {
            // Trusts no certificate at all, so that a bare machine without any can be used.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self { section: section.clone(), http: builder.build()?, health })
    }

    async fn ask(&self, question: &Question<'_>, now: Duration) -> Result<Said, Fault> {
        let counts = &self.health.counts;
        if !self.health.may_ask(now) {
            counts.skipped.fetch_add(1, Ordering::Relaxed);
            return Err(Fault::Paused);
        }
        let said = tokio::time::timeout(self.section.timeout, self.exchange(question)).await;
        let said = said.unwrap_or(Err(Fault::Timeout));
        match &said {
            Ok(answer) => {
                self.health.answered();
                let count = if matches!(answer, Said::Yes(_)) { &counts.allowed } else { &counts.refused };
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.health.failed(now);
                counts.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        said
    }

    async fn exchange(&self, question: &Question<'_>) -> Result<Said, Fault> {
        let classify = |error: reqwest::Error| {
            if error.is_timeout() { Fault::Timeout } else { Fault::Connect(error.without_url()) }
        };
        let mut response = self.http.post(&self.section.url).json(question).send().await.map_err(classify)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(classify)? {
            if body.len() + part.len() > MAX_ANSWER {
                return Err(Fault::Answer("it is longer than 16 KiB"));
            }
            body.extend_from_slice(&part);
        }
        match status {
            StatusCode::OK => read_allowed(&body).map(Said::Yes).map_err(Fault::Answer),
            StatusCode::FORBIDDEN => {
                // A refusal counts, whatever stands in it.
                let refused: Refused = serde_json::from_slice(&body).unwrap_or(Refused { message: String::new() });
                let shown = refused.message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE);
                Ok(Said::No(shown.collect()))
            }
            other => Err(Fault::Status(other.as_u16())),
        }
    }
}

/// An answer of which every part can stand; an empty body says nothing, and lets in.
fn read_allowed(body: &[u8]) -> Result<HookAnswer, &'static str> {
    let body = body.trim_ascii();
    if !body.is_empty() && !body.starts_with(b"{") {
        return Err("it is no JSON object");
    }
    let allowed: Allowed = if body.is_empty() {
        Allowed::default()
    } else {
        serde_json::from_slice(body).map_err(|_| "it is no JSON object with roles, claims and user_id")?
    };
    let mut roles = allowed.roles;
    roles.sort_unstable();
    roles.dedup();
    if !are_roles(&roles) {
        return Err("roles are at most 64 names of visible ASCII without comma, 2048 characters in all");
    }
    let user_id = allowed.user_id.map(|id| UserId::parse(&id)).transpose();
    let user_id = user_id.map_err(|_| "user_id is 1 to 128 characters of visible ASCII without comma")?;
    if allowed.claims.keys().any(|name| is_reserved_claim(name)) {
        return Err("a claim has a name that the gateway's own claims have, or may have");
    }
    let claims = if allowed.claims.is_empty() { String::new() } else { Value::Object(allowed.claims).to_string() };
    if claims.len() > MAX_CLAIMS {
        return Err("claims are longer than 2048 bytes");
    }
    Ok(HookAnswer { roles, user_id, claims })
}

impl Auth {
    /// Asks the hook, if there is one, whether this person may log in; returns the member with what it said.
    ///
    /// # Errors
    /// `login_refused` with its message; when it fails and `on_failure` is "refuse", `upstream_unavailable`,
    /// `upstream_timeout` or `upstream_failed`.
    pub(super) async fn ask_hook(
        &self,
        member: Member,
        is_new: bool,
        (appid, openid): (&AppId, &OpenId),
    ) -> Result<Member, Problem> {
        let Some(hook) = &self.hook else { return Ok(member) };
        let unionid = member.unionid.as_ref();
        let question = Question { appid, openid, unionid, member_id: &member.member_id, is_new };
        match hook.ask(&question, self.clock.steady()).await {
            Ok(Said::Yes(answer)) if answer == member.hook => Ok(member),
            Ok(Said::Yes(answer)) => {
                let (gone, id) = (Problem::token_revoked, &member.member_id);
                // Who has just been registered has no older tokens that say otherwise.
                let overrides = !is_new && answer.roles != member.hook.roles;
                if overrides {
                    // What operators gave beside it is known for sure once the answer is stored.
                    let others = member.roles.iter().filter(|role| !member.hook.roles.contains(role));
                    let wanted: Vec<String> = answer.roles.iter().chain(others).cloned().collect();
                    self.announce_kept_roles(&member, &wanted).await?;
                }
                let changed = self.members.set_hook(id, &answer).await?.ok_or_else(gone)?;
                if overrides { self.publish_roles(id).await?.ok_or_else(gone) } else { Ok(changed) }
            }
            Ok(Said::No(message)) => {
                let message = if message.is_empty() { "The service does not let you in.".to_owned() } else { message };
                Err(Problem::new(Code::LoginRefused, message))
            }
            Err(fault) => match hook.section.on_failure {
                OnFailure::Allow => {
                    tracing::warn!(%fault, "a login goes on without the login hook");
                    Ok(member)
                }
                OnFailure::Refuse => {
                    tracing::warn!(%fault, "a login is refused: the login hook failed");
                    Err(problem(fault))
                }
            },
        }
    }
}

fn problem(fault: Fault) -> Problem {
    let code = match fault {
        Fault::Connect(_) | Fault::Paused => Code::UpstreamUnavailable,
        Fault::Timeout => Code::UpstreamTimeout,
        Fault::Status(_) | Fault::Answer(_) => Code::UpstreamFailed,
    };
    let detail = "The service that decides about logins gave no good answer: call wx.login again in a moment.";
    Problem::new(code, detail).retry_after(PAUSE.as_secs()).caused_by(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_whole_or_not_at_all() {
        let full = br#" {"roles":["vip","a","vip"],"user_id":"u-17","claims":{"tier":"gold"},"more":1} "#;
        let answer = read_allowed(full).unwrap();
        assert_eq!(answer.roles, ["a", "vip"]);
        assert_eq!((answer.user_id, &*answer.claims), (UserId::parse("u-17").ok(), r#"{"tier":"gold"}"#));
        for empty in [&b""[..], b"{}", b"\n"] {
            assert_eq!(read_allowed(empty).unwrap(), HookAnswer::default());
        }
        for bad in [
            r#"[]"#,
            r#""yes""#,
            r#"{"roles":"vip"}"#,
            r#"{"roles":["a,b"]}"#,
            r#"{"user_id":17}"#,
            r#"{"user_id":""}"#,
            r#"{"user_id":"a b"}"#,
            r#"{"claims":[]}"#,
            r#"{"claims":{"sub":"admin"}}"#,
            r#"{"claims":{"exp":9999999999}}"#,
            r#"{"claims":{"roles":["admin"]}}"#,
            "{",
        ] {
            assert!(read_allowed(bad.as_bytes()).is_err(), "{bad}");
        }
        let long = serde_json::json!({ "claims": { "x": "y".repeat(MAX_CLAIMS) } }).to_string();
        assert!(read_allowed(long.as_bytes()).is_err());
    }

    #[test]
    fn after_faults_in_a_row_it_is_left_alone_and_then_one_asks() {
        let health = HookHealth::default();
        let at = Duration::from_secs;
        for _ in 0..FAULTS {
            assert!(health.may_ask(at(1)));
            health.failed(at(1));
        }
        assert!(!health.may_ask(at(1)) && !health.may_ask(at(5)));
        assert!(health.may_ask(at(6)), "one asks");
        assert!(!health.may_ask(at(6)), "and no other");
        health.answered();
        assert!(health.may_ask(at(6)));
    }
}
