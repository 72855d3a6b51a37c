//! One HTTP/1.1 connection to a backend, and how it is opened.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::Error;
use super::backend::Backend;
use super::request_body::RequestBody;
use super::stream::{Stream, Watch};

/// How far hyper's read buffer and its write buffer may grow, bytes (reading may round it up to the double); also the
/// largest response head. With hyper's own 400 KiB a few hundred stalled readers would hold hundreds of megabytes.
const MAX_BUFFER: usize = 128 * 1024;

/// An open connection. Its task lives exactly as long: dropping this closes the socket, whatever the task is waiting
/// for, and with it ends the client's body that the task may hold.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) send: SendRequest<RequestBody>,
    pub(super) watch: Watch,
    /// Whether it has carried a request before this one.
    pub(super) reused: bool,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    /// Opens a connection to `backend` within `limit`, and no later than `total`.
    ///
    /// # Errors
    /// [`Error::Resolve`], [`Error::Connect`], [`Error::ConnectTimeout`], or [`Error::TotalTimeout`].
    pub(super) async fn open(backend: &Backend, limit: Duration, total: Option<Instant>) -> Result<Self, Error> {
        let connect_by = Instant::now() + limit;
        let (by, late) = match total {
            Some(total) if total < connect_by => (total, Error::TotalTimeout),
            _ => (connect_by, Error::ConnectTimeout),
        };
        let opening = async {
            let addresses = backend.addresses().await.map_err(Error::Resolve)?;
            backend.counts.connects.fetch_add(1, Ordering::Relaxed);
            let tcp = dial(addresses.as_slice(), by).await.map_err(Error::Connect)?;
            // Requests are written whole; waiting for more bytes would only delay them.
            tcp.set_nodelay(true).map_err(Error::Connect)?;
            let (stream, watch) = Stream::new(tcp);
            let handshake = http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(stream)).await;
            let (send, driver) = handshake.map_err(Error::Closed)?;
            // What goes wrong in the task is told to the request that it carries.
            let task = tokio::spawn(async move { drop(driver.with_upgrades().await) }).abort_handle();
            Ok(Self { send, watch, reused: false, task })
        };
        timeout_at(by, opening).await.unwrap_or(Err(late))
    }
}

/// Connects to the first address that answers. Each gets an equal share of the time that is left, so that one that
/// swallows packets does not use it all.
async fn dial(addresses: &[SocketAddr], by: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for (index, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = by.saturating_duration_since(Instant::now()) / left;
        let connect = TcpStream::connect(address);
        let connected = if left == 1 {
            connect.await
        } else {
            timeout_at(Instant::now() + share, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        match connected {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}
