//! A running gateway gives its listening sockets to the one that takes its place: the descriptors themselves, over a unix
//! socket in the folder of its data. What waits in their queues waits on, and no connection is refused or reset.
//!
//! The successor connects and gets all of them, in messages of one byte (1: the last) with descriptors beside it
//! (`SCM_RIGHTS`, unix(7)). Nothing has changed by that, and when it goes away nothing does. When it says `L`, the running one
//! answers `G`, and leaves as after SIGTERM. It keeps the sockets until the successor says `S`: it serves. If that one goes away
//! before, the running one goes on with them. So it does when nothing comes for too long: then it says `B` (back), lets no `S` in any
//! more, and ends the other one, which can only be in the way. Both look at whose process the other is: it must run as the same user,
//! or root.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    Shutdown, recv, recvmsg, send as send_bytes, sendmsg, shutdown,
};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::inherited::Inherited;

/// Descriptors of one message; the kernel takes 253.
const BATCH: usize = 64;

/// How long one step of the other side may take.
const STEP: Duration = Duration::from_secs(10);

/// How long a successor may take from the sockets to its word: where both can run side by side, it starts meanwhile.
const START: Duration = Duration::from_secs(60);

const LEAVE: u8 = b'L';
const GOING: u8 = b'G';
const SERVES: u8 = b'S';
const BACK: u8 = b'B';

/// The running gateway's side. Dropped without [`close`](Self::close), the file stays; the next start replaces it.
#[derive(Debug)]
pub struct Handover {
    path: PathBuf,
    /// Device and inode of the socket's file: another process may have put its own there since.
    file: (u64, u64),
    task: JoinHandle<Successor>,
    asked: watch::Receiver<bool>,
}

/// Who has the sockets and has told this gateway to leave.
#[derive(Debug)]
pub struct Successor {
    stream: UnixStream,
    sockets: Vec<TcpListener>,
}

impl Successor {
    /// Waits until it serves; false when it goes away before.
    pub async fn serves(&mut self) -> bool {
        matches!(self.stream.read_u8().await, Ok(SERVES))
    }

    /// Nothing has come from it for too long: it is ended, and told so in case that it cannot be (it is root's, or in another
    /// namespace of processes). False when it has come to serve just now, and is left alone.
    pub fn give_up(&mut self) -> bool {
        let process = self.process();
        // From here on it cannot say that it serves: writing fails.
        let _ = shutdown(&self.stream, Shutdown::Read);
        let mut word = [0];
        if recv(&self.stream, &mut word, RecvFlags::DONTWAIT).is_ok_and(|(n, _)| n == 1) && word[0] == SERVES {
            return false;
        }
        // Whoever can still be told is the process that has connected, and not one that got its number since.
        let there = send_bytes(&self.stream, &[BACK], SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok();
        if there && let Err(error) = process.and_then(|process| Ok(pidfd_send_signal(process, Signal::KILL)?)) {
            tracing::warn!(%error, "the gateway that was to take over cannot be ended: end it");
        }
        true
    }

    fn process(&self) -> io::Result<OwnedFd> {
        let pid = self.stream.peer_cred()?.pid().and_then(Pid::from_raw).filter(|pid| *pid != getpid());
        let pid = pid.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "its process is not known here"))?;
        Ok(pidfd_open(pid, PidfdFlags::empty())?)
    }

    /// The sockets, to go on with.
    pub fn into_sockets(self) -> Vec<TcpListener> {
        self.sockets
    }
}

impl Handover {
    /// Offers these sockets at `path`; whatever is there is replaced. Must be called on the control runtime.
    ///
    /// # Errors
    /// When there cannot be a unix socket: the path is too long for one (108 bytes), or the folder cannot be written.
    pub fn open(path: &Path, sockets: Vec<TcpListener>) -> io::Result<Self> {
        // Under its name when it is complete and owner-only.
        let fresh = path.with_extension("new");
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
        let file = identity(&fresh)?;
        std::fs::rename(&fresh, path)?;
        let (tell, asked) = watch::channel(false);
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    // One at a time: two successors would both believe to be the one.
                    Ok((stream, _)) => match give(stream, &sockets).await {
                        Ok(Some(stream)) => {
                            tell.send_replace(true);
                            return Successor { stream, sockets };
                        }
                        Ok(None) => {}
                        Err(error) => tracing::warn!(%error, "the listening sockets could not be handed over"),
                    },
                    Err(_) => tokio::time::sleep(STEP).await,
                }
            }
        });
        Ok(Self { path: path.to_owned(), file, task, asked })
    }

    /// Waits until a successor, who has the sockets, says that this gateway shall leave.
    pub async fn asked(&mut self) {
        if self.asked.wait_for(|asked| *asked).await.is_err() {
            std::future::pending().await
        }
    }

    /// Offers nothing any more. Where no successor has it all, what it holds is closed.
    pub async fn close(self) -> Option<Successor> {
        self.task.abort();
        let successor = self.task.await.ok();
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
        successor
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Gives the sockets to whoever has connected, and him back when this gateway shall leave.
async fn give(mut stream: UnixStream, sockets: &[TcpListener]) -> io::Result<Option<UnixStream>> {
    own(&stream)?;
    let batches = sockets.len().div_ceil(BATCH);
    for (n, batch) in sockets.chunks(BATCH).enumerate() {
        timeout(STEP, send(&stream, n + 1 == batches, batch)).await??;
    }
    let mut word = [0];
    if timeout(START, stream.read(&mut word)).await?? == 0 || word[0] != LEAVE {
        return Ok(None);
    }
    timeout(STEP, stream.write_all(&[GOING])).await??;
    Ok(Some(stream))
}

/// Whether the other side is a process of ours, or of root's.
fn own(stream: &UnixStream) -> io::Result<()> {
    let (own, other) = (rustix::process::geteuid().as_raw(), stream.peer_cred()?.uid());
    if other == own || other == 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("the other process runs as another user ({other})")))
}

async fn send(stream: &UnixStream, last: bool, sockets: &[TcpListener]) -> io::Result<()> {
    let descriptors: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
    stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            rights.push(SendAncillaryMessage::ScmRights(&descriptors));
            sendmsg(stream, &[IoSlice::new(&[u8::from(last)])], &mut rights, SendFlags::NOSIGNAL)?;
            Ok(())
        })
        .await
}

/// A gateway that runs, seen by the one that takes its place.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

/// One that has been told to leave. It goes on again when this is dropped before [`serving`](Self::serving).
#[derive(Debug)]
#[must_use]
pub struct Leaving(Option<UnixStream>);

impl Leaving {
    /// This gateway serves: the other one need not go on. False when it already does.
    pub async fn serving(self) -> bool {
        let Some(mut stream) = self.0 else { return true };
        if let Ok(Ok(())) = timeout(STEP, stream.write_all(&[SERVES])).await {
            return true;
        }
        // One that has ended need not know, and says nothing.
        !matches!(timeout(STEP, stream.read_u8()).await, Ok(Ok(BACK)))
    }
}

impl Predecessor {
    /// The one that offers its sockets at `path`, and these; `None` when there is none.
    ///
    /// # Errors
    /// When it runs as another user, or breaks off.
    pub async fn find(path: &Path) -> io::Result<Option<(Self, Inherited)>> {
        let stream = match UnixStream::connect(path).await {
            Ok(stream) => stream,
            // A file that a killed process has left refuses.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        own(&stream)?;
        let mut sockets = Vec::new();
        while !timeout(STEP, receive(&stream, &mut sockets)).await?? {}
        Ok(Some((Self(stream), Inherited::of(sockets)?)))
    }

    /// Tells it to leave. One that has ended meanwhile needs no telling; one that has only lost its patience is told anew, at
    /// `path`: two that go on would take each other's connections.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn leave(mut self, path: &Path) -> io::Result<Leaving> {
        if self.ask().await? {
            return Ok(Leaving(Some(self.0)));
        }
        let Some((mut again, _)) = Self::find(path).await? else { return Ok(Leaving(None)) };
        match again.ask().await? {
            true => Ok(Leaving(Some(again.0))),
            false => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the running gateway breaks off")),
        }
    }

    /// Asks it to leave; false when it is not there any more, or does not listen any longer.
    async fn ask(&mut self) -> io::Result<bool> {
        let asked = async {
            self.0.write_all(&[LEAVE]).await?;
            self.0.read_u8().await
        };
        match timeout(STEP, asked).await? {
            Ok(GOING) => Ok(true),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the running gateway speaks another language")),
            Err(error) if is_broken_off(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The other side has ended, or gives its sockets to nobody any more.
pub fn is_broken_off(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Takes one message; true for the last.
async fn receive(stream: &UnixStream, sockets: &mut Vec<TcpListener>) -> io::Result<bool> {
    stream
        .async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
            let mut rights = RecvAncillaryBuffer::new(&mut space);
            let mut last = [0];
            let got = recvmsg(stream, &mut [IoSliceMut::new(&mut last)], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
            for message in rights.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    sockets.extend(descriptors.map(TcpListener::from));
                }
            }
            if got.bytes == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the running gateway broke off"));
            }
            Ok(last[0] != 0)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(n: usize) -> Vec<TcpListener> {
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        (0..n).map(|_| one.try_clone().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_successor_gets_every_socket_and_its_word_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover-1.sock");
        let given = sockets(BATCH * 2 + 3);
        let address = given[0].local_addr().unwrap();
        let mut handover = Handover::open(&path, given).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // One that goes away changes nothing.
        let (gone, _) = Predecessor::find(&path).await.unwrap().unwrap();
        drop(gone);
        let (predecessor, mut inherited) = Predecessor::find(&path).await.unwrap().unwrap();
        assert_eq!(inherited.take(address).len(), BATCH * 2 + 3);
        let (left, ()) = tokio::join!(predecessor.leave(&path), handover.asked());
        let mut successor = handover.close().await.unwrap();
        assert!(!path.exists());
        assert!(left.unwrap().serving().await);
        assert!(successor.serves().await);
    }

    /// The running one's side and the successor's, which has told it to leave.
    async fn handed(folder: &Path) -> (Successor, Leaving) {
        let path = folder.join("handover-1.sock");
        let mut handover = Handover::open(&path, sockets(1)).unwrap();
        let (predecessor, _) = Predecessor::find(&path).await.unwrap().unwrap();
        let (left, ()) = tokio::join!(predecessor.leave(&path), handover.asked());
        (handover.close().await.unwrap(), left.unwrap())
    }

    // Both sides are this process, which does not end itself.

    #[tokio::test]
    async fn one_that_was_given_up_and_comes_to_serve_all_the_same_hears_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mut successor, left) = handed(folder.path()).await;
        assert!(successor.give_up());
        assert_eq!(successor.into_sockets().len(), 1);
        assert!(!left.serving().await);
    }

    #[tokio::test]
    async fn one_whose_word_has_come_in_the_last_moment_is_not_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let (mut successor, left) = handed(folder.path()).await;
        assert!(left.serving().await);
        assert!(!successor.give_up());
    }

    #[tokio::test]
    async fn one_that_serves_need_not_know_that_the_other_one_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (successor, left) = handed(folder.path()).await;
        drop(successor);
        assert!(left.serving().await);
    }

    #[tokio::test]
    async fn when_the_successor_goes_away_before_it_serves_the_sockets_are_still_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover-1.sock");
        let mut handover = Handover::open(&path, sockets(2)).unwrap();
        let (predecessor, _) = Predecessor::find(&path).await.unwrap().unwrap();
        let (left, ()) = tokio::join!(predecessor.leave(&path), handover.asked());
        let mut successor = handover.close().await.unwrap();
        drop(left.unwrap());
        assert!(!successor.serves().await);
        assert_eq!(successor.into_sockets().len(), 2);
    }

    #[tokio::test]
    async fn without_a_running_gateway_there_is_nothing_to_take() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover-1.sock");
        assert!(Predecessor::find(&path).await.unwrap().is_none());
        drop(UnixListener::bind(&path).unwrap());
        assert!(Predecessor::find(&path).await.unwrap().is_none(), "the file of one that was killed");
        let handover = Handover::open(&path, sockets(1)).unwrap();
        assert!(handover.close().await.is_none());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn one_that_ends_by_itself_needs_no_telling() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover-1.sock");
        let handover = Handover::open(&path, sockets(1)).unwrap();
        let (predecessor, _) = Predecessor::find(&path).await.unwrap().unwrap();
        assert!(handover.close().await.is_none());
        assert!(predecessor.leave(&path).await.unwrap().serving().await);
    }

    #[tokio::test]
    async fn one_that_has_lost_its_patience_is_told_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover-1.sock");
        let mut handover = Handover::open(&path, sockets(1)).unwrap();
        // As after a start that took too long: this connection is over, and the gateway runs.
        let (left, _other_side) = UnixStream::pair().map(|(a, b)| (Predecessor(a), drop(b))).unwrap();
        let (left, ()) = tokio::join!(left.leave(&path), handover.asked());
        let mut successor = handover.close().await.unwrap();
        assert!(left.unwrap().serving().await);
        assert!(successor.serves().await);
    }

    #[tokio::test]
    async fn the_file_of_another_process_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover-1.sock");
        let older = Handover::open(&path, sockets(1)).unwrap();
        let newer = Handover::open(&path, sockets(1)).unwrap();
        older.close().await;
        assert!(Predecessor::find(&path).await.unwrap().is_some());
        newer.close().await;
        assert!(!path.exists());
    }
}
