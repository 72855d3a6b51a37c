//! `GET /openapi.json`: the public endpoints in OpenAPI 3.1, for client generators and for tests that hold the gateway to it.
//!
//! Made once for each configuration: the base, the issuer and the endpoints that are there. Refusals come from the catalogue of
//! problems, so that a status stands here with the codes that it may carry.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::config::TokenFormat;
use crate::problem::Code;

use super::Auth;
use super::answer;
use super::call::Call;
use super::keys::is_known;
use super::openapi_schema::schemas;

/// It changes with the configuration and with the version; whoever holds an old one asks again with its `ETag`.
const MAX_AGE: &str = "public, max-age=300";

/// What any endpoint may answer.
const ANY: &[Code] = &[
    Code::InvalidRequest,
    Code::AmbiguousPath,
    Code::MethodNotAllowed,
    Code::RequestTimeout,
    Code::BodyTooLarge,
    Code::UriTooLong,
    Code::HeadersTooLarge,
    Code::RateLimited,
    Code::Internal,
    Code::Overloaded,
    Code::Draining,
    Code::StoreUnavailable,
];

/// What a call with an access token may answer beside that.
const WITH_TOKEN: &[Code] =
    &[Code::AmbiguousToken, Code::TokenMissing, Code::TokenInvalid, Code::TokenExpired, Code::TokenRevoked];

/// What a call that asks WeChat may answer.
const ASKS_WECHAT: &[Code] = &[
    Code::CodeInvalid,
    Code::CodeUsed,
    Code::LoginBlocked,
    Code::WechatRateLimited,
    Code::WechatFailed,
    Code::WechatUnavailable,
    Code::WechatTimeout,
    Code::UnknownApp,
];

/// What a login may be refused with.
const LOGS_IN: &[Code] =
    &[Code::MemberBanned, Code::LoginRefused, Code::UpstreamFailed, Code::UpstreamUnavailable, Code::UpstreamTimeout];

/// What user data may be refused with.
const DECRYPTS: &[Code] = &[Code::SignatureMismatch, Code::DecryptFailed, Code::SessionKeyStale, Code::MemberBanned];

/// The handler.
pub(super) async fn openapi(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let text = document(&auth).to_string();
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]));
    let known = is_known(call.headers(), &etag);
    let mut response = if known { answer::empty(StatusCode::NOT_MODIFIED) } else { Response::new(Body::from(text)) };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(MAX_AGE));
    if !known {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    call.answer(Ok(response))
}

fn document(auth: &Auth) -> Value {
    let mut paths = Map::new();
    for (path, operations) in endpoints() {
        paths.insert(format!("{}{path}", auth.base), operations);
    }
    paths.extend(well_known().into_iter().map(|(path, operations)| (path.to_owned(), operations)));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "wxgate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Login of WeChat mini programs, tokens, and the member's own data. Everything else is the services'.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": auth.section.issuer.trim_end_matches('/') }],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": { "bearer": bearer(auth.section.format) },
        },
    })
}

/// Where the token stands; what it is made of is a hint for people.
fn bearer(format: TokenFormat) -> Value {
    match format {
        TokenFormat::Jwt => json!({ "type": "http", "scheme": "bearer", "bearerFormat": "JWT" }),
        TokenFormat::Opaque => json!({ "type": "http", "scheme": "bearer" }),
    }
}

/// One operation.
struct Operation {
    summary: &'static str,
    /// Name of a schema and its content type.
    body: Option<(&'static str, &'static str, bool)>,
    token: Token,
    good: Value,
    codes: Vec<&'static [Code]>,
    parameters: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    None,
    Optional,
    Required,
}

impl Operation {
    fn new(summary: &'static str, good: Value) -> Self {
        Self { summary, body: None, token: Token::None, good, codes: vec![ANY], parameters: json!([]) }
    }

    fn takes(self, schema: &'static str) -> Self {
        Self { body: Some((schema, "application/json", true)), ..self }
    }

    fn member(mut self) -> Self {
        self.codes.push(WITH_TOKEN);
        Self { token: Token::Required, ..self }
    }

    fn may(mut self, codes: &'static [Code]) -> Self {
        self.codes.push(codes);
        self
    }

    fn with(self, parameters: Value) -> Self {
        Self { parameters, ..self }
    }

    fn written(self) -> Value {
        let mut responses = self.good;
        for (status, names) in by_status(&self.codes.concat()) {
            let mut response = json!({
                "description": names.join(", "),
                "content": { "application/problem+json": { "schema": reference("Problem") } },
            });
            let header = match status {
                401 => Some("WWW-Authenticate"),
                405 => Some("Allow"),
                429 | 503 => Some("Retry-After"),
                _ => None,
            };
            if let Some(header) = header {
                response["headers"] = json!({ header: { "schema": { "type": "string" } } });
            }
            responses[status.to_string()] = response;
        }
        let mut operation = json!({ "summary": self.summary, "responses": responses });
        if let Some((schema, content, required)) = self.body {
            let content = json!({ content: { "schema": reference(schema) } });
            operation["requestBody"] = json!({ "required": required, "content": content });
        }
        operation["security"] = match self.token {
            Token::None => json!([]),
            Token::Optional => json!([{}, { "bearer": [] }]),
            Token::Required => json!([{ "bearer": [] }]),
        };
        if self.parameters.as_array().is_some_and(|list| !list.is_empty()) {
            operation["parameters"] = self.parameters;
        }
        operation
    }
}

/// The names of these codes, by status.
fn by_status(codes: &[Code]) -> BTreeMap<u16, Vec<&'static str>> {
    let mut found: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
    for code in codes {
        let names = found.entry(code.status()).or_default();
        if !names.contains(&code.name()) {
            names.push(code.name());
        }
    }
    found
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn answers(schema: &str) -> Value {
    json!({ "200": { "description": "Done.", "content": { "application/json": { "schema": reference(schema) } } } })
}

fn nothing() -> Value {
    json!({ "204": { "description": "Done." } })
}

/// Below the base.
fn endpoints() -> Vec<(&'static str, Value)> {
    let login =
        Operation::new("Log in with the code of wx.login, or the ticket of a web login", answers("TokenAnswer"))
            .takes("Login")
            .may(ASKS_WECHAT)
            .may(LOGS_IN)
            .may(DECRYPTS)
            .may(&[Code::TokenRevoked]);
    let refresh = Operation::new("A new pair for a refresh token, which is used up", answers("TokenAnswer"))
        .takes("Refresh")
        .may(&[Code::RefreshInvalid, Code::RefreshReused, Code::TokenRevoked, Code::MemberBanned]);
    let logout = Operation {
        body: Some(("Logout", "application/json", false)),
        token: Token::Optional,
        ..Operation::new("End the session, or all of the member in this app", nothing())
    };
    let logout = logout.may(WITH_TOKEN).may(&[Code::RefreshInvalid]);
    let revoke = Operation {
        body: Some(("Revoke", "application/x-www-form-urlencoded", true)),
        ..Operation::new(
            "Revoke a token (RFC 7009)",
            json!({ "200": { "description": "Done, whatever the token was." } }),
        )
    };
    let me = json!({
        "get": Operation::new("Who am I", answers("Me")).member().written(),
        "put": Operation::new("Set name and picture", answers("Member")).member().takes("Update").written(),
        "delete": Operation::new("Erase me: sessions, keys, profile and phone", nothing()).member().written(),
    });
    let data =
        |summary, good, schema| Operation::new(summary, good).member().takes(schema).may(ASKS_WECHAT).may(DECRYPTS);
    let appid = json!({
        "name": "appid", "in": "path", "required": true, "schema": { "type": "string", "pattern": "^[A-Za-z0-9]{1,64}$" },
    });
    let query = |name: &str, required: bool| json!({ "name": name, "in": "query", "required": required, "schema": { "type": "string" } });
    let there = json!({ "302": { "description": "To WeChat, or back to the page.",
        "headers": { "Location": { "schema": { "type": "string" } } } } });
    let start = Operation::new("Send a browser to WeChat's login", there.clone())
        .with(json!([appid, query("redirect", true)]))
        .may(&[Code::UnknownApp, Code::RouteNotFound]);
    let callback = Operation::new("Where WeChat sends the browser back to", there)
        .with(json!([appid, query("code", false), query("state", true)]))
        .may(ASKS_WECHAT)
        .may(LOGS_IN)
        .may(&[Code::TokenRevoked, Code::RouteNotFound]);
    let text = json!({ "200": { "description": "What WeChat wants to hear.",
        "content": { "text/plain; charset=utf-8": { "schema": { "type": "string" } } } } });
    let pushed = [
        Code::Forbidden,
        Code::SignatureMismatch,
        Code::DecryptFailed,
        Code::UnknownApp,
        Code::RouteNotFound,
        Code::UpstreamFailed,
        Code::UpstreamUnavailable,
        Code::UpstreamTimeout,
    ];
    let pushed: &'static [Code] = Box::leak(Box::new(pushed));
    let push = |summary| {
        let names = ["signature", "timestamp", "nonce", "echostr", "msg_signature", "encrypt_type"];
        let parameters: Vec<_> = std::iter::once(appid.clone()).chain(names.map(|name| query(name, false))).collect();
        Operation::new(summary, text.clone()).with(json!(parameters)).may(pushed)
    };
    vec![
        ("/login", json!({ "post": login.written() })),
        ("/refresh", json!({ "post": refresh.written() })),
        ("/logout", json!({ "post": logout.written() })),
        ("/revoke", json!({ "post": revoke.written() })),
        ("/me", me),
        (
            "/profile",
            json!({ "post": data("Verify, decrypt and store the profile", answers("Member"), "UserData").written() }),
        ),
        ("/phone", json!({ "post": data("The member's phone number", answers("Phone"), "PhoneData").written() })),
        ("/open-data", json!({ "post": data("Decrypt open data", answers("OpenData"), "EncryptedData").written() })),
        (
            "/check",
            json!({ "post": Operation { body: Some(("LoginCode", "application/json", false)),
            ..Operation::new("Whether WeChat's session_key is still the current one", answers("Check")) }
            .member().may(ASKS_WECHAT).may(DECRYPTS).written() }),
        ),
        ("/web/{appid}/start", json!({ "get": start.written() })),
        ("/web/{appid}/callback", json!({ "get": callback.written() })),
        (
            "/push/{appid}",
            json!({
                "get": push("WeChat asks whether we are there").written(),
                "post": Operation { body: Some(("Push", "text/xml", true)), ..push("WeChat pushes a message") }.written(),
            }),
        ),
    ]
}

/// Beside the base.
fn well_known() -> Vec<(&'static str, Value)> {
    let document = |content: &str, schema: Value| {
        let headers = json!({ "ETag": { "schema": { "type": "string" } } });
        json!({
            "200": { "description": "The document.", "headers": headers, "content": { content: { "schema": schema } } },
            "304": { "description": "As you know it." },
        })
    };
    let object = json!({ "type": "object" });
    vec![
        (
            "/.well-known/jwks.json",
            json!({ "get":
            Operation::new("Public keys (RFC 7517)", document("application/jwk-set+json", reference("Jwks"))).written() }),
        ),
        (
            "/.well-known/oauth-authorization-server",
            json!({ "get":
            Operation::new("Metadata (RFC 8414)", answers("Metadata")).written() }),
        ),
        (
            "/openapi.json",
            json!({ "get":
            Operation::new("This document", document("application/json", object)).written() }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_used() {
        let all = json!({ "a": endpoints().into_iter().map(|(_, value)| value).collect::<Vec<_>>(),
            "b": well_known().into_iter().map(|(_, value)| value).collect::<Vec<_>>(), "c": schemas() })
        .to_string();
        let schemas = schemas();
        for name in schemas.as_object().unwrap().keys() {
            assert!(all.contains(&format!("\"#/components/schemas/{name}\"")), "{name} is not used");
        }
        for part in all.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(schemas.get(name).is_some(), "{name} is missing");
        }
    }
}
