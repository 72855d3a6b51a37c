//! The sealing keys: one file, one key a line, the newest on top.
//!
//! A line is the key as 64 hex digits, then, where they are known, when it was made and when it begins to seal, in seconds
//! since 1970. The topmost key whose time has come seals, all open. So a new key lies there for [`LEAD`] before it seals, and
//! every instance has read it by then; and a line that an operator puts on top without times seals from when it is read.
//! An older key stays until nothing is sealed by it any more, and for [`KEEP`] at least: the folder may be shared by a
//! gateway whose store is another.

use std::io;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, NONCE_LEN, UnboundKey};
use aws_lc_rs::{digest, hmac, rand};
use zeroize::Zeroizing;

use super::Error;
use crate::clock::Timestamp;
use crate::keyfile::Shelf;

/// Name of the key file within the key directory.
pub const FILE: &str = "sealing.key";

/// Held by whoever changes it.
const LOCK: &str = ".sealing.lock";

/// How long a new key is in the file before it seals: as long as a signing key is published.
pub const LEAD: Duration = Duration::from_secs(600);

/// How long after its successor began to seal no instance seals by a key any more, however wrong its clock is.
const SETTLED: Duration = Duration::from_secs(3600);

/// How long a key that seals no more is kept at least.
pub const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

const KEY_LEN: usize = 32;
pub(super) const KEY_ID_LEN: usize = 8;

/// A key's name in records: the beginning of its SHA-256.
pub type KeyId = [u8; KEY_ID_LEN];

/// Which key seals, and which older ones there are, in one value: another one for every other set of keys.
pub type Standing = [u8; KEY_ID_LEN];

/// What became of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// The key that takes over.
    pub id: KeyId,
    /// When.
    pub seals_from: Timestamp,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Seals nothing yet.
    Next,
    /// Seals.
    Active,
    /// Opens what it sealed before.
    Old,
}

/// A key without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its name, as hex digits.
    pub id: String,
    /// What it is for.
    pub state: State,
    /// When it was made, if that is known.
    pub made_at: Option<Timestamp>,
    /// When it began to seal, or will, if that is known.
    pub seals_from: Option<Timestamp>,
}

/// The keys of one reading of the file. Never empty.
pub(super) struct SealingKeys(Vec<Key>);

/// One key, ready for use.
pub(super) struct Key {
    pub(super) id: KeyId,
    pub(super) cipher: LessSafeKey,
    nonces: hmac::Key,
    made_at: Option<Timestamp>,
    seals_from: Option<Timestamp>,
}

impl SealingKeys {
    /// Reads the file.
    pub(super) fn open(shelf: &Shelf) -> Result<Self, Error> {
        let keys = lines(shelf)?.iter().map(Key::of).collect::<Result<_, _>>()?;
        Ok(Self(keys))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The key that seals at `now`.
    pub(super) fn sealing(&self, now: Timestamp) -> &Key {
        &self.0[self.place(now)]
    }

    fn place(&self, now: Timestamp) -> usize {
        // The clock may have been set back to before all of them.
        self.0.iter().position(|key| key.seals_from.is_none_or(|from| from <= now)).unwrap_or(self.0.len() - 1)
    }

    /// The key that a record names, and what follows its name.
    pub(super) fn key_of<'a>(&self, sealed: &'a [u8]) -> Result<(&Key, &'a [u8]), Error> {
        let (id, rest) = sealed.split_first_chunk::<KEY_ID_LEN>().ok_or(Error::Sealed)?;
        Ok((self.0.iter().find(|key| key.id == *id).ok_or(Error::UnknownKey)?, rest))
    }

    /// Whether a record was sealed by a key that is older than the one that seals at `now`.
    pub(super) fn is_old(&self, sealed: &[u8], now: Timestamp) -> bool {
        self.0[self.place(now) + 1..].iter().any(|key| sealed.starts_with(&key.id))
    }

    /// Whether there are older keys than the one that seals at `now`.
    pub(super) fn has_old(&self, now: Timestamp) -> bool {
        self.place(now) + 1 < self.0.len()
    }

    /// Whether there is a key that may have sealed nothing for [`KEEP`]; where no time is known, the file has to tell.
    pub(super) fn may_drop(&self, now: Timestamp) -> bool {
        self.0.windows(2).any(|pair| pair[0].seals_from.is_none_or(|from| from.plus(KEEP) <= now))
    }

    /// See [`Vault::settled`](super::Vault::settled).
    pub(super) fn settled(&self, now: Timestamp) -> Option<Standing> {
        let key = self.sealing(now);
        let long_since = key.seals_from.is_none_or(|from| from.plus(SETTLED) <= now);
        (self.has_old(now) && long_since).then(|| self.standing(now))
    }

    /// Which key seals, and which older ones there are, in one value.
    pub(super) fn standing(&self, now: Timestamp) -> Standing {
        let mut all = digest::Context::new(&digest::SHA256);
        self.0[self.place(now)..].iter().for_each(|key| all.update(&key.id));
        let mut standing = [0; KEY_ID_LEN];
        standing.copy_from_slice(&all.finish().as_ref()[..KEY_ID_LEN]);
        standing
    }

    pub(super) fn describe(&self, now: Timestamp) -> Vec<Described> {
        let place = self.place(now);
        let state = |n: usize| match n.cmp(&place) {
            std::cmp::Ordering::Less => State::Next,
            std::cmp::Ordering::Equal => State::Active,
            std::cmp::Ordering::Greater => State::Old,
        };
        let describe = |(n, key): (usize, &Key)| {
            let (made_at, seals_from) = (key.made_at, key.seals_from);
            Described { id: name(&key.id), state: state(n), made_at, seals_from }
        };
        self.0.iter().enumerate().map(describe).collect()
    }
}

/// The name of a key for people.
pub fn name(id: &KeyId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Key {
    fn of(line: &Line) -> Result<Self, Error> {
        let id = line.id();
        // One key for one purpose: the cipher and the nonces each get their own.
        let master = hmac::Key::new(hmac::HMAC_SHA256, line.key.as_slice());
        let cipher = hmac::sign(&master, b"wxgate sealing cipher");
        let nonces = hmac::sign(&master, b"wxgate sealing nonces");
        let cipher = UnboundKey::new(&AES_256_GCM, cipher.as_ref()).map_err(|_| Error::Crypto)?;
        Ok(Self {
            id,
            cipher: LessSafeKey::new(cipher),
            nonces: hmac::Key::new(hmac::HMAC_SHA256, nonces.as_ref()),
            made_at: line.made_at,
            seals_from: line.seals_from,
        })
    }

    pub(super) fn nonce(&self, bound: &[u8], plaintext: &[u8]) -> [u8; NONCE_LEN] {
        let mut hash = hmac::Context::with_key(&self.nonces);
        hash.update(&(bound.len() as u64).to_be_bytes());
        hash.update(bound);
        hash.update(plaintext);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&hash.sign().as_ref()[..NONCE_LEN]);
        nonce
    }
}

/// One line of the file.
struct Line {
    key: Zeroizing<[u8; KEY_LEN]>,
    made_at: Option<Timestamp>,
    seals_from: Option<Timestamp>,
}

impl Line {
    fn fresh(now: Timestamp, seals_from: Timestamp) -> Result<Self, Error> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        rand::fill(key.as_mut_slice()).map_err(|_| Error::Crypto)?;
        Ok(Self { key, made_at: Some(now), seals_from: Some(seals_from) })
    }

    fn id(&self) -> KeyId {
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&digest::digest(&digest::SHA256, self.key.as_slice()).as_ref()[..KEY_ID_LEN]);
        id
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let key = from_hex(words.next()?)?;
        let mut time = || match words.next() {
            None => Some(None),
            Some(word) => Some(Some(Timestamp::from_secs(std::str::from_utf8(word).ok()?.parse().ok()?))),
        };
        let (made_at, seals_from) = (time()?, time()?);
        words.next().is_none().then_some(Self { key, made_at, seals_from })
    }

    fn write(&self, to: &mut Vec<u8>) {
        write_hex(&self.key, to);
        // The second without the first has no place.
        if let (Some(made_at), Some(seals_from)) = (self.made_at, self.seals_from) {
            to.extend_from_slice(format!(" {} {}", made_at.secs(), seals_from.secs()).as_bytes());
        }
        to.push(b'\n');
    }
}

/// A new key on top; if there is one that has not begun to seal, that one. With `at_once` it seals as soon as every instance has
/// read it, in a folder from now on: then another instance learns of it when it first meets a record of it.
///
/// # Errors
/// When the file cannot be read or written; the keys stay as they are.
pub fn rotate(shelf: &Shelf, at_once: bool, now: Timestamp) -> Result<Rotated, Error> {
    changed(shelf, |lines| {
        let waits = lines.first().is_some_and(|line| line.seals_from.is_some_and(|from| from > now));
        let soon = now.plus(shelf.settles());
        if !waits {
            lines.insert(0, Line::fresh(now, if at_once { soon } else { now.plus(LEAD) })?);
        } else if at_once {
            lines[0].seals_from = lines[0].seals_from.map(|from| from.min(soon));
        }
        let seals_from = lines[0].seals_from.unwrap_or(now);
        Ok((Rotated { id: lines[0].id(), seals_from }, !waits || at_once))
    })
}

/// As [`rotate`], if the newest key was made, or put there, at least `every` before the new one would seal.
///
/// # Errors
/// As [`rotate`].
pub fn rotate_if_of_age(shelf: &Shelf, every: Duration, now: Timestamp) -> Result<Option<Rotated>, Error> {
    let newest = lines(shelf)?.into_iter().next();
    // One without times was put there by a version that cannot read them, or by hand: whoever has it rotated by the command
    // knows that all instances can.
    let Some(made_at) = newest.and_then(|line| line.seals_from.or(line.made_at)) else { return Ok(None) };
    if now.plus(LEAD) < made_at.plus(every) {
        return Ok(None);
    }
    rotate(shelf, false, now).map(Some)
}

/// Takes out the keys that have sealed nothing for [`KEEP`]. To be called only when no record of an older key than the one that
/// seals is left in the store. Returns how many went.
///
/// # Errors
/// As [`rotate`].
pub fn drop_old(shelf: &Shelf, now: Timestamp) -> Result<usize, Error> {
    // The age of a key that says none.
    let written_at = shelf.written_at(FILE).map_err(|source| Error::KeyFile { path: shelf.path(FILE), source })?;
    changed(shelf, |lines| {
        let before = lines.len();
        // A key seals until its successor, the line above, begins to.
        let over = |n: usize, lines: &[Line]| {
            let from = lines[n - 1].seals_from.unwrap_or(written_at);
            from.plus(KEEP) <= now
        };
        let kept = (1..before).find(|&n| over(n, lines)).unwrap_or(before);
        lines.truncate(kept);
        Ok((before - kept, kept < before))
    })
}

/// Changes the file, alone. `change` says whether there is something to write.
fn changed<T>(shelf: &Shelf, change: impl FnOnce(&mut Vec<Line>) -> Result<(T, bool), Error>) -> Result<T, Error> {
    let failed = |source| Error::KeyFile { path: shelf.path(FILE), source };
    let _lock = shelf.lock(LOCK).map_err(failed)?;
    let mut lines = lines(shelf)?;
    let (outcome, is_changed) = change(&mut lines)?;
    if is_changed {
        let mut content = Zeroizing::new(Vec::with_capacity(lines.len() * (2 * KEY_LEN + 64)));
        lines.iter().for_each(|line| line.write(&mut content));
        shelf.write(FILE, &content).map_err(failed)?;
    }
    Ok(outcome)
}

/// The lines of the file.
fn lines(shelf: &Shelf) -> Result<Vec<Line>, Error> {
    let path = shelf.path(FILE);
    let content = shelf.read(FILE).map_err(|source| Error::KeyFile { path: path.clone(), source })?;
    let parse = |(index, line): (usize, &[u8])| {
        Line::parse(line).ok_or_else(|| Error::NotAKey { path: path.clone(), line: index + 1 })
    };
    content.trim_ascii_end().split(|&b| b == b'\n').enumerate().map(parse).collect()
}

/// Makes the file with one key, if it is not there. At the start alone: a file that is away for a moment must not be replaced by
/// another, for what that seals does not open when the first is back.
///
/// # Errors
/// As [`rotate`].
pub fn make(shelf: &Shelf, now: Timestamp) -> Result<(), Error> {
    let failed = |source| Error::KeyFile { path: shelf.path(FILE), source };
    match shelf.read(FILE) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return other.map(drop).map_err(failed),
    }
    // Enough room, so that no half-filled copy of the key is left behind by growth.
    let mut line = Zeroizing::new(Vec::with_capacity(2 * KEY_LEN + 64));
    Line::fresh(now, now)?.write(&mut line);
    shelf.write_new(FILE, &line).map(drop).map_err(failed)
}

fn write_hex(key: &[u8; KEY_LEN], to: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in key {
        to.push(DIGITS[usize::from(byte >> 4)]);
        to.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn from_hex(hex: &[u8]) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    if hex.len() != 2 * KEY_LEN {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut key = Zeroizing::new([0; KEY_LEN]);
    for (byte, pair) in key.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(key)
}
