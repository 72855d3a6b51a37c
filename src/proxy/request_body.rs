//! The client's body on its way to an upstream: counted, watched, without trailers.
//!
//! It has no timer. Until the response head is there, `exchange` waits with one timer for whatever is due, and asks the
//! [`Upload`] what that is; after the head, silence of the response decides, and its end also ends the upload.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRAILER, TRANSFER_ENCODING};
use http::{Method, Request, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::{Error, Limits};
use crate::body::Body;

/// Makes the request one that may be sent: body taken out and limited, framing stated by the body alone, our version.
///
/// # Errors
/// [`Error::RequestBodyTooLarge`] when its stated length is over the limit; nothing has been sent then.
pub(super) fn prepare(request: &mut Request<Body>, max_body: u64) -> Result<RequestBody, Error> {
    let body = std::mem::take(request.body_mut());
    let size = body.size_hint();
    if size.lower() > max_body {
        return Err(Error::RequestBodyTooLarge);
    }
    let empty = body.is_end_stream();
    let bodied = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    frame(request.headers_mut(), bodied, if empty { Some(0) } else { size.exact() });
    *request.version_mut() = Version::HTTP_11;
    // What the pipeline's steps left for each other is not the upstream connection's business.
    request.extensions_mut().clear();
    // `http://host/path` would be the form for a proxy; an upstream gets the origin form (RFC 9112 section 3.2.1).
    if request.uri().authority().is_some() {
        *request.uri_mut() = request.uri().path_and_query().cloned().map_or_else(Default::default, Into::into);
    }
    if empty {
        return Ok(RequestBody::empty());
    }
    Ok(RequestBody { inner: body, left: max_body, upload: Some(Upload::new()) })
}

/// States the framing of a body of `length`, in place of whatever the client stated; `bodied` methods are expected to have
/// one.
fn frame(headers: &mut HeaderMap, bodied: bool, length: Option<u64>) {
    headers.remove(TRANSFER_ENCODING);
    // Trailers are not passed on, so none are announced.
    headers.remove(TRAILER);
    match length {
        // RFC 9110 section 8.6: stated only where a body is expected, so that its absence is seen to be meant.
        Some(0) if !bodied => {
            headers.remove(CONTENT_LENGTH);
        }
        Some(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        None => {
            headers.remove(CONTENT_LENGTH);
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

/// The body as it is sent.
#[derive(Debug)]
pub(super) struct RequestBody {
    inner: Body,
    /// How many more bytes are allowed.
    left: u64,
    /// `None` when there is no body.
    upload: Option<Upload>,
}

impl RequestBody {
    /// No body.
    pub(super) const fn empty() -> Self {
        Self { inner: Body::empty(), left: 0, upload: None }
    }

    /// How far it is; `None` when there is no body.
    pub(super) const fn upload(&self) -> Option<&Upload> {
        self.upload.as_ref()
    }
}

/// The body failed; why stands in its [`Upload`].
#[derive(Debug, thiserror::Error)]
#[error("the request body failed")]
pub(super) struct Failed;

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        let this = self.get_mut();
        let Some(upload) = &this.upload else { return Poll::Ready(None) };
        let data = loop {
            let polled = Pin::new(&mut this.inner).poll_frame(cx);
            if polled.is_pending() {
                upload.enter(Phase::Client);
            }
            match ready!(polled) {
                None => {
                    upload.enter(Phase::Done);
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(upload.fail(Error::RequestBodyAborted(error))))),
                // A trailer is not forwarded: it could carry any header past the checks on the head.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        break data;
                    }
                }
            }
        };
        match this.left.checked_sub(data.len() as u64) {
            Some(left) => this.left = left,
            None => return Poll::Ready(Some(Err(upload.fail(Error::RequestBodyTooLarge)))),
        }
        upload.took(data.len() as u64);
        upload.enter(if this.inner.is_end_stream() { Phase::Done } else { Phase::Upstream });
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.upload.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Whom an upload waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The upstream, to take what it was given.
    Upstream = 0,
    /// The client, to send more.
    Client = 1,
    /// Nobody: all of it was handed over.
    Done = 2,
}

/// How far a request body is, for the one who waits for the answer.
#[derive(Debug)]
pub(super) struct Upload {
    start: Instant,
    /// Milliseconds from `start` to the last change, times four, plus the phase: one word, so that both are read at once.
    state: AtomicU64,
    /// Bytes that the client has sent, and milliseconds that it was waited for before the present wait.
    bytes: AtomicU64,
    waited: AtomicU64,
    /// Why it failed. Locked once by the failing body and once by the reader of the failure.
    cause: Mutex<Option<Error>>,
}

impl Upload {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            state: AtomicU64::new(Phase::Upstream as u64),
            bytes: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            cause: Mutex::new(None),
        }
    }

    /// Sending begins now; what it took to connect does not count.
    pub(super) fn begin(&self) {
        self.enter(Phase::Upstream);
    }

    pub(super) fn enter(&self, phase: Phase) {
        let before = self.state.load(Ordering::Relaxed);
        let was_client = before & 3 == Phase::Client as u64;
        // Being polled again while the client is silent is no progress.
        if phase == Phase::Client && was_client {
            return;
        }
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX >> 2);
        if was_client {
            self.waited.fetch_add(millis.saturating_sub(before >> 2), Ordering::Relaxed);
        }
        self.state.store(millis << 2 | phase as u64, Ordering::Relaxed);
    }

    pub(super) fn fail(&self, cause: Error) -> Failed {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
        Failed
    }

    /// The client has sent so many more bytes.
    pub(super) fn took(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Why the body failed, if it did.
    pub(super) fn cause(&self) -> Option<Error> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// When patience ends if nothing more happens, and with which error. The time for the answer runs only while the
    /// client is not the one who is waited for.
    pub(super) fn due(&self, limits: &Limits) -> (Instant, Error) {
        let state = self.state.load(Ordering::Relaxed);
        let since = self.start + Duration::from_millis(state >> 2);
        if state & 3 == Phase::Client as u64 {
            // A byte now and then would hold a connection of the service for ever: what was sent pays for the waiting.
            let bytes = self.bytes.load(Ordering::Relaxed);
            let left = match bytes.checked_div(limits.min_body_rate) {
                None => limits.idle,
                Some(secs) => {
                    let waited = Duration::from_millis(self.waited.load(Ordering::Relaxed));
                    limits.idle.min((limits.idle + Duration::from_secs(secs)).saturating_sub(waited))
                }
            };
            (since + left, Error::RequestBodyIdle)
        } else {
            (since + limits.response_head, Error::ResponseHeadTimeout)
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn prepared(method: Method, body: Body, lines: &[(&str, &str)]) -> HeaderMap {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body).unwrap();
        prepare(&mut request, 100).unwrap();
        std::mem::take(request.headers_mut())
    }

    #[test]
    fn the_framing_is_stated_by_the_body_alone() {
        let lies = [("content-length", "7"), ("transfer-encoding", "gzip"), ("trailer", "x")];
        let full = || Body::from("12345");
        let streamed = || Body::boxed(http_body_util::BodyExt::boxed_unsync(Unsized(Full::new(Bytes::from("12345")))));
        let get = prepared(Method::GET, Body::empty(), &lies);
        assert!(get.is_empty(), "{get:?}");
        assert_eq!(prepared(Method::POST, Body::empty(), &lies)[CONTENT_LENGTH], "0");
        let sized = prepared(Method::POST, full(), &lies);
        assert_eq!((sized.len(), &sized[CONTENT_LENGTH]), (1, &HeaderValue::from(5)));
        let chunked = prepared(Method::GET, streamed(), &lies);
        assert_eq!((chunked.len(), &chunked[TRANSFER_ENCODING]), (1, &HeaderValue::from_static("chunked")));
    }

    #[test]
    fn an_absolute_target_becomes_origin_form() {
        let mut request = Request::builder().uri("http://elsewhere/a?b").body(Body::empty()).unwrap();
        prepare(&mut request, 0).unwrap();
        assert_eq!(request.uri(), "/a?b");
    }

    #[test]
    fn the_time_for_the_answer_begins_when_sending_does() {
        let second = Duration::from_secs(1);
        let limits = Limits { response_head: second, idle: second, ..generous() };
        let start = Instant::now().checked_sub(5 * second).unwrap();
        let upload = Upload { start, ..Upload::new() };
        assert!(upload.due(&limits).0 < Instant::now());
        upload.begin();
        assert!(upload.due(&limits).0 > Instant::now());
    }

    #[test]
    fn a_client_that_trickles_uses_up_its_patience() {
        let mut limits = Limits { idle: Duration::from_secs(60), ..generous() };
        let start = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
        let trickle = |limits: &Limits, bytes: u64, waited: u64| {
            let state = AtomicU64::new(100_000 << 2 | Phase::Client as u64);
            let (bytes, waited) = (AtomicU64::new(bytes), AtomicU64::new(waited));
            let upload = Upload { start, state, bytes, waited, ..Upload::new() };
            upload.due(limits).0.duration_since(start) - Duration::from_secs(100)
        };
        assert_eq!(trickle(&limits, 0, 0), Duration::from_secs(60));
        assert_eq!(trickle(&limits, 2, 59_000), Duration::from_secs(1));
        assert_eq!(trickle(&limits, 2, 90_000), Duration::ZERO);
        assert_eq!(
            trickle(&limits, 1024 * 1024, 90_000),
            Duration::from_secs(60),
            "a slow upload that goes on is let go on"
        );
        limits.min_body_rate = 0;
        assert_eq!(trickle(&limits, 2, 90_000), Duration::from_secs(60), "no least rate");
    }

    fn generous() -> Limits {
        let minute = Duration::from_secs(60);
        Limits { response_head: minute, idle: minute, total: None, max_body: u64::MAX, min_body_rate: 1024 }
    }

    struct Unsized(Full<Bytes>);

    impl HttpBody for Unsized {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }
    }
}
