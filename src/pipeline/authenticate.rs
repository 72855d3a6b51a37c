//! The request's token → who asks, or 401.
//!
//! Stateless: signature and claims are checked locally, revocations are in memory, and a token that was verified before is
//! found in the cache. Expiry and revocation are checked on every request all the same. Any fault is a refusal, on a route
//! where a token is optional too: a bad token is never anonymous. For an opaque token ([`super::handle`]) that nobody has shown
//! before the store is waited for, which has to say whose it is.
//!
//! To check a signature takes longer than all else that is done for a request. So requests whose tokens were not seen before let those
//! that are ready go first, and when they were checked they wait for one another: what they send to their upstreams then leaves
//! together, and wakes a processor that sleeps once instead of once for each.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::HeaderMap;
use tokio::task::yield_now;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::clock::{Clock, Timestamp};
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
    /// Not known yet: [`Authenticator::settle`] tells.
    Unsettled(Unsettled),
}

/// A token that nobody has shown before.
#[derive(Debug)]
pub enum Unsettled {
    /// Good, if its signature is right.
    Unverified(Token),
    /// Good, if its session lives.
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

    /// Who has shown it.
    ///
    /// # Errors
    /// The problem to answer when it is not good, or when nobody can tell.
    pub async fn settle(&self, unsettled: Unsettled) -> Result<Arc<Principal>, Problem> {
        match unsettled {
            Unsettled::Unverified(token) => self.verify(&token.0).await,
            Unsettled::Unread(unread) => self.read(unread).await,
        }
    }

    /// Lets others go first, and then checks the signature.
    async fn verify(&self, token: &[u8]) -> Result<Arc<Principal>, Problem> {
        yield_now().await;
        // A page begins with several requests at once, and one of them is enough.
        if let Some(known) = self.known(token)? {
            return Ok(known);
        }
        self.shard.token_misses.inc();
        let principal = self.remember(token, access::check(&self.verifier, &self.revocations, token)?)?;
        yield_now().await;
        // Something may have ended while the others were checked.
        let now = self.clock.now();
        if now >= principal.expires_at() {
            return Err(verify::Error::Expired.into());
        }
        self.recheck(token, principal, now)
    }

    async fn read(&self, unread: Unread) -> Result<Arc<Principal>, Problem> {
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
        if let Some(known) = self.known(token)? {
            return Ok(Shown::By(known));
        }
        let opaque = self.opaque.as_ref().filter(|_| is_handle(token));
        if opaque.is_none() && self.verifier.takes_long(token) {
            return Ok(Shown::Unsettled(Unsettled::Unverified(Token(token.into()))));
        }
        self.shard.token_misses.inc();
        let claims = match opaque {
            None => access::check(&self.verifier, &self.revocations, token)?,
            Some(opaque) => {
                let handle = opaque.handles.read(token)?;
                match opaque.callers.known(token) {
                    Some(claims) => access::check_read(&self.revocations, Claims::clone(&claims))?,
                    None => {
                        let unread = Unread { token: Token(token.into()), handle };
                        return Ok(Shown::Unsettled(Unsettled::Unread(unread)));
                    }
                }
            }
        };
        self.remember(token, claims).map(Shown::By)
    }

    /// Who has shown this token, if somebody has.
    ///
    /// # Errors
    /// The problem to answer when it is no longer good.
    fn known(&self, token: &[u8]) -> Result<Option<Arc<Principal>>, Problem> {
        let now = self.clock.now();
        let Some(known) = self.cache.get(token, now) else { return Ok(None) };
        self.shard.token_hits.inc();
        self.recheck(token, known, now).map(Some)
    }

    /// Who was known a moment ago, if that still stands, and with the roles of now.
    ///
    /// # Errors
    /// The problem to answer when the session has ended.
    fn recheck(&self, token: &[u8], known: Arc<Principal>, now: Timestamp) -> Result<Arc<Principal>, Problem> {
        access::check_again(&self.revocations, &known.claims)?;
        match self.revocations.roles().of(&known.claims.member_id) {
            Some(roles) if *roles != *known.claims.roles => {
                // Another worker may have made it already: what is made once per token is better made once.
                let made = self.cache.get_anew(token, now).filter(|made| *roles == *made.claims.roles);
                if let Some(made) = made {
                    return Ok(made);
                }
                self.remember(token, Claims { roles: roles.to_vec(), ..known.claims.clone() })
            }
            _ => Ok(known),
        }
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
    /// A token that is not known yet is returned.
    fn decide(&self, request: &Request) -> Result<Option<Unsettled>, Problem> {
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
            Some(Shown::Unsettled(unsettled)) => Ok(Some(unsettled)),
            None if auth == Auth::Optional => Ok(None),
            None => Err(Problem::token_missing()),
        }
    }
}

/// An answer that waits until the token is known.
type Settling = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl<S> Authenticate<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    fn settle(&self, unsettled: Unsettled, request: Request) -> Settling {
        let (authenticator, mut inner) = (Arc::clone(&self.authenticator), self.inner.clone());
        Box::pin(async move {
            match authenticator.settle(unsettled).await {
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
    type Future = Either<Decided<S::Future>, Settling>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.decide(&request) {
            Ok(None) => Either::Left(Decided::passed(self.inner.call(request))),
            Ok(Some(unsettled)) => Either::Right(self.settle(unsettled, request)),
            Err(problem) => Either::Left(refuse(&request, problem)),
        }
    }
}

#[cfg(test)]
mod tests;
