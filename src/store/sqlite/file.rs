//! The database file: claimed for one process, checked before use, made whole or not at all.
//!
//! A file at the database's name is always a complete database: a new one is built under another name and renamed. So
//! an empty or cut file is damage, never a fresh start, and is refused with what to do about it.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::migration;
use crate::keyfile;

/// How long SQLite itself waits for a lock that somebody outside holds, such as a `sqlite3` shell.
const BUSY: Duration = Duration::from_secs(2);

/// Why the database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory cannot be made, read or locked.
    #[error("database {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another gateway has it.
    #[error(
        "database {} is in use by another gateway (process {holder}): stop that one, or give this one a database of its own; \
         several gateways share sessions through redis:// or postgres://",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// Its process id as far as it is known.
        holder: String,
    },
    /// It is not whole.
    #[error(
        "database {} is damaged ({what}): restore it from a backup together with its -wal file, or move it away to start \
         with an empty one, which logs everybody out",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was noticed.
        what: String,
    },
    /// Only its write-ahead log is there.
    #[error(
        "database {} is missing, but {}-wal, which belongs to it, is there: put the database back, or move that file \
         away too to start with an empty one",
        path.display(), path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// An SQLite database, but not ours.
    #[error("{} is a database of another program: name another file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer build.
    #[error(
        "database {} has schema version {found}, this build knows up to {known}: run the newer build, or restore the \
         backup from before the upgrade",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// SQLite cannot open or migrate it.
    #[error("database {}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// A database file that this process alone may use, for as long as this value lives. The lock belongs to the open file:
/// the system frees it however the process ends.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    _lock: File,
}

/// The process that has the database at `path`; `None` when nobody has.
///
/// # Errors
/// When its lock cannot be looked at.
pub fn holder(path: &Path) -> Result<Option<String>, OpenError> {
    match Claim::take(path) {
        Ok(_) => Ok(None),
        Err(OpenError::InUse { holder, .. }) => Ok(Some(holder)),
        Err(error) => Err(error),
    }
}

/// Whether this build could open the database at `path`, as far as that can be told while another process has it. Nothing is
/// changed.
///
/// # Errors
/// What opening it would say.
pub fn look(path: &Path) -> Result<(), OpenError> {
    let path = settle(path).map_err(|source| OpenError::Io { path: path.to_path_buf(), source })?;
    match File::open(&path) {
        Ok(_) => {}
        // It will be made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(OpenError::Io { path, source }),
    }
    check_head(&path)?;
    let failed = |source| of_sqlite(&path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(&path, flags).map_err(failed)?;
    db.busy_timeout(BUSY).map_err(failed)?;
    check_ours(&path, &db)
}

/// What can be told without SQLite: that it is not empty and says what it is.
fn check_head(path: &Path) -> Result<fs::Metadata, OpenError> {
    let failed = |source| OpenError::Io { path: path.to_path_buf(), source };
    let damaged = |what: &str| OpenError::Damaged { path: path.to_path_buf(), what: what.into() };
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.len() == 0 {
        return Err(damaged("it is empty"));
    }
    let mut head = [0; 16];
    if file.read_exact(&mut head).is_err() || head != *b"SQLite format 3\0" {
        return Err(damaged("it does not begin like a database"));
    }
    Ok(metadata)
}

/// Before anything is written: whether it is ours, and not of a newer build.
fn check_ours(path: &Path, db: &Connection) -> Result<(), OpenError> {
    let failed = |source| of_sqlite(path, source);
    let application: i32 = db.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    if application != migration::APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_path_buf() });
    }
    let (found, known) = (migration::version(db).map_err(failed)?, migration::newest());
    if found > known {
        return Err(OpenError::Newer { path: path.to_path_buf(), found, known });
    }
    Ok(())
}

impl Claim {
    /// Locks the database at `path`, making its directory if need be.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let path = settle(path).map_err(|source| OpenError::Io { path: path.to_path_buf(), source })?;
        let name = beside(&path, ".lock");
        let failed = |source| OpenError::Io { path: name.clone(), source };
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&name)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = lock.read_to_string(&mut holder);
                let holder = if read.is_ok() && !holder.trim().is_empty() { holder.trim() } else { "unknown" };
                return Err(OpenError::InUse { path, holder: holder.into() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { path, _lock: lock })
    }

    /// The file, absolute and without symbolic links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the writing connection, after making the file, or checking and migrating the one that is there.
    pub(super) fn connect(&self, checked_whole: u64) -> Result<Connection, OpenError> {
        match fs::metadata(&self.path) {
            Ok(_) => self.check_frame()?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.create()?,
            Err(source) => return Err(self.io(source)),
        }
        let mut db = self.open(&self.path)?;
        check_ours(&self.path, &db)?;
        self.prepare(&mut db)?;
        self.check_whole(&db, checked_whole)?;
        migration::migrate(&mut db).map_err(|e| self.sqlite(e))?;
        Ok(db)
    }

    /// Opens one more connection, which cannot write.
    pub(super) fn connect_reader(&self) -> Result<Connection, OpenError> {
        let db = self.open(&self.path)?;
        db.pragma_update(None, "query_only", true).map_err(|e| self.sqlite(e))?;
        Ok(db)
    }

    /// Builds the database under another name and renames it, so that a crash leaves none or a whole one.
    fn create(&self) -> Result<(), OpenError> {
        // SQLite would take the log of the database that was here for the log of the new one.
        if fs::exists(beside(&self.path, "-wal")).map_err(|e| self.io(e))? {
            return Err(OpenError::Missing { path: self.path.clone() });
        }
        let draft = beside(&self.path, ".new");
        for left_by_a_crash in ["", "-wal", "-shm", "-journal"] {
            match fs::remove_file(beside(&draft, left_by_a_crash)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(self.io(e)),
                _ => {}
            }
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(|e| self.io(e))?;
        let mut db = self.open(&draft)?;
        let made = db.pragma_update(None, "application_id", migration::APPLICATION_ID);
        made.map_err(|e| self.sqlite(e))?;
        self.prepare(&mut db)?;
        migration::migrate(&mut db).map_err(|e| self.sqlite(e))?;
        db.close().map_err(|(_, e)| self.sqlite(e))?; // moves the log into the file and removes it
        File::open(&draft).and_then(|file| file.sync_all()).map_err(|e| self.io(e))?;
        fs::rename(&draft, &self.path).map_err(|e| self.io(e))?;
        sync_directory(&self.path).map_err(|e| self.io(e))
    }

    fn open(&self, path: &Path) -> Result<Connection, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(|e| self.sqlite(e))?;
        db.set_prepared_statement_cache_capacity(64);
        let set = db.busy_timeout(BUSY).and_then(|()| {
            // A plan that follows the values is made anew for each of them.
            db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            db.execute_batch(
                "PRAGMA synchronous = FULL;      -- in WAL: each commit waits for the disk
                 PRAGMA secure_delete = FAST;    -- what is deleted leaves no readable rest where that is free
                 PRAGMA cell_size_check = ON;    -- notices damaged pages early
                 PRAGMA trusted_schema = OFF;
                 PRAGMA temp_store = MEMORY;
                 PRAGMA cache_size = -8192;      -- KiB
                 PRAGMA wal_autocheckpoint = 4000;  -- pages: what is written again and again is moved once
                 PRAGMA journal_size_limit = 67108864;",
            )
        });
        set.map_err(|e| self.sqlite(e))?;
        Ok(db)
    }

    fn prepare(&self, db: &mut Connection) -> Result<(), OpenError> {
        let mode: String =
            db.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(|e| self.sqlite(e))?;
        if mode != "wal" {
            let source = io::Error::other("this file system cannot hold a write-ahead log: use a local disk");
            return Err(self.io(source));
        }
        Ok(())
    }

    /// What can be told without SQLite: that it is not empty and says what it is. Also makes it owner-only again, should
    /// a copy or a restore have opened it to others.
    fn check_frame(&self) -> Result<(), OpenError> {
        let metadata = check_head(&self.path)?;
        if metadata.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(&self.path, Permissions::from_mode(0o600)).map_err(|e| self.io(e))?;
        }
        Ok(())
    }

    /// Moves what a crash left in the log into the file, then compares the file with what it says of itself: a file of
    /// up to `checked_whole` bytes page by page, a larger one by its length; damage further in is noticed when it is read.
    fn check_whole(&self, db: &Connection, checked_whole: u64) -> Result<(), OpenError> {
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(|e| self.sqlite(e))?;
        let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(|e| self.sqlite(e));
        let told = u64::try_from(pragma("page_count")? * pragma("page_size")?).unwrap_or(0);
        let length = fs::metadata(&self.path).map_err(|e| self.io(e))?.len();
        if length < told {
            return Err(self.damaged(format!("it has {length} bytes and should have {told}")));
        }
        if length <= checked_whole {
            let verdict: String =
                db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|e| self.sqlite(e))?;
            if verdict != "ok" {
                return Err(self.damaged(verdict));
            }
        }
        Ok(())
    }

    fn io(&self, source: io::Error) -> OpenError {
        OpenError::Io { path: self.path.clone(), source }
    }

    fn damaged(&self, what: String) -> OpenError {
        OpenError::Damaged { path: self.path.clone(), what }
    }

    fn sqlite(&self, source: rusqlite::Error) -> OpenError {
        of_sqlite(&self.path, source)
    }
}

fn of_sqlite(path: &Path, source: rusqlite::Error) -> OpenError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let path = path.to_path_buf();
    match source.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => OpenError::Damaged { path, what: source.to_string() },
        _ => OpenError::Sqlite { path, source },
    }
}

/// Makes the directory and resolves links, so that two names of one file are one claim.
fn settle(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not the name of a file"));
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    keyfile::create_dir(directory)?;
    match fs::canonicalize(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(fs::canonicalize(directory)?.join(name)),
        other => other,
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn sync_directory(of: &Path) -> io::Result<()> {
    File::open(of.parent().unwrap_or(Path::new("/")))?.sync_all()
}
