//! How often WeChat said that an app has called too much: 45009 and 48006 (the quota of the day or month), 45011 (the limit
//! of the minute). Counted for all calls, those of services included.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Error, Meaning};
use crate::ids::AppId;

/// The counts. Outlives reloads.
#[derive(Debug, Default)]
pub struct Quotas {
    /// By AppID and errcode: bounded by the configured apps.
    counts: Mutex<BTreeMap<(String, i64), u64>>,
}

impl Quotas {
    /// Counts `error`, if it is one of these.
    pub fn note(&self, appid: &AppId, error: &Error) {
        if let Error::Errcode(errcode) = error
            && matches!(errcode.meaning, Meaning::QuotaExceeded | Meaning::RateLimited)
        {
            tracing::warn!(app = appid.as_str(), %errcode, "WeChat says that this app has called too much");
            *self.lock().entry((appid.as_str().to_owned(), errcode.code)).or_default() += 1;
        }
    }

    /// AppID, errcode, and how often.
    pub fn list(&self) -> Vec<(String, i64, u64)> {
        self.lock().iter().map(|((appid, code), count)| (appid.clone(), *code, *count)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, i64), u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
