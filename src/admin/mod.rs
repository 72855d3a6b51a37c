//! The operators' listener: live, ready, metrics; members, sessions, upstreams, configuration, backup; a page for people.
//!
//! `/livez`, `/readyz` and `/metrics` are open; everything else needs the admin token, on loopback too, and turns away a
//! browser that was led here by a strange name or page, by `Host` and `Origin` (DNS rebinding, CSRF). Every change is
//! written down in [`audit`] first, and runs to its end when whoever asked goes away.

pub mod audit;
mod backup;
mod keys;
mod members;
mod page;
mod query;
mod sessions;
mod state;
mod token;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::body::Body;
use crate::credential;
use crate::gateway::{Gateway, ReloadError};
use crate::problem::{Code, Problem};

pub use audit::AuditLog;
pub use token::{AdminToken, FILE};

type Answer = Response<axum::body::Body>;

/// How long the stores may take to say that they are there.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// Largest body that is read, bytes.
const MAX_BODY: usize = 64 * 1024;

#[derive(Debug)]
struct Admin {
    gateway: Arc<Gateway>,
    token: AdminToken,
    audit: AuditLog,
}

/// The listener's router.
pub fn router(gateway: &Arc<Gateway>, token: AdminToken, audit: AuditLog) -> Router {
    let admin = Arc::new(Admin { gateway: Arc::clone(gateway), token, audit });
    let api = Router::new()
        .route("/api/reload", post(reload))
        .route("/api/sessions", get(sessions::list))
        .route("/api/sessions/revoke", post(sessions::revoke))
        .route("/api/sessions/reset-key", post(reset_key))
        .route("/api/keys", get(keys::list))
        .route("/api/keys/rotate", post(keys::rotate))
        .route("/api/keys/import", post(keys::import))
        .route("/api/token/inspect", post(keys::inspect))
        .route("/api/members", get(members::list))
        .route("/api/members/export", get(members::export))
        .route("/api/members/{id}", get(members::show).put(members::change).delete(members::erase))
        .route("/api/backup/{which}", get(backup::database))
        .route("/api/upstreams", get(state::upstreams))
        .route("/api/config", get(state::config))
        .route("/api/stats", get(state::stats))
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(Arc::clone(&admin), authenticate))
        .layer(axum::middleware::from_fn(same_site));
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .layer(axum::middleware::from_fn(no_foreign_page))
        .merge(Router::new().route("/", get(page::page)).layer(axum::middleware::from_fn(same_site)))
        .merge(api)
        .with_state(admin)
}

fn refused(problem: Problem) -> Answer {
    problem.into_response("").map(axum::body::Body::new)
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Answer {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.map(axum::body::Body::new)
}

fn json_answer(status: StatusCode, document: &Value) -> Answer {
    text(status, "application/json", document.to_string())
}

/// The process runs.
async fn live() -> Answer {
    text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")
}

/// It can take traffic: not draining, and the stores answer.
async fn ready(State(admin): State<Arc<Admin>>) -> Answer {
    let kept = admin.gateway.kept();
    let stores = async {
        kept.members.ping().await?;
        kept.sessions.ping().await
    };
    let (ready, why) = if admin.gateway.is_leaving() {
        (false, "draining")
    } else {
        match tokio::time::timeout(READY_TIMEOUT, stores).await {
            Ok(Ok(())) => (true, "ready"),
            Ok(Err(_)) => (false, "the store is unavailable"),
            Err(_) => (false, "the store does not answer"),
        }
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_answer(status, &json!({ "ready": ready, "reason": why, "generation": admin.gateway.current().generation }))
}

/// For Prometheus.
async fn metrics(State(admin): State<Arc<Admin>>) -> Answer {
    text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", admin.gateway.kept().metrics.page())
}

/// Runs a change as a task of its own: once begun and written down, it is not given up.
async fn to_its_end(change: impl Future<Output = Answer> + Send + 'static) -> Answer {
    tokio::spawn(change).await.unwrap_or_else(|panicked| refused(Problem::internal(panicked)))
}

/// Reads `gateway.toml` again: what changed, or the faults.
async fn reload(State(admin): State<Arc<Admin>>) -> Answer {
    to_its_end(async move {
        let begun = match admin.audit.begin("reload", None).await {
            Ok(begun) => begun,
            Err(problem) => return refused(problem),
        };
        match admin.gateway.reload().await {
            Ok(reloaded) => {
                begun.end(&format!("done: generation {}", reloaded.generation)).await;
                let document = json!({ "generation": reloaded.generation, "changes": reloaded.changes });
                json_answer(StatusCode::OK, &document)
            }
            Err(error) => {
                begun.end("refused: the new configuration has faults").await;
                let faults = match &error {
                    ReloadError::Faults(faults) => faults.to_string().lines().map(str::to_owned).collect(),
                    ReloadError::Open(error) => vec![error.to_string()],
                };
                json_answer(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "faults": faults }))
            }
        }
    })
    .await
}

/// Has WeChat make a new session_key for somebody, and keeps it: `{appid?, openid}` or `{member}`.
async fn reset_key(State(admin): State<Arc<Admin>>, body: Bytes) -> Answer {
    to_its_end(async move {
        match reset(&admin, &body).await {
            Ok(document) => json_answer(StatusCode::OK, &document),
            Err(problem) => refused(problem),
        }
    })
    .await
}

async fn reset(admin: &Admin, body: &[u8]) -> Result<Value, Problem> {
    let snapshot = admin.gateway.current();
    let person = snapshot.auth().person_or_member(body).await?;
    let (appid, openid) = person.ids();
    let name = admin.gateway.kept().pseudonyms.of(appid, openid);
    let begun = admin.audit.begin("sessions.reset-key", Some(name.as_str())).await?;
    let outcome = snapshot.auth().reset_session_key(&person).await;
    begun.end(&outcome.as_ref().map_or_else(|p| format!("refused: {}", p.code().name()), |()| "done".to_owned())).await;
    outcome.map(|()| json!({ "appid": appid, "openid": openid, "reset": true }))
}

async fn nothing_here() -> Answer {
    refused(Problem::new(Code::RouteNotFound, "The admin listener has nothing of this name."))
}

async fn authenticate(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Answer {
    match credential::bearer(request.headers(), false) {
        Ok(Some(shown)) if admin.token.is(shown) => next.run(request).await,
        Ok(None) => refused(Problem::new(
            Code::TokenMissing,
            "Send `Authorization: Bearer` with the admin token (`wxgate token admin`; the file admin.token beside the keys).",
        )),
        Ok(Some(_)) => refused(Problem::new(Code::TokenInvalid, "This is not the admin token.")),
        Err(ambiguous) => refused(ambiguous.into()),
    }
}

/// What is open is asked by name too (a scraper in another container), but not by a page of somebody else.
async fn no_foreign_page(request: Request, next: Next) -> Answer {
    if request.headers().contains_key(ORIGIN) { same_site(request, next).await } else { next.run(request).await }
}

async fn same_site(request: Request, next: Next) -> Answer {
    if is_same_site(request.headers()) {
        next.run(request).await
    } else {
        refused(Problem::new(
            Code::OriginForbidden,
            "Ask the admin listener by its address or as localhost, not from a page of another origin.",
        ))
    }
}

/// An address or `localhost` in `Host`, and an `Origin`, if any, of the same host: no page elsewhere, and no name that
/// somebody else controls, can make a browser speak to this listener.
fn is_same_site(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|h| h.to_str().ok()), hosts.next()) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let is_ours = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
    is_ours && headers.get_all(ORIGIN).iter().all(|origin| origin.as_bytes() == format!("http://{host}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            map.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        map
    }

    #[test]
    fn only_addresses_and_localhost_and_their_own_pages_are_served() {
        for (host, origin) in [
            ("127.0.0.1:9090", None),
            ("localhost:9090", Some("http://localhost:9090")),
            ("[::1]:9090", None),
            ("10.0.0.7", None),
        ] {
            assert!(is_same_site(&headers(host, origin)), "{host} {origin:?}");
        }
        for (host, origin) in [
            ("evil.example:9090", None),
            ("127.0.0.1.evil.example", None),
            ("127.0.0.1:9090", Some("http://evil.example")),
            ("127.0.0.1:9090", Some("null")),
            ("127.0.0.1:9090", Some("http://127.0.0.1:9091")),
            ("", None),
        ] {
            assert!(!is_same_site(&headers(host, origin)), "{host} {origin:?}");
        }
        assert!(!is_same_site(&HeaderMap::new()));
    }
}
