//! The connections of one worker to upstreams that speak HTTP/2. Each carries many requests; another is opened when all
//! are full.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, timeout_at};

use super::super::Error;
use super::super::backend::Backend;
use super::super::connection::Connection;
use super::body::Outgoing;

/// Most requests on one connection at once; servers commonly allow 100 or more.
const MAX_STREAMS: usize = 100;

/// How long a connection may stay without a request.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Largest response head, bytes.
const MAX_HEAD: u32 = 64 * 1024;

/// How much of an answer may be on its way to us before the client takes it, and of all on one connection, bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// How much of a request's body is held while the upstream makes room, bytes.
const SEND_BUFFER: usize = 64 * 1024;

/// The connections.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Connections {
    /// By [`Backend::slot`]. Only the worker's own thread takes the lock, for a few instructions.
    slots: Mutex<Vec<Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    open: Vec<Open>,
    /// Held by the one that opens another; the rest wait for it.
    opening: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Outgoing>,
    load: Arc<AtomicUsize>,
    idle_since: Option<Instant>,
}

/// A place for one request.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) sender: SendRequest<Outgoing>,
    load: Arc<AtomicUsize>,
}

impl Place {
    fn on(open: &Open) -> Self {
        open.load.fetch_add(1, Ordering::Relaxed);
        Self { sender: open.sender.clone(), load: Arc::clone(&open.load) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    fn slot<T>(&self, backend: &Backend, with: impl FnOnce(&mut Slot) -> T) -> T {
        let mut slots: MutexGuard<'_, Vec<Slot>> = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = backend.slot();
        if slots.len() <= slot {
            slots.resize_with(slot + 1, Slot::default);
        }
        with(&mut slots[slot])
    }

    /// A place on the least loaded connection that is open, unless it shall be a `fresh` one.
    fn free(&self, backend: &Backend) -> Option<Place> {
        self.slot(backend, |slot| {
            slot.open.retain(|open| !open.sender.is_closed());
            let load = |open: &&Open| open.load.load(Ordering::Relaxed);
            slot.open.iter().filter(|open| load(open) < MAX_STREAMS).min_by_key(load).map(Place::on)
        })
    }

    /// A place for a request, on a connection that is opened for it if there is none.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub(super) async fn place(
        &self,
        backend: &Backend,
        limit: Duration,
        total: Option<Instant>,
        fresh: bool,
    ) -> Result<Place, Error> {
        if !fresh && let Some(place) = self.free(backend) {
            return Ok(place);
        }
        let opening = self.slot(backend, |slot| Arc::clone(&slot.opening));
        let by = Instant::now() + limit;
        let Ok(_one_at_a_time) = timeout_at(by, opening.lock()).await else { return Err(Error::ConnectTimeout) };
        if !fresh && let Some(place) = self.free(backend) {
            return Ok(place);
        }
        let left = by.saturating_duration_since(Instant::now());
        // Boxed, so that the many requests that need no new connection do not carry the room for opening one.
        let connection = Box::pin(Connection::open(backend, left, total)).await?;
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .max_send_buf_size(SEND_BUFFER);
        let (sender, driver) = http
            .handshake(TokioIo::new(connection.tcp))
            .await
            .map_err(|error| Error::Connect(io::Error::other(error)))?;
        // It ends with the last sender, or with the connection.
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a connection of HTTP/2 to an upstream broke off");
            }
        });
        let open = Open { sender, load: Arc::default(), idle_since: None };
        let place = Place::on(&open);
        self.slot(backend, |slot| slot.open.push(open));
        Ok(place)
    }

    /// Drops what has been without a request for too long, or is closed.
    pub(in crate::proxy) fn sweep(&self, now: Instant) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in slots.iter_mut() {
            slot.open.retain_mut(|open| {
                if open.load.load(Ordering::Relaxed) > 0 {
                    open.idle_since = None;
                }
                let since = *open.idle_since.get_or_insert(now);
                let old = now.duration_since(since) >= MAX_AGE && open.load.load(Ordering::Relaxed) == 0;
                !open.sender.is_closed() && !old
            });
        }
    }
}
