//! The upstream's body on its way to the client, and the hold on its connection until it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::Error;
use super::admission::Admission;
use super::backend::Backend;
use super::connection::Connection;
use super::error::Fault;
use super::pool::Pool;
use super::queue::Room;
use super::sending::{Sending, Stopped};
use super::silence::Silence;
use crate::http1::receiving::{Next, Receiving};

/// One attempt's hold on a backend, and on a connection once it has one. Dropped before [`Hold::release`], it closes the
/// connection: whatever is still to come on it belongs to nobody.
#[derive(Debug)]
pub(super) struct Hold {
    pool: Arc<Pool>,
    backend: Arc<Backend>,
    /// In a box, which goes from hand to hand as long as the connection lives.
    pub(super) connection: Option<Box<Connection>>,
    /// The request, while it is still being sent.
    pub(super) sending: Option<Box<Sending>>,
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
        Self { pool, backend, connection: None, sending: None, reusable: false, admitted: None }
    }

    /// As [`Hold::new`], of a request that was counted in with its `room`.
    pub(super) fn admitted(pool: &Arc<Pool>, room: Room, by: &Arc<Admission>) -> Self {
        room.backend.counts.requests.fetch_add(1, Ordering::Relaxed);
        let (pool, backend) = (Arc::clone(pool), Arc::clone(&room.backend));
        let admitted = Some((Arc::clone(by), room));
        Self { pool, backend, connection: None, sending: None, reusable: false, admitted }
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

    /// The answer ended cleanly: its connection is kept, unless the head forbade it, more came than the answer, or the
    /// upload has not ended. An upload that outlives its answer would still be read from this connection as if it were the
    /// next request's. It is idle since `since`, or not for as long.
    pub(super) fn release(mut self, received: &Receiving, since: Instant) {
        let clean = self.reusable && self.sending.is_none() && !received.has_excess();
        if let Some(connection) = self.connection.take_if(|_| clean) {
            self.pool.put(&self.backend, connection, since);
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
    pub(super) receiving: Receiving,
    /// `None` once the body has ended, in whichever way.
    pub(super) hold: Option<Hold>,
    pub(super) silence: Silence,
    /// Why it broke off, to be told by the next poll.
    pub(super) failed: Option<Error>,
}

impl ResponseBody {
    /// Ends it as broken: the client must not take what it has for the whole (RFC 9112 section 8). It is told one poll
    /// later, because a server throws away what it has not written yet when it hears of it: the client shall have what came.
    fn broken(&mut self, cx: &Context<'_>, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.failed = self.hold.take().map(|hold| hold.fail(error));
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn release(&mut self) {
        if let Some(hold) = self.hold.take() {
            hold.release(&self.receiving, Instant::now());
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
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let Some(hold) = &mut this.hold else { return Poll::Ready(None) };
            let Some(connection) = &mut hold.connection else { return Poll::Ready(None) };
            if let Some(sending) = &mut hold.sending {
                match sending.poll(cx, connection) {
                    Poll::Ready(Ok(())) => hold.sending = None,
                    // A failing upload takes the connection with it, and so the answer.
                    Poll::Ready(Err(Stopped::Body(error))) => return this.broken(cx, error),
                    Poll::Ready(Err(Stopped::Connection(error) | Stopped::Untouched(error))) => {
                        return this.broken(cx, Error::ResponseBodyBroken(error));
                    }
                    Poll::Pending => {}
                }
            }
            match this.receiving.next() {
                Ok(Next::Data(data)) => {
                    if let Err(error) = this.silence.flows() {
                        return this.broken(cx, error);
                    }
                    // The last one: the server may never poll again.
                    if this.receiving.is_over() {
                        this.release();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Next::Over) => {
                    this.release();
                    return Poll::Ready(None);
                }
                Ok(Next::More) => match this.receiving.poll_read(cx, &mut connection.tcp) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return this.broken(cx, Error::ResponseBodyBroken(error)),
                    Poll::Pending => {
                        return match this.silence.poll_over(cx, &mut connection.patience) {
                            Poll::Ready(error) => this.broken(cx, error),
                            Poll::Pending => Poll::Pending,
                        };
                    }
                },
                Err(error) => return this.broken(cx, Error::ResponseBodyBroken(error)),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.hold.is_none() && self.failed.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, |first| first.len() as u64);
        let mut hint = self.receiving.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + first);
        }
        hint.set_lower(hint.lower() + first);
        hint
    }
}
