//! What one worker thread answers requests with.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tower::Service as _;

use crate::clock::HttpDate;
use crate::metrics::Shard;
use crate::pipeline::Stack;
use crate::pipeline::access_log::AccessLog;
use crate::pipeline::dispatch::Dispatch;
use crate::pipeline::shed::{Passage, Turnstile};
use crate::pipeline::trace::{Inbound, Observer, RequestIds, Traced};
use crate::proxy::Forwarder;

use super::endpoints::Endpoints;
use super::to_proxy::ToProxy;
use super::{Gateway, Snapshot};

impl Gateway {
    /// What one worker thread answers with. Call it once per worker.
    pub fn worker(self: &Arc<Self>) -> Worker {
        let shard = self.kept.metrics.shard();
        let observer = Arc::new(Observer {
            metrics: Arc::clone(&self.kept.metrics),
            shard: Arc::clone(&shard),
            log: AccessLog::new(self.kept.log.clone(), self.kept.clock.clone(), Arc::clone(&shard)),
            ids: RequestIds::new(),
            streams: self.kept.streams.list(),
            spans: ArcSwapOption::empty(),
        });
        let forwarder = Forwarder::new();
        let snapshot = self.current();
        let turnstile = Turnstile::default();
        let stack = self.stack(&snapshot, &observer, &forwarder, &turnstile);
        let date = HttpDate::new(self.kept.clock.clone());
        Worker {
            gateway: Arc::clone(self),
            observer,
            forwarder,
            turnstile,
            date,
            current: Mutex::new((snapshot, stack)),
        }
    }
}

/// What of `[server]` concerns a connection. Sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Largest request head.
    pub max_head: usize,
    /// Longest request target.
    pub max_uri: usize,
    /// How long a head may take from its first byte.
    pub head_timeout: Duration,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// Whether a client on clear text may speak HTTP/2. By TLS it is what was agreed on.
    pub http2: bool,
}

pub(super) type WorkerStack = Stack<Dispatch<Endpoints, ToProxy>>;

/// What one worker thread answers requests with: the stack of the current snapshot, and the worker's own connections,
/// counters and log.
#[derive(Debug)]
pub struct Worker {
    gateway: Arc<Gateway>,
    observer: Arc<Observer>,
    forwarder: Forwarder,
    turnstile: Turnstile,
    date: HttpDate,
    /// Locked for a few instructions and only by this worker's thread, so never contended. It is a lock because the
    /// stack is `&mut` while it is called, and so that the worker stays `Send`.
    current: Mutex<(Arc<Snapshot>, WorkerStack)>,
}

impl Worker {
    /// A request for this path has come: `None` when it may be answered at once, else its turn to wait for.
    pub fn enter(&self, path: &str) -> Option<impl Future<Output = Passage> + Send + use<>> {
        let is_health = || self.gateway.snapshot.load().config.server.health_path.as_deref() == Some(path);
        self.turnstile.enter(self.observer.shard.in_flight.get(), &is_health)
    }

    /// Gives those their turn that wait; never ends.
    pub async fn turn(&self) {
        self.turnstile.turn().await;
    }

    /// Answers a request.
    pub fn call(
        &self,
        inbound: Inbound,
    ) -> impl Future<Output = Result<http::Response<Traced>, std::convert::Infallible>> + use<> {
        self.in_force().1.call(inbound)
    }

    /// The stack of the snapshot in force.
    fn in_force(&self) -> MutexGuard<'_, (Arc<Snapshot>, WorkerStack)> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::ptr::eq(Arc::as_ptr(&current.0), Arc::as_ptr(&self.gateway.snapshot.load())) {
            let snapshot = self.gateway.current();
            let stack = self.gateway.stack(&snapshot, &self.observer, &self.forwarder, &self.turnstile);
            *current = (snapshot, stack);
        }
        current
    }

    /// TLS as it is in force; `None` for plain HTTP.
    pub fn tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        self.gateway.snapshot.load().tls.clone()
    }

    /// Strict-Transport-Security of answers by TLS, as it is in force.
    pub fn hsts(&self) -> Option<HeaderValue> {
        self.gateway.snapshot.load().secure.hsts.clone()
    }

    /// Where a client that asked for `host` on plain HTTP finds it by https; `None` for a host that is none of ours.
    pub fn https_authority(&self, host: &str) -> Option<String> {
        self.gateway.snapshot.load().secure.authority(host)
    }

    /// The answer for an authority that asks for `token` on plain HTTP.
    pub fn acme_file(&self, token: &str) -> Option<String> {
        self.gateway.snapshot.load().managed.as_ref()?.file(token)
    }

    /// The limits of connections, as they are in force.
    pub fn connection_limits(&self) -> ConnectionLimits {
        let snapshot = self.gateway.snapshot.load();
        let server = &snapshot.config.server;
        ConnectionLimits {
            max_head: server.max_head,
            max_uri: server.max_uri,
            head_timeout: server.head_timeout,
            keep_alive: server.keep_alive,
            http2: server.http2,
        }
    }

    /// The value of `Date`.
    pub fn date(&self) -> [u8; 29] {
        self.date.now()
    }

    /// Whether the gateway is going away.
    pub fn is_draining(&self) -> bool {
        self.gateway.is_draining()
    }

    /// Something panicked outside of the stack.
    pub fn panicked(&self) {
        self.observer.metrics.panics.inc();
    }

    /// A connection was ended because its client flooded it.
    pub fn flooded(&self) {
        self.observer.metrics.http2_floods.inc();
    }

    /// So many answers were ended because their clients did not read them.
    pub fn stalled(&self, answers: usize) {
        (0..answers).for_each(|_| self.observer.metrics.http2_stalls.inc());
    }

    /// The worker's counters.
    pub fn shard(&self) -> &Shard {
        &self.observer.shard
    }

    /// Most connections of clients on all workers, where the configuration says so.
    pub fn max_connections(&self) -> Option<std::num::NonZeroUsize> {
        self.gateway.snapshot.load().config.server.max_connections
    }

    /// One turn of the worker took so long just now.
    pub fn waited(&self, turn: Duration) {
        let wait = turn + self.turnstile.age();
        self.observer.shard.wait_us.set(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX));
    }

    /// What is to be done a few times a second.
    pub fn tick(&self) {
        self.observer.log.flush();
        self.forwarder.sweep();
        // A worker without requests lets go of an old snapshot too, and of the health checks that run on its behalf.
        drop(self.in_force());
    }

    /// Hands over what has gathered; the last thing a worker does.
    pub fn flush(&self) {
        self.observer.log.flush();
    }
}
