//! The request's token → who asks, or 401.
//!
//! Stateless: signature and claims are checked locally, revocations are in memory, and a token that was verified before is
//! found in the cache. Expiry and revocation are checked on every request all the same. Any fault is a refusal, on a route
//! where a token is optional too: a bad token is never anonymous. An opaque token ([`super::handle`]) that nobody has shown
//! before is the one thing that is waited for: whose it is, the store has to say.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::HeaderMap;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::clock::Clock;
use crate::config::Auth;
use crate::credential;
use crate::credential::cookie::{self, Origins};
use crate::metrics::Shard;
use crate::problem::{Code, Problem};
use crate::telemetry::Pseudonyms;
use crate::token::handle::is_handle;
use crate::token::recent::RecentlyVerified;
use crate::token::renewal::Renewals;
use crate::token::revocation::Revocations;
use crate::token::verify::{self, Verifier};
use crate::token::{Claims, access};

use super::handle::{Opaque, Token, Unread};
use super::principal::Principal;
use super::route::Matched;
use super::{Decided, Request, Response, refuse};

/// What tokens are checked with.
#[derive(Debug)]
pub struct Authenticator {
    /// Signature and claims.
    pub verifier: Arc<Verifier>,
    /// Tokens that were verified before, by this ring and policy.
    pub cache: RecentlyVerified<Principal>,
    /// Opaque tokens; without, none is good.
    pub opaque: Option<Opaque>,
    /// Tokens that ended before their time.
    pub revocations: Arc<Revocations>,
    /// Is told of tokens that were not seen before: one may be newer than what its session has open.
    pub renewals: Arc<Renewals>,
    /// Names of people in logs.
    pub pseudonyms: Pseudonyms,
    /// For expiry.
    pub clock: Clock,
    /// The worker's counters.
    pub shard: Arc<Shard>,
    /// Whether a token may stand in `Authorization` without a scheme.
    pub accept_bare: bool,
    /// The cookies of web pages.
    pub cookies: cookie::Names,
}

/// What a token is.
#[derive(Debug)]
pub enum Shown {
    /// Good.
    By(Arc<Principal>),
    /// Good, if its session lives: [`Authenticator::read`] tells.
    Unread(Unread),
}

impl Authenticator {
    /// What stands in these headers, or in the one `Authorization` beside them; `None` when there is no token.
    ///
    /// # Errors
    /// The problem to answer when a token is there and not good, or when there are two.
    pub fn authenticate(&self, headers: &HeaderMap, beside: Option<&[u8]>) -> Result<Option<Shown>, Problem> {
        match self.bearer(headers, beside)? {
            Some(token) => self.check(token).map(Some),
            None => Ok(None),
        }
    }

    fn bearer<'a>(&self, headers: &'a HeaderMap, beside: Option<&'a [u8]>) -> Result<Option<&'a [u8]>, Problem> {
        let Some(beside) = beside else { return Ok(credential::bearer(headers, self.accept_bare)?) };
        // There is one alone, and it stands in one of the two places.
        debug_assert!(!headers.contains_key(http::header::AUTHORIZATION));
        Ok(credential::token(beside, self.accept_bare))
    }

    /// Whose handle that was.
    ///
    /// # Errors
    /// The problem to answer when it is not good, or when nobody can tell.
    pub async fn read(&self, unread: Unread) -> Result<Arc<Principal>, Problem> {
        let token = unread.token.clone();
        let Some(opaque) = &self.opaque else { return Err(verify::Error::Malformed.into()) };
        let read = opaque.callers.look_up(unread).await;
        let claims = read.map_err(|_| Problem::internal("a session could not be looked up"))??;
        self.remember(&token.0, access::check_read(&self.revocations, Claims::clone(&claims))?)
    }

    /// As [`Authenticator::authenticate`], where the token may also stand in the cookie of a page of `origins`; and whether
    /// it did. `acts`: the request may change something.
    ///
    /// # Errors
    /// Also `origin_forbidden`.
    pub fn authenticate_page(
        &self,
        (headers, beside): (&HeaderMap, Option<&[u8]>),
        acts: bool,
        origins: &Origins,
    ) -> Result<Option<(Shown, bool)>, Problem> {
        let shown = self.bearer(headers, beside)?;
        match (shown, cookie::read(headers, self.cookies.access)?) {
            (None, None) => Ok(None),
            (Some(token), Some(cookie)) if token != cookie => Err(credential::Ambiguous.into()),
            (Some(token), _) => self.check(token).map(|caller| Some((caller, false))),
            (None, Some(_)) if !origins.admit(headers, acts) => {
                let detail =
                    "With a cookie, only pages of the gateway's own origin and of the route's `cors` may do this.";
                Err(Problem::new(Code::OriginForbidden, detail))
            }
            (None, Some(token)) => self.check(token).map(|caller| Some((caller, true))),
        }
    }

    fn check(&self, token: &[u8]) -> Result<Shown, Problem> {
        let now = self.clock.now();
        if let Some(known) = self.cache.get(token, now) {
            self.shard.token_hits.inc();
            access::check_again(&self.revocations, &known.claims)?;
            return match self.revocations.roles().of(&known.claims.member_id) {
                Some(roles) if *roles != *known.claims.roles => {
                    // Another worker may have made it already: what is made once per token is better made once.
                    let made = self.cache.get_anew(token, now).filter(|made| *roles == *made.claims.roles);
                    if let Some(made) = made {
                        return Ok(Shown::By(made));
                    }
                    let claims = Claims { roles: roles.to_vec(), ..known.claims.clone() };
                    self.remember(token, claims).map(Shown::By)
                }
                _ => Ok(Shown::By(known)),
            };
        }
        self.shard.token_misses.inc();
        let claims = match self.opaque.as_ref().filter(|_| is_handle(token)) {
            None => access::check(&self.verifier, &self.revocations, token)?,
            Some(opaque) => {
                let handle = opaque.handles.read(token)?;
                match opaque.callers.known(token) {
                    Some(claims) => access::check_read(&self.revocations, Claims::clone(&claims))?,
                    None => return Ok(Shown::Unread(Unread { token: Token(token.into()), handle })),
                }
            }
        };
        self.remember(token, claims).map(Shown::By)
    }

    fn remember(&self, token: &[u8], claims: Claims) -> Result<Arc<Principal>, Problem> {
        let principal = Principal::new(token, claims, &self.pseudonyms)
            .map_err(|_| Problem::new(Code::TokenInvalid, "A claim of the token cannot be used."))?;
        let principal = Arc::new(principal);
        self.renewals.note(&principal.claims.session_id, principal.claims.expires_at);
        self.cache.insert(Arc::clone(&principal));
        Ok(principal)
    }
}

/// Makes [`Authenticate`].
#[derive(Debug, Clone)]
pub struct AuthenticateLayer {
    authenticator: Arc<Authenticator>,
}

impl AuthenticateLayer {
    /// With this worker's authenticator.
    pub fn new(authenticator: Authenticator) -> Self {
        Self { authenticator: Arc::new(authenticator) }
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate { inner, authenticator: Arc::clone(&self.authenticator) }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct Authenticate<S> {
    inner: S,
    authenticator: Arc<Authenticator>,
}

impl<S> Authenticate<S> {
    /// The caller into the exchange, if the route asks and there is one. The endpoints read their credentials themselves.
    /// What is still to be read is returned.
    fn decide(&self, request: &Request) -> Result<Option<Unread>, Problem> {
        let exchange = &request.exchange;
        let (auth, pages) = match exchange.matched()? {
            Matched::Route(route) => (route.policy.auth, route.cookie.as_ref()),
            Matched::Endpoint | Matched::Health | Matched::Static(_) => return Ok(None),
        };
        if auth == Auth::None {
            return Ok(None);
        }
        let beside = exchange.authorization();
        let shown = match pages {
            None => self.authenticator.authenticate(request.headers(), beside)?,
            Some(origins) => {
                // A WebSocket is opened by a GET, and no CORS protects it.
                let acts = !request.method().is_safe() || exchange.upgrade.get().is_some();
                let found = self.authenticator.authenticate_page((request.headers(), beside), acts, origins)?;
                found.map(|(shown, by_cookie)| {
                    exchange.by_cookie.store(by_cookie, Ordering::Relaxed);
                    shown
                })
            }
        };
        match shown {
            Some(Shown::By(principal)) => {
                let _ = exchange.principal.set(principal);
                Ok(None)
            }
            Some(Shown::Unread(unread)) => Ok(Some(unread)),
            None if auth == Auth::Optional => Ok(None),
            None => Err(Problem::token_missing()),
        }
    }
}

/// An answer that waits for a look into the store first.
type Reading = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl<S> Authenticate<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    fn read(&self, unread: Unread, request: Request) -> Reading {
        let (authenticator, mut inner) = (Arc::clone(&self.authenticator), self.inner.clone());
        Box::pin(async move {
            match authenticator.read(unread).await {
                Ok(principal) => {
                    let _ = request.exchange.principal.set(principal);
                    let _ = request.exchange.resumed.set(Instant::now());
                    inner.call(request).await
                }
                Err(problem) => Ok(request.exchange.refuse(problem)),
            }
        })
    }
}

impl<S> Service<Request> for Authenticate<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Decided<S::Future>, Reading>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.decide(&request) {
            Ok(None) => Either::Left(Decided::passed(self.inner.call(request))),
            Ok(Some(unread)) => Either::Right(self.read(unread, request)),
            Err(problem) => Either::Left(refuse(&request, problem)),
        }
    }
}
