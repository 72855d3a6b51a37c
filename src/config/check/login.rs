//! `[login]`: how often, and what members may do with their logins.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::file;
use super::super::pattern::{exact_path, path};
use super::super::report::Report;
use super::super::section::{Limit, LimitBy, LimitScope, Login, Route, Server, Static};
use super::super::value::{Rate, Wrong, rate};
use super::limit::limited;
use super::server::reserved;
use super::shared::scalar;

/// Calls that decrypt at once, unless said.
const BURST: NonZeroU32 = NonZeroU32::new(200).unwrap();

const WAFER2: &str = "login.wafer2";

/// `[login]`.
pub(super) fn login(
    file: &file::Login,
    server: &Server,
    routes: &[Option<Route>],
    statics: &[Static],
    report: &mut Report<'_>,
) -> Login {
    let limit = file.limit.as_ref().and_then(|limit| {
        let by = limit.by.map(|by| match by {
            file::LoginLimitBy::Ip => LimitBy::Ip,
            file::LoginLimitBy::App => LimitBy::App,
        });
        limited("login.limit", by, (limit.rate.as_deref(), limit.burst, limit.scope), report)
    });
    let wafer2 = file.wafer2.as_deref().and_then(|text| report.read(WAFER2, text, plain_path));
    if let Some(what) = wafer2.as_deref().and_then(|path| taken(path, server, routes, statics, report)) {
        report.fault(WAFER2, what);
    }
    Login {
        limit,
        decrypt_limit: decrypt_limit(file, report),
        merge_by_unionid: file.merge_by_unionid.unwrap_or_default(),
        max_sessions: file.max_sessions.and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new),
        hook: file.hook.as_ref().and_then(|hook| super::hook::hook(hook, report)),
        wafer2,
    }
}

fn decrypt_limit(file: &file::Login, report: &mut Report<'_>) -> Limit {
    let limit = file.decrypt_limit.clone().unwrap_or_default();
    let second = Rate { count: NonZeroU32::MIN, per: Duration::from_secs(1) };
    let burst = limit.burst.and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new).unwrap_or(BURST);
    let rate = scalar(report, "login.decrypt_limit.rate", limit.rate.as_deref(), "10/s", rate).unwrap_or(second);
    Limit { by: LimitBy::Member, rate, burst, scope: LimitScope::Local }
}

fn plain_path(text: &str) -> Result<String, Wrong> {
    let exact = exact_path(text)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'.');
    if exact == "/" || !exact.bytes().all(plain) {
        return Err(Wrong::new("is no plain path", "write one such as \"/wafer2/login\""));
    }
    Ok(exact)
}

/// Who else answers `exact`, if anybody.
fn taken(
    exact: &str,
    server: &Server,
    routes: &[Option<Route>],
    statics: &[Static],
    report: &Report<'_>,
) -> Option<String> {
    let pattern = path(exact).ok()?;
    if let Some(own) = reserved(server, &pattern) {
        return Some(format!("lies in {own}, where the gateway has other endpoints; choose another path"));
    }
    if statics.iter().any(|file| file.path == exact) {
        return Some("is also the path of a [[static]]; choose another path".to_owned());
    }
    let same = |route: &Route| {
        (&route.path.segments, route.path.rest, route.path.slash) == (&pattern.segments, false, pattern.slash)
    };
    let m = routes.iter().position(|route| route.as_ref().is_some_and(same))?;
    let other = report.refer(&format!("route[{m}].path"));
    Some(format!("is also the exact path of {other}, which would never be reached; choose another path"))
}
