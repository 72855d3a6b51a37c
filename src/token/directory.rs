//! The key directory: one file per key, and `ring.json`, which says what each is for; on whatever [`Shelf`] they lie.
//!
//! A key file is `<ALG>-<kid>.pem`, or `HS256-<kid>.secret` with the bytes of the secret; all are owner-only. A key is
//! written before the ring names it, and `ring.json` is replaced whole, so that a crash leaves the old ring or the new
//! one. Whoever changes something holds the lock file; reading needs none. Files of other names (`refresh.key`, the
//! admin token, dot files) are not this module's.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::key::{Fault, KID_LEN, Key};
use super::keys::{Error, State};
use crate::clock::Timestamp;
use crate::config::Algorithm;
use crate::keyfile::{Lock, Shelf};

/// What each key is for.
pub const RING: &str = "ring.json";
const LOCK: &str = ".lock";
const VERSION: u32 = 1;

/// What `ring.json` says of one key. Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) kid: String,
    pub(super) alg: String,
    pub(super) state: State,
    /// When it entered this state.
    pub(super) since: i64,
    pub(super) created_at: i64,
    /// When a next key begins to sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signs_at: Option<i64>,
    /// The longest that a token of it may live, seconds; unknown in rings of old. 0 of a key of ours that has signed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) life: Option<i64>,
    /// Whether it was brought in. What others sign with it is not ours to know.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) imported: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature that serde asks for
fn is_false(flag: &bool) -> bool {
    !flag
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ring {
    version: u32,
    keys: Vec<Record>,
}

impl Record {
    pub(super) fn new(key: &Key, state: State, now: Timestamp) -> Self {
        Self {
            kid: key.kid().to_owned(),
            alg: key.algorithm().name().to_owned(),
            state,
            since: now.secs(),
            created_at: now.secs(),
            signs_at: None,
            life: Some(0),
            imported: false,
        }
    }

    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|a| a.name() == self.alg)
    }

    pub(super) fn will_sign(&self, algorithm: Algorithm) -> bool {
        self.state == State::Next && self.alg == algorithm.name()
    }

    pub(super) fn signs(&self, algorithm: Algorithm) -> bool {
        self.state == State::Active && self.alg == algorithm.name()
    }
}

/// The directory itself; it exists.
pub(super) struct Directory(Shelf);

impl Directory {
    /// Makes it when it is missing. Refuses one that everybody may write to, and stray keys in it.
    pub(super) fn open(shelf: Shelf) -> Result<Self, Error> {
        match shelf.prepare() {
            Ok(false) => Ok(Self(shelf)),
            Ok(true) => Err(Error::Exposed { path: shelf.place() }),
            Err(error) => Err(failed(shelf.place(), error)),
        }
    }

    /// Keeps every other process from changing the directory until what is returned is dropped.
    pub(super) fn lock(&self) -> Result<Lock, Error> {
        self.0.lock(LOCK).map_err(|e| failed(self.0.path(LOCK), e))
    }

    /// Within which time every instance has read what was changed.
    pub(super) fn settles(&self) -> Duration {
        self.0.settles()
    }

    /// The ring as recorded; `None` before the first start.
    pub(super) fn records(&self) -> Result<Option<Vec<Record>>, Error> {
        let path = self.0.path(RING);
        let content = match self.0.read(RING) {
            Ok(content) => content,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(path, e)),
        };
        match serde_json::from_slice::<Ring>(&content) {
            Ok(ring) if ring.version == VERSION && consistent(&ring.keys) => Ok(Some(ring.keys)),
            _ => Err(Error::Ring { path }),
        }
    }

    /// Replaces the ring.
    pub(super) fn save(&self, keys: Vec<Record>) -> Result<(), Error> {
        let ring = Ring { version: VERSION, keys };
        let mut content = serde_json::to_vec_pretty(&ring).map_err(|e| failed(self.0.path(RING), e.into()))?;
        content.push(b'\n');
        self.0.write(RING, &content).map_err(|e| failed(self.0.path(RING), e))
    }

    /// Writes a key file.
    pub(super) fn write(&self, key: &Key, content: &[u8]) -> Result<(), Error> {
        let name = file(key.algorithm(), key.kid());
        self.0.write(&name, content).map_err(|e| failed(self.0.path(&name), e))
    }

    /// Removes a key file that the ring no longer names.
    pub(super) fn remove(&self, algorithm: Algorithm, kid: &str) -> Result<(), Error> {
        let name = file(algorithm, kid);
        self.0.remove(&name).map_err(|e| failed(self.0.path(&name), e))
    }

    /// Reads the key file of `algorithm` and `kid`; what is in it must bear that name.
    pub(super) fn read(&self, algorithm: Algorithm, kid: &str) -> Result<Key, Error> {
        let name = file(algorithm, kid);
        let path = self.0.path(&name);
        let content = match self.0.read(&name) {
            Ok(content) => content,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::Missing { path }),
            Err(e) => return Err(failed(path, e)),
        };
        match Key::from_file(algorithm, &content) {
            Ok(key) if key.kid() == kid && key.algorithm() == algorithm => Ok(key),
            Ok(_) => Err(Error::Key { path, fault: Fault::Misnamed }),
            Err(fault) => Err(Error::Key { path, fault }),
        }
    }

    /// All key files, oldest first.
    ///
    /// A `.pem` or `.secret` under another name than ours is refused: somebody put it there in the belief that it signs.
    pub(super) fn files(&self) -> Result<Vec<(Algorithm, String)>, Error> {
        let mut found: Vec<(Timestamp, Algorithm, String)> = Vec::new();
        for name in self.0.names().map_err(|e| failed(self.0.place(), e))? {
            if name.starts_with('.') || !(name.ends_with(".pem") || name.ends_with(".secret")) {
                continue;
            }
            let (algorithm, kid) = parse(&name).ok_or_else(|| Error::Stray { path: self.0.path(&name) })?;
            let written_at = self.0.written_at(&name).map_err(|e| failed(self.0.path(&name), e))?;
            found.push((written_at, algorithm, kid.to_owned()));
        }
        found.sort_by(|a, b| (a.0, &a.2).cmp(&(b.0, &b.2)));
        Ok(found.into_iter().map(|(_, algorithm, kid)| (algorithm, kid)).collect())
    }
}

fn file(algorithm: Algorithm, kid: &str) -> String {
    format!("{}-{kid}.{}", algorithm.name(), extension(algorithm))
}

fn parse(name: &str) -> Option<(Algorithm, &str)> {
    let (stem, ending) = name.rsplit_once('.')?;
    let (alg, kid) = stem.split_once('-')?;
    let algorithm = Algorithm::ALL.into_iter().find(|a| a.name() == alg)?;
    (ending == extension(algorithm) && is_kid(kid)).then_some((algorithm, kid))
}

fn extension(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Hs256 => "secret",
        Algorithm::Es256 | Algorithm::EdDsa | Algorithm::Rs256 => "pem",
    }
}

/// A kid becomes part of a file name: only the characters and the length of a thumbprint.
fn is_kid(kid: &str) -> bool {
    kid.len() == KID_LEN && kid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Known algorithms, each key once, at most one active and one next key per algorithm.
fn consistent(keys: &[Record]) -> bool {
    keys.iter().enumerate().all(|(n, key)| {
        let twin =
            |k: &Record| k.kid == key.kid || (k.state != State::Retiring && k.state == key.state && k.alg == key.alg);
        key.algorithm().is_some() && is_kid(&key.kid) && !keys.iter().skip(n + 1).any(twin)
    })
}

fn failed(path: PathBuf, source: io::Error) -> Error {
    Error::File { path, source }
}
