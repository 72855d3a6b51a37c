//! Who is the client, when proxies stand in between? Only a listed trusted proxy is believed.
//!
//! From a trusted peer, `X-Forwarded-For` is read from the right until an address that is not a trusted proxy; that is
//! the client. From anybody else forwarding headers are noise, and `hygiene`, the next layer, removes them.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use tower::{Layer, Service};

use super::{Request, Response};

/// Most entries of `X-Forwarded-For` that are looked at.
const MAX_HOPS: usize = 32;

/// What is known of the way that the request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The client.
    pub client: IpAddr,
    /// Whether the client came by TLS, as far as we or a trusted proxy know.
    pub https: bool,
    /// The host that the client asked for, where a trusted proxy tells another than `Host`.
    pub host: Option<HeaderValue>,
    /// The trusted part of the chain before the peer, as it came.
    pub chain: Option<HeaderValue>,
    /// The request id of a trusted proxy.
    pub request_id: Option<HeaderValue>,
    /// The trace context of a trusted proxy.
    pub traceparent: Option<HeaderValue>,
    /// And its companion.
    pub tracestate: Option<HeaderValue>,
}

impl Forwarded {
    fn direct(peer: IpAddr, https: bool) -> Self {
        Self { client: peer, https, host: None, chain: None, request_id: None, traceparent: None, tracestate: None }
    }

    /// What `peer`, whose connection is TLS or not, and these headers say.
    pub fn read(trusted: &[IpNet], peer: IpAddr, https: bool, headers: &HeaderMap) -> Self {
        let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
        let mut found = Self::direct(peer, https);
        if trusted.is_empty() || !is_trusted(peer) {
            return found;
        }
        let one = |name: &str| {
            let mut all = headers.get_all(name).iter();
            all.next().filter(|_| all.next().is_none())
        };
        let entries: Vec<&str> = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .map(str::trim)
            .collect();
        let mut believed = 0;
        for entry in entries.iter().rev().take(MAX_HOPS) {
            let Some(ip) = parse_hop(entry) else { break };
            believed += 1;
            found.client = ip;
            if !is_trusted(ip) {
                break;
            }
        }
        if believed > 0 {
            found.chain = HeaderValue::from_str(&entries[entries.len() - believed..].join(", ")).ok();
        }
        // What the client spoke to the proxy, not what the proxy speaks to us, if it says so.
        if let Some(proto) = one("x-forwarded-proto") {
            found.https = proto.as_bytes().eq_ignore_ascii_case(b"https");
        }
        found.host = one("x-forwarded-host").filter(|v| is_host(v.as_bytes())).cloned();
        found.request_id = one("x-request-id").filter(|v| is_request_id(v.as_bytes())).cloned();
        found.traceparent = one("traceparent").filter(|v| is_traceparent(v.as_bytes())).cloned();
        found.tracestate = one("tracestate").filter(|v| found.traceparent.is_some() && v.len() <= 512).cloned();
        found
    }
}

/// An address with or without port and brackets, as proxies write it.
fn parse_hop(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    if let Ok(addr) = text.parse::<std::net::SocketAddr>() {
        return Some(addr.ip().to_canonical());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn is_host(value: &[u8]) -> bool {
    !value.is_empty()
        && value.len() <= 261
        && value.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']' | b'_'))
}

fn is_request_id(value: &[u8]) -> bool {
    !value.is_empty()
        && value.len() <= 128
        && value
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=' | b'+' | b'/' | b':'))
}

/// W3C Trace Context, version 00: `00-<32 hex>-<16 hex>-<2 hex>`.
fn is_traceparent(value: &[u8]) -> bool {
    value.len() == 55
        && value.starts_with(b"00-")
        && value.iter().enumerate().all(|(n, b)| match n {
            2 | 35 | 52 => *b == b'-',
            _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
        })
        && value[3..35].iter().any(|b| *b != b'0')
        && value[36..52].iter().any(|b| *b != b'0')
}

/// Makes [`ReadClientAddr`].
#[derive(Debug, Clone)]
pub struct ClientAddrLayer {
    trusted: Arc<[IpNet]>,
}

impl ClientAddrLayer {
    /// Believes these peers.
    pub fn new(trusted: &[IpNet]) -> Self {
        Self { trusted: trusted.into() }
    }
}

impl<S> Layer<S> for ClientAddrLayer {
    type Service = ReadClientAddr<S>;

    fn layer(&self, inner: S) -> ReadClientAddr<S> {
        ReadClientAddr { inner, trusted: Arc::clone(&self.trusted) }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct ReadClientAddr<S> {
    inner: S,
    trusted: Arc<[IpNet]>,
}

impl<S> Service<Request> for ReadClientAddr<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let connection = &request.exchange.connection;
        let forwarded = Forwarded::read(&self.trusted, connection.peer(), connection.https(), request.headers());
        let _ = request.exchange.forwarded.set(forwarded);
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn read(peer: &str, pairs: &[(&'static str, &str)]) -> Forwarded {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        Forwarded::read(&trusted, peer.parse().unwrap(), false, &headers(pairs))
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let found = read(
            "203.0.113.9",
            &[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https"), ("x-request-id", "a")],
        );
        assert_eq!(found, Forwarded::direct("203.0.113.9".parse().unwrap(), false));
    }

    #[test]
    fn the_client_is_the_last_address_that_no_trusted_proxy_holds() {
        for (chain, client) in [
            ("1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4, 10.9.9.9", "1.2.3.4"),
            ("1.2.3.4:5678", "1.2.3.4"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
            ("junk, 10.2.2.2", "10.2.2.2"),
            ("junk", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(read("10.0.0.1", &[("x-forwarded-for", chain)]).client.to_string(), client, "{chain}");
        }
    }

    #[test]
    fn what_a_trusted_proxy_says_is_still_checked() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let found =
            read("10.0.0.1", &[("x-request-id", "abc-1"), ("traceparent", trace), ("x-forwarded-proto", "https")]);
        assert_eq!(found.request_id.unwrap(), "abc-1");
        assert_eq!(found.traceparent.unwrap(), trace);
        assert!(found.https);
        let found =
            read("10.0.0.1", &[("x-request-id", "a b"), ("traceparent", "00-0-0-0"), ("x-forwarded-host", "a@b")]);
        assert_eq!((found.request_id, found.traceparent, found.host), (None, None, None));
    }
}
