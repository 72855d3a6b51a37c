//! The checked rules of routes and upstreams: limits, capacity, health checks, retries, CORS.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use http::{HeaderName, Method};
use schemars::JsonSchema;
use serde::Deserialize;

use super::value::Rate;

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// For each of what.
    pub by: LimitBy,
    /// In the long run.
    pub rate: Rate,
    /// At once, after a rest.
    pub burst: NonZeroU32,
    /// Who counts together.
    pub scope: LimitScope,
}

/// Who counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LimitScope {
    /// Each instance for itself.
    #[default]
    Local,
    /// All instances on one Redis.
    Shared,
}

/// What a limit counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LimitBy {
    /// Each openid; without a caller as `ip`.
    Openid,
    /// Each member; without a caller as `ip`.
    Member,
    /// Each client address; of version 6 each /64.
    Ip,
    /// All requests together.
    Route,
    /// Each app of the callers; without a caller as `ip`.
    App,
}

impl LimitBy {
    /// The name in `gateway.toml`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Openid => "openid",
            Self::Member => "member",
            Self::Ip => "ip",
            Self::Route => "route",
            Self::App => "app",
        }
    }

    /// Whether it asks who the caller is.
    pub const fn needs_caller(self) -> bool {
        matches!(self, Self::Openid | Self::Member | Self::App)
    }
}

/// How much the servers of an `[[upstream]]` take, and what happens beyond it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capacity {
    /// The share of each server, in their order; empty where all are equal.
    pub weights: Vec<NonZeroU32>,
    /// How long a server that has come, or come back, takes until it has its whole share; zero means at once.
    pub slow_start: Duration,
    /// Most requests that one server works on at a time; `None` means no limit.
    pub max_connections: Option<NonZeroUsize>,
    /// Where requests wait for a server with room.
    pub queue: Queue,
    /// When the upstream is left alone.
    pub breaker: Option<Breaker>,
}

/// `queue` of an `[[upstream]]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Queue {
    /// Most requests that wait.
    pub size: usize,
    /// How long one does.
    pub timeout: Duration,
}

/// `breaker` of an `[[upstream]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// Name of its upstream, for the log.
    pub upstream: String,
    /// Failures in a row that open the circuit; `None` means that it never opens.
    pub failures: Option<NonZeroU32>,
    /// From one probe to the next while it is open.
    pub open: Duration,
    /// Most requests under way with all servers together; `None` means no limit.
    pub max_requests: Option<NonZeroUsize>,
}

/// `hook` of `[login]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// What is asked with POST.
    pub url: String,
    /// From the call to the last byte of its answer.
    pub timeout: Duration,
    /// What becomes of a login without a good answer.
    pub on_failure: OnFailure,
}

/// What becomes of a login when the hook gives no good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is refused.
    #[default]
    Refuse,
    /// It goes on with what was known of the member.
    Allow,
}

/// `health` of an `[[upstream]]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Health {
    /// What is asked with GET; may have a query.
    pub path: String,
    /// How often.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Good answers in a row that make a server that is down up.
    pub healthy: u32,
    /// Bad ones that make one that is up down.
    pub unhealthy: u32,
}

/// `retry` of a `[[route]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How often it is tried in all; at least 2.
    pub attempts: u32,
    /// What another try may help against.
    pub on: Vec<RetryOn>,
    /// Methods that may be repeated.
    pub methods: Vec<Method>,
    /// How long one try may take until its response head; the route's `timeout` bounds them all.
    pub per_try: Option<Duration>,
}

/// What another try may help against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum RetryOn {
    /// No connection: nothing was sent, so this holds in any case.
    #[serde(rename = "connect")]
    Connect,
    /// The connection ended without an answer.
    #[serde(rename = "reset")]
    Reset,
    /// 502 Bad Gateway.
    #[serde(rename = "502")]
    BadGateway,
    /// 503 Service Unavailable.
    #[serde(rename = "503")]
    Unavailable,
    /// 504 Gateway Timeout, or no response head within `per_try`.
    #[serde(rename = "504")]
    Timeout,
}

impl RetryOn {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Connect, Self::Reset, Self::BadGateway, Self::Unavailable, Self::Timeout];
}

/// `cors` of a `[[route]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Exactly as browsers send them; not empty.
    pub origins: Vec<String>,
    /// Methods that a preflight is told; empty means those of the route.
    pub methods: Vec<Method>,
    /// Request headers that a page may set.
    pub headers: Vec<HeaderName>,
    /// Response headers that it may read beside the common ones.
    pub expose: Vec<HeaderName>,
    /// Whether it may send cookies.
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight.
    pub max_age: Duration,
}
