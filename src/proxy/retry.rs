//! Trying again, where a route asks for it: another server, within a budget.
//!
//! A request is kept for this if its method is one that the route lets be repeated and its body is known to be small; any
//! other takes the plain way, on which only a connect that failed goes to another server. `timeout` bounds all tries
//! together, up to the response head. What a retry would wait for is never more than what the first try left over.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::UPGRADE;
use http::{Request, Response, request};
use http_body::Body as HttpBody;
use tokio::time::{Instant, timeout};

use super::forward::{Way, once};
use super::health::now;
use super::{Error, Limits};
use crate::body::Body;
use crate::config::section::{self, RetryOn};

/// Largest body that is kept, bytes.
const MAX_BODY: u64 = 64 * 1024;

/// Retries per second that are always allowed.
const FLOOR: u64 = 10;

/// Requests that pay for one retry: retries are a fifth of them at most.
const SHARE: u64 = 5;

/// Retries that can be saved up in quiet times.
const SAVED: u64 = 100;

/// How many retries an upstream can bear, so that one that is sick is not asked all the more. One for the process and each
/// upstream; counted by all workers.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Requests that have not paid for a retry yet.
    balance: AtomicU64,
    /// The present second of [`now`], times 64, plus the retries of the floor in it.
    second: AtomicU64,
    made: AtomicU64,
    refused: AtomicU64,
}

impl Budget {
    /// A request came.
    fn pay_in(&self) {
        if self.balance.load(Ordering::Relaxed) < SAVED * SHARE {
            self.balance.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether one more retry is affordable at `millis`.
    fn spend(&self, millis: u64) -> bool {
        let affordable = self.floor(millis / 1000) || self.saved();
        if affordable { &self.made } else { &self.refused }.fetch_add(1, Ordering::Relaxed);
        affordable
    }

    fn floor(&self, second: u64) -> bool {
        let spend = |state: u64| {
            let used = if state >> 6 == second { state & 63 } else { 0 };
            (used < FLOOR).then(|| second << 6 | (used + 1))
        };
        self.second.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }

    fn saved(&self) -> bool {
        let spend = |balance: u64| balance.checked_sub(SHARE);
        self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }

    /// Retries so far, and those that were not made because there were too many.
    pub(super) fn figures(&self) -> (u64, u64) {
        (self.made.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

/// Sends a request by `policy`.
pub(super) async fn forward(
    way: Way,
    request: Box<Request<Body>>,
    limits: Limits,
    (start, total): (Instant, Option<Instant>),
    policy: Arc<section::Retry>,
) -> Result<Response<Body>, Error> {
    let budget = way.upstream.budget();
    budget.pay_in();
    let by = start + limits.response_head;
    let (head, body) = match keep(request, &policy, &limits).await? {
        Kept::Whole(head, body) => (head, body),
        Kept::Not(request) => return once(&way, request, &limits, (start, total), None).await,
    };
    // The configuration has at least one server.
    let mut index = way.upstream.choose(way.affinity, None).unwrap_or(0);
    let mut left = policy.attempts;
    loop {
        left = left.saturating_sub(1);
        let request = Box::new(Request::from_parts((*head).clone(), Body::from(body.clone())));
        let begun = Instant::now();
        let rest = by.saturating_duration_since(begun);
        let response_head = policy.per_try.map_or(rest, |limit| limit.min(rest)).max(Duration::from_millis(1));
        let outcome = once(&way, request, &Limits { response_head, ..limits }, (begun, total), Some(index)).await;
        if left == 0 || !calls_for_another(&outcome, &policy.on) || Instant::now() >= by {
            return outcome;
        }
        match way.upstream.choose(way.affinity, Some(index)) {
            Some(other) if budget.spend(now()) => index = other,
            _ => return outcome,
        }
    }
}

fn calls_for_another(outcome: &Result<Response<Body>, Error>, on: &[RetryOn]) -> bool {
    let reason = match outcome {
        Ok(answer) => match answer.status().as_u16() {
            502 => RetryOn::BadGateway,
            503 => RetryOn::Unavailable,
            504 => RetryOn::Timeout,
            _ => return false,
        },
        Err(Error::Resolve(_) | Error::Connect(_) | Error::ConnectTimeout) => RetryOn::Connect,
        Err(Error::Closed(_)) => RetryOn::Reset,
        Err(Error::ResponseHeadTimeout) => RetryOn::Timeout,
        Err(_) => return false,
    };
    // Nothing was sent: another server is asked in any case, as without a policy.
    reason == RetryOn::Connect || on.contains(&reason)
}

/// A request, ready to be sent more than once or not.
enum Kept {
    Whole(Box<request::Parts>, Bytes),
    Not(Box<Request<Body>>),
}

/// Takes the body in, if the request is one that may be repeated.
async fn keep(request: Box<Request<Body>>, policy: &section::Retry, limits: &Limits) -> Result<Kept, Error> {
    let length = request.body().size_hint().exact();
    let fits = length.is_some_and(|length| length <= MAX_BODY.min(limits.max_body));
    if !fits || !policy.methods.contains(request.method()) || request.headers().contains_key(UPGRADE) {
        return Ok(Kept::Not(request));
    }
    let (mut head, mut body) = request.into_parts();
    // What the pipeline's steps left for each other is not the upstream's business.
    head.extensions.clear();
    let mut whole = BytesMut::new();
    while !body.is_end_stream() {
        let frame = timeout(limits.idle, poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))).await;
        match frame.map_err(|_| Error::RequestBodyIdle)? {
            None => break,
            Some(Err(error)) => return Err(Error::RequestBodyAborted(error)),
            // Trailers are not passed on.
            Some(Ok(frame)) => whole.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref())),
        }
    }
    Ok(Kept::Whole(Box::new(head), whole.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_fifth_of_the_requests_and_ten_a_second() {
        let budget = Budget::default();
        let spend = |n: u64, at: u64| (0..n).filter(|_| budget.spend(at)).count();
        assert_eq!(spend(1000, 5000), 10, "the floor alone");
        assert_eq!(spend(1000, 5999), 0);
        assert_eq!(spend(1000, 6000), 10);
        (0..50).for_each(|_| budget.pay_in());
        assert_eq!(spend(1000, 6000), 10, "a fifth of 50");
        (0..1_000_000).for_each(|_| budget.pay_in());
        assert_eq!(spend(1000, 6000), 100, "not more than was saved");
        assert_eq!(budget.figures(), (130, 4870));
    }
}
