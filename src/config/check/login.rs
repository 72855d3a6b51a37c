//! `[login]`: how often, and what members may do with their logins.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::file;
use super::super::report::Report;
use super::super::section::{Limit, LimitBy, Login};
use super::super::value::{Rate, rate};
use super::limit::limited;
use super::shared::scalar;

/// Calls that decrypt at once, unless said.
const BURST: NonZeroU32 = NonZeroU32::new(200).unwrap();

/// `[login]`.
pub(super) fn login(file: &file::Login, report: &mut Report<'_>) -> Login {
    let limit = file.limit.as_ref().and_then(|limit| {
        let by = limit.by.map(|by| match by {
            file::LoginLimitBy::Ip => LimitBy::Ip,
            file::LoginLimitBy::App => LimitBy::App,
        });
        limited("login.limit", by, limit.rate.as_deref(), limit.burst, report)
    });
    Login { limit, decrypt_limit: decrypt_limit(file, report) }
}

fn decrypt_limit(file: &file::Login, report: &mut Report<'_>) -> Limit {
    let limit = file.decrypt_limit.clone().unwrap_or_default();
    let second = Rate { count: NonZeroU32::MIN, per: Duration::from_secs(1) };
    let burst = limit.burst.and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new).unwrap_or(BURST);
    let rate = scalar(report, "login.decrypt_limit.rate", limit.rate.as_deref(), "10/s", rate).unwrap_or(second);
    Limit { by: LimitBy::Member, rate, burst }
}
