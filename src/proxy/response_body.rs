//! The upstream's body on its way to the client, and the hold on its connection until it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::Error;
use super::admission::Admission;
use super::backend::Backend;
use super::connection::Connection;
use super::error::Fault;
use super::pool::Pool;
use super::queue::Room;
use super::request_body::Upload;
use super::silence::Silence;

/// One attempt's hold on a backend, and on a connection once it has one. Dropped before [`Hold::release`], it closes the
/// connection: whatever is still to come on it belongs to nobody.
#[derive(Debug)]
pub(super) struct Hold {
    pool: Arc<Pool>,
    backend: Arc<Backend>,
    pub(super) connection: Option<Connection>,
    /// The request body, where there is one.
    pub(super) upload: Option<Arc<Upload>>,
    /// Whether the response head allows another request on this connection.
    pub(super) reusable: bool,
    /// Where the upstream has limits: what let this request in, and its room, given back with the hold.
    admitted: Option<(Arc<Admission>, Room)>,
}

impl Hold {
    /// Counts a request in.
    pub(super) fn new(pool: &Arc<Pool>, backend: &Arc<Backend>) -> Self {
        backend.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        backend.counts.requests.fetch_add(1, Ordering::Relaxed);
        let (pool, backend) = (Arc::clone(pool), Arc::clone(backend));
        Self { pool, backend, connection: None, upload: None, reusable: false, admitted: None }
    }

    /// As [`Hold::new`], of a request that was counted in with its `room`.
    pub(super) fn admitted(pool: &Arc<Pool>, room: Room, by: &Arc<Admission>) -> Self {
        room.backend.counts.requests.fetch_add(1, Ordering::Relaxed);
        let (pool, backend) = (Arc::clone(pool), Arc::clone(&room.backend));
        let admitted = Some((Arc::clone(by), room));
        Self { pool, backend, connection: None, upload: None, reusable: false, admitted }
    }

    /// The backend's answer was good, or it has failed.
    pub(super) fn judged(&self, good: bool) {
        if good {
            self.backend.answered()
        } else {
            self.backend.failed()
        }
        if let Some((admission, _)) = &self.admitted {
            admission.judged(good);
        }
    }

    /// The backend held.
    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The answer ended cleanly: its connection is kept, unless the head forbade it or the upload has not ended. An upload
    /// that outlives its answer would still be read from this connection as if it were the next request's.
    pub(super) fn release(mut self) {
        let done = self.upload.as_ref().is_none_or(|upload| upload.is_done());
        if let Some(connection) = self.connection.take_if(|_| self.reusable && done) {
            self.pool.put(&self.backend, connection);
        }
    }

    /// The attempt failed: counted if it was the upstream's fault.
    pub(super) fn fail(self, error: Error) -> Error {
        if error.fault() == Fault::Upstream {
            self.backend.counts.failures.fetch_add(1, Ordering::Relaxed);
            // The whole time may as well have been spent by the client.
            if !matches!(error, Error::TotalTimeout) {
                self.judged(false);
            }
        }
        error
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Room counts itself out.
        if self.admitted.is_none() {
            self.backend.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A body that had not ended when its head was passed on.
#[derive(Debug)]
pub(super) struct ResponseBody {
    /// Came together with the head.
    pub(super) first: Option<Bytes>,
    pub(super) rest: Incoming,
    /// `None` once the body has ended, in whichever way.
    pub(super) hold: Option<Hold>,
    pub(super) silence: Silence,
}

impl ResponseBody {
    /// Ends it as broken: the client must not take what it has for the whole (RFC 9112 section 8).
    fn broken(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(hold) = self.hold.take() else { return Poll::Ready(None) };
        // A failing upload takes the connection with it, and the answer: then that is the reason.
        let cause = hold.upload.as_ref().and_then(|upload| upload.cause());
        Poll::Ready(Some(Err(hold.fail(cause.unwrap_or(error)))))
    }

    fn release(&mut self) {
        if let Some(hold) = self.hold.take() {
            hold.release();
        }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if this.hold.is_none() {
            return Poll::Ready(None);
        }
        loop {
            match Pin::new(&mut this.rest).poll_frame(cx) {
                Poll::Pending => {
                    return match this.silence.poll_over(cx) {
                        Poll::Ready(error) => this.broken(error),
                        Poll::Pending => Poll::Pending,
                    };
                }
                Poll::Ready(None) => {
                    this.release();
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(error))) => return this.broken(Error::ResponseBodyBroken(error)),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Err(error) = this.silence.flows() {
                        return this.broken(error);
                    }
                    // Trailers are not passed on: the client did not ask for them (RFC 9110 section 6.5.1).
                    if let Ok(data) = frame.into_data() {
                        // The last one: the server may never poll again.
                        if this.rest.is_end_stream() {
                            this.release();
                        }
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.hold.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, |first| first.len() as u64);
        let mut hint = self.rest.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + first);
        }
        hint.set_lower(hint.lower() + first);
        hint
    }
}
