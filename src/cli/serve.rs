//! `wxgate serve`: the gateway, until SIGTERM or ctrl-c, and then a clean drain.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, AdminToken, AuditLog};
use crate::clock::Clock;
use crate::config::{Config, MembersStore};
use crate::gateway::Gateway;
use crate::internal;
use crate::server::Server;
use crate::server::drain::Drained;
use crate::server::reload::{Hangup, Triggers};
use crate::telemetry::LogWriter;

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
        let keys = config.token.keys.clone();
        // Beside the database; where that is a server, beside the keys.
        let folder = match &config.store.members {
            MembersStore::Sqlite(database) => database.parent().unwrap_or(Path::new(".")).to_owned(),
            MembersStore::Postgres(_) => keys.clone(),
        };
        let gateway = Gateway::open(config, clock.clone(), log).await?;
        let token = AdminToken::open(&keys).context("admin.token in the key directory")?;
        let audit = AuditLog::open(&folder, clock).with_context(|| format!("audit.log in {}", folder.display()))?;
        let admin = admin::router(&gateway, token, audit);
        let server = Server::start(&gateway, admin, internal::router(&gateway)).await?;
        let (public, admin) = (server.addresses(), server.admin_address());
        let internal = server.internal_address();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), ?public, %admin, ?internal, "wxgate is ready");
        Ok(Self { gateway, server })
    }

    /// Not ready any more, no new connections, what is in flight finishes, at most `[server] drain_timeout`.
    pub async fn stop(self) -> Drained {
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

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config, log: LogWriter) -> anyhow::Result<()> {
    // Caught before anybody can know that we run: a signal during the start stops us cleanly, or reloads, too.
    let stop = Stop::catch()?;
    let hangup = Hangup::catch().context("cannot catch SIGHUP")?;
    let running = Running::start(config, Clock::system(), log).await?;
    let triggers = Triggers::start(&running.gateway, hangup);
    stop.told().await;
    drop(triggers);
    running.stop().await;
    Ok(())
}

/// SIGTERM and ctrl-c, caught for the life of the process: a second one does not cut the drain short.
#[derive(Debug)]
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
