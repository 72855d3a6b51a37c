//! What a change of `gateway.toml` does: a line for each change, tighter, looser or neutral.
//!
//! Every field of every section is held against its former self by its debug text, so that a key that somebody adds
//! tomorrow is told about too, as neutral; [`judge`] knows the direction of those where there is one. What
//! the debug text hides (secrets, values of headers) is compared apart and never shown. "Neutral" says that it changes
//! something, or that which way cannot be told.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};

use super::judge::{self, Judged};
use super::{App, Config, HeaderRules, Proof, Route};

/// Which way a change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Less is allowed than before.
    Tighter,
    /// More is allowed.
    Looser,
    /// Neither, or it cannot be told.
    Neutral,
}

impl Effect {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tighter => "tighter",
            Self::Looser => "looser",
            Self::Neutral => "neutral",
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which way it goes.
    pub effect: Effect,
    /// Where and what.
    pub what: String,
}

/// One line: `looser  [[route]] /api/*: auth required -> optional`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<7} {}", self.effect.name(), self.what)
    }
}

/// What is different in `new`, in the order of the file; empty when both say the same.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Changes(Vec::new());
    changes.fields("[server]", &old.server, &new.server, |key| judge::server(key, &old.server, &new.server));
    changes.fields("[admin]", &old.admin, &new.admin, |key| judge::admin(key, &old.admin, &new.admin));
    changes.internal(old, new);
    changes.fields("[token]", &old.token, &new.token, |key| judge::token(key, &old.token, &new.token));
    changes.master_keys(old, new);
    changes.fields("[store]", &old.store, &new.store, |_| None);
    changes.fields("[login]", &old.login, &new.login, |key| judge::login(key, &old.login, &new.login));
    changes.fields("[wechat]", &old.wechat, &new.wechat, |_| None);
    changes.fields("[telemetry]", &old.telemetry, &new.telemetry, |_| None);
    if old.telemetry != new.telemetry && format!("{:?}", old.telemetry) == format!("{:?}", new.telemetry) {
        changes.add(Effect::Neutral, "[telemetry] a value in headers changed");
    }
    let appid = |app: &App| app.appid.as_str().to_owned();
    changes.listed("app", (&old.apps, &new.apps), appid, [Effect::Looser, Effect::Tighter], |changes, at, a, b| {
        changes.fields(at, a, b, |key| judge::app(key, a, b));
        changes.secrets(at, a, b);
    });
    let either = [Effect::Neutral; 2];
    changes.listed(
        "upstream",
        (&old.upstreams, &new.upstreams),
        |u| u.name.clone(),
        either,
        |changes, at, a, b| {
            changes.fields(at, a, b, |_| None);
        },
    );
    changes.routes(old, new);
    changes.listed(
        "static",
        (&old.statics, &new.statics),
        |s| s.path.clone(),
        either,
        |changes, at, a, b| {
            changes.fields(at, a, b, |_| None);
        },
    );
    changes.whole("[[error_page]]", &old.error_pages, &new.error_pages);
    changes.rest(old, new);
    changes.0
}

/// The tables that [`diff`] looks into; others are told about as a whole.
const KNOWN: [&str; 15] = [
    "source",
    "digest",
    "server",
    "admin",
    "internal",
    "token",
    "store",
    "login",
    "wechat",
    "telemetry",
    "apps",
    "upstreams",
    "routes",
    "statics",
    "error_pages",
];

struct Changes(Vec<Change>);

impl Changes {
    fn add(&mut self, effect: Effect, what: impl Into<String>) {
        self.0.push(Change { effect, what: what.into() });
    }

    /// Each field of a section that is not as it was.
    fn fields<T: Debug>(&mut self, at: &str, old: &T, new: &T, judge: impl Fn(&str) -> Option<Judged>) {
        let (old, new) = (format!("{old:#?}"), format!("{new:#?}"));
        if old == new {
            return;
        }
        let (old, new) = (split(&old), split(&new));
        for (key, after) in &new {
            if old.get(key) == Some(after) {
                continue;
            }
            match judge(key) {
                Some(judged) => self.add(judged.effect, format!("{at} {}", judged.what)),
                None => self.add(Effect::Neutral, format!("{at} {key} changed")),
            }
        }
    }

    fn whole<T: Debug>(&mut self, at: &str, old: &T, new: &T) {
        if format!("{old:?}") != format!("{new:?}") {
            self.add(Effect::Neutral, format!("{at} changed"));
        }
    }

    /// Tables that a later version of this file knows and this function does not.
    fn rest(&mut self, old: &Config, new: &Config) {
        let (old, new) = (format!("{old:#?}"), format!("{new:#?}"));
        let (old, new) = (split(&old), split(&new));
        for (key, after) in new.iter().filter(|(key, _)| !KNOWN.contains(key)) {
            if old.get(key) != Some(after) {
                self.add(Effect::Neutral, format!("[{key}] changed"));
            }
        }
    }

    /// Entries of a list, told apart by `key`: those that came, those that went, and what is different in the rest.
    fn listed<T>(
        &mut self,
        name: &str,
        (old, new): (&[T], &[T]),
        key: impl Fn(&T) -> String,
        [added, removed]: [Effect; 2],
        compare: impl Fn(&mut Self, &str, &T, &T),
    ) {
        for item in new {
            let own = key(item);
            match old.iter().find(|before| key(before) == own) {
                Some(before) => compare(self, &format!("[[{name}]] {own}:"), before, item),
                None => self.add(added, format!("[[{name}]] {own} added")),
            }
        }
        for item in old.iter().filter(|before| !new.iter().any(|item| key(item) == key(before))) {
            self.add(removed, format!("[[{name}]] {} removed", key(item)));
        }
    }

    fn internal(&mut self, old: &Config, new: &Config) {
        let (a, b) = match (&old.internal, &new.internal) {
            (None, None) => return,
            (None, Some(_)) => return self.add(Effect::Looser, "[internal] added: services may ask the gateway"),
            (Some(_), None) => return self.add(Effect::Tighter, "[internal] removed: services are not answered"),
            (Some(a), Some(b)) => (a, b),
        };
        if a.listen != b.listen {
            self.add(Effect::Neutral, format!("[internal] listen {} -> {}", a.listen, b.listen));
        }
        let both = [Effect::Looser, Effect::Tighter];
        self.listed(
            "internal.service",
            (&a.services, &b.services),
            |s| s.name.clone(),
            both,
            |changes, at, a, b| {
                changes.fields(at, a, b, |key| judge::service(key, a, b));
                if let (Proof::Token(old), Proof::Token(new)) = (&a.proof, &b.proof)
                    && old.expose() != new.expose()
                {
                    changes.add(Effect::Neutral, format!("{at} token changed"));
                }
            },
        );
    }

    /// Secrets of an app, which its debug text hides.
    fn secrets(&mut self, at: &str, old: &App, new: &App) {
        if old.secret.expose() != new.secret.expose() {
            self.add(Effect::Neutral, format!("{at} secret changed"));
        }
        if let (Some(old), Some(new)) = (&old.push, &new.push) {
            let key = |push: &super::Push| push.aes_key.as_ref().map(|key| key.expose().clone());
            if old.token.expose() != new.token.expose()
                || (key(old) != key(new) && key(old).is_some() == key(new).is_some())
            {
                self.add(Effect::Neutral, format!("{at} a secret of push changed"));
            }
        }
    }

    /// As well.
    fn master_keys(&mut self, old: &Config, new: &Config) {
        let (old, new) = (&old.token.keys, &new.token.keys);
        if old != new && format!("{old:?}") == format!("{new:?}") {
            self.add(Effect::Neutral, "[token] a master key changed");
        }
    }

    fn routes(&mut self, old: &Config, new: &Config) {
        for route in &new.routes {
            let label = route.label();
            let at = format!("[[route]] {label}:");
            match old.routes.iter().find(|before| before.label() == label) {
                Some(before) => self.route(&at, (old, before), (new, route)),
                // What another route has taken so far may be taken by this one, with other conditions.
                None if old.routes.iter().any(|other| judge::overlap(other, route)) => {
                    self.add(
                        Effect::Neutral,
                        format!("[[route]] {label} added: it takes over from a route that matched before"),
                    );
                }
                None => self.add(Effect::Looser, format!("[[route]] {label} added")),
            }
        }
        for route in old.routes.iter().filter(|before| !new.routes.iter().any(|route| route.label() == before.label()))
        {
            let label = route.label();
            match new.routes.iter().any(|other| judge::overlap(other, route)) {
                true => self.add(Effect::Neutral, format!("[[route]] {label} removed: another route may match now")),
                false => self.add(Effect::Tighter, format!("[[route]] {label} removed")),
            }
        }
    }

    fn route(&mut self, at: &str, (old, a): (&Config, &Route), (new, b): (&Config, &Route)) {
        let name = |config: &Config, route: &Route| {
            route.upstream.and_then(|n| config.upstreams.get(n)).map_or("none".to_owned(), |u| u.name.clone())
        };
        let (before, after) = (name(old, a), name(new, b));
        if before != after {
            self.add(Effect::Neutral, format!("{at} upstream {before} -> {after}"));
        }
        // The place of an upstream in the list may change, and is nobody's business.
        let (mut a, mut b) = (a.clone(), b.clone());
        (a.upstream, b.upstream) = (None, None);
        // What follows the server's limit has been told there.
        if a.max_body == old.server.max_body && b.max_body == new.server.max_body {
            a.max_body = b.max_body;
        }
        self.fields(at, &a, &b, |key| judge::route(key, &a, &b));
        let same = |old: &HeaderRules, new: &HeaderRules| old == new || format!("{old:?}") != format!("{new:?}");
        if !same(&a.headers.request, &b.headers.request) || !same(&a.headers.response, &b.headers.response) {
            self.add(Effect::Neutral, format!("{at} a value in headers changed"));
        }
    }
}

/// The fields of a struct by name, from its alternate debug text: those lines that are indented once.
fn split(debug: &str) -> BTreeMap<&str, &str> {
    let mut fields = BTreeMap::new();
    let mut open: Option<(&str, usize)> = None;
    let mut at = 0;
    for line in debug.split_inclusive('\n') {
        let name = line.strip_prefix("    ").filter(|rest| !rest.starts_with([' ', '}', ']', ')']));
        if let Some((name, _)) = name.and_then(|rest| rest.split_once(':'))
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && let Some((name, start)) = open.replace((name, at))
        {
            fields.insert(name, &debug[start..at]);
        }
        at += line.len();
    }
    if let Some((name, start)) = open {
        fields.insert(name, &debug[start..]);
    }
    fields
}

#[cfg(test)]
mod tests;
