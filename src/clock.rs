//! Wall-clock time: the only caller of `SystemTime::now`.
//!
//! Expiry of tokens, codes and sessions is decided by this clock; timers (deadlines, idle limits) are monotonic and
//! belong to the runtime. Tests hold a clock that moves only when told.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the epoch.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// From seconds since the epoch (the unit of JWT claims, RFC 7519 NumericDate).
    pub const fn from_secs(s: i64) -> Self {
        Self(s.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This much later.
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This much earlier.
    #[must_use]
    pub fn minus(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// RFC 3339 in UTC with whole seconds, such as `2026-11-21T01:20:00Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = u64::try_from(self.secs()).unwrap_or(0).min(253_402_300_799);
        let time = UNIX_EPOCH + Duration::from_secs(secs);
        fmt::Display::fmt(&humantime::format_rfc3339_seconds(time), f)
    }
}

/// Where "now" comes from: the system, or a test's hand.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<Hands>),
}

/// A test's clock, milliseconds.
#[derive(Debug)]
struct Hands {
    wall: AtomicI64,
    /// Only ever forward.
    steady: AtomicU64,
}

/// When this process first asked for steady time.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `now` until [`Clock::advance`] moves it.
    pub fn manual(now: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Hands { wall: AtomicI64::new(now.millis()), steady: AtomicU64::new(0) })))
    }

    /// The time now.
    #[allow(clippy::disallowed_methods)] // the one place that may
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Manual(hands) => Timestamp(hands.wall.load(Ordering::Acquire)),
        }
    }

    /// Time since some moment of this process. It never goes back, whatever is done to the clock on the wall.
    pub fn steady(&self) -> Duration {
        match &self.0 {
            Source::System => BEGINNING.elapsed(),
            Source::Manual(hands) => Duration::from_millis(hands.steady.load(Ordering::Acquire)),
        }
    }

    /// Moves a manual clock forward; a system clock does not heed it.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(hands) = &self.0 {
            hands.wall.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::AcqRel);
            hands.steady.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::AcqRel);
        }
    }

    /// Moves a manual clock back, as an operator or NTP might; a system clock does not heed it.
    pub fn set_back(&self, by: Duration) {
        if let Source::Manual(hands) = &self.0 {
            hands.wall.fetch_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_rfc3339() {
        assert_eq!(Timestamp::from_secs(1_763_688_000).to_string(), "2025-11-21T01:20:00Z");
        assert_eq!(Timestamp::from_secs(-5).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp::from_secs(i64::MAX).to_string(), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(Timestamp::from_secs(100));
        clock.advance(Duration::from_millis(2500));
        assert_eq!(clock.now().secs(), 102);
        clock.set_back(Duration::from_secs(3600));
        assert_eq!(clock.now().millis(), 102_500 - 3_600_000);
        assert_eq!(clock.steady(), Duration::from_millis(2500));
    }
}
