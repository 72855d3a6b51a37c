//! How lately this instance has heard what others have revoked.
//!
//! Access tokens are believed without a store, so an instance that is cut off from the others goes on believing tokens that
//! were revoked elsewhere. It may do so for a while (`[token] max_staleness`), then it refuses. One that is alone has nobody to
//! hear, and is never stale.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// See the [module documentation](self). Asked on every request: two loads where there are no others.
#[derive(Debug, Default)]
pub struct Freshness {
    /// There once there are others.
    clock: OnceLock<Clock>,
    /// Steady time, milliseconds.
    heard: AtomicU64,
    /// Milliseconds.
    limit: AtomicU64,
    /// Nothing will be heard any more.
    cut_off: AtomicBool,
    /// The keys in force could not be held against those of the others.
    keys_missed: AtomicBool,
}

impl Freshness {
    /// From now on there are others, who are heard now; steady time is that of `clock`.
    pub fn begin(&self, clock: &Clock) {
        self.hear(clock.steady());
        let _ = self.clock.set(clock.clone());
    }

    /// Everything that was revoked until `at` (steady time) is known here.
    pub fn hear(&self, at: Duration) {
        self.heard.fetch_max(millis(at), Ordering::AcqRel);
    }

    /// From now on there is another that is asked in our place, and we hear nothing of it: no token is believed any more.
    pub fn cut_off(&self, clock: &Clock) {
        self.cut_off.store(true, Ordering::Release);
        let _ = self.clock.set(clock.clone());
    }

    /// Whether the last look at the keys that instances have in common failed: those in force here may be behind.
    pub fn miss_keys(&self, missed: bool) {
        self.keys_missed.store(missed, Ordering::Release);
    }

    /// Whether a key that is not known here may be one of ours all the same.
    pub fn has_missed_keys(&self) -> bool {
        self.keys_missed.load(Ordering::Acquire)
    }

    /// How long it may be that nothing was heard.
    pub fn set_limit(&self, limit: Duration) {
        self.limit.store(millis(limit), Ordering::Release);
    }

    /// Whether it was longer.
    pub fn is_stale(&self) -> bool {
        self.age()
            .is_some_and(|age| millis(age) > self.limit.load(Ordering::Acquire) || self.cut_off.load(Ordering::Acquire))
    }

    /// How long it was; `None` for one that is alone.
    pub fn age(&self) -> Option<Duration> {
        let now = self.clock.get()?.steady();
        Some(now.saturating_sub(Duration::from_millis(self.heard.load(Ordering::Acquire))))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn keys_that_were_missed_are_caught_up_with_at_the_next_look() {
        let freshness = Freshness::default();
        assert!(!freshness.has_missed_keys());
        freshness.miss_keys(true);
        assert!(freshness.has_missed_keys() && !freshness.is_stale(), "tokens of known keys go on");
        freshness.miss_keys(false);
        assert!(!freshness.has_missed_keys());
    }

    #[test]
    fn one_that_was_cut_off_is_stale_at_once_and_stays_so() {
        let clock = Clock::manual(Timestamp::from_secs(1000));
        for has_others in [false, true] {
            let freshness = Freshness::default();
            freshness.set_limit(Duration::from_secs(60));
            if has_others {
                freshness.begin(&clock);
            }
            assert!(!freshness.is_stale());
            freshness.cut_off(&clock);
            freshness.hear(clock.steady());
            assert!(freshness.is_stale());
        }
    }

    #[test]
    fn an_instance_that_is_alone_is_never_stale_and_one_that_is_not_becomes_so() {
        let clock = Clock::manual(Timestamp::from_secs(1000));
        clock.advance(Duration::from_secs(3600));
        let freshness = Freshness::default();
        assert!(!freshness.is_stale() && freshness.age().is_none());
        freshness.set_limit(Duration::from_secs(60));
        freshness.begin(&clock);
        clock.advance(Duration::from_secs(60));
        assert!(!freshness.is_stale());
        clock.advance(Duration::from_millis(1));
        assert!(freshness.is_stale());
        clock.set_back(Duration::from_secs(3600));
        assert!(freshness.is_stale(), "the clock on the wall has no say");
        freshness.hear(clock.steady());
        assert!(!freshness.is_stale());
    }
}
