//! How often something may happen, for each of many keys: GCRA over a table of fixed size.
//!
//! GCRA (ITU-T I.371, the "virtual scheduling" form) is a token bucket that is one number per key: when the bucket will be
//! full again. [`Quota::decide`] is the whole of it, and knows neither clock nor keys. [`Table`] keeps that number for as
//! many keys as it has room for. It never grows, whatever keys arrive: a full set gives up the key whose bucket is nearest
//! to full, which forgets the least, so that many fresh keys push each other out and not the one that is at its limit.
//!
//! `governor` does the first part as well. Its keyed store is a map that grows with every key until somebody sweeps it, and
//! it goes by its own clock; a bounded table would have been ours in any case, and what is left is ten lines.
//!
//! A key is known by its keyed hash alone: no address and no openid is kept here.

pub mod shared;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher as _, Hash};
use std::num::NonZeroU32;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use foldhash::quality::RandomState;
use http::HeaderValue;
use tokio::sync::Notify;

use shared::Owed;

/// How many keys a table of callers holds; 4 MiB when all of it is in use.
pub const CALLERS: usize = 1 << 18;

/// How many keys a table of few holds: apps, or a whole route.
pub const FEW: usize = 1 << 7;

/// Slots of one set: a key has its place in one of these.
const WAYS: usize = 8;

/// Slots of one shard, beyond which a table has several.
const SHARD: usize = 1 << 12;

/// A rate and a burst. Times are nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// From one event to the next in the long run.
    interval: u64,
    /// From an empty bucket to a full one.
    whole: u64,
    /// How long it may take at most until it is full: more than `whole` where others can have taken too much.
    reach: u64,
}

/// What [`Quota::decide`] decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may happen; then the bucket is full again at this time.
    Allowed(u64),
    /// Not before this much time has passed.
    Refused(Duration),
}

impl Quota {
    /// `count` events per `per` in the long run, `burst` at once after a rest.
    pub fn new(count: NonZeroU32, per: Duration, burst: NonZeroU32) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        // Rounded up, so that it is never more than was asked for.
        let interval = per.div_ceil(u64::from(count.get())).max(1);
        let whole = interval.saturating_mul(u64::from(burst.get()));
        Self { interval, whole, reach: whole }
    }

    /// Whether one more event may happen at `now`, when the bucket is full again at `full_at` (0: it has been for ever).
    pub fn decide(self, full_at: u64, now: u64) -> Decision {
        let after = self.bounded(full_at, now).max(now).saturating_add(self.interval);
        match (after - now).checked_sub(self.whole) {
            None | Some(0) => Decision::Allowed(after),
            Some(early) => Decision::Refused(Duration::from_nanos(early)),
        }
    }
}

impl Quota {
    /// `full_at`, if it can be of this quota; else that of an empty bucket. Whoever a stricter quota has put off does not
    /// wait any longer than this one asks.
    fn bounded(self, full_at: u64, now: u64) -> u64 {
        full_at.min(now.saturating_add(self.reach))
    }
}

/// One rule in force: its quota, and the table that outlives it.
#[derive(Debug)]
pub struct Limit {
    quota: Quota,
    table: Arc<Table>,
    /// `RateLimit-Policy`.
    policy: HeaderValue,
    /// What keys are made of: the name of the policy.
    by: &'static str,
    /// Hears of what is owed, where others count with it.
    told: Option<Arc<Notify>>,
}

/// Too often.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// When to come again.
    pub wait: Duration,
    /// `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers): burst, and seconds to regain it.
    pub policy: HeaderValue,
    /// `RateLimit`: nothing left, and seconds until there is.
    pub state: HeaderValue,
}

impl Limit {
    /// `count` per `per` and `burst` at once for each key in `table`; `by` is a word that says what keys are made of.
    pub fn new(by: &'static str, (count, per): (NonZeroU32, Duration), burst: NonZeroU32, table: Arc<Table>) -> Self {
        let quota = Quota::new(count, per, burst);
        let text = format!("\"{by}\";q={burst};w={}", seconds(Duration::from_nanos(quota.whole)));
        let policy = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"limit\""));
        Self { quota, table, policy, by, told: None }
    }

    /// Counts one event of `key` at `now`, on a clock that never goes back.
    ///
    /// # Errors
    /// When there were too many; it is not counted then.
    pub fn take(&self, key: impl Hash, now: Duration) -> Result<(), Refusal> {
        self.table.take(&key, self.quota, nanos(now)).map_err(|wait| self.refusal(wait))
    }

    fn refusal(&self, wait: Duration) -> Refusal {
        let state = format!("\"{}\";r=0;t={}", self.by, seconds(wait));
        let state = HeaderValue::try_from(state).unwrap_or(HeaderValue::from_static("\"limit\";r=0"));
        Refusal { wait, policy: self.policy.clone(), state }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Whole seconds, rounded up, at least one.
pub fn seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u64::MAX).max(1)
}

/// What a table has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Events that were let happen.
    pub allowed: u64,
    /// Events that were not.
    pub refused: u64,
    /// Keys given up for want of room before their bucket was full: they got a new burst.
    pub evicted: u64,
}

/// The buckets of one rule.
pub struct Table {
    shards: Box<[Shard]>,
    hasher: RandomState,
    /// Whether a key of it may owe something.
    owes: AtomicBool,
}

/// On cache lines of its own, so that two workers meet only where their keys do.
#[repr(align(128))]
struct Shard(Mutex<Buckets>);

struct Buckets {
    /// Hash of the key (0: never used) and when its bucket is full; in sets of [`WAYS`].
    slots: Box<[[u64; 2]]>,
    figures: Figures,
    /// By the hash; of a limit that is shared.
    owed: HashMap<u64, Owed>,
}

impl Table {
    /// Room for `capacity` keys, which is rounded up to a whole number of sets.
    pub fn new(capacity: usize) -> Self {
        let shards = capacity.div_ceil(SHARD).next_power_of_two();
        let each = capacity.div_ceil(shards).next_multiple_of(WAYS);
        // Zeroed by the system page by page, as keys arrive: room that is not used costs no memory.
        let slots = || vec![[0; 2]; each].into_boxed_slice();
        let buckets = || Buckets { slots: slots(), figures: Figures::default(), owed: HashMap::new() };
        let shards = (0..shards).map(|_| Shard(Mutex::new(buckets()))).collect();
        Self { shards, hasher: RandomState::default(), owes: AtomicBool::new(false) }
    }

    fn take(&self, key: &impl Hash, quota: Quota, now: u64) -> Result<(), Duration> {
        let (shard, hash) = self.place(key);
        shard.lock().take(hash, quota, now)
    }

    fn place(&self, key: &impl Hash) -> (&Shard, u64) {
        let hash = self.hasher.hash_one(key).max(1);
        (self.shard(hash), hash)
    }

    fn shard(&self, hash: u64) -> &Shard {
        // Other bits than for the set within it.
        &self.shards[(hash >> 48) as usize % self.shards.len()]
    }

    /// What it has done so far.
    pub fn figures(&self) -> Figures {
        self.shards.iter().map(|shard| shard.lock().figures).fold(Figures::default(), |sum, one| Figures {
            allowed: sum.allowed + one.allowed,
            refused: sum.refused + one.refused,
            evicted: sum.evicted + one.evicted,
        })
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

impl Shard {
    /// Held for a few instructions.
    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets {
    fn take(&mut self, hash: u64, quota: Quota, now: u64) -> Result<(), Duration> {
        let slot = self.slot(hash);
        let [holder, held] = self.slots[slot];
        let known = holder == hash;
        let full_at = if known { quota.bounded(held, now) } else { 0 };
        if known {
            self.slots[slot][1] = full_at;
        }
        match quota.decide(full_at, now) {
            Decision::Refused(wait) => {
                self.figures.refused += 1;
                Err(wait)
            }
            Decision::Allowed(full_at) => {
                self.figures.allowed += 1;
                self.figures.evicted += u64::from(!known && held > now);
                self.slots[slot] = [hash, full_at];
                Ok(())
            }
        }
    }

    /// The slot of this key; when it has none, that of its set whose bucket is nearest to full.
    fn slot(&self, hash: u64) -> usize {
        let start = (hash as u32 as usize % (self.slots.len() / WAYS)) * WAYS;
        let set = &self.slots[start..start + WAYS];
        let known = set.iter().position(|slot| slot[0] == hash);
        start + known.or_else(|| (0..WAYS).min_by_key(|&n| set[n][1])).unwrap_or(0)
    }
}

/// A rule's name: where it stands, and by what it counts.
pub type Name = (String, &'static str);

/// Every table in use, by the name of its rule. One for the life of the process: a reload that keeps a rule keeps who was
/// at its limit.
#[derive(Debug, Default)]
pub struct Tables {
    /// Locked while a configuration is built or metrics are read, never by a request.
    known: Mutex<BTreeMap<Name, Weak<Table>>>,
    told: Arc<Notify>,
}

impl Tables {
    /// The table of this rule: the one in use if there is one.
    pub fn get(&self, name: Name, capacity: usize) -> Arc<Table> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, table| table.strong_count() > 0);
        if let Some(table) = known.get(&name).and_then(Weak::upgrade) {
            return table;
        }
        let table = Arc::new(Table::new(capacity));
        known.insert(name, Arc::downgrade(&table));
        table
    }

    /// The tables in use and their figures.
    pub fn figures(&self) -> Vec<(Name, Figures)> {
        self.list().into_iter().map(|(name, table)| (name, table.figures())).collect()
    }

    fn list(&self) -> Vec<(Name, Arc<Table>)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter_map(|(name, table)| Some((name.clone(), table.upgrade()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn quota(count: u32, secs: u64, burst: u32) -> Quota {
        let n = |n| NonZeroU32::new(n).unwrap();
        Quota::new(n(count), Duration::from_secs(secs), n(burst))
    }

    #[test]
    fn a_bucket_gives_its_burst_and_refills_at_its_rate() {
        // 2/s, burst 3: half a second an event.
        let quota = quota(2, 1, 3);
        let half = SECOND / 2;
        let refused = |millis| Decision::Refused(Duration::from_millis(millis));
        let now = 100 * SECOND;
        for (full_at, expected) in [
            (0, Decision::Allowed(now + half)),
            (now, Decision::Allowed(now + half)),
            (now + half, Decision::Allowed(now + 2 * half)),
            (now + 2 * half, Decision::Allowed(now + 3 * half)),
            (now + 3 * half, refused(500)),
            (now + 3 * half - 1_000_000, refused(499)),
            // Left behind by a larger quota: no worse than an empty bucket.
            (now + 1000 * SECOND, refused(500)),
        ] {
            assert_eq!(quota.decide(full_at, now), expected, "{full_at}");
        }
    }

    #[test]
    fn a_rate_that_does_not_divide_evenly_is_rounded_to_the_strict_side() {
        let quota = quota(3, 1, 1);
        assert_eq!(quota.decide(0, 0), Decision::Allowed(333_333_334));
    }

    #[test]
    fn headers_tell_the_policy_and_the_wait() {
        let n = |n| NonZeroU32::new(n).unwrap();
        let table = Tables::default().get(("/a".to_owned(), "ip"), FEW);
        let limit = Limit::new("ip", (n(1), Duration::from_secs(10)), n(2), table);
        let now = Duration::from_secs(5);
        assert!(limit.take("a", now).is_ok() && limit.take("a", now).is_ok() && limit.take("b", now).is_ok());
        let refusal = limit.take("a", now + Duration::from_millis(100)).unwrap_err();
        assert_eq!(
            (refusal.policy.to_str().unwrap(), refusal.state.to_str().unwrap()),
            ("\"ip\";q=2;w=20", "\"ip\";r=0;t=10")
        );
        assert_eq!(refusal.wait, Duration::from_millis(9900));
    }

    #[test]
    fn random_keys_neither_grow_a_table_nor_free_the_one_at_its_limit() {
        let table = Table::new(64);
        let quota = quota(1, 60, 5);
        let room = |table: &Table| table.shards.iter().map(|s| s.lock().slots.len()).sum::<usize>();
        assert_eq!(room(&table), 64);
        while table.take(&"greedy", quota, SECOND).is_ok() {}
        for n in 0..100_000 {
            assert!(table.take(&n, quota, SECOND).is_ok());
        }
        assert_eq!(room(&table), 64);
        assert!(table.take(&"greedy", quota, SECOND).is_err());
        let figures = table.figures();
        assert!(figures.evicted > 99_000 && figures.evicted <= 100_000, "{figures:?}");
    }

    #[test]
    fn a_key_whose_bucket_is_full_again_is_forgotten_without_loss() {
        let table = Table::new(8);
        let quota = quota(1, 1, 1);
        for n in 0..1000_u64 {
            assert!(table.take(&n, quota, n * SECOND).is_ok());
        }
        assert_eq!(table.figures(), Figures { allowed: 1000, refused: 0, evicted: 0 });
    }

    #[test]
    fn a_rule_keeps_its_table_for_as_long_as_somebody_holds_it() {
        let tables = Tables::default();
        let name = || ("/a".to_owned(), "ip");
        let table = tables.get(name(), FEW);
        assert!(Arc::ptr_eq(&table, &tables.get(name(), FEW)));
        assert!(!Arc::ptr_eq(&table, &tables.get(("/a".to_owned(), "app"), FEW)));
        assert_eq!(tables.figures().len(), 1);
        drop(table);
        assert!(tables.figures().is_empty());
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_burst_and_rate_allow(
            count in 1..1000_u32,
            burst in 1..50_u32,
            gaps in proptest::collection::vec(prop_oneof![Just(0), 0..SECOND / 100, 0..2 * SECOND], 1..300),
        ) {
            let quota = quota(count, 1, burst);
            let (mut now, mut full_at, mut allowed) = (0, 0, Vec::new());
            for gap in gaps {
                now += gap;
                match quota.decide(full_at, now) {
                    Decision::Allowed(at) => {
                        full_at = at;
                        allowed.push(now);
                    }
                    Decision::Refused(wait) => {
                        // The wait is exact: then it is allowed, and not a nanosecond earlier.
                        let wait = u64::try_from(wait.as_nanos()).unwrap();
                        prop_assert!(matches!(quota.decide(full_at, now + wait), Decision::Allowed(_)));
                        prop_assert!(matches!(quota.decide(full_at, now + wait - 1), Decision::Refused(_)));
                    }
                }
            }
            for (i, from) in allowed.iter().enumerate() {
                for (n, to) in allowed[i..].iter().enumerate() {
                    let most = u64::from(burst) + u64::from(count) * (to - from) / SECOND;
                    prop_assert!((n as u64) < most, "{} in {} ns", n + 1, to - from);
                }
            }
        }
    }
}
