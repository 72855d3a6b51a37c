//! Which way a changed field goes: a function for each section, by the name of the field. What is not named here has no
//! direction, or none that can be told from the file.

use std::fmt::{Debug, Display};
use std::net::SocketAddr;
use std::time::Duration;

use super::diff::Effect;
use super::{
    Admin, App, Auth, HostPattern, Limit, LimitScope, Login, PathPattern, Proof, Route, Segment, Server, Service, Token,
};

/// A change, and which way it goes.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) effect: Effect,
    pub(super) what: String,
}

fn judged(effect: Effect, what: impl Into<String>) -> Option<Judged> {
    Some(Judged { effect, what: what.into() })
}

/// `[server]`.
pub(super) fn server(key: &str, old: &Server, new: &Server) -> Option<Judged> {
    match key {
        "tls" => match (!old.tls.is_on(), !new.tls.is_on()) {
            (true, false) => judged(Effect::Tighter, "tls on"),
            (false, true) => judged(Effect::Looser, "tls off: plain HTTP"),
            _ => None,
        },
        "trusted_proxies" => believed(key, &old.trusted_proxies, &new.trusted_proxies),
        "head_timeout" => time(key, old.head_timeout, new.head_timeout),
        "keep_alive" => time(key, old.keep_alive, new.keep_alive),
        "max_head" => most(key, Some(old.max_head), Some(new.max_head)),
        "max_uri" => most(key, Some(old.max_uri), Some(new.max_uri)),
        "max_body" => most(key, Some(old.max_body), Some(new.max_body)),
        "max_sockets_per_member" => most(key, old.max_sockets_per_member, new.max_sockets_per_member),
        _ => None,
    }
}

/// `[admin]`.
pub(super) fn admin(key: &str, old: &Admin, new: &Admin) -> Option<Judged> {
    let near = |address: SocketAddr| address.ip().is_loopback();
    let effect = match (near(old.listen), near(new.listen)) {
        (true, false) => Effect::Looser,
        (false, true) => Effect::Tighter,
        _ => Effect::Neutral,
    };
    (key == "listen").then(|| Judged { effect, what: format!("listen {} -> {}", old.listen, new.listen) })
}

/// `[[internal.service]]`.
pub(super) fn service(key: &str, old: &Service, new: &Service) -> Option<Judged> {
    match (key, &old.proof, &new.proof) {
        ("proof", Proof::From(old), Proof::From(new)) => believed("from", old, new),
        ("proof", ..) => judged(Effect::Neutral, "is known in another way"),
        ("wechat", ..) => {
            let paths = |service: &Service| service.wechat.iter().map(|path| path.text.clone()).collect::<Vec<_>>();
            granted(key, &paths(old), &paths(new))
        }
        _ => None,
    }
}

/// `[token]`.
pub(super) fn token(key: &str, old: &Token, new: &Token) -> Option<Judged> {
    match key {
        "issuer" => judged(Effect::Neutral, format!("issuer {} -> {}: every session ends", old.issuer, new.issuer)),
        "audience" => judged(Effect::Neutral, "audience changed: every session ends"),
        "access_ttl" => time(key, old.access_ttl, new.access_ttl),
        "refresh_ttl" => time(key, old.refresh_ttl, new.refresh_ttl),
        "refresh_grace" => time(key, old.refresh_grace, new.refresh_grace),
        "session_ttl" => time(key, old.session_ttl, new.session_ttl),
        "max_staleness" => time(key, old.max_staleness, new.max_staleness),
        "accept_bare" => switch(key, old.accept_bare, new.accept_bare),
        _ => None,
    }
}

/// `[login]`.
pub(super) fn login(key: &str, old: &Login, new: &Login) -> Option<Judged> {
    match key {
        "limit" => limit(key, old.limit, new.limit),
        "decrypt_limit" => limit(key, Some(old.decrypt_limit), Some(new.decrypt_limit)),
        "wafer2" if old.wafer2.is_some() != new.wafer2.is_some() => {
            switch(key, old.wafer2.is_some(), new.wafer2.is_some())
        }
        _ => None,
    }
}

/// `[[app]]`.
pub(super) fn app(key: &str, old: &App, new: &App) -> Option<Judged> {
    match key {
        "push" => match (&old.push, &new.push) {
            (Some(old), Some(new)) if old.aes_key.is_some() != new.aes_key.is_some() => match new.aes_key.is_some() {
                true => judged(Effect::Tighter, "push takes safe mode only"),
                false => judged(Effect::Looser, "push takes plain mode"),
            },
            (Some(_), Some(_)) => None,
            (old, new) => switch(key, old.is_some(), new.is_some()),
        },
        "web" => match (&old.web, &new.web) {
            (Some(old), Some(new)) if old.origins != new.origins => granted("origins", &old.origins, &new.origins),
            (Some(_), Some(_)) => None,
            (old, new) => switch("web login", old.is_some(), new.is_some()),
        },
        _ => None,
    }
}

/// `[[route]]`.
pub(super) fn route(key: &str, old: &Route, new: &Route) -> Option<Judged> {
    match key {
        "auth" => {
            let rank = |auth: Auth| match auth {
                Auth::None => 0,
                Auth::Optional => 1,
                Auth::Required => 2,
            };
            let name = |auth: Auth| format!("{auth:?}").to_lowercase();
            let effect = if rank(new.auth) > rank(old.auth) { Effect::Tighter } else { Effect::Looser };
            judged(effect, format!("auth {} -> {}", name(old.auth), name(new.auth)))
        }
        "roles" => conditions(key, &old.roles, &new.roles),
        "apps" => {
            let names = |route: &Route| route.apps.iter().map(|app| app.as_str().to_owned()).collect::<Vec<_>>();
            conditions(key, &names(old), &names(new))
        }
        "networks" => networks(old, new),
        "timeout" => time(key, old.timeout, new.timeout),
        "idle_timeout" => time(key, old.idle_timeout, new.idle_timeout),
        "total_timeout" => match (old.total_timeout, new.total_timeout) {
            (Some(old), Some(new)) => time(key, old, new),
            (None, Some(new)) => judged(Effect::Tighter, format!("{key} {}", humantime::format_duration(new))),
            _ => judged(Effect::Looser, format!("{key} removed: no limit")),
        },
        "max_body" => most(key, Some(old.max_body), Some(new.max_body)),
        "forward_token" => switch(key, old.forward_token, new.forward_token),
        "upgrade" => granted(key, &old.upgrade, &new.upgrade),
        "limit" => limit(key, old.limit, new.limit),
        "cors" => match (&old.cors, &new.cors) {
            (Some(old), Some(new)) if old.origins != new.origins => granted("cors origins", &old.origins, &new.origins),
            (Some(old), Some(new)) if old.credentials != new.credentials => {
                switch("cors credentials", old.credentials, new.credentials)
            }
            (Some(_), Some(_)) => None,
            (old, new) => switch(key, old.is_some(), new.is_some()),
        },
        _ => None,
    }
}

fn networks(old: &Route, new: &Route) -> Option<Judged> {
    let (a, b) = (&old.networks, &new.networks);
    let allow = (a.allow != b.allow).then(|| conditions("allow", &a.allow, &b.allow)).flatten();
    // A longer list of those who may not is a shorter one of those who may.
    let deny = (a.deny != b.deny)
        .then(|| granted("deny", &b.deny, &a.deny))
        .flatten()
        .map(|judged| Judged { what: list("deny", &a.deny, &b.deny), ..judged });
    match (allow, deny) {
        (Some(allow), Some(deny)) => {
            let effect = if allow.effect == deny.effect { allow.effect } else { Effect::Neutral };
            judged(effect, format!("{}, {}", allow.what, deny.what))
        }
        (allow, deny) => allow.or(deny),
    }
}

/// Longer is looser.
fn time(key: &str, old: Duration, new: Duration) -> Option<Judged> {
    let effect = if new > old { Effect::Looser } else { Effect::Tighter };
    judged(effect, format!("{key} {} -> {}", humantime::format_duration(old), humantime::format_duration(new)))
}

/// More is looser, and `None` is no limit.
fn most<T: PartialOrd + Display>(key: &str, old: Option<T>, new: Option<T>) -> Option<Judged> {
    let looser = match (&old, &new) {
        (Some(old), Some(new)) => new > old,
        (_, new) => new.is_none(),
    };
    let said = |limit: Option<T>| limit.map_or("no limit".to_owned(), |limit| limit.to_string());
    let effect = if looser { Effect::Looser } else { Effect::Tighter };
    judged(effect, format!("{key} {} -> {}", said(old), said(new)))
}

/// On is looser.
fn switch(key: &str, old: bool, new: bool) -> Option<Judged> {
    let said = |on: bool| if on { "on" } else { "off" };
    let effect = if new { Effect::Looser } else { Effect::Tighter };
    judged(effect, format!("{key} {} -> {}", said(old), said(new)))
}

fn limit(key: &str, old: Option<Limit>, new: Option<Limit>) -> Option<Judged> {
    let said = |limit: Limit| {
        let (count, per) = (limit.rate.count, humantime::format_duration(limit.rate.per));
        let scope = if limit.scope == LimitScope::Shared { ", shared" } else { "" };
        format!("{count} per {per}, burst {}, by {}{scope}", limit.burst, limit.by.name())
    };
    let (old, new) = match (old, new) {
        (None, Some(new)) => return judged(Effect::Tighter, format!("{key} {}", said(new))),
        (Some(_), None) => return judged(Effect::Looser, format!("{key} removed")),
        (Some(old), Some(new)) => (old, new),
        (None, None) => return None,
    };
    let pace = |limit: Limit| f64::from(limit.rate.count.get()) / limit.rate.per.as_secs_f64();
    let effect = match (pace(new).total_cmp(&pace(old)), new.burst.cmp(&old.burst)) {
        _ if old.by != new.by => Effect::Neutral,
        (a, b) if old.scope != new.scope => match new.scope {
            LimitScope::Shared if a.is_le() && b.is_le() => Effect::Tighter,
            LimitScope::Local if a.is_ge() && b.is_ge() => Effect::Looser,
            LimitScope::Shared | LimitScope::Local => Effect::Neutral,
        },
        (a, b) if a.is_le() && b.is_le() => Effect::Tighter,
        (a, b) if a.is_ge() && b.is_ge() => Effect::Looser,
        _ => Effect::Neutral,
    };
    judged(effect, format!("{key} {} -> {}", said(old), said(new)))
}

/// Who or what is let through: more is looser, and none is nobody.
fn granted<T: PartialEq + Debug>(key: &str, old: &[T], new: &[T]) -> Option<Judged> {
    let gains = new.iter().any(|item| !old.contains(item));
    let loses = old.iter().any(|item| !new.contains(item));
    let effect = match (gains, loses) {
        (true, false) => Effect::Looser,
        (false, true) => Effect::Tighter,
        _ => Effect::Neutral,
    };
    judged(effect, list(key, old, new))
}

/// Whose word is taken: more is looser. A network inside another is not looked for, so a narrower one is neutral.
fn believed<T: PartialEq + Debug>(key: &str, old: &[T], new: &[T]) -> Option<Judged> {
    granted(key, old, new)
}

/// Any of these is asked for: more is looser, and none is no condition at all.
fn conditions<T: PartialEq + Debug>(key: &str, old: &[T], new: &[T]) -> Option<Judged> {
    match (old.is_empty(), new.is_empty()) {
        (true, false) => judged(Effect::Tighter, list(key, old, new)),
        (false, true) => judged(Effect::Looser, list(key, old, new)),
        _ => granted(key, old, new),
    }
}

fn list<T: PartialEq + Debug>(key: &str, old: &[T], new: &[T]) -> String {
    let only = |of: &[T], not: &[T], sign: char| {
        of.iter().filter(|item| !not.contains(item)).map(|item| format!(" {sign}{item:?}")).collect::<String>()
    };
    format!("{key}{}{}", only(new, old, '+'), only(old, new, '-'))
}

/// Whether some request could match both. When in doubt, yes.
pub(super) fn overlap(a: &Route, b: &Route) -> bool {
    let hosts = a.hosts.is_empty() || b.hosts.is_empty() || a.hosts.iter().any(|a| b.hosts.iter().any(|b| meet(a, b)));
    let methods = a.methods.is_empty() || b.methods.is_empty() || a.methods.iter().any(|m| b.methods.contains(m));
    hosts && methods && paths(&a.path, &b.path)
}

fn meet(a: &HostPattern, b: &HostPattern) -> bool {
    match (a, b) {
        (HostPattern::Exact(a), HostPattern::Exact(b)) => a == b,
        (HostPattern::Exact(host), HostPattern::Suffix(suffix))
        | (HostPattern::Suffix(suffix), HostPattern::Exact(host)) => host.ends_with(suffix.as_str()),
        (HostPattern::Suffix(a), HostPattern::Suffix(b)) => a.ends_with(b.as_str()) || b.ends_with(a.as_str()),
    }
}

fn paths(a: &PathPattern, b: &PathPattern) -> bool {
    let same = |(a, b): (&Segment, &Segment)| a == b || matches!(a, Segment::Any) || matches!(b, Segment::Any);
    let (long, short) = if a.segments.len() >= b.segments.len() { (a, b) } else { (b, a) };
    let alike = long.segments.iter().zip(&short.segments).all(same);
    alike && (short.rest || (long.segments.len() == short.segments.len() && (long.rest || long.slash == short.slash)))
}
