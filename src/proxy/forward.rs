//! The attempt loop: choose a backend, take or open a connection, send, wait for the head, pass the answer on.
//!
//! Without a retry policy (`retry`), a request is sent again in three cases only, each at most once:
//! - no connection could be opened: to another backend of the upstream;
//! - a reused connection was found closed before the request was taken: on a fresh one, whatever the method, since nothing
//!   of it was sent;
//! - a reused connection closed without a byte of an answer: on a fresh one, if the request is idempotent and has no body
//!   (RFC 9110 section 9.2.2).

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use http::header::HOST;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use super::error::{Retry, Violation};
use super::headers::{self, Reuse};
use super::health::is_bad;
use super::pool::Pool;
use super::request_body::{RequestBody, Upload, prepare};
use super::response_body::{Hold, ResponseBody};
use super::silence::Silence;
use super::switch;
use super::upstream::Upstream;
use super::{Error, Limits, Outbound, Witness, retry};
use crate::body::Body;

/// Sends a request and returns its answer; the body of the answer may still be on its way.
pub(super) async fn forward(pool: Arc<Pool>, outbound: Outbound) -> Result<Response<Body>, Error> {
    let Outbound { request, upstream, limits, affinity, upgrade, retry, witness } = outbound;
    let total = limits.total.map(|limit| Instant::now() + limit);
    let way = Way { pool, upstream, affinity, upgrade, witness };
    match retry {
        None => once(&way, request, &limits, total, None).await,
        // Boxed, so that routes that do not ask for it do not carry the room for it.
        Some(policy) => Box::pin(retry::forward(way, request, limits, total, policy)).await,
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

/// One try: to the `fixed` backend, or to one of its choice and, when it does not take the connection, to another.
pub(super) async fn once(
    way: &Way,
    request: Request<Body>,
    limits: &Limits,
    total: Option<Instant>,
    fixed: Option<usize>,
) -> Result<Response<Body>, Error> {
    let Way { pool, upstream, affinity, upgrade, witness } = way;
    let affinity = *affinity;
    let (mut request, upload) = prepare(request, limits.max_body)?;
    if let Some(protocol) = upgrade {
        switch::ask(request.headers_mut(), protocol);
    }
    let method = request.method().clone();
    let repeatable = upload.is_none() && is_idempotent(&method);

    // The configuration has at least one server.
    let mut index = fixed.or_else(|| upstream.choose(affinity, None)).unwrap_or(0);
    // A client of HTTP/1.0 need not name a host, but we speak 1.1 (RFC 9112 section 3.2).
    if !request.headers().contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(upstream.backends()[index].authority().as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    let mut moved = fixed.is_some();
    let mut fresh = false;
    loop {
        let mut hold = match upstream.admission() {
            None => Hold::new(pool, &upstream.backends()[index]),
            // Boxed, because few upstreams have limits.
            Some(admission) => {
                let (at, hold) = Box::pin(admission.hold(upstream, pool, index, total)).await?;
                index = at;
                hold
            }
        };
        if let Some(witness) = witness {
            witness.attempt();
        }
        let connection = match if fresh { None } else { pool.take(hold.backend()) } {
            Some(connection) => connection,
            // Boxed, so that the many requests that need no new connection do not carry the room for opening one.
            None => match Box::pin(Connection::open(hold.backend(), upstream.connect_timeout(), total)).await {
                Ok(connection) => connection,
                Err(error) => {
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
        // hyper consumes what it sends, so a copy must be made before it is known to be needed.
        let spare = (reused && repeatable).then(|| copy(&request));
        let wait = Wait { limits, total, upload: upload.as_deref() };
        match exchange(connection, request, wait).await {
            Ok(response) => {
                hold.judged(!is_bad(response.status()));
                hold.upload = upload;
                if let Some(protocol) = upgrade.as_ref()
                    && response.status() == StatusCode::SWITCHING_PROTOCOLS
                {
                    return Box::pin(switch::switch(response, hold, protocol, limits, total)).await;
                }
                return answer(response, hold, &method, limits, total).await;
            }
            Err(Unanswered { error, unsent }) => {
                request = match (unsent, spare) {
                    // Nobody's failure: the connection had been idle, and was closed in the meantime.
                    (Some(unsent), _) if reused => *unsent,
                    (None, Some(spare)) if error.retry() == Retry::ReusedOnly => spare,
                    _ => return Err(hold.fail(error)),
                };
                // Others in the pool are likely to have been closed together with this one.
                fresh = true;
            }
        }
    }
}

/// Methods that may be repeated without a second effect (RFC 9110 section 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS)
}

/// The same request once more; only for one without a body.
fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy
}

/// How long to wait for a response head.
struct Wait<'a> {
    limits: &'a Limits,
    total: Option<Instant>,
    upload: Option<&'a Upload>,
}

impl Wait<'_> {
    /// When patience ends as things stand, and with which error.
    fn due(&self, start: Instant) -> (Instant, Error) {
        let (due, error) = match self.upload {
            Some(upload) => upload.due(self.limits),
            None => (start + self.limits.response_head, Error::ResponseHeadTimeout),
        };
        match self.total {
            Some(total) if total < due => (total, Error::TotalTimeout),
            _ => (due, error),
        }
    }

    /// When to look again, as of `now`. An upload that begins to wait for somebody else tells nobody, and whoever it waits
    /// for then may have the shorter time; but none that begins after `now` can end before this.
    fn look(&self, start: Instant, now: Instant) -> Instant {
        let (due, _) = self.due(start);
        match self.upload {
            Some(_) => due.min(now + self.limits.idle.min(self.limits.response_head)),
            None => due,
        }
    }
}

/// A request without an answer, and the request itself if nothing of it was sent.
struct Unanswered {
    error: Error,
    unsent: Option<Box<Request<RequestBody>>>,
}

impl From<Error> for Unanswered {
    fn from(error: Error) -> Self {
        Self { error, unsent: None }
    }
}

/// Sends `request` and waits for the head of the answer.
async fn exchange(
    connection: &mut Connection,
    request: Request<RequestBody>,
    wait: Wait<'_>,
) -> Result<Response<Incoming>, Unanswered> {
    let start = Instant::now();
    connection.watch.begin();
    if let Some(upload) = wait.upload {
        upload.begin();
    }
    let mut sent = pin!(connection.send.try_send_request(request));
    let mut timer = pin!(sleep_until(wait.look(start, start)));
    let sent = poll_fn(|cx| {
        if let Poll::Ready(sent) = sent.as_mut().poll(cx) {
            return Poll::Ready(Ok(sent));
        }
        while timer.as_mut().poll(cx).is_ready() {
            // The upload may have moved on since the timer was set.
            let now = timer.deadline();
            let (due, error) = wait.due(start);
            if due <= now {
                return Poll::Ready(Err(error));
            }
            timer.as_mut().reset(wait.look(start, now));
        }
        Poll::Pending
    });
    let mut failed = match sent.await? {
        Ok(response) => return Ok(response),
        Err(failed) => failed,
    };
    let unsent = failed.take_message().map(Box::new);
    let source = failed.into_error();
    let error = match wait.upload.and_then(Upload::cause) {
        Some(cause) => cause,
        None if connection.watch.heard() && unsent.is_none() => Error::Protocol(Violation::Malformed(source)),
        None => Error::Closed(source),
    };
    Err(Unanswered { error, unsent })
}

/// Turns hyper's answer into ours.
async fn answer(
    response: Response<Incoming>,
    mut hold: Hold,
    method: &Method,
    limits: &Limits,
    total: Option<Instant>,
) -> Result<Response<Body>, Error> {
    let (mut head, mut rest) = response.into_parts();
    hold.reusable = match headers::relay(&mut head, method) {
        Ok(reuse) => reuse == Reuse::Yes,
        Err(violation) => return Err(hold.fail(Error::Protocol(violation))),
    };
    if rest.is_end_stream() {
        hold.release();
        return Ok(Response::from_parts(head, Body::empty()));
    }
    // What came in one piece with the head is there already. Taking it now spares a small answer the boxed body, and gives
    // its connection back before the client has read it.
    let first = match poll_fn(|cx| Poll::Ready(Pin::new(&mut rest).poll_frame(cx))).await {
        Poll::Pending => None,
        Poll::Ready(None) => {
            hold.release();
            return Ok(Response::from_parts(head, Body::empty()));
        }
        // The head has not been passed on yet, so an honest error is still possible.
        Poll::Ready(Some(Err(error))) => return Err(hold.fail(Error::ResponseBodyBroken(error))),
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
    };
    match first {
        Some(whole) if rest.is_end_stream() => {
            hold.release();
            Ok(Response::from_parts(head, Body::from(whole)))
        }
        first => {
            let silence = Silence::new(limits.idle, total);
            let body = ResponseBody { first, rest, hold: Some(hold), silence };
            Ok(Response::from_parts(head, Body::boxed(body)))
        }
    }
}
