//! The access token of each app: WeChat's credential for every call that is not a login.
//!
//! One is held per app and handed to whoever calls. It is fetched by the first call that needs it, one fetch at a time
//! however many wait, and renewed in the background by the first call within [`AHEAD`] of its end: WeChat lets old and new
//! overlap that long, so nobody waits for a renewal. A call that WeChat refuses because of its token drops the token, if it
//! is still the one that is held, and is repeated once with another (official pages "Get stable interface call credential",
//! "`access_token` usage notes"). A forced refresh is never asked for: it would kill the token of everybody else.
//!
//! What was fetched is kept ([`Keep`]), so that a restart asks WeChat for nothing. Logins need no access token and never
//! wait for one.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use serde_json::{Map, Value, json};

use super::{Client, Error, Meaning};
use crate::clock::{Clock, Timestamp};
use crate::config::{AccessTokenLine, App};
use crate::ids::{AppId, Secret};
use crate::metrics::Counter;

const STABLE_PATH: &str = "/cgi-bin/stable_token";
const CLASSIC_PATH: &str = "/cgi-bin/token";

/// How long before its end a token is renewed: WeChat's overlap. Earlier, the stable line gives the same one again.
pub const AHEAD: Duration = Duration::from_secs(5 * 60);

/// What a token must still live to be used: the call has to arrive before its end.
const SPARE: Duration = Duration::from_secs(10);

/// Pause after a renewal that failed or brought nothing new, while the old token is still good.
const PAUSE: Duration = Duration::from_secs(10);

/// Refused tokens that are replaced at once, so many a minute; beyond that the refusal goes to the caller. Two servers
/// that kick each other out must not use up the day's quota.
const REPLACED_A_MINUTE: u32 = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// How often an instance looks whether another one has fetched.
const LOOK: Duration = Duration::from_millis(100);

/// Longest token that is taken, bytes. WeChat asks for room for 512.
const MAX_TOKEN: usize = 2048;

/// Longest life that is believed.
const MAX_LIFE: u64 = 24 * 3600;

/// An access token. `Debug` shows nothing; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken(Arc<Secret<String>>);

impl AccessToken {
    /// Wraps `text`.
    pub fn new(text: String) -> Self {
        Self(Arc::new(Secret::new(text)))
    }

    /// The token itself. Must not reach a log, an error or a client.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// A token and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The token.
    pub token: AccessToken,
    /// When WeChat stops taking it.
    pub expires_at: Timestamp,
}

impl Granted {
    fn is_good(&self, now: Timestamp) -> bool {
        now < self.expires_at.minus(SPARE)
    }

    fn is_due(&self, now: Timestamp) -> bool {
        now >= self.expires_at.minus(AHEAD)
    }
}

/// Where tokens outlive the process. Whatever goes wrong there is logged there: it costs a fetch and nothing else.
#[async_trait]
pub trait Keep: Send + Sync + fmt::Debug {
    /// What was saved last.
    async fn load(&self, appid: &AppId, line: AccessTokenLine) -> Option<Granted>;

    /// Saves it in place of the one before.
    async fn save(&self, appid: &AppId, line: AccessTokenLine, granted: &Granted);

    /// Whether this instance is to fetch the next one; `own` says whose claim it is. Of all instances, one at a time is.
    async fn claim(&self, appid: &AppId, line: AccessTokenLine, own: &[u8]) -> bool;

    /// Gives the claim back.
    async fn release(&self, appid: &AppId, line: AccessTokenLine, own: &[u8]);
}

/// A fetch under way, and all who wait for it.
type Fetch = Shared<BoxFuture<'static, Result<AccessToken, Error>>>;

/// The lines are separate at WeChat, so a token of one is never taken for one of the other.
type Key = (AppId, AccessTokenLine);

#[derive(Default)]
struct Held {
    granted: Option<Granted>,
    fetch: Option<Fetch>,
    /// Not renewed before this time.
    renew_from: Timestamp,
    /// The one that WeChat refused last: not taken from [`Keep`] again.
    refused: Option<AccessToken>,
    /// Refusals since `counted_from`.
    replaced: u32,
    counted_from: Timestamp,
}

/// The access tokens of all apps. Outlives reloads.
pub struct AccessTokens {
    clock: Clock,
    keep: Arc<dyn Keep>,
    /// Held for a few lines, never across an await. One entry for each app that was called for.
    held: Mutex<HashMap<Key, Held>>,
    fetches: Counter,
    failures: Counter,
    refusals: Counter,
}

impl AccessTokens {
    /// None held yet; `keep` is asked first.
    pub fn new(clock: Clock, keep: Arc<dyn Keep>) -> Self {
        Self {
            clock,
            keep,
            held: Mutex::default(),
            fetches: Counter::default(),
            failures: Counter::default(),
            refusals: Counter::default(),
        }
    }

    /// The token of `app`.
    ///
    /// # Errors
    /// Those of the call that fetches it, the same for all who waited for it.
    pub async fn get(self: &Arc<Self>, client: &Client, app: &App) -> Result<AccessToken, Error> {
        let now = self.clock.now();
        let fetch = {
            let mut all = self.lock();
            let held = all.entry((app.appid.clone(), app.access_token)).or_default();
            let good =
                held.granted.as_ref().filter(|granted| granted.is_good(now)).map(|granted| granted.token.clone());
            match good {
                Some(token) => {
                    if held.fetch.is_none() && now >= held.renew_from {
                        held.fetch = Some(self.fetch(client, app, held));
                    }
                    return Ok(token);
                }
                None => match &held.fetch {
                    Some(fetch) => fetch.clone(),
                    None => held.fetch.insert(self.fetch(client, app, held)).clone(),
                },
            }
        };
        fetch.await
    }

    /// Makes `call` with the token of `app`, and once more with another when WeChat refuses that token.
    ///
    /// # Errors
    /// Those of [`AccessTokens::get`], and of the call.
    pub async fn call<T, F>(
        self: &Arc<Self>,
        client: &Client,
        app: &App,
        call: impl Fn(AccessToken) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let token = self.get(client, app).await?;
        match call(token.clone()).await {
            Err(error) if error.meaning() == Some(Meaning::AccessToken) => {
                if !self.refused(app, &token) {
                    return Err(error);
                }
                let another = self.get(client, app).await?;
                call(another).await
            }
            outcome => outcome,
        }
    }

    /// WeChat refused `token`: it is dropped, if it is still the one that is held. False when nothing is gained by asking
    /// for another, because tokens are refused too often.
    pub fn refused(&self, app: &App, token: &AccessToken) -> bool {
        let now = self.clock.now();
        let mut all = self.lock();
        let held = all.entry((app.appid.clone(), app.access_token)).or_default();
        if held.granted.as_ref().is_none_or(|granted| granted.token != *token) {
            return true;
        }
        self.refusals.inc();
        if now.since(held.counted_from) >= MINUTE || now < held.counted_from {
            (held.counted_from, held.replaced) = (now, 0);
        }
        if held.replaced == REPLACED_A_MINUTE {
            return false;
        }
        tracing::warn!(app = app.appid.as_str(), "WeChat refuses the access token: another one is fetched");
        held.replaced += 1;
        held.refused = Some(token.clone());
        held.granted = None;
        true
    }

    /// How many tokens WeChat gave.
    pub fn fetches(&self) -> u64 {
        self.fetches.get()
    }

    /// How many fetches failed.
    pub fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// How many tokens in use were refused.
    pub fn refusals(&self) -> u64 {
        self.refusals.get()
    }

    /// The apps that have a token, and its end.
    pub fn ends(&self) -> Vec<(AppId, Timestamp)> {
        let all = self.lock();
        all.iter().filter_map(|((appid, _), held)| Some((appid.clone(), held.granted.as_ref()?.expires_at))).collect()
    }

    /// Starts a fetch, as a task of its own: it is finished also when those who wait go away.
    fn fetch(self: &Arc<Self>, client: &Client, app: &App, held: &Held) -> Fetch {
        let mut landing = Landing { tokens: Arc::clone(self), key: Some((app.appid.clone(), app.access_token)) };
        let (client, app) = (client.clone(), app.clone());
        let (old, refused) = (held.granted.clone(), held.refused.clone());
        let task = tokio::spawn(async move {
            let outcome = landing.tokens.obtain_alone(&client, &app, old, refused).await;
            landing.land(outcome)
        });
        async move { task.await.unwrap_or(Err(Error::Answer("the fetch of an access token panicked"))) }
            .boxed()
            .shared()
    }

    /// A token, fetched by one instance at a time: whoever waited finds the other's in [`Keep`].
    async fn obtain_alone(
        &self,
        client: &Client,
        app: &App,
        old: Option<Granted>,
        refused: Option<AccessToken>,
    ) -> Result<Granted, Error> {
        let own = uuid::Uuid::now_v7();
        while !self.keep.claim(&app.appid, app.access_token, own.as_bytes()).await {
            let kept = self.keep.load(&app.appid, app.access_token).await;
            let fresh = |kept: &Granted| !kept.is_due(self.clock.now()) && Some(&kept.token) != refused.as_ref();
            if let Some(kept) = kept.filter(fresh) {
                return Ok(kept);
            }
            tokio::time::sleep(LOOK).await;
        }
        let outcome = self.obtain(client, app, old, refused).await;
        self.keep.release(&app.appid, app.access_token, own.as_bytes()).await;
        outcome
    }

    /// A token from [`Keep`] (of this instance before a restart, or of another one since), else from WeChat. While the old
    /// one is good, a failure is not one yet.
    async fn obtain(
        &self,
        client: &Client,
        app: &App,
        old: Option<Granted>,
        refused: Option<AccessToken>,
    ) -> Result<Granted, Error> {
        let now = self.clock.now();
        let kept = self.keep.load(&app.appid, app.access_token).await;
        let kept = kept.filter(|kept| kept.is_good(now) && Some(&kept.token) != refused.as_ref());
        if let Some(kept) = kept.as_ref().filter(|kept| !kept.is_due(now)) {
            return Ok(kept.clone());
        }
        match client.access_token(app).await {
            Ok((token, life)) => {
                self.fetches.inc();
                let granted = Granted { token, expires_at: now.plus(life) };
                self.keep.save(&app.appid, app.access_token, &granted).await;
                Ok(granted)
            }
            Err(error) => {
                self.failures.inc();
                tracing::warn!(app = app.appid.as_str(), %error, "no access token could be fetched");
                old.filter(|old| old.is_good(now)).or(kept).ok_or(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ends()).finish()
    }
}

/// Ends a fetch, also when its task panicked.
struct Landing {
    tokens: Arc<AccessTokens>,
    /// `None` once it has ended.
    key: Option<Key>,
}

impl Landing {
    fn land(&mut self, outcome: Result<Granted, Error>) -> Result<AccessToken, Error> {
        let now = self.tokens.clock.now();
        let mut all = self.tokens.lock();
        let Some(held) = self.key.take().map(|key| all.entry(key).or_default()) else {
            return outcome.map(|granted| granted.token);
        };
        // Token and end of the fetch under one lock, so that nobody finds neither.
        held.fetch = None;
        held.renew_from = now.plus(PAUSE);
        let granted = outcome?;
        held.renew_from = granted.expires_at.minus(AHEAD).max(held.renew_from);
        let token = granted.token.clone();
        held.granted = Some(granted);
        Ok(token)
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if let Some(key) = self.key.take()
            && let Some(held) = self.tokens.lock().get_mut(&key)
        {
            held.fetch = None;
        }
    }
}

impl Client {
    /// A token from WeChat, and how long it lives.
    async fn access_token(&self, app: &App) -> Result<(AccessToken, Duration), Error> {
        let fetch = || async {
            match app.access_token {
                AccessTokenLine::Stable => {
                    let body = json!({
                        "grant_type": "client_credential",
                        "appid": app.appid.as_str(),
                        "secret": app.secret.expose(),
                        "force_refresh": false,
                    });
                    let call = async { read(self.post_json(STABLE_PATH, &[], &body).await?) };
                    self.guarded(&app.appid, STABLE_PATH, call).await
                }
                AccessTokenLine::Classic => {
                    let query = [
                        ("grant_type", "client_credential"),
                        ("appid", app.appid.as_str()),
                        ("secret", app.secret.expose()),
                    ];
                    let call = async { read(self.get_json(CLASSIC_PATH, &query).await?) };
                    self.guarded(&app.appid, CLASSIC_PATH, call).await
                }
            }
        };
        self.while_busy(fetch).await
    }
}

fn read(mut answer: Map<String, Value>) -> Result<(AccessToken, Duration), Error> {
    let token = match answer.remove("access_token") {
        Some(Value::String(text)) => AccessToken::new(text),
        _ => return Err(Error::Answer("access_token is missing")),
    };
    let text = token.expose();
    if text.is_empty() || text.len() > MAX_TOKEN || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::Answer("access_token is malformed"));
    }
    let life = answer.get("expires_in").and_then(Value::as_u64).filter(|secs| (1..=MAX_LIFE).contains(secs));
    let life = life.ok_or(Error::Answer("expires_in is missing or out of range"))?;
    Ok((token, Duration::from_secs(life)))
}

#[cfg(test)]
mod tests;
