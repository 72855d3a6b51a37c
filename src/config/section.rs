//! The checked sections of `gateway.toml`: what the rest of the gateway is built from.
//!
//! Each component takes its own section and never the whole [`Config`]. The keys' meaning for people is documented in
//! the shipped `gateway.toml`; here stand the types.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, Method};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

pub use super::database::{MembersStore, Postgres, Redis, SessionsStore, Topology};
pub use super::keys::Keys;
pub use super::pattern::{HostPattern, PathPattern, Segment};
pub use super::rule::{
    Breaker, Capacity, Cors, Health, Hook, Limit, LimitBy, LimitScope, OnFailure, Queue, Retry, RetryOn,
};
pub use super::shown::Shown;
pub use super::telemetry::{Otlp, Telemetry};
use super::tls::Tls;
pub use super::transform::{
    Compress, ErrorPage, HeaderRules, Headers, Networks, PagePart, PathTemplate, Piece, Redirect, Rewrite,
};
pub use super::transport::{Transport, UpstreamProtocol, UpstreamTls};
pub use super::web::{WebLogin, WebResult, WebScope};
use crate::ids::{AppId, Secret};

/// Everything that `gateway.toml` says, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that this came from; absolute.
    pub source: PathBuf,
    /// [`digest`](super::digest) of that file's content.
    pub digest: u64,
    /// What it says, with secrets hidden.
    pub shown: Shown,
    /// `[server]`: the public listener.
    pub server: Server,
    /// `[admin]`: the operators' listener.
    pub admin: Admin,
    /// `[internal]`: the services' listener; `None` when the table is missing.
    pub internal: Option<Internal>,
    /// `[token]`.
    pub token: Token,
    /// `[store]`.
    pub store: Store,
    /// `[login]`.
    pub login: Login,
    /// `[wechat]`.
    pub wechat: WeChat,
    /// `[telemetry]`.
    pub telemetry: Telemetry,
    /// `[[app]]`, at least one, each `appid` once.
    pub apps: Vec<App>,
    /// `[[upstream]]`, each `name` once.
    pub upstreams: Vec<Upstream>,
    /// `[[route]]`; no two can match the same request with equal rank.
    pub routes: Vec<Route>,
    /// `[[static]]`, each `path` once.
    pub statics: Vec<Static>,
    /// `[[error_page]]`, each status once.
    pub error_pages: Vec<ErrorPage>,
}

impl Config {
    /// The addresses of all listeners; port 0 where the system chooses one.
    pub fn listeners(&self) -> Vec<SocketAddr> {
        let internal = self.internal.as_ref().map(|section| section.listen);
        let public = self.server.listen.iter().chain(&self.server.tls.redirect).copied();
        public.chain([self.admin.listen]).chain(internal).collect()
    }
}

/// `[server]`.
#[derive(Debug, Clone)]
pub struct Server {
    /// Addresses of the public listener.
    pub listen: Vec<SocketAddr>,
    /// TLS, if there is any.
    pub tls: Tls,
    /// Whether clients may speak HTTP/2.
    pub http2: bool,
    /// Worker threads; one per core unless said.
    pub workers: NonZeroUsize,
    /// Where the gateway's own endpoints stand; starts with `/`, does not end with one.
    pub base: String,
    /// Path of the health answer; `None` turns it off.
    pub health_path: Option<String>,
    /// Peers whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long a request head may take from its first byte.
    pub head_timeout: Duration,
    /// How long an idle connection is kept between requests.
    pub keep_alive: Duration,
    /// Largest request head, bytes.
    pub max_head: usize,
    /// Longest request target, bytes.
    pub max_uri: usize,
    /// Largest request body, bytes.
    pub max_body: u64,
    /// How long connections are still accepted after the gateway was told to stop.
    pub drain_min: Duration,
    /// How long a drain may take after that.
    pub drain_timeout: Duration,
    /// How long a successor that has everything may take to serve.
    pub takeover_timeout: Duration,
    /// Most open sockets (upgraded connections) of one member; `None` means no limit.
    pub max_sockets_per_member: Option<NonZeroUsize>,
    /// Most open connections of clients; `None` means as many as there are descriptors for.
    pub max_connections: Option<NonZeroUsize>,
    /// How long requests may wait for a worker before the oldest are refused and the newest served; zero means that none is.
    pub shed_above: Duration,
}

/// `[admin]`.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Address; loopback unless said.
    pub listen: SocketAddr,
}

/// `[internal]`.
#[derive(Debug, Clone)]
pub struct Internal {
    /// Address of the services' listener.
    pub listen: SocketAddr,
    /// `[[internal.service]]`, each `name` once.
    pub services: Vec<Service>,
}

/// `[[internal.service]]`.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name, unique, without `:`.
    pub name: String,
    /// How it is known.
    pub proof: Proof,
    /// Paths of WeChat's API that it may call; no `{segment}` in them.
    pub wechat: Vec<PathPattern>,
}

/// How a service is known.
#[derive(Debug, Clone)]
pub enum Proof {
    /// It shows this token.
    Token(Secret<String>),
    /// It comes from one of these networks.
    From(Vec<IpNet>),
}

/// A signature algorithm for tokens (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256. The default.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256, 2048 bits and more.
    #[serde(rename = "RS256")]
    Rs256,
    /// HMAC with SHA-256: a shared secret, so it has no place in the JWKS.
    #[serde(rename = "HS256")]
    Hs256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Es256, Self::EdDsa, Self::Rs256, Self::Hs256];

    /// The name in `alg` and in `gateway.toml`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
        }
    }
}

/// `[token]`.
#[derive(Debug, Clone)]
pub struct Token {
    /// `iss` of every token: an https (or, for tests, http) URL.
    pub issuer: String,
    /// `aud`; not empty.
    pub audience: Vec<String>,
    /// Signs new tokens; every key of the ring verifies its own.
    pub algorithm: Algorithm,
    /// What new access tokens are.
    pub format: super::TokenFormat,
    /// Where the keys are.
    pub keys: Keys,
    /// Age at which a signing key, or the sealing key, is replaced; `None`: by command alone.
    pub rotate_every: Option<Duration>,
    /// Life of an access token.
    pub access_ttl: Duration,
    /// Life of a refresh token, anew at each rotation.
    pub refresh_ttl: Duration,
    /// How long a used refresh token still yields the same successor.
    pub refresh_grace: Duration,
    /// Absolute life of a session from its login.
    pub session_ttl: Duration,
    /// A token with no more time left than that is renewed; `None`: none is.
    pub renew_within: Option<Duration>,
    /// How long an instance may go without hearing what others have revoked.
    pub max_staleness: Duration,
    /// Whether `Authorization: <token>` without a scheme is read.
    pub accept_bare: bool,
}

impl Token {
    /// Whether browsers reach the gateway by `https`, so that its cookies can be what they should be.
    pub fn is_secure(&self) -> bool {
        self.issuer.starts_with("https://")
    }

    /// The origin of the issuer, as browsers write it.
    pub fn origin(&self) -> String {
        let uri: http::Uri = self.issuer.parse().unwrap_or_default();
        let (scheme, host) = (uri.scheme_str().unwrap_or("https"), uri.host().unwrap_or_default().to_ascii_lowercase());
        let default = if scheme == "http" { 80 } else { 443 };
        match uri.port_u16().filter(|port| *port != default) {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        }
    }
}

/// `[store]`.
#[derive(Debug, Clone)]
pub struct Store {
    /// Where members are kept.
    pub members: MembersStore,
    /// Where sessions are kept.
    pub sessions: SessionsStore,
}

/// `[login]`.
#[derive(Debug, Clone)]
pub struct Login {
    /// How often a code may be shown; by address or by app.
    pub limit: Option<Limit>,
    /// How often one member may use the calls that decrypt.
    pub decrypt_limit: Limit,
    /// Whether all who have one unionid are one member.
    pub merge_by_unionid: bool,
    /// How many sessions a member may have; `None` for no limit.
    pub max_sessions: Option<NonZeroU32>,
    /// Whom to ask at each login.
    pub hook: Option<Hook>,
    /// Path of the login of clients of the wafer2 SDK; `None` when there is none, and their headers are not read.
    pub wafer2: Option<String>,
}

/// `[wechat]`.
#[derive(Debug, Clone)]
pub struct WeChat {
    /// Base of the server API, without a trailing slash.
    pub api_base: String,
    /// Base of the pages that a browser is sent to, without a trailing slash.
    pub open_base: String,
    /// Total deadline of one call.
    pub timeout: Duration,
}

/// What kind of WeChat app an `[[app]]` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AppKind {
    /// A mini program: `wx.login`.
    #[default]
    MiniProgram,
    /// An official account (service account): web login inside WeChat.
    OfficialAccount,
    /// A website app of the Open Platform: QR login.
    Website,
}

/// Which of WeChat's two lines of access tokens an app uses. They do not touch each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AccessTokenLine {
    /// `cgi-bin/stable_token`: whoever asks gets the same token until shortly before its end.
    #[default]
    Stable,
    /// `cgi-bin/token`: each fetch ends the token before it.
    Classic,
}

impl AccessTokenLine {
    /// The name in `gateway.toml` and in the store.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Classic => "classic",
        }
    }
}

/// `[[app]]`.
#[derive(Debug, Clone)]
pub struct App {
    /// The AppID.
    pub appid: AppId,
    /// Its kind.
    pub kind: AppKind,
    /// The AppSecret.
    pub secret: Secret<String>,
    /// Its message push, if it is taken.
    pub push: Option<Push>,
    /// Where its access tokens come from.
    pub access_token: AccessTokenLine,
    /// Its web login, if it has one.
    pub web: Option<WebLogin>,
}

/// `push` of an `[[app]]`.
#[derive(Debug, Clone)]
pub struct Push {
    /// The Token of the WeChat console.
    pub token: Secret<String>,
    /// The EncodingAESKey, 43 letters and digits; with it only safe mode is taken.
    pub aes_key: Option<Secret<String>>,
    /// The EncodingAESKey before that one, which WeChat may use for a while after a change.
    pub previous_aes_key: Option<Secret<String>>,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// Where the messages go there.
    pub path: String,
}

/// How an upstream chooses a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// In turn.
    RoundRobin,
    /// The less loaded of two at random ("power of two choices").
    #[default]
    P2c,
    /// Rendezvous hash of the caller's openid; without a caller, of the client address.
    #[serde(rename = "hash:openid")]
    HashOpenid,
    /// Rendezvous hash of the client address.
    #[serde(rename = "hash:ip")]
    HashIp,
}

/// `[[upstream]]`.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name, unique.
    pub name: String,
    /// Its servers, at least one; all speak alike.
    pub servers: Vec<Backend>,
    /// How one is chosen.
    pub balance: Balance,
    /// How long a connect may take.
    pub connect_timeout: Duration,
    /// How its servers are asked whether they are well.
    pub health: Option<Health>,
    /// How much they take.
    pub capacity: Capacity,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Host and port as written.
    pub authority: Authority,
    /// Host alone (a name or an address without brackets).
    pub host: String,
    /// Port, that of the scheme when none is written.
    pub port: u16,
    /// How it is spoken to; `None` is plain HTTP/1.1.
    pub transport: Option<Arc<Transport>>,
}

/// What a route asks of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// A valid token, or 401.
    #[default]
    Required,
    /// No token is anonymous; a bad one is 401.
    Optional,
    /// Credentials are not read, no identity is sent.
    None,
}

/// `[[route]]`.
#[derive(Debug, Clone)]
pub struct Route {
    /// What it matches.
    pub path: PathPattern,
    /// Hosts; empty means any.
    pub hosts: Vec<HostPattern>,
    /// Methods; empty means any.
    pub methods: Vec<Method>,
    /// Index into [`Config::upstreams`]; `None` where `redirect` answers.
    pub upstream: Option<usize>,
    /// What it asks of the caller.
    pub auth: Auth,
    /// Any of these roles; empty means no condition.
    pub roles: Vec<String>,
    /// Any of these apps; empty means no condition.
    pub apps: Vec<AppId>,
    /// Removed from the front of the path before it is forwarded; whole segments.
    pub strip_prefix: Option<String>,
    /// Until the response head.
    pub timeout: Duration,
    /// Silence in either body.
    pub idle_timeout: Duration,
    /// From request head to the last byte of the answer; no limit unless said.
    pub total_timeout: Option<Duration>,
    /// Largest request body, bytes; the server's unless said.
    pub max_body: u64,
    /// Bytes a second that a client must send of a body; 0 means no least rate.
    pub min_body_rate: u64,
    /// Most requests under way; `None` means no limit.
    pub max_in_flight: Option<NonZeroUsize>,
    /// Most requests of one member under way (without a caller, of one address); `None` means no limit.
    pub max_in_flight_per_member: Option<NonZeroUsize>,
    /// Whether `Authorization` is passed on.
    pub forward_token: bool,
    /// Whether the token may stand in the cookie of a web page.
    pub cookie: bool,
    /// Whether the upstream gets a signed assertion about the caller.
    pub assertion: bool,
    /// Protocols that a connection may be upgraded to, lower case; empty means none.
    pub upgrade: Vec<String>,
    /// How often it may be used.
    pub limit: Option<Limit>,
    /// When a request is tried again.
    pub retry: Option<Arc<Retry>>,
    /// Which pages of other origins may use it.
    pub cors: Option<Cors>,
    /// Which clients may use it at all.
    pub networks: Networks,
    /// Headers that it changes.
    pub headers: Headers,
    /// What is forwarded in place of what came.
    pub rewrite: Rewrite,
    /// Where the client is sent instead of to an upstream.
    pub redirect: Option<Redirect>,
    /// How answers are compressed.
    pub compress: Option<Compress>,
}

impl Route {
    /// What it matches, in one line that no other route of the file has: path, methods, hosts.
    pub fn label(&self) -> String {
        let mut label = self.path.text.clone();
        let methods: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        let hosts: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        for list in [methods.join(","), hosts.join(",")] {
            if !list.is_empty() {
                label.extend([" [", &list, "]"]);
            }
        }
        label
    }
}

/// `[[static]]`: a small fixed answer, such as WeChat's domain proof file.
#[derive(Debug, Clone)]
pub struct Static {
    /// Exact path.
    pub path: String,
    /// The body.
    pub body: Bytes,
    /// Its media type.
    pub content_type: HeaderValue,
}
