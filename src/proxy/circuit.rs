//! A circuit breaker: an upstream that only fails, or has too much to do, is left alone.
//!
//! Ejection looks at single servers, and stops when half of them are out. The circuit looks at the upstream as a whole:
//! after so many failures in a row it opens, and requests are refused at once instead of waiting for a time-out each; then
//! one request at a time goes through as a probe, and a good answer closes it.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// What is known of one upstream. One for the process and each upstream; outlives a reload.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    /// In a row.
    failures: AtomicU32,
    /// When the next probe may go, milliseconds of this process; 0 while it is closed.
    open_until: AtomicU64,
    /// Requests under way.
    in_flight: AtomicUsize,
    opened: AtomicU64,
    refused: AtomicU64,
}

/// What a failure or a success has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Opened,
    Closed,
}

impl Circuit {
    /// Whether a request may go at `now`. While it is open, one each `span` may.
    pub(super) fn allows(&self, now: u64, span: Duration) -> bool {
        let until = self.open_until.load(Ordering::Relaxed);
        let allowed = until == 0
            || (until <= now
                && self
                    .open_until
                    .compare_exchange(until, after(now, span), Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok());
        if !allowed {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        allowed
    }

    /// A good answer came.
    pub(super) fn good(&self) -> Change {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.open_until.load(Ordering::Relaxed) != 0 && self.open_until.swap(0, Ordering::Relaxed) != 0 {
            return Change::Closed;
        }
        Change::None
    }

    /// It failed; `most` in a row open it.
    pub(super) fn bad(&self, now: u64, most: u32, span: Duration) -> Change {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let opens = failures >= most
            && self.open_until.compare_exchange(0, after(now, span), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if opens {
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
        if opens { Change::Opened } else { Change::None }
    }

    /// Counts a request in, unless there are `most` already.
    pub(super) fn enter(&self, most: usize) -> bool {
        let one_more = |n: usize| (n < most).then_some(n + 1);
        let entered = self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        if !entered {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    /// Counts it out.
    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether it is open, how often it was opened, and how many requests it has refused.
    pub(super) fn figures(&self) -> (bool, u64, u64) {
        let open = self.open_until.load(Ordering::Relaxed) != 0;
        (open, self.opened.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

/// Never 0, which means closed.
fn after(now: u64, span: Duration) -> u64 {
    now.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(5);

    #[test]
    fn failures_in_a_row_open_it_and_one_probe_at_a_time_goes_through() {
        let circuit = Circuit::default();
        assert_eq!(circuit.bad(0, 3, SPAN), Change::None);
        assert_eq!(circuit.good(), Change::None);
        assert_eq!([0; 3].map(|now| circuit.bad(now, 3, SPAN)), [Change::None, Change::None, Change::Opened]);
        assert!(!circuit.allows(4999, SPAN));
        assert_eq!([5000, 5000, 9999].map(|now| circuit.allows(now, SPAN)), [true, false, false]);
        // The probe fails: the next one goes a span after it.
        assert_eq!(circuit.bad(5100, 3, SPAN), Change::None);
        assert_eq!([9999, 10_000].map(|now| circuit.allows(now, SPAN)), [false, true]);
        assert_eq!(circuit.good(), Change::Closed);
        assert!(circuit.allows(10_001, SPAN) && circuit.allows(10_001, SPAN));
        assert_eq!(circuit.figures(), (false, 1, 4));
    }

    #[test]
    fn only_so_many_are_under_way() {
        let circuit = Circuit::default();
        assert_eq!([(); 3].map(|()| circuit.enter(2)), [true, true, false]);
        circuit.leave();
        assert!(circuit.enter(2));
    }
}
