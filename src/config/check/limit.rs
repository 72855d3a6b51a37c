//! Rate limits, wherever they stand.

use std::num::NonZeroU32;

use super::super::file;
use super::super::report::Report;
use super::super::section::{Auth, Limit, LimitBy, LimitScope, SessionsStore};
use super::super::value::{Wrong, rate};

/// `limit` of a route with this `auth`.
pub(super) fn route(file: &file::RouteLimit, at: &str, auth: Auth, report: &mut Report<'_>) -> Option<Limit> {
    if auth == Auth::None && file.by.is_some_and(LimitBy::needs_caller) {
        let wrong = Wrong::new(
            "needs a caller, and auth = \"none\" reads no token",
            "write by = \"ip\" or \"route\", or another auth",
        );
        report.refuse(&format!("{at}.by"), &wrong);
    }
    limited(at, file.by, (file.rate.as_deref(), file.burst, file.scope), report)
}

/// The limit at `at`.
pub(super) fn limited(
    at: &str,
    by: Option<LimitBy>,
    (text, burst, scope): (Option<&str>, Option<i64>, Option<LimitScope>),
    report: &mut Report<'_>,
) -> Option<Limit> {
    let rate = report.read(&format!("{at}.rate"), text?, rate)?;
    let burst = burst.and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new).unwrap_or(rate.count);
    Some(Limit { by: by?, rate, burst, scope: scope.unwrap_or_default() })
}

/// Limits in common need a store that all instances have in common.
pub(super) fn scopes(sessions: &SessionsStore, limits: &[(String, Option<LimitScope>)], report: &mut Report<'_>) {
    for (at, scope) in limits {
        if *scope == Some(LimitScope::Shared) && !matches!(sessions, SessionsStore::Redis(_)) {
            let wrong = Wrong::new("needs a Redis that all instances share", "set store.sessions, or write \"local\"");
            report.refuse(&format!("{at}.scope"), &wrong);
        }
    }
}
