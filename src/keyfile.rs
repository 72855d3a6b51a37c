//! Files that hold keys: owner-only, written whole or not at all.
//!
//! Signing keys (`token::keys`), the refresh secret and the sealing key (`store::vault`) all live in such files, on one
//! [`Shelf`]: a folder, or a [`Bundle`] that is sealed with a [`MasterKey`] and kept elsewhere. This module knows nothing
//! of what is in them.

mod bundle;
mod master;
mod shelf;

pub use bundle::{Bundle, Error as BundleError, Fate, KeyFile, KeyFiles};
pub use master::MasterKey;
pub use shelf::{Lock, Shelf};

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

/// Makes `dir` (and its parents) if it is missing; every directory made here is `0700`.
///
/// # Errors
/// When it cannot be made.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(dir)
}

/// Writes `content` to `path` with mode `0600`, synced, so that a crash leaves the old file or the new one and nothing
/// between.
///
/// # Errors
/// When the directory cannot be written to.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let (dir, temporary) = temporary_name(path)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let done = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done?;
    fs::File::open(dir)?.sync_all()
}

/// As [`write()`], but an existing file wins: of several processes that start at once, all get the same content.
/// Returns what stands in the file afterwards.
///
/// # Errors
/// When the directory cannot be written to, or the existing file not read.
pub fn write_new(path: &Path, content: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
    let (dir, temporary) = temporary_name(path)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let done = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    match done {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => fs::File::open(dir)?.sync_all()?,
    }
    read(path)
}

/// Reads a key file, refusing one that group or others could read or write.
///
/// # Errors
/// When it is missing or unreadable, and [`io::ErrorKind::PermissionDenied`] when its mode is too open.
pub fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} has mode {mode:04o}: others may read this key; run `chmod 600` on it", path.display()),
        ));
    }
    fs::read(path).map(Zeroizing::new)
}

fn temporary_name(path: &Path) -> io::Result<(&Path, std::path::PathBuf)> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a key file needs a directory and a name"));
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    Ok((dir, dir.join(format!(".{}.{}", name.to_string_lossy(), uuid::Uuid::now_v7().simple()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_owner_only_and_the_first_writer_wins() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("a/keys");
        create_dir(&keys).unwrap();
        let path = keys.join("sealing.key");
        assert_eq!(write_new(&path, b"first").unwrap().as_slice(), b"first");
        assert_eq!(write_new(&path, b"second").unwrap().as_slice(), b"first");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for made in [&keys, &dir.path().join("a")] {
            assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert_eq!(fs::read_dir(&keys).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        write(&path, b"x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("chmod 600"));
    }
}
