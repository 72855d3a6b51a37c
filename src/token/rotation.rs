//! Which key takes whose place, and when.
//!
//! A *next* key is made, and is in the JWKS, for [`LEAD`] before it signs: by then every copy of the JWKS that may be
//! cached has it, and every instance of the deployment has read the ring anew. The key that it replaces stays until the
//! last token that it signed has expired, and [`MARGIN`] for clocks that are wrong. Rotation comes by age or by command;
//! where it is carried out does not matter: whoever is first takes the lock, all others read what was done.

use std::time::Duration;

use super::assertion;
use super::directory::{Directory, Record};
use super::key::Key;
use super::keys::{Error, State, generate, recorded};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Algorithm};
use crate::keyfile::Shelf;

/// How long a key is published before it signs: twice the time that the JWKS may be cached, which leaves the other
/// instances time to read the ring.
pub const LEAD: Duration = Duration::from_secs(600);

/// The same for a key that is to sign at once: every instance of the deployment has read the ring by then, since each looks once
/// a second; copies of the JWKS may be older.
pub const LEAD_AT_ONCE: Duration = Duration::from_secs(5);

/// How much longer than its tokens a key is kept.
const MARGIN: Duration = Duration::from_secs(2 * 3600);

/// How long a key of an algorithm that is no longer configured waits for the instances that still sign with it.
const FAREWELL: Duration = Duration::from_secs(24 * 3600);

/// Life of tokens that nobody wrote down: those of other minters, and of rings of old; seconds.
pub(super) const UNKNOWN_LIFE: i64 = 30 * 24 * 3600;

/// What `[token]` says about keys.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    algorithm: Algorithm,
    every: Option<Duration>,
    access_ttl: Duration,
}

/// Something that was done to the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A key was made and is published.
    Published {
        /// Its algorithm.
        algorithm: Algorithm,
        /// Its name.
        kid: String,
        /// When it begins to sign.
        signs_at: Timestamp,
    },
    /// A key signs from now on.
    Activated {
        /// Its algorithm.
        algorithm: Algorithm,
        /// Its name.
        kid: String,
    },
    /// A key whose algorithm is no longer used signs no more.
    Retired {
        /// Its algorithm.
        algorithm: Algorithm,
        /// Its name.
        kid: String,
    },
    /// A key is gone, since nothing that it signed is good any more.
    Removed {
        /// Its algorithm.
        algorithm: Algorithm,
        /// Its name.
        kid: String,
    },
}

impl Policy {
    /// Of this section.
    pub fn of(section: &config::Token) -> Self {
        Self { algorithm: section.algorithm, every: section.rotate_every, access_ttl: section.access_ttl }
    }

    /// The algorithms that sign: of access tokens, and of assertions.
    fn signing(&self) -> impl Iterator<Item = Algorithm> + use<> {
        let (tokens, assertions) = (self.algorithm, assertion::algorithm(self.algorithm));
        std::iter::once(tokens).chain((assertions != tokens).then_some(assertions))
    }
}

/// A next key that signs when its time of publication is over.
pub(super) fn next(key: &Key, now: Timestamp) -> Record {
    Record { signs_at: Some(now.plus(LEAD).secs()), ..Record::new(key, State::Next, now) }
}

/// `key` takes over at `signs_at`; one that was to do so before has signed nothing and never will.
pub(super) fn succeed(records: &mut Vec<Record>, key: &Key, signs_at: Timestamp, now: Timestamp) {
    for other in records.iter_mut().filter(|r| r.will_sign(key.algorithm()) && r.kid != key.kid()) {
        (other.state, other.since, other.signs_at) = (State::Retiring, now.secs(), None);
    }
    let signs_at = Some(signs_at.secs());
    match records.iter_mut().find(|r| r.kid == key.kid()) {
        Some(known) => (known.state, known.since, known.signs_at) = (State::Next, now.secs(), signs_at),
        None => records.push(Record { signs_at, ..Record::new(key, State::Next, now) }),
    }
}

/// Does what is due in the ring of `shelf`; says what was done.
///
/// # Errors
/// When the ring cannot be read or written. What was done before that stands, and the rest is done the next time.
pub fn tend(shelf: impl Into<Shelf>, policy: &Policy, clock: &Clock) -> Result<Vec<Step>, Error> {
    let directory = Directory::open(shelf.into())?;
    let now = clock.now();
    let due = |records: &[Record]| {
        let (mut after, mut steps) = (records.to_vec(), Vec::new());
        advance(&mut after, policy, now, &mut steps);
        (after != records || !wanted(&after, policy, now).is_empty()).then_some((after, steps))
    };
    // Without the lock: most of the time there is nothing to do.
    if directory.records()?.is_some_and(|records| due(&records).is_none()) {
        return Ok(Vec::new());
    }
    let _lock = directory.lock()?;
    let Some((mut records, mut steps)) = due(&recorded(&directory, clock)?) else { return Ok(Vec::new()) };
    for algorithm in wanted(&records, policy, now) {
        publish(&directory, &mut records, algorithm, now, &mut steps)?;
    }
    save(&directory, records, &steps)?;
    Ok(steps)
}

/// Has a new key take over as soon as it has been published for long enough, or with `at_once` in [`LEAD_AT_ONCE`]: then
/// services that cached the JWKS may refuse new tokens for some minutes, which is what one wants when a key was stolen.
///
/// # Errors
/// As [`tend`].
pub fn rotate(shelf: impl Into<Shelf>, policy: &Policy, at_once: bool, clock: &Clock) -> Result<Vec<Step>, Error> {
    let directory = Directory::open(shelf.into())?;
    let _lock = directory.lock()?;
    let (mut records, mut steps, now) = (recorded(&directory, clock)?, Vec::new(), clock.now());
    for algorithm in policy.signing() {
        if !records.iter().any(|r| r.will_sign(algorithm)) {
            publish(&directory, &mut records, algorithm, now, &mut steps)?;
        }
        for record in records.iter_mut().filter(|r| r.will_sign(algorithm)) {
            let published = Timestamp::from_secs(record.since);
            // One more, since the time is cut to seconds.
            record.signs_at =
                Some(if at_once { published.plus(LEAD_AT_ONCE).secs() + 1 } else { published.plus(LEAD).secs() });
        }
    }
    // Of what was there before, too: the caller is told when it signs.
    if steps.is_empty() {
        let waiting = records.iter().filter(|r| policy.signing().any(|algorithm| r.will_sign(algorithm)));
        steps.extend(waiting.filter_map(published));
    }
    advance(&mut records, policy, now, &mut steps);
    save(&directory, records, &steps)?;
    Ok(steps)
}

fn published(record: &Record) -> Option<Step> {
    let signs_at = Timestamp::from_secs(record.signs_at?);
    Some(Step::Published { algorithm: record.algorithm()?, kid: record.kid.clone(), signs_at })
}

fn publish(
    directory: &Directory,
    records: &mut Vec<Record>,
    algorithm: Algorithm,
    now: Timestamp,
    steps: &mut Vec<Step>,
) -> Result<(), Error> {
    let record = next(&generate(directory, algorithm)?, now);
    steps.extend(published(&record));
    records.push(record);
    Ok(())
}

/// The ring first: a key that it still names must be there.
fn save(directory: &Directory, records: Vec<Record>, steps: &[Step]) -> Result<(), Error> {
    directory.save(records)?;
    for step in steps {
        if let Step::Removed { algorithm, kid } = step {
            directory.remove(*algorithm, kid)?;
        }
    }
    Ok(())
}

/// The algorithms whose active key is of age, or will be when a new one has been published, and has no successor.
fn wanted(records: &[Record], policy: &Policy, now: Timestamp) -> Vec<Algorithm> {
    let Some(every) = policy.every else { return Vec::new() };
    let of_age = |record: &&Record| now.plus(LEAD) >= Timestamp::from_secs(record.since).plus(every);
    policy
        .signing()
        .filter(|&algorithm| records.iter().filter(|r| r.signs(algorithm)).any(|r| of_age(&r)))
        .filter(|&algorithm| !records.iter().any(|r| r.will_sign(algorithm)))
        .collect()
}

/// Everything that time alone decides.
fn advance(records: &mut Vec<Record>, policy: &Policy, now: Timestamp, steps: &mut Vec<Step>) {
    let named = |record: &Record| record.algorithm().map(|algorithm| (algorithm, record.kid.clone()));
    // Before anything else: a key that is replaced now has signed until now.
    note_life(records, policy);
    // Next keys whose time has come.
    let ripe = |r: &Record| r.state == State::Next && r.signs_at.is_none_or(|at| at <= now.secs());
    while let Some(at) = records.iter().position(ripe) {
        let alg = records[at].alg.clone();
        for former in records.iter_mut().filter(|r| r.state == State::Active && r.alg == alg) {
            (former.state, former.since) = (State::Retiring, now.secs());
        }
        let record = &mut records[at];
        (record.state, record.since, record.signs_at) = (State::Active, now.secs(), None);
        steps.extend(named(record).map(|(algorithm, kid)| Step::Activated { algorithm, kid }));
    }
    note_life(records, policy);
    // Keys of our own of algorithms that are used no more.
    let long_since = |r: &Record| policy.signing().any(|a| r.signs(a)) && since(r, FAREWELL) <= now;
    if records.iter().any(long_since) {
        let left = |r: &&mut Record| r.state == State::Active && !policy.signing().any(|a| r.signs(a)) && !r.imported;
        for record in records.iter_mut().filter(left) {
            (record.state, record.since) = (State::Retiring, now.secs());
            steps.extend(named(record).map(|(algorithm, kid)| Step::Retired { algorithm, kid }));
        }
    }
    // Keys of which nothing is left.
    records.retain(|record| {
        let life = Duration::from_secs(u64::try_from(record.life.unwrap_or(UNKNOWN_LIFE)).unwrap_or_default());
        let over = record.state == State::Retiring && since(record, life + MARGIN) <= now;
        if over {
            steps.extend(named(record).map(|(algorithm, kid)| Step::Removed { algorithm, kid }));
        }
        !over
    });
}

/// Tokens of a key that signs, or may stand in for one that does not sign yet, live as long as the longest `access_ttl` of its
/// time.
fn note_life(records: &mut [Record], policy: &Policy) {
    let access_ttl = i64::try_from(policy.access_ttl.as_secs()).unwrap_or(i64::MAX);
    for record in records.iter_mut().filter(|r| r.state == State::Active) {
        record.life = Some(record.life.unwrap_or(UNKNOWN_LIFE).max(access_ttl));
    }
}

/// This long after `record` entered its state.
fn since(record: &Record, duration: Duration) -> Timestamp {
    Timestamp::from_secs(record.since).plus(duration)
}

#[cfg(test)]
mod tests;
