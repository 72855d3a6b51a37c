//! Where key files lie: in a folder, or in memory, taken out of a [`Bundle`](super::Bundle).
//!
//! Whoever works with keys reads and writes files by name and does not know which it is. What is in memory is either in
//! force, and then read only, or a draft, which is in force once whoever made it has put it in the place of the bundle.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use arc_swap::ArcSwap;
use zeroize::Zeroizing;

use super::{KeyFile, KeyFiles};
use crate::clock::Timestamp;

/// What files of a bundle are called in errors: no path, and none that could be one.
const IN_STORE: &str = "(keys in the store)";

/// How long it takes at most until every instance has what was changed in a bundle: each looks once a second.
const SETTLES: Duration = Duration::from_secs(5);

/// A place for key files. Clones are the same place.
#[derive(Debug, Clone)]
pub struct Shelf(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Folder(PathBuf),
    InForce(Arc<ArcSwap<KeyFiles>>),
    Draft(Arc<Mutex<KeyFiles>>, Timestamp),
}

/// Keeps others from changing what is on the shelf, until it is dropped. A draft is nobody else's.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] Option<File>); // held, not read

impl Shelf {
    /// What is in force; read only.
    pub fn in_force(files: &Arc<ArcSwap<KeyFiles>>) -> Self {
        Self(Kind::InForce(Arc::clone(files)))
    }

    /// A copy to be changed at `now`.
    pub fn draft(files: KeyFiles, now: Timestamp) -> Self {
        Self(Kind::Draft(Arc::new(Mutex::new(files)), now))
    }

    /// The folder, where it is one.
    pub fn folder(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Folder(folder) => Some(folder),
            Kind::InForce(_) | Kind::Draft(..) => None,
        }
    }

    /// All that is in it, where it is in memory.
    pub fn files(&self) -> KeyFiles {
        match &self.0 {
            Kind::Folder(_) => KeyFiles::new(),
            Kind::InForce(files) => KeyFiles::clone(&files.load()),
            Kind::Draft(files, _) => files.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Puts these in the place of all that is in a draft; anything else stays as it is.
    pub fn replace(&self, files: KeyFiles) {
        if let Kind::Draft(own, _) = &self.0 {
            *own.lock().unwrap_or_else(PoisonError::into_inner) = files;
        }
    }

    /// How it is called in what people read.
    pub fn place(&self) -> PathBuf {
        self.folder().unwrap_or(Path::new(IN_STORE)).to_owned()
    }

    /// How a file is called there.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place().join(name)
    }

    /// Within which time every instance has read what was changed. Whoever shares a folder reads it when something is missing.
    pub fn settles(&self) -> Duration {
        if self.folder().is_some() { Duration::ZERO } else { SETTLES }
    }

    /// Makes a folder that is missing, owner-only. Says whether everybody may write to it.
    ///
    /// # Errors
    /// When it cannot be made or looked at.
    pub fn prepare(&self) -> io::Result<bool> {
        let Some(folder) = self.folder() else { return Ok(false) };
        super::create_dir(folder)?;
        Ok(fs::metadata(folder)?.permissions().mode() & 0o002 != 0)
    }

    /// See [`super::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, name: &str) -> io::Result<Zeroizing<Vec<u8>>> {
        self.file(name, |folder| super::read(&folder.join(name)), |file| file.content.clone())
    }

    /// When the file was last written.
    ///
    /// # Errors
    /// When it is missing or cannot be looked at.
    pub fn written_at(&self, name: &str) -> io::Result<Timestamp> {
        let of_file = |folder: &Path| {
            let since = fs::metadata(folder.join(name))?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            Ok(Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
        };
        self.file(name, of_file, |file| file.written_at)
    }

    fn file<T>(
        &self,
        name: &str,
        on_disk: impl FnOnce(&Path) -> io::Result<T>,
        in_memory: impl FnOnce(&KeyFile) -> T,
    ) -> io::Result<T> {
        let found = match &self.0 {
            Kind::Folder(folder) => return on_disk(folder),
            Kind::InForce(files) => files.load().get(name).map(in_memory),
            Kind::Draft(files, _) => files.lock().unwrap_or_else(PoisonError::into_inner).get(name).map(in_memory),
        };
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "is not there"))
    }

    /// See [`super::write`].
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        match &self.0 {
            Kind::Folder(folder) => super::write(&folder.join(name), content),
            Kind::InForce(_) => Err(read_only()),
            Kind::Draft(files, now) => {
                let file = KeyFile { content: Zeroizing::new(content.to_vec()), written_at: *now };
                files.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), file);
                Ok(())
            }
        }
    }

    /// See [`super::write_new`]; a folder is made.
    ///
    /// # Errors
    /// As there.
    pub fn write_new(&self, name: &str, content: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
        if let Kind::Folder(folder) = &self.0 {
            super::create_dir(folder)?;
            return super::write_new(&folder.join(name), content);
        }
        match self.read(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.write(name, content)?;
                self.read(name)
            }
            known => known,
        }
    }

    /// Removes a file; one that is not there is no fault.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match &self.0 {
            Kind::Folder(folder) => match fs::remove_file(folder.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            },
            Kind::InForce(_) => Err(read_only()),
            Kind::Draft(files, _) => {
                files.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                Ok(())
            }
        }
    }

    /// The names of all files.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let Some(folder) = self.folder() else { return Ok(self.files().into_keys().collect()) };
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// Waits until nobody else changes what `name` guards.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn lock(&self, name: &str) -> io::Result<Lock> {
        let Some(folder) = self.folder() else { return Ok(Lock(None)) };
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join(name))?;
        file.lock()?;
        Ok(Lock(Some(file)))
    }
}

/// A fault of this program: what is in force is changed by putting another bundle in its place, which all instances see.
fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "keys in the store are changed there, not in memory")
}

impl From<&Shelf> for Shelf {
    fn from(shelf: &Shelf) -> Self {
        shelf.clone()
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Shelf {
    fn from(folder: &P) -> Self {
        Self(Kind::Folder(folder.as_ref().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1000);

    /// What every kind of shelf does.
    fn does_what_a_shelf_does(shelf: &Shelf) {
        assert!(!shelf.prepare().unwrap());
        assert_eq!(shelf.read("a").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(shelf.write_new("a", b"first").unwrap().as_slice(), b"first");
        assert_eq!(shelf.write_new("a", b"second").unwrap().as_slice(), b"first");
        shelf.write("b", b"1").unwrap();
        shelf.write("b", b"2").unwrap();
        assert_eq!(shelf.read("b").unwrap().as_slice(), b"2");
        let mut names = shelf.names().unwrap();
        names.sort();
        assert_eq!(names, ["a", "b"]);
        shelf.remove("a").unwrap();
        shelf.remove("a").unwrap();
        assert_eq!(shelf.written_at("a").unwrap_err().kind(), io::ErrorKind::NotFound);
        shelf.written_at("b").unwrap();
        assert_eq!(shelf.names().unwrap(), ["b"]);
    }

    #[test]
    fn a_folder_and_a_draft_do_the_same() {
        let dir = tempfile::tempdir().unwrap();
        does_what_a_shelf_does(&Shelf::from(&dir.path().join("keys")));
        does_what_a_shelf_does(&Shelf::draft(KeyFiles::new(), NOW));
    }

    #[test]
    fn what_is_in_force_cannot_be_changed_in_memory() {
        let draft = Shelf::draft(KeyFiles::new(), NOW);
        draft.write("a", b"1").unwrap();
        let files = Arc::new(ArcSwap::from_pointee(draft.files()));
        let shelf = Shelf::in_force(&files);
        assert_eq!(shelf.read("a").unwrap().as_slice(), b"1");
        assert_eq!(shelf.write_new("a", b"2").unwrap().as_slice(), b"1");
        for refused in [shelf.write("a", b"2"), shelf.remove("a"), shelf.write_new("b", b"2").map(drop)] {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        }
        files.store(Arc::default());
        assert!(shelf.names().unwrap().is_empty(), "another bundle is seen by whoever holds the shelf");
    }
}
