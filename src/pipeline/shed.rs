//! Load shedding: when a worker cannot keep up, some requests are refused at once, so that the others are answered in time.
//!
//! What counts is how long a request waits until its worker looks at it. The worker measures that with a task that asks to
//! be run and sees how long it takes (the delay of the event loop). As with CoDel (RFC 8289), it is not the longest wait
//! that says that there is too much to do, but the shortest over a while: a burst that is worked off leaves short ones
//! between. While even the shortest is above the target, a growing part of the requests for routes is refused; it shrinks
//! again below. Health, logins and refreshes are never refused here.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::metrics::Shard;

/// Looks in a row whose shortest wait decides.
const LOOKS: usize = 4;

/// By how much the refused part grows with each look that finds too much to do, thousandths.
const STEP: u32 = 60;

/// The largest part, thousandths: somebody must get through to tell that it is better again.
const MOST: u32 = 950;

/// Fewer requests under way are no overload, however long they wait: then it is the machine that is busy elsewhere.
const FEW: i64 = 64;

/// How much one worker has to do.
#[derive(Debug, Default)]
pub struct Load {
    /// Part of the requests that is refused, thousandths; 0 when all is well.
    part: AtomicU32,
    /// The target, microseconds; 0 turns it off.
    target: AtomicU64,
    /// Requests decided about while a part is refused.
    turn: AtomicU64,
    /// The last waits, newest last. Only the worker takes the lock.
    waits: Mutex<Vec<u64>>,
}

impl Load {
    /// Waits longer than this are too long; zero: none is.
    pub fn aim(&self, target: Duration) {
        self.target.store(micros(target), Ordering::Relaxed);
    }

    /// A look found this wait, with so many requests under way.
    pub fn looked(&self, wait: Duration, in_flight: i64) {
        let target = self.target.load(Ordering::Relaxed);
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if waits.len() >= LOOKS {
            waits.remove(0);
        }
        waits.push(micros(wait));
        let shortest = waits.iter().min().copied().unwrap_or(0);
        let part = self.part.load(Ordering::Relaxed);
        let too_much = target != 0 && waits.len() >= LOOKS && shortest > target && in_flight >= FEW;
        let next = if too_much { (part + STEP).min(MOST) } else { part.saturating_sub(part / 8 + 10) };
        if part == 0 && next > 0 {
            tracing::warn!(wait_ms = shortest / 1000, "overloaded: some requests are refused");
        } else if part > 0 && next == 0 {
            tracing::info!("no longer overloaded");
        }
        self.part.store(next, Ordering::Relaxed);
    }

    /// Whether the next request is to be refused. One load while all is well.
    pub fn refuses(&self, shard: &Shard) -> bool {
        let part = self.part.load(Ordering::Relaxed);
        if part == 0 {
            return false;
        }
        // Spread evenly, so that a client that asks again is likely to be let in.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let refuses = (u128::from(turn) * 1000) >> 64 < u128::from(part);
        if refuses {
            shard.shed.inc();
        }
        refuses
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(400);
    const SHORT: Duration = Duration::from_millis(1);

    fn load() -> Load {
        let load = Load::default();
        load.aim(Duration::from_millis(250));
        load
    }

    fn refused(load: &Load) -> usize {
        let shard = Shard::default();
        let refused = (0..1000).filter(|_| load.refuses(&shard)).count();
        assert_eq!(shard.shed.get(), refused as u64);
        refused
    }

    #[test]
    fn a_queue_that_stands_sheds_more_and_more_and_stops_when_it_is_gone() {
        let load = load();
        (0..3).for_each(|_| load.looked(LONG, 1000));
        assert_eq!(refused(&load), 0, "not long enough yet");
        load.looked(LONG, 1000);
        assert!((50..=70).contains(&refused(&load)));
        (0..100).for_each(|_| load.looked(LONG, 1000));
        assert!((940..=960).contains(&refused(&load)), "never all");
        (0..60).for_each(|_| load.looked(SHORT, 1000));
        assert_eq!(refused(&load), 0);
    }

    #[test]
    fn a_burst_a_busy_machine_and_a_target_of_zero_shed_nothing() {
        let load = load();
        for n in 0..100 {
            load.looked(if n % 4 == 0 { SHORT } else { LONG }, 1000);
        }
        assert_eq!(refused(&load), 0, "worked off in between");
        (0..100).for_each(|_| load.looked(LONG, 3));
        assert_eq!(refused(&load), 0, "hardly a request under way");
        load.aim(Duration::ZERO);
        (0..100).for_each(|_| load.looked(LONG, 1000));
        assert_eq!(refused(&load), 0, "off");
    }
}
