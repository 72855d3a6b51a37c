//! Sessions in Redis: one server, sentinels or a cluster; for several instances side by side.
//!
//! *What is one step.* A session with all its refresh tokens is one key, and each change of it one script, so rotation,
//! repetition, reuse and the end of a session are decided once, whatever instance asks, in a cluster too. What a login
//! writes besides lies under other keys, maybe on other nodes; there the order of writing is such that a crash in between
//! leaves nothing that could be used: first what leads to the session (nothing follows a name that leads nowhere), then
//! the session, then what the client's repetition asks for. To end a session its revocation is written first, so that a
//! crash in between refuses too much and never too little.
//!
//! A server by itself, with sentinels or without, does all of a login in one script, and all of a refresh ([`at_once`]). The
//! steps above are for a cluster, and for whatever else does not let a script reach over keys.
//!
//! *How long.* Keys go by Redis's own expiry. Whether something has expired is decided by the caller's time, as in every
//! store; the expiry of a key is only when nobody will ask for it again.
//!
//! *What is kept for good* is as good as the server's settings: [`durability`] says at start what is weaker than "what was
//! answered is on disk".

mod at_once;
mod durability;
mod fault;
mod keys;
mod link;
mod lists;
mod news;
mod persons;
mod revocations;
mod session;
mod sessions;
mod shared;

#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::rand;
use redis::Script;

use super::Error;
use crate::config::Redis as Address;
use keys::Keys;
use link::Link;

/// Why Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be reached, or does not let us in.
    #[error("Redis at {place}: {source}; check `[store] sessions` and whether Redis runs")]
    Unreachable {
        /// Hosts and ports.
        place: String,
        /// What the client library says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It lacks what is needed.
    #[error("Redis at {place} is version {version}; 6.2 or newer is needed")]
    TooOld {
        /// Hosts and ports.
        place: String,
        /// As it says.
        version: String,
    },
    /// Keys would be thrown away when memory runs out.
    #[error(
        "Redis at {place} has maxmemory-policy {policy}: it would throw sessions and logouts away when memory runs \
         out; set `maxmemory-policy noeviction`"
    )]
    Evicts {
        /// Hosts and ports.
        place: String,
        /// As it says.
        policy: String,
    },
}

/// The store. Implements [`Sessions`](super::Sessions).
pub struct Redis {
    link: Link,
    keys: Keys,
    scripts: Scripts,
    birth_mark: String,
    /// Whether one script may do all of a login, and all of a refresh.
    at_once: bool,
    /// Notices of kinds that this version does not know.
    skipped: AtomicU64,
}

struct Scripts {
    open: Script,
    prolong: Script,
    rotate: Script,
    end: Script,
    revoke: Script,
    list: Script,
    keep_key: Script,
    reseal: Script,
    replace: Script,
    notify: Script,
    sweep: Script,
    release: Script,
    charge: Script,
    news: Script,
    log_in: Script,
    refresh: Script,
}

impl Scripts {
    fn new() -> Self {
        Self {
            open: Script::new(concat!(include_str!("scripts/open.lua"), "return open(KEYS[1], unpack(ARGV))")),
            prolong: Script::new(include_str!("scripts/prolong.lua")),
            rotate: Script::new(concat!(include_str!("scripts/rotate.lua"), "return rotate(KEYS[1], unpack(ARGV))")),
            end: Script::new(include_str!("scripts/end.lua")),
            revoke: Script::new(include_str!("scripts/revoke.lua")),
            list: Script::new(concat!(include_str!("scripts/list.lua"), "return list(KEYS[1], unpack(ARGV))")),
            keep_key: Script::new(concat!(
                include_str!("scripts/keep_key.lua"),
                "return keep_key(KEYS[1], unpack(ARGV))"
            )),
            reseal: Script::new(include_str!("scripts/reseal.lua")),
            replace: Script::new(include_str!("scripts/replace.lua")),
            notify: Script::new(include_str!("scripts/notify.lua")),
            sweep: Script::new(include_str!("scripts/sweep.lua")),
            release: Script::new(include_str!("scripts/release.lua")),
            charge: Script::new(include_str!("scripts/charge.lua")),
            news: Script::new(include_str!("scripts/news.lua")),
            log_in: Script::new(concat!(
                include_str!("scripts/open.lua"),
                include_str!("scripts/list.lua"),
                include_str!("scripts/keep_key.lua"),
                include_str!("scripts/log_in.lua")
            )),
            refresh: Script::new(concat!(include_str!("scripts/rotate.lua"), include_str!("scripts/refresh.lua"))),
        }
    }
}

impl Redis {
    /// Connects, looks at the server's settings, and gives it a birth mark if it has none.
    ///
    /// # Errors
    /// When it cannot be reached, is too old, or is set to throw keys away. The message says what to do.
    pub async fn open(address: &Address) -> Result<Arc<Self>, OpenError> {
        let place = place(address);
        let unreachable =
            |source: Box<dyn std::error::Error + Send + Sync>| OpenError::Unreachable { place: place.clone(), source };
        let link = Link::open(address.clone()).await.map_err(|e| unreachable(Box::new(e)))?;
        durability::check(&link, &place).await?;
        let keys = Keys::new(&address.prefix);
        let birth_mark = birth_mark(&link, &keys).await.map_err(|e| unreachable(Box::new(e)))?;
        let at_once = at_once::is_possible(&link, &keys).await;
        Ok(Arc::new(Self { link, keys, scripts: Scripts::new(), birth_mark, at_once, skipped: AtomicU64::new(0) }))
    }

    /// Drawn at random when the first instance came to this Redis: another mark is another Redis, or one that has lost
    /// everything.
    pub fn birth_mark(&self) -> &str {
        &self.birth_mark
    }

    /// Notices that were passed over, since a newer version has written them.
    pub fn skipped_notices(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("address", self.link.address()).finish_non_exhaustive()
    }
}

/// Hosts and ports, for people.
fn place(address: &Address) -> String {
    let nodes: Vec<String> = address.nodes.iter().map(|(host, port)| format!("{host}:{port}")).collect();
    nodes.join(",")
}

/// The mark that is there, or a new one.
async fn birth_mark(link: &Link, keys: &Keys) -> Result<String, Error> {
    let mut random = [0; 16];
    rand::fill(&mut random).map_err(|_| Error::Unavailable("the system gives no random numbers".into()))?;
    let fresh = format!("{:032x}", u128::from_be_bytes(random));
    let key = keys.birth();
    let mut put = redis::cmd("SET");
    put.arg(&key).arg(&fresh).arg("NX");
    let _: Option<String> = link.write(&key, &put).await?;
    link.read(redis::cmd("GET").arg(&key)).await
}
