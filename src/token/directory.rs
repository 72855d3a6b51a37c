//! The key directory: one file per key, and `ring.json`, which says what each is for.
//!
//! A key file is `<ALG>-<kid>.pem`, or `HS256-<kid>.secret` with the bytes of the secret; all are owner-only. A key is
//! written before the ring names it, and `ring.json` is replaced whole, so that a crash leaves the old ring or the new
//! one. Whoever changes something holds the lock file; reading needs none. Files of other names (`refresh.key`, the
//! admin token, dot files) are not this module's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::key::{Fault, KID_LEN, Key};
use super::keys::{Error, State};
use crate::clock::Timestamp;
use crate::config::Algorithm;
use crate::keyfile;

pub(super) const RING: &str = "ring.json";
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
pub(super) struct Directory<'a>(&'a Path);

impl<'a> Directory<'a> {
    /// Makes it when it is missing. Refuses one that everybody may write to, and stray keys in it.
    pub(super) fn open(path: &'a Path) -> Result<Self, Error> {
        keyfile::create_dir(path).map_err(|e| failed(path, e))?;
        let mode = fs::metadata(path).map_err(|e| failed(path, e))?.permissions().mode();
        if mode & 0o002 != 0 {
            return Err(Error::Exposed { path: path.into() });
        }
        Ok(Self(path))
    }

    /// Keeps every other process from changing the directory until the returned file is dropped.
    pub(super) fn lock(&self) -> Result<File, Error> {
        let path = self.0.join(LOCK);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        file.and_then(|file| file.lock().map(|()| file)).map_err(|e| failed(&path, e))
    }

    /// The ring as recorded; `None` before the first start.
    pub(super) fn records(&self) -> Result<Option<Vec<Record>>, Error> {
        let path = self.0.join(RING);
        let content = match keyfile::read(&path) {
            Ok(content) => content,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(&path, e)),
        };
        match serde_json::from_slice::<Ring>(&content) {
            Ok(ring) if ring.version == VERSION && consistent(&ring.keys) => Ok(Some(ring.keys)),
            _ => Err(Error::Ring { path }),
        }
    }

    /// Replaces the ring.
    pub(super) fn save(&self, keys: Vec<Record>) -> Result<(), Error> {
        let path = self.0.join(RING);
        let ring = Ring { version: VERSION, keys };
        let mut content = serde_json::to_vec_pretty(&ring).map_err(|e| failed(&path, e.into()))?;
        content.push(b'\n');
        keyfile::write(&path, &content).map_err(|e| failed(&path, e))
    }

    /// Writes a key file.
    pub(super) fn write(&self, key: &Key, content: &[u8]) -> Result<(), Error> {
        let path = self.file(key.algorithm(), key.kid());
        keyfile::write(&path, content).map_err(|e| failed(&path, e))
    }

    /// Removes a key file that the ring no longer names.
    pub(super) fn remove(&self, algorithm: Algorithm, kid: &str) -> Result<(), Error> {
        let path = self.file(algorithm, kid);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(&path, e)),
            _ => Ok(()),
        }
    }

    /// Reads the key file of `algorithm` and `kid`; what is in it must bear that name.
    pub(super) fn read(&self, algorithm: Algorithm, kid: &str) -> Result<Key, Error> {
        let path = self.file(algorithm, kid);
        let content = match keyfile::read(&path) {
            Ok(content) => content,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::Missing { path }),
            Err(e) => return Err(failed(&path, e)),
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
        let mut found: Vec<(SystemTime, Algorithm, String)> = Vec::new();
        for entry in fs::read_dir(self.0).map_err(|e| failed(self.0, e))? {
            let path = entry.map_err(|e| failed(self.0, e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') || !(name.ends_with(".pem") || name.ends_with(".secret")) {
                continue;
            }
            let (algorithm, kid) = parse(&name).ok_or_else(|| Error::Stray { path: path.clone() })?;
            let modified = fs::metadata(&path).and_then(|m| m.modified()).map_err(|e| failed(&path, e))?;
            found.push((modified, algorithm, kid.to_owned()));
        }
        found.sort_by(|a, b| (a.0, &a.2).cmp(&(b.0, &b.2)));
        Ok(found.into_iter().map(|(_, algorithm, kid)| (algorithm, kid)).collect())
    }

    fn file(&self, algorithm: Algorithm, kid: &str) -> PathBuf {
        self.0.join(format!("{}-{kid}.{}", algorithm.name(), extension(algorithm)))
    }
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

fn failed(path: &Path, source: io::Error) -> Error {
    Error::File { path: path.into(), source }
}
