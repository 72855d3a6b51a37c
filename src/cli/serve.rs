//! `wxgate serve`: the gateway, until SIGTERM, ctrl-c or a successor, and then a clean drain.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, AdminToken, AuditLog};
use crate::clock::Clock;
use crate::config::{Config, Keys, MembersStore};
use crate::gateway::{self, Gateway};
use crate::internal;
use crate::keyfile;
use crate::server::Server;
use crate::server::drain::Drained;
use crate::server::handover::{Handover, Predecessor};
use crate::server::inherited::Inherited;
use crate::server::reload::{Hangup, Triggers};
use crate::server::supervisor::{self, Watchdog};
use crate::telemetry::LogWriter;

use super::operator;

/// How often it is looked whether the database is free: a handful of system calls.
const LOOK: Duration = Duration::from_millis(10);

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
        let token = match &keys {
            Keys::Folder(keys) => AdminToken::open(keys).context("admin.token in the key directory")?,
            Keys::Store { .. } => operator::derived(&keys)?,
        };
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
            tokio::time::sleep(drain_min).await;
        }
        self.drain().await
    }

    /// As [`Running::stop`], when a successor has the sockets: it is the one who is ready.
    pub async fn give_way(mut self) -> Drained {
        let waits_for_us = !self.gateway.kept().embedded.is_empty();
        self.server.handed_over(!waits_for_us);
        self.drain().await
    }

    async fn drain(self) -> Drained {
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
fn data_folder(config: &Config) -> PathBuf {
    match &config.store.members {
        MembersStore::Sqlite(database) => database.parent().unwrap_or(Path::new(".")).to_owned(),
        MembersStore::Postgres(_) => config.token.keys.local().to_owned(),
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
pub async fn run(config: Config, log: LogWriter, mut sockets: Inherited, takeover: bool) -> anyhow::Result<()> {
    // Caught before anybody can know that we run: a signal during the start stops us cleanly, or reloads, too.
    let stop = Stop::catch()?;
    let hangup = Hangup::catch().context("cannot catch SIGHUP")?;
    let file = handover_file(&config);
    let mut predecessor = None;
    if takeover {
        if sockets.is_empty() {
            (predecessor, sockets) = find(file.as_deref(), &config).await?;
        }
        // What only one process can have, the running one has to give up first.
        if gateway::holder(&config)?.is_some() {
            if let Some(predecessor) = predecessor.take() {
                Predecessor::leave(predecessor, file.as_deref().unwrap_or(Path::new("")))
                    .await
                    .context("the running gateway does not leave")?;
            }
            if !free(&config, &stop).await? {
                return Ok(());
            }
        }
    }
    let mut running = Running::start_on(config, Clock::system(), log, sockets).await?;
    if let Some(predecessor) = predecessor {
        // We accept already, from the same queues.
        Predecessor::leave(predecessor, file.as_deref().unwrap_or(Path::new("")))
            .await
            .context("the running gateway does not leave")?;
    }
    let sockets = running.server.take_sockets();
    let mut handover = file.and_then(|file| match Handover::open(&file, sockets) {
        Ok(handover) => Some(handover),
        Err(error) => {
            let file = file.display();
            tracing::warn!(%error, %file, "the sockets cannot be handed over: an upgrade will refuse connections for a moment");
            None
        }
    });
    supervisor::ready();
    let _watchdog = Watchdog::start();
    let triggers = Triggers::start(&running.gateway, hangup);
    tokio::select! {
        () = stop.told() => {}
        () = asked(&mut handover) => tracing::info!("another gateway takes over"),
    }
    supervisor::stopping();
    drop(triggers);
    let taken = match handover {
        Some(handover) => handover.close().await,
        None => false,
    };
    if taken {
        running.give_way().await
    } else {
        running.stop().await
    };
    Ok(())
}

async fn asked(handover: &mut Option<Handover>) {
    match handover {
        Some(handover) => handover.asked().await,
        None => std::future::pending().await,
    }
}

/// The running gateway and the sockets of it that this configuration wants.
async fn find(file: Option<&Path>, config: &Config) -> anyhow::Result<(Option<Predecessor>, Inherited)> {
    let file = file.context("--takeover needs a port in [server] listen: 0 is another one each time")?;
    let found = Predecessor::find(file).await.with_context(|| format!("cannot take over by {}", file.display()))?;
    let Some((predecessor, sockets)) = found else {
        tracing::info!("no running gateway offers its sockets: starting anew");
        return Ok((None, Inherited::none()));
    };
    let internal = config.internal.as_ref().map(|section| section.listen);
    let server = &config.server;
    let wanted = server.listen.iter().chain(&server.tls.redirect).copied();
    let wanted: Vec<SocketAddr> = wanted.chain([config.admin.listen]).chain(internal).collect();
    let first = server.listen.first().copied();
    anyhow::ensure!(
        first.is_some_and(|first| sockets.has(first)),
        "the gateway that offers its sockets at {} listens elsewhere: let both name the same first address in [server] listen",
        file.display(),
    );
    Ok((Some(predecessor), sockets.only(&wanted)))
}

/// Waits until no other gateway has the database. False when this one was told to stop meanwhile.
async fn free(config: &Config, stop: &Stop) -> anyhow::Result<bool> {
    let mut said = false;
    while let Some(holder) = gateway::holder(config)? {
        if !said {
            tracing::info!(%holder, "waiting for the gateway that has the database");
            said = true;
        }
        tokio::select! {
            () = stop.clone().told() => return Ok(false),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    Ok(true)
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
