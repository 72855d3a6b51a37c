//! `/.well-known/jwks.json` (RFC 7517) and `/.well-known/oauth-authorization-server` (RFC 8414).

use std::sync::Arc;

use axum::extract::State;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::body::Body;
use crate::problem::Problem;
use crate::token::jwks;

use super::Auth;
use super::answer;
use super::call::Call;

/// The public keys, with cache headers.
pub async fn jwks(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let document = jwks::document(&auth.ring);
    let etag = jwks::etag(&document);
    let known = is_known(call.headers(), &etag);
    let mut response =
        if known { answer::empty(StatusCode::NOT_MODIFIED) } else { Response::new(Body::from(document)) };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(jwks::CACHE_CONTROL));
    if !known {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    }
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    call.answer(Ok(response))
}

/// Whether the client says that it has what `etag` names: in a list, marked as weak by a cache on the way, or as `*`
/// (RFC 9110, section 13.1.2).
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
}

/// Who issues tokens, where the keys are, where to revoke.
pub async fn metadata(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let made = describe(&auth);
    call.answer(made)
}

fn describe(auth: &Auth) -> Result<Response<Body>, Problem> {
    let issuer = auth.section.issuer.trim_end_matches('/');
    answer::json(&json!({
        "issuer": auth.section.issuer,
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "revocation_endpoint": format!("{issuer}{}/revoke", auth.base),
        "response_types_supported": [],
    }))
}
