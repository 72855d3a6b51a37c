//! Which apps exist, and their AppSecrets.

use std::collections::HashMap;

use super::bounded::Bounded;
use crate::ids::{AppId, Secret};

/// Apps that are learned; more than anybody tries by hand.
const MAX_LEARNED: usize = 10_000;

/// The apps of the simulator.
#[derive(Debug)]
pub(super) enum Apps {
    /// These and no others.
    Listed(HashMap<AppId, Secret<String>>),
    /// Any `wx…`; the first secret that is shown becomes the app's.
    Learned(Bounded<AppId, Secret<String>>),
}

impl Apps {
    pub(super) fn new(listed: Option<Vec<(AppId, Secret<String>)>>) -> Self {
        match listed {
            Some(apps) => Self::Listed(apps.into_iter().collect()),
            None => Self::Learned(Bounded::new(MAX_LEARNED)),
        }
    }

    /// Whether `secret` is the app's; else 40013 or 40125.
    pub(super) fn check(&mut self, appid: &str, secret: &str) -> Result<AppId, i64> {
        let appid = AppId::parse(appid).map_err(|_| 40013)?;
        let known = match self {
            Self::Listed(apps) => apps.get(&appid).ok_or(40013)?,
            Self::Learned(apps) => {
                if !appid.as_str().starts_with("wx") {
                    return Err(40013);
                }
                if apps.get(&appid).is_none() {
                    apps.insert(appid.clone(), Secret::new(secret.to_owned()));
                }
                apps.get(&appid).ok_or(40013)?
            }
        };
        if known.expose() == secret { Ok(appid) } else { Err(40125) }
    }

    /// The only app, where there is exactly one.
    pub(super) fn only(&self) -> Option<&AppId> {
        match self {
            Self::Listed(apps) if apps.len() == 1 => apps.keys().next(),
            Self::Listed(_) | Self::Learned(_) => None,
        }
    }
}
