//! The byte stream to an upstream: TCP, watched from outside for what hyper does not tell.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The side of a [`Stream`] that stays with the connection's user.
#[derive(Debug, Clone)]
pub(super) struct Watch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None` once hyper is done with it. Taken by hyper's reads and writes and by [`Watch::is_quiet`], all on the worker's
    /// own thread, so it is never waited for.
    tcp: Mutex<Option<TcpStream>>,
    heard: AtomicBool,
}

impl Shared {
    fn tcp(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.tcp.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// A new request begins: forgets what was read.
    pub(super) fn begin(&self) {
        self.0.heard.store(false, Ordering::Relaxed);
    }

    /// Whether any byte was read since. An upstream that closed without one has most likely not seen the request.
    pub(super) fn heard(&self) -> bool {
        self.0.heard.load(Ordering::Relaxed)
    }

    /// Whether an idle connection is still open with nothing to read. It asks the kernel, because hyper learns of bytes and
    /// of a close only at the runtime's next look at its sockets: by then the next request would have been sent, and would
    /// be answered by stray bytes of the last exchange, or fail on a connection known to be closed. One system call.
    pub(super) fn is_quiet(&self) -> bool {
        let tcp = self.0.tcp();
        let Some(tcp) = &*tcp else { return false };
        let mut byte = [MaybeUninit::uninit()];
        SockRef::from(tcp).peek(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A TCP connection to an upstream, as hyper uses it.
///
/// An upstream may refuse an upload with an early answer and close (RFC 9112 section 9.3 asks clients to watch for it).
/// The next write then fails, and hyper would drop the exchange with the answer unread. So a write to a closed peer is
/// swallowed here; the read side finds the answer, or the end of the stream.
#[derive(Debug)]
pub(super) struct Stream {
    shared: Arc<Shared>,
    deaf_peer: bool,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream) -> (Self, Watch) {
        let shared = Arc::new(Shared { tcp: Mutex::new(Some(tcp)), heard: AtomicBool::new(false) });
        (Self { shared: Arc::clone(&shared), deaf_peer: false }, Watch(shared))
    }

    /// The socket itself; hyper is done with it.
    pub(super) fn into_tcp(self) -> Option<TcpStream> {
        self.shared.tcp().take()
    }

    /// Runs one operation of the socket.
    fn with<T>(&self, operation: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut *self.shared.tcp() {
            Some(tcp) => operation(Pin::new(tcp)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// What a write of `len` bytes counts as.
    fn written(&mut self, result: io::Result<usize>, len: usize) -> io::Result<usize> {
        match result {
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                self.deaf_peer = true;
                Ok(len)
            }
            other => other,
        }
    }
}

/// Closes the socket, even while a [`Watch`] is still about.
impl Drop for Stream {
    fn drop(&mut self) {
        *self.shared.tcp() = None;
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.with(|tcp| tcp.poll_read(cx, buf)))?;
        if buf.filled().len() > before {
            self.shared.heard.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf_peer {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = ready!(self.with(|tcp| tcp.poll_write(cx, buf)));
        Poll::Ready(self.written(result, buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        if self.deaf_peer {
            return Poll::Ready(Ok(len));
        }
        let result = ready!(self.with(|tcp| tcp.poll_write_vectored(cx, bufs)));
        Poll::Ready(self.written(result, len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|tcp| tcp.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|tcp| tcp.poll_shutdown(cx))
    }
}
