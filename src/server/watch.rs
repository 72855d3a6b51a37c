//! Hears of changes of one file, by inotify.
//!
//! The folder is watched, not only the file: editors and configuration tools replace files, and a mounted volume swaps a link
//! somewhere above. A database that lies beside the file writes all the time, so of the folder only what begins or ends a file is
//! asked for, and who may read it. Of the file itself all is: one that is mounted alone is written to in another folder.

use std::ffi::{CStr, CString, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::{Errno, Result};
use tokio::io::unix::AsyncFd;

/// A file that is watched, whether or not it is there.
#[derive(Debug)]
pub(super) struct Watch {
    notices: AsyncFd<OwnedFd>,
    path: PathBuf,
    name: CString,
    folder: i32,
    /// What was changed before the first look would be missed.
    unseen: bool,
}

impl Watch {
    /// Starts to watch. Must be called within a runtime.
    ///
    /// # Errors
    /// When there is no folder of this name, or the system has no watch left.
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let name = CString::new(path.file_name().map_or(&b""[..], OsStr::as_bytes))?;
        let notices = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let begun_or_ended = WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ATTRIB;
        let folder = inotify::add_watch(&notices, folder, begun_or_ended)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; what that asks for, an OwnedFd gives: it stays the same one"
        )]
        let notices = AsyncFd::new(notices)?;
        let watch = Self { notices, path: path.to_owned(), name, folder, unseen: true };
        watch.follow();
        Ok(watch)
    }

    /// Watches the file that has the name now. To watch the same one twice changes nothing.
    fn follow(&self) {
        // It may be away, or not ours to read: then the folder tells when that has changed.
        let all = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        let _ = inotify::add_watch(self.notices.get_ref(), &self.path, all);
    }

    /// Returns when the file may have changed, and at once when asked for the first time. Nothing is lost when it is dropped.
    ///
    /// # Errors
    /// When the system does not tell any more; `NotFound`, when the folder is gone.
    pub(super) async fn changed(&mut self) -> std::io::Result<()> {
        while !self.unseen {
            self.notices.readable().await?.clear_ready();
            self.unseen = self.hear()?;
        }
        self.unseen = false;
        Ok(())
    }

    /// Forgets what happened until now: the file is going to be read.
    ///
    /// # Errors
    /// As [`Watch::changed`].
    pub(super) fn look(&mut self) -> std::io::Result<()> {
        self.hear()?;
        self.follow();
        Ok(())
    }

    /// Takes all notices there are; whether one is about the file.
    fn hear(&self) -> Result<bool> {
        let mut room = [MaybeUninit::uninit(); 4096];
        let mut notices = inotify::Reader::new(self.notices.get_ref(), &mut room);
        let mut heard = false;
        loop {
            match notices.next() {
                Ok(notice) if notice.wd() == self.folder && notice.events().contains(ReadFlags::IGNORED) => {
                    return Err(Errno::NOENT);
                }
                Ok(notice) => {
                    // Some were lost, or it is the file itself.
                    let whole = notice.events().contains(ReadFlags::QUEUE_OVERFLOW) || notice.wd() != self.folder;
                    heard |= whole || notice.file_name().is_some_and(|name| self.is_ours(name));
                }
                Err(Errno::WOULDBLOCK) => return Ok(heard),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Names that begin with two dots are the links that a mounted volume swaps.
    fn is_ours(&self, name: &CStr) -> bool {
        name == self.name.as_c_str() || name.to_bytes().starts_with(b"..")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use futures_util::FutureExt as _;

    use super::*;

    /// A folder with the file in it, and a watch that has been asked once.
    fn watched() -> (tempfile::TempDir, PathBuf, Watch) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        fs::write(&path, "a").unwrap();
        let mut watch = Watch::of(&path).unwrap();
        assert!(watch.changed().now_or_never().is_some(), "what was there before is to be looked at");
        (folder, path, watch)
    }

    #[tokio::test]
    async fn a_save_is_heard_of_whichever_way_it_is_made() {
        let (folder, path, mut watch) = watched();
        let draft = folder.path().join("draft");
        let saves: [&dyn Fn(); 4] = [
            &|| fs::write(&path, "written into").unwrap(),
            &|| {
                fs::write(&draft, "replaced").unwrap();
                fs::rename(&draft, &path).unwrap();
            },
            &|| fs::write(&path, "written into what replaced it").unwrap(),
            &|| {
                fs::remove_file(&path).unwrap();
                fs::write(&path, "taken away and made again").unwrap();
            },
        ];
        for save in saves {
            save();
            watch.changed().await.unwrap();
            watch.look().unwrap();
        }
        assert!(!watch.hear().unwrap(), "each is told once");
    }

    #[tokio::test]
    async fn the_link_that_a_mounted_volume_swaps_is_heard_of() {
        let (folder, _, mut watch) = watched();
        std::os::unix::fs::symlink("elsewhere", folder.path().join("..tmp")).unwrap();
        fs::rename(folder.path().join("..tmp"), folder.path().join("..data")).unwrap();
        watch.changed().await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_becomes_readable_is_heard_of() {
        let (_folder, path, mut watch) = watched();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        watch.changed().await.unwrap();
    }

    #[tokio::test]
    async fn a_folder_that_is_gone_is_told_as_such() {
        let (folder, _, mut watch) = watched();
        folder.close().unwrap();
        while let Ok(()) = watch.changed().await {}
        assert_eq!(watch.hear(), Ok(false), "and that once");
    }

    #[tokio::test]
    async fn a_file_that_is_mounted_alone_is_heard_of_by_its_other_name() {
        let (folder, path, _) = watched();
        let elsewhere = folder.path().join("mount");
        fs::create_dir(&elsewhere).unwrap();
        let mounted = elsewhere.join("gateway.toml");
        fs::hard_link(&path, &mounted).unwrap();
        let mut watch = Watch::of(&mounted).unwrap();
        watch.changed().await.unwrap();
        fs::write(&path, "b").unwrap();
        watch.changed().await.unwrap();
    }

    #[tokio::test]
    async fn a_neighbour_that_is_written_to_without_end_wakes_nobody() {
        let (folder, path, mut watch) = watched();
        let mut database = fs::File::create(folder.path().join("wxgate.db-wal")).unwrap();
        assert!(!watch.hear().unwrap(), "what began is not ours");
        for _ in 0..100 {
            database.write_all(b"page").unwrap();
        }
        let mut room = [0; 64];
        let told = rustix::io::read(watch.notices.get_ref(), &mut room);
        assert_eq!(told, Err(Errno::WOULDBLOCK), "of writes there is no notice");
        drop(database);
        fs::write(&path, "b").unwrap();
        watch.changed().await.unwrap();
    }
}
