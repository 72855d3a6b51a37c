//! Tells the upstream which way the request came: `X-Forwarded-*`, `Forwarded`, `Via`, request id and trace context.
//!
//! All of them are rebuilt from what we saw and what a trusted proxy told (`client_addr`); what a client sent under these
//! names is gone since `hygiene`.

use bytes::Bytes;
use http::header::{FORWARDED, HOST, HeaderName, VIA};
use http::{HeaderMap, HeaderValue, Version};
use smallvec::SmallVec;

use crate::http1::lines;

use super::client_addr::Forwarded;
use super::connection::{self, Connection};
use super::exchange::{Exchange, OwnId, Way};

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

/// The protocol in which the request was received, and a pseudonym for the host (RFC 9110, section 7.6.3).
const fn received(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2 wxgate",
        Version::HTTP_10 => "1.0 wxgate",
        _ => "1.1 wxgate",
    })
}

/// Sets the headers of a request that came in this version of HTTP.
pub fn announce(headers: &mut HeaderMap, version: Version, exchange: &Exchange) {
    let Some(known) = exchange.forwarded.get() else { return };
    let host = known.host.as_ref().or_else(|| headers.get(HOST)).cloned();
    for (name, value) in way(known, &exchange.connection, host, version) {
        headers.insert(name, value);
    }
    own(known, exchange, |name, value| {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    });
    let parent = match exchange.recording() {
        // Our own span is the parent then; an attempt of the proxy puts its span in place of it.
        Some(recording) => Some(recording.context.traceparent(recording.context.span)),
        None => parent(known, exchange),
    };
    if let Some(parent) = parent {
        headers.insert(TRACEPARENT, parent);
    }
}

/// What of it many requests have in common, as lines, for a request with these headers.
pub(super) fn lines(headers: &HeaderMap, version: Version, exchange: &Exchange) -> Way {
    let Some(known) = exchange.forwarded.get() else { return Way::Own(Bytes::new()) };
    let connection = &exchange.connection;
    let host = known.host.as_ref().or_else(|| headers.get(HOST));
    let write = || lines::lines(way(known, connection, host.cloned(), version));
    match host {
        // Nothing of it is the request's own but the host, which is mostly the same. A connection of HTTP/1 may change
        // between its versions; hardly any does.
        Some(host) if known.chain.is_none() && known.https == connection.https() && version != Version::HTTP_10 => {
            connection.way(host, write)
        }
        _ => Way::Own(write()),
    }
}

/// What is the request's own, as lines behind `out`.
pub(super) fn push_own(out: &mut Vec<u8>, exchange: &Exchange) {
    if let Some(known) = exchange.forwarded.get() {
        own(known, exchange, |name, value| {
            [name.as_str().as_bytes(), b": ", value, b"\r\n"].iter().for_each(|part| out.extend_from_slice(part));
        });
        match &known.traceparent {
            // Each attempt of the proxy says it among the headers.
            _ if exchange.recording().is_some() => {}
            Some(parent) => lines::push(out, &TRACEPARENT, parent),
            None => {
                let parent = traceparent(&exchange.own_id);
                [&b"traceparent: "[..], &parent, b"\r\n"].iter().for_each(|part| out.extend_from_slice(part));
            }
        }
    }
}

/// Which way it came.
fn way(
    known: &Forwarded,
    connection: &Connection,
    host: Option<HeaderValue>,
    version: Version,
) -> SmallVec<[(HeaderName, HeaderValue); 7]> {
    // Mostly the client is who is connected.
    let client = if known.client == connection.peer() {
        connection.peer_text().clone()
    } else {
        connection::ip_text(known.client)
    };
    let forwarded = connection::forwarded(known.client, &client, host.as_ref(), known.https);
    let mut fields = SmallVec::new();
    fields.extend([
        (X_FORWARDED_FOR, chain(known.chain.as_ref(), connection.peer_text())),
        (X_ORIGINAL_FORWARDED_FOR, client),
        (FORWARDED, forwarded),
        (X_FORWARDED_PROTO, HeaderValue::from_static(scheme(known.https))),
        (VIA, received(version)),
    ]);
    fields.extend(host.map(|host| (X_FORWARDED_HOST, host)));
    fields.extend(connection.certificate().map(|certificate| (X_WXGATE_CLIENT_CERT, certificate.clone())));
    fields
}

/// What is this request's own.
fn own(known: &Forwarded, exchange: &Exchange, mut set: impl FnMut(HeaderName, &[u8])) {
    if let (Some(_), Some(state)) = (&known.traceparent, &known.tracestate) {
        set(TRACESTATE, state.as_bytes());
    }
    set(X_REQUEST_ID, exchange.id().as_bytes());
}

/// The parent of the upstream's span, where none of ours is recorded.
fn parent(known: &Forwarded, exchange: &Exchange) -> Option<HeaderValue> {
    let own = || HeaderValue::from_bytes(&traceparent(&exchange.own_id)).ok();
    known.traceparent.clone().or_else(own)
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
fn traceparent(id: &OwnId) -> [u8; 55] {
    let mut text = [b'0'; 55];
    text[2] = b'-';
    text[3..35].copy_from_slice(id);
    text[35] = b'-';
    text[36..52].copy_from_slice(&id[16..32]);
    text[52] = b'-';
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::client_addr::Forwarded;
    use crate::pipeline::connection::Connection;
    use std::sync::Arc;
    use tokio::time::Instant;

    fn exchange(forwarded: &[(&'static str, &'static str)], peer: &str, trusted: &str) -> Exchange {
        let mut sent = HeaderMap::new();
        for (name, value) in forwarded {
            sent.append(*name, HeaderValue::from_static(value));
        }
        let peer: std::net::SocketAddr = peer.parse().unwrap();
        let id = *b"0123456789abcdef0123456789abcdef";
        let exchange = Exchange::new(Arc::new(Connection::new(peer, false)), id, Instant::now());
        let _ = exchange.forwarded.set(Forwarded::read(&[trusted.parse().unwrap()], peer.ip(), false, &sent));
        exchange
    }

    fn hosted(host: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))])
    }

    fn announced(forwarded: &[(&'static str, &'static str)], peer: &str, trusted: &str) -> HeaderMap {
        let mut headers = hosted("api.example.com");
        announce(&mut headers, Version::HTTP_11, &exchange(forwarded, peer, trusted));
        headers
    }

    #[test]
    fn lines_say_what_headers_say() {
        let trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        for (told, peer) in [
            (&[][..], "203.0.113.9:1"),
            (&[("x-forwarded-for", "6.6.6.6")], "203.0.113.9:1"),
            (&[], "[2001:db8::1]:9"),
            (&[("x-forwarded-for", "1.2.3.4, 10.0.0.2"), ("x-forwarded-proto", "https")], "10.0.0.1:1"),
            (&[("x-forwarded-host", "other.example.com"), ("x-request-id", "abc")], "10.0.0.1:1"),
            (&[trace, ("tracestate", "a=b")], "10.0.0.1:1"),
        ] {
            let exchange = exchange(told, peer, "10.0.0.0/8");
            // The second host is not the one that the connection remembers.
            for host in ["api.example.com", "api.example.com", "b.example.com"] {
                for version in [Version::HTTP_11, Version::HTTP_10] {
                    let mut headers = hosted(host);
                    let mut written = match lines(&headers, version, &exchange) {
                        Way::Kept => exchange.connection.kept_way().unwrap().to_vec(),
                        Way::Own(lines) => lines.to_vec(),
                    };
                    push_own(&mut written, &exchange);
                    announce(&mut headers, version, &exchange);
                    headers.remove(HOST);
                    assert_eq!(lines::tests::read(&written), headers, "{told:?} {peer} {host}");
                }
            }
        }
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
    fn via_names_the_protocol_that_the_client_spoke() {
        let named = [(Version::HTTP_10, "1.0"), (Version::HTTP_11, "1.1"), (Version::HTTP_2, "2")];
        for (version, name) in named {
            assert_eq!(received(version), format!("{name} wxgate"));
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
