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
use http::Method;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::{Error, Limits};
use crate::body::Body;

/// How the head states a body. It follows the body alone: what the client stated is not sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stated {
    /// Not at all.
    None,
    /// With its length.
    Length(u64),
    /// As one in chunks.
    Chunked,
}

impl Stated {
    /// Of a body of this length, sent by this method.
    pub(super) fn new(length: Option<u64>, method: &Method) -> Self {
        match length {
            // RFC 9110 section 8.6: stated only where a body is expected, so that its absence is seen to be meant.
            Some(0) if !matches!(*method, Method::POST | Method::PUT | Method::PATCH) => Self::None,
            Some(length) => Self::Length(length),
            None => Self::Chunked,
        }
    }
}

/// The body as it is sent.
#[derive(Debug)]
pub(super) struct RequestBody {
    inner: Body,
    /// How many more bytes are allowed.
    left: u64,
    /// `None` when the client is not waited for: there is no body, or all of it is at hand. Boxed, so that the many requests of
    /// which that is true do not carry the room for it.
    upload: Option<Box<Upload>>,
}

impl RequestBody {
    /// `body`, of which `most` bytes are allowed.
    ///
    /// # Errors
    /// [`Error::RequestBodyTooLarge`] when its stated length is over the limit; nothing has been sent then.
    pub(super) fn new(body: Body, most: u64) -> Result<Self, Error> {
        if body.size_hint().lower() > most {
            return Err(Error::RequestBodyTooLarge);
        }
        let watched = !body.is_at_hand() && !body.is_end_stream();
        Ok(Self { inner: body, left: most, upload: watched.then(|| Box::new(Upload::new())) })
    }

    /// No body.
    pub(super) const fn empty() -> Self {
        Self { inner: Body::empty(), left: 0, upload: None }
    }

    /// How far it is; `None` when the client is not waited for.
    pub(super) fn upload(&self) -> Option<&Upload> {
        self.upload.as_deref()
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
        let Some(upload) = &this.upload else {
            return Pin::new(&mut this.inner).poll_frame(cx).map_err(|_| Failed);
        };
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
        self.inner.is_end_stream()
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
    use super::*;

    #[test]
    fn the_framing_is_stated_by_the_body_alone() {
        assert_eq!(Stated::new(Some(0), &Method::GET), Stated::None);
        assert_eq!(Stated::new(Some(0), &Method::POST), Stated::Length(0));
        assert_eq!(Stated::new(Some(5), &Method::GET), Stated::Length(5));
        assert_eq!(Stated::new(None, &Method::GET), Stated::Chunked);
    }

    #[test]
    fn a_body_that_is_stated_to_be_too_large_is_not_begun() {
        assert!(RequestBody::new(Body::from("12345"), 5).is_ok());
        assert!(matches!(RequestBody::new(Body::from("12345"), 4), Err(Error::RequestBodyTooLarge)));
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
}
