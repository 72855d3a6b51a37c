//! One client connection: which HTTP it speaks; for HTTP/1 guard, reader, its place in the drain, and the tunnel that it
//! may become. HTTP/2 is in `http2`.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::header::{CONNECTION, CONTENT_LENGTH, STRICT_TRANSPORT_SECURITY};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::body::Body;
use crate::gateway::{ACME_ALPN, Connection, ConnectionLimits, Inbound, Passage, Traced, Worker};
use crate::http1::verbatim::Verbatim;
use crate::metrics::Gauge;
use crate::tunnel::{Stream, Switched};

use super::crew::Seat;
use super::drain::Watch;
use super::guard::{Guard, Limits};
use super::http1::{self, End};
use super::http2::{self, Accepted};
use super::protocol::{self, Spoken};
use super::tls::{self, fingerprint};

/// How long a connection must have been idle after the drain has started before it is closed: a request may be on its way
/// to us on it, and gets its answer, with `Connection: close`. Counted from its last answer too, because the head of that
/// one may have gone out before the drain, promising another.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// How often it is looked at meanwhile.
const IDLE_CHECK: Duration = Duration::from_millis(200);

/// How long after the begin of a drain connections that nobody uses are gone; those that are left have an answer under way.
pub(super) const SETTLED: Duration = IDLE_GRACE.saturating_add(IDLE_CHECK.saturating_mul(3));

/// How long a connection beyond the most may take for its one request.
pub(super) const CROWDED: Duration = Duration::from_secs(1);

/// Serves one connection until it ends, or until its current answer is sent when the drain starts. One that is `crowded` in
/// gets one answer, and little time to ask for it.
pub(super) async fn serve(
    stream: TcpStream,
    (peer, _seat): (SocketAddr, Seat),
    worker: Arc<Worker>,
    mut drain: Watch,
    crowded: bool,
) {
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
                let shaking = Counted::begin(&worker.shard().handshakes);
                let Some(stream) = tls::accept(config, stream).await else { return };
                drop(shaking);
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
    let mut guard = Guard::new(accepted.stream, limits, Arc::clone(&connection)).after(accepted.read, accepted.since);
    let hsts = if connection.https() { worker.hsts() } else { None };
    let answers = Answers { worker, connection: &connection, crowded, hsts, switched: Mutex::new(None) };
    let end = {
        let mut idle_enough = pin!(quiet(&connection, &mut drain));
        http1::serve(&mut guard, &answers, idle_enough.as_mut()).await
    };
    match end {
        End::Gone => {}
        // Without TLS, whose end is told to the client, closing ends the writing side too.
        End::Close if !connection.https() && !guard.has_unread() => {}
        End::Close => drop(guard.shutdown().await),
        End::Switched(early) => {
            let switched = answers.switched.into_inner().unwrap_or_else(PoisonError::into_inner);
            // Boxed, so that the many connections that stay with HTTP do not carry the room for it.
            Box::pin(leave_http(guard, early, switched, worker)).await;
        }
    }
}

/// What answers the requests of one connection.
struct Answers<'a> {
    worker: &'a Arc<Worker>,
    connection: &'a Arc<Connection>,
    /// Each answer is the last.
    crowded: bool,
    /// `Strict-Transport-Security` of each answer.
    hsts: Option<HeaderValue>,
    /// What is behind the 101 of the last answer. A lock for the types alone: one task takes it.
    switched: Mutex<Option<Switched>>,
}

impl http1::Service for Answers<'_> {
    type Body = Traced;

    fn call(&self, request: Box<Request<Body>>, lines: Verbatim) -> impl Future<Output = Response<Traced>> {
        let is_head = request.method() == Method::HEAD;
        let answer = answered(self.worker, request, lines, Arc::clone(self.connection));
        async move {
            // It cannot fail; the type of its error is empty.
            let Ok(mut answer) = answer.await;
            if let Some(hsts) = &self.hsts {
                answer.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
            }
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                let switched = answer.extensions_mut().remove();
                *self.switched.lock().unwrap_or_else(PoisonError::into_inner) = switched;
                return answer;
            }
            if self.crowded || self.worker.is_draining() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            if is_head { without_bytes(answer) } else { answer }
        }
    }

    fn date(&self) -> [u8; 29] {
        self.worker.date()
    }
}

/// Has a request answered, when it is its turn.
pub(super) fn answered(
    worker: &Arc<Worker>,
    request: Box<Request<Body>>,
    lines: Verbatim,
    connection: Arc<Connection>,
) -> impl Future<Output = Result<Response<Traced>, Infallible>> + use<> {
    match worker.enter(request.uri().path()) {
        None => Either::Left(worker.call(Inbound { request, lines, connection, passage: Passage::default() })),
        Some(turn) => Either::Right(answered_in_turn(turn, Arc::clone(worker), (request, lines), connection)),
    }
}

/// As [`answered`], and takes little room until it is its turn: for a connection that has many requests.
pub(super) fn answered_of_many(
    worker: &Arc<Worker>,
    request: Box<Request<Body>>,
    connection: Arc<Connection>,
) -> impl Future<Output = Result<Response<Traced>, Infallible>> + use<> {
    match worker.enter(request.uri().path()) {
        None => {
            let passage = Passage::default();
            Either::Left(Box::pin(worker.call(Inbound { request, lines: Verbatim::default(), connection, passage })))
        }
        Some(turn) => {
            Either::Right(answered_in_turn(turn, Arc::clone(worker), (request, Verbatim::default()), connection))
        }
    }
}

async fn answered_in_turn(
    turn: impl Future<Output = Passage>,
    worker: Arc<Worker>,
    (request, lines): (Box<Request<Body>>, Verbatim),
    connection: Arc<Connection>,
) -> Result<Response<Traced>, Infallible> {
    let given_up = GivenUp(Some(&connection));
    let passage = turn.await;
    given_up.not();
    // Room for the answering is made only now: thousands may wait and few are let in at a time, so it is room that was used
    // just now, and is still in the processor's caches.
    Box::pin(worker.call(Inbound { request, lines, connection, passage })).await
}

/// A request that nobody waits for any more while it waits for its turn: its connection owes no answer to it.
struct GivenUp<'a>(Option<&'a Connection>);

impl GivenUp<'_> {
    fn not(mut self) {
        self.0 = None;
    }
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.0 {
            connection.answered();
        }
    }
}

/// An answer to HEAD: it tells the length of what it leaves out, where that is known (RFC 9110, section 9.3.2).
fn without_bytes(mut answer: Response<Traced>) -> Response<Traced> {
    if let Some(length) = answer.body().size_hint().exact().filter(|length| *length > 0)
        && !answer.headers().contains_key(CONTENT_LENGTH)
    {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    answer.map(Traced::without_bytes)
}

/// The connection is a tunnel from now on.
async fn leave_http<S: Stream>(
    guard: Guard<S, Arc<Connection>>,
    early: Bytes,
    switched: Option<Switched>,
    worker: &Worker,
) {
    let Some(tunnel) = switched.and_then(|switched| switched.take()) else { return };
    let (stream, held) = guard.into_parts();
    // Empty, because the guard passes nothing on behind a head that asks for an upgrade.
    let mut early = Vec::from(early);
    early.extend_from_slice(&held);
    if AssertUnwindSafe(tunnel.run(stream, early)).catch_unwind().await.is_err() {
        worker.panicked();
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

/// Counts something while it is under way.
struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    fn begin(gauge: &'a Gauge) -> Self {
        gauge.add(1);
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
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
