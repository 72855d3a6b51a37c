//! Keys that are brought in from outside: into the keys in the store, by a command beside the gateways, or through one that
//! runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::{self, Config, SessionsStore};
use crate::keyfile::{Bundle, KeyFile, KeyFiles, MasterKey, Shelf};
use crate::store::Sessions;
use crate::store::redis::Redis;
use crate::store::sqlite::{self, Sqlite};
use crate::store::vault::Vault;
use crate::token::keys::{self, Imported, KeyRing};
use crate::token::refresh::RefreshSecret;

use super::key_shelf::{KeyShelf, masters};
use super::{Error, Gateway, birth, kept, key_shelf};

/// What a sealed key is for that goes to a running gateway.
const PURPOSE: &str = "key import";

/// The names in such a record.
const PEM: &str = "pem";
const SECRET: &str = "secret";

/// What only a folder has: where keys are in the store it is derived.
const ADMIN_TOKEN: &str = "admin.token";

/// The keys in a store, without a gateway.
#[derive(Debug)]
pub struct KeysInStore {
    /// Keeps the store open.
    _sessions: Arc<dyn Sessions>,
    shelf: KeyShelf,
    clock: Clock,
}

/// What was brought in from a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Files that are in the store now.
    pub files: Vec<String>,
    /// Names in the folder that are not.
    pub left: Vec<String>,
}

/// Why the keys of a folder were not brought in.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// It is none.
    #[error("{} is no folder of keys", .0.display())]
    NoKeys(PathBuf, #[source] keys::Error),
    /// A file of it cannot be read.
    #[error("cannot read {}", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// There are others.
    #[error(
        "there are keys in the store already, and whoever logged in with them would be signed out; to have those of the folder in \
         their place all the same, stop the gateways and add --replace"
    )]
    NotEmpty,
    /// The keys in the store cannot be used.
    #[error(transparent)]
    Keys(#[from] Error),
}

impl From<key_shelf::Error> for MoveError {
    fn from(error: key_shelf::Error) -> Self {
        Self::Keys(error.into())
    }
}

impl KeysInStore {
    /// Opens the store of sessions; `None` when it is a file that a running gateway has.
    ///
    /// # Errors
    /// When it cannot be opened, or the master key is not known here.
    pub async fn open(config: &Config, clock: &Clock) -> Result<Option<Self>, Error> {
        // Before the store: it may take long to say that it is away.
        masters(&config.token.keys)?;
        let sessions: Arc<dyn Sessions> = match &config.store.sessions {
            SessionsStore::Sqlite(path) if sqlite::holder(path)?.is_some() => return Ok(None),
            SessionsStore::Sqlite(path) => Sqlite::open(path)?,
            SessionsStore::Redis(address) => Redis::open(address).await?,
        };
        let shelf = KeyShelf::new(&config.token.keys, &sessions, clock)?;
        Ok(Some(Self { _sessions: sessions, shelf, clock: clock.clone() }))
    }

    /// Takes a key into the ring, as [`keys::import_pem`] and [`keys::import_hs256`] do.
    ///
    /// # Errors
    /// As there, and when the keys in the store cannot be read or written.
    pub async fn import(&self, content: &[u8], hs256: bool) -> Result<Imported, Error> {
        self.shelf.change_here(|shelf| Ok(taken(shelf, content, hs256, &self.clock)?)).await
    }

    /// Brings in all keys of `folder`, which nobody may be changing. `replace`: in the place of those that are there.
    ///
    /// # Errors
    /// When it holds no ring, something in it is damaged, or there are keys in the store already.
    pub async fn move_in(&self, folder: &Path, section: &config::Token, replace: bool) -> Result<Moved, MoveError> {
        let from = Shelf::from(folder);
        KeyRing::is_there(&from).map_err(|error| MoveError::NoKeys(folder.to_owned(), error))?;
        let (files, moved) = read(&from)?;
        let store = |shelf: &Shelf| {
            if !shelf.files().is_empty() && !replace {
                return Err(MoveError::NotEmpty);
            }
            shelf.replace(files.clone());
            // What is damaged is found now, and what is missing made.
            let whole = || -> Result<(), Error> {
                KeyRing::open(shelf, section.algorithm, &self.clock)?;
                Vault::open(shelf, &self.clock)?;
                RefreshSecret::open(shelf)?;
                Ok(())
            };
            Ok(whole()?)
        };
        self.shelf.change_here(store).await?;
        Ok(moved)
    }

    /// The same keys, where a ring in the folder that is the default is no reason to wait for it to be brought in.
    #[must_use]
    pub fn for_move(mut self) -> Self {
        self.shelf.begin_without_former();
        self
    }
}

fn read(from: &Shelf) -> Result<(KeyFiles, Moved), MoveError> {
    let failed = |name: &str| {
        let path = from.path(name);
        move |error| MoveError::File(path, error)
    };
    let (mut files, mut moved) = (KeyFiles::new(), Moved { files: Vec::new(), left: Vec::new() });
    let mut names = from.names().map_err(|error| MoveError::File(from.place(), error))?;
    names.sort_unstable();
    for name in names {
        if name.starts_with('.') || name == ADMIN_TOKEN {
            continue;
        }
        if !is_ours(&name) {
            moved.left.push(name);
            continue;
        }
        let content = from.read(&name).map_err(failed(&name))?;
        let written_at = from.written_at(&name).map_err(failed(&name))?;
        files.insert(name.clone(), KeyFile { content, written_at });
        moved.files.push(name);
    }
    Ok((files, moved))
}

fn is_ours(name: &str) -> bool {
    let others = [birth::FILE, kept::LOG_KEY, crate::store::vault::FILE, crate::token::refresh::FILE, keys::RING];
    name.ends_with(".pem") || name.ends_with(".secret") || others.contains(&name)
}

fn taken(shelf: &Shelf, content: &[u8], hs256: bool, clock: &Clock) -> Result<Imported, keys::Error> {
    match hs256 {
        true => keys::import_hs256(shelf, content, clock),
        false => keys::import_pem(shelf, content, clock),
    }
}

/// A key as it goes to a running gateway: nobody on the way can read it.
///
/// # Errors
/// When it cannot be sealed.
pub fn sealed(masters: &[MasterKey], content: &[u8], hs256: bool, clock: &Clock) -> Result<Vec<u8>, Error> {
    let mut bundle = Bundle::first().map_err(key_shelf::Error::Bundle)?;
    let file = KeyFile { content: Zeroizing::new(content.to_vec()), written_at: clock.now() };
    bundle.files.insert(if hs256 { SECRET } else { PEM }.to_owned(), file);
    Ok(bundle.seal(PURPOSE, masters).map_err(key_shelf::Error::Bundle)?)
}

impl Gateway {
    /// Takes a key into the ring that [`sealed`] made with the same master key.
    ///
    /// # Errors
    /// When it does not open, is not fit, or the keys cannot be written.
    pub async fn import_key(self: &Arc<Self>, record: &[u8]) -> Result<Imported, Error> {
        let masters = masters(&self.current().config.token.keys)?;
        let (bundle, _) = Bundle::open(record, PURPOSE, &masters).map_err(key_shelf::Error::Sealed)?;
        let work = move |shelf: &Shelf, clock: &Clock| {
            let Some((name, file)) = bundle.files.first_key_value() else {
                return Err(key_shelf::Error::Sealed(crate::keyfile::BundleError::Unknown).into());
            };
            Ok(taken(shelf, &file.content, name == SECRET, clock)?)
        };
        self.with_keys(work).await
    }
}
