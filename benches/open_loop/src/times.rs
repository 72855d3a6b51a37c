//! Times, all of them, so that a percentile is exact.

use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Times(Vec<u32>);

impl Times {
    /// Kept in microseconds, rounded up.
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(u32::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u32::MAX));
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Microseconds within which this part of all were; 0 when there are none.
    pub(crate) fn at(&mut self, part: f64) -> u32 {
        if self.0.is_empty() {
            return 0;
        }
        let at = ((self.0.len() as f64 * part).ceil() as usize).clamp(1, self.0.len()) - 1;
        *self.0.select_nth_unstable(at).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_all_times() {
        let mut times = Times::default();
        assert_eq!(times.at(0.5), 0);
        (1..=1000_u64).rev().for_each(|n| times.add(Duration::from_micros(n)));
        assert_eq!((times.at(0.5), times.at(0.99), times.at(0.999), times.at(1.0)), (500, 990, 999, 1000));
    }
}
