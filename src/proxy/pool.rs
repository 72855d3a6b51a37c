//! The idle connections of one worker.
//!
//! The most recently used connection is taken first, so that those a burst has left over grow old and go. Age is looked
//! at when a connection comes back and by [`Pool::sweep`]; no timer runs for any of them. A connection that the upstream
//! has closed or spoken on since is found out when it is taken, and dropped.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::backend::Backend;
use super::connection::Connection;

/// Most idle connections to one backend, per worker.
const MAX_IDLE: usize = 256;

/// How long a connection may stay idle. Below the 75 s and more after which common servers close theirs, so that the race
/// between their close and our next request is rare.
const MAX_AGE: Duration = Duration::from_secs(60);

/// The pool.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// By [`Backend::slot`]; oldest first. Only the worker's own thread takes the lock on the request path, so it is
    /// never waited for; it is there to keep the pool `Sync`.
    idle: Mutex<Vec<VecDeque<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    /// A connection that is ready for a request, if there is one.
    pub(super) fn take(&self, backend: &Backend) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = idle.get_mut(backend.slot())?;
        let mut index = list.len();
        while index > 0 {
            index -= 1;
            let send = &list[index].connection.send;
            if send.is_closed() {
                list.remove(index);
            } else if send.is_ready() {
                let mut connection = list.remove(index)?.connection;
                if connection.watch.is_quiet() {
                    connection.reused = true;
                    return Some(connection);
                }
            }
            // Neither: its task has not yet come round after the last answer.
        }
        None
    }

    /// Keeps a connection whose last exchange ended cleanly.
    pub(super) fn put(&self, backend: &Backend, connection: Connection) {
        if connection.send.is_closed() {
            return;
        }
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = backend.slot();
        if idle.len() <= slot {
            idle.resize_with(slot + 1, VecDeque::new);
        }
        let list = &mut idle[slot];
        list.push_back(Idle { connection, since: now });
        if list.len() > MAX_IDLE {
            list.pop_front();
        }
        drop_old(list, now);
    }

    /// Drops what is too old at `now`, or closed, of all backends.
    pub(super) fn sweep(&self, now: Instant) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for list in idle.iter_mut() {
            drop_old(list, now);
            list.retain(|idle| !idle.connection.send.is_closed());
            list.shrink_to_fit();
        }
    }

    /// How many connections to `backend` are idle.
    pub(super) fn idle(&self, backend: &Backend) -> usize {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.get(backend.slot()).map_or(0, VecDeque::len)
    }
}

fn drop_old(list: &mut VecDeque<Idle>, now: Instant) {
    while list.front().is_some_and(|oldest| now.duration_since(oldest.since) >= MAX_AGE) {
        list.pop_front();
    }
}
