//! A request body between the connection that reads it and whoever uses it, which may be a task of another thread.
//!
//! Nothing is read before somebody asks, and one piece at a time: who does not take it stops the client.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::Body;
use crate::http1::receiving::{Framing, Next, Receiving};

/// RFC 9110, section 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Bytes of a body that nobody wanted which are read all the same, to keep the connection.
const UNWANTED: usize = 256 * 1024;

/// What both ends know. Locked for a few instructions, and by two threads only where the body went to another one.
#[derive(Debug, Default)]
struct Shared {
    piece: Option<Bytes>,
    end: Option<End>,
    /// The reader waits.
    wanted: bool,
    /// There is no reader any more.
    gone: bool,
    reader: Option<Waker>,
    source: Option<Waker>,
}

#[derive(Debug)]
enum End {
    Whole,
    Broken(io::Error),
}

#[derive(Debug, Default, Clone)]
struct Slot(Arc<Mutex<Shared>>);

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps `waker` in `place`, at no cost where it is there already.
fn keep(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(kept) if kept.will_wake(waker) => {}
        place => *place = Some(waker.clone()),
    }
}

/// The reader's end.
#[derive(Debug)]
struct Upload {
    slot: Slot,
    /// What is still to come of a stated length.
    left: Option<u64>,
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        let mut shared = this.slot.lock();
        if let Some(piece) = shared.piece.take() {
            this.left = this.left.map(|left| left.saturating_sub(piece.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match shared.end.replace(End::Whole) {
            Some(End::Whole) => return Poll::Ready(None),
            Some(End::Broken(error)) => return Poll::Ready(Some(Err(error))),
            None => shared.end = None,
        }
        shared.wanted = true;
        keep(&mut shared.reader, cx.waker());
        // The connection's own task looks after each poll whether something is wanted.
        let source = shared.source.take_if(|source| !source.will_wake(cx.waker()));
        drop(shared);
        if let Some(source) = source {
            source.wake();
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        if self.left == Some(0) {
            return true;
        }
        let shared = self.slot.lock();
        shared.piece.is_none() && matches!(shared.end, Some(End::Whole))
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut shared = self.slot.lock();
        shared.gone = true;
        shared.piece = None;
    }
}

/// The connection's end.
#[derive(Debug)]
pub(super) struct Feed {
    slot: Slot,
    receiving: Receiving,
    /// What the client waits for before it sends.
    interim: &'static [u8],
}

/// What [`Feed::poll`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fed {
    /// The reader has something to read.
    Piece,
    /// The body is whole, and the reader knows.
    Whole,
    /// It broke off, and the reader knows.
    Broken,
}

/// The body of a request, of which `rest` came with the head, and who feeds it unless all of it is there.
pub(super) fn body(framing: Framing, mut rest: Bytes, expects: bool) -> (Body, Result<Feed, Bytes>) {
    let left = match framing {
        Framing::Length(length) if length <= rest.len() as u64 => {
            let behind = rest.split_off(usize::try_from(length).unwrap_or(rest.len()));
            return (Body::from(rest), Err(behind));
        }
        Framing::Length(length) => Some(length),
        Framing::Chunked(_) | Framing::Close => None,
    };
    let slot = Slot::default();
    let interim = if expects && rest.is_empty() { CONTINUE } else { b"" };
    let feed = Feed { slot: slot.clone(), receiving: Receiving::new(framing, rest), interim };
    (Body::boxed(Upload { slot, left }), Ok(feed))
}

impl Feed {
    /// Reads a piece, if the reader waits for one.
    pub(super) fn poll<S>(&mut self, cx: &mut Context<'_>, stream: &mut S) -> Poll<Fed>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        {
            let mut shared = self.slot.lock();
            if shared.gone {
                return Poll::Pending;
            }
            keep(&mut shared.source, cx.waker());
            if !shared.wanted {
                return Poll::Pending;
            }
        }
        let fed = match ready!(self.poll_next(cx, stream)) {
            Ok(Some(piece)) => {
                let mut shared = self.slot.lock();
                shared.piece = Some(piece);
                if self.receiving.is_over() {
                    shared.end = Some(End::Whole);
                    Fed::Whole
                } else {
                    Fed::Piece
                }
            }
            Ok(None) => {
                self.slot.lock().end = Some(End::Whole);
                Fed::Whole
            }
            Err(error) => {
                self.slot.lock().end = Some(End::Broken(error));
                Fed::Broken
            }
        };
        let mut shared = self.slot.lock();
        shared.wanted = false;
        let reader = shared.reader.take_if(|reader| !reader.will_wake(cx.waker()));
        drop(shared);
        if let Some(reader) = reader {
            reader.wake();
        }
        Poll::Ready(fed)
    }

    fn poll_next<S>(&mut self, cx: &mut Context<'_>, stream: &mut S) -> Poll<io::Result<Option<Bytes>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            match self.receiving.next()? {
                Next::Data(piece) => return Poll::Ready(Ok(Some(piece))),
                Next::Over => return Poll::Ready(Ok(None)),
                Next::More => {
                    while !self.interim.is_empty() {
                        let written = ready!(Pin::new(&mut *stream).poll_write(cx, self.interim))?;
                        self.interim = &self.interim[written..];
                        ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                    }
                    ready!(self.receiving.poll_read(cx, stream))?;
                }
            }
        }
    }

    /// The final answer begins: who waits for 100 has it now. What has to go out before it: the rest of a 100 that the socket
    /// had no room for.
    pub(super) fn answer_begins(&mut self) -> &'static [u8] {
        let interim = std::mem::take(&mut self.interim);
        if interim.len() == CONTINUE.len() { b"" } else { interim }
    }

    /// Reads, without waiting, what is left of a body that is not wanted. What came behind it, if it is whole then.
    pub(super) fn skip<S: AsyncRead + Unpin>(mut self, cx: &mut Context<'_>, stream: &mut S) -> Option<Bytes> {
        let mut skipped = 0;
        while skipped < UNWANTED {
            match self.receiving.next().ok()? {
                Next::Data(piece) => skipped += piece.len(),
                Next::Over => return Some(self.receiving.into_rest()),
                Next::More => match self.receiving.poll_read(cx, stream) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) | Poll::Pending => return None,
                },
            }
        }
        None
    }

    /// What came behind the body, which is whole.
    pub(super) fn into_rest(self) -> Bytes {
        self.receiving.into_rest()
    }
}
