//! How often each member may do what costs a decryption or a call to WeChat (`[login] decrypt_limit`).
//!
//! A member is counted as the person in the app that he is, so that what services ask about him counts too. The generic cell rate algorithm: of each member one number is kept, the time up to which the calls so far are paid for.
//! Memory is bounded: of more members than [`MEMBERS`] those who come least are forgotten, and begin afresh.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::clock::Timestamp;
use crate::config::DecryptLimit;
use crate::ids::{AppId, OpenId};

/// Members that are remembered; some 10 MiB when full.
const MEMBERS: u64 = 50_000;

/// The members and their calls. Outlives reloads.
#[derive(Debug)]
pub struct Limiter {
    /// Paid up to, microseconds since 1970.
    paid: Cache<(AppId, OpenId), Arc<AtomicI64>>,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { paid: Cache::new(MEMBERS) }
    }
}

impl Limiter {
    /// Takes one call of `person`.
    ///
    /// # Errors
    /// How long to wait, when it is one too many; nothing is taken then.
    pub fn take(&self, person: (AppId, OpenId), limit: DecryptLimit, now: Timestamp) -> Result<(), Duration> {
        let now = now.millis().saturating_mul(1000);
        let cost = (limit.rate.per / limit.rate.count.get()).as_micros().max(1);
        let cost = i64::try_from(cost).unwrap_or(i64::MAX);
        let credit = cost.saturating_mul(i64::from(limit.burst.get() - 1));
        let paid = self.paid.get_with(person, Arc::default);
        let taken = paid.fetch_update(Ordering::AcqRel, Ordering::Acquire, |until| {
            // Never further ahead than a full burst: the clock may have been set back, or the limit loosened.
            let until = until.clamp(now, now.saturating_add(credit).saturating_add(cost));
            (until - now <= credit).then_some(until.saturating_add(cost))
        });
        taken.map(drop).map_err(|until| {
            let until = until.clamp(now, now.saturating_add(credit).saturating_add(cost));
            Duration::from_micros(u64::try_from(until - now - credit).unwrap_or(0))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::value::rate;

    const START: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn limit(text: &str, burst: u32) -> DecryptLimit {
        DecryptLimit { rate: rate(text).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
    }

    fn person(name: &str) -> (AppId, OpenId) {
        (AppId::parse("wxa").unwrap(), OpenId::parse(name).unwrap())
    }

    fn alice() -> (AppId, OpenId) {
        person("alice")
    }

    fn taken(limiter: &Limiter, limit: DecryptLimit, now: Timestamp) -> usize {
        (0..1000).take_while(|_| limiter.take(alice(), limit, now).is_ok()).count()
    }

    #[test]
    fn a_burst_at_once_and_then_the_rate() {
        let (limiter, limit) = (Limiter::default(), limit("10/s", 200));
        assert_eq!(taken(&limiter, limit, START), 200);
        assert_eq!(limiter.take(alice(), limit, START), Err(Duration::from_millis(100)));
        assert_eq!(taken(&limiter, limit, START.plus(Duration::from_secs(1))), 10);
        assert_eq!(taken(&limiter, limit, START.plus(Duration::from_secs(1000))), 200);
    }

    #[test]
    fn each_member_is_counted_alone() {
        let (limiter, limit) = (Limiter::default(), limit("1/h", 1));
        assert_eq!(taken(&limiter, limit, START), 1);
        assert!(limiter.take(person("bob"), limit, START).is_ok());
    }

    #[test]
    fn a_clock_that_is_set_back_costs_a_full_burst_at_most() {
        let (limiter, limit) = (Limiter::default(), limit("1/s", 3));
        assert_eq!(taken(&limiter, limit, START), 3);
        let earlier = START.minus(Duration::from_secs(3600));
        assert_eq!(limiter.take(alice(), limit, earlier), Err(Duration::from_secs(1)));
        assert_eq!(taken(&limiter, limit, earlier.plus(Duration::from_secs(1))), 0);
    }

    #[test]
    fn a_member_who_was_refused_pays_nothing_for_it() {
        let (limiter, limit) = (Limiter::default(), limit("1/s", 1));
        assert_eq!(taken(&limiter, limit, START), 1);
        for _ in 0..100 {
            assert!(limiter.take(alice(), limit, START).is_err());
        }
        assert_eq!(taken(&limiter, limit, START.plus(Duration::from_secs(1))), 1);
    }
}
