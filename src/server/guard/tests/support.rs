//! A scripted client, and what a reader behind the guard sees of it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::*;

pub(super) const LIMITS: Limits =
    Limits { max_head: 512, max_uri: 64, head_timeout: Duration::from_secs(10), keep_alive: Duration::from_secs(75) };

/// Whether an answer is under way, for the test to set, and how many heads have passed.
#[derive(Debug, Clone, Default)]
pub(super) struct Flag {
    pub(super) busy: Rc<Cell<bool>>,
    pub(super) heads: Rc<Cell<usize>>,
    /// Every request is answered as soon as its head has passed.
    pub(super) at_once: bool,
    waker: Rc<RefCell<Option<Waker>>>,
}

impl Flag {
    /// The answer is over.
    pub(super) fn answered(&self) {
        self.busy.set(false);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Busy for Flag {
    fn is_busy(&self) -> bool {
        self.busy.get() && !self.at_once
    }

    fn set_busy(&self) {
        self.busy.set(true);
        self.heads.set(self.heads.get() + 1);
    }

    fn wake_when_answered(&self, waker: &Waker) {
        *self.waker.borrow_mut() = Some(waker.clone());
    }
}

/// A client whose every read is laid down; then it is gone, or there is nothing yet (an error, so that no timer starts).
#[derive(Debug)]
pub(super) struct Script {
    pub(super) reads: VecDeque<Vec<u8>>,
    pub(super) ends: bool,
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(mut read) = self.reads.pop_front() else {
            return Poll::Ready(if self.ends { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) });
        };
        let rest = read.split_off(read.len().min(buf.remaining()));
        if !rest.is_empty() {
            self.reads.push_front(rest);
        }
        buf.put_slice(&read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// All that came out of a guard, and how it stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) bytes: Vec<u8>,
    pub(super) ended: bool,
    pub(super) unread: bool,
}

/// Guards a client that sends these reads and closes, and whose requests are answered at once; the reader takes `room` bytes at a time.
pub(super) fn pass(reads: impl IntoIterator<Item = Vec<u8>>, room: usize) -> Seen {
    let reads = reads.into_iter().filter(|read| !read.is_empty()).collect();
    let mut guard = Guard::new(Script { reads, ends: true }, LIMITS, Flag { at_once: true, ..Flag::default() });
    drain(&mut guard, room)
}

/// Reads until the end or until nothing more comes.
pub(super) fn drain(guard: &mut Guard<Script, Flag>, room: usize) -> Seen {
    let mut bytes = Vec::new();
    let mut space = vec![0; room];
    loop {
        let mut buf = ReadBuf::new(&mut space);
        let mut parts = Parts::default();
        let ended = match guard.poll_read_parts(&mut Context::from_waker(Waker::noop()), &mut buf, &mut parts) {
            Poll::Ready(Ok(())) => buf.filled().is_empty(),
            Poll::Pending | Poll::Ready(Err(_)) => return Seen { bytes, ended: false, unread: guard.has_unread() },
        };
        if parts.len > 0 && parts.len <= buf.filled().len() {
            let mut again = Parts::default();
            assert_eq!(head::find(buf.filled(), &mut 0, LIMITS.max_uri, &mut again), Ok(Some(parts.len)));
            assert_eq!(format!("{parts:?}"), format!("{again:?}"), "the parts are those of what was handed over");
        }
        if ended {
            return Seen { bytes, ended: true, unread: guard.has_unread() };
        }
        bytes.extend_from_slice(buf.filled());
    }
}

/// The parts of `data` between these cuts.
pub(super) fn cut(data: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (data.len() + 1)).chain([0, data.len()]).collect();
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| data[pair[0]..pair[1]].to_vec()).collect()
}

/// What comes before a stand-in at the end, and which refusal it stands for.
pub(super) fn split_stand_in(bytes: &[u8]) -> (&[u8], Option<Refusal>) {
    let all = [
        Refusal::InvalidRequest,
        Refusal::UriTooLong,
        Refusal::HeadersTooLarge,
        Refusal::RequestTimeout,
        Refusal::NotImplemented,
        Refusal::VersionNotSupported,
    ];
    all.into_iter()
        .find_map(|refusal| Some((bytes.strip_suffix(refusal.stand_in())?, Some(refusal))))
        .unwrap_or((bytes, None))
}
