//! Limits that several instances have in common: decided here at once, settled with the others right after.
//!
//! A request asks the table of its own process and nobody else. What it lets happen is owed, and somebody who may wait
//! (`gateway/shared_limits.rs`) charges it to the bucket that all have in common, and tells the table how full that one is.
//! So each instance knows of the others what they had done one exchange ago, and N instances together let happen at
//! most rate and burst, and what the other N - 1 do within one exchange, which is never more than a burst of each. That is
//! charged, too, beyond an empty bucket: in the long run it is the rate. Whoever hears of nobody counts for himself.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Buckets, Limit, Name, Quota, Refusal, Table, Tables};

/// Keys of one shard that may owe something at a time.
const MAX_OWING: usize = 1 << 12;

/// How many whole buckets may be owed beyond what there is: the debts of so many instances are remembered.
const REACH: u64 = 8;

/// What a key is called on all instances.
pub trait Named {
    /// Appends the name; of different keys of one rule, different ones.
    fn name(&self, name: &mut Vec<u8>);
}

impl Named for &str {
    fn name(&self, name: &mut Vec<u8>) {
        name.extend_from_slice(self.as_bytes());
    }
}

/// Events of one key that nobody else knows of yet.
#[derive(Debug)]
pub(super) struct Owed {
    name: Vec<u8>,
    events: u32,
    quota: Quota,
}

/// Events of one key, to be charged to what all have in common.
#[derive(Debug)]
pub struct Bill {
    /// The rule.
    pub rule: Name,
    /// The key.
    pub name: Vec<u8>,
    /// How many.
    pub events: u32,
    quota: Quota,
    hash: u64,
    table: Arc<Table>,
}

impl Quota {
    /// That of a limit that is shared.
    fn shared(self) -> Self {
        Self { reach: self.whole.saturating_mul(REACH), ..self }
    }
}

impl Limit {
    /// With others: what it lets happen is owed, and `told` hears of it.
    #[must_use]
    pub fn shared(self, told: Arc<Notify>) -> Self {
        Self { quota: self.quota.shared(), told: Some(told), ..self }
    }

    /// As [`Limit::take`], for a limit that may be shared.
    ///
    /// # Errors
    /// When there were too many, here and elsewhere, as far as is known; it is not counted then.
    pub fn take_named(&self, key: &(impl Hash + Named), now: Duration) -> Result<(), Refusal> {
        let Some(told) = &self.told else { return self.take(key, now) };
        let (shard, hash) = self.table.place(key);
        let mut buckets = shard.lock();
        let taken = buckets.take(hash, self.quota, super::nanos(now));
        if taken.is_ok() && buckets.owe(hash, key, self.quota) {
            drop(buckets);
            self.table.owes.store(true, Ordering::Release);
            told.notify_one();
        }
        taken.map_err(|wait| self.refusal(wait))
    }
}

impl Buckets {
    /// One more event of this key is owed; false when too many owe something already.
    fn owe(&mut self, hash: u64, key: &impl Named, quota: Quota) -> bool {
        if let Some(owed) = self.owed.get_mut(&hash) {
            (owed.events, owed.quota) = (owed.events.saturating_add(1), quota);
            return true;
        }
        if self.owed.len() >= MAX_OWING {
            return false;
        }
        let mut name = Vec::with_capacity(64);
        key.name(&mut name);
        self.owed.insert(hash, Owed { name, events: 1, quota });
        true
    }

    /// The common bucket of a key is full again at `full_at`, but for what is owed since.
    fn hear(&mut self, hash: u64, full_at: u64) {
        let since = self.owed.get(&hash).map_or(0, |owed| u64::from(owed.events).saturating_mul(owed.quota.interval));
        let full_at = full_at.saturating_add(since);
        let slot = self.slot(hash);
        let [holder, held] = self.slots[slot];
        // What is known here is never forgotten over a store that has lost its memory.
        self.slots[slot] = [hash, if holder == hash { held.max(full_at) } else { full_at }];
    }
}

impl Tables {
    /// What is told when something is owed.
    pub fn told(&self) -> Arc<Notify> {
        Arc::clone(&self.told)
    }

    /// All that is owed; it is not any more.
    pub fn bills(&self) -> Vec<Bill> {
        let mut bills = Vec::new();
        for (rule, table) in self.list() {
            if !table.owes.swap(false, Ordering::AcqRel) {
                continue;
            }
            for shard in &table.shards {
                let owed = std::mem::take(&mut shard.lock().owed);
                bills.extend(owed.into_iter().map(|(hash, Owed { name, events, quota })| Bill {
                    rule: rule.clone(),
                    name,
                    events,
                    quota,
                    hash,
                    table: Arc::clone(&table),
                }));
            }
        }
        bills
    }
}

impl Bill {
    /// By how much the common bucket becomes full later.
    pub fn cost(&self) -> Duration {
        Duration::from_nanos(self.quota.interval.saturating_mul(u64::from(self.events)))
    }

    /// How far ahead that may lie.
    pub fn reach(&self) -> Duration {
        Duration::from_nanos(self.quota.reach)
    }

    /// It is charged: at `now` the common bucket is full again after this time.
    pub fn settled(&self, ahead: Duration, now: Duration) {
        let full_at = super::nanos(now).saturating_add(super::nanos(ahead));
        self.table.shard(self.hash).lock().hear(self.hash, full_at);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::FEW;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// 1/s, burst 4.
    fn limit(tables: &Tables) -> Limit {
        let n = |n| NonZeroU32::new(n).unwrap();
        let table = tables.get(("/a".to_owned(), "ip"), FEW);
        Limit::new("ip", (n(1), SECOND), n(4), table).shared(tables.told())
    }

    fn taken(limit: &Limit, n: usize, now: Duration) -> usize {
        (0..n).filter(|_| limit.take_named(&"key", now).is_ok()).count()
    }

    #[test]
    fn what_is_let_happen_is_owed_once() {
        let tables = Tables::default();
        let limit = limit(&tables);
        assert_eq!(taken(&limit, 10, SECOND), 4);
        assert!(limit.take_named(&"other", SECOND).is_ok());
        let mut bills = tables.bills();
        bills.sort_by(|a, b| a.name.cmp(&b.name));
        let said: Vec<_> = bills.iter().map(|bill| (bill.name.as_slice(), bill.events, bill.cost())).collect();
        assert_eq!(said, [(&b"key"[..], 4, 4 * SECOND), (b"other", 1, SECOND)]);
        assert!(tables.bills().is_empty());
    }

    #[test]
    fn what_others_have_done_counts_and_what_came_since_comes_on_top() {
        let tables = Tables::default();
        let limit = limit(&tables);
        let now = 100 * SECOND;
        assert_eq!(taken(&limit, 1, now), 1);
        let bill = tables.bills().pop().unwrap();
        // One more, of which the answer to come knows nothing; two of the four are others' then.
        assert_eq!(taken(&limit, 1, now), 1);
        bill.settled(2 * SECOND, now);
        assert_eq!(taken(&limit, 10, now), 1);
        let wait = limit.take_named(&"key", now).unwrap_err().wait;
        assert_eq!(wait, SECOND);
        // Others went too far: it is remembered beyond an empty bucket.
        tables.bills().pop().unwrap().settled(6 * SECOND, now);
        assert_eq!(limit.take_named(&"key", now).unwrap_err().wait, 3 * SECOND);
        assert_eq!((taken(&limit, 1, now + 2 * SECOND), taken(&limit, 5, now + 3 * SECOND)), (0, 1));
    }

    #[test]
    fn who_owes_is_bounded_and_a_local_limit_owes_nothing() {
        let tables = Tables::default();
        let limit = limit(&tables);
        let names: Vec<String> = (0..2 * MAX_OWING).map(|n| n.to_string()).collect();
        for name in &names {
            assert!(limit.take_named(&name.as_str(), SECOND).is_ok());
        }
        assert_eq!(tables.bills().len(), MAX_OWING);
        let n = |n| NonZeroU32::new(n).unwrap();
        let local = Limit::new("ip", (n(1), SECOND), n(4), tables.get(("/b".to_owned(), "ip"), FEW));
        assert_eq!(taken(&local, 9, SECOND), 4);
        assert!(tables.bills().is_empty());
    }
}
