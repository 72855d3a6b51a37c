//! The text of `gateway.toml`, key by key: what may stand where, and nothing about what it means.
//!
//! Every leaf is optional and every scalar is still text; defaults and meaning are in [`super::check`]. The comments
//! here become the descriptions in the JSON Schema ([`schema`]), which both editors and [`super::structure`] read, so a
//! key that is not in this file does not exist. `required` and `example` feed the faults about missing keys.

use std::fmt;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

pub use super::app_text::{App, Push};
use super::format::TokenFormat;
pub use super::rule_text::{
    Breaker, Cors, DecryptLimit, DecryptLimitBy, Health, Hook, LoginLimit, LoginLimitBy, Queue, Retry, RouteLimit,
    Server as UpstreamServer,
};
use super::section::{Algorithm, Auth, Balance};
pub use super::telemetry_text::{Otlp, Telemetry};
use super::tls::{ClientAuth, TlsVersion};
pub use super::tls_text::{Acme, Certificate, Tls, UpstreamTls};
pub use super::transform_text::{
    Coding, Compress, Compression, ErrorPage, HeaderRules, Headers, Redirect, Rewrite, Static,
};
use super::transport::UpstreamProtocol;
use crate::ids;

/// The JSON Schema (draft 2020-12) of `gateway.toml`.
///
/// TOML has no null, so none is allowed by it.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>().to_value();
    drop_null(&mut schema);
    schema
}

/// `Option` becomes "or null" in a generated schema; this takes it out again.
fn drop_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(drop_null),
        Value::Object(members) => {
            members.values_mut().for_each(drop_null);
            if members.get("default").is_some_and(Value::is_null) {
                members.remove("default");
            }
            if let Some(Value::Array(types)) = members.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    members.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(branches)) = members.get_mut("anyOf") {
                branches.retain(|branch| branch["type"] != "null");
                if let [Value::Object(only)] = branches.as_slice() {
                    let only = only.clone();
                    members.remove("anyOf");
                    for (key, value) in only {
                        members.entry(key).or_insert(value);
                    }
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A duration: a number and a unit, such as "500ms", "30s", "15m", "2h", "30d".
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(example = &"30s")]
pub struct Duration(pub String);

/// A size: a number and a unit of B, KiB, MiB or GiB, such as "32KiB", or a plain number of bytes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = &"1MiB")]
pub enum Size {
    /// A number and a unit.
    Text(String),
    /// Bytes.
    Bytes(#[schemars(range(min = 0))] i64),
}

/// A secret: "${NAME}" reads an environment variable, { file = "…" } reads a file; plain text is accepted too.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = &"${WX_SECRET}")]
pub enum Secret {
    /// The secret itself, usually from "${NAME}".
    Text(
        #[serde(deserialize_with = "hidden")]
        #[schemars(with = "String")]
        ids::Secret<String>,
    ),
    /// A file that holds the secret and nothing else.
    File(SecretFile),
}

/// A file that holds a secret and nothing else; one line break at its end is ignored.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// Path of the file; a relative one starts at the folder of gateway.toml.
    #[schemars(required, example = &"secrets/wx_secret")]
    pub file: Option<String>,
}

fn hidden<'de, D: Deserializer<'de>>(from: D) -> Result<ids::Secret<String>, D::Error> {
    String::deserialize(from).map(ids::Secret::new)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Secret(…)"),
            Self::File(file) => file.fmt(f),
        }
    }
}

/// gateway.toml: the configuration of wxgate.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "gateway.toml")]
pub struct File {
    /// The public listener: what mini programs talk to.
    pub server: Option<Server>,
    /// The operators' listener.
    pub admin: Option<Admin>,
    /// The listener for upstream services; without this table it is off.
    pub internal: Option<Internal>,
    /// The tokens that a login yields.
    #[schemars(required)]
    pub token: Option<Token>,
    /// Where members and sessions are kept.
    pub store: Option<Store>,
    /// Logins, and what members do with the data of theirs.
    pub login: Option<Login>,
    /// How WeChat is reached.
    pub wechat: Option<WeChat>,
    /// What is told about requests beside metrics and the log.
    pub telemetry: Option<Telemetry>,
    /// The WeChat apps that may log in; at least one.
    #[schemars(required, length(min = 1))]
    pub app: Option<Vec<App>>,
    /// The services behind the gateway.
    pub upstream: Option<Vec<Upstream>>,
    /// Which request goes to which upstream, and what it needs. The most specific path wins; order is irrelevant.
    pub route: Option<Vec<Route>>,
    /// Small fixed answers, such as WeChat's domain proof files.
    #[serde(rename = "static")]
    pub statics: Option<Vec<Static>>,
    /// Pages that browsers get in place of a problem.
    pub error_page: Option<Vec<ErrorPage>>,
}

/// The public listener: what mini programs talk to.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Addresses to listen on, each "IP:PORT". Default: ["0.0.0.0:8080"].
    #[schemars(length(min = 1), example = ["0.0.0.0:8080"])]
    pub listen: Option<Vec<String>>,
    /// TLS: a certificate and its key, or a list of them for several names (SNI). Default: plain HTTP.
    pub tls: Option<Tls>,
    /// The oldest version of TLS. Default: "1.2".
    pub min_tls: Option<TlsVersion>,
    /// PEM file of the authorities that sign the certificates of clients. Default: clients are asked for none.
    #[schemars(example = &"tls/clients.pem")]
    pub client_ca: Option<String>,
    /// Whether a client has to show a certificate of client_ca. Default: "required".
    pub client_auth: Option<ClientAuth>,
    /// How long browsers shall come by https only (Strict-Transport-Security); "0s" says nothing. Default: "0s".
    pub hsts: Option<Duration>,
    /// Addresses on which plain HTTP is redirected to https, each "IP:PORT". Default: none.
    #[schemars(example = ["0.0.0.0:80"])]
    pub http_redirect: Option<Vec<String>>,
    /// Whether clients may speak HTTP/2: by TLS, or with prior knowledge. Default: true.
    pub http2: Option<bool>,
    /// Worker threads, 1 to 1024. Default: one per core.
    #[schemars(range(min = 1, max = 1024), example = 2)]
    pub workers: Option<i64>,
    /// Path under which the gateway's own endpoints stand. Default: "/auth".
    #[schemars(example = &"/auth")]
    pub base: Option<String>,
    /// Path of the health answer; "" turns it off. Default: "/healthz".
    #[schemars(example = &"/healthz")]
    pub health_path: Option<String>,
    /// Networks whose X-Forwarded-* headers are believed, in CIDR notation. Default: none.
    #[schemars(example = ["10.0.0.0/8"])]
    pub trusted_proxies: Option<Vec<String>>,
    /// How long a request head may take from its first byte. Default: "10s".
    pub head_timeout: Option<Duration>,
    /// How long an idle connection is kept between two requests. Default: "75s".
    pub keep_alive: Option<Duration>,
    /// Largest request head, 1KiB to 1MiB. Default: "32KiB".
    pub max_head: Option<Size>,
    /// Longest request target; not above max_head. Default: "8KiB".
    pub max_uri: Option<Size>,
    /// Largest request body; a route may say otherwise. Default: "10MiB".
    pub max_body: Option<Size>,
    /// How long connections are still accepted at shutdown, while the health answers say 503. Default: "0s".
    pub drain_min: Option<Duration>,
    /// How long open requests may take to finish at shutdown, after drain_min. Default: "30s".
    pub drain_timeout: Option<Duration>,
    /// How long a gateway that takes the place of this one may take to serve before this one goes on. Default: "30s".
    pub takeover_timeout: Option<Duration>,
    /// Most open WebSockets of one member, 0 to 100000; 0 is no limit. Default: 32.
    #[schemars(range(min = 0, max = 100_000))]
    pub max_sockets_per_member: Option<i64>,
    /// Most open connections of clients, 1 to 10000000. Default: as many as there are file descriptors for.
    #[schemars(range(min = 1, max = 10_000_000), example = 10_000)]
    pub max_connections: Option<i64>,
    /// How long requests may wait for a worker before the oldest are refused and the newest served; "0s" refuses none. Default: "250ms".
    pub shed_above: Option<Duration>,
}

/// The operators' listener.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address, "IP:PORT". Default: "127.0.0.1:9090".
    #[schemars(example = &"127.0.0.1:9090")]
    pub listen: Option<String>,
}

/// The listener for upstream services; without this table it is off.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Internal {
    /// Address, "IP:PORT". Default: "127.0.0.1:9080".
    #[schemars(example = &"127.0.0.1:9080")]
    pub listen: Option<String>,
    /// The services that may use it; without any, nobody may.
    pub service: Option<Vec<Service>>,
}

/// A service that may use the internal listener: by its `token`, or by the addresses that it comes `from`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name, unique; letters, digits, ".", "_" and "-". Required.
    #[schemars(required, example = &"orders")]
    pub name: Option<String>,
    /// What it shows as `Authorization: Bearer`, or as the password of `Proxy-Authorization: Basic`.
    pub token: Option<Secret>,
    /// Networks that it comes from, in CIDR notation; whoever is there needs no token.
    #[schemars(length(min = 1), example = ["10.0.0.0/8"])]
    pub from: Option<Vec<String>>,
    /// Paths of WeChat's API that it may call through the gateway; a trailing /* takes everything below. Default: none.
    #[schemars(example = ["/cgi-bin/message/*"])]
    pub wechat: Option<Vec<String>>,
}

/// The tokens that a login yields.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The public URL of this gateway, as it stands in `iss` of every token. Required.
    #[schemars(required, example = &"https://api.example.com")]
    pub issuer: Option<String>,
    /// `aud` of every token. Default: ["wxgate"].
    #[schemars(length(min = 1), example = ["wxgate"])]
    pub audience: Option<Vec<String>>,
    /// Signs new tokens. Default: "ES256".
    pub algorithm: Option<Algorithm>,
    /// What access tokens are: signed, or session ids that the store knows. Default: "jwt".
    pub format: Option<TokenFormat>,
    /// Folder of the keys, made on first start, or "store": in the store of sessions, sealed with master_key. Default: "data/keys".
    #[schemars(example = &"data/keys")]
    pub keys: Option<String>,
    /// Seals the keys in the store; at least 128 bits that nobody can guess. Required with keys = "store".
    pub master_key: Option<Secret>,
    /// The master key before, until every instance has the new one. Default: none.
    pub previous_master_key: Option<Secret>,
    /// With keys = "store", the folder of what stays on this machine. Default: "data".
    #[schemars(example = &"data")]
    pub local: Option<String>,
    /// Age at which a signing key, or the sealing key, is replaced, at least "1h"; "0s" is never. Default: "90d".
    pub rotate_every: Option<Duration>,
    /// Life of an access token, in whole seconds. Default: "2h".
    pub access_ttl: Option<Duration>,
    /// Life of a refresh token, anew at each use. Default: "30d".
    pub refresh_ttl: Option<Duration>,
    /// How long a used refresh token still yields the same successor. Default: "30s".
    pub refresh_grace: Option<Duration>,
    /// Longest life of a session from its login. Default: "180d".
    pub session_ttl: Option<Duration>,
    /// A request whose token has no more time left than that gets a fresh one back; "0s" is never. Default: "0s".
    pub renew_within: Option<Duration>,
    /// How long an instance may go without hearing what others have revoked, before it refuses tokens. Default: access_ttl.
    pub max_staleness: Option<Duration>,
    /// Whether `Authorization: TOKEN` without "Bearer" is read. Default: false.
    pub accept_bare: Option<bool>,
}

/// Where members and sessions are kept.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Members: "sqlite:PATH" or "postgres://USER:PASSWORD@HOST/DATABASE". Default: "sqlite:data/wxgate.db".
    #[schemars(example = &"sqlite:data/wxgate.db")]
    pub members: Option<String>,
    /// Sessions: "sqlite:PATH", "redis://HOST", "redis+sentinel://HOST,HOST/SERVICE" or "redis+cluster://HOST,HOST".
    /// Default: "sqlite:data/wxgate.db".
    #[schemars(example = &"sqlite:data/wxgate.db")]
    pub sessions: Option<String>,
}

/// Logins, and what members do with the data of theirs.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// How often POST /auth/login may be called, by "ip" or "app". Default: no limit.
    pub limit: Option<LoginLimit>,
    /// How often one member may use profile, phone, open-data and check. Default: 10/s, burst 200.
    pub decrypt_limit: Option<DecryptLimit>,
    /// Whether all who have one unionid are one member, across apps. Default: false.
    pub merge_by_unionid: Option<bool>,
    /// How many sessions a member may have at once; the oldest ends. Default: 0, no limit.
    #[schemars(range(min = 0, max = 1_000_000), example = 5)]
    pub max_sessions: Option<i64>,
    /// The business service is asked at each login. Default: nobody is.
    pub hook: Option<Hook>,
    /// Exact path of a login for clients of the wafer2 SDK, whose headers are read then. Default: none.
    #[schemars(example = &"/wafer2/login")]
    pub wafer2: Option<String>,
}

/// How WeChat is reached.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeChat {
    /// Base URL of the server API. Default: `https://api.weixin.qq.com`.
    #[schemars(example = &"https://api.weixin.qq.com")]
    pub api_base: Option<String>,
    /// Base URL of the pages that a browser is sent to. Default: `https://open.weixin.qq.com`.
    #[schemars(example = &"https://open.weixin.qq.com")]
    pub open_base: Option<String>,
    /// Total deadline of one call. Default: "5s".
    pub timeout: Option<Duration>,
}

/// A service behind the gateway.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Its name, unique; letters, digits, ".", "_" and "-". Required.
    #[schemars(required, example = &"orders")]
    pub name: Option<String>,
    /// Its servers, each "http://HOST:PORT" or "https://HOST:PORT", or { url = "http://HOST:PORT", weight = 2 }. Required.
    #[schemars(required, length(min = 1), example = ["http://127.0.0.1:3001"])]
    pub servers: Option<Vec<UpstreamServer>>,
    /// Which HTTP its servers speak. Default: "http/1.1".
    pub protocol: Option<UpstreamProtocol>,
    /// TLS to servers with "https://".
    pub tls: Option<UpstreamTls>,
    /// How a server is chosen. Default: "p2c".
    pub balance: Option<Balance>,
    /// How long a connect may take. Default: "2s".
    pub connect_timeout: Option<Duration>,
    /// How its servers are asked whether they are well. Default: not at all.
    pub health: Option<Health>,
    /// How long a server that has come, or come back, takes until it has its whole share. Default: "0s", at once.
    pub slow_start: Option<Duration>,
    /// Most requests that one server works on at a time, 0 to 1000000; 0 is no limit. Default: 0.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_connections: Option<i64>,
    /// Where requests wait for a server with room. Default: 128 of them, for at most "1s".
    pub queue: Option<Queue>,
    /// When the upstream is left alone. Default: never.
    pub breaker: Option<Breaker>,
}

/// Which request goes to which upstream, and what it needs.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// An exact path, with {segment} for any one segment; a trailing /* takes everything below. Required.
    #[schemars(required, example = &"/api/orders/*")]
    pub path: Option<String>,
    /// Hosts, exact or "*.example.com". Default: any.
    #[schemars(example = ["api.example.com"])]
    pub host: Option<Vec<String>>,
    /// Methods. Default: any.
    #[schemars(example = ["GET", "POST"])]
    pub methods: Option<Vec<String>>,
    /// Name of the upstream that answers. Required without `redirect`.
    #[schemars(example = &"orders")]
    pub upstream: Option<String>,
    /// What is asked of the caller. Default: "required".
    pub auth: Option<Auth>,
    /// The caller must have any of these roles. Default: no condition.
    #[schemars(example = ["staff"])]
    pub roles: Option<Vec<String>>,
    /// The caller must come from any of these apps (appid). Default: no condition.
    #[schemars(example = ["wx0123456789abcdef"])]
    pub apps: Option<Vec<String>>,
    /// Removed from the front of the path before it is forwarded; whole segments of `path`. Default: nothing.
    #[schemars(example = &"/api")]
    pub strip_prefix: Option<String>,
    /// What is forwarded in place of the path and host that came. Default: as they came.
    pub rewrite: Option<Rewrite>,
    /// Sends the client elsewhere, instead of `upstream`.
    pub redirect: Option<Redirect>,
    /// Networks whose clients may use it, in CIDR notation. Default: everybody.
    #[schemars(example = ["10.0.0.0/8"])]
    pub allow: Option<Vec<String>>,
    /// Networks whose clients may not, whatever `allow` says. Default: nobody.
    #[schemars(example = ["192.0.2.0/24"])]
    pub deny: Option<Vec<String>>,
    /// Headers that it removes, sets and adds. Default: none.
    pub headers: Option<Headers>,
    /// Whether its answers are compressed. Default: false.
    pub compress: Option<Compress>,
    /// How long the upstream may take until its response head. Default: "30s".
    pub timeout: Option<Duration>,
    /// Longest silence in either body. Default: "60s".
    pub idle_timeout: Option<Duration>,
    /// From the request head to the last byte of the answer. Default: no limit.
    pub total_timeout: Option<Duration>,
    /// Largest request body. Default: the server's max_body.
    pub max_body: Option<Size>,
    /// Bytes a second that a client must send of a body, beyond one idle_timeout of grace; 0 is none. Default: "1KiB".
    pub min_body_rate: Option<Size>,
    /// Most requests under way, 0 to 1000000; 0 is no limit. Default: 0.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_in_flight: Option<i64>,
    /// Most requests of one member under way, 0 to 1000000; 0 is no limit. Default: 0.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_in_flight_per_member: Option<i64>,
    /// Whether the caller's Authorization header is passed on. Default: false.
    pub forward_token: Option<bool>,
    /// Whether the token may stand in the cookie of a web page. Default: false.
    pub cookie: Option<bool>,
    /// Whether the upstream gets X-Wxgate-Assertion: a JWT of 60 seconds for it alone. Default: false.
    pub assertion: Option<bool>,
    /// Protocols that a connection may be upgraded to; [] is none. Default: ["websocket"].
    #[schemars(example = ["websocket"])]
    pub upgrade: Option<Vec<String>>,
    /// How often it may be used. Default: no limit.
    pub limit: Option<RouteLimit>,
    /// When a request is tried again on another server. Default: only when no connection could be opened, once.
    pub retry: Option<Retry>,
    /// Which pages of other origins may use it. Default: none.
    pub cors: Option<Cors>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_strict_and_has_no_null() {
        let schema = schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["$defs"]["Route"]["additionalProperties"], false);
        assert!(!schema.to_string().contains("null"), "{schema:#}");
    }

    #[test]
    fn the_schema_describes_every_key() {
        for (name, def) in schema()["$defs"].as_object().unwrap() {
            for (key, property) in def["properties"].as_object().into_iter().flatten() {
                assert!(property["description"].is_string(), "{name}.{key}");
            }
        }
    }

    #[test]
    fn debug_output_of_the_mirror_hides_secrets() {
        let app = App { secret: Some(Secret::Text(ids::Secret::new("hunter2".into()))), ..App::default() };
        assert!(!format!("{app:?}").contains("hunter2"));
    }
}
