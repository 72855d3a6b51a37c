//! The outermost layer: request id, metrics, access log, and panics → one 500.
//!
//! Takes the request as the server gives it and the connection it came on; hands back a body that tells when the answer has
//! been sent, which is when the request is counted and logged.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, Version};
use http_body::{Body as _, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::body::{self, Body};
use crate::http1::verbatim::Verbatim;
use crate::metrics::{Metrics, Shard};
use crate::problem::{Code, Problem, Refused};
use crate::telemetry::export::Spans;
use crate::telemetry::span::{Recording, RequestSpan, Sampler};
use crate::tunnel::{Switched, Totals};

use super::access_log::{AccessLog, Client, Entry};
use super::connection::Connection;
use super::exchange::{Asked, Exchange, OwnId};
use super::route::Matched;
use super::shed::Passage;
use super::streams::{Going, List};
use super::{Request, Response};

/// A request as it comes from the server.
#[derive(Debug)]
pub struct Inbound {
    /// As the server read it.
    pub request: Box<http::Request<Body>>,
    /// The lines of its head that are not among its headers.
    pub lines: Verbatim,
    /// Its connection.
    pub connection: Arc<Connection>,
    /// How it came through the turnstile.
    pub passage: Passage,
}

/// What one worker observes with.
#[derive(Debug)]
pub struct Observer {
    /// All metrics, for what is rare.
    pub metrics: Arc<Metrics>,
    /// The worker's own counters.
    pub shard: Arc<Shard>,
    /// The worker's log.
    pub log: AccessLog,
    /// Request ids.
    pub ids: RequestIds,
    /// The worker's answers that go on.
    pub streams: Arc<List>,
    /// Where recorded requests go; changes with the configuration.
    pub spans: ArcSwapOption<Spans>,
}

/// Makes request ids: 32 hex digits, unique and without meaning. Also valid as a W3C trace id.
#[derive(Debug)]
pub struct RequestIds {
    high: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// With a random start, so that two workers, or two runs, do not meet.
    pub fn new() -> Self {
        let (high, low) = uuid::Uuid::now_v7().as_u64_pair();
        Self { high: mix(high ^ low.rotate_left(32)), next: AtomicU64::new(low) }
    }

    /// The next one.
    pub fn next(&self) -> OwnId {
        let low = mix(self.next.fetch_add(1, Ordering::Relaxed));
        let mut text = [0; 32];
        text[..16].copy_from_slice(&hex(self.high));
        text[16..].copy_from_slice(&hex(low));
        text
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

/// All sixteen digits at once: each nibble goes to a byte of its own, and those over 9 are moved on to the letters.
fn hex(n: u64) -> [u8; 16] {
    const EACH: u128 = u128::MAX / 0xff;
    let mut spread = u128::from(n);
    for (shift, mask) in [
        (32, 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff),
        (16, 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f),
    ] {
        spread = (spread | spread << shift) & mask;
    }
    let over_nine = (spread + 6 * EACH) >> 4 & EACH;
    (spread + u128::from(b'0') * EACH + u128::from(b'a' - b'0' - 10) * over_nine).to_be_bytes()
}

/// A bijection (the finalizer of splitmix64), so that ids in a row do not look like ids in a row.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Makes [`Trace`].
#[derive(Debug, Clone)]
pub struct TraceLayer {
    observer: Arc<Observer>,
    sampler: Option<Sampler>,
}

impl TraceLayer {
    /// Observes with `observer`, and records the requests that `sampler` takes.
    pub fn new(observer: Arc<Observer>, sampler: Option<Sampler>) -> Self {
        Self { observer, sampler }
    }
}

impl<S> Layer<S> for TraceLayer {
    type Service = Trace<S>;

    fn layer(&self, inner: S) -> Trace<S> {
        Trace { inner, observer: Arc::clone(&self.observer), sampler: self.sampler }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct Trace<S> {
    inner: S,
    observer: Arc<Observer>,
    sampler: Option<Sampler>,
}

impl<S> Service<Inbound> for Trace<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = http::Response<Traced>;
    type Error = Infallible;
    type Future = TraceFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let Inbound { request, lines, connection, passage } = inbound;
        self.observer.shard.in_flight.add(1);
        let entered = Instant::now();
        let started = entered.checked_sub(passage.waited).unwrap_or(entered);
        let mut exchange = Exchange::new(connection, self.observer.ids.next(), started);
        exchange.entered = entered;
        exchange.overdue = passage.overdue;
        exchange.sampler = self.sampler;
        exchange.passing = lines;
        exchange.asked = Some(Asked {
            method: request.method().clone(),
            target: request.uri().path_and_query().cloned(),
            version: request.version(),
        });
        let exchange = Arc::new(exchange);
        let record = Record {
            observer: Arc::clone(&self.observer),
            exchange: Arc::clone(&exchange),
            status: 0,
            refused: None,
            bytes: 0,
            complete: false,
            tunnel: None,
            ended: None,
        };
        let request = Request { http: request, exchange };
        // The synchronous half of the stack runs here; a panic in it is caught like one in the future.
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(inner) => TraceFuture { inner: Some(inner), record: Some(record) },
            Err(_) => TraceFuture { inner: None, record: Some(record) },
        }
    }
}

pin_project! {
    /// The answer to come. Without `inner`, what was to make it panicked.
    #[derive(Debug)]
    pub struct TraceFuture<F> {
        #[pin]
        inner: Option<F>,
        record: Option<Record>,
    }
}

impl<F> Future for TraceFuture<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<http::Response<Traced>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let response = match this.inner.as_mut().as_pin_mut() {
            None => None,
            Some(inner) => match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
                Ok(polled) => {
                    let Ok(response) = ready!(polled);
                    Some(response)
                }
                Err(_) => None,
            },
        };
        let Some(mut record) = this.record.take() else {
            // Polled after it was ready, which the contract of futures forbids.
            return Poll::Pending;
        };
        let mut response = response.unwrap_or_else(|| {
            record.observer.metrics.panics.inc();
            record.exchange.refuse(Problem::new(Code::Internal, "").caused_by("a handler panicked"))
        });
        record.status = response.status().as_u16();
        record.complete = response.body().is_end_stream();
        record.refused = response.extensions_mut().remove::<Refused>().map(Box::new);
        if let Some(refused) = &record.refused {
            record.observer.metrics.problem(refused.code.name());
        }
        if let Some(switched) = response.extensions().get::<Switched>().cloned() {
            // The answer is this head; the rest is told when the tunnel ends.
            record.switch();
            switched.with(|tunnel| tunnel.at_end(move |totals| record.end(*totals)));
            return Poll::Ready(Ok(response.map(|body| Traced { body, record: None, going: Going::BOUNDED })));
        }
        let going = Going::of(&response);
        Poll::Ready(Ok(response.map(|body| Traced { body, record: Some(record), going })))
    }
}

/// What will be counted and logged when the answer is over.
#[derive(Debug)]
struct Record {
    observer: Arc<Observer>,
    exchange: Arc<Exchange>,
    status: u16,
    /// Boxed, as the next: most answers have neither, and all of them carry this record along.
    refused: Option<Box<Refused>>,
    bytes: u64,
    complete: bool,
    tunnel: Option<Box<Totals>>,
    /// Why it was ended from here.
    ended: Option<&'static str>,
}

impl Record {
    /// The connection leaves HTTP with this answer. The request is counted now, so that how long sockets live does not
    /// stand among the durations of requests.
    fn switch(&mut self) {
        self.observer.shard.in_flight.add(-1);
        let took = self.exchange.started.elapsed();
        self.observer.shard.request(self.status, took, 0);
        self.count_for_route(self.status, took);
        self.complete = false;
        self.tunnel = Some(Box::new(Totals { from_client: 0, to_client: 0, ended: "never_begun" }));
    }

    fn count_for_route(&self, status: u16, took: Duration) {
        if let Some(Matched::Route(route)) = self.exchange.matched.get() {
            route.figures.request(status, took, self.refused.as_ref().map(|refused| refused.code.name()));
        }
    }

    /// The tunnel has run to its end.
    fn end(mut self, totals: Totals) {
        self.complete = true;
        self.bytes = totals.to_client;
        self.tunnel = Some(Box::new(totals));
    }
}

/// As it is named in logs.
const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// Counts and logs, however the answer ended: sent, broken off, or never made because the client went away.
impl Drop for Record {
    fn drop(&mut self) {
        let took = self.exchange.started.elapsed();
        self.exchange.connection.answered();
        // Without a status the client went away before there was an answer (nginx's 499).
        let status = if self.status == 0 { 499 } else { self.status };
        if self.tunnel.is_none() {
            self.observer.shard.in_flight.add(-1);
            self.observer.shard.request(status, took, self.bytes);
            self.count_for_route(status, took);
        }
        let caller = self.exchange.principal.get();
        let (route, upstream) = match self.exchange.matched.get() {
            Some(Matched::Route(route)) => (route.policy.path.text.as_str(), Some(&*route.upstream_name)),
            Some(Matched::Endpoint) => ("endpoint", None),
            Some(Matched::Health) => ("health", None),
            Some(Matched::Static(item)) => (item.path.as_str(), None),
            None => ("-", None),
        };
        let asked = self.exchange.asked.as_ref();
        self.observer.log.add(&Entry {
            id: self.exchange.id(),
            client: match self.exchange.forwarded.get() {
                Some(known) if known.client != self.exchange.connection.peer() => Client::Named(known.client),
                _ => Client::Peer(self.exchange.connection.peer_text().to_str().unwrap_or_default()),
            },
            method: asked.map_or("", |asked| asked.method.as_str()),
            path: asked.and_then(|asked| asked.target.as_ref()).map_or("", PathAndQuery::path),
            protocol: protocol(asked.map_or(Version::HTTP_11, |asked| asked.version)),
            route,
            upstream: self.exchange.upstream.get().map(|u| &**u).or(upstream.filter(|_| self.refused.is_none())),
            status,
            code: self.refused.as_ref().map(|r| r.code.name()),
            cause: self.refused.as_ref().and_then(|r| r.cause.as_deref()),
            bytes: self.bytes,
            took,
            member: caller.map(|c| c.member_id()),
            person: caller.map(|c| c.pseudonym.as_str()),
            complete: self.complete,
            tunnel: self.tunnel.as_deref(),
            ended: self.ended,
            attempts: self.exchange.attempts.load(Ordering::Relaxed),
            head_us: self.exchange.head_us(),
        });
        if let Some(recording) = self.exchange.recording()
            && let Some(spans) = &*self.observer.spans.load()
            && !matches!(self.exchange.matched.get(), Some(Matched::Health))
        {
            let upstream = upstream.filter(|_| self.exchange.attempts.load(Ordering::Relaxed) > 0);
            spans.offer(|| self.span(recording, (route, upstream), status, took));
        }
    }
}

impl Record {
    fn span(
        &self,
        recording: &Recording,
        (route, upstream): (&str, Option<&str>),
        status: u16,
        took: Duration,
    ) -> RequestSpan {
        let exchange = &self.exchange;
        let now = self.observer.log.clock().nanos();
        RequestSpan {
            context: recording.context,
            request_id: exchange.id().to_owned(),
            method: exchange.asked.as_ref().map_or("_OTHER", |asked| known(&asked.method)),
            route: route.to_owned(),
            https: exchange.forwarded.get().map_or_else(|| exchange.connection.https(), |known| known.https),
            upstream: upstream.map(str::to_owned),
            status,
            code: self.refused.as_ref().map(|refused| refused.code.name()),
            bytes: self.bytes,
            began: now.saturating_sub(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)),
            took,
            complete: self.complete,
            attempts: recording.attempts(),
        }
    }
}

/// The name of a method that everybody knows (RFC 9110, RFC 5789); of others a client could make any number.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}

/// An answer's body that counts what passes.
#[derive(Debug)]
pub struct Traced {
    body: Body,
    /// Without it the answer is counted elsewhere.
    record: Option<Record>,
    /// Whether it may have to end before its end.
    going: Going,
}

impl Traced {
    /// The next piece, or what stands for it when the answer has to end here.
    fn poll_on(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        loop {
            if let Some(ended) = self.going.is_over(cx) {
                // With the body goes the connection to the upstream.
                (self.body, self.going) = (Body::empty(), Going::BOUNDED);
                if let Some(record) = &mut self.record {
                    record.ended = Some(ended.reason);
                }
                return Poll::Ready((!ended.properly).then(|| Err(ended.reason.into())));
            }
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            let placed = match &self.record {
                Some(record) => self.going.goes_on(polled.is_pending(), &record.observer.streams, &record.exchange),
                None => false,
            };
            // Whoever has just taken a place may be told at once that it is none, and must be woken when it is one no more.
            if !(placed && polled.is_pending()) {
                return polled;
            }
        }
    }
}

impl Traced {
    /// Without its bytes, for an answer that has none whatever its service says: to HEAD, and 204 and 304.
    #[must_use]
    pub fn without_bytes(mut self) -> Self {
        self.body = Body::empty();
        if let Some(record) = &mut self.record {
            record.complete = true;
        }
        self
    }
}

impl http_body::Body for Traced {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        let this = self.get_mut();
        // A body that panics breaks the answer off, which is all that can be done after its head was sent.
        let Ok(polled) = catch_unwind(AssertUnwindSafe(|| this.poll_on(cx))) else {
            if let Some(record) = &this.record {
                record.observer.metrics.panics.inc();
            }
            return Poll::Ready(Some(Err("the body panicked".into())));
        };
        let frame = ready!(polled);
        let Some(record) = &mut this.record else { return Poll::Ready(frame) };
        match &frame {
            Some(Ok(frame)) => {
                record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                record.complete = this.body.is_end_stream();
            }
            Some(Err(_)) => {}
            None => record.complete = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
