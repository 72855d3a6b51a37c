//! Which of many backends are in the choice, known without asking each of them.
//!
//! A request of an upstream with a thousand servers would spend most of its time on asking who is there. So the answer is
//! kept until a verdict on any backend changes, or an ejection that is part of it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

/// Counts changes of what is thought of backends; one for all that know each other.
#[derive(Debug, Default)]
pub(super) struct Verdicts(AtomicU64);

impl Verdicts {
    /// Something is thought otherwise from now on; said after it can be seen.
    pub(super) fn changed(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    fn so_far(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// What was found when everybody was asked.
#[derive(Debug)]
pub(super) struct Present {
    /// Those in the choice, ascending.
    pub(super) up: Box<[usize]>,
    /// When the first of the ejections ends, milliseconds of this process; 0 when nobody is ejected.
    pub(super) until: u64,
}

#[derive(Debug)]
struct Known {
    /// Changes before it was asked.
    verdicts: u64,
    present: Present,
}

/// What was found last.
#[derive(Debug)]
pub(super) struct Roster {
    known: ArcSwap<Known>,
    verdicts: Arc<Verdicts>,
}

/// What is known; a new finding does not change it.
pub(super) struct Current(Guard<Arc<Known>>);

impl Current {
    pub(super) fn up(&self) -> &[usize] {
        &self.0.present.up
    }
}

impl Roster {
    /// Nothing is known yet.
    pub(super) fn new(verdicts: Arc<Verdicts>) -> Self {
        let nobody = Present { up: Box::default(), until: 0 };
        Self { known: ArcSwap::from_pointee(Known { verdicts: u64::MAX, present: nobody }), verdicts }
    }

    /// What is known, or what `look` finds where that is over.
    pub(super) fn current(&self, now: impl FnOnce() -> u64, look: impl FnOnce() -> Present) -> Current {
        let verdicts = self.verdicts.so_far();
        let known = self.known.load();
        let until = known.present.until;
        if known.verdicts == verdicts && (until == 0 || now() < until) {
            return Current(known);
        }
        // Whoever looks at the same time finds the same, or something that a later verdict will void again.
        let found = Arc::new(Known { verdicts, present: look() });
        self.known.store(Arc::clone(&found));
        Current(Guard::from_inner(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_until_a_verdict_changes_or_an_ejection_ends() {
        let verdicts = Arc::<Verdicts>::default();
        let roster = Roster::new(Arc::clone(&verdicts));
        let not_asked = || panic!("asked again");
        let present = |up: &[usize], until| Present { up: up.into(), until };
        assert_eq!(roster.current(|| 1, || present(&[0, 1, 2], 0)).up(), [0, 1, 2]);
        assert_eq!(roster.current(|| 9999, not_asked).up(), [0, 1, 2], "no time matters");
        verdicts.changed();
        assert_eq!(roster.current(|| 10, || present(&[0, 2], 20)).up(), [0, 2]);
        assert_eq!(roster.current(|| 19, not_asked).up(), [0, 2]);
        assert_eq!(roster.current(|| 20, || present(&[0, 1, 2], 0)).up(), [0, 1, 2]);
        assert_eq!(roster.current(|| 21, not_asked).up(), [0, 1, 2]);
    }
}
