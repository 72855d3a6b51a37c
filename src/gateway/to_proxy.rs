//! From a matched route to the upstream: limits, affinity, and the problem when there is no answer.

use std::convert::Infallible;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use foldhash::fast::FixedState;
use futures_util::FutureExt as _;
use http::HeaderMap;
use http::uri::Authority;
use tokio::sync::oneshot;
use tower::Service;

use crate::config::{self, Balance};
use crate::metrics::{Shard, UpstreamFigures};
use crate::pipeline::Exchange;
use crate::pipeline::Response;
use crate::pipeline::dispatch::{Awaited, ToUpstream};
use crate::pipeline::sockets::{Seat, Sockets, chosen};
use crate::pipeline::trailers;
use crate::pipeline::via::TRACEPARENT;
use crate::problem::Problem;
use crate::proxy::{Forwarder, Limits, Outbound, Upstream, Witness};
use crate::tunnel::{Ending, Switched};

/// The service.
#[derive(Debug, Clone)]
pub(super) struct ToProxy {
    forwarder: Forwarder,
    upstreams: Arc<[Arc<Upstream>]>,
    /// Of each of them, this worker's.
    figures: Arc<[Arc<UpstreamFigures>]>,
    sockets: Arc<Sockets>,
    most_sockets: Option<NonZeroUsize>,
}

impl ToProxy {
    pub(super) fn new(
        forwarder: Forwarder,
        upstreams: Arc<[Arc<Upstream>]>,
        sockets: Arc<Sockets>,
        most_sockets: Option<NonZeroUsize>,
        shard: &Shard,
    ) -> Self {
        let figures = upstreams.iter().map(|upstream| shard.upstream(upstream.name())).collect();
        Self { forwarder, upstreams, figures, sockets, most_sockets }
    }
}

impl Service<ToUpstream> for ToProxy {
    type Response = Response;
    type Error = Infallible;
    type Future = Awaited;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: ToUpstream) -> Awaited {
        let ToUpstream { request, route, exchange } = to;
        let Some(upstream) = route.policy.upstream.and_then(|n| self.upstreams.get(n)) else {
            let problem = Problem::internal("the route names an upstream that is not there");
            return Box::pin(std::future::ready(Ok(exchange.refuse(problem))));
        };
        let request = if upstream.speaks_http2() { Box::new(request.map(trailers::cleaned)) } else { request };
        let affinity = affinity(upstream.balance(), &exchange);
        let upgrade = exchange.upgrade.get().and_then(|offered| chosen(&route.policy.upgrade, offered));
        // HTTP/2 has no upgrade (RFC 9113, section 8.6).
        let upgrade = upgrade.filter(|_| !upstream.speaks_http2());
        let seat = match &upgrade {
            None => None,
            Some(protocol) => match self.sockets.seat(&exchange, &route, protocol, self.most_sockets) {
                Ok(seat) => Some(seat),
                Err(problem) => return Box::pin(std::future::ready(Ok(exchange.refuse(problem)))),
            },
        };
        let outbound = Outbound {
            now: exchange.went_on(),
            request,
            upstream: Arc::clone(upstream),
            limits: limits(&route.policy),
            affinity,
            upgrade,
            retry: route.policy.retry.clone(),
            witness: Some(Arc::clone(&exchange) as Arc<dyn Witness>),
        };
        let figures = route.policy.upstream.and_then(|n| self.figures.get(n)).map(Arc::clone);
        // Nothing is awaited around it that would hold it twice.
        Box::pin(self.forwarder.forward(outbound).map(move |outcome| {
            let took = exchange.started.elapsed();
            if let Some(figures) = figures {
                figures.exchange(outcome.as_ref().ok().map(|response| response.status().as_u16()), took);
            }
            Ok(match outcome {
                Ok(response) => {
                    exchange.answered_after(took);
                    if let Some((seat, ended)) = seat {
                        take_seat(&response, seat, ended);
                    }
                    response
                }
                Err(error) => {
                    if let Some(recording) = exchange.recording() {
                        recording.failed(took);
                    }
                    exchange.refuse(Problem::from(error))
                }
            })
        }))
    }
}

/// The socket's place is its tunnel's from now on; without a tunnel it is given back.
fn take_seat(response: &Response, seat: Seat, ended: oneshot::Receiver<Ending>) {
    if let Some(switched) = response.extensions().get::<Switched>() {
        switched.with(|tunnel| {
            seat.switched();
            tunnel.ended_by(ended);
            tunnel.at_end(move |totals| seat.ended(totals));
        });
    }
}

/// Counts attempts for the access log, records those of a request that is recorded, and says what the gateway adds.
impl Witness for Exchange {
    fn push_lines(&self, out: &mut Vec<u8>) {
        Exchange::push_lines(self, out);
    }

    fn attempt(&self, server: &Authority, headers: &mut HeaderMap) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        if let Some(recording) = self.recording() {
            headers.insert(TRACEPARENT, recording.attempt(server.as_str(), self.started.elapsed()));
        }
    }
}

fn limits(policy: &config::Route) -> Limits {
    Limits {
        response_head: policy.timeout,
        idle: policy.idle_timeout,
        total: policy.total_timeout,
        max_body: policy.max_body,
        min_body_rate: policy.min_body_rate,
    }
}

/// What a `hash:*` balance goes by: the person, or the address where nobody is logged in. The same on every instance.
fn affinity(balance: Balance, exchange: &Exchange) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    match (balance, exchange.principal.get()) {
        (Balance::RoundRobin | Balance::P2c, _) => return 0,
        (Balance::HashOpenid, Some(principal)) => principal.claims.openid.hash(&mut hasher),
        (Balance::HashOpenid, None) | (Balance::HashIp, _) => exchange.client().hash(&mut hasher),
    }
    hasher.finish()
}
