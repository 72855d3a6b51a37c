//! One direction of a tunnel.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::Stream;
use super::frames::Frames;

/// Most bytes of one read. They lie on the stack, so that a direction at rest has no buffer.
const CHUNK: usize = 16 * 1024;

/// Reads in a row before others get their turn.
const TURNS: usize = 16;

/// Which side of a direction broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It cannot be read from.
    Source,
    /// It cannot be written to.
    Sink,
}

/// From one stream to the other.
#[derive(Debug)]
pub(super) struct Way {
    /// Read, and not yet taken by the other side from `sent` on.
    waiting: Vec<u8>,
    sent: usize,
    /// Bytes that the other side took.
    pub(super) moved: u64,
    /// Since when the other side takes nothing.
    pub(super) stalled: Option<Instant>,
    /// The source has ended.
    pub(super) over: bool,
    /// The other side has been told so.
    pub(super) shut: bool,
    unflushed: bool,
    /// Follows what the other side took, when it is frames.
    pub(super) frames: Option<Frames>,
}

impl Way {
    /// With `early`, which was read before.
    pub(super) fn new(early: Vec<u8>, frames: Option<Frames>) -> Self {
        Self { waiting: early, sent: 0, moved: 0, stalled: None, over: false, shut: false, unflushed: false, frames }
    }

    /// Moves what can be moved. Ready when the source has ended and the other side knows it.
    pub(super) fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl Stream + ?Sized),
        to: &mut (impl Stream + ?Sized),
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..TURNS {
            if self.shut {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_waiting(cx, to, usize::MAX)).map_err(|_| Broken::Sink)?;
            if self.over {
                // A side that is gone already needs not be told.
                let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.shut = true;
                continue;
            }
            match self.poll_read(cx, from, to) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(|_| Broken::Sink)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves on to the end of the frame that has begun, and not beyond it. Ready with whether that was reached.
    pub(super) fn poll_boundary(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl Stream + ?Sized),
        to: &mut (impl Stream + ?Sized),
    ) -> Poll<bool> {
        loop {
            let Some(frames) = &self.frames else { return Poll::Ready(false) };
            if frames.at_boundary() {
                return Poll::Ready(true);
            }
            if self.waiting.is_empty() {
                if self.over || !matches!(ready!(self.poll_fill(cx, from)), Ok(())) {
                    return Poll::Ready(false);
                }
                continue;
            }
            let left = frames.rest_of_frame(&self.waiting[self.sent..]);
            if ready!(self.poll_waiting(cx, to, left)).is_err() {
                return Poll::Ready(false);
            }
        }
    }

    /// Gives up what is on its way.
    pub(super) fn abandon(&mut self) {
        self.waiting = Vec::new();
        (self.over, self.shut, self.stalled) = (true, true, None);
    }

    /// Reads once, and passes on what can be passed on at once.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl Stream + ?Sized),
        to: &mut (impl Stream + ?Sized),
    ) -> Poll<Result<(), Broken>> {
        let mut space = [MaybeUninit::<u8>::uninit(); CHUNK];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(from).poll_read(cx, &mut buf)).map_err(|_| Broken::Source)?;
        let data = buf.filled();
        if data.is_empty() {
            self.over = true;
            return Poll::Ready(Ok(()));
        }
        let taken = match Pin::new(to).poll_write(cx, data) {
            Poll::Ready(written) => self.took(data, written).map_err(|_| Broken::Sink)?,
            Poll::Pending => {
                self.stalled = Some(Instant::now());
                0
            }
        };
        if taken < data.len() {
            self.waiting = data[taken..].to_vec();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and keeps it.
    fn poll_fill(&mut self, cx: &mut Context<'_>, from: &mut (impl Stream + ?Sized)) -> Poll<io::Result<()>> {
        let mut space = [MaybeUninit::<u8>::uninit(); CHUNK];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(from).poll_read(cx, &mut buf))?;
        self.over = buf.filled().is_empty();
        self.waiting = buf.filled().to_vec();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Writes what waits, at most `most` bytes of it.
    fn poll_waiting(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl Stream + ?Sized),
        mut most: usize,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.waiting.len() && most > 0 {
            let waiting = std::mem::take(&mut self.waiting);
            let end = self.sent.saturating_add(most).min(waiting.len());
            let polled = Pin::new(&mut *to).poll_write(cx, &waiting[self.sent..end]);
            let written = match polled {
                Poll::Ready(written) => Some(self.took(&waiting[self.sent..end], written)),
                Poll::Pending => None,
            };
            self.waiting = waiting;
            match written {
                Some(taken) => {
                    let taken = taken?;
                    self.sent += taken;
                    most -= taken;
                }
                None => {
                    self.stalled.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            }
        }
        if self.sent == self.waiting.len() {
            (self.waiting, self.sent) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes note of a write of `data`: how much of it was taken.
    fn took(&mut self, data: &[u8], written: io::Result<usize>) -> io::Result<usize> {
        let taken = written?;
        if taken == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if let Some(frames) = &mut self.frames {
            frames.feed(&data[..taken]);
        }
        self.moved += taken as u64;
        self.stalled = None;
        self.unflushed = true;
        Ok(taken)
    }
}
