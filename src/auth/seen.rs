//! Which pushed messages were delivered, and under which nonce: a bounded memory in this process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;

/// Most hashes remembered, two for each message; beyond it the oldest go. 16 MiB at most.
const MAX: usize = 1 << 17;

type Hash = [u8; 32];

/// What is known of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    New,
    /// It was delivered.
    Repeated,
    /// Another message was delivered under its nonce.
    Replayed,
}

/// The memory. The lock is held for a few lines.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// A nonce or a message, and the message that it stands for.
    known: HashMap<Hash, Hash>,
    /// In the order in which they may be forgotten.
    ends: VecDeque<(Timestamp, Hash)>,
}

impl Seen {
    pub(super) fn verdict(&self, nonce: &Hash, message: &Hash, now: Timestamp) -> Verdict {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.forget(now);
        match (memory.known.get(nonce), memory.known.contains_key(message)) {
            (Some(other), _) if other != message => Verdict::Replayed,
            (Some(_), _) | (None, true) => Verdict::Repeated,
            (None, false) => Verdict::New,
        }
    }

    pub(super) fn remember(&self, nonce: Hash, message: Hash, now: Timestamp, memory: Duration) {
        let end = now.plus(memory);
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in [nonce, message] {
            if memory.known.insert(key, message).is_none() {
                memory.ends.push_back((end, key));
            }
        }
        memory.forget(now);
    }
}

impl Memory {
    fn forget(&mut self, now: Timestamp) {
        while let Some((end, key)) = self.ends.front()
            && (*end <= now || self.ends.len() > MAX)
        {
            self.known.remove(key);
            self.ends.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_nonce_belongs_to_one_message() {
        let seen = Seen::default();
        let now = Timestamp::from_secs(1000);
        assert_eq!(seen.verdict(&[1; 32], &[9; 32], now), Verdict::New);
        seen.remember([1; 32], [9; 32], now, HOUR);
        assert_eq!(seen.verdict(&[1; 32], &[9; 32], now), Verdict::Repeated);
        assert_eq!(seen.verdict(&[2; 32], &[9; 32], now), Verdict::Repeated);
        assert_eq!(seen.verdict(&[1; 32], &[8; 32], now), Verdict::Replayed);
        assert_eq!(seen.verdict(&[1; 32], &[8; 32], now.plus(HOUR)), Verdict::New);
    }

    #[test]
    fn it_is_bounded() {
        let seen = Seen::default();
        let now = Timestamp::from_secs(1000);
        for n in 0..MAX {
            let hash = |kind: u8| {
                let mut hash = [kind; 32];
                hash[..8].copy_from_slice(&(n as u64).to_be_bytes());
                hash
            };
            seen.remember(hash(1), hash(2), now, HOUR);
        }
        let memory = seen.0.lock().unwrap();
        assert_eq!((memory.known.len(), memory.ends.len()), (MAX, MAX));
    }
}
