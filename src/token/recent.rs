//! What one worker was shown last, in front of the cache that all workers share.
//!
//! Looking into the shared cache costs a chain of memory that other cores write as well, and a note for its statistics. Most
//! requests come from people who asked a moment ago: of those the worker keeps a few thousand in a table of its own, where a
//! look-up is a few seats side by side and the comparison of the token. Whatever is here is or was in the shared cache, under the same
//! rules: the whole token is compared, what has expired is not given out, revocation must be asked on every hit.

use std::fmt;
use std::hash::BuildHasher as _;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use bytes::Bytes;
use foldhash::quality::RandomState;

use super::cache::{Expires, VerifiedCache, end};
use crate::clock::Timestamp;

/// Seats of a full table: 128 KiB, beside what sits there, which the shared cache has as a rule, too.
const MOST: usize = 8192;

/// Seats of the first table.
const FIRST: usize = 64;

/// A token may sit in any of so many seats, from its own on.
const NEAR: usize = 4;

/// One hit of so many is told to the shared cache, which keeps what is asked for often. A prime, so that among people who ask in turn
/// it is not always the same.
const TOLD: u32 = 17;

/// Longer tokens have no seat, bytes: what sits there is held beside the bound of the shared cache.
const LONGEST: usize = 1024;

/// A worker's view of the shared cache.
pub struct RecentlyVerified<V> {
    shared: Arc<VerifiedCache<V>>,
    hasher: RandomState,
    /// One thread alone looks here, so nobody ever waits; who finds it taken all the same asks the shared cache.
    seats: Option<Mutex<Seats<V>>>,
}

struct Seats<V> {
    /// None, or a power of two and the last one's neighbours.
    seats: Vec<Option<Seat<V>>>,
    taken: usize,
    hits: u32,
    /// Who goes where all seats are taken.
    next: usize,
    /// Where it was last looked for somebody who has expired.
    swept: usize,
}

struct Seat<V> {
    hash: u64,
    verified: Arc<V>,
}

/// What knows the token that it was verified from.
pub trait HasToken {
    /// The token.
    fn token(&self) -> &[u8];

    /// The same, to be kept beside.
    fn kept_token(&self) -> Bytes;
}

impl<V: Expires + HasToken + Send + Sync + 'static> RecentlyVerified<V> {
    /// Of a worker.
    pub fn new(shared: Arc<VerifiedCache<V>>) -> Self {
        let seats = Mutex::new(Seats { seats: Vec::new(), taken: 0, hits: 0, next: 0, swept: 0 });
        // Seeded at random: nobody can choose tokens that sit side by side.
        Self { shared, hasher: RandomState::default(), seats: Some(seats) }
    }

    /// Of those who look now and then: the shared cache alone.
    pub fn none(shared: Arc<VerifiedCache<V>>) -> Self {
        Self { shared, hasher: RandomState::default(), seats: None }
    }

    /// What `token` verified to, unless it has expired at `now`.
    pub fn get(&self, token: &[u8], now: Timestamp) -> Option<Arc<V>> {
        let Some(mut seats) = self.seats(token) else { return self.shared.get(token, now) };
        let hash = self.hash(token);
        let Some(verified) = seats.find(hash, token).map(Arc::clone) else {
            let verified = self.shared.get(token, now)?;
            seats.seat(hash, Arc::clone(&verified));
            return Some(verified);
        };
        if now >= verified.expires_at() {
            seats.leave(hash, token);
            // It is forgotten there as well.
            return self.shared.get(token, now);
        }
        seats.hits = seats.hits.wrapping_add(1);
        if seats.hits.is_multiple_of(TOLD) {
            seats.sweep(now);
            if self.shared.get(token, now).is_none() {
                self.shared.insert(verified.kept_token(), Arc::clone(&verified));
            }
        }
        Some(verified)
    }

    /// As [`Self::get`], by what all workers have: another one may have put something newer there.
    pub fn get_anew(&self, token: &[u8], now: Timestamp) -> Option<Arc<V>> {
        self.leave(token);
        self.get(token, now)
    }

    fn seats(&self, token: &[u8]) -> Option<MutexGuard<'_, Seats<V>>> {
        let seats = self.seats.as_ref().filter(|_| token.len() <= LONGEST)?;
        match seats.try_lock() {
            Ok(seats) => Some(seats),
            // What a panic left behind is whole: a seat is written at once.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn leave(&self, token: &[u8]) {
        if let Some(mut seats) = self.seats(token) {
            seats.leave(self.hash(token), token);
        }
    }

    fn hash(&self, token: &[u8]) -> u64 {
        self.hasher.hash_one(end(token))
    }

    /// Keeps it for all workers. This one will find it when its token is shown again.
    pub fn insert(&self, verified: Arc<V>) {
        // What it verified to before is over.
        self.leave(verified.token());
        self.shared.insert(verified.kept_token(), verified);
    }
}

impl<V: HasToken + Expires> Seats<V> {
    /// Where a token may sit.
    fn near(&self, hash: u64) -> Range<usize> {
        let Some(mask) = self.seats.len().checked_sub(NEAR) else { return 0..0 };
        // What is cut off does not matter.
        #[allow(clippy::cast_possible_truncation)]
        let own = hash as usize & mask;
        own..own + NEAR
    }

    fn find(&self, hash: u64, token: &[u8]) -> Option<&Arc<V>> {
        let is = |seat: &&Seat<V>| seat.hash == hash && seat.verified.token() == token;
        self.seats[self.near(hash)].iter().flatten().find(is).map(|seat| &seat.verified)
    }

    fn leave(&mut self, hash: u64, token: &[u8]) {
        let near = self.near(hash);
        for seat in &mut self.seats[near] {
            if seat.take_if(|seat| seat.hash == hash && seat.verified.token() == token).is_some() {
                self.taken -= 1;
            }
        }
    }

    /// Puts it where nobody sits, or else in somebody's place.
    fn seat(&mut self, hash: u64, verified: Arc<V>) {
        // Mostly empty, so that a token rarely finds all of its seats taken.
        if 4 * self.taken >= self.seats.len() && self.seats.len() < MOST {
            self.grow();
        }
        let mut near = self.near(hash);
        let (start, seat) = (near.start, Some(Seat { hash, verified }));
        if let Some(free) = near.find(|at| self.seats[*at].is_none()) {
            self.seats[free] = seat;
            self.taken += 1;
        } else {
            self.next = (self.next + 1) % NEAR;
            self.seats[start + self.next] = seat;
        }
    }

    /// Looks at one seat, so that in the course of time nobody sits there who has expired.
    fn sweep(&mut self, now: Timestamp) {
        self.swept = if self.swept + 1 < self.seats.len() { self.swept + 1 } else { 0 };
        let seat = self.seats.get_mut(self.swept);
        if seat.is_some_and(|seat| seat.take_if(|seat| now >= seat.verified.expires_at()).is_some()) {
            self.taken -= 1;
        }
    }

    fn grow(&mut self) {
        let more = (2 * self.seats.len().saturating_sub(NEAR - 1)).max(FIRST) + NEAR - 1;
        let before = std::mem::replace(&mut self.seats, std::iter::repeat_with(|| None).take(more).collect());
        self.taken = 0;
        for seat in before.into_iter().flatten() {
            self.seat(seat.hash, seat.verified);
        }
    }
}

impl<V> fmt::Debug for RecentlyVerified<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecentlyVerified(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Good(usize, Bytes, i64);

    impl Expires for Good {
        fn expires_at(&self) -> Timestamp {
            Timestamp::from_secs(self.2)
        }
    }

    impl HasToken for Good {
        fn token(&self) -> &[u8] {
            &self.1
        }

        fn kept_token(&self) -> Bytes {
            self.1.clone()
        }
    }

    fn good(n: usize, token: &[u8]) -> Arc<Good> {
        Arc::new(Good(n, Bytes::copy_from_slice(token), 100))
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn recent(capacity: u64) -> RecentlyVerified<Good> {
        RecentlyVerified::new(Arc::new(VerifiedCache::new(capacity, 0)))
    }

    fn token(n: usize) -> Vec<u8> {
        format!("{n:0100}").into_bytes()
    }

    #[test]
    fn a_token_is_found_by_every_byte_of_it_however_many_there_are() {
        let recent = recent(1 << 30);
        for n in 0..3 * MOST {
            recent.insert(good(n, &token(n)));
        }
        for _ in 0..2 {
            for n in 0..3 * MOST {
                let mut token = token(n);
                for _ in 0..2 {
                    assert_eq!(recent.get(&token, at(99)).unwrap().0, n);
                }
                token[0] = b'x';
                assert!(recent.get(&token, at(99)).is_none());
            }
        }
        let seats = recent.seats.as_ref().unwrap().lock().unwrap();
        assert_eq!(seats.seats.len(), MOST + NEAR - 1);
        assert_eq!(seats.taken, seats.seats.iter().flatten().count());
    }

    #[test]
    fn an_expired_token_is_never_found_again_not_even_when_the_clock_goes_back() {
        let recent = recent(1 << 20);
        recent.insert(good(1, b"t"));
        assert!(recent.get(b"t", at(99)).is_some() && recent.get(b"t", at(99)).is_some());
        assert!(recent.get(b"t", at(100)).is_none(), "exp itself is too late");
        assert!(recent.get(b"t", at(50)).is_none());
        assert_eq!(recent.seats.as_ref().unwrap().lock().unwrap().taken, 0);
    }

    #[test]
    fn what_a_token_verified_to_last_is_what_is_found() {
        let recent = recent(1 << 20);
        for n in 0..3 {
            recent.insert(good(n, b"t"));
            assert_eq!(recent.get(b"t", at(1)).unwrap().0, n);
            assert_eq!(recent.get(b"t", at(1)).unwrap().0, n);
        }
    }

    /// A thousand people who ask in turn: nearly none of them is sought elsewhere.
    #[test]
    fn who_sits_there_stays_there() {
        let recent = recent(1 << 30);
        let found = |n: usize| recent.get(&token(n), at(99)).is_some();
        for n in 0..1000 {
            recent.insert(good(n, &token(n)));
            assert!(found(n));
        }
        (0..1000).for_each(|n| recent.shared.invalidate(&token(n)));
        assert!((0..1000).filter(|n| found(*n)).count() > 950);
    }

    #[test]
    fn who_has_expired_gives_the_seat_back_and_a_long_token_gets_none() {
        let recent = recent(1 << 30);
        let forever = Arc::new(Good(0, Bytes::from_static(b"forever"), i64::MAX / 1000));
        recent.insert(Arc::clone(&forever));
        let long = vec![b'x'; LONGEST + 1];
        recent.insert(good(7, &long));
        (1..200).for_each(|n| recent.insert(good(n, &token(n))));
        assert!((1..200).all(|n| recent.get(&token(n), at(1)).is_some()));
        assert_eq!(recent.get(&long, at(1)).unwrap().0, 7);
        let taken = || recent.seats.as_ref().unwrap().lock().unwrap().taken;
        assert!(taken() > 150, "{}", taken());
        let size = u32::try_from(MOST).unwrap();
        assert!((0..TOLD * size).all(|_| recent.get(b"forever", at(100)).is_some()));
        assert_eq!(taken(), 1);
    }

    #[test]
    fn what_another_worker_has_put_there_is_found_anew() {
        let shared = Arc::new(VerifiedCache::new(1 << 20, 0));
        let (one, other) = (RecentlyVerified::new(Arc::clone(&shared)), RecentlyVerified::new(shared));
        one.insert(good(1, b"t"));
        assert_eq!(one.get(b"t", at(1)).unwrap().0, 1);
        other.insert(good(2, b"t"));
        assert_eq!(one.get(b"t", at(1)).unwrap().0, 1);
        assert_eq!(one.get_anew(b"t", at(1)).unwrap().0, 2);
        assert_eq!(one.get(b"t", at(1)).unwrap().0, 2);
    }

    /// Otherwise the shared cache would drop the busiest first, and another worker would have to verify them anew.
    #[test]
    fn the_shared_cache_hears_of_those_who_ask_often() {
        let recent = recent(64 * 1024);
        recent.insert(good(0, b"often"));
        assert!(recent.get(b"often", at(1)).is_some());
        recent.shared.invalidate(b"often");
        for _ in 0..TOLD {
            assert!(recent.get(b"often", at(1)).is_some());
        }
        assert!(recent.shared.get(b"often", at(1)).is_some());
    }

    #[test]
    fn who_finds_the_table_taken_asks_the_shared_cache() {
        let recent = recent(1 << 20);
        recent.insert(good(1, b"t"));
        let taken = recent.seats.as_ref().unwrap().lock().unwrap();
        assert_eq!(recent.get(b"t", at(1)).unwrap().0, 1);
        drop(taken);
        assert!(RecentlyVerified::none(Arc::clone(&recent.shared)).get(b"t", at(1)).is_some());
    }

    #[test]
    fn debug_output_shows_no_token() {
        assert_eq!(format!("{:?}", recent(1)), "RecentlyVerified(…)");
    }
}
