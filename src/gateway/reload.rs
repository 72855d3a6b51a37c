//! A new `gateway.toml` in force, without a lost request; or nothing changes.

use std::sync::Arc;

use crate::config::diff::diff;
use crate::config::{self, Config, Environment, Fault, Faults};

use super::{Error, Gateway, Snapshot, key_care, key_shelf};

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// The configuration's number.
    pub generation: u64,
    /// What is different, a line each, as `wxgate diff` says it; empty when the file says the same as before.
    pub changes: Vec<String>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file has faults.
    #[error("{0}")]
    Faults(#[from] Faults),
    /// The file is good, but what it names cannot be opened.
    #[error("{0}")]
    Open(#[from] Error),
}

impl Gateway {
    /// Reads the file again and puts it in force.
    ///
    /// # Errors
    /// When the file has faults, changes what only a restart can change, or names keys that cannot be opened. The old
    /// configuration stays in force.
    pub async fn reload(self: &Arc<Self>) -> Result<Reloaded, ReloadError> {
        let _one_at_a_time = self.reloading.lock().await;
        let outcome = self.reload_now().await;
        let metrics = &self.kept.metrics;
        match &outcome {
            Ok(reloaded) => {
                metrics.reloads.inc();
                tracing::info!(generation = reloaded.generation, changes = ?reloaded.changes, "configuration reloaded");
            }
            Err(error) => {
                metrics.reload_faults.inc();
                tracing::error!(%error, "the new configuration was refused; the old one stays in force");
            }
        }
        outcome
    }

    async fn reload_now(self: &Arc<Self>) -> Result<Reloaded, ReloadError> {
        let gateway = Arc::clone(self);
        let new = key_shelf::blocking(move || gateway.read_anew()).await?;
        let (section, clock) = (new.token.clone(), self.kept.clock.clone());
        let steps = self.kept.keys.change(move |shelf| key_care::made(&section, shelf, &clock)).await?;
        key_care::told(&steps);
        let gateway = Arc::clone(self);
        key_shelf::blocking(move || gateway.put_in_force(new)).await
    }

    fn read_anew(&self) -> Result<Config, ReloadError> {
        let old = self.current();
        let path = &old.config.source;
        let text = config::read(path)?;
        let new = config::parse(text, path, &Environment::process())?;
        let faults = unchangeable(&old.config, &new);
        if !faults.is_empty() {
            return Err(Faults { file: path.clone(), faults }.into());
        }
        Ok(new)
    }

    fn put_in_force(&self, new: Config) -> Result<Reloaded, ReloadError> {
        let old = self.current();
        let changes = diff(&old.config, &new).iter().map(ToString::to_string).collect();
        let generation = old.generation + 1;
        // What the snapshot starts runs where everything else of its kind does.
        let _on_control = self.control.enter();
        let snapshot = Snapshot::new(new, &self.kept, generation)?;
        self.kept.vault.reread().map_err(Error::Vault)?;
        let snapshot = Arc::new(snapshot);
        self.snapshot.store(Arc::clone(&snapshot));
        self.kept.sockets.recheck(&snapshot.config.routes);
        self.kept.streams.recheck(&snapshot.config.routes);
        Ok(Reloaded { generation, changes })
    }
}

/// What holds sockets, threads or files open for the life of the process.
fn unchangeable(old: &Config, new: &Config) -> Vec<Fault> {
    let checks = [
        ("server.listen", old.server.listen != new.server.listen),
        ("server.workers", old.server.workers != new.server.workers),
        ("server.http_redirect", old.server.tls.redirect != new.server.tls.redirect),
        ("admin.listen", old.admin.listen != new.admin.listen),
        ("internal.listen", old.internal.as_ref().map(|i| i.listen) != new.internal.as_ref().map(|i| i.listen)),
        ("token.keys", old.token.keys != new.token.keys),
        ("store.members", old.store.members != new.store.members),
        ("store.sessions", old.store.sessions != new.store.sessions),
    ];
    checks
        .into_iter()
        .filter(|(_, changed)| *changed)
        .map(|(key, _)| Fault {
            line: None,
            key: key.to_owned(),
            what: "cannot change while the gateway runs; put the old value back, or restart".to_owned(),
        })
        .collect()
}
