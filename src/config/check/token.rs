//! `[token]` and `[store]`: what a login yields, and where it is kept.

use std::path::Path;
use std::time::Duration;

use super::super::database;
use super::super::file;
use super::super::report::Report;
use super::super::section::{Algorithm, MembersStore, SessionsStore, Store, Token};
use super::super::url::issuer;
use super::super::value::{Wrong, duration_or_zero, lifetime};
use super::master_key;
use super::shared::{list, scalar, time};

/// `[token]`.
pub(super) fn token(mut file: file::Token, folder: &Path, report: &mut Report<'_>) -> Token {
    let mut audience = list(report, "token.audience", file.audience.as_ref(), one_audience);
    if audience.is_empty() {
        audience.push("wxgate".to_owned());
    }
    let keys = master_key::keys(&mut file, folder, report);
    let access_ttl = time(report, "token.access_ttl", file.access_ttl.as_ref(), "2h", lifetime);
    let max_staleness = file.max_staleness.as_ref();
    let max_staleness = max_staleness.and_then(|text| report.read("token.max_staleness", &text.0, lifetime));
    let token = Token {
        issuer: file.issuer.and_then(|text| report.read("token.issuer", &text, issuer)).unwrap_or_default(),
        audience,
        algorithm: file.algorithm.unwrap_or(Algorithm::Es256),
        format: file.format.unwrap_or_default(),
        keys,
        rotate_every: Some(time(report, "token.rotate_every", file.rotate_every.as_ref(), "90d", key_age))
            .filter(|age| !age.is_zero()),
        access_ttl,
        refresh_ttl: time(report, "token.refresh_ttl", file.refresh_ttl.as_ref(), "30d", lifetime),
        refresh_grace: time(report, "token.refresh_grace", file.refresh_grace.as_ref(), "30s", duration_or_zero),
        session_ttl: time(report, "token.session_ttl", file.session_ttl.as_ref(), "180d", lifetime),
        renew_within: Some(time(report, "token.renew_within", file.renew_within.as_ref(), "0s", duration_or_zero))
            .filter(|left| !left.is_zero()),
        max_staleness: max_staleness.unwrap_or(access_ttl),
        accept_bare: file.accept_bare.unwrap_or(false),
    };
    lifetimes(&token, report);
    token
}

/// The age of a key: no age at all, or long enough for the next one to be published before.
fn key_age(text: &str) -> Result<Duration, Wrong> {
    let age = duration_or_zero(text)?;
    if !age.is_zero() && age < Duration::from_secs(3600) {
        return Err(Wrong::new("is less than an hour", "write for example \"90d\", or \"0s\" for never"));
    }
    Ok(age)
}

fn one_audience(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > 256 || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Wrong::new("is not an audience", "write a name or a URL of visible ASCII, at most 256 bytes"));
    }
    Ok(text.to_owned())
}

/// The rules between the lives of a login's parts.
fn lifetimes(token: &Token, report: &mut Report<'_>) {
    let rules = [
        (
            ("token.access_ttl", token.access_ttl),
            token.access_ttl > token.session_ttl,
            ("token.session_ttl", token.session_ttl),
            "is longer than",
            "access tokens would outlive their session; write a shorter one, or raise token.session_ttl",
        ),
        (
            ("token.refresh_ttl", token.refresh_ttl),
            token.refresh_ttl < token.access_ttl,
            ("token.access_ttl", token.access_ttl),
            "is shorter than",
            "nobody could refresh once an access token has expired; write a longer one, or lower token.access_ttl",
        ),
        (
            ("token.refresh_grace", token.refresh_grace),
            token.refresh_grace >= token.refresh_ttl,
            ("token.refresh_ttl", token.refresh_ttl),
            "is not shorter than",
            "the reuse of a stolen token would never be noticed; write a shorter one, such as \"30s\"",
        ),
        (
            ("token.renew_within", token.renew_within.unwrap_or_default()),
            token.renew_within.unwrap_or_default() >= token.access_ttl,
            ("token.access_ttl", token.access_ttl),
            "is not shorter than",
            "every request would get a new token; write a shorter one, such as \"10m\"",
        ),
    ];
    let show = |duration: Duration| humantime::format_duration(duration).to_string();
    // Refused values are looked up before the first rule adds its own fault.
    let sound = rules.map(|((key, _), _, (other, _), ..)| !report.is_refused(key) && !report.is_refused(other));
    for (((key, value), broken, (other, limit), relation, consequence), sound) in rules.into_iter().zip(sound) {
        if broken && sound {
            let (value, limit) = (show(value), show(limit));
            report.fault(key, format!("{value} {relation} {other} ({limit}), so {consequence}"));
        }
    }
}

/// `[store]`.
pub(super) fn store(file: &file::Store, folder: &Path, report: &mut Report<'_>) -> Store {
    const DEFAULT: &str = "sqlite:data/wxgate.db";
    let of_members = |text: &str| database::members(text, folder);
    let of_sessions = |text: &str| database::sessions(text, folder);
    Store {
        members: scalar(report, "store.members", file.members.as_deref(), DEFAULT, of_members)
            .unwrap_or_else(|| MembersStore::Sqlite(folder.to_owned())),
        sessions: scalar(report, "store.sessions", file.sessions.as_deref(), DEFAULT, of_sessions)
            .unwrap_or_else(|| SessionsStore::Sqlite(folder.to_owned())),
    }
}
