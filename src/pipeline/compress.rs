//! Compression of answers, where a route asks for it (RFC 9110, section 8.4).
//!
//! Off unless asked for, because an answer that holds a secret beside what a stranger can put there gives the secret away
//! by its length (BREACH). Only text-like media are compressed, and never what is encoded already, a part of something, an
//! event stream, or marked `no-transform`. What is waiting in the coder is sent when the upstream pauses, so a stream
//! stays one.

use std::convert::Infallible;
use std::future::ready;

use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use tower::{Layer as _, Service as _, service_fn};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::Predicate;

use crate::body::Body;
use crate::config::Compress;

use super::Response;

/// Between 1 and 9: a quarter of the work of the defaults for nearly all of their gain. A worker has other requests.
const LEVEL: CompressionLevel = CompressionLevel::Precise(4);

/// Digests of the bytes as they were sent to us (RFC 9530; `Content-MD5` of RFC 1864).
const OF_THE_CONTENT: [HeaderName; 2] =
    [HeaderName::from_static("content-digest"), HeaderName::from_static("content-md5")];

/// What the client takes, of a request that may be answered compressed.
#[derive(Debug)]
pub struct Accepted(Vec<HeaderValue>);

impl Accepted {
    /// Of this request.
    pub fn of(headers: &HeaderMap) -> Self {
        Self(headers.get_all(ACCEPT_ENCODING).iter().cloned().collect())
    }
}

/// The answer in a coding that the client takes, if there is one and it is worth it.
pub async fn compress(section: Compress, accepted: Accepted, mut response: Response) -> Response {
    if !Worth(section.min_size).should_compress(&response) {
        // What is too small now may not be next time, and a cache must not mix the two up.
        if may_be(&response) {
            varies(response.headers_mut());
        }
        return response;
    }
    let mut request = Request::new(());
    for value in accepted.0 {
        request.headers_mut().append(ACCEPT_ENCODING, value);
    }
    let layer = CompressionLayer::new()
        .quality(LEVEL)
        .gzip(section.gzip)
        .br(section.br)
        .zstd(section.zstd)
        .compress_when(Worth(section.min_size));
    let mut once = Some(response);
    let inner = service_fn(move |_: Request<()>| ready(Ok::<_, Infallible>(once.take().unwrap_or_default())));
    let Ok(response) = layer.layer(inner).call(request).await;
    let (mut head, body) = response.into_parts();
    varies(&mut head.headers);
    if !head.headers.contains_key(CONTENT_ENCODING) {
        return Response::from_parts(head, Body::boxed(body));
    }
    for name in &OF_THE_CONTENT {
        head.headers.remove(name);
    }
    weaken(&mut head.headers);
    Response::from_parts(head, Body::boxed(body))
}

/// Two codings of one thing are not the same bytes (RFC 9110, section 8.8.1).
fn weaken(headers: &mut HeaderMap) {
    if let Some(strong) = headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) {
        match HeaderValue::from_bytes(&[b"W/", strong.as_bytes()].concat()) {
            Ok(weak) => headers.insert(ETAG, weak),
            Err(_) => headers.remove(ETAG),
        };
    }
}

fn varies(headers: &mut HeaderMap) {
    let names = |value: &HeaderValue| {
        let mut names = value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"))
    };
    if !headers.get_all(VARY).iter().any(names) {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Whether an answer of this kind is ever compressed, whatever its size.
fn may_be<B>(response: &http::Response<B>) -> bool {
    let headers = response.headers();
    let full =
        response.status().is_success() || response.status().is_client_error() || response.status().is_server_error();
    let untouchable = headers.get_all(CACHE_CONTROL).iter().any(|value| {
        value.as_bytes().split(|b| *b == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
    });
    full && response.status() != StatusCode::PARTIAL_CONTENT
        && !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_RANGE)
        && !untouchable
        && headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(is_text)
}

/// Media that compress well and hold no compression of their own.
fn is_text(media: &str) -> bool {
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media == "text/event-stream" {
        return false;
    }
    let suffix = media.ends_with("+json") || media.ends_with("+xml");
    media.starts_with("text/")
        || suffix
        || matches!(
            media.as_str(),
            "application/json"
                | "application/x-ndjson"
                | "application/xml"
                | "application/javascript"
                | "application/wasm"
                | "application/graphql"
                | "application/vnd.ms-fontobject"
                | "font/ttf"
                | "font/otf"
                | "image/bmp"
        )
}

/// From so many bytes on.
#[derive(Clone, Copy)]
struct Worth(u64);

impl Predicate for Worth {
    fn should_compress<B: http_body::Body>(&self, response: &http::Response<B>) -> bool {
        let body = response.body();
        // The answer to a HEAD states a length that it does not have.
        let stated = || response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        may_be(response)
            && !body.is_end_stream()
            && body.size_hint().exact().or_else(stated).is_none_or(|size: u64| size >= self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: Compress = Compress { min_size: 100, gzip: true, br: true, zstd: true };

    async fn answered(accept: &str, headers: &[(&'static str, &str)], length: usize) -> Response {
        let mut response = Response::new(Body::from("a".repeat(length)));
        for (name, value) in headers {
            response.headers_mut().append(*name, value.parse().unwrap());
        }
        let mut request = HeaderMap::new();
        if !accept.is_empty() {
            request.insert(ACCEPT_ENCODING, accept.parse().unwrap());
        }
        compress(SECTION, Accepted::of(&request), response).await
    }

    fn coding(response: &Response) -> &str {
        response.headers().get(CONTENT_ENCODING).map_or("-", |value| value.to_str().unwrap())
    }

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

    #[tokio::test]
    async fn the_client_chooses_the_coding() {
        for (accept, expected) in [
            ("gzip", "gzip"),
            ("br", "br"),
            ("zstd", "zstd"),
            ("gzip;q=0.5, br;q=0.9", "br"),
            ("gzip;q=0", "-"),
            ("identity", "-"),
            ("", "-"),
            ("made-up", "-"),
        ] {
            let response = answered(accept, &[JSON, ("content-length", "1000")], 1000).await;
            assert_eq!(coding(&response), expected, "{accept}");
            assert_eq!(response.headers()[VARY].as_bytes().to_ascii_lowercase(), b"accept-encoding", "{accept}");
            assert_eq!(response.headers().contains_key(CONTENT_LENGTH), expected == "-", "{accept}");
        }
    }

    #[tokio::test]
    async fn what_must_not_be_compressed_is_left_alone() {
        let event = ("content-type", "text/event-stream");
        for (headers, length, varies) in [
            (&[event][..], 1000, false),
            (&[("content-type", "image/png")], 1000, false),
            (&[("content-type", "application/grpc")], 1000, false),
            (&[], 1000, false),
            (&[JSON, ("content-encoding", "gzip")], 1000, false),
            (&[JSON, ("content-range", "bytes 0-999/2000")], 1000, false),
            (&[JSON, ("cache-control", "private, No-Transform")], 1000, false),
            (&[JSON], 99, true),
            (&[JSON], 0, true),
        ] {
            let before = headers.iter().find(|(name, _)| *name == "content-encoding").map_or("-", |(_, value)| value);
            let response = answered("gzip", headers, length).await;
            assert_eq!(coding(&response), before, "{headers:?}");
            assert_eq!(response.headers().contains_key(VARY), varies, "{headers:?}");
        }
    }

    #[tokio::test]
    async fn a_strong_etag_becomes_weak_and_digests_of_the_content_go() {
        let headers =
            [JSON, ("etag", "\"v1\""), ("content-digest", "sha-256=:x:"), ("vary", "Origin, Accept-Encoding")];
        let response = answered("gzip", &headers, 1000).await;
        assert_eq!(response.headers()[ETAG], "W/\"v1\"");
        assert!(!response.headers().contains_key("content-digest"));
        assert_eq!(response.headers().get_all(VARY).iter().count(), 1);
        let response = answered("", &headers, 1000).await;
        assert_eq!(response.headers()[ETAG], "\"v1\"");
        let response = answered("gzip", &[JSON, ("etag", "W/\"v1\"")], 1000).await;
        assert_eq!(response.headers()[ETAG], "W/\"v1\"");
    }
}
