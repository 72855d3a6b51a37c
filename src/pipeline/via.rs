//! Tells the upstream which way the request came: `X-Forwarded-*`, `Forwarded`, `Via`, request id and trace context.
//!
//! All of them are rebuilt from what we saw and what a trusted proxy told (`client_addr`); what a client sent under these
//! names is gone since `hygiene`.

use http::header::{FORWARDED, HOST, HeaderName, VIA};
use http::{HeaderMap, HeaderValue};

use super::connection;
use super::exchange::Exchange;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The client's address under the name that WeChat CloudRun uses.
const X_ORIGINAL_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-original-forwarded-for");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C Trace Context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The certificate of a client that showed one, by its SHA-256.
const X_WXGATE_CLIENT_CERT: HeaderName = HeaderName::from_static("x-wxgate-client-cert");

/// RFC 9110, section 7.6.3, with a pseudonym for the host.
const VIA_WXGATE: HeaderValue = HeaderValue::from_static("1.1 wxgate");

/// Sets the headers.
pub fn announce(headers: &mut HeaderMap, exchange: &Exchange) {
    let Some(known) = exchange.forwarded.get() else { return };
    let connection = &exchange.connection;
    let host = known.host.as_ref().or_else(|| headers.get(HOST)).cloned();
    let direct = known.chain.is_none() && known.https == connection.https();
    let (chain, client, forwarded) = match &host {
        Some(host) if direct => {
            (connection.peer_text().clone(), connection.peer_text().clone(), connection.forwarded(host))
        }
        _ => (
            chain(known.chain.as_ref(), connection.peer_text()),
            connection::ip_text(known.client),
            connection::forwarded(known.client, host.as_ref(), known.https),
        ),
    };
    headers.insert(X_FORWARDED_FOR, chain);
    headers.insert(X_ORIGINAL_FORWARDED_FOR, client);
    headers.insert(FORWARDED, forwarded);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme(known.https)));
    if let Some(host) = host {
        headers.insert(X_FORWARDED_HOST, host);
    }
    if let Some(certificate) = connection.certificate() {
        headers.insert(X_WXGATE_CLIENT_CERT, certificate.clone());
    }
    headers.insert(VIA, VIA_WXGATE);
    let parent = match (&known.traceparent, exchange.recording()) {
        // Our own span is the parent then; an attempt of the proxy puts its span in place of it.
        (_, Some(recording)) => Some(recording.context.traceparent(recording.context.span)),
        (Some(parent), None) => Some(parent.clone()),
        (None, None) => traceparent(exchange.own_id.as_bytes()),
    };
    if let Some(parent) = parent {
        headers.insert(TRACEPARENT, parent);
    }
    if let (Some(_), Some(state)) = (&known.traceparent, &known.tracestate) {
        headers.insert(TRACESTATE, state.clone());
    }
    headers.insert(X_REQUEST_ID, exchange.id().clone());
}

/// The chain so far and the peer.
fn chain(before: Option<&HeaderValue>, peer: &HeaderValue) -> HeaderValue {
    let Some(before) = before else { return peer.clone() };
    HeaderValue::from_bytes(&[before.as_bytes(), b", ", peer.as_bytes()].concat()).unwrap_or_else(|_| peer.clone())
}

const fn scheme(https: bool) -> &'static str {
    if https { "https" } else { "http" }
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
    use crate::pipeline::connection::Connection;
    use std::sync::Arc;
    use std::time::Instant;

    fn announced(forwarded: &[(&'static str, &'static str)], peer: &str, trusted: &str) -> HeaderMap {
        let mut sent = HeaderMap::new();
        for (name, value) in forwarded {
            sent.append(*name, HeaderValue::from_static(value));
        }
        let peer: std::net::SocketAddr = peer.parse().unwrap();
        let id = HeaderValue::from_static("0123456789abcdef0123456789abcdef");
        let exchange = Exchange::new(Arc::new(Connection::new(peer, false)), id, Instant::now());
        let _ = exchange.forwarded.set(Forwarded::read(&[trusted.parse().unwrap()], peer.ip(), false, &sent));
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
