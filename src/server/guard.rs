//! The stream between a client's socket and who reads HTTP from it: passes only bytes that can be read in one way, and keeps time.
//!
//! Each request head is withheld until it is complete and [`head::find`] has accepted it; bodies are followed to their
//! end ([`chunked::Scanner`]), so that the next head is found where every parser finds it. In the common case, a head
//! that arrives in one read, nothing is copied. On a refusal the reader gets a stand-in head ([`Refusal::stand_in`])
//! and then silence: the answer to it closes the connection. (The end of the stream would be a client that has gone.)
//! A body that breaks its framing ends the stream at the break.
//!
//! Behind a head that asks for an upgrade nothing is passed on before the answer: if it is a 101, whoever takes over the
//! stream gets what was read ([`Guard::into_parts`]); else it is looked at as ever.
//!
//! Time: a head must be complete `head_timeout` after its first byte (after the accept, for the first); an idle
//! connection ends after `keep_alive`; a client that does not read its answer for [`WRITE_STALL`] is cut off. Silence in
//! a body is judged where the body is read.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::http1::chunked;

use super::head::{self, Framing, Parts, Refusal};

/// How long a client may leave its answer unread. Long enough for a phone in a lift, short enough that slow readers
/// cannot hold memory for ever.
pub(crate) const WRITE_STALL: Duration = Duration::from_secs(60);

/// How much of what a client still sends after its last answer is read and thrown away, and for how long. Closing with
/// unread bytes makes the kernel reset the connection, and the client may lose the answer (RFC 9112, section 9.6).
const LINGER_BYTES: usize = 256 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// What a guard allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_head: usize,
    pub(crate) max_uri: usize,
    pub(crate) head_timeout: Duration,
    pub(crate) keep_alive: Duration,
}

/// Whether an answer is under way on this connection; then silence from the client is patience, not idleness.
pub(crate) trait Busy {
    /// An answer is under way.
    fn is_busy(&self) -> bool;
    /// One more head has passed, so that one more answer is due.
    fn set_busy(&self);
    /// Wakes this one when an answer is over. Reads that were told to wait are asked again then.
    fn wake_when_answered(&self, waker: &Waker);
}

/// The guarded stream.
#[derive(Debug)]
pub(crate) struct Guard<S, B> {
    stream: S,
    limits: Limits,
    busy: B,
    at: At,
    /// A head that is not complete yet; the reader has seen none of it.
    held: Vec<u8>,
    /// How far `held` was looked through for line ends.
    scanned: usize,
    /// Bytes for the reader that did not come straight from the socket, and how many it has taken.
    ready: Vec<u8>,
    taken: usize,
    /// When the client must have sent something: the end of the head, or the next head.
    due: Option<Instant>,
    /// Whether `due` was set for an incomplete head.
    in_head: bool,
    read_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    /// The gentle end, once it has begun: how much may still be thrown away, and until when.
    linger: Option<(usize, Pin<Box<Sleep>>)>,
}

#[derive(Debug)]
enum At {
    /// Nothing was looked at yet, and some was read by somebody else.
    Opened,
    Head,
    Body(u64),
    Chunked(chunked::Scanner),
    /// The client asked for an upgrade, and has no answer yet. What it sends is held.
    Upgrading,
    /// Nothing more is read; the reader has the stand-in, whose answer closes the connection.
    Refused,
    /// Nothing more is read, and the reader is told so: the client is late, or a body broke its framing.
    Over,
}

/// What [`Guard::examine`] made of some bytes.
struct Examined {
    /// So many of them may pass.
    pass: usize,
    /// The rest is: an incomplete head to hold (`None`), or refused.
    refusal: Option<Refusal>,
    /// A body broke its framing after `pass`.
    broken: bool,
}

impl<S, B: Busy> Guard<S, B> {
    /// Guards `stream`, accepted just now.
    pub(crate) fn new(stream: S, limits: Limits, busy: B) -> Self {
        Self {
            stream,
            limits,
            busy,
            at: At::Head,
            held: Vec::new(),
            scanned: 0,
            ready: Vec::new(),
            taken: 0,
            due: Some(Instant::now() + limits.head_timeout),
            in_head: true,
            read_timer: None,
            write_timer: None,
            linger: None,
        }
    }

    /// The stream was accepted at `accepted`, and `read` is what has been read of it.
    pub(super) fn after(mut self, read: Vec<u8>, accepted: Instant) -> Self {
        if !read.is_empty() {
            (self.held, self.at) = (read, At::Opened);
        }
        self.due = Some(accepted + self.limits.head_timeout);
        self
    }

    /// Whether the client may still be sending what nobody will read.
    pub(super) fn has_unread(&self) -> bool {
        !matches!(self.at, At::Head | At::Upgrading) || !self.held.is_empty()
    }

    /// How much of `data` may pass. The parts of a head at its very start are put into `parts`.
    fn examine(&mut self, data: &[u8], parts: &mut Parts) -> Examined {
        let mut pass = 0;
        let mut scrap = Parts::default();
        while pass < data.len() {
            let rest = &data[pass..];
            match &mut self.at {
                At::Head => match self.next_head(rest, if pass == 0 { &mut *parts } else { &mut scrap }) {
                    Ok(Some(len)) => pass += len,
                    Ok(None) => break,
                    Err(refusal) => return Examined { pass, refusal: Some(refusal), broken: false },
                },
                At::Body(left) => {
                    let take = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    pass += take;
                    *left -= take as u64;
                    if *left == 0 {
                        self.at = At::Head;
                    }
                }
                At::Chunked(scanner) => match scanner.feed(rest) {
                    Ok((len, over)) => {
                        pass += len;
                        if over {
                            self.at = At::Head;
                        }
                    }
                    Err(chunked::Broken { after }) => {
                        return Examined { pass: pass + after, refusal: None, broken: true };
                    }
                },
                At::Opened | At::Upgrading | At::Refused | At::Over => break,
            }
        }
        Examined { pass, refusal: None, broken: false }
    }

    /// A complete head at the start of `data`, checked: its length. `None` when it is incomplete.
    fn next_head(&mut self, data: &[u8], parts: &mut Parts) -> Result<Option<usize>, Refusal> {
        if data == b"\r" {
            return Ok(None);
        }
        // Nothing behind the limit is looked at, so that it does not matter how much of it came with this read. The empty
        // line before a head does not count.
        let skip = if data.starts_with(b"\r\n") { 2 } else { 0 };
        let within = &data[..data.len().min(self.limits.max_head.saturating_add(skip))];
        let Some(len) = head::find(within, &mut self.scanned, self.limits.max_uri, parts)? else {
            return if data.len() > within.len() { Err(self.too_large(&within[skip..])) } else { Ok(None) };
        };
        self.at = match parts.framing {
            Framing::Length(0) => At::Head,
            Framing::Length(n) => At::Body(n),
            Framing::Chunked => At::Chunked(chunked::Scanner::new()),
            Framing::Upgrade => At::Upgrading,
        };
        self.due = None;
        self.in_head = false;
        self.busy.set_busy();
        Ok(Some(len))
    }

    /// A head over the limit whose first line does not end is a target over its limit.
    fn too_large(&self, data: &[u8]) -> Refusal {
        match memchr::memchr(b'\n', data) {
            Some(at) if at <= self.limits.max_uri + 64 => Refusal::HeadersTooLarge,
            _ => Refusal::UriTooLong,
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.at = At::Refused;
        self.held = Vec::new();
        self.due = None;
        self.busy.set_busy();
        self.ready.extend_from_slice(refusal.stand_in());
    }

    /// Takes what was read into `buf` after `before`, and leaves there what may pass.
    fn admit(&mut self, buf: &mut ReadBuf<'_>, before: usize, parts: &mut Parts) {
        if self.held.is_empty() {
            let examined = self.examine(&buf.filled()[before..], parts);
            let pass = before + examined.pass;
            if examined.refusal.is_none() && !examined.broken && pass < buf.filled().len() {
                self.held.extend_from_slice(&buf.filled()[pass..]);
            }
            buf.set_filled(pass);
            self.settle(&examined);
        } else {
            let mut data = std::mem::take(&mut self.held);
            data.extend_from_slice(&buf.filled()[before..]);
            buf.set_filled(before);
            let examined = self.examine(&data, parts);
            let goes_on = examined.refusal.is_none() && !examined.broken;
            if goes_on && examined.pass == 0 {
                self.held = data;
            } else {
                if goes_on {
                    self.held.extend_from_slice(&data[examined.pass..]);
                }
                data.truncate(examined.pass);
                self.ready = data;
            }
            self.settle(&examined);
        }
    }

    fn settle(&mut self, examined: &Examined) {
        if let Some(refusal) = examined.refusal {
            self.refuse(refusal);
        } else if examined.broken {
            self.at = At::Over;
        } else if self.held.is_empty() {
            self.scanned = 0;
        } else if !self.in_head && matches!(self.at, At::Head) {
            self.in_head = true;
            self.due = Some(Instant::now() + self.limits.head_timeout);
        }
    }

    /// What was held is to be looked at: it was read by somebody else, or the answer to a head that asked for an upgrade was
    /// not a 101, so that it is HTTP after all.
    fn resume(&mut self, parts: &mut Parts) {
        self.at = At::Head;
        let mut data = std::mem::take(&mut self.held);
        let examined = self.examine(&data, parts);
        if examined.refusal.is_none() && !examined.broken {
            self.held.extend_from_slice(&data[examined.pass..]);
        }
        data.truncate(examined.pass);
        self.ready = data;
        self.settle(&examined);
    }

    /// The stream, and what was read of it and not passed on. For whoever takes over after an upgrade.
    pub(crate) fn into_parts(self) -> (S, Vec<u8>) {
        let mut unread = self.ready;
        unread.drain(..self.taken);
        unread.extend_from_slice(&self.held);
        (self.stream, unread)
    }

    /// Hands over what is ready; false when there is nothing.
    fn hand_over(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.taken == self.ready.len() {
            return false;
        }
        let take = buf.remaining().min(self.ready.len() - self.taken);
        buf.put_slice(&self.ready[self.taken..self.taken + take]);
        self.taken += take;
        if self.taken == self.ready.len() {
            self.ready = Vec::new();
            self.taken = 0;
        }
        true
    }

    /// The socket has nothing: is the client late? The timer is not moved at every request; it is let fire and then set
    /// to what is due by then.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An answer that is made but not yet taken by the client is under way too; `WRITE_STALL` watches over it.
        let answering = self.busy.is_busy() || self.write_timer.is_some();
        if !matches!(self.at, At::Head) || (answering && !self.in_head) {
            return Poll::Pending;
        }
        let due = *self.due.get_or_insert_with(|| Instant::now() + self.limits.keep_alive);
        let timer = self.read_timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

impl<S: AsyncRead + Unpin, B: Busy + Unpin> AsyncRead for Guard<S, B> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_read_parts(cx, buf, &mut Parts::default())
    }
}

impl<S: AsyncRead + Unpin, B: Busy> Guard<S, B> {
    /// Reads into `buf`, which is empty. If what it gets begins with a head, the head's parts are put into `parts`; the head may
    /// be longer than what `buf` had room for.
    pub(super) fn poll_read_parts(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        parts: &mut Parts,
    ) -> Poll<io::Result<()>> {
        let this = self;
        parts.clear();
        loop {
            if this.hand_over(buf) {
                return Poll::Ready(Ok(()));
            }
            match this.at {
                At::Refused => return Poll::Pending,
                // Unexpected inside a body, which the reader then reports as broken off; the end of the stream otherwise.
                At::Over => return Poll::Ready(Ok(())),
                At::Opened => {
                    this.resume(parts);
                    continue;
                }
                At::Upgrading if !this.busy.is_busy() => {
                    this.resume(parts);
                    continue;
                }
                At::Upgrading => return this.poll_hold(cx, buf),
                At::Head | At::Body(_) | At::Chunked(_) => {}
            }
            let before = buf.filled().len();
            match Pin::new(&mut this.stream).poll_read(cx, buf) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    ready!(this.poll_late(cx));
                    if this.in_head && !this.held.is_empty() && this.held != b"\r" && this.held != b"\r\n" {
                        this.refuse(Refusal::RequestTimeout);
                        continue;
                    }
                    // Nothing was asked: the connection just ends.
                    this.at = At::Over;
                    return Poll::Ready(Ok(()));
                }
            }
            if buf.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            this.admit(buf, before, parts);
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + Unpin, B: Busy> Guard<S, B> {
    /// Waits for an answer, and notices a client that goes away meanwhile. What it sends is held, up to the limit of a
    /// head; then it has to wait.
    fn poll_hold(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.busy.wake_when_answered(cx.waker());
        let before = buf.filled().len();
        while self.held.len() < self.limits.max_head {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            if buf.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            self.held.extend_from_slice(&buf.filled()[before..]);
            buf.set_filled(before);
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin, B> Guard<S, B> {
    /// Applies [`WRITE_STALL`] to the outcome of a write.
    fn stalled<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.write_timer = None;
            return outcome;
        }
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_STALL)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, B: Busy + Unpin> AsyncWrite for Guard<S, B> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(cx, data);
        this.stalled(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, data);
        this.stalled(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    /// Ends the writing side, and reads on for a moment what the client is still sending.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.has_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        let (left, timer) =
            this.linger.get_or_insert_with(|| (LINGER_BYTES, Box::pin(sleep_until(Instant::now() + LINGER))));
        let mut scrap = [0; 8 * 1024];
        loop {
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() && *left > 0 => *left = left.saturating_sub(buf.filled().len()),
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
