//! The innermost step: to the endpoints, to a fixed answer, or to the proxy.
//!
//! The endpoints and the proxy are services that arrive as arguments; what they await is boxed here, once, so that an idle
//! connection does not carry the room for it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tower::Service;

use crate::body::Body;
use crate::problem::{Code, Problem, Refused};

use super::compress::{Accepted, compress};
use super::route::{Matched, Route};
use super::{Decided, Exchange, Request, Response, redirect, refuse, rules, via};

/// An answer that is awaited.
pub type Awaited = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// A request for an upstream, prepared.
#[derive(Debug)]
pub struct ToUpstream {
    /// Canonical, clean, with what the gateway adds unless the route takes that as lines ([`Exchange::push_lines`]).
    pub request: Box<http::Request<Body>>,
    /// By which route.
    pub route: Arc<Route>,
    /// What is known of it.
    pub exchange: Arc<Exchange>,
}

impl ToUpstream {
    /// Puts what stands in lines among the headers, for whoever wants to see all of them.
    pub fn gather(&mut self) {
        self.exchange.gather(self.request.headers_mut());
        if !self.exchange.has_lines() {
            return;
        }
        let mut lines = Vec::new();
        self.exchange.push_lines(&mut lines);
        let fields = lines.split(|b| *b == b'\n').filter_map(|line| {
            let (name, value) = line.split_at_checked(line.iter().position(|b| *b == b':')?)?;
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value[1..].trim_ascii()).ok()?))
        });
        for (name, value) in fields {
            self.request.headers_mut().insert(name, value);
        }
    }
}

/// Whether the gateway still takes work; the health answer says so.
pub type Draining = Arc<AtomicBool>;

/// The service: `endpoints` answers the gateway's own paths, `proxy` everything that has a route.
#[derive(Debug, Clone)]
pub struct Dispatch<E, P> {
    endpoints: E,
    proxy: P,
    draining: Draining,
}

impl<E, P> Dispatch<E, P> {
    /// Of these two.
    pub fn new(endpoints: E, proxy: P, draining: Draining) -> Self {
        Self { endpoints, proxy, draining }
    }

    fn health(&self, request: &Request) -> Decided<Awaited> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let problem = Problem::new(Code::MethodNotAllowed, "Use GET or HEAD.");
            return refuse(request, problem.allow(HeaderValue::from_static("GET, HEAD")));
        }
        if self.draining.load(Ordering::Acquire) {
            return refuse(request, Problem::new(Code::Draining, "This instance is shutting down; ask another."));
        }
        Decided::answered(fixed("ok\n", HeaderValue::from_static("no-store")))
    }
}

impl<E, P> Dispatch<E, P>
where
    P: Service<ToUpstream, Response = Response, Error = Infallible, Future = Awaited>,
{
    /// The way of a route that redirects, compresses, or changes headers or host.
    fn transformed(&mut self, mut request: Request, route: Arc<Route>, exchange: Arc<Exchange>) -> Decided<Awaited> {
        request.gather();
        let policy = &route.policy;
        if let Some(redirect) = &policy.redirect {
            let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
            return Decided::answered(match redirect::answer(redirect, &policy.path, &target) {
                Ok(mut response) => {
                    rules::apply(&policy.headers.response, response.headers_mut());
                    response
                }
                Err(problem) => exchange.refuse(problem),
            });
        }
        prepare(&mut request, &route, &exchange);
        let accepted = policy.compress.map(|section| (section, Accepted::of(request.headers())));
        let forwarding = self.proxy.call(ToUpstream { request: request.http, route: Arc::clone(&route), exchange });
        Decided::passed(Box::pin(async move {
            let Ok(mut response) = forwarding.await;
            // What the gateway says itself is not the upstream's: a rule about caching must not reach a refusal.
            if response.extensions().get::<Refused>().is_some() || response.status() == StatusCode::SWITCHING_PROTOCOLS
            {
                return Ok(response);
            }
            rules::apply(&route.policy.headers.response, response.headers_mut());
            Ok(match accepted {
                Some((section, accepted)) => compress(section, accepted, response).await,
                None => response,
            })
        }))
    }
}

/// The request as this route's upstream gets it, but for what the proxy writes.
fn prepare(request: &mut Request, route: &Route, exchange: &Exchange) {
    let policy = &route.policy;
    announce(request, route, exchange);
    if let Some(host) = &policy.rewrite.host {
        request.headers_mut().insert(HOST, host.clone());
    }
    rules::apply(&policy.headers.request, request.headers_mut());
}

/// Tells the way of a request, in lines or among its headers.
fn announce(request: &mut Request, route: &Route, exchange: &Exchange) {
    if route.in_lines {
        exchange.tell_way(via::lines(request.headers(), request.version(), exchange));
    } else {
        request.gather();
        let version = request.version();
        via::announce(request.headers_mut(), version, exchange);
    }
}

fn fixed(body: impl Into<Body>, cache: HeaderValue) -> Response {
    let mut response = http::Response::new(body.into());
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, cache);
    response
}

impl<E, P> Service<Request> for Dispatch<E, P>
where
    E: Service<Request, Response = Response, Error = Infallible, Future = Awaited>,
    P: Service<ToUpstream, Response = Response, Error = Infallible, Future = Awaited>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Decided<Awaited>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let exchange = Arc::clone(&request.exchange);
        match exchange.matched() {
            Ok(Matched::Route(route)) => {
                let route = Arc::clone(route);
                if route.transforms {
                    return self.transformed(request, route, exchange);
                }
                announce(&mut request, &route, &exchange);
                Decided::passed(self.proxy.call(ToUpstream { request: request.http, route, exchange }))
            }
            Ok(Matched::Endpoint) => {
                request.gather();
                request.gather_authorization();
                Decided::passed(self.endpoints.call(request))
            }
            Ok(Matched::Health) => self.health(&request),
            Ok(Matched::Static(item)) => {
                let mut response = fixed(item.body.clone(), HeaderValue::from_static("public, max-age=300"));
                response.headers_mut().insert(CONTENT_TYPE, item.content_type.clone());
                Decided::answered(response)
            }
            Err(missing) => refuse(&request, missing),
        }
    }
}
