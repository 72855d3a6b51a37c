//! `[login]`: what members may do with their logins, and how often.

use std::num::NonZeroU32;

use super::super::file;
use super::super::report::Report;
use super::super::section::{DecryptLimit, Login};
use super::super::value::{Rate, rate};
use super::shared::scalar;

/// Calls at once, unless said.
const BURST: NonZeroU32 = NonZeroU32::new(200).unwrap();

/// `[login]`.
pub(super) fn login(file: &file::Login, report: &mut Report<'_>) -> Login {
    let limit = file.decrypt_limit.clone().unwrap_or_default();
    let second = Rate { count: NonZeroU32::MIN, per: std::time::Duration::from_secs(1) };
    let burst = limit.burst.and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new).unwrap_or(BURST);
    let rate = scalar(report, "login.decrypt_limit.rate", limit.rate.as_deref(), "10/s", rate).unwrap_or(second);
    Login { decrypt_limit: DecryptLimit { rate, burst } }
}
