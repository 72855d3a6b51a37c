//! Wall-clock time: the only place where the system is asked for it.
//!
//! Expiry of tokens, codes and sessions is decided by this clock; timers (deadlines, idle limits) are monotonic and
//! belong to the runtime. Tests hold a clock that moves only when told.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// How far the clocks of two instances may be apart, and how far one may be set back, before more than convenience suffers
/// (docs/guide/scale.md, "Clocks"). What has to be safe is safe up to here: wherever the times of two instances are held against each
/// other, this much is added on the side of refusal.
pub const MAX_SKEW: Duration = Duration::from_secs(5);

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

/// Notices that a clock was set back: what was noted before may be longer ago than the clock says.
#[derive(Debug, Default)]
pub struct Setbacks(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The last look: the time on the wall, and steady time.
    last: Option<(Timestamp, Duration)>,
    doubtful: Option<Timestamp>,
}

impl Setbacks {
    /// Looks at the clock; whoever notes a time looks before. Returns up to which time a note may be of before it was set back, by
    /// more than instances may differ anyway: nobody can tell how long ago that was.
    pub fn look(&self, clock: &Clock) -> Option<Timestamp> {
        let (now, steady) = (clock.now(), clock.steady());
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, then)) = seen.last
            && now.plus(MAX_SKEW) < before.plus(steady.saturating_sub(then))
        {
            seen.doubtful = seen.doubtful.max(Some(before));
        }
        seen.last = Some((now, steady));
        seen.doubtful
    }
}

/// The value of `Date` (RFC 9110, section 5.6.7), made once a second.
#[derive(Debug)]
pub struct HttpDate {
    clock: Clock,
    /// Its second, and the text. Locked for a copy, by one worker.
    made: Mutex<(i64, [u8; 29])>,
}

impl HttpDate {
    /// By this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock, made: Mutex::new((i64::MIN, [0; 29])) }
    }

    /// Of now.
    pub fn now(&self) -> [u8; 29] {
        let now = self.clock.now();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.0 != now.secs() {
            *made = (now.secs(), http_date(now));
        }
        made.1
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn http_date(at: Timestamp) -> [u8; 29] {
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    // The first of 1970 was a Thursday.
    const DAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed";
    let text = at.to_string();
    let digits = text.as_bytes();
    let mut date = *b"Day, 00 Mon 0000 00:00:00 GMT";
    let day = usize::try_from(at.secs().div_euclid(86_400).rem_euclid(7)).unwrap_or(0);
    date[..3].copy_from_slice(&DAYS[3 * day..3 * day + 3]);
    let month = usize::from(digits[5] - b'0') * 10 + usize::from(digits[6] - b'0') - 1;
    date[5..7].copy_from_slice(&digits[8..10]);
    date[8..11].copy_from_slice(&MONTHS[3 * month..3 * month + 3]);
    date[12..16].copy_from_slice(&digits[..4]);
    date[17..25].copy_from_slice(&digits[11..19]);
    date
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

    /// The time now in nanoseconds since the epoch, for what is measured and not decided.
    #[allow(clippy::disallowed_methods)]
    pub fn nanos(&self) -> u64 {
        match &self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
            }
            Source::Manual(_) => u64::try_from(self.now().millis()).unwrap_or(0).saturating_mul(1_000_000),
        }
    }

    /// The time now, as the kernel's last tick has it: at most some milliseconds ago. Nothing that is decided by the wall
    /// clock is that exact, and it is asked several times a request: this way costs a fraction of reading the clock itself.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => {
                let since = clock_gettime(ClockId::RealtimeCoarse);
                Timestamp(since.tv_sec.saturating_mul(1000).saturating_add(since.tv_nsec / 1_000_000))
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
    fn the_date_of_http_is_that_of_its_specification() {
        let date = |secs| String::from_utf8(http_date(Timestamp::from_secs(secs)).to_vec()).unwrap();
        assert_eq!(date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        let clock = Clock::manual(Timestamp::from_secs(0));
        let dates = HttpDate::new(clock.clone());
        assert_eq!(dates.now(), http_date(Timestamp::from_secs(0)));
        clock.advance(Duration::from_secs(86_399));
        assert_eq!(&dates.now(), b"Thu, 01 Jan 1970 23:59:59 GMT");
    }

    #[test]
    fn timestamps_print_as_rfc3339() {
        assert_eq!(Timestamp::from_secs(1_763_688_000).to_string(), "2025-11-21T01:20:00Z");
        assert_eq!(Timestamp::from_secs(-5).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp::from_secs(i64::MAX).to_string(), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn a_clock_that_was_set_back_is_noticed_however_late_somebody_looks() {
        let (clock, setbacks) = (Clock::manual(Timestamp::from_secs(100_000)), Setbacks::default());
        let hour = Duration::from_secs(3600);
        assert_eq!(setbacks.look(&clock), None);
        clock.set_back(MAX_SKEW);
        assert_eq!(setbacks.look(&clock), None, "so far apart two instances may be");
        clock.advance(hour);
        assert_eq!(setbacks.look(&clock), None);
        let noted = clock.now();
        clock.set_back(hour);
        clock.advance(hour);
        assert_eq!((clock.now(), setbacks.look(&clock)), (noted, Some(noted)));
        clock.advance(hour);
        assert_eq!(setbacks.look(&clock), Some(noted), "what is noted later is in no doubt");
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
