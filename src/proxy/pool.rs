//! The idle connections of one worker.
//!
//! The most recently used connection is taken first, so that those a burst has left over grow old and go. Age is looked
//! at when a connection comes back and by [`Pool::sweep`]; no timer runs for any of them. A connection that the upstream
//! has closed or spoken on since is found out when it is taken, and dropped.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::backend::Backend;
use super::connection::Connection;
use super::http2::Connections;
use super::response_head::MAX_HEAD;

/// Most idle connections to one backend, per worker.
const MAX_IDLE: usize = 256;

/// How long a connection may stay idle. Below the 75 s and more after which common servers close theirs, so that the race
/// between their close and our next request is rare.
const MAX_AGE: Duration = Duration::from_secs(60);

/// How long a connection to a server that is known by name is used for further requests. Then another is opened, for which
/// the name is resolved anew: what has moved is left behind within this time, also by connections that are never idle.
const NAMED_LIFE: Duration = Duration::from_secs(60);

/// Largest buffer that an idle connection keeps for its next head, bytes.
const KEPT: usize = 4 * 1024;

/// Largest read that is copied out of the worker's buffer; with a larger one the buffer itself is given away.
const COPIED: usize = 8 * 1024;

/// The pool.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// By [`Backend::slot`]; oldest first. Only the worker's own thread takes the lock on the request path, so it is
    /// never waited for; it is there to keep the pool `Sync`.
    idle: Mutex<Vec<VecDeque<Idle>>>,
    /// Connections to backends that speak HTTP/2.
    pub(super) http2: Connections,
    /// What answers are read into. One for all of the worker's connections, so that a connection that waits holds none.
    room: Mutex<BytesMut>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// The worker's buffer, empty.
pub(super) struct Room<'a>(MutexGuard<'a, BytesMut>);

impl Room<'_> {
    /// What was read into it.
    pub(super) fn take(mut self) -> Bytes {
        if self.0.len() > COPIED { self.0.split().freeze() } else { Bytes::copy_from_slice(&self.0) }
    }
}

impl Deref for Room<'_> {
    type Target = BytesMut;

    fn deref(&self) -> &BytesMut {
        &self.0
    }
}

impl DerefMut for Room<'_> {
    fn deref_mut(&mut self) -> &mut BytesMut {
        &mut self.0
    }
}

impl Pool {
    /// A connection that is ready for a request, if there is one.
    pub(super) fn take(&self, backend: &Backend) -> Option<Box<Connection>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = idle.get_mut(backend.slot())?;
        while let Some(Idle { mut connection, .. }) = list.pop_back() {
            if connection.is_quiet() {
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose last exchange ended cleanly. Its age counts from `now`: callers that know a moment of their
    /// last exchange need not look at the clock for this.
    pub(super) fn put(&self, backend: &Backend, mut connection: Box<Connection>, now: Instant) {
        if connection.unsent.capacity() > KEPT {
            connection.unsent = Vec::new();
        }
        if backend.is_named() && now.duration_since(connection.opened) >= NAMED_LIFE {
            return;
        }
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
        self.http2.sweep(now);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for list in idle.iter_mut() {
            drop_old(list, now);
            list.retain(|idle| idle.connection.seems_quiet());
            list.shrink_to_fit();
        }
    }

    /// The worker's buffer for one read.
    pub(super) fn room(&self) -> Room<'_> {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.clear();
        if room.capacity() < MAX_HEAD {
            *room = BytesMut::with_capacity(MAX_HEAD);
        }
        Room(room)
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

#[cfg(test)]
mod tests {
    use super::super::Backends;
    use super::*;
    use crate::config::section;

    #[tokio::test]
    async fn a_connection_to_a_name_is_not_used_for_ever() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for (host, age, kept) in [("127.0.0.1", 90, 1), ("localhost", 90, 0), ("localhost", 1, 1)] {
            let authority = format!("{host}:{port}").parse().unwrap();
            let section = section::Backend { authority, host: host.to_owned(), port, transport: None };
            let (pool, backend) = (Pool::default(), Backends::new().get(&section));
            let mut connection = Connection::open(&backend, Duration::from_secs(5), None).await.unwrap();
            connection.opened = Instant::now().checked_sub(Duration::from_secs(age)).unwrap();
            pool.put(&backend, Box::new(connection), Instant::now());
            assert_eq!(pool.idle(&backend), kept, "{host} after {age} s");
        }
    }
}
