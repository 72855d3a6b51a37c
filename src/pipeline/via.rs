//! Tells the upstream which way the request came: `X-Forwarded-*`, `Forwarded`, `Via`, request id and trace context.
//!
//! All of them are rebuilt from what we saw and what a trusted proxy told (`client_addr`); what a client sent under these
//! names is gone since `hygiene`.

use std::io::Write as _;
use std::net::IpAddr;

use bytes::{BufMut as _, BytesMut};
use http::header::{FORWARDED, HOST, HeaderName, VIA};
use http::{HeaderMap, HeaderValue};

use super::exchange::Exchange;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The client's address under the name that WeChat CloudRun uses.
const X_ORIGINAL_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-original-forwarded-for");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// RFC 9110, section 7.6.3, with a pseudonym for the host.
const VIA_WXGATE: HeaderValue = HeaderValue::from_static("1.1 wxgate");

/// Sets the headers.
pub fn announce(headers: &mut HeaderMap, exchange: &Exchange) {
    let Some(forwarded) = exchange.forwarded.get() else { return };
    let peer = exchange.peer.ip().to_canonical();
    let host = forwarded.host.as_ref().or_else(|| headers.get(HOST)).cloned();
    let texts = Texts::new(forwarded.chain.as_ref(), peer, forwarded.client, host.as_ref(), forwarded.https);
    headers.reserve(9);
    headers.insert(X_FORWARDED_FOR, texts.chain);
    headers.insert(X_ORIGINAL_FORWARDED_FOR, texts.client);
    headers.insert(FORWARDED, texts.forwarded);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme(forwarded.https)));
    if let Some(host) = host {
        headers.insert(X_FORWARDED_HOST, host);
    }
    headers.insert(VIA, VIA_WXGATE);
    match &forwarded.traceparent {
        Some(parent) => {
            headers.insert(TRACEPARENT, parent.clone());
            if let Some(state) = &forwarded.tracestate {
                headers.insert(TRACESTATE, state.clone());
            }
        }
        None => {
            if let Some(parent) = traceparent(exchange.own_id.as_bytes()) {
                headers.insert(TRACEPARENT, parent);
            }
        }
    }
    headers.insert(X_REQUEST_ID, exchange.id().clone());
}

const fn scheme(https: bool) -> &'static str {
    if https { "https" } else { "http" }
}

/// The three values that hold addresses, cut from one buffer.
struct Texts {
    chain: HeaderValue,
    client: HeaderValue,
    forwarded: HeaderValue,
}

impl Texts {
    fn new(chain: Option<&HeaderValue>, peer: IpAddr, client: IpAddr, host: Option<&HeaderValue>, https: bool) -> Self {
        let mut buffer = BytesMut::with_capacity(192).writer();
        if let Some(chain) = chain {
            let _ = buffer.write_all(chain.as_bytes());
            let _ = buffer.write_all(b", ");
        }
        let _ = write!(buffer, "{peer}");
        let chain_end = buffer.get_ref().len();
        let _ = write!(buffer, "{client}");
        let client_end = buffer.get_ref().len();
        // RFC 7239, section 4: addresses of version 6 and hosts with a port are quoted.
        let _ = match client {
            IpAddr::V4(ip) => write!(buffer, "for={ip}"),
            IpAddr::V6(ip) => write!(buffer, "for=\"[{ip}]\""),
        };
        if let Some(host) = host.filter(|h| h.as_bytes().iter().all(|b| *b != b'"' && *b != b'\\')) {
            let _ = buffer.write_all(b";host=\"");
            let _ = buffer.write_all(host.as_bytes());
            let _ = buffer.write_all(b"\"");
        }
        let _ = write!(buffer, ";proto={}", scheme(https));
        let mut rest = buffer.into_inner().freeze();
        let mut cut = |len: usize| {
            HeaderValue::from_maybe_shared(rest.split_to(len)).unwrap_or(HeaderValue::from_static("unknown"))
        };
        let chain = cut(chain_end);
        let client = cut(client_end - chain_end);
        let forwarded = HeaderValue::from_maybe_shared(rest).unwrap_or(HeaderValue::from_static("for=unknown"));
        Self { chain, client, forwarded }
    }
}

/// A new trace (W3C Trace Context, version 00) whose trace id is our request id: not sampled, the upstream decides.
fn traceparent(id: &[u8]) -> Option<HeaderValue> {
    if id.len() != 32 {
        return None;
    }
    let mut text = [b'0'; 55];
    text[2] = b'-';
    text[3..35].copy_from_slice(id);
    text[35] = b'-';
    text[36..52].copy_from_slice(&id[16..32]);
    text[52] = b'-';
    HeaderValue::from_bytes(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::client_addr::Forwarded;
    use std::time::Instant;

    fn announced(forwarded: &[(&'static str, &'static str)], peer: &str, trusted: &str) -> HeaderMap {
        let mut sent = HeaderMap::new();
        for (name, value) in forwarded {
            sent.append(*name, HeaderValue::from_static(value));
        }
        let peer: std::net::SocketAddr = peer.parse().unwrap();
        let id = HeaderValue::from_static("0123456789abcdef0123456789abcdef");
        let exchange = Exchange::new(peer, id, Instant::now());
        let _ = exchange.forwarded.set(Forwarded::read(&[trusted.parse().unwrap()], peer.ip(), &sent));
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("api.example.com"));
        announce(&mut headers, &exchange);
        headers
    }

    #[test]
    fn a_direct_client_is_named_by_its_own_address() {
        let headers = announced(&[("x-forwarded-for", "6.6.6.6")], "203.0.113.9:1", "10.0.0.0/8");
        for (name, value) in [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-original-forwarded-for", "203.0.113.9"),
            ("forwarded", "for=203.0.113.9;host=\"api.example.com\";proto=http"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "api.example.com"),
            ("via", "1.1 wxgate"),
            ("x-request-id", "0123456789abcdef0123456789abcdef"),
            ("traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
    }

    #[test]
    fn the_trusted_part_of_the_chain_is_kept() {
        let chain = [("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.0.0.2"), ("x-forwarded-proto", "https")];
        let headers = announced(&chain, "10.0.0.1:1", "10.0.0.0/8");
        assert_eq!(headers["x-forwarded-for"], "1.2.3.4, 10.0.0.2, 10.0.0.1");
        assert_eq!(headers["x-original-forwarded-for"], "1.2.3.4");
        assert_eq!(headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn version_6_addresses_are_quoted_in_forwarded() {
        let headers = announced(&[], "[2001:db8::1]:9", "10.0.0.0/8");
        assert_eq!(headers["forwarded"], "for=\"[2001:db8::1]\";host=\"api.example.com\";proto=http");
        assert_eq!(headers["x-forwarded-for"], "2001:db8::1");
    }
}
