//! The services' listener: what upstream services, and proxies in front of them, ask the gateway.
//!
//! Everybody here is a service of the configuration ([`service`]) or gets 401. [`introspect`] is RFC 7662; [`verify`] is
//! forward-auth for nginx, Traefik and Caddy, by the same decision as the pipeline; [`people`] decrypts what somebody's
//! phone sent; [`relay`] makes calls to WeChat with the app's access token. It runs on the control runtime, with a listener of its own: nothing here is reachable from the
//! public one.

mod introspect;
mod people;
mod relay;
mod service;
mod verify;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{any, post};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response};
use serde_json::Value;

use crate::body::Body;
use crate::gateway::Gateway;
use crate::problem::{Code, Problem};

/// Largest body that is read, bytes: a form with one token.
const MAX_BODY: usize = 64 * 1024;

/// CloudRun's answers carry an id under this name.
const SEQID: HeaderName = HeaderName::from_static("x-openapi-seqid");

type Answer = Response<axum::body::Body>;

/// The listener's router. It must be served with the peers' addresses (`ConnectInfo<SocketAddr>`).
pub fn router(gateway: &Arc<Gateway>) -> Router {
    Router::new()
        .route("/introspect", post(introspect::introspect))
        .route("/verify", any(verify::required))
        .route("/verify/optional", any(verify::optional))
        .route("/open-data", post(people::open_data).layer(DefaultBodyLimit::max(people::MAX_BODY)))
        .route("/encrypt-keys", post(people::encrypt_keys))
        .route("/wechat/{appid}/{*path}", any(relay::by_appid))
        .fallback(nothing_here)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(Arc::clone(gateway), relay::official))
        // Outermost: nothing is looked at before it is known who asks.
        .layer(from_fn_with_state(Arc::clone(gateway), authenticate))
        .with_state(Arc::clone(gateway))
}

/// Services only. A request to [`verify`] carries somebody else's `Authorization`.
async fn authenticate(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Answer {
    let snapshot = gateway.current();
    let services = snapshot.config.internal.as_ref().map_or(&[][..], |internal| &internal.services);
    let shown = match request.uri().path() {
        "/verify" | "/verify/optional" => service::shown_to_proxy(request.headers()),
        _ => service::shown(request.headers()),
    };
    match shown.and_then(|shown| service::known(services, shown.as_ref(), peer.ip())) {
        Ok(service) => {
            let caller = relay::Caller { name: service.name.clone(), wechat: service.wechat.clone() };
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(stranger) => {
            gateway.kept().metrics.problem(Code::TokenInvalid.name());
            tracing::warn!(%peer, path = request.uri().path(), reason = %stranger, "not a service of [internal]");
            refused(stranger.into())
        }
    }
}

async fn nothing_here() -> Answer {
    refused(Problem::new(Code::RouteNotFound, "The internal listener has no endpoint of this name."))
}

async fn other_method() -> Answer {
    refused(Problem::new(Code::MethodNotAllowed, "The endpoint takes another method; see Allow."))
}

fn refused(problem: Problem) -> Answer {
    problem.into_response("").map(axum::body::Body::new)
}

fn json(document: &Value) -> Answer {
    let mut response = Response::new(Body::from(document.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.map(axum::body::Body::new)
}
