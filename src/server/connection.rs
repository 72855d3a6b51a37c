//! One client connection: which HTTP it speaks; for HTTP/1 guard, hyper, its place in the drain, and the tunnel that it
//! may become. HTTP/2 is in `http2`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::header::{CONNECTION, STRICT_TRANSPORT_SECURITY, UPGRADE};
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::gateway::{ACME_ALPN, Connection, ConnectionLimits, Inbound, Worker};
use crate::tunnel::{Stream, Switched};

use super::drain::Watch;
use super::guard::{Guard, Limits};
use super::http2::{self, Accepted};
use super::protocol::{self, Spoken};
use super::tls::{self, fingerprint};

/// How long a connection must have been idle after the drain has started before it is closed: a request may be on its way
/// to us on it, and gets its answer, with `Connection: close`. Counted from its last answer too, because the head of that
/// one may have gone out before the drain, promising another.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// How often it is looked at meanwhile.
const IDLE_CHECK: Duration = Duration::from_millis(200);

/// Smallest read buffer that hyper accepts, bytes.
const MIN_BUFFER: usize = 8 * 1024;

/// How long a connection beyond the most may take for its one request.
pub(super) const CROWDED: Duration = Duration::from_secs(1);

/// Serves one connection until it ends, or until its current answer is sent when the drain starts. One that is `crowded` in
/// gets one answer, and little time to ask for it.
pub async fn serve(stream: TcpStream, peer: SocketAddr, worker: Arc<Worker>, mut drain: Watch, crowded: bool) {
    let _open = Open::new(&worker);
    let since = Instant::now();
    match worker.tls() {
        None => {
            let connection = Connection::new(peer, false);
            let Some((stream, spoken)) = spoken(stream, &connection, &worker, since, crowded, &mut drain).await else {
                return;
            };
            let accepted = Accepted { stream, read: spoken.read, since, crowded };
            if spoken.http2 {
                // Boxed, so that connections of HTTP/1 do not carry the room for it.
                Box::pin(http2::serve(accepted, connection, &worker, drain)).await;
            } else {
                serve_http1(accepted, connection, &worker, drain).await;
            }
        }
        // Boxed, so that connections without TLS do not carry the room for it.
        Some(config) => {
            Box::pin(async {
                let Some(stream) = tls::accept(config, stream).await else { return };
                let (_, agreed) = stream.get_ref();
                let http2 = agreed.alpn_protocol() == Some(b"h2");
                // An authority has seen what it asked for (RFC 8737, section 3).
                if agreed.alpn_protocol() == Some(ACME_ALPN) {
                    return;
                }
                let shown = agreed.peer_certificates().and_then(|chain| chain.first()).map(|one| fingerprint(one));
                // The head has its time from the handshake on.
                let accepted = Accepted { stream, read: Vec::new(), since: Instant::now(), crowded };
                let connection = Connection::new(peer, true).showing(shown);
                if http2 {
                    Box::pin(http2::serve(accepted, connection, &worker, drain)).await;
                } else {
                    serve_http1(accepted, connection, &worker, drain).await;
                }
            })
            .await;
        }
    }
}

/// What a client on clear text speaks; `None` when it says nothing in time, goes away, or is idle at the drain.
async fn spoken(
    mut stream: TcpStream,
    connection: &Connection,
    worker: &Worker,
    since: Instant,
    crowded: bool,
    drain: &mut Watch,
) -> Option<(TcpStream, Spoken)> {
    let limits = worker.connection_limits();
    if !limits.http2 {
        return Some((stream, Spoken { http2: false, read: Vec::new() }));
    }
    let patience = if crowded { CROWDED.min(limits.head_timeout) } else { limits.head_timeout };
    let spoken = tokio::select! {
        biased;
        spoken = timeout_at(since + patience, protocol::spoken(&mut stream)) => spoken.ok()?.ok()?,
        () = quiet(connection, drain) => return None,
    };
    Some((stream, spoken))
}

async fn serve_http1<S: Stream + 'static>(
    accepted: Accepted<S>,
    connection: Connection,
    worker: &Arc<Worker>,
    mut drain: Watch,
) {
    let connection = Arc::new(connection);
    let crowded = accepted.crowded;
    let mut limits = worker.connection_limits();
    if crowded {
        limits.head_timeout = limits.head_timeout.min(CROWDED);
    }
    let ConnectionLimits { max_head, max_uri, head_timeout, keep_alive, http2: _ } = limits;
    let limits = Limits { max_head, max_uri, head_timeout, keep_alive };
    let guard = Guard::new(accepted.stream, limits, Arc::clone(&connection)).after(accepted.read, accepted.since);
    let hsts = if connection.https() { worker.hsts() } else { None };
    let upgrade = Upgrade::default();
    let service = service_fn(|mut request: http::Request<Incoming>| {
        if request.headers().contains_key(UPGRADE) {
            upgrade.asked(hyper::upgrade::on(&mut request));
        }
        let answer = worker.call(Inbound { request, connection: Arc::clone(&connection) });
        let (upgrade, hsts) = (&upgrade, &hsts);
        async move {
            // It cannot fail; the type of its error is empty.
            let mut head = answer.await?;
            if let Some(hsts) = hsts {
                head.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
            }
            if head.status() == StatusCode::SWITCHING_PROTOCOLS {
                upgrade.switched(head.extensions_mut().remove());
            } else if crowded || worker.is_draining() {
                head.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(head)
        }
    });
    let mut http = http1::Builder::new();
    // The guard keeps time and has looked at every head; hyper's own limits only have to be above its. Its limit of 100
    // fields is the guard's too, and must stay unset: set, it costs an allocation on every request.
    http.max_buf_size((limits.max_head + MIN_BUFFER).max(64 * 1024)).keep_alive(true);
    let serving = http.serve_connection(TokioIo::new(guard), service).with_upgrades();
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
            () = &mut look => look.as_mut().reset(Instant::now() + limits.keep_alive),
            () = &mut drained, if !told_to_end => {
                told_to_end = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    };
    if ended.is_ok()
        && let Some(on_upgrade) = upgrade.on_upgrade()
    {
        // Boxed, so that the many connections that stay with HTTP do not carry the room for it.
        Box::pin(leave_http::<S>(on_upgrade, &upgrade, worker)).await;
    }
    if let Err(error) = ended
        && !error.is_incomplete_message()
        && !error.is_canceled()
    {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// hyper has let go of a connection on which an upgrade was asked for: a tunnel if the last answer was a 101, else an
/// ordinary end.
async fn leave_http<S: Stream + 'static>(on_upgrade: OnUpgrade, upgrade: &Upgrade, worker: &Worker) {
    // hyper has given the stream away before it said that it is done.
    let Some(Ok(upgraded)) = on_upgrade.now_or_never() else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<Guard<S, Arc<Connection>>>>() else { return };
    let mut guard = parts.io.into_inner();
    let Some(tunnel) = upgrade.take() else {
        let _ = guard.shutdown().await;
        return;
    };
    let (stream, held) = guard.into_parts();
    // Empty, because the guard passes nothing on behind a head that asks for an upgrade.
    let mut early = Vec::from(parts.read_buf);
    early.extend_from_slice(&held);
    if AssertUnwindSafe(tunnel.run(stream, early)).catch_unwind().await.is_err() {
        worker.panicked();
    }
}

/// What is known of a connection that may leave HTTP. The locks are for the types alone: one task takes them.
#[derive(Debug, Default)]
struct Upgrade {
    /// hyper's promise of the stream; of the last request that asked.
    on_upgrade: Mutex<Option<OnUpgrade>>,
    /// What to run on it.
    switched: Mutex<Option<Switched>>,
}

impl Upgrade {
    fn asked(&self, promise: OnUpgrade) {
        *self.on_upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(promise);
    }

    fn switched(&self, switched: Option<Switched>) {
        *self.switched.lock().unwrap_or_else(PoisonError::into_inner) = switched;
    }

    fn on_upgrade(&self) -> Option<OnUpgrade> {
        self.on_upgrade.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn take(&self) -> Option<crate::tunnel::Tunnel> {
        self.switched.lock().unwrap_or_else(PoisonError::into_inner).take()?.take()
    }
}

/// Waits for the drain, and then until the connection has been idle for [`IDLE_GRACE`].
pub(super) async fn quiet(connection: &Connection, drain: &mut Watch) {
    drain.started().await;
    let mut idle = Duration::ZERO;
    while idle < IDLE_GRACE {
        tokio::time::sleep(IDLE_CHECK).await;
        idle = if connection.is_busy() { Duration::ZERO } else { idle + IDLE_CHECK };
    }
}

/// Counts the connection while it lives.
pub(super) struct Open<'a>(&'a Worker);

impl<'a> Open<'a> {
    pub(super) fn new(worker: &'a Worker) -> Self {
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
        Connection::is_busy(self)
    }

    fn set_busy(&self) {
        self.head_passed();
    }

    fn wake_when_answered(&self, waker: &Waker) {
        Connection::wake_when_answered(self, waker);
    }
}
