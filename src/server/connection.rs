//! One client connection: guard, hyper, and its place in the drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderValue;
use http::header::CONNECTION;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::gateway::{Connection, ConnectionLimits, Inbound, Worker};

use super::drain::Watch;
use super::guard::{Guard, Limits};

/// How long a connection must have been idle after the drain has started before it is closed: a request may be on its way
/// to us on it, and gets its answer, with `Connection: close`. Counted from its last answer too, because the head of that
/// one may have gone out before the drain, promising another.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// How often it is looked at meanwhile.
const IDLE_CHECK: Duration = Duration::from_millis(200);

/// Smallest read buffer that hyper accepts, bytes.
const MIN_BUFFER: usize = 8 * 1024;

/// Serves one connection until it ends, or until its current answer is sent when the drain starts.
pub async fn serve(stream: TcpStream, peer: SocketAddr, worker: Arc<Worker>, mut drain: Watch) {
    let _open = Open::new(&worker);
    let connection = Arc::new(Connection::new(peer));
    let limits = worker.connection_limits();
    let ConnectionLimits { max_head, max_uri, head_timeout, keep_alive } = limits;
    let limits = Limits { max_head, max_uri, head_timeout, keep_alive };
    let guard = Guard::new(stream, limits, Arc::clone(&connection));
    let service = service_fn(|request: http::Request<Incoming>| {
        let answer = worker.call(Inbound { request, connection: Arc::clone(&connection) });
        let worker = &worker;
        async move {
            let mut answer = answer.await;
            if worker.is_draining()
                && let Ok(answer) = &mut answer
            {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        }
    });
    let mut http = http1::Builder::new();
    // The guard keeps time and has looked at every head; hyper's own limits only have to be above its. Its limit of 100
    // fields is the guard's too, and must stay unset: set, it costs an allocation on every request.
    http.max_buf_size((limits.max_head + MIN_BUFFER).max(64 * 1024)).keep_alive(true);
    let serving = http.serve_connection(TokioIo::new(guard), service);
    tokio::pin!(serving);
    let drained = quiet(&connection, &mut drain);
    tokio::pin!(drained);
    let mut told_to_end = false;
    // hyper does not read again after an answer when a read during it found nothing; then the guard, which measures idleness
    // where it is read, would not begin to. So the connection is looked at now and then, at no cost for a request.
    let look = tokio::time::sleep(limits.keep_alive);
    tokio::pin!(look);
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut serving => break ended,
            () = &mut look => look.as_mut().reset(tokio::time::Instant::now() + limits.keep_alive),
            () = &mut drained, if !told_to_end => {
                told_to_end = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended
        && !error.is_incomplete_message()
        && !error.is_canceled()
    {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// Waits for the drain, and then until the connection has been idle for [`IDLE_GRACE`].
async fn quiet(connection: &Connection, drain: &mut Watch) {
    drain.started().await;
    let mut idle = Duration::ZERO;
    while idle < IDLE_GRACE {
        tokio::time::sleep(IDLE_CHECK).await;
        idle = if connection.busy.load(Ordering::Relaxed) { Duration::ZERO } else { idle + IDLE_CHECK };
    }
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
