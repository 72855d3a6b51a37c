//! Which worker gets a connection.
//!
//! The kernel spreads connections over the sockets of the workers by a hash of their addresses. Of thousands each worker gets its
//! share; of two, every other time one worker gets both, and a load balancer in front may have no more than a few, each as busy as a
//! core. So while a worker has few, it passes a connection that it accepts on to the one with the least, if that has fewer. With many it asks
//! nobody: a flood of new connections costs no word between cores.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::worker::Door;

/// With so many connections a worker passes none on: by then the kernel's shares are about even (of 128 on two workers, one
/// has more than 82 once in a thousand times).
const MANY: usize = 64;

/// A connection on its way to another worker.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) door: Door,
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) seat: Seat,
}

/// Connections of one worker, those on their way to it among them.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Open(AtomicUsize);

/// A worker among the others. Its copies are of one worker; when all are gone, it passes nothing on any more.
#[derive(Debug, Clone)]
pub(super) struct Crew {
    own: usize,
    open: Arc<[Open]>,
    /// In the order of `open`.
    others: Arc<[UnboundedSender<Passed>]>,
}

/// The place of a connection at a worker, which counts it.
#[derive(Debug)]
pub(super) struct Seat {
    worker: usize,
    open: Arc<[Open]>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open[self.worker].0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Crew {
    /// So many workers, each with what is passed to it.
    pub(super) fn of(workers: usize) -> Vec<(Self, UnboundedReceiver<Passed>)> {
        let open: Arc<[Open]> = (0..workers).map(|_| Open::default()).collect();
        let (others, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded_channel()).unzip();
        let crew = |own| Self { own, open: Arc::clone(&open), others: others.iter().cloned().collect() };
        inboxes.into_iter().enumerate().map(|(own, inbox)| (crew(own), inbox)).collect()
    }

    /// A place for a connection that this worker has accepted.
    pub(super) fn seat(&self) -> Seat {
        let open = |worker: usize| self.open[worker].0.load(Ordering::Relaxed);
        let own = open(self.own);
        let mut worker = self.own;
        if own < MANY
            && let Some(least) = (0..self.open.len()).min_by_key(|worker| open(*worker))
            && open(least) < own
        {
            worker = least;
        }
        self.keep(worker)
    }

    /// A place at this worker itself.
    pub(super) fn own_seat(&self) -> Seat {
        self.keep(self.own)
    }

    fn keep(&self, worker: usize) -> Seat {
        self.open[worker].0.fetch_add(1, Ordering::Relaxed);
        Seat { worker, open: Arc::clone(&self.open) }
    }

    /// Whether this place is at another worker.
    pub(super) fn is_elsewhere(&self, seat: &Seat) -> bool {
        seat.worker != self.own
    }

    /// Passes a connection to the worker at which it has its place; gives it back when that worker is gone.
    pub(super) fn pass(&self, passed: Passed) -> Result<(), Passed> {
        let worker = passed.seat.worker;
        self.others[worker].send(passed).map_err(|gone| gone.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything is accepted by the first worker: how many each has.
    fn spread(workers: usize, connections: usize) -> Vec<usize> {
        let crew = Crew::of(workers);
        let seats: Vec<Seat> = (0..connections).map(|_| crew[0].0.seat()).collect();
        let mut spread = vec![0; workers];
        seats.iter().for_each(|seat| spread[seat.worker] += 1);
        spread
    }

    #[test]
    fn few_connections_are_even_whoever_accepts_them() {
        assert_eq!(spread(2, 2), [1, 1]);
        assert_eq!(spread(2, 8), [4, 4]);
        assert_eq!(spread(3, 8), [3, 3, 2]);
        assert_eq!(spread(1, 8), [8]);
    }

    #[test]
    fn of_many_everybody_keeps_what_he_accepts() {
        assert_eq!(spread(2, 1000), [1001 - MANY, MANY - 1]);
    }

    #[test]
    fn a_connection_that_ends_leaves_its_place() {
        let crew = Crew::of(2);
        let (first, second) = (crew[0].0.seat(), crew[0].0.seat());
        assert!(!crew[0].0.is_elsewhere(&first) && crew[0].0.is_elsewhere(&second));
        drop(first);
        assert!(!crew[0].0.is_elsewhere(&crew[0].0.seat()));
        drop(second);
        assert!(crew[0].0.open.iter().all(|open| open.0.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn what_is_passed_arrives_and_a_worker_that_is_gone_gives_it_back() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        let mut crew = Crew::of(2);
        let (_, mut inbox) = crew.pop().unwrap();
        let (first, _own) = crew.pop().unwrap();
        let _kept = first.own_seat();
        let passed =
            || Passed { door: Door::Public, stream: TcpStream::connect(peer).unwrap(), peer, seat: first.seat() };
        let one = passed();
        assert!(first.is_elsewhere(&one.seat));
        first.pass(one).unwrap();
        assert!(inbox.try_recv().is_ok());
        drop(inbox);
        assert!(first.pass(passed()).is_err());
    }
}
