//! `wxgate serve --takeover`: the place of a gateway that runs, without a moment in which nobody serves.
//!
//! Whatever can be found out beside the running one is found out before it is asked to leave. What only shows afterwards
//! ends this process, and then the other one, which has kept its sockets, goes on.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::time::sleep;

use crate::admin::AuditLog;
use crate::clock::Clock;
use crate::config::Config;
use crate::gateway;
use crate::keyfile;
use crate::server::handover::{Leaving, Predecessor, is_broken_off};
use crate::server::inherited::Inherited;
use crate::server::{self, Server};
use crate::telemetry::LogWriter;

use super::serve::{Running, Stop, admin_token, data_folder};

/// How often it is looked whether the database is free, or the sockets are offered: a handful of system calls.
const LOOK: Duration = Duration::from_millis(10);

/// How long after it began to listen a gateway may take to offer its sockets.
const BEGINS: Duration = Duration::from_secs(10);

/// Starts with the sockets of the running gateway, which leaves; or with those of a supervisor, once the other one has left.
/// `None` when this one was told to stop meanwhile.
pub(super) async fn run(
    config: Config,
    log: LogWriter,
    sockets: Inherited,
    file: Option<&Path>,
    stop: &Stop,
) -> anyhow::Result<Option<Running>> {
    let (mut predecessor, sockets) = if sockets.is_empty() {
        let Some(found) = find(file, &config, stop).await? else { return Ok(None) };
        found
    } else {
        (None, sockets)
    };
    let file = file.unwrap_or(Path::new(""));
    let mut leaving = None;
    // What only one process can have, the running one has to give up first.
    if gateway::holder(&config)?.is_some() {
        rehearse(&config, &sockets)?;
        if let Some(predecessor) = predecessor.take() {
            leaving = Some(leave(predecessor, file).await?);
        }
        if !free(&config, stop).await? {
            return Ok(None);
        }
    }
    let running = Running::start_on(config, Clock::system(), log, sockets).await?;
    if let Some(predecessor) = predecessor {
        // We accept already, from the same queues.
        leaving = Some(leave(predecessor, file).await?);
    }
    if let Some(leaving) = leaving
        && !leaving.serving().await
    {
        give_back(running).await;
        anyhow::bail!(
            "the running gateway has gone on, since this one did not serve within its [server] takeover_timeout"
        );
    }
    Ok(Some(running))
}

/// The other one goes on: lets it have everything, and finishes what has begun here.
async fn give_back(mut running: Running) {
    drop(running.server.take_sockets());
    drop(running.give_way());
    running.drain().await;
}

async fn leave(predecessor: Predecessor, file: &Path) -> anyhow::Result<Leaving> {
    predecessor.leave(file).await.context("the running gateway does not leave")
}

/// Whether this one could start, as far as that shows while another one runs.
fn rehearse(config: &Config, sockets: &Inherited) -> anyhow::Result<()> {
    let folder = data_folder(config);
    gateway::rehearse(config, &Clock::system())?;
    admin_token(&config.token.keys)?;
    keyfile::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    AuditLog::open(&folder, Clock::system()).with_context(|| format!("audit.log in {}", folder.display()))?;
    Server::rehearse(config, sockets)?;
    Ok(())
}

/// The running gateway, if there is one, and the sockets of it that this configuration wants. `None` when this one was told to
/// stop meanwhile.
async fn find(
    file: Option<&Path>,
    config: &Config,
    stop: &Stop,
) -> anyhow::Result<Option<(Option<Predecessor>, Inherited)>> {
    let file = file.context("--takeover needs a port in [server] listen: 0 is another one each time")?;
    let found = tokio::select! {
        () = stop.clone().told() => return Ok(None),
        found = offered(file, config) => found.with_context(|| format!("cannot take over by {}", file.display()))?,
    };
    let Some((predecessor, sockets)) = found else {
        tracing::info!("no running gateway offers its sockets: starting anew");
        return Ok(Some((None, Inherited::none())));
    };
    let first = config.server.listen.first().copied();
    anyhow::ensure!(
        first.is_some_and(|first| sockets.has(first)),
        "the gateway that offers its sockets at {} listens elsewhere: let both name the same first address in [server] listen",
        file.display(),
    );
    Ok(Some((Some(predecessor), sockets.only(&config.listeners()))))
}

/// What a running gateway offers. One that listens already and offers nothing has just begun, or is about to end: it is looked
/// for again, for a moment.
async fn offered(file: &Path, config: &Config) -> io::Result<Option<(Predecessor, Inherited)>> {
    let until = Instant::now() + BEGINS;
    let mut said = false;
    loop {
        let found = match Predecessor::find(file).await {
            // Another successor was before this one, and has it all.
            Err(error) if is_broken_off(&error) => None,
            found => found?,
        };
        if found.is_some() || !is_taken(config) || Instant::now() >= until {
            return Ok(found);
        }
        if !said {
            tracing::info!(patience = ?BEGINS, "somebody listens here and offers no sockets yet: looking again");
            said = true;
        }
        sleep(LOOK).await;
    }
}

/// Whether somebody listens where this configuration wants to.
fn is_taken(config: &Config) -> bool {
    let rehearsed = Server::rehearse(config, &Inherited::none());
    matches!(rehearsed, Err(server::Error::Listen { source, .. }) if source.kind() == io::ErrorKind::AddrInUse)
}

/// Waits until no other gateway has the database. False when this one was told to stop meanwhile.
pub(super) async fn free(config: &Config, stop: &Stop) -> anyhow::Result<bool> {
    let mut said = false;
    while let Some(holder) = gateway::holder(config)? {
        if !said {
            tracing::info!(%holder, "waiting for the gateway that has the database");
            said = true;
        }
        tokio::select! {
            () = stop.clone().told() => return Ok(false),
            () = sleep(LOOK) => {}
        }
    }
    Ok(true)
}
