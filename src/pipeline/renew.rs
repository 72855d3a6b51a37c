//! Sliding renewal: a token that is about to expire is answered with a fresh one.
//!
//! Behind everything that may refuse. The fresh token is made elsewhere, from the session as the store knows it, while the
//! upstream works; it is made once per token and kept with its caller, so that all requests of the last minutes get the
//! same one. What cannot be made in time is not waited for: the next request brings it. A request whose token has time
//! left pays one comparison.

use std::convert::Infallible;
use std::fmt::{self, Debug};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CACHE_CONTROL, HeaderName, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use pin_project_lite::pin_project;
use tokio::sync::oneshot;
use tower::{Layer, Service};

use crate::clock::{Clock, Timestamp};
use crate::token::access;
use crate::token::revocation::Revocations;

use super::principal::Principal;
use super::{Request, Response};

/// Where the fresh token stands in the answer.
pub const TOKEN: HeaderName = HeaderName::from_static("x-wxgate-token");

/// How long an answer that is ready waits for its fresh token; counted from the request.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long after an attempt without success the next may come.
const PAUSE: Duration = Duration::from_secs(5);

/// What an answer carries.
#[derive(Clone)]
pub struct Fresh {
    /// The token; sensitive.
    pub token: HeaderValue,
    /// The same as the cookie of those whose token came in one.
    pub set_cookie: HeaderValue,
}

impl Debug for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fresh(…)")
    }
}

/// Makes fresh tokens.
pub trait Renewals: Debug + Send + Sync {
    /// Begins to make one for this caller; nothing comes when it may have none, or none could be made.
    fn renew(&self, caller: &Arc<Principal>) -> oneshot::Receiver<Fresh>;
}

/// The fresh token of a caller, once there is one.
#[derive(Debug, Default)]
pub struct Renewal {
    /// Made when there is one, as what a caller has that few need.
    fresh: OnceLock<ArcSwap<Fresh>>,
    /// Milliseconds: before that, nobody tries again.
    next_try: AtomicI64,
}

impl Renewal {
    /// Keeps it.
    pub fn set(&self, fresh: Fresh) {
        let fresh = Arc::new(fresh);
        self.fresh.get_or_init(|| ArcSwap::new(Arc::clone(&fresh))).store(fresh);
    }

    /// Whether the one who asks is to have it made: one at a time, and not at once again.
    fn is_mine(&self, now: Timestamp) -> bool {
        let planned = self.next_try.load(Ordering::Acquire);
        let next = now.plus(PAUSE).millis();
        // A plan that lies far ahead was made before the clock was set back.
        (planned <= now.millis() || planned > next)
            && self.next_try.compare_exchange(planned, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// When, and by whom.
#[derive(Debug, Clone)]
pub struct Renewing {
    /// A token that has no more left than that is renewed.
    pub within: Duration,
    /// Makes the fresh one.
    pub by: Arc<dyn Renewals>,
    /// What has ended meanwhile.
    pub revocations: Arc<Revocations>,
    /// Time.
    pub clock: Clock,
}

/// Makes [`Renew`]; without [`Renewing`] it does nothing.
#[derive(Debug, Clone, Default)]
pub struct RenewLayer(pub Option<Renewing>);

impl<S> Layer<S> for RenewLayer {
    type Service = Renew<S>;

    fn layer(&self, inner: S) -> Renew<S> {
        Renew { inner, renewing: self.0.clone() }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct Renew<S> {
    inner: S,
    renewing: Option<Renewing>,
}

/// A fresh token that is there, or on its way; nothing when its session has ended by then.
type Coming = Pin<Box<dyn Future<Output = Option<Fresh>> + Send>>;

/// What the answer to one caller is to carry.
struct Awaited {
    coming: Coming,
    by_cookie: bool,
    caller: Arc<Principal>,
    revocations: Arc<Revocations>,
}

impl Awaited {
    /// Whether it may still be handed out. Asked when the answer leaves: after a logout that was faster, a cookie would log the
    /// page in again.
    fn stands(&self) -> bool {
        access::check_again(&self.revocations, &self.caller.claims).is_ok()
    }
}

impl Renewing {
    fn begin(&self, request: &Request) -> Option<Awaited> {
        let exchange = &request.exchange;
        let caller = exchange.principal.get()?;
        let now = self.clock.now();
        if caller.expires_at().since(now) > self.within {
            return None;
        }
        let coming: Coming = match caller.renewal.fresh.get().map(ArcSwap::load_full) {
            Some(fresh) => Box::pin(std::future::ready(Some(Fresh::clone(&fresh)))),
            None if caller.renewal.is_mine(now) => {
                let coming = tokio::time::timeout(PATIENCE, self.by.renew(caller));
                Box::pin(async move { coming.await.ok()?.ok() })
            }
            None => return None,
        };
        let by_cookie = exchange.by_cookie.load(Ordering::Relaxed);
        Some(Awaited { coming, by_cookie, caller: Arc::clone(caller), revocations: Arc::clone(&self.revocations) })
    }
}

impl<S> Service<Request> for Renew<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = RenewFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let coming = self.renewing.as_ref().and_then(|renewing| renewing.begin(&request));
        RenewFuture { inner: self.inner.call(request), answer: None, coming }
    }
}

pin_project! {
    /// The inner answer, and the fresh token when there is one.
    pub struct RenewFuture<F> {
        #[pin]
        inner: F,
        // Boxed: it is hardly ever there, and the future of every request carries the room.
        answer: Option<Box<Response>>,
        coming: Option<Awaited>,
    }
}

impl<F> Debug for RenewFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenewFuture(…)")
    }
}

impl<F> Future for RenewFuture<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match this.answer.take() {
            Some(response) => *response,
            None => {
                let Ok(response) = ready!(this.inner.poll(cx));
                response
            }
        };
        if let Some(awaited) = this.coming {
            match awaited.coming.as_mut().poll(cx) {
                Poll::Pending => {
                    *this.answer = Some(Box::new(response));
                    return Poll::Pending;
                }
                Poll::Ready(Some(fresh)) if awaited.stands() => {
                    carry(response.headers_mut(), fresh, awaited.by_cookie);
                }
                Poll::Ready(_) => {}
            }
            *this.coming = None;
        }
        Poll::Ready(Ok(response))
    }
}

/// Nobody may keep an answer in which somebody's token stands.
fn carry(headers: &mut HeaderMap, fresh: Fresh, by_cookie: bool) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match by_cookie {
        true => drop(headers.append(SET_COOKIE, fresh.set_cookie)),
        false => drop(headers.insert(TOKEN, fresh.token)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tries_at_a_time_and_another_after_a_pause() {
        let (renewal, at) = (Renewal::default(), |secs: i64| Timestamp::from_secs(1_700_000_000 + secs));
        assert!(renewal.is_mine(at(0)));
        assert!(!renewal.is_mine(at(0)) && !renewal.is_mine(at(4)));
        assert!(renewal.is_mine(at(5)));
        assert!(renewal.is_mine(at(-3600)), "the clock was set back");
        assert!(!renewal.is_mine(at(-3600)));
    }
}
