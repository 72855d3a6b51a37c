//! The line of requests that wait for a server with room, where an upstream limits how many one may have.
//!
//! It is short and has a deadline: a request that would wait for longer than its client does is better refused at once.
//! Whoever is done hands the room over to the first in line, so that nobody who comes later is served before.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Error;
use super::backend::Backend;
use super::circuit::Circuit;

/// One for the process and each upstream; outlives a reload.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Those that wait; raised before they look for room for the last time, so that whoever makes room sees them.
    waiting: AtomicUsize,
    /// First come, first served. May hold some that have given up.
    waiters: Mutex<VecDeque<oneshot::Sender<Room>>>,
    queued: AtomicU64,
    full: AtomicU64,
    late: AtomicU64,
}

/// What a line has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFigures {
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that have had to wait.
    pub queued: u64,
    /// Requests refused because too many waited.
    pub full: u64,
    /// Requests that waited in vain.
    pub late: u64,
}

/// Room for one request at a server, counted there. Dropped, it goes to the first in line.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) backend: Arc<Backend>,
    /// How many the server may have.
    most: usize,
    line: Arc<Line>,
    /// Counted in there as well.
    circuit: Option<Arc<Circuit>>,
}

impl Room {
    /// Room at `backend`, which may have `most` requests, if there is some.
    pub(super) fn take(backend: &Arc<Backend>, most: usize, line: &Arc<Line>) -> Option<Self> {
        let one_more = |n: usize| (n < most).then_some(n + 1);
        backend.counts.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(Self { backend: Arc::clone(backend), most, line: Arc::clone(line), circuit: None })
    }

    /// Leaves `circuit`, too, when it is given back.
    pub(super) fn leaves(&mut self, circuit: &Arc<Circuit>) {
        self.circuit = Some(Arc::clone(circuit));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(circuit) = &self.circuit {
            circuit.leave();
        }
        self.backend.counts.in_flight.fetch_sub(1, Ordering::SeqCst);
        if self.line.waiting.load(Ordering::SeqCst) > 0 {
            self.line.serve(&[Arc::clone(&self.backend)], self.most);
        }
    }
}

/// Counts one who waits, for as long as it does.
struct Waiting<'a>(&'a Line);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Line {
    fn waiters(&self) -> MutexGuard<'_, VecDeque<oneshot::Sender<Room>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody waits: then whoever comes now stands behind.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Hands room at these servers to those that wait.
    fn serve(self: &Arc<Self>, backends: &[Arc<Backend>], most: usize) {
        let mut unwanted = Vec::new();
        let mut waiters = self.waiters();
        while let Some(waiter) = waiters.pop_front() {
            if waiter.is_closed() {
                continue;
            }
            let Some(room) = backends.iter().find_map(|backend| Room::take(backend, most, self)) else {
                waiters.push_front(waiter);
                break;
            };
            // It gave up just now: its room is given back behind the lock, and so to the next.
            if let Err(room) = waiter.send(room) {
                unwanted.push(room);
            }
        }
        drop(waiters);
        drop(unwanted);
    }

    /// Stands at the end.
    fn join(&self, size: usize) -> oneshot::Receiver<Room> {
        let (room, found) = oneshot::channel();
        let mut waiters = self.waiters();
        if waiters.len() > 2 * size {
            waiters.retain(|waiter| !waiter.is_closed());
        }
        waiters.push_back(room);
        found
    }

    /// Waits until one of `backends` has room, no later than `by`, unless `size` wait already.
    ///
    /// # Errors
    /// [`Error::QueueFull`], [`Error::QueueTimeout`].
    pub(super) async fn wait(
        self: &Arc<Self>,
        backends: &[Arc<Backend>],
        most: usize,
        size: usize,
        by: Instant,
    ) -> Result<Room, Error> {
        let waiting = Waiting(self);
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= size {
            self.full.fetch_add(1, Ordering::Relaxed);
            return Err(Error::QueueFull);
        }
        self.queued.fetch_add(1, Ordering::Relaxed);
        let found = self.join(size);
        // Room may have been made since the caller looked.
        self.serve(backends, most);
        let found = timeout_at(by, found).await;
        drop(waiting);
        match found {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) | Err(_) => {
                self.late.fetch_add(1, Ordering::Relaxed);
                Err(Error::QueueTimeout)
            }
        }
    }

    /// What it has done.
    pub(super) fn figures(&self) -> QueueFigures {
        QueueFigures {
            waiting: self.waiting.load(Ordering::Relaxed),
            queued: self.queued.load(Ordering::Relaxed),
            full: self.full.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::super::Backends;
    use super::*;
    use crate::config::section;

    fn backend() -> Arc<Backend> {
        let authority = "127.0.0.1:1".parse().unwrap();
        Backends::new().get(&section::Backend { authority, host: "127.0.0.1".to_owned(), port: 1, transport: None })
    }

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn room_goes_to_whoever_has_waited_longest() {
        let (line, backend) = (Arc::new(Line::default()), backend());
        let held = Room::take(&backend, 1, &line).unwrap();
        assert!(Room::take(&backend, 1, &line).is_none());
        let wait = |line: &Arc<Line>| {
            let (line, backends) = (Arc::clone(line), vec![Arc::clone(&backend)]);
            async move { line.wait(&backends, 1, 2, in_a_minute()).await }
        };
        let (mut first, mut second) = (Box::pin(wait(&line)), Box::pin(wait(&line)));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        assert!(matches!(wait(&line).await, Err(Error::QueueFull)));
        drop(held);
        assert!(Room::take(&backend, 1, &line).is_none(), "it has been handed over");
        assert!((&mut second).now_or_never().is_none());
        drop(first.await.unwrap());
        drop(second.await.unwrap());
        assert_eq!(line.figures(), QueueFigures { waiting: 0, queued: 2, full: 1, late: 0 });
        assert!(Room::take(&backend, 1, &line).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_his_room_to_the_next() {
        let (line, backend) = (Arc::new(Line::default()), backend());
        let backends = [Arc::clone(&backend)];
        let held = Room::take(&backend, 1, &line).unwrap();
        let mut gone = Box::pin(line.wait(&backends, 1, 9, in_a_minute()));
        let mut next = Box::pin(line.wait(&backends, 1, 9, in_a_minute()));
        assert!((&mut gone).now_or_never().is_none());
        assert!((&mut next).now_or_never().is_none());
        // Handed over, and dropped unread.
        drop(held);
        drop(gone);
        let room = next.await.unwrap();
        let late = line.wait(&backends, 1, 9, Instant::now() + Duration::from_secs(1)).await;
        assert!(matches!(late, Err(Error::QueueTimeout)));
        drop(room);
        assert_eq!(backend.counters().in_flight, 0);
    }
}
