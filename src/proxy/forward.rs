//! The attempt loop: choose a backend, take or open a connection, send, wait for the head, pass the answer on.
//!
//! Without a retry policy (`retry`), a request is sent again in three cases only, each at most once:
//! - no connection could be opened: to another backend of the upstream;
//! - a reused connection was found closed before the request was taken: on a fresh one, whatever the method, since nothing
//!   of it was sent;
//! - a reused connection closed without a byte of an answer: on a fresh one, if the request is idempotent and has no body
//!   (RFC 9110 section 9.2.2).

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tokio::time::Instant;

use super::connection::Connection;
use super::error::Retry;
use super::exchange::{Answer, Unanswered, exchange};
use super::headers::{self, Reuse};
use super::health::is_bad;
use super::http2;
use super::pool::Pool;
use super::request_body::RequestBody;
use super::response_body::{Hold, ResponseBody};
use super::response_head::Head;
use super::sending::Sending;
use super::silence::Silence;
use super::switch;
use super::upstream::Upstream;
use super::{Error, Limits, Outbound, Witness, retry};
use crate::body::Body;
use crate::http1::receiving::{Next, Receiving};

/// Sends a request and returns its answer; the body of the answer may still be on its way.
pub(super) fn forward(
    pool: Arc<Pool>,
    outbound: Outbound,
) -> impl Future<Output = Result<Response<Body>, Error>> + Send + use<> {
    let Outbound { now, request, upstream, limits, affinity, upgrade, retry, witness } = outbound;
    let total = limits.total.map(|limit| now + limit);
    let way = Way { pool, upstream, affinity, upgrade, witness };
    // Taken apart out here: what a future takes apart within itself, it holds twice.
    async move {
        match retry {
            None => once(&way, request, &limits, (now, total), None).await,
            // Boxed, so that routes that do not ask for it do not carry the room for it.
            Some(policy) => Box::pin(retry::forward(way, request, limits, (now, total), policy)).await,
        }
    }
}

/// Where a request goes, and who looks on.
pub(super) struct Way {
    pool: Arc<Pool>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) affinity: u64,
    upgrade: Option<HeaderValue>,
    witness: Option<Arc<dyn Witness>>,
}

impl Way {
    /// The worker's connections.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Counts a request in, at the `index`-th backend, or at another where it has no room; says which.
    pub(super) async fn hold(&self, index: usize, total: Option<Instant>) -> Result<(usize, Hold), Error> {
        match self.upstream.admission() {
            None => Ok((index, Hold::new(&self.pool, &self.upstream.backends()[index]))),
            Some(admission) => Box::pin(admission.hold(&self.upstream, &self.pool, index, total)).await,
        }
    }

    /// Tells whoever looks on that it is tried once more.
    pub(super) fn attempt(&self, hold: &Hold, headers: &mut HeaderMap) {
        if let Some(witness) = &self.witness {
            witness.attempt(hold.backend().authority(), headers);
        }
    }
}

/// One try: to the `fixed` backend, or to one of its choice and, when it does not take the connection, to another.
pub(super) async fn once(
    way: &Way,
    mut request: Box<Request<Body>>,
    limits: &Limits,
    (now, total): (Instant, Option<Instant>),
    fixed: Option<usize>,
) -> Result<Response<Body>, Error> {
    let Way { pool, upstream, affinity, upgrade, witness } = way;
    let affinity = *affinity;
    if upstream.speaks_http2() {
        // Boxed, so that those of HTTP/1.1 do not carry the room for it.
        return Box::pin(http2::once(way, request, limits, total, fixed)).await;
    }
    let body = RequestBody::new(std::mem::take(request.body_mut()), limits.max_body)?;
    if let Some(protocol) = upgrade {
        switch::ask(request.headers_mut(), protocol);
    }
    let mut sending = Sending::new(body);
    let repeatable = sending.is_bodiless() && is_idempotent(request.method());

    // The configuration has at least one server.
    let mut index = fixed.or_else(|| upstream.choose(affinity, None)).unwrap_or(0);
    let mut moved = fixed.is_some();
    let mut fresh = false;
    // As long as nothing was waited for.
    let mut now = Some(now);
    loop {
        let mut hold = match upstream.admission() {
            None => Hold::new(pool, &upstream.backends()[index]),
            // Boxed, because few upstreams have limits.
            Some(admission) => {
                let (at, hold) = Box::pin(admission.hold(upstream, pool, index, total)).await?;
                (index, now) = (at, None);
                hold
            }
        };
        if let Some(witness) = witness {
            witness.attempt(hold.backend().authority(), request.headers_mut());
        }
        let connection = match if fresh { None } else { pool.take(hold.backend()) } {
            Some(connection) => connection,
            // Boxed, so that the many requests that need no new connection do not carry the room for opening one.
            None => match Box::pin(Connection::open(hold.backend(), upstream.connect_timeout(), total)).await {
                Ok(connection) => {
                    now = None;
                    Box::new(connection)
                }
                Err(error) => {
                    now = None;
                    let error = hold.fail(error);
                    match upstream.choose(affinity, Some(index)) {
                        Some(other) if !moved && error.retry() == Retry::Always => {
                            (index, moved) = (other, true);
                            continue;
                        }
                        _ => return Err(error),
                    }
                }
            },
        };
        let reused = connection.reused;
        let connection = hold.connection.insert(connection);
        sending.begin(connection, &request, upstream.backends()[index].authority(), witness.as_deref());
        let start = now.take().unwrap_or_else(Instant::now);
        match exchange(pool, connection, &mut sending, limits, (start, total)).await {
            Ok(response) => {
                hold.judged(!is_bad(response.0.parts.status));
                if !sending.is_done() {
                    hold.sending = Some(Box::new(sending));
                }
                if let Some(protocol) = upgrade.as_ref()
                    && response.0.parts.status == StatusCode::SWITCHING_PROTOCOLS
                {
                    return switch::switch(response, hold, protocol, limits, total);
                }
                return answer(response, hold, request.method(), limits, (start, total));
            }
            // Nobody's failure: the connection had been idle, and was closed in the meantime.
            Err(Unanswered { untouched: true, .. }) => {}
            Err(Unanswered { error, .. }) if reused && repeatable && error.retry() == Retry::ReusedOnly => {}
            Err(Unanswered { error, .. }) => return Err(hold.fail(error)),
        }
        // Others in the pool are likely to have been closed together with this one.
        fresh = true;
    }
}

/// Methods that may be repeated without a second effect (RFC 9110 section 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS)
}

/// Makes the upstream's answer ours.
fn answer(
    (Head { parts: mut head, notes, .. }, rest): Answer,
    mut hold: Hold,
    method: &Method,
    limits: &Limits,
    (start, total): (Instant, Option<Instant>),
) -> Result<Response<Body>, Error> {
    let (framing, reuse) = match headers::relay(&mut head, &notes, method) {
        Ok(relayed) => relayed,
        Err(violation) => return Err(hold.fail(Error::Protocol(violation))),
    };
    hold.reusable = reuse == Reuse::Yes;
    let mut receiving = Receiving::new(framing, rest);
    // What came in one piece with the head is there already. Taking it now spares a small answer the boxed body, and gives
    // its connection back before the client has read it.
    let first = match receiving.next() {
        Ok(Next::Data(data)) => Some(data),
        Ok(Next::More | Next::Over) => None,
        // The head has not been passed on yet, so an honest error is still possible.
        Err(error) => return Err(hold.fail(Error::ResponseBodyBroken(error))),
    };
    if receiving.is_over() {
        hold.release(&receiving, start);
        return Ok(Response::from_parts(head, first.map_or_else(Body::empty, Body::from)));
    }
    let silence = Silence::new(limits.idle, total);
    let body = ResponseBody { first, receiving, hold: Some(hold), silence, failed: None };
    Ok(Response::from_parts(head, Body::boxed(body)))
}
