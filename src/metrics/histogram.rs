//! Durations, counted by how long they were.

use std::fmt::Write as _;

use super::Counter;

/// Upper bounds, microseconds.
const BOUNDS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 30_000_000,
];

/// A histogram, or one worker's part of one.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    /// Counts one of so many microseconds.
    pub fn observe(&self, us: u64) {
        self.buckets[BOUNDS_US.partition_point(|&bound| bound < us)].inc();
        self.sum_us.add(us);
    }
}

/// Writes the sum of `parts` as the histogram `name`; `labels` without braces, may be empty.
pub(super) fn write(page: &mut String, name: &str, labels: &str, parts: &[&Histogram]) {
    let sum = |figure: &dyn Fn(&Histogram) -> u64| parts.iter().map(|part| figure(part)).sum::<u64>();
    let comma = if labels.is_empty() { "" } else { "," };
    let mut total = 0;
    for (n, bound) in BOUNDS_US.iter().enumerate() {
        total += sum(&|part| part.buckets[n].get());
        #[allow(clippy::cast_precision_loss)] // bounds are small
        let le = *bound as f64 / 1e6;
        let _ = writeln!(page, "{name}_bucket{{{labels}{comma}le=\"{le}\"}} {total}");
    }
    total += sum(&|part| part.buckets[BOUNDS_US.len()].get());
    let _ = writeln!(page, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}");
    let us = sum(&|part| part.sum_us.get());
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = writeln!(page, "{name}_sum{braced} {}.{:06}", us / 1_000_000, us % 1_000_000);
    let _ = writeln!(page, "{name}_count{braced} {total}");
}
