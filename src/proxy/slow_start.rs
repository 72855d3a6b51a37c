//! A server that has just come, or come back, takes its share little by little: it may have to open connections, fill
//! caches or compile first.

use std::time::Duration;

/// The share at the beginning, thousandths. Not nothing: what gets no request never warms up.
const FIRST: u64 = 100;

/// The whole share.
pub(super) const WHOLE: u64 = 1000;

/// How much of its share, in thousandths, a server takes at `now` that came at `since` (milliseconds of this process).
pub(super) fn ramp(since: u64, now: u64, window: Duration) -> u64 {
    let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    let age = now.saturating_sub(since);
    // Of zero, there is nothing to wait for.
    if age >= window {
        return WHOLE;
    }
    FIRST + (WHOLE - FIRST) * age / window
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_evenly_to_the_whole() {
        let window = Duration::from_secs(10);
        let at = |now| ramp(5000, now, window);
        assert_eq!((at(5000), at(10_000), at(15_000), at(99_000)), (100, 550, 1000, 1000));
        assert_eq!(ramp(5000, 5000, Duration::ZERO), 1000, "off");
        assert_eq!(ramp(5000, 4000, window), 100, "not there yet");
    }
}
