//! The log of calls: what was asked of WeChat, without codes, secrets, tokens or bodies.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

/// Calls that are listed; the counts go on.
const MAX_LISTED: usize = 1000;

/// Calls to WeChat's paths since the start.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Calls {
    /// How many, by path. Paths that the simulator does not have are counted together as `(unknown)`.
    pub counts: BTreeMap<&'static str, u64>,
    /// The latest thousand, oldest first.
    pub calls: VecDeque<Call>,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    /// When the answer was ready, RFC 3339.
    pub at: String,
    /// HTTP method.
    pub method: String,
    /// Path without query.
    pub path: &'static str,
    /// The `appid` in the query, where there is one.
    pub appid: Option<String>,
    /// HTTP status.
    pub status: u16,
    /// What was answered; `None` is success.
    pub errcode: Option<i64>,
    /// Whether a fault was injected.
    pub fault: bool,
}

impl Calls {
    /// How many calls went to `path`.
    pub fn count(&self, path: &str) -> u64 {
        self.counts.get(path).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, call: Call) {
        *self.counts.entry(call.path).or_default() += 1;
        if self.calls.len() == MAX_LISTED {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }
}
