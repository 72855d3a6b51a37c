//! A copy of a database that is in use, as it is at one moment (SQLite's online backup).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::OpenError;

/// Copies the database at `path`, which this process has open, into a file beside it that has no name any more: it goes when
/// the value goes. Only a process that is killed in the middle leaves one, `….copy-…`. Blocks as long as it takes to read the database once. Others read and
/// write meanwhile; what they write is not in the copy, and the write-ahead log grows by it.
///
/// # Errors
/// When there is no room for a second one, or it cannot be read.
pub fn copy(path: &Path) -> Result<File, OpenError> {
    let io = |source: io::Error| OpenError::Io { path: path.to_path_buf(), source };
    let sqlite = |source| OpenError::Sqlite { path: path.to_path_buf(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".copy-{}", uuid::Uuid::now_v7()));
    let made = Path::new(&name);
    // Before SQLite opens it, so that nobody else can read it for a moment.
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(made).map_err(io)?;
    let copied = fill(path, made).map_err(sqlite);
    let removed = fs::remove_file(made).map_err(io);
    copied?;
    removed?;
    Ok(file)
}

fn fill(from: &Path, to: &Path) -> rusqlite::Result<()> {
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    let mut target =
        Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    {
        let backup = Backup::new(&source, &mut target)?;
        // In one step, which is one read transaction: in several, each write of others would begin it anew.
        while backup.step(-1)? != StepResult::Done {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
    // One file that is whole by itself, without a log beside it.
    target.pragma_update(None, "journal_mode", "delete")?;
    target.close().map_err(|(_, error)| error)
}
