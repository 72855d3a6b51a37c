//! The key ring: which keys there are, which of them signs, which only verify.
//!
//! A ring is read whole from its shelf (a folder, or what was taken out of the store) and never changes; a reload reads another. Per algorithm one key is
//! *active* and signs; the *next* one is published and verifies already; the ones before are *retiring*: they verify what
//! they signed and stay in the JWKS until the last of that has expired. Every key verifies its own algorithm, whatever the
//! configuration signs with. One key is [`super::key`], the files are [`super::directory`], who takes whose place and when
//! is [`super::rotation`].

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::assertion;
use super::directory::{Directory, Record};
use super::key::{Fault, Key};
use super::rotation;
use crate::clock::{Clock, Timestamp};
use crate::config::Algorithm;
use crate::keyfile::Shelf;

pub use super::directory::RING;

/// Why there is no ring, or why a key was not imported. The remedy may be in the source: print the whole chain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or the directory cannot be read or written; also when others may read it.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Everybody may write to the directory, and so put keys there.
    #[error("{}: everybody may write to this key directory; run `chmod 700` on it", path.display())]
    Exposed {
        /// The directory.
        path: PathBuf,
    },
    /// A key file of the ring holds something else.
    #[error("{} is no key of this ring", path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        fault: Fault,
    },
    /// The ring names a key whose file is gone.
    #[error("{}: this key is in ring.json, but its file is gone; restore it from the backup", path.display())]
    Missing {
        /// The file that should be there.
        path: PathBuf,
    },
    /// A key under a name that is not ours.
    #[error(
        "{path}: this file is not part of the key ring; move it elsewhere, and if it shall sign, run \
         `wxgate keys import` on it there",
        path = path.display()
    )]
    Stray {
        /// The file.
        path: PathBuf,
    },
    /// `ring.json` is damaged, contradicts itself, or is of a later version.
    #[error(
        "{path}: this is not a key ring that can be read; restore it from the backup, or move it away: it is then made \
         anew, with the newest key of each algorithm active",
        path = path.display()
    )]
    Ring {
        /// The file.
        path: PathBuf,
    },
    /// The key that was to be imported is not fit.
    #[error("the key was not taken")]
    Unfit(#[source] Fault),
    /// A new key could not be made.
    #[error("no key could be made")]
    Generation(#[source] Fault),
}

/// What a key of the ring is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Published, and verifies; signs nothing yet.
    Next,
    /// Signs, when its algorithm is the configured one, and verifies.
    Active,
    /// Verifies what it signed before.
    Retiring,
}

/// A key and its place in the ring.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// What it is for.
    pub state: State,
    /// When it entered that state.
    pub since: Timestamp,
    /// When it was made or imported.
    pub created_at: Timestamp,
    /// When a next key begins to sign.
    pub signs_at: Option<Timestamp>,
}

/// All keys, ready for use; immutable.
#[derive(Debug)]
pub struct KeyRing {
    entries: Vec<Entry>,
    /// What it was read from.
    records: Vec<Record>,
}

impl KeyRing {
    /// Reads the ring on `shelf`, and makes what is missing: the directory (`0700`), a key of `algorithm`, and where that is
    /// HS256 one of ES256, for assertions. Of several processes that start at once, one makes it and all get it. The keys of
    /// the first start sign at once; one that is added later is published before it signs, and others stand in for it.
    ///
    /// # Errors
    /// Any [`Error`]; nothing is repaired silently.
    pub fn open(shelf: impl Into<Shelf>, algorithm: Algorithm, clock: &Clock) -> Result<Self, Error> {
        let directory = Directory::open(shelf.into())?;
        let mut records = directory.records()?.unwrap_or_default();
        // Assertions have a key that can be published.
        let needed = [algorithm, assertion::algorithm(algorithm)];
        let ready = |records: &[Record], needed| records.iter().any(|r| r.signs(needed) || r.will_sign(needed));
        if !needed.iter().all(|&needed| ready(&records, needed)) {
            let _lock = directory.lock()?;
            // Again: another process may have been here before the lock was ours.
            records = recorded(&directory, clock)?;
            // A secret is not published, so it stands in for no published key.
            let stands_in = |r: &Record, needed| {
                r.state == State::Active && (needed == Algorithm::Hs256 || !r.signs(Algorithm::Hs256))
            };
            let before = records.clone();
            for needed in needed {
                if !ready(&records, needed) {
                    let key = generate(&directory, needed)?;
                    match before.iter().any(|r| stands_in(r, needed)) {
                        true => records.push(rotation::next(&key, clock.now())),
                        false => drop(activate(&mut records, &key, clock.now())),
                    }
                    directory.save(records.clone())?;
                }
            }
        }
        Self::load(&directory, &records)
    }

    fn load(directory: &Directory, records: &[Record]) -> Result<Self, Error> {
        for (algorithm, kid) in directory.files()? {
            if !records.iter().any(|r| r.kid == kid) {
                // What an interrupted import leaves behind: never active, so no token is lost by leaving it alone.
                tracing::warn!(algorithm = algorithm.name(), kid, "a key file is not in ring.json and is not used");
            }
        }
        let mut entries = Vec::with_capacity(records.len());
        for record in records {
            let Some(algorithm) = record.algorithm() else { continue };
            entries.push(Entry {
                key: directory.read(algorithm, &record.kid)?,
                state: record.state,
                since: Timestamp::from_secs(record.since),
                created_at: Timestamp::from_secs(record.created_at),
                signs_at: record.signs_at.map(Timestamp::from_secs),
            });
        }
        Ok(Self { entries, records: records.to_vec() })
    }

    /// Whether the ring on `shelf` is still this one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_current(&self, shelf: impl Into<Shelf>) -> Result<bool, Error> {
        Ok(Directory::open(shelf.into())?.records()?.is_some_and(|records| records == self.records))
    }

    /// Whether there is a ring on `shelf`: one that is away for a moment (a folder that is swapped or not mounted) must not be
    /// replaced by a new one, with which every token would be refused.
    ///
    /// # Errors
    /// When there is none.
    pub fn is_there(shelf: &Shelf) -> Result<(), Error> {
        shelf.written_at(RING).map(drop).map_err(|source| Error::File { path: shelf.path(RING), source })
    }

    /// The key that signs what `algorithm` is to sign: its active one, or, until that has been published for long enough,
    /// the newest active one of another algorithm. `published`: one that is in the JWKS.
    pub fn signer(&self, algorithm: Algorithm, published: bool) -> Option<&Key> {
        let stands_in = || {
            let fit = |e: &&Entry| e.state == State::Active && (!published || e.key.jwk().is_some());
            self.entries.iter().filter(fit).max_by_key(|e| e.since).map(|e| &e.key)
        };
        self.signing_key(algorithm).or_else(stands_in)
    }

    /// The active key of `algorithm`.
    pub fn signing_key(&self, algorithm: Algorithm) -> Option<&Key> {
        self.entries.iter().find(|e| e.state == State::Active && e.key.algorithm() == algorithm).map(|e| &e.key)
    }

    /// The key of this name. A ring has a handful of keys: a scan is the fastest map.
    pub fn verifying_key(&self, kid: &str) -> Option<&Key> {
        self.entries.iter().find(|e| e.key.kid() == kid).map(|e| &e.key)
    }

    /// The longest that a token may live that a key of this ring has signed, as far as is known: what was issued by others, or
    /// when `access_ttl` was longer, included.
    pub fn longest_life(&self) -> Duration {
        let longest = self.records.iter().map(|r| r.life.unwrap_or(rotation::UNKNOWN_LIFE)).max();
        Duration::from_secs(longest.and_then(|secs| u64::try_from(secs).ok()).unwrap_or_default())
    }

    /// All keys, in the order in which they came.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The algorithm, decided by the key.
    pub algorithm: Algorithm,
    /// Its name in tokens.
    pub kid: String,
    /// The key that was active until now, if it is another; it verifies on.
    pub replaced: Option<String>,
    /// When it begins to sign, if that is not at once: when every instance has read the ring.
    pub signs_at: Option<Timestamp>,
}

/// Takes a PEM file with a PKCS#8 key into the ring of `shelf`; it becomes the active key of its algorithm, on a shelf that
/// others read a moment later as soon as they have. Importing a key twice changes nothing.
///
/// # Errors
/// [`Error::Unfit`] when the key is not fit, else as [`KeyRing::open`].
pub fn import_pem(shelf: impl Into<Shelf>, pem: &[u8], clock: &Clock) -> Result<Imported, Error> {
    import(shelf.into(), &Key::from_pem(pem).map_err(Error::Unfit)?, pem, clock)
}

/// As [`import_pem`], for the raw bytes of an HS256 secret.
///
/// # Errors
/// As [`import_pem`].
pub fn import_hs256(shelf: impl Into<Shelf>, secret: &[u8], clock: &Clock) -> Result<Imported, Error> {
    import(shelf.into(), &Key::from_secret(secret).map_err(Error::Unfit)?, secret, clock)
}

fn import(shelf: Shelf, key: &Key, content: &[u8], clock: &Clock) -> Result<Imported, Error> {
    let directory = Directory::open(shelf)?;
    let _lock = directory.lock()?;
    let mut records = recorded(&directory, clock)?;
    let (algorithm, kid) = (key.algorithm(), key.kid().to_owned());
    if records.iter().any(|r| r.signs(algorithm) && r.kid == kid) {
        return Ok(Imported { algorithm, kid, replaced: None, signs_at: None });
    }
    directory.write(key, content)?;
    let signs_now = records.iter().find(|r| r.signs(algorithm)).map(|r| r.kid.clone());
    // Nobody is to sign with a key that others have not read yet; the first one of its algorithm is awaited by nobody.
    let (replaced, signs_at) = if signs_now.is_some() && !directory.settles().is_zero() {
        // One more, since the time is cut to seconds.
        let signs_at = clock.now().plus(directory.settles()).plus(Duration::from_secs(1));
        rotation::succeed(&mut records, key, signs_at, clock.now());
        (signs_now, Some(signs_at))
    } else {
        (activate(&mut records, key, clock.now()), None)
    };
    if let Some(record) = records.iter_mut().find(|r| r.kid == kid) {
        (record.imported, record.life) = (true, record.life.max(Some(rotation::UNKNOWN_LIFE)));
    }
    directory.save(records)?;
    Ok(Imported { algorithm, kid, replaced, signs_at })
}

/// The records, or, where `ring.json` is missing beside key files (a first start that was cut short, a restore that
/// forgot it), records made from the files: all verify, the newest of each algorithm signs. Locking out every caller
/// over a lost list would be the worse answer.
pub(super) fn recorded(directory: &Directory, clock: &Clock) -> Result<Vec<Record>, Error> {
    if let Some(records) = directory.records()? {
        return Ok(records);
    }
    let mut records = Vec::new();
    for (algorithm, kid) in directory.files()? {
        activate(&mut records, &directory.read(algorithm, &kid)?, clock.now());
    }
    // Whose they were, and for how long they have signed, stood in the list.
    for record in &mut records {
        record.life = Some(rotation::UNKNOWN_LIFE);
    }
    if !records.is_empty() {
        tracing::warn!(keys = records.len(), "ring.json was missing and is made anew from the key files");
        directory.save(records.clone())?;
    }
    Ok(records)
}

/// Makes `key` the active one of its algorithm; returns the name of the one that was.
pub(super) fn activate(records: &mut Vec<Record>, key: &Key, now: Timestamp) -> Option<String> {
    let since = now.secs();
    let mut replaced = None;
    if let Some(former) = records.iter_mut().find(|r| r.signs(key.algorithm()) && r.kid != key.kid()) {
        former.state = State::Retiring;
        former.since = since;
        replaced = Some(former.kid.clone());
    }
    match records.iter_mut().find(|r| r.kid == key.kid()) {
        Some(known) => (known.state, known.since, known.signs_at) = (State::Active, since, None),
        None => records.push(Record::new(key, State::Active, now)),
    }
    replaced
}

/// A new key of `algorithm`, in its file.
pub(super) fn generate(directory: &Directory, algorithm: Algorithm) -> Result<Key, Error> {
    let content = Key::generate(algorithm).map_err(Error::Generation)?;
    let key = Key::from_file(algorithm, &content).map_err(Error::Generation)?;
    directory.write(&key, &content)?;
    Ok(key)
}

#[cfg(test)]
mod tests;
