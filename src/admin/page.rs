//! `/`: the page for people. One file without anything from elsewhere; what it shows comes from `/api`, with the token that is
//! typed into it.
//!
//! The page itself holds nothing and is served without a token; so that a browser can ask for it, that is how it must be. Its
//! policy allows the one script and the one style sheet that stand in it, by their hashes, and calls to this listener.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Response};

use super::Answer;

const PAGE: &str = include_str!("page.html");

const FRAME_OPTIONS: HeaderName = HeaderName::from_static("x-frame-options");

static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |open: &str, close: &str| {
        let inside =
            PAGE.split_once(open).and_then(|(_, rest)| rest.split_once(close)).map_or("", |(inside, _)| inside);
        STANDARD.encode(digest::digest(&digest::SHA256, inside.as_bytes()))
    };
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("<script>", "</script>"),
        hash("<style>", "</style>")
    )
});

/// The handler.
pub(super) async fn page() -> Answer {
    let mut response = Response::new(axum::body::Body::from(PAGE));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_page_comes_from_elsewhere() {
        for one in ["<script>", "</script>", "<style>", "</style>"] {
            assert_eq!(PAGE.matches(one).count(), 1, "{one}: the policy knows one");
        }
        for foreign in ["http://", "https://", "//cdn", "src=", "@import", "url(", "innerHTML", " style=", " onclick="]
        {
            assert!(!PAGE.contains(foreign), "{foreign}");
        }
        assert!(POLICY.contains("script-src 'sha256-") && !POLICY.contains("unsafe"));
    }
}
