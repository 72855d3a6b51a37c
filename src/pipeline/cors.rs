//! What pages of other origins may do (Fetch standard, "CORS protocol"), for routes that say so.
//!
//! Origins are compared byte for byte with the route's list, and nothing else is ever allowed: no wildcard, no suffix, no
//! `null`, no echo of what was sent. A preflight is answered here, before limits and authentication, because browsers send
//! it without credentials; it never reaches the upstream. A plain OPTIONS is a request like any other. On such a route the
//! gateway decides alone: what the upstream says about CORS is taken out of its answer.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    AUTHORIZATION, CONTENT_TYPE, HeaderName, ORIGIN, RETRY_AFTER, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::body::Body;
use crate::config;
use crate::problem::{Code, Problem};

use super::renew;
use super::route::Matched;
use super::{Decided, Exchange, Request, Response};

const TRUE: HeaderValue = HeaderValue::from_static("true");

/// How long a browser may remember what pages may do at the endpoints.
const ENDPOINTS_MAX_AGE: Duration = Duration::from_secs(600);

/// Methods of a route that takes any.
const ANY: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";

/// `cors` of a route, as header values.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<HeaderValue>,
    credentials: bool,
    methods: HeaderValue,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

impl Cors {
    /// Of this section, on a route of these methods (none: any).
    pub fn new(section: &config::Cors, route: &[Method]) -> Self {
        let methods = if section.methods.is_empty() { route } else { &section.methods };
        let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let methods = if methods.is_empty() { ANY.to_owned() } else { methods.join(", ") };
        let names = |names: &[HeaderName]| -> Option<HeaderValue> {
            let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
            HeaderValue::try_from(names.join(", ")).ok().filter(|list| !list.is_empty())
        };
        Self {
            origins: section.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect(),
            credentials: section.credentials,
            methods: HeaderValue::try_from(methods).unwrap_or(HeaderValue::from_static(ANY)),
            headers: names(&section.headers),
            expose: names(&section.expose),
            max_age: HeaderValue::from(section.max_age.as_secs()),
        }
    }

    /// The origin of a request, if it is one of the list.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = only(headers, &ORIGIN)?;
        // The list's own value: nothing of the request is repeated.
        self.origins.iter().find(|known| *known == origin).cloned()
    }

    fn grant(&self, headers: &mut HeaderMap, origin: HeaderValue) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
    }

    fn preflight(&self, request: &HeaderMap) -> Result<Response, Problem> {
        let Some(origin) = self.allowed(request) else {
            return Err(Problem::new(Code::OriginForbidden, "Pages of this origin may not use this route."));
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        self.grant(headers, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        if let Some(names) = &self.headers {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        Ok(response)
    }

    /// Sets what a page of `origin` (none: not of the list) may read of an answer.
    fn decorate(&self, headers: &mut HeaderMap, origin: Option<HeaderValue>) {
        for name in OURS {
            headers.remove(name);
        }
        // Whether or not there was an origin, another would have got another answer.
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin {
            self.grant(headers, origin);
            if let Some(names) = &self.expose {
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
            }
            if headers.contains_key(renew::TOKEN) {
                headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from(renew::TOKEN));
            }
        }
    }
}

/// What an upstream may not say where the gateway does.
const OURS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut all = headers.get_all(name).iter();
    all.next().filter(|_| all.next().is_none())
}

/// The method that a preflight asks about; `None` when the request is none.
pub fn preflight(request: &Request) -> Option<Method> {
    if *request.method() != Method::OPTIONS || !request.headers().contains_key(ORIGIN) {
        return None;
    }
    Method::from_bytes(only(request.headers(), &ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

/// Makes [`Crossing`].
#[derive(Debug, Clone, Default)]
pub struct CorsLayer {
    endpoints: Option<Arc<Cors>>,
}

impl CorsLayer {
    /// Pages of these origins may use the gateway's own endpoints; `credentials` says whether with their cookies.
    pub fn new(origins: Vec<String>, credentials: bool) -> Self {
        let section = config::Cors {
            origins,
            methods: vec![Method::GET, Method::POST, Method::PUT, Method::DELETE],
            headers: vec![AUTHORIZATION, CONTENT_TYPE],
            expose: vec![RETRY_AFTER],
            credentials,
            max_age: ENDPOINTS_MAX_AGE,
        };
        Self { endpoints: (!section.origins.is_empty()).then(|| Arc::new(Cors::new(&section, &[]))) }
    }
}

impl<S> Layer<S> for CorsLayer {
    type Service = Crossing<S>;

    fn layer(&self, inner: S) -> Crossing<S> {
        Crossing { inner, endpoints: self.endpoints.clone() }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct Crossing<S> {
    inner: S,
    endpoints: Option<Arc<Cors>>,
}

impl<S> Crossing<S> {
    /// What there is to say about origins where a request goes.
    fn crossed<'a>(&'a self, request: &'a Request) -> Option<(&'a Arc<Exchange>, &'a Arc<Cors>)> {
        let exchange = &request.exchange;
        match exchange.matched.get()? {
            Matched::Route(route) => Some((exchange, route.cors.as_ref()?)),
            Matched::Endpoint => Some((exchange, self.endpoints.as_ref()?)),
            Matched::Health | Matched::Static(_) => None,
        }
    }
}

impl<S> Service<Request> for Crossing<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Decided<CrossingFuture<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some((exchange, cors)) = self.crossed(&request) else {
            return Decided::passed(CrossingFuture { inner: self.inner.call(request), grant: None });
        };
        if preflight(&request).is_some() {
            let made = cors.preflight(request.headers());
            let mut response = made.unwrap_or_else(|problem| exchange.refuse(problem));
            let varies = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
            response.headers_mut().insert(VARY, HeaderValue::from_static(varies));
            return Decided::answered(response);
        }
        let grant = (Arc::clone(cors), cors.allowed(request.headers()));
        Decided::passed(CrossingFuture { inner: self.inner.call(request), grant: Some(grant) })
    }
}

pin_project! {
    /// The inner answer, with what the origin may read of it.
    #[derive(Debug)]
    pub struct CrossingFuture<F> {
        #[pin]
        inner: F,
        grant: Option<(Arc<Cors>, Option<HeaderValue>)>,
    }
}

impl<F> Future for CrossingFuture<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.inner.poll(cx));
        if let Some((cors, origin)) = this.grant.take() {
            cors.decorate(response.headers_mut(), origin);
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors() -> Cors {
        let section = config::Cors {
            origins: vec!["https://a.example.com".to_owned(), "http://localhost:8080".to_owned()],
            methods: Vec::new(),
            headers: vec![AUTHORIZATION],
            expose: Vec::new(),
            credentials: true,
            max_age: Duration::from_secs(600),
        };
        Cors::new(&section, &[])
    }

    #[test]
    fn only_exactly_listed_origins_are_allowed() {
        let cors = cors();
        for (origins, allowed) in [
            (&["https://a.example.com"][..], true),
            (&["http://localhost:8080"], true),
            (&["http://a.example.com"], false),
            (&["https://A.example.com"], false),
            (&["https://a.example.com:443"], false),
            (&["https://a.example.com."], false),
            (&["https://a.example.com/"], false),
            (&["https://a.example.com.evil.org"], false),
            (&["https://evil-a.example.com"], false),
            (&["https://x.a.example.com"], false),
            (&["http://localhost"], false),
            (&["null"], false),
            (&["*"], false),
            (&[""], false),
            (&["https://a.example.com", "https://a.example.com"], false),
            (&["https://a.example.com, https://evil.org"], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for origin in origins {
                headers.append(ORIGIN, HeaderValue::from_static(origin));
            }
            assert_eq!(cors.allowed(&headers).is_some(), allowed, "{origins:?}");
        }
    }
}
