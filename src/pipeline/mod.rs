//! **The stack**: what every request on the public listener passes, outermost first.
//!
//! | layer | reads | sets | may answer |
//! | --- | --- | --- | --- |
//! | [`trace`] | connection | [`Exchange`] | `internal` (a panic below) |
//! | [`pages`] | `Accept` | – (the body of a refusal) | – |
//! | [`refused`] | stand-in target | – | what the guard refused |
//! | [`client_addr`] | forwarding headers of trusted proxies | `forwarded` | – |
//! | [`hygiene`] | every header name; [`wafer2`] | – (removes) | – |
//! | [`route`] | target, host, method | `matched`, canonical path ([`address`], [`rewrite`]) | `ambiguous_path`, `route_not_found`, `method_not_allowed`, `forbidden` |
//! | [`cors`] | origin | – (`Access-Control-*` of the answer) | `origin_forbidden`, 204 to a preflight |
//! | [`limit`] | address, route; the worker's load ([`shed`]) | – | `rate_limited`, `overloaded` |
//! | [`authenticate`] | credentials ([`handle`]) | `principal` | `token_*`, `ambiguous_token`, `store_unavailable` |
//! | [`limit`] again | principal; what is under way ([`in_flight`]) | `held` | `rate_limited`, `overloaded` |
//! | [`authorize`] | policy, principal | – | `forbidden` |
//! | [`renew`] | principal | – (`X-Wxgate-Token` of the answer) | – |
//! | [`identity`] | principal, its [`assertion`] | `X-WX-*`, `X-Wxgate-*` | `internal` |
//! | [`dispatch`] | matched | forwarding headers ([`rules`], [`compress`]) | what the endpoint or the proxy answers, [`redirect`] |
//!
//! A layer answers or passes on; it never errors. Its decision is a pure function in the same file, tested with tables.
//! The inner services (the endpoints, the proxy) arrive as arguments: nothing here knows WeChat, stores or sockets.

pub mod access_log;
pub mod address;
pub mod assertion;
pub mod authenticate;
pub mod authorize;
pub mod client_addr;
pub mod compress;
pub mod connection;
pub mod cors;
pub mod decided;
pub mod dispatch;
pub mod exchange;
pub mod handle;
pub mod hygiene;
pub mod identity;
pub mod in_flight;
pub mod limit;
pub mod matcher;
pub mod pages;
pub mod path;
pub mod principal;
pub mod redirect;
pub mod refused;
pub mod renew;
pub mod request;
pub mod rewrite;
pub mod route;
pub mod rules;
pub mod shed;
pub mod sockets;
pub mod streams;
pub mod tenure;
pub mod trace;
pub mod trailers;
pub mod via;
pub mod wafer2;
pub mod why;

use std::convert::Infallible;

use tower::{Layer, Service};

use crate::body::Body;
use crate::problem::Problem;

pub use decided::Decided;
pub use exchange::Exchange;
pub use principal::Principal;
pub use request::Request;

/// An answer on its way back.
pub type Response = http::Response<Body>;
/// Refuses: with the request's id where there is one.
fn refuse<F>(request: &Request, problem: Problem) -> Decided<F> {
    Decided::answered(request.exchange.refuse(problem))
}

/// The layers of [`decisions`], each built from its own section.
#[derive(Debug, Clone)]
pub struct Steps {
    /// Pages in place of problems.
    pub pages: pages::PagesLayer,
    /// Trusted proxies.
    pub client_addr: client_addr::ClientAddrLayer,
    /// Removal of headers, and what is read before it.
    pub hygiene: hygiene::HygieneLayer,
    /// The route table.
    pub route: route::RouteLayer,
    /// What pages of other origins may do.
    pub cors: cors::CorsLayer,
    /// Limits that ask nobody's name.
    pub limit_before: limit::LimitLayer,
    /// Limits that do.
    pub limit_after: limit::LimitLayer,
    /// Tokens.
    pub authenticate: authenticate::AuthenticateLayer,
    /// Who the caller is, for upstreams.
    pub identity: identity::IdentityLayer,
    /// Fresh tokens for those whose own are about to expire.
    pub renew: renew::RenewLayer,
}

/// Puts the layers around `inner` in their order. `tower::ServiceBuilder` would say the same; nested calls keep the
/// types readable in errors.
pub fn stack<S>(trace: &trace::TraceLayer, steps: &Steps, inner: S) -> Stack<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    trace.layer(decisions(steps, inner))
}

/// All but the outermost: what is decided, without what is counted and logged. `wxgate explain` asks these.
pub fn decisions<S>(steps: &Steps, inner: S) -> Decisions<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    // Around everything that may refuse, whoever asks.
    steps.pages.layer(
        // What the guard refused needs an id and a log line, and nothing else of the stack.
        refused::RefusedLayer.layer(
            // Reads forwarding headers before `hygiene` removes them.
            steps.client_addr.layer(
                // Before anything looks at the request: no step below sees a header that a client may not send.
                steps.hygiene.layer(steps.route.layer(
                    // Around all that may refuse: a page must be able to read a refusal, too.
                    steps.cors.layer(
                        // Before authentication, so that a flood costs no signature.
                        steps.limit_before.layer(
                            // Needs the route's policy.
                            steps.authenticate.layer(
                                // Whoever is over his limit is not told what he may do.
                                steps.limit_after.layer(authorize::AuthorizeLayer.layer(
                                    // For those who were let in.
                                    steps.renew.layer(
                                        // Last before forwarding, so that nothing removes what it adds.
                                        steps.identity.layer(inner),
                                    ),
                                )),
                            ),
                        ),
                    ),
                )),
            ),
        ),
    )
}

/// What [`stack`] makes.
pub type Stack<S> = trace::Trace<Decisions<S>>;

/// What [`decisions`] makes.
pub type Decisions<S> = pages::Pages<refused::Refused<client_addr::ReadClientAddr<hygiene::Hygiene<Routed<S>>>>>;

/// What a request that is clean passes.
type Routed<S> = route::MatchRoute<cors::Crossing<limit::LimitRate<authenticate::Authenticate<LetIn<S>>>>>;

/// What a request whose caller is known passes.
type LetIn<S> = limit::LimitRate<authorize::Authorize<renew::Renew<identity::InjectIdentity<S>>>>;

#[cfg(test)]
mod tests;
