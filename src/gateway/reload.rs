//! A new `gateway.toml` in force, without a lost request; or nothing changes.

use std::sync::Arc;

use crate::config::{self, Config, Environment, Fault, Faults, Proof};

use super::{Error, Gateway, Snapshot};

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// The configuration's number.
    pub generation: u64,
    /// What is different, a line each; empty when the file says the same as before.
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
        let gateway = Arc::clone(self);
        let outcome = match tokio::task::spawn_blocking(move || gateway.reload_now()).await {
            Ok(outcome) => outcome,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
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

    fn reload_now(&self) -> Result<Reloaded, ReloadError> {
        let old = self.current();
        let path = &old.config.source;
        let text = config::read(path)?;
        let new = config::parse(text, path, &Environment::process())?;
        let faults = unchangeable(&old.config, &new);
        if !faults.is_empty() {
            return Err(Faults { file: path.clone(), faults }.into());
        }
        let changes = changes(&old.config, &new);
        let generation = old.generation + 1;
        // What the snapshot starts runs where everything else of its kind does.
        let _on_control = self.control.enter();
        let snapshot = Snapshot::new(new, &self.kept, generation)?;
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

/// What is different, for people.
fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let mut section = |name: &str, old: String, new: String| {
        if old != new {
            lines.push(format!("[{name}] changed"));
        }
    };
    section("server", format!("{:?}", old.server), format!("{:?}", new.server));
    section("internal", format!("{:?}", old.internal), format!("{:?}", new.internal));
    section("token", format!("{:?}", old.token), format!("{:?}", new.token));
    section("login", format!("{:?}", old.login), format!("{:?}", new.login));
    section("wechat", format!("{:?}", old.wechat), format!("{:?}", new.wechat));
    let secrets_changed = old.apps.iter().any(|app| {
        new.apps.iter().any(|other| other.appid == app.appid && other.secret.expose() != app.secret.expose())
    });
    if secrets_changed {
        lines.push("[[app]] a secret changed".to_owned());
    }
    if service_tokens(old) != service_tokens(new) {
        lines.push("[[internal.service]] a token changed".to_owned());
    }
    listed(
        &mut lines,
        "app",
        &keyed(&old.apps, |a| a.appid.as_str().to_owned()),
        &keyed(&new.apps, |a| a.appid.as_str().to_owned()),
    );
    listed(
        &mut lines,
        "upstream",
        &keyed(&old.upstreams, |u| u.name.clone()),
        &keyed(&new.upstreams, |u| u.name.clone()),
    );
    listed(&mut lines, "route", &routes(old), &routes(new));
    listed(&mut lines, "static", &keyed(&old.statics, |s| s.path.clone()), &keyed(&new.statics, |s| s.path.clone()));
    lines
}

type Keyed = std::collections::BTreeMap<String, String>;

/// The tokens of services, by name.
fn service_tokens(config: &Config) -> Vec<(&str, &str)> {
    let services = config.internal.iter().flat_map(|internal| &internal.services);
    services
        .filter_map(|service| match &service.proof {
            Proof::Token(token) => Some((service.name.as_str(), token.expose().as_str())),
            Proof::From(_) => None,
        })
        .collect()
}

fn keyed<T: std::fmt::Debug>(items: &[T], key: impl Fn(&T) -> String) -> Keyed {
    items.iter().map(|item| (key(item), format!("{item:?}"))).collect()
}

/// Routes by what they match; an upstream is named, because its place in the list may change.
fn routes(config: &Config) -> Keyed {
    config
        .routes
        .iter()
        .map(|route| {
            let upstream = config.upstreams.get(route.upstream).map_or("", |u| u.name.as_str());
            let mut plain = route.clone();
            plain.upstream = 0;
            (route.label(), format!("{plain:?} {upstream}"))
        })
        .collect()
}

fn listed(lines: &mut Vec<String>, name: &str, old: &Keyed, new: &Keyed) {
    for (key, value) in new {
        match old.get(key) {
            None => lines.push(format!("[[{name}]] {key} added")),
            Some(before) if before != value => lines.push(format!("[[{name}]] {key} changed")),
            Some(_) => {}
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        lines.push(format!("[[{name}]] {key} removed"));
    }
}
