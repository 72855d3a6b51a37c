//! `wxgate serve`: the gateway, until SIGTERM, ctrl-c or a successor, and then a clean drain.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::admin::{self, AdminToken, AuditLog};
use crate::clock::Clock;
use crate::config::{Config, Keys, MembersStore};
use crate::gateway::Gateway;
use crate::internal;
use crate::keyfile;
use crate::server::Server;
use crate::server::drain::Drained;
use crate::server::handover::Handover;
use crate::server::inherited::Inherited;
use crate::server::reload::{Hangup, Triggers};
use crate::server::supervisor::{self, Watchdog};
use crate::telemetry::LogWriter;

use super::operator;
use super::takeover;

/// A gateway with its listeners.
#[derive(Debug)]
pub struct Running {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Its listeners.
    pub server: Server,
}

impl Running {
    /// Opens keys, store and sockets. Must be called on the control runtime.
    ///
    /// # Errors
    /// When something cannot be opened; nothing is left running then.
    pub async fn start(config: Config, clock: Clock, log: LogWriter) -> anyhow::Result<Self> {
        Self::start_on(config, clock, log, Inherited::none()).await
    }

    /// As [`Running::start`], with listening sockets that are there already.
    ///
    /// # Errors
    /// As [`Running::start`].
    pub async fn start_on(config: Config, clock: Clock, log: LogWriter, sockets: Inherited) -> anyhow::Result<Self> {
        let (keys, folder) = (config.token.keys.clone(), data_folder(&config));
        let gateway = Gateway::open(config, clock.clone(), log).await?;
        let token = admin_token(&keys)?;
        keyfile::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let audit = AuditLog::open(&folder, clock).with_context(|| format!("audit.log in {}", folder.display()))?;
        let admin = admin::router(&gateway, token, audit);
        let server = Server::start(&gateway, admin, internal::router(&gateway), sockets)?;
        let (public, admin) = (server.addresses(), server.admin_address());
        let internal = server.internal_address();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), ?public, %admin, ?internal, "wxgate is ready");
        Ok(Self { gateway, server })
    }

    /// Not ready any more; after `[server] drain_min` no new connections, and what is in flight finishes, at most
    /// `drain_timeout`.
    pub async fn stop(self) -> Drained {
        let drain_min = self.gateway.current().config.server.drain_min;
        self.gateway.start_leaving();
        if !drain_min.is_zero() {
            // Whoever spreads requests over instances has to notice first.
            tracing::info!(?drain_min, "leaving: not ready any more, and still accepting");
            sleep(drain_min).await;
        }
        self.drain().await
    }

    /// A successor has the sockets, and is the one who is ready; [`Running::drain`] comes next. What is returned ends when the
    /// successor waits for nothing any more that this one has.
    pub fn give_way(&mut self) -> oneshot::Receiver<()> {
        let waits_for_us = !self.gateway.kept().embedded.is_empty();
        self.server.handed_over(!waits_for_us)
    }

    /// The configuration in force, with the addresses that it came to.
    fn resumable(&self) -> Config {
        let mut config = self.gateway.current().config.clone();
        config.server.listen = self.server.addresses().to_vec();
        config.server.tls.redirect = self.server.redirect_addresses().to_vec();
        config.admin.listen = self.server.admin_address();
        if let (Some(section), Some(address)) = (&mut config.internal, self.server.internal_address()) {
            section.listen = address;
        }
        config
    }

    /// No new connections, and what is in flight finishes, at most `drain_timeout`.
    pub async fn drain(self) -> Drained {
        tracing::info!("draining");
        self.gateway.start_draining();
        let drain_timeout = self.gateway.current().config.server.drain_timeout;
        let drained = self.server.drain(drain_timeout).await;
        match drained {
            Drained::Complete => tracing::info!("drained"),
            Drained::DeadlinePassed => tracing::warn!("the drain took too long: what was left has been cut"),
        }
        self.gateway.kept().tracing.flush().await;
        drained
    }
}

/// Beside the database; where that is a server, beside the keys, or where a folder of keys would be.
pub(super) fn data_folder(config: &Config) -> PathBuf {
    match &config.store.members {
        MembersStore::Sqlite(database) => database.parent().unwrap_or(Path::new(".")).to_owned(),
        MembersStore::Postgres(_) => config.token.keys.local().to_owned(),
    }
}

/// What operators show, with keys in this place.
pub(super) fn admin_token(keys: &Keys) -> anyhow::Result<AdminToken> {
    match keys {
        Keys::Folder(keys) => AdminToken::open(keys).context("admin.token in the key directory"),
        Keys::Store { .. } => operator::derived(keys),
    }
}

/// Where the gateway of this configuration hands its sockets over. Named by the port and by the network that it is in: others
/// that share the folder (containers, other machines) may listen on the same port of another network. `None` when the system
/// chooses the port, since no successor could ask for the same.
fn handover_file(config: &Config) -> Option<PathBuf> {
    let port = config.server.listen.first().map(SocketAddr::port).filter(|port| *port != 0)?;
    Some(data_folder(config).join(format!("handover-{port}-{}.sock", network())))
}

/// This run of the machine and the network namespace, in a few letters (proc(5): `boot_id`; namespaces(7)).
fn network() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot: String = boot.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    let namespace = std::fs::metadata("/proc/self/ns/net").map_or(0, |namespace| namespace.ino());
    format!("{boot}-{namespace:x}")
}

/// Runs the gateway until it is told to stop. `takeover` has it take the place of one that runs, in place of giving up.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config, log: LogWriter, sockets: Inherited, takeover: bool) -> anyhow::Result<()> {
    // Caught before anybody can know that we run: a signal during the start stops us cleanly, or reloads, too.
    let stop = Stop::catch()?;
    let mut hangup = Hangup::catch().context("cannot catch SIGHUP")?;
    let file = handover_file(&config);
    let mut running = if takeover {
        match takeover::run(config, log.clone(), sockets, file.as_deref(), &stop).await? {
            Some(running) => running,
            None => return Ok(()),
        }
    } else {
        Running::start_on(config, Clock::system(), log.clone(), sockets).await?
    };
    let _watchdog = Watchdog::start();
    let mut drains = Vec::new();
    while let Some(Interrupted { config, sockets, drain }) = serve(running, hangup, file.as_deref(), &stop).await {
        drains.push(drain);
        hangup = Hangup::catch().context("cannot catch SIGHUP")?;
        // Our own drain lets go of the database.
        if !takeover::free(&config, &stop).await? {
            break;
        }
        let again = Running::start_on(config, Clock::system(), log.clone(), Inherited::of(sockets)?).await;
        running = match again {
            Ok(running) => running,
            Err(error) => {
                // What its connections have begun is finished all the same.
                for drain in drains {
                    let _ = drain.await;
                }
                return Err(error);
            }
        };
    }
    for drain in drains {
        let _ = drain.await;
    }
    Ok(())
}

/// What is left of a gateway whose successor has failed.
struct Interrupted {
    config: Config,
    sockets: Vec<TcpListener>,
    /// Of the connections that it had.
    drain: JoinHandle<Drained>,
}

/// Serves until it is told to stop or a successor serves, and drains. A successor that goes away before it serves, or does not
/// serve within `[server] takeover_timeout`, leaves everything to be begun anew.
async fn serve(mut running: Running, hangup: Hangup, file: Option<&Path>, stop: &Stop) -> Option<Interrupted> {
    let sockets = running.server.take_sockets();
    let mut handover = file.and_then(|file| match Handover::open(file, sockets) {
        Ok(handover) => Some(handover),
        Err(error) => {
            let file = file.display();
            tracing::warn!(%error, %file, "the sockets cannot be handed over: an upgrade will refuse connections for a moment");
            None
        }
    });
    supervisor::ready();
    let triggers = Triggers::start(&running.gateway, hangup);
    tokio::select! {
        () = stop.clone().told() => {}
        () = asked(&mut handover) => tracing::info!("another gateway takes over"),
    }
    drop(triggers);
    let successor = match handover {
        Some(handover) => handover.close().await,
        None => None,
    };
    let Some(mut successor) = successor else {
        supervisor::stopping();
        running.stop().await;
        return None;
    };
    let config = running.resumable();
    let patience = config.server.takeover_timeout;
    let released = running.give_way();
    let drain = tokio::spawn(running.drain());
    let late = async {
        // It ends whether or not somebody says so.
        let _ = released.await;
        sleep(patience).await;
    };
    let alone = tokio::select! {
        serves = successor.serves() => {
            if !serves {
                tracing::error!("the gateway that was to take over has gone before it served: this one goes on");
            }
            !serves
        }
        () = late => {
            let alone = successor.give_up();
            if alone {
                tracing::error!(
                    takeover_timeout = ?patience,
                    "the gateway that was to take over does not serve in time and has been ended: this one goes on"
                );
            }
            alone
        }
        () = stop.clone().told() => false,
    };
    if alone {
        return Some(Interrupted { config, sockets: successor.into_sockets(), drain });
    }
    supervisor::stopping();
    drop(successor);
    let _ = drain.await;
    None
}

async fn asked(handover: &mut Option<Handover>) {
    match handover {
        Some(handover) => handover.asked().await,
        None => std::future::pending().await,
    }
}

/// SIGTERM and ctrl-c, caught for the life of the process: a second one does not cut the drain short.
#[derive(Debug, Clone)]
pub struct Stop(tokio::sync::watch::Receiver<bool>);

impl Stop {
    /// Starts catching.
    ///
    /// # Errors
    /// When signals cannot be caught.
    pub fn catch() -> anyhow::Result<Self> {
        let (tell, told) = tokio::sync::watch::channel(false);
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let mut signals = signal(kind).context("cannot catch signals")?;
            let tell = tell.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    tell.send_replace(true);
                }
            });
        }
        Ok(Self(told))
    }

    /// Waits for the first.
    pub async fn told(mut self) {
        let _ = self.0.wait_for(|told| *told).await;
    }
}
