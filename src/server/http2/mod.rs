//! One client connection that speaks HTTP/2 (RFC 9113): hyper, and what it takes to survive its clients.
//!
//! [`frames`] follows what comes from the socket, [`request`] checks each request, [`streams`] watches over who takes his
//! answers; from there on a request is one like any other. A refusal ends its stream and leaves the others alone.

mod frames;
mod request;
mod streams;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, STRICT_TRANSPORT_SECURITY};
use http::{HeaderValue, Method, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::body::Body;
use crate::gateway::{Connection, ConnectionLimits, Traced, Worker};
use crate::tunnel::Stream;

use super::connection::{CROWDED, answered_of_many};
use super::drain::Watch;
use frames::Frames;
use streams::{Streams, Tasks, Ticket, Watched};

/// Most requests of one connection at once.
const MAX_STREAMS: u32 = 128;

/// How much of a request's body may be on its way to us before somebody reads it, and of all bodies of a connection, bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;

/// How much of an answer hyper holds while its client makes room, bytes.
const SEND_BUFFER: usize = 64 * 1024;

/// Requests that their client resets before they were looked at (CVE-2023-44487), and that the library resets because they
/// are malformed. More end the connection.
const MAX_PENDING_RESETS: usize = 20;
const MAX_LOCAL_RESETS: usize = 200;

/// How long a client that has no more requests may take to part with its connection after GOAWAY.
const FAREWELL: Duration = Duration::from_secs(10);

/// A connection on its way to its protocol.
#[derive(Debug)]
pub(super) struct Accepted<S> {
    pub(super) stream: S,
    /// What has been read of it.
    pub(super) read: Vec<u8>,
    /// When it was accepted.
    pub(super) since: Instant,
    /// Whether it is one beyond the most, which gets little time.
    pub(super) crowded: bool,
}

/// Serves one connection until it ends; from the drain on, what has begun.
pub(super) async fn serve<S: Stream + 'static>(
    accepted: Accepted<S>,
    connection: Connection,
    worker: &Arc<Worker>,
    mut drain: Watch,
) {
    let connection = Arc::new(connection);
    let ConnectionLimits { max_head, max_uri, head_timeout, keep_alive, http2: _ } = worker.connection_limits();
    let hsts = if connection.https() { worker.hsts() } else { None };
    let crowded = accepted.crowded;
    let streams = Streams::new(MAX_STREAMS as usize);
    let service = service_fn(|request: http::Request<Incoming>| {
        let ticket = streams.open();
        connection.head_passed();
        let answer = answer(request, ticket, Arc::clone(&connection), worker, max_uri);
        let hsts = hsts.clone();
        async move {
            let mut head = answer.await?;
            if let Some(hsts) = hsts {
                head.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts);
            }
            Ok::<_, Infallible>(head)
        }
    });
    let mut http = http2::Builder::new(Tasks(Arc::clone(&streams)));
    http.max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    let frames = Frames::new(accepted.stream, accepted.read, accepted.since, head_timeout);
    let flooded = frames.flooded();
    let serving = http.serve_connection(TokioIo::new(frames), service);
    tokio::pin!(serving);
    let mut tick = interval(streams::TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let look = sleep(if crowded { CROWDED } else { keep_alive });
    tokio::pin!(look);
    let mut seen = 0;
    let mut told_to_end = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut serving => break ended,
            () = streams.abused() => {
                worker.flooded();
                tracing::debug!("a client abandons too many requests; its connection is closed");
                break Ok(());
            }
            () = drain.started(), if !told_to_end => {
                told_to_end = true;
                serving.as_mut().graceful_shutdown();
                look.as_mut().reset(Instant::now() + FAREWELL);
            }
            _ = tick.tick() => worker.stalled(streams.sweep()),
            () = &mut look => {
                let idle = !connection.is_busy();
                if told_to_end && idle {
                    break Ok(());
                }
                if crowded || (idle && seen == streams.opened()) {
                    told_to_end = true;
                    serving.as_mut().graceful_shutdown();
                }
                // What was busy has to be seen idle for a whole turn.
                seen = if idle { streams.opened() } else { seen.wrapping_sub(1) };
                look.as_mut().reset(Instant::now() + if told_to_end { FAREWELL } else { keep_alive });
            }
        }
    };
    streams.end();
    if let Err(error) = ended {
        if flooded.load(Ordering::Relaxed) {
            worker.flooded();
        }
        tracing::debug!(%error, "a connection of HTTP/2 broke off");
    }
}

/// Checks a request and has it answered.
fn answer(
    mut request: http::Request<Incoming>,
    ticket: Ticket,
    connection: Arc<Connection>,
    worker: &Arc<Worker>,
    max_uri: usize,
) -> impl Future<Output = Result<http::Response<Watched<Traced>>, Infallible>> + use<> {
    let head = *request.method() == Method::HEAD;
    if let Err(refusal) = request::check(&mut request, max_uri) {
        *request.uri_mut() = Uri::from_static(refusal.target());
    }
    let answer = answered_of_many(worker, Box::new(request.map(Body::from)), connection);
    async move {
        let mut response = answer.await?;
        // It speaks of the connection, which goes on.
        response.headers_mut().remove(CONNECTION);
        let bodiless = head || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if bodiless {
            if head
                && let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0)
                && !response.headers().contains_key(CONTENT_LENGTH)
            {
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            // hyper would send it.
            response = response.map(Traced::without_bytes);
        }
        Ok(response.map(|body| Watched::new(body, ticket)))
    }
}
