//! Sockets and threads: the workers of the public listener, reload triggers, and the drain.
//!
//! One worker per core ([`worker`]): an OS thread with its own `current_thread` runtime, its own `SO_REUSEPORT` sockets and
//! its own upstream connections; a connection lives and dies on its worker. In front of all that reads HTTP stands the [`guard`]. Who
//! answers a request is not known here: that is `gateway`.

pub mod connection;
mod descriptors;
pub mod drain;
mod guard;
mod head;
mod http1;
mod http2;
pub mod listen;
mod protocol;
mod redirect;
pub mod reload;
mod tls;
pub mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::task::JoinHandle;

use crate::gateway::Gateway;

use drain::{Drain, Drained};
use worker::{Door, Handle};

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
    redirect: Vec<SocketAddr>,
    workers: Vec<Handle>,
    drain: Drain,
    admin_address: SocketAddr,
    admin: JoinHandle<()>,
    internal: Option<Internal>,
}

/// The services' listener.
#[derive(Debug)]
struct Internal {
    address: SocketAddr,
    task: JoinHandle<()>,
    /// Ends it: no new connections, what is in flight finishes.
    stop: Drain,
}

impl Server {
    /// Opens the sockets and starts the workers. `admin` answers on the operators' listener and `internal` on the
    /// services', if there is one, on the runtime that this is called on.
    ///
    /// # Errors
    /// When an address is taken or a thread cannot be made; nothing is left running then.
    pub async fn start(gateway: &Arc<Gateway>, admin: Router, internal: Router) -> Result<Self, Error> {
        let snapshot = gateway.current();
        let section = &snapshot.config.server;
        let (listener, admin_address) = bind(snapshot.config.admin.listen).await?;
        let services = match &snapshot.config.internal {
            Some(section) => Some(bind(section.listen).await?),
            None => None,
        };
        let drain = Drain::new();
        let mut addresses = section.listen.clone();
        let mut redirect = section.tls.redirect.clone();
        let mut workers = Vec::with_capacity(section.workers.get());
        for address in addresses.iter().chain(&redirect).filter(|address| address.port() != 0) {
            listen::probe(*address).map_err(|source| Error::Listen { address: *address, source })?;
        }
        let share = worker::Share { descriptors: descriptors::raise(), workers: section.workers.get() };
        let connections = descriptors::connections(share.descriptors, section.max_connections);
        if section.max_connections.is_some_and(|wanted| wanted.get() > connections) {
            let (descriptors, wanted) = (share.descriptors, section.max_connections);
            tracing::warn!(descriptors, ?wanted, connections, "there are too few file descriptors for max_connections");
        }
        for n in 0..section.workers.get() {
            let mut listeners = Vec::with_capacity(addresses.len() + redirect.len());
            let public = addresses.iter_mut().map(|address| (Door::Public, address));
            for (door, address) in public.chain(redirect.iter_mut().map(|address| (Door::Redirect, address))) {
                let listener = listen::bind(*address).map_err(|source| Error::Listen { address: *address, source })?;
                // Port 0 becomes a real port with the first worker; the others share it.
                *address = listener.local_addr().map_err(|source| Error::Listen { address: *address, source })?;
                listeners.push((door, listener));
            }
            workers.push(worker::start(n, gateway, listeners, drain.watch(), share).map_err(Error::Worker)?);
        }
        let admin = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, admin).await {
                tracing::error!(%error, "the admin listener has ended");
            }
        });
        let internal = services.map(|(listener, address)| {
            let stop = Drain::new();
            let mut told = stop.watch();
            let service = internal.into_make_service_with_connect_info::<SocketAddr>();
            let task = tokio::spawn(async move {
                let stopped = async move { told.started().await };
                if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(stopped).await {
                    tracing::error!(%error, "the internal listener has ended");
                }
            });
            Internal { address, task, stop }
        });
        Ok(Self { addresses, redirect, workers, drain, admin_address, admin, internal })
    }

    /// Where it listens, port 0 resolved.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where plain HTTP is redirected, port 0 resolved.
    pub fn redirect_addresses(&self) -> &[SocketAddr] {
        &self.redirect
    }

    /// Where the operators' listener is.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Where the services' listener is, if there is one.
    pub fn internal_address(&self) -> Option<SocketAddr> {
        self.internal.as_ref().map(|internal| internal.address)
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
        // After them: a service that still answers one of their requests may have to ask here.
        if let Some(internal) = &mut self.internal {
            internal.stop.start();
            complete &= tokio::time::timeout_at(end, &mut internal.task).await.is_ok();
        }
        // Last: until here it tells that this instance is not ready.
        self.admin.abort();
        if complete { Drained::Complete } else { Drained::DeadlinePassed }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.admin.abort();
        if let Some(internal) = &self.internal {
            internal.task.abort();
        }
    }
}

async fn bind(address: SocketAddr) -> Result<(tokio::net::TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
