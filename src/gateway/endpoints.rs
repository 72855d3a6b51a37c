//! Takes calls of the gateway's own endpoints from a worker to the control runtime, and the answers back.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::HeaderValue;
use http_body_util::{BodyExt as _, Limited};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tower::Service;

use crate::auth::CallInfo;
use crate::body::Body;
use crate::metrics::Metrics;
use crate::pipeline::dispatch::Awaited;
use crate::pipeline::{Request, Response};
use crate::problem::{Code, Problem};

/// Largest body that an endpoint reads, bytes: the largest legitimate one is a few KiB of encrypted open data.
const MAX_BODY: usize = 256 * 1024;

/// Calls whose body is still on its way. What of it has arrived is all that one holds.
const MAX_READING: usize = 32 * 1024;

/// Calls that are being worked on. Each holds a small body and perhaps a connection to WeChat.
const MAX_WORKING: usize = 4096;

/// How long that body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an endpoint may take in all: above every deadline inside (WeChat 5 s, store 5 s), so that those speak first.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(60);

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    router: Router,
    control: Handle,
    room: Room,
    metrics: Arc<Metrics>,
}

/// How often it is looked whether calls have ended, when the gateway lets go of its store.
const LOOK: Duration = Duration::from_millis(5);

/// How long a body that is on its way may keep a successor waiting, who cannot open the store before.
const SLOW_BODY: Duration = Duration::from_secs(1);

/// How many calls there may be at once. Those that wait for a slow client's body do not take the place of those that work.
#[derive(Debug, Clone)]
pub struct Room {
    reading: Arc<Semaphore>,
    working: Arc<Semaphore>,
    /// Nobody waits for bodies any more.
    closing: Arc<watch::Sender<bool>>,
}

impl Room {
    /// Waits until no call is under way, and lets none begin any more: their callers are told to try again. So are those whose
    /// body trickles in.
    pub(super) async fn close(&self) {
        let all = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let late = Instant::now() + SLOW_BODY;
        for (places, most) in [(&self.reading, MAX_READING), (&self.working, MAX_WORKING)] {
            // Those who wait in a semaphore gather its places one by one, and would lock out calls that are still good.
            while places.available_permits() < most {
                if Instant::now() > late {
                    self.closing.send_replace(true);
                }
                tokio::time::sleep(LOOK).await;
            }
            if let Ok(permits) = places.acquire_many(all(most)).await {
                permits.forget();
            }
        }
    }

    /// The body of a call, if it comes in time.
    async fn read(&self, headers: &http::HeaderMap, body: Body) -> Result<Bytes, Problem> {
        let mut closing = self.closing.subscribe();
        tokio::select! {
            biased;
            body = read(headers, body) => body,
            _ = closing.wait_for(|closing| *closing) => {
                Err(Problem::new(Code::Draining, "This instance is going away: ask again, on another connection."))
            }
        }
    }

    /// The places of calls that are being worked on.
    pub fn working(&self) -> &Arc<Semaphore> {
        &self.working
    }
}

impl Default for Room {
    fn default() -> Self {
        Self {
            reading: Arc::new(Semaphore::new(MAX_READING)),
            working: Arc::new(Semaphore::new(MAX_WORKING)),
            closing: Arc::default(),
        }
    }
}

impl Endpoints {
    pub(super) fn new(router: Router, control: Handle, room: Room, metrics: Arc<Metrics>) -> Self {
        Self { router, control, room, metrics }
    }
}

fn overloaded() -> Problem {
    Problem::new(Code::Overloaded, "Too many logins at once: try again in a moment.")
}

impl Service<Request> for Endpoints {
    type Response = Response;
    type Error = Infallible;
    type Future = Awaited;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Awaited {
        let Request { http: request, exchange } = request;
        let Ok(reading) = Arc::clone(&self.room.reading).try_acquire_owned() else {
            return Box::pin(std::future::ready(Ok(exchange.refuse(overloaded()))));
        };
        let (router, room) = (self.router.clone(), self.room.clone());
        let request_id = HeaderValue::from_str(exchange.id()).unwrap_or(HeaderValue::from_static(""));
        let info = CallInfo { request_id, client: exchange.client() };
        // A task of its own: when the client goes away in the middle of a login, the login is finished all the same.
        let task = self.control.spawn(async move {
            let (parts, body) = request.into_parts();
            let body = room.read(&parts.headers, body).await?;
            drop(reading);
            let _working = room.working.try_acquire().map_err(|_| overloaded())?;
            match tokio::time::timeout(ENDPOINT_TIMEOUT, answer(router, parts, body, info)).await {
                Ok(answered) => answered,
                Err(_) => Err(Problem::internal("an endpoint took too long")),
            }
        });
        let metrics = Arc::clone(&self.metrics);
        Box::pin(async move {
            Ok(match task.await {
                Ok(Ok(response)) => response,
                Ok(Err(problem)) => exchange.refuse(problem),
                Err(_) => {
                    // What a panic says may hold anything; the hook has logged where it was.
                    metrics.panics.inc();
                    exchange.refuse(Problem::internal("an endpoint panicked"))
                }
            })
        })
    }
}

async fn answer(
    mut router: Router,
    mut parts: http::request::Parts,
    body: Bytes,
    info: CallInfo,
) -> Result<Response, Problem> {
    parts.extensions.insert(info);
    let Ok(response) = router.call(http::Request::from_parts(parts, axum::body::Body::from(body))).await;
    let (parts, body) = response.into_parts();
    // Endpoints answer from memory; taken whole, the worker gets it in one piece.
    let body = body.collect().await.map_err(Problem::internal)?.to_bytes();
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// The whole body, within its limits.
async fn read(headers: &http::HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Code::BodyTooLarge, "An endpoint reads at most 256 KiB.");
    let announced = headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BODY) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::new(Code::InvalidRequest, "The request body broke off.").caused_by(error)),
        Err(_) => Err(Problem::new(Code::RequestTimeout, "The request body did not arrive in time.")),
    }
}
