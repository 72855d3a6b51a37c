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
mod tls;
pub mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

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

/// The running listeners.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    workers: Vec<Handle>,
    drain: Drain,
    admin_address: SocketAddr,
    admin: JoinHandle<()>,
}

impl Server {
    /// Opens the sockets and starts the workers. `admin` answers on the operators' listener, on the runtime that this is
    /// called on.
    ///
    /// # Errors
    /// When an address is taken or a thread cannot be made; nothing is left running then.
    pub async fn start(gateway: &Arc<Gateway>, admin: axum::Router) -> Result<Self, Error> {
        let snapshot = gateway.current();
        let section = &snapshot.config.server;
        let address = snapshot.config.admin.listen;
        let listen_failed = |source| Error::Listen { address, source };
        let listener = tokio::net::TcpListener::bind(address).await.map_err(listen_failed)?;
        let admin_address = listener.local_addr().map_err(listen_failed)?;
        let drain = Drain::new();
        let mut addresses = section.listen.clone();
        let mut workers = Vec::with_capacity(section.workers.get());
        for n in 0..section.workers.get() {
            let mut listeners = Vec::with_capacity(addresses.len());
            for address in &mut addresses {
                let listener = listen::bind(*address).map_err(|source| Error::Listen { address: *address, source })?;
                // Port 0 becomes a real port with the first worker; the others share it.
                *address = listener.local_addr().map_err(|source| Error::Listen { address: *address, source })?;
                listeners.push(listener);
            }
            workers.push(worker::start(n, gateway, listeners, drain.watch()).map_err(Error::Worker)?);
        }
        let admin = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, admin).await {
                tracing::error!(%error, "the admin listener has ended");
            }
        });
        Ok(Self { addresses, workers, drain, admin_address, admin })
    }

    /// Where it listens, port 0 resolved.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the operators' listener is.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Closes the listeners, lets what is in flight finish, and waits for the workers, at most `deadline`. Says whether
    /// everything finished.
    pub async fn drain(mut self, deadline: Duration) -> Drained {
        self.drain.start();
        let end = tokio::time::Instant::now() + deadline;
        let mut complete = true;
        for worker in std::mem::take(&mut self.workers) {
            complete &= worker.finished(end).await;
        }
        // Last: until here it tells that this instance is not ready.
        self.admin.abort();
        if complete { Drained::Complete } else { Drained::DeadlinePassed }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.admin.abort();
    }
}
