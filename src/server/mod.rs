//! Sockets and threads: the workers of the public listener, reload triggers, and the drain.
//!
//! One worker per core ([`worker`]): an OS thread with its own `current_thread` runtime, its own `SO_REUSEPORT` sockets and
//! its own upstream connections; a connection lives and dies on its worker. In front of hyper stands the [`guard`]. Who
//! answers a request is not known here: that is `gateway`.

mod chunked;
pub mod connection;
pub mod drain;
mod guard;
mod head;
pub mod listen;
pub mod reload;
pub mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::gateway::Gateway;

use drain::{Drain, Drained};
use worker::Handle;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A worker thread cannot be made.
    #[error("cannot start a worker thread: {0}")]
    Worker(#[source] io::Error),
}

/// The running public listener.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    workers: Vec<Handle>,
    drain: Drain,
}

impl Server {
    /// Opens the sockets and starts the workers.
    ///
    /// # Errors
    /// When an address is taken or a thread cannot be made; nothing is left running then.
    pub fn start(gateway: &Arc<Gateway>) -> Result<Self, Error> {
        let section = gateway.current().config.server.clone();
        let drain = Drain::new();
        let mut addresses = section.listen.clone();
        let mut workers = Vec::with_capacity(section.workers.get());
        for n in 0..section.workers.get() {
            let mut listeners = Vec::with_capacity(addresses.len());
            for address in &mut addresses {
                let listener =
                    listen::bind(*address).map_err(|source| Error::Listen { address: *address, source })?;
                // Port 0 becomes a real port with the first worker; the others share it.
                *address = listener.local_addr().map_err(|source| Error::Listen { address: *address, source })?;
                listeners.push(listener);
            }
            workers.push(worker::start(n, gateway, listeners, drain.watch()).map_err(Error::Worker)?);
        }
        Ok(Self { addresses, workers, drain })
    }

    /// Where it listens, port 0 resolved.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Closes the listeners, lets what is in flight finish, and waits for the workers, at most `deadline`. Says whether
    /// everything finished.
    pub async fn drain(self, deadline: Duration) -> Drained {
        self.drain.start();
        let end = tokio::time::Instant::now() + deadline;
        let mut complete = true;
        for worker in self.workers {
            complete &= worker.finished(end).await;
        }
        if complete { Drained::Complete } else { Drained::DeadlinePassed }
    }
}
