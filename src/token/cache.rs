//! Tokens that were verified a moment ago, so that the next request with the same token pays a look-up instead of a
//! signature.
//!
//! The key is the whole token: a token that differs in one byte is another one. What was refused is never stored. An
//! entry is given out only before its `exp`, by the clock of whoever asks, which [`VerifiedCache::get`] cannot be called
//! without. Revocation is not known here and must be asked on every hit. An entry is as good as the ring and the
//! configuration that verified it: each generation of those has its own cache.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::quality::{FoldHasher, RandomState};
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use super::{Claims, MAX_TOKEN};
use crate::clock::Timestamp;

/// Memory that a cache takes at most unless said otherwise, bytes: about 30,000 tokens.
pub const DEFAULT_CAPACITY: u64 = 64 * 1024 * 1024;

/// What an entry takes beside token and value, bytes: its place in the table, what is remembered of those that were there before, and
/// what the allocator rounds up. By what a full cache took of memory.
const OVERHEAD: usize = 400;

/// What an entry weighs, more or less, bytes: of how many the table is laid out for.
const USUAL: u64 = 2250;

/// As much of a token's end tells it from others, bytes.
const END: usize = 32;

/// What tokens are hashed by: the end is of the signature, which nobody chooses, and tells them apart as well as all of it. The whole
/// token is compared all the same.
pub(super) fn end(token: &[u8]) -> &[u8] {
    token.last_chunk::<END>().map_or(token, |end| end)
}

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

/// A bounded map from token to what it verified to; safe to share between threads. Who was asked for again stays, so that tokens that
/// are shown once, however many, put nobody out but one another (S3-FIFO, Yang et al., SOSP 2023). It is split into parts, each behind a
/// lock, which nothing that could panic runs under.
pub struct VerifiedCache<V> {
    entries: Cache<Bytes, Arc<V>, Weight, ByEnd>,
}

/// What entries weigh.
#[derive(Clone)]
struct Weight {
    /// Bytes beside the token and what is as long as it.
    value: usize,
}

impl<V> Weighter<Bytes, Arc<V>> for Weight {
    fn weight(&self, token: &Bytes, _: &Arc<V>) -> u64 {
        // The value's own heap is about the size of the token that it came from.
        (2 * token.len() + self.value) as u64
    }
}

/// Hashes a token by its length and its [`end`]. Seeded at random: nobody can choose tokens that collide.
#[derive(Clone, Default)]
struct ByEnd(RandomState);

impl BuildHasher for ByEnd {
    type Hasher = EndHasher;

    fn build_hasher(&self) -> EndHasher {
        EndHasher(self.0.build_hasher())
    }
}

struct EndHasher(FoldHasher<'static>);

impl Hasher for EndHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(end(bytes));
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

impl<V: Expires + Send + Sync + 'static> VerifiedCache<V> {
    /// An empty cache of at most `capacity` bytes, in which each value may come to hold `later` bytes after it was put in.
    pub fn new(capacity: u64, later: usize) -> Self {
        let usual = usize::try_from(capacity / (USUAL + later as u64)).unwrap_or(usize::MAX);
        let weight = Weight { value: size_of::<V>() + OVERHEAD + later };
        Self { entries: Cache::with(usual, capacity, weight, ByEnd::default(), DefaultLifecycle::default()) }
    }

    /// What `token` verified to, unless it has expired at `now`.
    pub fn get(&self, token: &[u8], now: Timestamp) -> Option<Arc<V>> {
        let found = self.entries.get(token)?;
        if now < found.expires_at() {
            return Some(found);
        }
        self.entries.remove(token);
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
        self.entries.remove(token);
    }

    /// How many tokens are held; for metrics.
    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Whether none is held.
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
    fn tokens_that_end_alike_are_told_apart() {
        let cache = VerifiedCache::default();
        let token = |n: u8| [&[n][..], &[b'x'; 2 * END]].concat();
        for (n, who) in (0..).zip(["alice", "bob", "carol"]) {
            cache.insert(Bytes::from(token(n)), Arc::new(Good(who, 100)));
        }
        for (n, who) in (0..).zip(["alice", "bob", "carol"]) {
            assert_eq!(cache.get(&token(n), at(99)).unwrap().0, who);
        }
        assert!(cache.get(&token(3), at(99)).is_none());
        assert!(cache.get(&[b'x'; 2 * END], at(99)).is_none());
    }

    #[test]
    fn memory_is_bounded_however_many_tokens_come() {
        let cache = VerifiedCache::new(64 * 1024, 0);
        for n in 0..10_000_u32 {
            cache.insert(token(n), Arc::new(Good("x", 100)));
            assert!(cache.entries.weight() <= 64 * 1024);
        }
        assert!(cache.len() > 30, "{}", cache.len());
    }

    /// Somebody who can have tokens minted, by logging in again and again, must not make the gateway check everybody else's anew.
    #[test]
    fn a_flood_of_tokens_that_are_shown_once_leaves_those_who_come_again() {
        let cache = VerifiedCache::new(4 * 1024 * 1024, 0);
        let good = |name| Arc::new(Good(name, 100));
        let room = u32::try_from(cache.entries.capacity()).unwrap() / (2 * 500 + 450);
        let (early, late, mut strangers) = (0..room / 4, room..room + room / 4, 1_000_000..);
        let mut flood =
            |many: u32| strangers.by_ref().take(many as usize).for_each(|n| cache.insert(token(n), good("stranger")));
        let comes = |n: u32| match cache.get(&token(n), at(1)) {
            Some(_) => true,
            None => {
                cache.insert(token(n), good("regular"));
                false
            }
        };
        flood(2 * room);
        for n in early.clone().chain(early.clone()) {
            comes(n);
        }
        // Who comes in the midst of it is forgotten at once, and then no more: that he was there is remembered for longer.
        for n in late.clone() {
            comes(n);
            flood(room / 8);
            comes(n);
        }
        flood(20 * room);
        let known = early.clone().chain(late.clone()).filter(|n| comes(*n)).count();
        assert!(known * 10 >= (early.len() + late.len()) * 9, "{known} of {}", early.len() + late.len());
    }

    fn token(n: u32) -> Bytes {
        format!("{n:0500}").into()
    }
}
