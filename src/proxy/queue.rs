//! The line of requests that wait for a server with room, where an upstream limits how many one may have.
//!
//! It is short and has a deadline: a request that would wait for longer than its client does is better refused at once.
//! Whoever is done hands the room over to the next in line: in turn, or, once the first has waited for half of that deadline, to the
//! newest ([`Waiting`]). Then the line is longer than the servers can work off: in turn, everybody would be served just before his
//! deadline, and a client with less patience never. Where it is full besides, a newcomer takes the place of the oldest.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Error;
use super::backend::Backend;
use super::circuit::Circuit;
use crate::config::section::Queue;
use crate::waiting::Waiting;

/// One for the process and each upstream; outlives a reload.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Those that wait; raised before they look for room for the last time, so that whoever makes room sees them.
    waiting: AtomicUsize,
    waiters: Mutex<Waiting<Room>>,
    /// Half of how long one may wait at most, microseconds, as the configuration in force says.
    patience: AtomicU64,
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
struct Counted<'a>(&'a Line);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Line {
    fn waiters(&self) -> MutexGuard<'_, Waiting<Room>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn patience(&self) -> Duration {
        Duration::from_micros(self.patience.load(Ordering::Relaxed))
    }

    /// Whether anybody waits: then whoever comes now stands behind.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Hands room at these servers to those that wait.
    fn serve(self: &Arc<Self>, backends: &[Arc<Backend>], most: usize) {
        let mut unwanted = Vec::new();
        let (now, patience) = (Instant::now(), self.patience());
        let mut waiters = self.waiters();
        while waiters.anybody() {
            let Some(room) = backends.iter().find_map(|backend| Room::take(backend, most, self)) else { break };
            // If it gave up just now, its room is given back behind the lock, and so to the next.
            match waiters.next(now, patience) {
                Some((_, waiter)) => unwanted.extend(waiter.send(room).err()),
                None => unwanted.push(room),
            }
        }
        drop(waiters);
        drop(unwanted);
    }

    /// Makes place for one more in a line that is full: whoever has waited for too long leaves it. False when nobody has.
    fn make_place(&self) -> bool {
        self.waiters().overdue(Instant::now(), self.patience()).is_some()
    }

    /// Waits until one of `backends` has room, for at most `queue.timeout` and no later than `by`, unless `queue.size` wait already.
    ///
    /// # Errors
    /// [`Error::QueueFull`], [`Error::QueueTimeout`].
    pub(super) async fn wait(
        self: &Arc<Self>,
        backends: &[Arc<Backend>],
        most: usize,
        queue: &Queue,
        by: Option<Instant>,
    ) -> Result<Room, Error> {
        let waiting = Counted(self);
        let half = u64::try_from(queue.timeout.as_micros() / 2).unwrap_or(u64::MAX);
        self.patience.store(half, Ordering::Relaxed);
        let full = self.waiting.fetch_add(1, Ordering::SeqCst) >= queue.size;
        if full && !self.make_place() {
            self.full.fetch_add(1, Ordering::Relaxed);
            return Err(Error::QueueFull);
        }
        self.queued.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let until = now + queue.timeout;
        let found = self.waiters().join(now);
        // Room may have been made since the caller looked.
        self.serve(backends, most);
        let found = timeout_at(by.map_or(until, |by| by.min(until)), found).await;
        drop(waiting);
        match found {
            Ok(Ok(room)) => Ok(room),
            // Somebody else has its place.
            Ok(Err(_)) => {
                self.full.fetch_add(1, Ordering::Relaxed);
                Err(Error::QueueFull)
            }
            Err(_) => {
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
    use futures_util::FutureExt as _;

    use super::super::Backends;
    use super::*;
    use crate::config::section;

    fn backend() -> Arc<Backend> {
        let authority = "127.0.0.1:1".parse().unwrap();
        Backends::new().get(&section::Backend { authority, host: "127.0.0.1".to_owned(), port: 1, transport: None })
    }

    fn queue(size: usize, secs: u64) -> Queue {
        Queue { size, timeout: Duration::from_secs(secs) }
    }

    #[tokio::test]
    async fn room_goes_to_whoever_has_waited_longest() {
        let (line, backend) = (Arc::new(Line::default()), backend());
        let held = Room::take(&backend, 1, &line).unwrap();
        assert!(Room::take(&backend, 1, &line).is_none());
        let wait = |line: &Arc<Line>| {
            let (line, backends) = (Arc::clone(line), vec![Arc::clone(&backend)]);
            async move { line.wait(&backends, 1, &queue(2, 60), None).await }
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
        let minute = queue(9, 60);
        let mut gone = Box::pin(line.wait(&backends, 1, &minute, None));
        let mut next = Box::pin(line.wait(&backends, 1, &minute, None));
        assert!((&mut gone).now_or_never().is_none());
        assert!((&mut next).now_or_never().is_none());
        // Handed over, and dropped unread.
        drop(held);
        drop(gone);
        let room = next.await.unwrap();
        let late = line.wait(&backends, 1, &queue(9, 1), None).await;
        assert!(matches!(late, Err(Error::QueueTimeout)));
        let soon = Instant::now() + Duration::from_millis(10);
        let late = line.wait(&backends, 1, &minute, Some(soon)).await;
        assert!(matches!(late, Err(Error::QueueTimeout)));
        assert_eq!(Instant::now(), soon);
        drop(room);
        assert_eq!(backend.counters().in_flight, 0);
    }
    #[tokio::test(start_paused = true)]
    async fn in_a_line_that_does_not_move_the_newest_are_served_and_take_the_places_of_the_oldest() {
        let (line, backend) = (Arc::new(Line::default()), backend());
        let backends = [Arc::clone(&backend)];
        let mut held = Room::take(&backend, 1, &line).unwrap();
        let second = queue(3, 1);
        let mut turns = Vec::new();
        for _ in 0..3 {
            let mut turn = Box::pin(line.wait(&backends, 1, &second, None));
            assert!((&mut turn).now_or_never().is_none());
            turns.push(turn);
            tokio::time::advance(Duration::from_millis(200)).await;
        }
        // The first has waited for 600 ms. It goes, and the fourth stands; the next one finds nobody who has waited for half a
        // second.
        let mut fourth = Box::pin(line.wait(&backends, 1, &second, None));
        assert!((&mut fourth).now_or_never().is_none());
        assert!(matches!(turns.remove(0).now_or_never(), Some(Err(Error::QueueFull))));
        assert!(matches!(line.wait(&backends, 1, &second, None).now_or_never(), Some(Err(Error::QueueFull))));
        tokio::time::advance(Duration::from_millis(200)).await;
        // The second has waited for 600 ms now: the newest comes first, then those before it.
        drop(held);
        held = fourth.now_or_never().unwrap().unwrap();
        assert!((&mut turns[0]).now_or_never().is_none());
        assert!((&mut turns[1]).now_or_never().is_none());
        drop(held);
        assert!((&mut turns[0]).now_or_never().is_none());
        drop(turns.remove(1).now_or_never().unwrap().unwrap());
        drop(turns.remove(0).now_or_never().unwrap().unwrap());
        assert_eq!(line.figures(), QueueFigures { waiting: 0, queued: 4, full: 2, late: 0 });
        assert_eq!(backend.counters().in_flight, 0);
    }
}
