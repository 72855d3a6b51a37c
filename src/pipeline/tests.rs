//! Promise 3, from the inside: where a step has not run, nothing is let through.

use std::convert::Infallible;
use std::future::Ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

use super::connection::Connection;
use super::identity::IdentityLayer;
use super::route::{Matched, Route, RouteLayer, Routes};
use super::{Exchange, Request, Response, authorize, dispatch, limit};
use crate::body::Body;
use crate::clock::Clock;
use crate::config::{self, Environment};
use crate::limiter::Tables;
use crate::token::assertion::Asserter;
use crate::token::keys::KeyRing;

const CONFIG: &str = r#"
[token]
issuer = "https://api.example.com"
[[app]]
appid = "wx0123456789abcdef"
secret = "secret"
[[upstream]]
name = "echo"
servers = ["http://127.0.0.1:1"]
[[route]]
path = "/api/*"
upstream = "echo"
[[route]]
path = "/roles/*"
upstream = "echo"
roles = ["admin"]
[[route]]
path = "/apps/*"
upstream = "echo"
apps = ["wx0123456789abcdef"]
[[route]]
path = "/public/*"
upstream = "echo"
auth = "none"
"#;

fn config() -> config::Config {
    config::parse(CONFIG, std::path::Path::new("/nowhere/gateway.toml"), &Environment::of([])).unwrap()
}

fn identity() -> IdentityLayer {
    let (dir, token, clock) = (tempfile::tempdir().unwrap(), config().token, Clock::system());
    let ring = Arc::new(KeyRing::open(dir.path(), token.algorithm, &clock).unwrap());
    IdentityLayer { asserter: Arc::new(Asserter::new(ring, &token, clock)), subscriptions: None }
}

fn exchange() -> Arc<Exchange> {
    let connection = Arc::new(Connection::new("127.0.0.1:1".parse().unwrap(), false));
    Arc::new(Exchange::new(connection, *b"0123456789abcdef0123456789abcdef", Instant::now()))
}

fn request(path: &str, exchange: &Arc<Exchange>) -> Request {
    let request = http::Request::builder().uri(path).header("host", "a").body(Body::empty()).unwrap();
    Request { http: Box::new(request), exchange: Arc::clone(exchange) }
}

/// What lies behind a layer, and how often it was reached.
#[derive(Clone, Default)]
struct Behind(Arc<AtomicUsize>);

impl Service<Request> for Behind {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(http::Response::new(Body::empty())))
    }
}

async fn status<S>(service: S, request: Request) -> u16
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    service.oneshot(request).await.unwrap().status().as_u16()
}

fn table() -> Routes {
    let config = config();
    Routes::new(&config, &limit::Limits::new(&config, &Tables::default(), &super::in_flight::Tables::default()))
}

fn matched(path: &str) -> Matched {
    table().find("a", path, &http::Method::GET).unwrap()
}

#[tokio::test]
async fn without_the_outer_steps_a_request_goes_nowhere() {
    let behind = Behind::default();
    let routes = || RouteLayer::new(Arc::new(table())).layer(behind.clone());
    let authorize = || authorize::AuthorizeLayer.layer(behind.clone());
    assert_eq!(status(authorize(), request("/public/x", &exchange())).await, 500, "not routed");
    let limit = || limit::LimitLayer::after(Clock::system()).layer(behind.clone());
    assert_eq!(status(limit(), request("/public/x", &exchange())).await, 500, "not routed");
    assert_eq!(behind.0.load(Ordering::Relaxed), 0);
    assert_eq!(status(routes(), request("/public/x", &exchange())).await, 200);
}

#[tokio::test]
async fn a_route_that_needs_somebody_is_closed_where_nobody_was_authenticated() {
    for (path, expected) in [("/api/x", 401), ("/roles/x", 401), ("/apps/x", 401), ("/public/x", 200)] {
        let behind = Behind::default();
        let exchange = exchange();
        exchange.matched.set(matched(path)).unwrap();
        let stack = authorize::AuthorizeLayer.layer(identity().layer(behind.clone()));
        assert_eq!(status(stack, request(path, &exchange)).await, expected, "{path}");
        assert_eq!(behind.0.load(Ordering::Relaxed), usize::from(expected == 200), "{path}");
    }
}

#[tokio::test]
async fn what_was_not_routed_is_not_dispatched() {
    let reached = Arc::new(AtomicUsize::new(0));
    let count = || {
        let reached = Arc::clone(&reached);
        move || -> dispatch::Awaited {
            reached.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::ready(Ok(http::Response::new(Body::empty()))))
        }
    };
    let (to_endpoints, to_proxy) = (count(), count());
    let endpoints = service_fn(move |_: Request| to_endpoints());
    let proxy = service_fn(move |_: dispatch::ToUpstream| to_proxy());
    let dispatch = dispatch::Dispatch::new(endpoints, proxy, dispatch::Draining::default());
    assert_eq!(status(dispatch.clone(), request("/public/x", &exchange())).await, 500);
    assert_eq!(reached.load(Ordering::Relaxed), 0);
    let routed = exchange();
    routed.matched.set(matched("/public/x")).unwrap();
    assert!(matches!(routed.matched(), Ok(Matched::Route(route)) if is_public(route)));
    assert_eq!(status(dispatch, request("/public/x", &routed)).await, 200);
    assert_eq!(reached.load(Ordering::Relaxed), 1);
}

fn is_public(route: &Route) -> bool {
    route.policy.auth == config::Auth::None
}
