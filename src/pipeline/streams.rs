//! Answers that go on: event streams and others without a stated length. Who reads one, and what ends it: expiry,
//! revocation, reload, and for event streams the drain.
//!
//! An answer takes its place in a list when it has to be waited for, or has come in many pieces; those that come at once
//! never do. Each worker has a list of its own, so that taking a place waits for nobody.
//!
//! An event stream ([`text/event-stream`](https://html.spec.whatwg.org/multipage/server-sent-events.html)) has no end of
//! its own, so it ends properly: the reader connects anew, and is judged anew. Any other answer is broken off, because
//! nobody may take for the whole what is a part.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Context;

use futures_util::task::AtomicWaker;
use http::header::CONTENT_TYPE;
use http_body::Body as _;

use crate::config;
use crate::metrics::{Metrics, label};
use crate::token::revocation::Revocations;
use crate::tunnel::Ending;

use super::route::{Matched, Route};
use super::tenure::{DRAINING, Look, REVOKED, ROUTE_GONE, Tenant};
use super::{Exchange, Response};

/// Pieces of an answer after which it has a place also when it was never waited for.
const MANY: u8 = 32;

/// All streams of all workers. One for the process.
#[derive(Debug)]
pub struct Streams {
    revocations: Arc<Revocations>,
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    workers: Vec<Weak<List>>,
    rules: Rules,
    /// Ended from here so far, by reason.
    ended: HashMap<&'static str, u64>,
}

/// What has changed for those that begin from now on.
#[derive(Debug, Clone, Default)]
struct Rules {
    draining: bool,
    /// The routes of the last reload: a request that began before it may be answered after it.
    reloaded: Option<Arc<[config::Route]>>,
}

/// One worker's streams.
#[derive(Debug)]
pub struct List {
    all: Arc<Streams>,
    /// Locked when a stream takes its place or leaves it, and when all are looked through.
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    streams: HashMap<u64, (Tenant, Arc<Signal>)>,
    rules: Rules,
}

/// How a stream is told to end.
#[derive(Debug)]
struct Signal {
    events: bool,
    ending: OnceLock<Ending>,
    reader: AtomicWaker,
}

impl Signal {
    fn end(&self, ending: Ending) -> bool {
        let first = self.ending.set(ending).is_ok();
        self.reader.wake();
        first
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Streams {
    /// None yet.
    pub fn new(revocations: Arc<Revocations>) -> Arc<Self> {
        Arc::new(Self { revocations, lists: Mutex::default() })
    }

    /// A new worker's list.
    pub fn list(self: &Arc<Self>) -> Arc<List> {
        let mut lists = locked(&self.lists);
        lists.workers.retain(|list| list.strong_count() > 0);
        let open = Open { rules: lists.rules.clone(), ..Open::default() };
        let list = Arc::new(List { all: Arc::clone(self), open: Mutex::new(open) });
        lists.workers.push(Arc::downgrade(&list));
        list
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.workers().iter().map(|list| locked(&list.open).streams.len()).sum()
    }

    fn workers(&self) -> Vec<Arc<List>> {
        locked(&self.lists).workers.iter().filter_map(Weak::upgrade).collect()
    }

    /// Ends those of which `judge` says so.
    fn end(&self, mut judge: impl FnMut(&mut Tenant, &Signal) -> Option<Ending>, rules: Option<&Rules>) {
        for list in self.workers() {
            let mut ended = Vec::new();
            let mut open = locked(&list.open);
            if let Some(rules) = rules {
                open.rules.clone_from(rules);
            }
            for (tenant, signal) in open.streams.values_mut() {
                if let Some(ending) = judge(tenant, signal)
                    && signal.end(ending)
                {
                    ended.push(ending.reason);
                }
            }
            drop(open);
            self.count_ended(&ended);
        }
    }

    fn count_ended(&self, reasons: &[&'static str]) {
        if reasons.is_empty() {
            return;
        }
        let mut lists = locked(&self.lists);
        for reason in reasons {
            *lists.ended.entry(reason).or_default() += 1;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Rules)) -> Rules {
        let rules = &mut locked(&self.lists).rules;
        change(rules);
        rules.clone()
    }

    /// Ends event streams, of which none would end by itself, and lets none begin from now on. Others may finish.
    pub fn drain(&self) {
        let rules = self.change(|rules| rules.draining = true);
        self.end(|_, signal| signal.events.then_some(DRAINING), Some(&rules));
    }

    /// Ends those that the routes in force now have no place for.
    pub fn recheck(&self, routes: &[config::Route]) {
        let rules = self.change(|rules| rules.reloaded = Some(routes.into()));
        self.end(|tenant, _| tenant.refused_by(routes, None), Some(&rules));
    }

    /// Ends those whose token is no longer good.
    pub(super) fn sweep(&self, look: &Look<'_>) {
        self.end(|tenant, _| tenant.expelled_by(look), None);
    }

    /// Adds its figures to the metrics page.
    #[allow(clippy::cast_precision_loss)] // counts far from 2^53
    pub fn register(self: &Arc<Self>, metrics: &Metrics) {
        let streams = Arc::downgrade(self);
        metrics.register("wxgate_open_streams", "gauge", "Answers that go on, by route.", move || {
            let mut routes: HashMap<String, usize> = HashMap::new();
            for list in streams.upgrade().iter().flat_map(|streams| streams.workers()) {
                for (tenant, _) in locked(&list.open).streams.values() {
                    *routes.entry(tenant.route.policy.path.text.clone()).or_default() += 1;
                }
            }
            routes.into_iter().map(|(route, n)| (format!("{{route={}}}", label(&route)), n as f64)).collect()
        });
        let streams = Arc::downgrade(self);
        let help = "Answers that were ended before their end, by reason.";
        metrics.register("wxgate_streams_ended_total", "counter", help, move || {
            let Some(streams) = streams.upgrade() else { return Vec::new() };
            let lists = locked(&streams.lists);
            lists.ended.iter().map(|(reason, n)| (format!("{{ended=\"{reason}\"}}"), *n as f64)).collect()
        });
    }
}

impl List {
    /// A place for this answer; one that may not go on is told so at once.
    fn take(self: &Arc<Self>, exchange: &Exchange, route: &Arc<Route>, events: bool) -> Place {
        let tenant = Tenant::new(exchange, route);
        let signal = Arc::new(Signal { events, ending: OnceLock::new(), reader: AtomicWaker::new() });
        let mut open = locked(&self.open);
        let id = open.next;
        open.next += 1;
        // Asked again under the lock: whoever revokes later finds it in the list.
        let refused = match (&open.rules, &tenant.caller) {
            (Rules { draining: true, .. }, _) if events => Some(DRAINING),
            (_, Some(caller)) if self.all.revocations.is_revoked(&caller.claims) => Some(REVOKED),
            (Rules { reloaded: Some(routes), .. }, _) if tenant.refused_by(routes, None).is_some() => Some(ROUTE_GONE),
            _ => None,
        };
        open.streams.insert(id, (tenant, Arc::clone(&signal)));
        drop(open);
        if let Some(ending) = refused
            && signal.end(ending)
        {
            self.all.count_ended(&[ending.reason]);
        }
        Place { list: Arc::clone(self), id, signal }
    }
}

/// One stream's place; given back when it is dropped.
#[derive(Debug)]
struct Place {
    list: Arc<List>,
    id: u64,
    signal: Arc<Signal>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let gone = locked(&self.list.open).streams.remove(&self.id);
        // Outside of the lock: it may be the last to hold its route.
        drop(gone);
    }
}

/// What an answer is, as far as its end from outside is concerned.
#[derive(Debug)]
pub(super) struct Going(State);

#[derive(Debug)]
enum State {
    /// It has a length, is over, or is none of an upstream.
    Bounded,
    /// It may turn out to be a stream.
    Open { events: bool, pieces: u8 },
    /// It is one.
    Placed(Place),
}

/// How a stream is to end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    /// Why, for the log.
    pub(super) reason: &'static str,
    /// Properly, as if the upstream had ended it; else it is broken off.
    pub(super) properly: bool,
}

impl Going {
    pub(super) const BOUNDED: Self = Self(State::Bounded);

    /// Of this answer.
    pub(super) fn of(response: &Response) -> Self {
        let body = response.body();
        if body.is_end_stream() || body.size_hint().exact().is_some() {
            return Self::BOUNDED;
        }
        let kind = response.headers().get(CONTENT_TYPE).map(|kind| kind.as_bytes());
        let name = kind.and_then(|kind| kind.split(|b| *b == b';').next()).unwrap_or_default();
        Self(State::Open { events: name.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"), pieces: 0 })
    }

    /// Whether it has to end now; wakes `cx` when it shall later.
    pub(super) fn is_over(&self, cx: &Context<'_>) -> Option<Ended> {
        let State::Placed(place) = &self.0 else { return None };
        let signal = &place.signal;
        signal.reader.register(cx.waker());
        signal.ending.get().map(|ending| Ended { reason: ending.reason, properly: signal.events })
    }

    /// A piece came, or is waited for. True when it has taken its place just now.
    pub(super) fn goes_on(&mut self, waiting: bool, list: &Arc<List>, exchange: &Exchange) -> bool {
        let State::Open { events, pieces } = &mut self.0 else { return false };
        *pieces += 1;
        if !waiting && *pieces < MANY {
            return false;
        }
        self.0 = match exchange.matched.get() {
            Some(Matched::Route(route)) => State::Placed(list.take(exchange, route, *events)),
            // What the gateway answers itself does not go on.
            Some(Matched::Endpoint | Matched::Health | Matched::Static(_)) | None => State::Bounded,
        };
        matches!(self.0, State::Placed(_))
    }
}
