//! Members and sessions in one embedded SQLite file: the store that needs no server.
//!
//! One thread writes ([`writer`]), two read ([`reader`]); no call blocks an async thread. WAL with
//! `synchronous=FULL`: what was answered is on disk. One process at a time: the caches and the revocation list above the
//! store rest on it, and a lock file beside the database sees to it. A file that is damaged, cut or not ours is refused
//! ([`mod@file`]), never replaced.

mod copy;
mod epochs;
mod fault;
mod file;
mod joint;
mod key_bundle;
mod member_list;
mod member_row;
mod members;
mod migration;
mod reader;
mod rotation;
mod session_keys;
mod sessions;
mod sign_in;
mod value;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rusqlite::Connection;

pub use copy::copy;
pub use file::{OpenError, holder, look};

use super::Error;
use fault::Failure;
use reader::Readers;
use writer::Writer;

/// What bounds the work in flight.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Jobs that may wait; a caller beyond that waits for room, within its deadline.
    queue: usize,
    /// Jobs that share one transaction at most, so that the first of them does not wait for too many others.
    batch: usize,
    /// Threads that read.
    readers: usize,
    /// From the call to its answer.
    deadline: Duration,
    /// Up to this many bytes the file is checked page by page at start, which takes a fraction of a second.
    checked_whole: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { queue: 1024, batch: 256, readers: 2, deadline: Duration::from_secs(5), checked_whole: 64 << 20 }
    }
}

/// How often it is looked whether the last call of a database that is being closed has ended.
const CLOSING: Duration = Duration::from_millis(2);

/// The embedded store: an open database file. Implements [`Members`](super::Members) and
/// [`Sessions`](super::Sessions). Dropped, it finishes the jobs that are queued, closes the file and frees the lock.
pub struct Sqlite {
    /// `None` once it is closed.
    open: ArcSwapOption<Open>,
    path: PathBuf,
    birth_mark: String,
}

/// What an open database consists of.
struct Open {
    // Dropped in this order. The writer closes after the readers: whoever closes last moves the log into the file, and of
    // readers that close at the same moment each takes the other for a user still there, so that the log would stay. The
    // lock goes last, when nothing has the file open.
    readers: Readers,
    writer: Writer,
    _file: file::Claim,
}

impl Sqlite {
    /// Opens the database at `path`, or makes it (and its directory) when there is none. Blocks: it reads, checks and
    /// may migrate the file.
    ///
    /// # Errors
    /// When the file is in use by another process, damaged, not ours, of a newer version, or cannot be reached. The
    /// message says what to do. Nothing that is there is ever emptied or replaced.
    pub fn open(path: &Path) -> Result<Arc<Self>, OpenError> {
        Self::open_within(path, Limits::default())
    }

    fn open_within(path: &Path, limits: Limits) -> Result<Arc<Self>, OpenError> {
        let file = file::Claim::take(path)?;
        let connection = file.connect(limits.checked_whole)?;
        let failed = |source| OpenError::Sqlite { path: file.path().to_path_buf(), source };
        let birth_mark = birth_mark(&connection).map_err(failed)?;
        let readers = (0..limits.readers).map(|_| file.connect_reader()).collect::<Result<Vec<_>, _>>()?;
        let no_thread = |source| OpenError::Io { path: file.path().to_path_buf(), source };
        let readers = Readers::start(readers, limits).map_err(no_thread)?;
        let writer = Writer::start(connection, limits).map_err(no_thread)?;
        let path = file.path().to_owned();
        let open = ArcSwapOption::from_pointee(Open { readers, writer, _file: file });
        Ok(Arc::new(Self { open, path, birth_mark }))
    }

    /// Drawn at random when the database was made: another mark is another database, also under the same name.
    pub fn birth_mark(&self) -> &str {
        &self.birth_mark
    }

    /// The database file, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Finishes what is under way, closes the file and frees the lock, for a process that goes on in this one's place. Every
    /// later call fails.
    pub async fn close(&self) {
        let Some(mut open) = self.open.swap(None) else { return };
        // Calls that have begun hold it, at most until their deadline.
        let open = loop {
            match Arc::try_unwrap(open) {
                Ok(open) => break open,
                Err(shared) => open = shared,
            }
            tokio::time::sleep(CLOSING).await;
        };
        let _ = tokio::task::spawn_blocking(move || drop(open)).await;
    }

    fn opened(&self) -> Result<Arc<Open>, Error> {
        self.open.load_full().ok_or_else(|| Failure::Stopped.into())
    }

    /// Transactions committed since the store was opened. Jobs by commits is how many share one wait for the disk.
    pub fn commits(&self) -> u64 {
        self.open.load().as_ref().map_or(0, |open| open.writer.commits())
    }

    /// Writing jobs that were committed since the store was opened.
    pub fn jobs(&self) -> u64 {
        self.open.load().as_ref().map_or(0, |open| open.writer.jobs())
    }

    /// Writing jobs that wait right now.
    pub fn queue_depth(&self) -> usize {
        self.open.load().as_ref().map_or(0, |open| open.writer.queue_depth())
    }

    /// Runs `work` in the next transaction; returns when that is on disk. When the answer is an error, none of `work`
    /// was kept, but for one case: the deadline passed while the disk was at it, then it may have been.
    async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Error> + Send + 'static,
    {
        self.opened()?.writer.run(work).await
    }

    /// Runs `work` on a reading connection; it sees all that was answered before the call.
    async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        self.opened()?.readers.run(work).await
    }

    /// Whether both sides answer: a reader, and the writer with an empty transaction (which costs no disk access).
    async fn answers(&self) -> Result<(), Error> {
        self.read(|db| Ok(birth_mark(db)?)).await?;
        self.write(|db| Ok(birth_mark(db)?)).await?;
        Ok(())
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.path()).finish_non_exhaustive()
    }
}

fn birth_mark(db: &Connection) -> rusqlite::Result<String> {
    db.prepare_cached("SELECT birth_mark FROM origin")?.query_row([], |row| row.get(0))
}
