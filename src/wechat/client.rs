//! HTTP to WeChat: one deadline, one size limit, no redirects, no retries, no URLs in errors.
//!
//! WeChat takes AppSecrets, codes and access tokens in the query string, so a URL of this module is a secret: it is built
//! from pairs, each percent-encoded, and leaves with the request only. Nothing is sent twice, because a login code works
//! once: a repeated exchange would turn a lost answer into "code used". What the answers mean is read by [`answer`] and by
//! the calls ([`code2session`](super::code2session)).

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{RequestBuilder, Response, redirect, retry};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{Circuits, Error, Meaning, answer};
use crate::clock::Clock;
use crate::config::section;
use crate::ids::AppId;

/// Largest answer that is read, bytes. The calls made here answer a few hundred.
pub const MAX_ANSWER: usize = 64 * 1024;

/// Longest wait for a connection. The rest of the deadline is left for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an idle connection is kept: shorter than the minute or so after which balancers commonly drop one silently.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Idle connections kept: as many as 5,000 logins a second use while WeChat takes 100 ms. Answers come in bursts, and a
/// connection that is closed for want of room costs the next login a TLS handshake.
const MAX_IDLE: usize = 512;

/// Pauses before a busy WeChat is asked again, where a call may be repeated.
const BUSY_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(300)];

/// A client of WeChat's server API. Cheap to clone; clones share the connections and the circuits.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    timeout: Duration,
    circuits: Arc<Circuits>,
    #[cfg(test)]
    played: Option<Arc<dyn played::Played>>,
}

impl Client {
    /// The total deadline of a call.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A client for `config.api_base`; opens no connection yet. `config.timeout` is the total deadline of each call:
    /// connecting, TLS, head and body together.
    ///
    /// # Errors
    /// [`Error::Connect`] when the base is not an absolute URL, or when it is `https` and the machine has no root
    /// certificates.
    pub fn new(config: &section::WeChat) -> Result<Self, Error> {
        Self::with_circuits(config, Arc::new(Circuits::new(Clock::system(), Arc::default())))
    }

    /// As [`Client::new`], with circuits that others share, or that were there before.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_circuits(config: &section::WeChat, circuits: Arc<Circuits>) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("wxgate/", env!("CARGO_PKG_VERSION")))
            .timeout(config.timeout)
            .connect_timeout(config.timeout.min(CONNECT_TIMEOUT))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            // Not asked for and not undone: a small body must not become a large one.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            // A proxy named in the environment would read the secrets of a plain-http base, and nobody configured it.
            .no_proxy();
        let base = config.api_base.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&base).map_err(|fault| Error::Connect(Some(Arc::new(fault))))?;
        if url.scheme() == "http" {
            // Trusts no certificate at all, so that a bare machine without any can use the simulator or a relay.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self {
            http: builder.build().map_err(classify)?,
            base,
            timeout: config.timeout,
            #[cfg(test)]
            played: circuits.played.clone(),
            circuits,
        })
    }

    /// `GET path?query`. Each pair stays one parameter, whatever bytes it holds.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn get_json(&self, path: &str, query: &[(&str, &str)]) -> Result<Map<String, Value>, Error> {
        #[cfg(test)]
        if let Some(played) = &self.played {
            let answered = tokio::time::timeout(self.timeout, played.get(path, query)).await;
            return answered.unwrap_or(Err(Error::Timeout));
        }
        exchange(self.http.get(self.url(path)).query(query)).await
    }

    /// `POST path?query` with a JSON body.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn post_json(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: &Value,
    ) -> Result<Map<String, Value>, Error> {
        exchange(self.http.post(self.url(path)).query(query).json(body)).await
    }

    /// Makes `call`, which goes to `path` for `appid`, unless its circuit is open.
    ///
    /// # Errors
    /// [`Error::CircuitOpen`] when it was not made; else its own.
    pub async fn guarded<T>(
        &self,
        appid: &AppId,
        path: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.circuits.run(appid, path, call).await
    }

    /// Repeats a call that uses nothing up while WeChat says that it is busy: twice at most, within the deadline of one.
    ///
    /// # Errors
    /// Those of the last call.
    pub(super) async fn while_busy<T, F>(&self, call: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let repeated = async {
            for pause in BUSY_PAUSES {
                match call().await {
                    Err(error) if error.meaning() == Some(Meaning::Busy) => tokio::time::sleep(pause).await,
                    outcome => return outcome,
                }
            }
            call().await
        };
        tokio::time::timeout(self.timeout, repeated).await.unwrap_or(Err(Error::Timeout))
    }

    /// What is known of WeChat's health.
    pub(super) fn circuits(&self) -> &Circuits {
        &self.circuits
    }

    /// The HTTP client, for calls whose bodies are not read here.
    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Where `path` is.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

async fn exchange(request: RequestBuilder) -> Result<Map<String, Value>, Error> {
    let response = request.send().await.map_err(classify)?;
    let status = response.status();
    if status.is_redirection() {
        return Err(Error::Transport("a redirect"));
    }
    if !status.is_success() {
        return Err(Error::Transport("a status other than 2xx"));
    }
    answer::parse(&read(response).await?)
}

/// The body, cut off once it passes [`MAX_ANSWER`]: what follows is never held in memory.
async fn read(mut response: Response) -> Result<Zeroizing<Vec<u8>>, Error> {
    const TOO_LARGE: Error = Error::Answer("it is too large");
    let room = match response.content_length() {
        None => MAX_ANSWER,
        Some(announced) => usize::try_from(announced).ok().filter(|n| *n <= MAX_ANSWER).ok_or(TOO_LARGE)?,
    };
    // All at once, because a buffer that grows would leave copies of the session_key behind, unwiped.
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    while let Some(chunk) = response.chunk().await.map_err(classify)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(TOO_LARGE);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What went wrong below HTTP. The URL is taken out before the cause is kept.
pub(super) fn classify(fault: reqwest::Error) -> Error {
    let fault = fault.without_url();
    if fault.is_connect() || fault.is_builder() {
        return match tls_failed(&fault) {
            true => Error::Transport("the TLS handshake failed"),
            false => Error::Connect(Some(Arc::new(fault))),
        };
    }
    if fault.is_timeout() {
        return Error::Timeout;
    }
    Error::Transport("the connection broke, or what came was not HTTP")
}

/// Whether a failed connect got as far as TLS. There is no type to ask for; but a bad certificate or record surfaces as
/// invalid data, and a peer that hangs up during the handshake as an end of file or a reset, none of which TCP's own
/// connect gives.
fn tls_failed(fault: &reqwest::Error) -> bool {
    use io::ErrorKind::{ConnectionReset, InvalidData, UnexpectedEof};
    let mut next = fault.source();
    while let Some(cause) = next {
        let Some(io) = cause.downcast_ref::<io::Error>() else {
            next = cause.source();
            continue;
        };
        if matches!(io.kind(), InvalidData | UnexpectedEof | ConnectionReset) {
            return true;
        }
        // An io::Error around another one gives that one's source, so the inner has to be asked for.
        next = io.get_ref().map(|inner| inner as &(dyn StdError + 'static));
    }
    false
}

#[cfg(test)]
pub(crate) mod played;
#[cfg(test)]
mod tests;
