//! The bodies of HTTP/2 to upstreams, both ways, with their trailers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::super::patience::Patience;
use super::super::request_body::{Failed, Phase, Upload};
use super::super::response_body::Hold;
use super::super::silence::Silence;
use super::super::{Error, headers};
use super::connections::Place;
use crate::body::Body;

/// The client's body on its way: counted and watched.
#[derive(Debug)]
pub(super) struct Outgoing {
    inner: Body,
    /// How many more bytes are allowed.
    left: u64,
    /// `None` when there is no body.
    upload: Option<Arc<Upload>>,
}

impl Outgoing {
    pub(super) const fn new(inner: Body, max: u64, upload: Option<Arc<Upload>>) -> Self {
        Self { inner, left: max, upload }
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        let this = self.get_mut();
        let Some(upload) = &this.upload else { return Poll::Ready(None) };
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if polled.is_pending() {
            upload.enter(Phase::Client);
        }
        let frame = match ready!(polled) {
            None => {
                upload.enter(Phase::Done);
                return Poll::Ready(None);
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(upload.fail(Error::RequestBodyAborted(error))))),
            Some(Ok(frame)) => frame,
        };
        let Some(data) = frame.data_ref() else {
            upload.enter(Phase::Done);
            return Poll::Ready(Some(Ok(frame)));
        };
        let len = data.len() as u64;
        match this.left.checked_sub(len) {
            Some(left) => this.left = left,
            None => return Poll::Ready(Some(Err(upload.fail(Error::RequestBodyTooLarge)))),
        }
        upload.took(len);
        upload.enter(if this.inner.is_end_stream() { Phase::Done } else { Phase::Upstream });
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.upload.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The upstream's body, and the hold on its place until it ends.
#[derive(Debug)]
pub(super) struct Answered {
    inner: Incoming,
    /// `None` once the body has ended, in whichever way.
    hold: Option<(Hold, Place)>,
    upload: Option<Arc<Upload>>,
    silence: Silence,
    patience: Patience,
}

impl Answered {
    pub(super) fn new(
        inner: Incoming,
        hold: Hold,
        place: Place,
        upload: Option<Arc<Upload>>,
        idle: Duration,
        total: Option<Instant>,
    ) -> Self {
        let (silence, patience) = (Silence::new(idle, total), Patience::default());
        Self { inner, hold: Some((hold, place)), upload, silence, patience }
    }

    /// Ends it as broken. A failing upload takes the stream with it, and the answer: then that is the reason.
    fn broken(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some((hold, _)) = self.hold.take() else { return Poll::Ready(None) };
        let cause = self.upload.as_ref().and_then(|upload| upload.cause());
        Poll::Ready(Some(Err(hold.fail(cause.unwrap_or(error)))))
    }
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if this.hold.is_none() {
            return Poll::Ready(None);
        }
        let polled = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(polled) => polled,
            Poll::Pending => {
                return match this.silence.poll_over(cx, &mut this.patience) {
                    Poll::Ready(error) => this.broken(error),
                    Poll::Pending => Poll::Pending,
                };
            }
        };
        match polled {
            None => {
                this.hold = None;
                Poll::Ready(None)
            }
            Some(Err(error)) => this.broken(Error::ResponseBodyBroken(io::Error::other(error))),
            Some(Ok(mut frame)) => {
                if let Err(error) = this.silence.flows() {
                    return this.broken(error);
                }
                if let Some(trailers) = frame.trailers_mut() {
                    headers::strip(trailers);
                    this.hold = None;
                } else if this.inner.is_end_stream() {
                    // The last one: the server may never poll again.
                    this.hold = None;
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.hold.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
