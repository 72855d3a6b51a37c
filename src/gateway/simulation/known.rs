//! What is known of something that operators change: a ban, roles.

use super::book::{Moment, Outcome};

/// See the [module documentation](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known<T> {
    /// What was answered, when, and by which gateway.
    Since(Moment, usize, T),
    /// A change is under way.
    Doubtful,
    /// A change was asked for and not answered: it may still come, for ever.
    Lost,
}

impl<T: PartialEq> Known<T> {
    /// A change begins.
    pub(super) fn doubt(&mut self) {
        if matches!(self, Self::Since(..)) {
            *self = Self::Doubtful;
        }
    }

    /// It ended; `now` is what holds if it was done.
    pub(super) fn settle(&mut self, outcome: &Outcome, now: Self) {
        match outcome {
            Outcome::Done if *self == Self::Doubtful => *self = now,
            Outcome::Done => {}
            Outcome::Refused(_) | Outcome::Unknown(_) => *self = Self::Lost,
        }
    }
}
