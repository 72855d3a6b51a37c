//! What makes a running gateway read its file again: SIGHUP, a save, and new certificates.
//!
//! Whatever happened to the file, only other content counts. Certificates may lie anywhere, and whoever renews them
//! writes several files one after the other; they are looked at now and then, which also tries again after a moment at
//! which they did not fit together.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::config;
use crate::gateway::Gateway;

use super::supervisor;
use super::watch::Watch;

/// How long a save may take: some editors write in several steps.
const SETTLE: Duration = Duration::from_millis(100);

/// How late new certificates are noticed.
const CERTIFICATES: Duration = Duration::from_secs(10);

/// SIGHUP, caught. Uncaught it would end the process.
#[derive(Debug)]
pub struct Hangup(Signal);

impl Hangup {
    /// Starts catching.
    ///
    /// # Errors
    /// When signals cannot be caught.
    pub fn catch() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }
}

/// Reloads on SIGHUP, on save and on new certificates until it is dropped.
#[derive(Debug)]
pub struct Triggers(JoinHandle<()>);

impl Triggers {
    /// Starts to listen. Without a watcher (no inotify left) SIGHUP and `wxgate reload` still work, and the log says so.
    pub fn start(gateway: &Arc<Gateway>, Hangup(mut hangup): Hangup) -> Self {
        let gateway = Arc::clone(gateway);
        let path = gateway.current().config.source.clone();
        let mut watch = Watch::of(&path).inspect_err(unwatched).ok();
        let mut refused = None;
        let mut certificates = stamps(&gateway);
        let mut look = tokio::time::interval(CERTIFICATES);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(()) = hangup.recv() => {}
                    saved = changed(&mut watch) => {
                        if let Err(error) = saved {
                            unwatched(&error);
                            watch = None;
                            continue;
                        }
                        tokio::time::sleep(SETTLE).await;
                        if let Err(error) = watch.as_mut().map_or(Ok(()), Watch::look) {
                            unwatched(&error);
                            watch = None;
                        }
                        match content(&path) {
                            Ok(now) if Some(now) == refused || now == gateway.current().config.digest => continue,
                            Ok(_) => {}
                            // It is being replaced, and another event will tell.
                            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                            Err(error) => {
                                let file = path.display();
                                tracing::warn!(%error, %file, "the configuration has changed and cannot be read: the one before stays in force");
                                continue;
                            }
                        }
                    }
                    _ = look.tick() => {
                        // Its folder may be back.
                        watch = watch.or_else(|| Watch::of(&path).ok());
                        let now = stamps(&gateway);
                        if now == certificates {
                            continue;
                        }
                        certificates = now;
                    }
                }
                let now = content(&path).ok();
                // Refused or not, the gateway has said so in its log and counted it.
                supervisor::reloading();
                refused = if gateway.reload().await.is_err() { now } else { None };
                supervisor::ready();
            }
        }))
    }
}

/// What the file holds now.
fn content(path: &Path) -> io::Result<u64> {
    std::fs::read(path).map(|text| config::digest(&text))
}

impl Drop for Triggers {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// When the files of the certificates in force were written, and how long they are.
fn stamps(gateway: &Gateway) -> Vec<Option<(SystemTime, u64)>> {
    let stamp = |path: &Path| {
        let about = std::fs::metadata(path).ok()?;
        Some((about.modified().ok()?, about.len()))
    };
    let snapshot = gateway.current();
    let tls = &snapshot.config.server.tls;
    let own = tls.certificates.iter().flat_map(|one| [stamp(&one.cert), stamp(&one.key)]);
    own.chain(tls.clients.iter().map(|clients| stamp(&clients.ca))).collect()
}

/// Returns when the file may have changed; never, where nobody watches it.
async fn changed(watch: &mut Option<Watch>) -> io::Result<()> {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

fn unwatched(error: &io::Error) {
    tracing::warn!(%error, "the configuration cannot be watched; use SIGHUP or `wxgate reload` after a change");
}
