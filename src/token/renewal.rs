//! Which sessions got a newer access token: what was let in by an older one and still goes on may stay for as long as the
//! newest lives.
//!
//! Whoever mints a token, or sees one for the first time, notes it; whoever looks after what goes on takes the notes, twice
//! a second, and so nothing is kept for longer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use foldhash::quality::RandomState;

use crate::clock::Timestamp;
use crate::ids::SessionId;

/// Notes that are kept until they are taken; more than that many sessions are not renewed in half a second. One that is
/// not noted loses its open sockets when the older token ends, as if it had not been renewed.
const MOST: usize = 1 << 16;

/// Until when the newest access token of a session lives.
pub type Notes = HashMap<SessionId, Timestamp, RandomState>;

/// The notes since somebody last took them. Locked when a token is minted or verified, never for one that is known.
#[derive(Debug, Default)]
pub struct Renewals(Mutex<Notes>);

impl Renewals {
    /// An access token of this session lives until then.
    pub fn note(&self, session: &SessionId, until: Timestamp) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = notes.get_mut(session) {
            *known = until.max(*known);
        } else if notes.len() < MOST {
            notes.insert(session.clone(), until);
        }
    }

    /// The notes; there are none afterwards.
    pub fn take(&self) -> Notes {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // About as many will come until the next time.
        let room = Notes::with_capacity_and_hasher(notes.len(), RandomState::default());
        std::mem::replace(&mut *notes, room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_end_of_a_session_is_noted_until_it_is_taken() {
        let (renewals, session) = (Renewals::default(), SessionId::parse("s").unwrap());
        for until in [5, 9, 7] {
            renewals.note(&session, Timestamp::from_secs(until));
        }
        assert_eq!(renewals.take(), Notes::from_iter([(session, Timestamp::from_secs(9))]));
        assert!(renewals.take().is_empty());
    }

    #[test]
    fn notes_that_nobody_takes_do_not_grow_without_end() {
        let renewals = Renewals::default();
        for n in 0..MOST + 10 {
            renewals.note(&SessionId::parse(&n.to_string()).unwrap(), Timestamp::from_secs(1));
        }
        assert_eq!(renewals.take().len(), MOST);
    }
}
