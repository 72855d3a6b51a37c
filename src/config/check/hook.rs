//! `[login] hook`: whom to ask at each login.

use std::time::Duration;

use super::super::file;
use super::super::report::Report;
use super::super::section::Hook;
use super::super::url;
use super::super::value::{Wrong, duration};
use super::shared::time;

/// Longest deadline: somebody waits for the login.
const LONGEST: Duration = Duration::from_secs(30);

/// The hook; `None` when it has faults, which are reported.
pub(super) fn hook(file: &file::Hook, report: &mut Report<'_>) -> Option<Hook> {
    let url = file.url.as_deref().and_then(|text| report.read("login.hook.url", text, url::hook));
    let key = "login.hook.timeout";
    let timeout = time(report, key, file.timeout.as_ref(), "2s", duration);
    if timeout > LONGEST {
        report.refuse(key, &Wrong::new("is too long, for somebody waits for the login", "write at most \"30s\""));
    }
    Some(Hook { url: url?, timeout, on_failure: file.on_failure.unwrap_or_default() })
}
