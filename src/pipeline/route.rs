//! Host, path and method → where the request goes and what is asked of it; 400, 404 or 405.
//!
//! The path is brought into its canonical form first ([`super::path`]), and the request carries that form from here on:
//! what was matched is what is forwarded. The gateway's own endpoints are reserved and come before the routes.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Uri};
use tower::{Layer, Service};

use crate::config;
use crate::credential::cookie::Origins;
use crate::limiter::Limit;
use crate::metrics::{RouteFigures, Shard};
use crate::problem::{Code, Problem};

use super::cors::{self, Cors};
use super::in_flight;
use super::limit::Limits;
use super::matcher::{Found, Matcher};
use super::path::{self, canonical_target};
use super::{Decided, Request, Response, address, refuse, rewrite};

/// Where a request goes.
#[derive(Debug, Clone)]
pub enum Matched {
    /// To an upstream, by this route.
    Route(Arc<Route>),
    /// To the gateway's own endpoints.
    Endpoint,
    /// To the health answer.
    Health,
    /// To a fixed body.
    Static(Arc<config::Static>),
}

/// A route in force.
#[derive(Debug)]
pub struct Route {
    /// As checked.
    pub policy: config::Route,
    /// Name of its upstream, for the log.
    pub upstream_name: Arc<str>,
    /// How often it may be used.
    pub limit: Option<Arc<Limit>>,
    /// What is under way on it, where that is limited.
    pub in_flight: Option<Arc<in_flight::Table>>,
    /// Which pages of other origins may use it.
    pub cors: Option<Arc<Cors>>,
    /// Whether it redirects, compresses, or changes headers or host: known once, so that others pay nothing.
    pub transforms: bool,
    /// Whether what the gateway adds goes to its upstream as lines that are ready (HTTP/1.1), or among the headers.
    pub in_lines: bool,
    /// Which pages may use it with a cookie; `None`: cookies are not read.
    pub cookie: Option<Origins>,
    /// What is counted of it.
    pub figures: Arc<RouteFigures>,
}

/// The table.
#[derive(Debug)]
pub struct Routes {
    matcher: Matcher<Matched>,
    base: String,
    health: Option<String>,
    wafer2: Option<String>,
}

impl Routes {
    /// From the checked configuration, and the limits made of it.
    pub fn new(config: &config::Config, limits: &Limits) -> Self {
        Self::counted(config, limits, &Shard::default())
    }

    /// As [`Self::new`], where `shard` counts what the routes do.
    pub fn counted(config: &config::Config, limits: &Limits, shard: &Shard) -> Self {
        let mut matcher = Matcher::default();
        let own = config.token.origin();
        for (n, route) in config.routes.iter().enumerate() {
            let upstream = route.upstream.and_then(|n| config.upstreams.get(n));
            let upstream_name = upstream.map_or("", |u| u.name.as_str()).into();
            let limit = limits.routes.get(n).cloned().flatten();
            let cors = route.cors.as_ref().map(|cors| Arc::new(Cors::new(cors, &route.methods)));
            let pages = route.cors.iter().flat_map(|cors| &cors.origins).map(String::as_str);
            let cookie = route.cookie.then(|| Origins::new(pages.chain([own.as_str()])));
            let transforms = route.redirect.is_some()
                || route.compress.is_some()
                || route.rewrite.host.is_some()
                || !route.headers.request.is_empty()
                || !route.headers.response.is_empty();
            let in_flight = limits.in_flight.get(n).cloned().flatten();
            let in_lines = upstream.is_some_and(|upstream| {
                !upstream.servers.iter().any(|server| server.transport.as_ref().is_some_and(|way| way.http2))
            });
            let figures = shard.route(&route.label());
            let policy = route.clone();
            let route_in_force =
                Route { policy, upstream_name, limit, in_flight, cors, transforms, in_lines, cookie, figures };
            let matched = Matched::Route(Arc::new(route_in_force));
            matcher.insert(&route.hosts, &route.path, &route.methods, &matched);
        }
        for item in &config.statics {
            let segments = item.path.split('/').filter(|s| !s.is_empty());
            let pattern = config::PathPattern {
                text: item.path.clone(),
                segments: segments.map(|s| config::Segment::Literal(s.to_owned())).collect(),
                rest: false,
                slash: item.path.len() > 1 && item.path.ends_with('/'),
            };
            let matched = Matched::Static(Arc::new(item.clone()));
            matcher.insert(&[], &pattern, &[Method::GET, Method::HEAD], &matched);
        }
        Self {
            matcher,
            base: config.server.base.clone(),
            health: config.server.health_path.clone(),
            wafer2: config.login.wafer2.clone(),
        }
    }

    /// Where a request of this host, canonical path and method goes.
    ///
    /// # Errors
    /// `route_not_found`, `method_not_allowed`.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Result<Matched, Problem> {
        if self.is_endpoint(path) {
            return Ok(Matched::Endpoint);
        }
        if self.health.as_deref() == Some(path) {
            return Ok(Matched::Health);
        }
        match self.matcher.find(host, path, method) {
            Found::Match(matched) => Ok(matched.clone()),
            Found::Nothing => Err(Problem::new(Code::RouteNotFound, "No route matches this host and path.")),
            Found::Method(methods) => {
                let list = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
                let problem = Problem::new(Code::MethodNotAllowed, "No route here takes this method; see Allow.");
                Err(match HeaderValue::from_str(&list) {
                    Ok(list) => problem.allow(list),
                    Err(_) => problem,
                })
            }
        }
    }

    /// Where a preflight belongs: to the route that it asks about, if that one says something about origins.
    fn crossed(&self, host: &str, path: &str, asked: &Method) -> Option<Matched> {
        let matched = self.find(host, path, asked).ok()?;
        matches!(&matched, Matched::Route(route) if route.cors.is_some()).then_some(matched)
    }

    fn is_endpoint(&self, path: &str) -> bool {
        let below = |base: &str| path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        below(&self.base)
            || below("/.well-known")
            || path == "/openapi.json"
            || self.wafer2.as_deref().is_some_and(|login| login == path)
    }
}

/// Makes [`MatchRoute`].
#[derive(Debug, Clone)]
pub struct RouteLayer {
    routes: Arc<Routes>,
}

impl RouteLayer {
    /// With this table.
    pub fn new(routes: Arc<Routes>) -> Self {
        Self { routes }
    }
}

impl<S> Layer<S> for RouteLayer {
    type Service = MatchRoute<S>;

    fn layer(&self, inner: S) -> MatchRoute<S> {
        MatchRoute { inner, routes: Arc::clone(&self.routes) }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct MatchRoute<S> {
    inner: S,
    routes: Arc<Routes>,
}

impl<S> MatchRoute<S> {
    /// Canonical target into the request, [`Matched`] into the exchange.
    fn decide(&self, request: &mut Request) -> Result<(), Problem> {
        let ambiguous = |a: path::Ambiguous| Problem::new(Code::AmbiguousPath, format!("The path {}.", a.0));
        let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let mut target = match canonical_target(&target).map_err(ambiguous)? {
            Some(canonical) => canonical,
            None => target,
        };
        // Looked at only where a route asks for one.
        let host = if self.routes.matcher.knows_hosts() { host(request) } else { "".into() };
        let matched = match cors::preflight(request).and_then(|m| self.routes.crossed(&host, target.path(), &m)) {
            Some(matched) => matched,
            None => self.routes.find(&host, target.path(), request.method())?,
        };
        drop(host);
        let exchange = Arc::clone(&request.exchange);
        let _ = exchange.matched.set(matched);
        if let Some(Matched::Route(route)) = exchange.matched.get() {
            address::admit(route, &exchange)?;
            if let Some(rewritten) = rewrite::forwarded(&route.policy, &target).map_err(ambiguous)? {
                target = rewritten;
            }
        }
        // The guard has seen that both, where there are both, say the same.
        if let Some(authority) = request.uri().authority()
            && !request.headers().contains_key(HOST)
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().insert(HOST, host);
        }
        if request.uri().authority().is_some() || request.uri().path_and_query() != Some(&target) {
            *request.uri_mut() = Uri::from(target);
        }
        Ok(())
    }
}

/// The host asked for: lower case, without port and without the dot that ends a full domain name (it is the same host, and
/// must not find another route); borrowed when it is so already. Empty for an HTTP/1.0 request that names none.
pub fn host<B>(request: &http::Request<B>) -> std::borrow::Cow<'_, str> {
    let host = match request.headers().get(HOST) {
        Some(host) => host.to_str().unwrap_or_default(),
        None => request.uri().authority().map_or("", |a| a.as_str()),
    };
    let host = match host.rfind(':') {
        Some(at) if !host.ends_with(']') => &host[..at],
        _ => host,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|b| b.is_ascii_uppercase()) { host.to_ascii_lowercase().into() } else { host.into() }
}

impl<S> Service<Request> for MatchRoute<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Decided<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match self.decide(&mut request) {
            Ok(()) => Decided::passed(self.inner.call(request)),
            Err(problem) => refuse(&request, problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_lower_case_without_port() {
        for (value, expected) in [
            ("A.Example.com:8080", "a.example.com"),
            ("a.example.com.", "a.example.com"),
            ("a.example.com.:80", "a.example.com"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("x", "x"),
        ] {
            let request = http::Request::builder().header("host", value).body(crate::body::Body::empty()).unwrap();
            assert_eq!(host(&request), expected);
        }
    }
}
