//! What makes a running gateway read its file again: SIGHUP, a save, and new certificates.
//!
//! The folder is watched, not the file: editors and configuration tools replace files, and a mounted volume swaps a link
//! somewhere above. Whatever happened, only other content counts. Certificates may lie anywhere, and whoever renews them
//! writes several files one after the other; they are looked at now and then, which also tries again after a moment at
//! which they did not fit together.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::config;
use crate::gateway::Gateway;

use super::supervisor;

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
    pub fn catch() -> std::io::Result<Self> {
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
        let (events, mut saved) = mpsc::channel::<()>(1);
        let watcher = watch(&path, events.clone());
        // What was saved between the start's own reading and the first watching would be missed.
        let _ = events.try_send(());
        let mut refused = None;
        let mut certificates = stamps(&gateway);
        let mut look = tokio::time::interval(CERTIFICATES);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(tokio::spawn(async move {
            let _alive = (watcher, events);
            loop {
                tokio::select! {
                    Some(()) = hangup.recv() => {}
                    Some(()) = saved.recv() => {
                        tokio::time::sleep(SETTLE).await;
                        while saved.try_recv().is_ok() {}
                        // No file: it is being replaced, and another event will tell.
                        let Some(now) = content(&path) else { continue };
                        if Some(now) == refused || now == gateway.current().config.digest {
                            continue;
                        }
                    }
                    _ = look.tick() => {
                        let now = stamps(&gateway);
                        if now == certificates {
                            continue;
                        }
                        certificates = now;
                    }
                    else => return,
                }
                let now = content(&path);
                // Refused or not, the gateway has said so in its log and counted it.
                supervisor::reloading();
                refused = if gateway.reload().await.is_err() { now } else { None };
                supervisor::ready();
            }
        }))
    }
}

/// What the file holds now.
fn content(path: &Path) -> Option<u64> {
    config::read(path).ok().map(|text| config::digest(&text))
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

fn watch(path: &Path, events: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let folder = path.parent()?;
    let name = path.file_name()?.to_owned();
    // A database in the same folder writes all the time. Names that begin with two dots are the links that a mounted
    // volume swaps.
    let concerns_us = move |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|n| n == name || n.to_string_lossy().starts_with(".."))
    };
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(&concerns_us)) {
            // One waiting event is enough: whatever it was, the file is read afterwards.
            let _ = events.try_send(());
        }
    });
    let started = watcher.and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    match started {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "the configuration cannot be watched; use SIGHUP or `wxgate reload` after a change");
            None
        }
    }
}
