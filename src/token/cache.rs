//! Tokens that were verified a moment ago, so that the next request with the same token pays a look-up instead of a
//! signature.
//!
//! The key is the whole token: a token that differs in one byte is another one. What was refused is never stored. An
//! entry is given out only before its `exp`, by the clock of whoever asks, which [`VerifiedCache::get`] cannot be called
//! without. Revocation is not known here and must be asked on every hit. An entry is as good as the ring and the
//! configuration that verified it: each generation of those has its own cache.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::quality::RandomState;
use moka::sync::Cache;

use super::{Claims, MAX_TOKEN};
use crate::clock::Timestamp;

/// Memory that a cache takes at most unless said otherwise, bytes: about 60,000 tokens.
pub const DEFAULT_CAPACITY: u64 = 64 * 1024 * 1024;

/// What an entry takes beside token and value, bytes: its place in the table, the queues and the frequency sketch.
/// Estimated; it keeps the bound honest for small values.
const OVERHEAD: usize = 300;

/// Something that is good until a point in time.
pub trait Expires {
    /// From this time on it is no longer good.
    fn expires_at(&self) -> Timestamp;
}

impl Expires for Claims {
    fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
}

/// A bounded map from token to what it verified to; safe to share between threads.
pub struct VerifiedCache<V> {
    entries: Cache<Bytes, Arc<V>, RandomState>,
}

impl<V: Expires + Send + Sync + 'static> VerifiedCache<V> {
    /// An empty cache of at most `capacity` bytes, in which each value may come to hold `later` bytes after it was put in.
    pub fn new(capacity: u64, later: usize) -> Self {
        let weigh = move |token: &Bytes, _: &Arc<V>| {
            // The value's own heap is about the size of the token that it came from.
            u32::try_from(2 * token.len() + size_of::<V>() + OVERHEAD + later).unwrap_or(u32::MAX)
        };
        // The hash is seeded at random: nobody can choose tokens that collide.
        let entries = Cache::builder().max_capacity(capacity).weigher(weigh).build_with_hasher(RandomState::default());
        Self { entries }
    }

    /// What `token` verified to, unless it has expired at `now`.
    pub fn get(&self, token: &[u8], now: Timestamp) -> Option<Arc<V>> {
        let found = self.entries.get(token)?;
        if now < found.expires_at() {
            return Some(found);
        }
        self.entries.invalidate(token);
        None
    }

    /// Keeps what `token` verified to. Evicts others when full.
    pub fn insert(&self, token: Bytes, verified: Arc<V>) {
        if token.len() <= MAX_TOKEN {
            self.entries.insert(token, verified);
        }
    }

    #[cfg(test)]
    pub(super) fn invalidate(&self, token: &[u8]) {
        self.entries.invalidate(token);
    }

    /// Roughly how many tokens are held; for metrics.
    pub fn len(&self) -> u64 {
        self.entries.entry_count()
    }

    /// Roughly whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<V: Expires + Send + Sync + 'static> Default for VerifiedCache<V> {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY, 0)
    }
}

impl<V> fmt::Debug for VerifiedCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifiedCache(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Good(&'static str, i64);

    impl Expires for Good {
        fn expires_at(&self) -> Timestamp {
            Timestamp::from_secs(self.1)
        }
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn a_token_is_found_by_every_byte_of_it() {
        let cache = VerifiedCache::default();
        cache.insert(Bytes::from_static(b"a.b.c"), Arc::new(Good("alice", 100)));
        assert_eq!(cache.get(b"a.b.c", at(99)).unwrap().0, "alice");
        for other in [&b"a.b.C"[..], b"a.b.", b"a.b.c ", b""] {
            assert!(cache.get(other, at(99)).is_none());
        }
    }

    #[test]
    fn an_expired_token_is_never_found_again_not_even_when_the_clock_goes_back() {
        let cache = VerifiedCache::default();
        cache.insert(Bytes::from_static(b"t"), Arc::new(Good("alice", 100)));
        assert!(cache.get(b"t", at(100)).is_none(), "exp itself is too late");
        assert!(cache.get(b"t", at(50)).is_none());
    }

    #[test]
    fn debug_output_shows_no_token() {
        let cache = VerifiedCache::default();
        cache.insert(Bytes::from_static(b"t"), Arc::new(Good("alice", 100)));
        assert_eq!(format!("{cache:?}"), "VerifiedCache(…)");
    }

    #[test]
    fn memory_is_bounded_however_many_tokens_come() {
        let cache = VerifiedCache::new(64 * 1024, 0);
        for n in 0..10_000_u32 {
            cache.insert(format!("{n:0500}").into(), Arc::new(Good("x", 100)));
        }
        cache.entries.run_pending_tasks();
        assert!(cache.entries.weighted_size() <= 64 * 1024);
        assert!(!cache.is_empty());
    }
}
