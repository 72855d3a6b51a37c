//! What the instances of one deployment have in common for a moment: claims, one-time values, and news of each other.
//!
//! One machine has [`Memory`], which forgets with the process; several have Redis. Nothing here has to survive: whoever
//! loses it asks once too often, or has somebody start a web login again.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Error, Notice};
use crate::clock::{Clock, Timestamp};

/// What a name is of. Each has names and room of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A login code that is being exchanged.
    Code,
    /// What the exchange of a `login_code` led to.
    Exchange,
    /// A state of a web login that came back.
    State,
    /// A ticket of a web login.
    Ticket,
    /// A pushed message, or its nonce.
    Push,
    /// A pushed message on its way to the upstream.
    Delivery,
    /// A WeChat access token that is being fetched.
    AccessToken,
    /// Who seals records anew, and by which key that was done.
    Resealing,
}

impl Purpose {
    /// Its name in a key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Exchange => "exchange",
            Self::State => "state",
            Self::Ticket => "ticket",
            Self::Push => "push",
            Self::Delivery => "delivery",
            Self::AccessToken => "access-token",
            Self::Resealing => "resealing",
        }
    }

    /// Most names that [`Memory`] holds, so that nobody fills it: two for each message, one for each of the others.
    const fn room(self) -> usize {
        match self {
            Self::Push => 1 << 17,
            _ => 1 << 16,
        }
    }
}

/// What has happened since an instance last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Which store this is: another mark than before means that everything was lost, or that it is another one.
    pub birth_mark: String,
    /// Where to go on from; opaque. `None`: from where everything is read anew.
    pub position: Option<String>,
    /// In order. `None`: the thread is lost, and everything has to be read anew.
    pub notices: Option<Vec<Notice>>,
    /// Whether there was more than one answer holds: ask on before taking all for known.
    pub more: bool,
}

/// What is charged to a bucket that all instances have in common (GCRA).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Whose bucket it is.
    pub name: [u8; 16],
    /// By how much later the bucket is full again.
    pub cost: Duration,
    /// How far ahead that may have been; beyond it, it is forgiven.
    pub reach: Duration,
}

/// A memory that all instances share.
#[async_trait]
pub trait Shared: Send + Sync + Debug {
    /// Puts `value` there for `life` if nothing is there: true then. Of any number of calls at once, one puts.
    async fn claim(&self, purpose: Purpose, name: &[u8], value: &[u8], life: Duration) -> Result<bool, Error>;

    /// Puts `value` there for `life`, in place of what was there.
    async fn put(&self, purpose: Purpose, name: &[u8], value: &[u8], life: Duration) -> Result<(), Error>;

    /// What is there.
    async fn get(&self, purpose: Purpose, name: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// What was there; now nothing is. Of any number of calls at once, one gets it.
    async fn take(&self, purpose: Purpose, name: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// Removes what is there if it is `value`: a claim that is still one's own.
    async fn release(&self, purpose: Purpose, name: &[u8], value: &[u8]) -> Result<(), Error>;

    /// What other instances have written since `position`, or since ever. `None`: there are no others.
    async fn news(&self, position: Option<&str>) -> Result<Option<News>, Error>;

    /// Charges each, whatever is left in its bucket; in how long each is full again then. `None`: there are no others. Need
    /// not survive anything.
    async fn charge(&self, charges: &[Charge]) -> Result<Option<Vec<Duration>>, Error>;
}

/// Memory is full, and what is in it must not be forgotten early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much of one kind is held at once")]
struct Full;

/// This process alone. The lock is held for a few lines.
#[derive(Debug)]
pub struct Memory {
    clock: Clock,
    held: Mutex<HashMap<Purpose, Room>>,
}

#[derive(Debug, Default)]
struct Room {
    values: HashMap<Vec<u8>, (Timestamp, Vec<u8>)>,
    /// Ends and names, in the order in which they were put, which is that of the ends but for claims of other lives.
    ends: VecDeque<(Timestamp, Vec<u8>)>,
}

impl Room {
    /// Drops what has ended. Names that were put again, or taken, are passed over.
    fn forget(&mut self, now: Timestamp) {
        while self.ends.front().is_some_and(|(end, _)| *end <= now) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((end, name)) = self.ends.pop_front()
            && self.values.get(&name).is_some_and(|(known, _)| *known == end)
        {
            self.values.remove(&name);
        }
    }

    fn insert(&mut self, name: &[u8], value: &[u8], end: Timestamp) {
        self.values.insert(name.to_owned(), (end, value.to_owned()));
        self.ends.push_back((end, name.to_owned()));
    }
}

impl Memory {
    /// Empty.
    pub fn new(clock: Clock) -> Self {
        Self { clock, held: Mutex::default() }
    }

    fn with<T>(&self, purpose: Purpose, work: impl FnOnce(&mut Room, Timestamp) -> T) -> T {
        let now = self.clock.now();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let room = held.entry(purpose).or_default();
        room.forget(now);
        work(room, now)
    }
}

#[async_trait]
impl Shared for Memory {
    async fn claim(&self, purpose: Purpose, name: &[u8], value: &[u8], life: Duration) -> Result<bool, Error> {
        self.with(purpose, |room, now| {
            if room.values.get(name).is_some_and(|(end, _)| *end > now) {
                return Ok(false);
            }
            if room.ends.len() >= purpose.room() {
                return Err(Error::Unavailable(Box::new(Full)));
            }
            room.insert(name, value, now.plus(life));
            Ok(true)
        })
    }

    async fn put(&self, purpose: Purpose, name: &[u8], value: &[u8], life: Duration) -> Result<(), Error> {
        self.with(purpose, |room, now| {
            while room.ends.len() >= purpose.room() {
                room.drop_first();
            }
            room.insert(name, value, now.plus(life));
            Ok(())
        })
    }

    async fn get(&self, purpose: Purpose, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.with(purpose, |room, now| {
            room.values.get(name).filter(|(end, _)| *end > now).map(|(_, value)| value.clone())
        }))
    }

    async fn take(&self, purpose: Purpose, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self
            .with(purpose, |room, now| room.values.remove(name).filter(|(end, _)| *end > now).map(|(_, value)| value)))
    }

    async fn release(&self, purpose: Purpose, name: &[u8], value: &[u8]) -> Result<(), Error> {
        self.with(purpose, |room, _| {
            if room.values.get(name).is_some_and(|(_, known)| known == value) {
                room.values.remove(name);
                // Claims come and go: a name that is free again takes no room.
                if let Some(at) = room.ends.iter().rposition(|(_, known)| known == name) {
                    room.ends.remove(at);
                }
            }
            Ok(())
        })
    }

    async fn news(&self, _: Option<&str>) -> Result<Option<News>, Error> {
        Ok(None)
    }

    async fn charge(&self, _: &[Charge]) -> Result<Option<Vec<Duration>>, Error> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn memory() -> (Memory, Clock) {
        let clock = Clock::manual(Timestamp::from_secs(1000));
        (Memory::new(clock.clone()), clock)
    }

    #[tokio::test]
    async fn what_is_held_ends_with_its_life() {
        let (memory, clock) = memory();
        memory.put(Purpose::Ticket, b"a", b"1", MINUTE).await.unwrap();
        assert!(memory.claim(Purpose::Code, b"a", b"x", MINUTE).await.unwrap());
        clock.advance(MINUTE - Duration::from_millis(1));
        assert_eq!(memory.get(Purpose::Ticket, b"a").await.unwrap().as_deref(), Some(&b"1"[..]));
        assert!(!memory.claim(Purpose::Code, b"a", b"y", MINUTE).await.unwrap());
        clock.advance(Duration::from_millis(1));
        assert_eq!(memory.take(Purpose::Ticket, b"a").await.unwrap(), None);
        assert!(memory.claim(Purpose::Code, b"a", b"y", MINUTE).await.unwrap());
    }

    #[tokio::test]
    async fn it_is_bounded_and_forgets_only_what_may_be_forgotten() {
        let (memory, clock) = memory();
        let name = |n: usize| n.to_be_bytes();
        for n in 0..=Purpose::Ticket.room() {
            memory.put(Purpose::Ticket, &name(n), b"", MINUTE).await.unwrap();
        }
        assert_eq!(memory.get(Purpose::Ticket, &name(0)).await.unwrap(), None, "the oldest went");
        assert!(memory.get(Purpose::Ticket, &name(1)).await.unwrap().is_some());
        for n in 0..Purpose::State.room() {
            assert!(memory.claim(Purpose::State, &name(n), b"", MINUTE).await.unwrap());
        }
        let full = memory.claim(Purpose::State, b"more", b"", MINUTE).await;
        assert!(matches!(full, Err(Error::Unavailable(_))), "a state that was used is never forgotten early");
        assert!(!memory.claim(Purpose::State, &name(0), b"", MINUTE).await.unwrap());
        clock.advance(MINUTE);
        assert!(memory.claim(Purpose::State, b"more", b"", MINUTE).await.unwrap());
        let held = memory.held.lock().unwrap();
        assert_eq!((held[&Purpose::State].values.len(), held[&Purpose::State].ends.len()), (1, 1));
    }

    #[tokio::test]
    async fn claims_that_are_released_take_no_room() {
        let (memory, _) = memory();
        for _ in 0..3 {
            assert!(memory.claim(Purpose::Code, b"a", b"x", MINUTE).await.unwrap());
            memory.release(Purpose::Code, b"a", b"x").await.unwrap();
        }
        assert_eq!(memory.held.lock().unwrap()[&Purpose::Code].ends.len(), 0);
    }

    mod contract_of_shared {
        use super::*;
        crate::store::contract::shared_contract!(async { (Arc::new(memory().0) as Arc<dyn Shared>, ()) });
    }
}
