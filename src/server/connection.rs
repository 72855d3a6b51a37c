//! One client connection: guard, hyper, and a gentle end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::gateway::{Connection, Inbound, Worker};

use super::drain::Watch;
use super::guard::{Guard, Limits};
use super::head::MAX_FIELDS;

/// How much of an unread request is read and thrown away before a connection is closed, and for how long. Closing with
/// unread bytes makes the kernel reset the connection, and the client may lose the answer (RFC 9112, section 9.6).
const LINGER_BYTES: usize = 256 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// Smallest read buffer that hyper accepts, bytes.
const MIN_BUFFER: usize = 8 * 1024;

/// Serves one connection until it ends, or until its current answer is sent when the drain starts.
pub async fn serve(stream: TcpStream, peer: SocketAddr, worker: Arc<Worker>, mut drain: Watch) {
    let _open = Open::new(&worker);
    let connection = Arc::new(Connection { peer, busy: AtomicBool::new(false) });
    let section = worker.server_section();
    let limits = Limits {
        max_head: section.max_head,
        max_uri: section.max_uri,
        head_timeout: section.head_timeout,
        keep_alive: section.keep_alive,
    };
    let guard = Guard::new(stream, limits, Arc::clone(&connection));
    let service = service_fn(|request: http::Request<Incoming>| {
        worker.call(Inbound { request, connection: Arc::clone(&connection) })
    });
    let mut http = http1::Builder::new();
    // The guard keeps time and has looked at every head; hyper's own limits only have to be above its.
    http.max_buf_size((section.max_head + MIN_BUFFER).max(64 * 1024)).max_headers(MAX_FIELDS + 1).keep_alive(true);
    let mut serving = http.serve_connection(TokioIo::new(guard), service);
    let mut draining = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = std::future::poll_fn(|cx| serving.poll_without_shutdown(cx)) => break ended,
            () = drain.started(), if !draining => {
                draining = true;
                std::pin::Pin::new(&mut serving).graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended
        && !error.is_incomplete_message()
        && !error.is_canceled()
    {
        tracing::debug!(%error, "a connection broke off");
    }
    let mut guard = serving.into_parts().io.into_inner();
    let unread = guard.has_unread();
    linger(guard.stream_mut(), unread).await;
}

/// Ends the writing side, and reads on for a moment what the client is still sending.
async fn linger(stream: &mut TcpStream, unread: bool) {
    if stream.shutdown().await.is_err() || !unread {
        return;
    }
    let mut left = LINGER_BYTES;
    let mut scrap = vec![0; 16 * 1024];
    let _ = tokio::time::timeout(LINGER, async {
        while left > 0 {
            match stream.read(&mut scrap).await {
                Ok(0) | Err(_) => return,
                Ok(n) => left = left.saturating_sub(n),
            }
        }
    })
    .await;
}

/// Counts the connection while it lives.
struct Open<'a>(&'a Worker);

impl<'a> Open<'a> {
    fn new(worker: &'a Worker) -> Self {
        worker.shard().accepted.inc();
        worker.shard().connections.add(1);
        Self(worker)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.shard().connections.add(-1);
    }
}

impl super::guard::Busy for Arc<Connection> {
    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    fn set_busy(&self) {
        self.busy.store(true, Ordering::Relaxed);
    }
}
