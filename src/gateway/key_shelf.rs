//! Where the keys of the deployment are, and how they are changed.
//!
//! In a folder, whoever changes something holds its lock. In the store of sessions they are one sealed record
//! ([`Bundle`]): a change is made on a copy, which takes the place of the record that it was made from, or, when somebody
//! was faster, is made anew from what stands there then. So all instances agree on one set of keys, whenever they start,
//! rotate or die, and what is in force here has been in the store before. While the store is away, what was read last
//! stays in force.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::config;
use crate::keyfile::{self, Bundle, BundleError, Fate, KeyFiles, MasterKey, Shelf};
use crate::store::{self, Sessions};

/// What the records are for, among all that a master key may seal.
pub(super) const PURPOSE: &str = "key bundle";

/// How often a change is made anew because others were faster. Each time one of them was through.
const ATTEMPTS: usize = 100;

/// A ring that was left behind in the folder that is the default.
const FORMER: &str = "keys/ring.json";

/// Why the keys cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(std::io::Error),
    /// The variable of the master key is not set for this command.
    #[error(
        "the keys are in the store, sealed: set the environment variable that token.master_key names for this command, too"
    )]
    NoMasterKey,
    /// The record does not open. It is not replaced by another: with it, all would be signed out.
    #[error("the record of keys in the store {0}{remedy}", remedy = remedy(.0))]
    Bundle(BundleError),
    /// A key that was to be taken in does not open.
    #[error("the key that was sent {0}")]
    Sealed(BundleError),
    /// The store is away.
    #[error("the keys in the store cannot be read or written: {}", cause(.0))]
    Store(store::Error),
    /// It looks like a folder of keys that was to be moved.
    #[error(
        "there are no keys in the store, and {path} holds some: bring them in with `wxgate keys import --from {path}`, so that \
         nobody is signed out; or move that folder away, to begin with new keys",
        path = .0.display()
    )]
    NotMoved(PathBuf),
    /// Others change the keys all the time.
    #[error("the keys in the store are changed by others all the time; try again")]
    Contended,
    /// The gateway is on its way out.
    #[error("the store is closed")]
    Closed,
}

fn remedy(error: &BundleError) -> &'static str {
    match error {
        BundleError::OtherMasterKey { .. } => {
            ": set token.master_key to the one that it was sealed with (and to change it, see \"Keys in the store\" in the \
             documentation); nothing was changed"
        }
        BundleError::Damaged => ": restore it from a backup of the store; nothing was changed",
        BundleError::Unknown => ": run the version that wrote it, or a later one; nothing was changed",
        BundleError::Crypto | BundleError::TooLarge => "",
    }
}

fn cause(error: &store::Error) -> String {
    match error {
        store::Error::Unavailable(source) => source.to_string(),
        store::Error::Damaged(_) => error.to_string(),
    }
}

/// The place.
#[derive(Debug)]
pub struct KeyShelf {
    shelf: Shelf,
    store: Option<InStore>,
    clock: Clock,
}

#[derive(Debug)]
struct InStore {
    /// Not ours to keep open.
    sessions: Weak<dyn Sessions>,
    /// The first is the one in use.
    masters: Vec<MasterKey>,
    /// What readers of the shelf see.
    files: Arc<ArcSwap<KeyFiles>>,
    /// What stands there as far as is known here. One change at a time.
    known: Mutex<Option<Known>>,
    /// A ring here was to be moved before new keys are made.
    former: Option<PathBuf>,
}

/// A record and what is in it.
#[derive(Debug)]
struct Known {
    record: Vec<u8>,
    bundle: Bundle,
}

/// What a change begins with.
#[derive(Debug)]
struct Base {
    /// What stands there.
    record: Option<Vec<u8>>,
    bundle: Bundle,
    /// Whether another record has to be written, though nothing else changes.
    is_stale: bool,
}

impl KeyShelf {
    /// Of this configuration; nothing is read or made yet.
    ///
    /// # Errors
    /// When the master key is not known here.
    pub fn new(keys: &config::Keys, sessions: &Arc<dyn Sessions>, clock: &Clock) -> Result<Self, Error> {
        let (shelf, store) = match keys {
            config::Keys::Folder(folder) => (Shelf::from(folder), None),
            config::Keys::Store { local, .. } => {
                let files = Arc::<ArcSwap<KeyFiles>>::default();
                let (sessions, masters) = (Arc::downgrade(sessions), masters(keys)?);
                let store =
                    InStore { sessions, masters, known: Mutex::default(), former: Some(local.join(FORMER)), files };
                (Shelf::in_force(&store.files), Some(store))
            }
        };
        Ok(Self { shelf, store, clock: clock.clone() })
    }

    /// The keys in force, for reading; empty before the first change.
    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// New keys are made, or brought in, whatever is in the folder that is the default.
    pub(super) fn begin_without_former(&mut self) {
        if let Some(store) = &mut self.store {
            store.former = None;
        }
    }

    /// Whether they are in the store.
    pub fn is_in_store(&self) -> bool {
        self.store.is_some()
    }

    /// Runs `work` on the keys; what it changes is in force for everybody afterwards, all of it or nothing. Reads what others have
    /// changed first. `work` blocks, and may run several times, each time on what stands there then: of keys that it makes, those
    /// of the last time are the ones.
    ///
    /// # Errors
    /// That of `work`, or that the keys cannot be read or written; then the ones in force stay.
    pub async fn change<T, E>(&self, work: impl Fn(&Shelf) -> Result<T, E> + Send + Sync + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let work = Arc::new(work);
        let elsewhere = move |shelf: Shelf| {
            let work = Arc::clone(&work);
            blocking(move || work(&shelf))
        };
        self.changed(elsewhere).await
    }

    /// As [`KeyShelf::change`], on this very thread: for what nothing else goes on beside.
    ///
    /// # Errors
    /// As there.
    pub async fn change_here<T, E>(&self, work: impl Fn(&Shelf) -> Result<T, E>) -> Result<T, E>
    where
        E: From<Error>,
    {
        self.changed(|shelf| std::future::ready(work(&shelf))).await
    }

    async fn changed<T, E, F>(&self, work: impl Fn(Shelf) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let Some(store) = &self.store else { return work(self.shelf.clone()).await };
        let sessions = store.sessions.upgrade().ok_or(Error::Closed)?;
        let mut known = store.known.lock().await;
        for _ in 0..ATTEMPTS {
            let base = store.base(&*sessions, known.as_ref()).await?;
            let draft = Shelf::draft(base.bundle.files.clone(), self.clock.now());
            let outcome = work(draft.clone()).await?;
            let files = draft.files();
            if files == base.bundle.files && !base.is_stale {
                if let Some(record) = base.record {
                    store.put_in_force(&mut known, Known { record, bundle: base.bundle });
                }
                return Ok(outcome);
            }
            let bundle = Bundle { version: base.bundle.version.saturating_add(1), files, ..base.bundle };
            let record = bundle.seal(PURPOSE, &store.masters).map_err(Error::Bundle)?;
            let replaced = sessions.replace_key_bundle(base.record.as_deref(), &record).await;
            if replaced.map_err(Error::Store)? {
                if base.record.is_none() && !base.is_stale {
                    tracing::info!("there were no keys in the store: new ones were put there");
                }
                store.put_in_force(&mut known, Known { record, bundle });
                return Ok(outcome);
            }
        }
        Err(Error::Contended.into())
    }
}

impl InStore {
    /// What stands in the store; where it has lost what is known here, that.
    async fn base(&self, sessions: &dyn Sessions, known: Option<&Known>) -> Result<Base, Error> {
        let found = sessions.key_bundle().await.map_err(Error::Store)?;
        let (record, known) = match (found, known) {
            (Some(record), Some(known)) if record == known.record => {
                return Ok(Base { record: Some(record), bundle: known.bundle.clone(), is_stale: false });
            }
            (None, None) => {
                if let Some(former) = self.former.as_ref().filter(|ring| ring.exists()) {
                    return Err(Error::NotMoved(former.parent().unwrap_or(former).to_owned()));
                }
                return Ok(Base { record: None, bundle: Bundle::first().map_err(Error::Bundle)?, is_stale: false });
            }
            (None, Some(known)) => {
                tracing::warn!("the keys are gone from the store: those in force here are put back");
                return Ok(Base { record: None, bundle: known.bundle.clone(), is_stale: true });
            }
            (Some(record), known) => (record, known),
        };
        let (bundle, fate) = Bundle::open(&record, PURPOSE, &self.masters).map_err(Error::Bundle)?;
        let is_stale = fate == Fate::SealAnew;
        match known.map(|known| &known.bundle) {
            Some(held) if held.deployment != bundle.deployment => {
                tracing::error!(
                    "the keys in the store are those of another deployment, and are in force here from now on: tokens of the \
                     former ones are refused; restart every instance"
                );
            }
            Some(held) if held.version > bundle.version => {
                let (found, held_here) = (bundle.version, held.version);
                tracing::warn!(
                    found,
                    held_here,
                    "the keys in the store are older than those in force here, which are put back"
                );
                return Ok(Base { record: Some(record), bundle: held.clone(), is_stale: true });
            }
            _ => {}
        }
        Ok(Base { record: Some(record), bundle, is_stale })
    }

    fn put_in_force(&self, known: &mut Option<Known>, new: Known) {
        if known.as_ref().is_none_or(|known| known.bundle.files != new.bundle.files) {
            self.files.store(Arc::new(new.bundle.files.clone()));
        }
        *known = Some(new);
    }
}

/// The master keys of this configuration, the one in use first; none where the keys are in a folder.
///
/// # Errors
/// When it is not known here.
pub fn masters(keys: &config::Keys) -> Result<Vec<MasterKey>, Error> {
    let config::Keys::Store { master_key, previous, .. } = keys else { return Ok(Vec::new()) };
    let in_use = MasterKey::new(master_key.as_ref().ok_or(Error::NoMasterKey)?);
    Ok(std::iter::once(in_use).chain(previous.iter().map(MasterKey::new)).collect())
}

/// Makes the folder, where it is one.
///
/// # Errors
/// When it cannot be made.
pub(super) fn make_folder(keys: &config::Keys) -> Result<(), Error> {
    match keys {
        config::Keys::Folder(folder) => keyfile::create_dir(folder).map_err(Error::Folder),
        config::Keys::Store { .. } => Ok(()),
    }
}

/// Runs `work` where it may block.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

#[cfg(test)]
mod tests;
