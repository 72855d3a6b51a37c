//! Upstreams that speak HTTP/2 (RFC 9113): one request after the other finds its place on few connections, and trailers go
//! both ways, as gRPC wants it.
//!
//! Framing is the library's here. What the gateway promises stays the same: one request with one length, no field that
//! belongs to a connection or to the gateway, deadlines, and an answer that is whole or visibly broken. The caller has
//! cleaned the trailers of the client.

mod body;
mod connections;

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::header::{CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use super::backend::Backend;
use super::error::{Retry, Violation};
use super::forward::Way;
use super::health::is_bad;
use super::request_body::Upload;
use super::response_body::Hold;
use super::{Error, Limits, headers};
use crate::body::Body;

pub(super) use connections::Connections;

use body::{Answered, Outgoing};
use connections::Place;

/// One try: to the `fixed` backend, or to one of its choice and, when it does not take the connection, to another.
pub(super) async fn once(
    way: &Way,
    request: Box<Request<Body>>,
    limits: &Limits,
    total: Option<Instant>,
    fixed: Option<usize>,
) -> Result<Response<Body>, Error> {
    let (mut head, body) = request.into_parts();
    let size = body.size_hint();
    if size.lower() > limits.max_body {
        return Err(Error::RequestBodyTooLarge);
    }
    let empty = body.is_end_stream();
    state_length(&mut head.headers, &head.method, if empty { Some(0) } else { size.exact() });
    let upload = (!empty).then(|| Arc::new(Upload::new()));
    let mut body = Outgoing::new(body, limits.max_body, upload.clone());
    let mut index = fixed.or_else(|| way.upstream.choose(way.affinity, None)).unwrap_or(0);
    address(&mut head, way.upstream.backends()[index].as_ref());
    let mut moved = fixed.is_some();
    let mut fresh = false;
    loop {
        let (at, hold) = way.hold(index, total).await?;
        index = at;
        way.attempt(&hold, &mut head.headers);
        let pool = &way.pool().http2;
        let place = match pool.place(hold.backend(), way.upstream.connect_timeout(), total, fresh).await {
            Ok(place) => place,
            Err(error) => {
                let error = hold.fail(error);
                match way.upstream.choose(way.affinity, Some(index)) {
                    Some(other) if !moved && error.retry() == Retry::Always => {
                        (index, moved) = (other, true);
                        continue;
                    }
                    _ => return Err(error),
                }
            }
        };
        let wait = Wait { limits, total, upload: upload.as_deref() };
        match exchange(place, Request::from_parts(head.clone(), body), wait).await {
            Ok((response, place)) => return answer(response, hold, place, upload, limits, total),
            // The connection had ended in the meantime, and has not taken a byte of it.
            Err(Unanswered { unsent: Some(unsent), .. }) if !fresh => {
                body = unsent.into_body();
                fresh = true;
            }
            Err(Unanswered { error, .. }) => return Err(hold.fail(error)),
        }
    }
}

/// Whether `backend` answers a GET for `path` on a connection of its own, and with which status.
pub(super) async fn probe(
    backend: &Backend,
    path: PathAndQuery,
    limit: std::time::Duration,
) -> Result<StatusCode, Error> {
    let place = Connections::default().place(backend, limit, None, true).await?;
    let (mut head, ()) = Request::new(()).into_parts();
    head.uri = Uri::from(path);
    address(&mut head, backend);
    let limits = Limits { response_head: limit, idle: limit, total: None, max_body: 0, min_body_rate: 0 };
    let request = Request::from_parts(head, Outgoing::new(Body::empty(), 0, None));
    let answered = exchange(place, request, Wait { limits: &limits, total: None, upload: None }).await;
    answered.map(|(response, _)| response.status()).map_err(|unanswered| unanswered.error)
}

/// The length that the body has, and nothing else about framing.
fn state_length(headers: &mut HeaderMap, method: &Method, length: Option<u64>) {
    headers.remove(TRANSFER_ENCODING);
    headers.remove(TRAILER);
    headers.remove(CONTENT_LENGTH);
    let expected = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    if let Some(length) = length.filter(|length| *length > 0 || expected) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    // We take trailers; gRPC refuses whoever does not say so.
    headers.insert(TE, HeaderValue::from_static("trailers"));
}

/// `:scheme` and `:authority` in place of `host` (RFC 9113, section 8.3.1).
fn address(head: &mut Parts, backend: &Backend) {
    let host = head.headers.remove(HOST);
    let asked = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if backend.is_https() { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(asked.unwrap_or_else(|| backend.authority().clone()));
    parts.path_and_query = Some(head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    if let Ok(uri) = Uri::from_parts(parts) {
        head.uri = uri;
    }
    head.version = Version::HTTP_2;
    // What the pipeline's steps left for each other is not the upstream connection's business.
    head.extensions.clear();
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

    /// When to look again. An upload that begins to wait for somebody else tells nobody, and whoever it waits for then may
    /// have the shorter time; but none that begins from now on can end before this.
    fn look(&self, start: Instant) -> Instant {
        let (due, _) = self.due(start);
        match self.upload {
            Some(_) => due.min(Instant::now() + self.limits.idle.min(self.limits.response_head)),
            None => due,
        }
    }
}

/// A request without an answer, and the request itself if nothing of it was sent.
struct Unanswered {
    error: Error,
    unsent: Option<Box<Request<Outgoing>>>,
}

/// Sends `request` and waits for the head of the answer.
async fn exchange(
    mut place: Place,
    request: Request<Outgoing>,
    wait: Wait<'_>,
) -> Result<(Response<Incoming>, Place), Unanswered> {
    let start = Instant::now();
    if let Some(upload) = wait.upload {
        upload.begin();
    }
    let mut answering = pin!(place.sender.try_send_request(request));
    let mut timer = pin!(sleep_until(wait.look(start)));
    let answered = poll_fn(|cx| {
        if let Poll::Ready(answered) = answering.as_mut().poll(cx) {
            return Poll::Ready(Ok(answered));
        }
        while timer.as_mut().poll(cx).is_ready() {
            let (due, error) = wait.due(start);
            if Instant::now() >= due {
                return Poll::Ready(Err(error));
            }
            timer.as_mut().reset(wait.look(start));
        }
        Poll::Pending
    })
    .await;
    match answered {
        Ok(Ok(response)) => Ok((response, place)),
        Ok(Err(mut failed)) => {
            let unsent = failed.take_message().map(Box::new);
            let cause = wait.upload.and_then(Upload::cause);
            Err(Unanswered {
                error: cause.unwrap_or_else(|| Error::Closed(io::Error::other(failed.into_error()))),
                unsent,
            })
        }
        Err(error) => Err(Unanswered { error, unsent: None }),
    }
}

/// Makes the upstream's answer ours.
fn answer(
    response: Response<Incoming>,
    hold: Hold,
    place: Place,
    upload: Option<Arc<Upload>>,
    limits: &Limits,
    total: Option<Instant>,
) -> Result<Response<Body>, Error> {
    let (mut head, body) = response.into_parts();
    hold.judged(!is_bad(head.status));
    let violation = if head.status.is_informational() {
        Some(Violation::UnaskedSwitch)
    } else if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        Some(Violation::Length)
    } else {
        None
    };
    if let Some(violation) = violation {
        return Err(hold.fail(Error::Protocol(violation)));
    }
    headers::clean(&mut head);
    if body.is_end_stream() {
        return Ok(Response::from_parts(head, Body::empty()));
    }
    Ok(Response::from_parts(head, Body::boxed(Answered::new(body, hold, place, upload, limits.idle, total))))
}
