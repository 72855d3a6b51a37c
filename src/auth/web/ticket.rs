//! Tickets: what a page gets in its URL in place of tokens. Good for 60 seconds and one exchange.
//!
//! They are remembered as hashes, in this process: the exchange must reach the instance that gave the ticket.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::{digest, rand};

use crate::clock::Timestamp;
use crate::ids::{Secret, SessionId};
use crate::problem::Problem;

use super::state::hex;

/// Life of a ticket.
pub const LIFE: Duration = Duration::from_secs(60);

/// Tickets held at once; beyond it the oldest go.
const MAX: usize = 1 << 16;

type Hash = [u8; 32];

/// What a ticket stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::auth) struct Ticket {
    /// The session that was opened.
    pub(in crate::auth) session_id: SessionId,
    /// Whether that was the member's first login.
    pub(in crate::auth) is_new: bool,
}

/// Those that were given and not exchanged yet. The lock is held for a few lines.
#[derive(Debug, Default)]
pub(in crate::auth) struct Tickets(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    held: HashMap<Hash, Ticket>,
    /// In the order in which they end; of exchanged ones, too.
    ends: VecDeque<(Timestamp, Hash)>,
}

impl Tickets {
    /// A ticket for this session: 64 hexadecimal digits.
    pub(super) fn give(&self, ticket: Ticket, now: Timestamp) -> Result<Secret<String>, Problem> {
        let mut random = [0; 32];
        rand::fill(&mut random).map_err(Problem::internal)?;
        let text = hex(&random);
        let key = hash(&text);
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.held.insert(key, ticket);
        memory.ends.push_back((now.plus(LIFE), key));
        memory.forget(now);
        Ok(Secret::new(text))
    }

    /// What this ticket stands for; it is used up.
    pub(in crate::auth) fn take(&self, text: &str, now: Timestamp) -> Option<Ticket> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.forget(now);
        memory.held.remove(&hash(text))
    }
}

impl Memory {
    fn forget(&mut self, now: Timestamp) {
        while let Some((end, key)) = self.ends.front()
            && (*end <= now || self.ends.len() > MAX)
        {
            self.held.remove(key);
            self.ends.pop_front();
        }
    }
}

fn hash(text: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket { session_id: SessionId::parse("s").unwrap(), is_new: true }
    }

    #[test]
    fn a_ticket_is_good_once_and_for_a_minute() {
        let (tickets, now) = (Tickets::default(), Timestamp::from_secs(1000));
        let one = tickets.give(ticket(), now).unwrap();
        assert_eq!(tickets.take("", now), None);
        assert_eq!(tickets.take(&one.expose().to_uppercase(), now), None);
        assert_eq!(tickets.take(one.expose(), now.plus(LIFE - Duration::from_millis(1))), Some(ticket()));
        assert_eq!(tickets.take(one.expose(), now), None);
        let late = tickets.give(ticket(), now).unwrap();
        assert_eq!(tickets.take(late.expose(), now.plus(LIFE)), None);
    }

    #[test]
    fn their_memory_is_bounded() {
        let (tickets, now) = (Tickets::default(), Timestamp::from_secs(1000));
        let first = tickets.give(ticket(), now).unwrap();
        for _ in 0..MAX {
            tickets.give(ticket(), now).unwrap();
        }
        assert_eq!(tickets.take(first.expose(), now), None);
        let memory = tickets.0.lock().unwrap();
        assert_eq!((memory.held.len(), memory.ends.len()), (MAX, MAX));
    }
}
