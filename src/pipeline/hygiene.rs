//! Removes what a client may not say: identity, hop-by-hop and forwarding headers, in every spelling.
//!
//! Runs before anything else looks at the request, on every route of every kind (contract, promise 1). Which names are
//! forbidden, and how they are compared, stands in `http1/forbidden.rs`; a line that passes beside the header map
//! (`http1/verbatim.rs`) has been held to the same list when it was read. Request hop-by-hop headers (RFC 9110, section
//! 7.6.1) go here too, so that a client cannot have a header of ours removed by naming it in `Connection`.
//!
//! `Upgrade` goes as well; what it asked for is noted in the exchange, for the route to decide, and the handshake with the
//! upstream is written anew.
//!
//! `Authorization` and `Cookie` stay: `authenticate` decides about them.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CONNECTION, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Version};
use http_body::Body as _;
use smallvec::SmallVec;
use tower::{Layer, Service};

use crate::body::Body;
use crate::http1::forbidden::is_forbidden;

use super::{Request, Response, wafer2};

/// Removes every header that a client may not send.
pub fn clean(headers: &mut HeaderMap) {
    let mut doomed: SmallVec<[HeaderName; 8]> = SmallVec::new();
    let mut nominates = false;
    for name in headers.keys() {
        nominates |= *name == CONNECTION;
        if is_forbidden(name.as_str().as_bytes()) {
            doomed.push(name.clone());
        }
    }
    if nominates {
        for value in headers.get_all(CONNECTION) {
            nominated(value, &mut doomed);
        }
        doomed.push(CONNECTION);
    }
    for name in doomed {
        headers.remove(name);
    }
}

/// What the client asks to be upgraded to, if this request can lead there: a GET of HTTP/1.1 without a body, with one
/// `Upgrade` that `Connection` names (RFC 9110, section 7.8; RFC 6455, section 4.1).
fn asks_upgrade(request: &http::Request<Body>) -> Option<&HeaderValue> {
    let headers = request.headers();
    let mut asked = headers.get_all(UPGRADE).iter();
    let value = asked.next()?;
    let names_it = |line: &HeaderValue| {
        line.as_bytes().split(|b| *b == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    };
    let can = asked.next().is_none()
        && *request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && headers.get_all(CONNECTION).iter().any(names_it);
    can.then_some(value)
}

/// Whether `Connection` names fields.
fn nominates(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| !is_of_the_connection(value.as_bytes()))
}

/// What most clients say, which names no field.
fn is_of_the_connection(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"keep-alive") || option.eq_ignore_ascii_case(b"close")
}

/// Headers that `Connection` names are hop-by-hop; those that routing, framing and authentication rest on are not removed
/// on a client's word (threat: `Connection: Authorization`, `Connection: Host`).
fn nominated(value: &HeaderValue, doomed: &mut SmallVec<[HeaderName; 8]>) {
    let bytes = value.as_bytes();
    if is_of_the_connection(bytes) {
        return;
    }
    for option in bytes.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|o| !o.is_empty()) {
        let Ok(name) = HeaderName::from_bytes(option) else { continue };
        if !matches!(
            name.as_str(),
            "host" | "authorization" | "cookie" | "content-length" | "content-type" | "content-encoding" | "close"
        ) {
            doomed.push(name);
        }
    }
}

/// Makes [`Hygiene`].
#[derive(Debug, Clone, Default)]
pub struct HygieneLayer {
    wafer2: Option<Arc<str>>,
}

impl HygieneLayer {
    /// `wafer2` is the login path of such clients, whose headers are then read first.
    pub fn new(wafer2: Option<&str>) -> Self {
        Self { wafer2: wafer2.map(Arc::from) }
    }
}

impl<S> Layer<S> for HygieneLayer {
    type Service = Hygiene<S>;

    fn layer(&self, inner: S) -> Hygiene<S> {
        Hygiene { inner, wafer2: self.wafer2.clone() }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct Hygiene<S> {
    inner: S,
    wafer2: Option<Arc<str>>,
}

impl<S> Service<Request> for Hygiene<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        // Most requests have neither of the two, and a few other fields.
        let (mut connection, mut upgrade) = (false, false);
        for name in request.headers().keys() {
            connection |= *name == CONNECTION;
            upgrade |= *name == UPGRADE;
        }
        if connection && nominates(request.headers()) {
            request.gather();
        }
        if upgrade && let Some(asked) = asks_upgrade(&request) {
            let _ = request.exchange.upgrade.set(asked.clone());
        }
        if let Some(login) = &self.wafer2 {
            request.gather();
            request.gather_authorization();
            wafer2::lift(&mut request, login);
        }
        clean(request.headers_mut());
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(pairs: &[(&str, &str)]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        clean(&mut map);
        let mut names: Vec<String> = map.keys().map(|n| n.as_str().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_upgrade_is_asked_for_in_one_way() {
        let asked = |method: &str, version, pairs: &[(&str, &str)], body: &'static str| {
            let mut request = http::Request::builder().method(method).version(version);
            for (name, value) in pairs {
                request = request.header(*name, *value);
            }
            asks_upgrade(&request.body(Body::from(body)).unwrap()).is_some()
        };
        let both = [("upgrade", "websocket"), ("connection", "keep-alive, Upgrade")];
        assert!(asked("GET", Version::HTTP_11, &both, ""));
        assert!(!asked("POST", Version::HTTP_11, &both, ""));
        assert!(!asked("GET", Version::HTTP_10, &both, ""));
        assert!(!asked("GET", Version::HTTP_11, &both, "body"));
        assert!(!asked("GET", Version::HTTP_11, &both[..1], ""));
        assert!(!asked("GET", Version::HTTP_11, &both[1..], ""));
        assert!(!asked("GET", Version::HTTP_11, &[both[0], both[0], both[1]], ""));
        assert!(!asked("GET", Version::HTTP_11, &[both[0], ("connection", "upgrades")], ""));
    }

    #[test]
    fn ordinary_headers_pass() {
        let ordinary = [
            "accept",
            "authorization",
            "cache-control",
            "content-length",
            "content-type",
            "cookie",
            "host",
            "referer",
            "user-agent",
            "x-custom",
            "x-requested-with",
            "x-api-key",
            "range",
            "if-none-match",
            "x-wechat-thing",
        ];
        let pairs: Vec<_> = ordinary.iter().map(|n| (*n, "v")).collect();
        let mut expected: Vec<_> = ordinary.iter().map(|n| (*n).to_owned()).collect();
        expected.sort();
        assert_eq!(after(&pairs), expected);
    }

    #[test]
    fn identity_is_removed_in_every_spelling() {
        for name in [
            "X-WX-OPENID",
            "x-wx-openid",
            "X_WX_OPENID",
            "X-WX_OPENID",
            "x.wx.openid",
            "X~WX~OPENID",
            "x!wx#openid",
            "X-WX-SOURCE",
            "X-WX-FROM-OPENID",
            "X-Wxgate-Member",
            "x_wxgate_roles",
            "X-WX-",
            "x-wx",
            "X-WX-AN-OPENID-WITH-A-VERY-LONG-NAME-INDEED-LONGER-THAN-FORTY",
        ] {
            assert_eq!(after(&[(name, "evil"), (name, "worse")]), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn look_alikes_and_forwarding_headers_are_removed() {
        for name in [
            "Remote-User",
            "REMOTE_USER",
            "X-Forwarded-User",
            "X-Auth-Request-Email",
            "X-Forwarded-For",
            "X_Forwarded_Host",
            "X-Forwarded-Proto",
            "X-Forwarded-Prefix",
            "Forwarded",
            "X-Real-IP",
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-HTTP-Method-Override",
            "Via",
            "X-Request-Id",
            "traceparent",
            "True-Client-IP",
            "Proxy",
            "Expect",
            "X-Original-Forwarded-For",
        ] {
            assert_eq!(after(&[(name, "evil")]), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn hop_by_hop_headers_and_those_named_in_connection_are_removed() {
        assert_eq!(
            after(&[
                ("connection", "keep-alive, X-Private, te"),
                ("x-private", "1"),
                ("te", "trailers"),
                ("keep-alive", "timeout=5"),
                ("upgrade", "h2c"),
                ("http2-settings", "AAMAAABkAAQAAP__"),
                ("proxy-authorization", "Basic x"),
                ("transfer-encoding", "chunked"),
                ("x-kept", "1"),
            ]),
            ["x-kept"]
        );
    }

    #[test]
    fn connection_cannot_remove_what_decisions_rest_on() {
        let pairs = [
            ("connection", "authorization, host, content-length, cookie, x-wx-openid"),
            ("authorization", "Bearer x"),
            ("host", "h"),
            ("content-length", "0"),
            ("cookie", "a=b"),
        ];
        assert_eq!(after(&pairs), ["authorization", "content-length", "cookie", "host"]);
    }

    proptest! {
        /// Promise 1: whatever a CGI-like service would see as `X-WX-…` or `X-Wxgate-…` is gone.
        #[test]
        fn no_name_that_folds_into_our_namespaces_survives(
            name in "[xX][-_.~!#$%&'*+^`|][wW][xX]([gG][aA][tT][eE])?[-_.~!#$%&'*+^`|][a-zA-Z0-9_.-]{0,50}"
        ) {
            prop_assert_eq!(after(&[(&name, "evil"), ("x-kept", "1")]), ["x-kept"]);
        }
    }
}
