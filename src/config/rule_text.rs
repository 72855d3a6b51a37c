//! The text of the rules of routes and upstreams, key by key; a part of [`super::file`].

use schemars::JsonSchema;
use serde::Deserialize;

use super::file::Duration;
use super::rule::{LimitBy, LimitScope, OnFailure, RetryOn};

/// How often POST /auth/login may be called.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginLimit {
    /// Counted for each of what. Required.
    #[schemars(required, example = &"ip")]
    pub by: Option<LoginLimitBy>,
    /// In the long run, such as "20/s", "100/min". Required.
    #[schemars(required, example = &"20/s")]
    pub rate: Option<String>,
    /// At once, after a rest. Default: the number in `rate`.
    #[schemars(range(min = 1, max = 1_000_000), example = 200)]
    pub burst: Option<i64>,
    /// Whether each instance counts for itself, or all on one Redis together. Default: "local".
    pub scope: Option<LimitScope>,
}

/// What logins are counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LoginLimitBy {
    /// Each client address; of version 6 each /64.
    Ip,
    /// Each app.
    App,
}

/// How often one member may use the calls that decrypt.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecryptLimit {
    /// Who is counted. Default: "member", which is all there is.
    pub by: Option<DecryptLimitBy>,
    /// In the long run, such as "10/s", "100/min". Default: "10/s".
    #[schemars(example = &"10/s")]
    pub rate: Option<String>,
    /// At once, after a rest. Default: 200.
    #[schemars(range(min = 1, max = 1_000_000), example = 200)]
    pub burst: Option<i64>,
}

/// Who is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DecryptLimitBy {
    /// Each member.
    Member,
}

/// A server of an upstream.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Server {
    /// Its address, "http://HOST:PORT".
    Url(String),
    /// With a share of its own.
    Weighted(WeightedServer),
}

/// A server with a share of its own.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightedServer {
    /// Its address, "http://HOST:PORT". Required.
    #[schemars(required, example = &"http://127.0.0.1:3001")]
    pub url: Option<String>,
    /// Its share beside the others, 1 to 1000. Default: 1.
    #[schemars(range(min = 1, max = 1000), example = 2)]
    pub weight: Option<i64>,
}

/// Where requests wait for a server with room.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// Most requests that wait, 0 to 100000; 0 is none. Default: 128.
    #[schemars(range(min = 0, max = 100_000), example = 128)]
    pub size: Option<i64>,
    /// How long one does. Default: "1s".
    pub timeout: Option<Duration>,
}

/// When an upstream is left alone.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Failures in a row of all servers together, 0 to 1000000; 0 is never. Default: 0.
    #[schemars(range(min = 0, max = 1_000_000), example = 20)]
    pub failures: Option<i64>,
    /// How long requests are refused then, and from one probe to the next. Default: "5s".
    pub open: Option<Duration>,
    /// Most requests under way with all servers together, 0 to 1000000; 0 is no limit. Default: 0.
    #[schemars(range(min = 0, max = 1_000_000), example = 1000)]
    pub max_requests: Option<i64>,
}

/// Who is asked at each login.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// URL that is asked with POST. Required.
    #[schemars(required, example = &"http://127.0.0.1:3001/wxgate/login")]
    pub url: Option<String>,
    /// How long the answer may take in all, at most "30s". Default: "2s".
    pub timeout: Option<Duration>,
    /// What becomes of a login when the answer is not there or not good. Default: "refuse".
    pub on_failure: Option<OnFailure>,
}

/// How servers are asked whether they are well.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Path that is asked with GET; 2xx and 3xx are good answers. Required.
    #[schemars(required, example = &"/healthz")]
    pub path: Option<String>,
    /// How often. Default: "5s".
    pub interval: Option<Duration>,
    /// How long an answer may take. Default: "2s".
    pub timeout: Option<Duration>,
    /// Good answers in a row until a server that is down is up. Default: 2.
    #[schemars(range(min = 1, max = 100), example = 2)]
    pub healthy: Option<i64>,
    /// Bad answers in a row until a server that is up is down. Default: 3.
    #[schemars(range(min = 1, max = 100), example = 3)]
    pub unhealthy: Option<i64>,
}

/// How often a route may be used.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteLimit {
    /// Counted for each of what; "route" is all requests together. Required.
    #[schemars(required, example = &"openid")]
    pub by: Option<LimitBy>,
    /// In the long run, such as "20/s", "100/min". Required.
    #[schemars(required, example = &"20/s")]
    pub rate: Option<String>,
    /// At once, after a rest. Default: the number in `rate`.
    #[schemars(range(min = 1, max = 1_000_000), example = 40)]
    pub burst: Option<i64>,
    /// Whether each instance counts for itself, or all on one Redis together. Default: "local".
    pub scope: Option<LimitScope>,
}

/// When a request is tried again on another server.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How often it is tried in all. Default: 2.
    #[schemars(range(min = 2, max = 10), example = 2)]
    pub attempts: Option<i64>,
    /// What another try may help against. Default: all of them.
    pub on: Option<Vec<RetryOn>>,
    /// Methods that may be repeated. Default: GET, HEAD, PUT, DELETE, OPTIONS.
    #[schemars(example = ["GET", "POST"])]
    pub methods: Option<Vec<String>>,
    /// How long one try may take until its response head. Default: what is left of the route's timeout.
    pub per_try: Option<Duration>,
}

/// Which pages of other origins may use a route.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins, exactly as browsers send them. Required.
    #[schemars(required, length(min = 1), example = ["https://m.example.com"])]
    pub origins: Option<Vec<String>>,
    /// Methods that pages may use. Default: those of the route.
    #[schemars(example = ["GET", "POST"])]
    pub methods: Option<Vec<String>>,
    /// Request headers that pages may set. Default: ["authorization", "content-type"].
    #[schemars(example = ["authorization", "content-type"])]
    pub headers: Option<Vec<String>>,
    /// Response headers that pages may read beside the common ones. Default: none.
    #[schemars(example = ["x-request-id"])]
    pub expose: Option<Vec<String>>,
    /// Whether pages may send cookies. Default: false.
    pub credentials: Option<bool>,
    /// How long a browser may remember what it was told. Default: "10m".
    pub max_age: Option<Duration>,
}
