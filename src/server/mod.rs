//! Sockets and threads: the workers of the public listener, reload triggers, and the drain.
//!
//! One worker per core ([`worker`]): an OS thread with its own `current_thread` runtime, its own `SO_REUSEPORT` sockets and
//! its own upstream connections; a connection lives and dies on its worker. In front of all that reads HTTP stands the [`guard`]. Who
//! answers a request is not known here: that is `gateway`.

pub mod connection;
mod crew;
mod descriptors;
pub mod drain;
mod guard;
pub mod handover;
mod head;
mod http1;
mod http2;
pub mod inherited;
pub mod listen;
mod protocol;
mod redirect;
pub mod reload;
pub mod supervisor;
mod tls;
mod watch;
pub mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Config;
use crate::gateway::Gateway;

use crew::Crew;
use drain::{Drain, Drained};
use inherited::Inherited;
use worker::{Door, Handle};

/// How long a handshake that had begun before the drain may keep a successor waiting: long enough for a phone far away, short
/// enough for everybody else.
const SLOW_HANDSHAKE: Duration = Duration::from_secs(3);

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
    /// A socket was passed that is for none of the listeners.
    #[error(
        "a listening socket was passed for {0}, which is no address of [server], [admin] or [internal]: let both say the same"
    )]
    NotOurs(SocketAddr),
    /// A worker thread cannot be made.
    #[error("cannot start a worker thread: {0}")]
    Worker(#[source] io::Error),
}

/// The running listeners.
#[derive(Debug)]
pub struct Server {
    gateway: Arc<Gateway>,
    addresses: Vec<SocketAddr>,
    redirect: Vec<SocketAddr>,
    workers: Vec<Handle>,
    drain: Drain,
    admin_address: SocketAddr,
    admin: JoinHandle<()>,
    internal: Option<Internal>,
    /// Each listening socket once more, for a successor. Nobody accepts from these.
    sockets: Vec<TcpListener>,
    /// Whether somebody else holds them, too, and connections may wait in them when this process is gone.
    outlives_us: bool,
    /// Dropped when a successor can have whatever one process alone may have.
    released: Option<oneshot::Sender<()>>,
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
    /// Whether every listener of `config` that is not `inherited` can be had.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn rehearse(config: &Config, inherited: &Inherited) -> Result<(), Error> {
        let needed = config.listeners().into_iter().filter(|address| address.port() != 0 && !inherited.has(*address));
        for address in needed {
            listen::probe(address).map_err(|source| Error::Listen { address, source })?;
        }
        Ok(())
    }

    /// Opens the sockets, but for those that are `inherited`, and starts the workers. `admin` answers on the operators' listener and `internal` on the
    /// services', if there is one, on the runtime that this is called on.
    ///
    /// # Errors
    /// When an address is taken, a socket was passed that is for nothing, or a thread cannot be made; nothing is left
    /// running then.
    pub fn start(
        gateway: &Arc<Gateway>,
        admin: Router,
        internal: Router,
        mut inherited: Inherited,
    ) -> Result<Self, Error> {
        let snapshot = gateway.current();
        let section = &snapshot.config.server;
        let outlives_us = inherited.are_held_elsewhere();
        let mut sockets = Vec::new();
        let (listener, admin_address) = bind(snapshot.config.admin.listen, &mut inherited, &mut sockets)?;
        let services = match &snapshot.config.internal {
            Some(section) => Some(bind(section.listen, &mut inherited, &mut sockets)?),
            None => None,
        };
        let drain = Drain::new();
        let mut addresses = section.listen.clone();
        let mut redirect = section.tls.redirect.clone();
        let mut workers = Vec::with_capacity(section.workers.get());
        let mut passed: Vec<_> = addresses.iter().chain(&redirect).map(|address| inherited.take(*address)).collect();
        if let Some(address) = inherited.left() {
            return Err(Error::NotOurs(address));
        }
        let own = addresses.iter().chain(&redirect).zip(&passed).filter(|(_, passed)| passed.is_empty());
        for (address, _) in own.filter(|(address, _)| address.port() != 0) {
            listen::probe(*address).map_err(|source| Error::Listen { address: *address, source })?;
        }
        let share = worker::Share { descriptors: descriptors::raise(), workers: section.workers.get() };
        let connections = descriptors::connections(share.descriptors, section.max_connections);
        if section.max_connections.is_some_and(|wanted| wanted.get() > connections) {
            let (descriptors, wanted) = (share.descriptors, section.max_connections);
            tracing::warn!(descriptors, ?wanted, connections, "there are too few file descriptors for max_connections");
        }
        for (n, crew) in Crew::of(section.workers.get()).into_iter().enumerate() {
            let mut listeners = Vec::with_capacity(addresses.len() + redirect.len());
            let public = addresses.iter_mut().map(|address| (Door::Public, address));
            let doors = public.chain(redirect.iter_mut().map(|address| (Door::Redirect, address)));
            for ((door, address), passed) in doors.zip(&passed) {
                let failed = |source| Error::Listen { address: *address, source };
                for socket in inherited::share(n, section.workers.get(), passed.len()) {
                    listeners.push((door, passed[socket].try_clone().map_err(failed)?));
                }
                if passed.is_empty() {
                    let listener = listen::bind(*address).map_err(failed)?;
                    sockets.push(listener.try_clone().map_err(failed)?);
                    // Port 0 becomes a real port with the first worker; the others share it.
                    *address = listener.local_addr().map_err(failed)?;
                    listeners.push((door, listener));
                }
            }
            workers.push(worker::start(n, gateway, listeners, crew, drain.watch(), share).map_err(Error::Worker)?);
        }
        sockets.extend(passed.drain(..).flatten());
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
        let gateway = Arc::clone(gateway);
        Ok(Self {
            gateway,
            addresses,
            redirect,
            workers,
            drain,
            admin_address,
            admin,
            internal,
            sockets,
            outlives_us,
            released: None,
        })
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

    /// Waits until nobody can ask for anything new on a connection. One whose handshake is slow may do so afterwards.
    async fn settled(&self) {
        let late = Instant::now() + SLOW_HANDSHAKE;
        loop {
            sleep(connection::SETTLED).await;
            if self.gateway.kept().metrics.handshakes() == 0 || Instant::now() > late {
                return;
            }
        }
    }

    /// The listening sockets, for [`handover::Handover`]. Whoever has them has to let go of them before the drain.
    pub fn take_sockets(&mut self) -> Vec<TcpListener> {
        std::mem::take(&mut self.sockets)
    }

    /// A successor has the sockets. One that `serves` already is the one whom operators ask. What is returned ends when it waits
    /// for nothing any more that this one has.
    pub fn handed_over(&mut self, serves: bool) -> oneshot::Receiver<()> {
        self.outlives_us = true;
        let (release, released) = oneshot::channel();
        if serves {
            self.admin.abort();
        } else {
            self.released = Some(release);
        }
        released
    }

    /// Closes the listeners, lets what is in flight finish, and waits for the workers, at most `deadline`. Says whether
    /// everything finished.
    ///
    /// Where the sockets outlive this process, somebody may wait for what only one process can have: as soon as no connection
    /// can ask for anything new, the other listeners end and the databases are closed, while long answers go on.
    pub async fn drain(mut self, deadline: Duration) -> Drained {
        self.sockets.clear();
        self.drain.start();
        let end = Instant::now() + deadline;
        let workers = std::mem::take(&mut self.workers);
        let finished = async {
            let mut complete = true;
            for worker in workers {
                complete &= worker.finished(end).await;
            }
            complete
        };
        let mut complete = if self.outlives_us {
            let released = async {
                self.settled().await;
                self.admin.abort();
                if let Some(internal) = &mut self.internal {
                    internal.stop.start();
                    let _ = (&mut internal.task).await;
                }
                self.gateway.release_databases().await;
                self.released = None;
            };
            let (complete, _) = tokio::join!(finished, timeout_at(end, released));
            complete
        } else {
            finished.await
        };
        // After them: a service that still answers one of their requests may have to ask here.
        if let Some(internal) = self.internal.as_mut().filter(|internal| !internal.task.is_finished()) {
            internal.stop.start();
            complete &= timeout_at(end, &mut internal.task).await.is_ok();
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

/// One of the listeners that are not the public one; `sockets` gets it once more.
fn bind(
    address: SocketAddr,
    inherited: &mut Inherited,
    sockets: &mut Vec<TcpListener>,
) -> Result<(tokio::net::TcpListener, SocketAddr), Error> {
    let mut opened = || {
        let listener = match inherited.take(address).pop() {
            Some(passed) => passed,
            None => listen::bind_alone(address)?,
        };
        let bound = listener.local_addr()?;
        sockets.push(listener.try_clone()?);
        Ok((tokio::net::TcpListener::from_std(listener)?, bound))
    };
    opened().map_err(|source| Error::Listen { address, source })
}
