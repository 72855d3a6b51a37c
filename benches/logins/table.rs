//! Figures of several rounds, as a cell.

/// `median (least–greatest)`.
pub(crate) fn spread(figures: &[f64], decimals: usize) -> String {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(least), Some(greatest)) = (sorted.first(), sorted.last()) else { return "–".to_owned() };
    let median = sorted[sorted.len() / 2];
    format!("{median:.decimals$} ({least:.decimals$}–{greatest:.decimals$})")
}

pub(crate) fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}
