//! Who has open sockets (connections that left HTTP), and what ends them: expiry, revocation, reload, drain.
//!
//! A token is checked once per request, and a socket is one long request. So the rules that let it in are asked again here:
//! one task looks through all open sockets when something was revoked, and twice a second for tokens that have expired; no
//! socket watches for itself. A refresh does not prolong a socket: its token ends when it ends, and the client connects
//! anew with the next one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::clock::Clock;
use crate::config;
use crate::ids::MemberId;
use crate::metrics::Metrics;
use crate::problem::{Code, Problem};
use crate::token::revocation::Revocations;
use crate::tunnel::{Ending, Totals};

use super::Exchange;
use super::authorize::authorize;
use super::principal::Principal;
use super::route::Route;

/// How late the end of a token may be noticed.
const TICK: Duration = Duration::from_millis(500);

/// Revocations that come within this time are looked at together.
const GATHER: Duration = Duration::from_millis(50);

/// The close code of what the client can put right: log in, refresh, or stay away. Of the range that is free for
/// applications (RFC 6455, section 7.4.2).
const POLICY: u16 = 4001;
/// The gateway, or the route, goes away (RFC 6455, section 7.4.1).
const GOING_AWAY: u16 = 1001;

const EXPIRED: Ending = Ending { code: POLICY, reason: "token_expired" };
const REVOKED: Ending = Ending { code: POLICY, reason: "token_revoked" };
const FORBIDDEN: Ending = Ending { code: POLICY, reason: "forbidden" };
const DRAINING: Ending = Ending { code: GOING_AWAY, reason: "draining" };
const ROUTE_GONE: Ending = Ending { code: GOING_AWAY, reason: "route_removed" };

/// All open sockets of all workers. One for the process.
#[derive(Debug)]
pub struct Sockets {
    revocations: Arc<Revocations>,
    clock: Clock,
    /// Locked when a socket opens or ends and when all are looked through, never while bytes move.
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    sockets: HashMap<u64, Socket>,
    per_member: HashMap<MemberId, usize>,
    draining: bool,
    /// The routes of the last reload: a request that began before it may open its socket after it.
    reloaded: Option<Arc<[config::Route]>>,
    /// Ended so far, by reason.
    ended: HashMap<&'static str, u64>,
}

#[derive(Debug)]
struct Socket {
    caller: Option<Arc<Principal>>,
    client: IpAddr,
    route: Arc<Route>,
    protocol: HeaderValue,
    /// Whether the upstream has agreed.
    switched: bool,
    /// Sent to once.
    end: Option<oneshot::Sender<Ending>>,
}

impl Socket {
    fn end(&mut self, ending: Ending) {
        if let Some(end) = self.end.take() {
            let _ = end.send(ending);
        }
    }

    /// Why these routes have no place for it; `None` when they have.
    fn refused_by(&self, routes: &[config::Route]) -> Option<Ending> {
        let old = &self.route.policy;
        let same = |new: &&config::Route| new.path == old.path && new.hosts == old.hosts && new.methods == old.methods;
        let Some(new) = routes.iter().find(same) else { return Some(ROUTE_GONE) };
        if chosen(&new.upgrade, &self.protocol).is_none() {
            return Some(ROUTE_GONE);
        }
        if !new.networks.admit(self.client) {
            return Some(FORBIDDEN);
        }
        let caller = self.caller.as_deref().map(|caller| &caller.claims);
        authorize(new.auth, &new.roles, &new.apps, caller).is_err().then_some(FORBIDDEN)
    }
}

/// The first protocol that the client offers and the route allows, as the route writes it.
pub fn chosen(allowed: &[String], offered: &HeaderValue) -> Option<HeaderValue> {
    let mut offered = offered.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
    let name = offered.find_map(|offer| allowed.iter().find(|name| name.as_bytes().eq_ignore_ascii_case(offer)))?;
    HeaderValue::from_str(name).ok()
}

impl Sockets {
    /// None yet.
    pub fn new(revocations: Arc<Revocations>, clock: Clock) -> Arc<Self> {
        Arc::new(Self { revocations, clock, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more socket, before the upstream is asked; and who ends it.
    ///
    /// # Errors
    /// `rate_limited` when the member has `most` already, `draining`, and what has changed since the request was let in.
    pub fn seat(
        self: &Arc<Self>,
        exchange: &Exchange,
        route: &Arc<Route>,
        protocol: &HeaderValue,
        most: Option<NonZeroUsize>,
    ) -> Result<(Seat, oneshot::Receiver<Ending>), Problem> {
        let caller = exchange.principal.get().map(Arc::clone);
        let (end, ended) = oneshot::channel();
        let (route, protocol) = (Arc::clone(route), protocol.clone());
        let client = exchange.client();
        let socket = Socket { caller, client, route, protocol, switched: false, end: Some(end) };
        let mut open = self.open();
        if open.draining {
            return Err(Problem::new(Code::Draining, "This instance is shutting down; ask another."));
        }
        if open.reloaded.as_ref().is_some_and(|routes| socket.refused_by(routes).is_some()) {
            return Err(Problem::new(Code::RouteNotFound, "No route matches this host and path."));
        }
        if let Some(caller) = &socket.caller {
            // Asked again under the lock: whoever revokes later finds the socket in the list.
            if self.revocations.is_revoked(&caller.claims) {
                return Err(Problem::token_revoked());
            }
            let count = open.per_member.entry(caller.claims.member_id.clone()).or_default();
            if most.is_some_and(|most| *count >= most.get()) {
                let detail = "Too many open sockets: close one first ([server] max_sockets_per_member).";
                return Err(Problem::new(Code::RateLimited, detail));
            }
            *count += 1;
        }
        let id = open.next;
        open.next += 1;
        open.sockets.insert(id, socket);
        drop(open);
        Ok((Seat { sockets: Arc::clone(self), id }, ended))
    }

    /// How many places are taken.
    pub fn count(&self) -> usize {
        self.open().sockets.len()
    }

    /// Ends all, and lets none in from now on.
    pub fn drain(&self) {
        let mut open = self.open();
        open.draining = true;
        open.sockets.values_mut().for_each(|socket| socket.end(DRAINING));
    }

    /// Ends those that the routes in force now have no place for.
    pub fn recheck(&self, routes: &[config::Route]) {
        let mut open = self.open();
        for socket in open.sockets.values_mut() {
            if let Some(ending) = socket.refused_by(routes) {
                socket.end(ending);
            }
        }
        open.reloaded = Some(routes.into());
    }

    /// Ends those whose token is no longer good.
    fn sweep(&self) {
        let now = self.clock.now();
        for socket in self.open().sockets.values_mut() {
            let Some(caller) = &socket.caller else { continue };
            if self.revocations.is_revoked(&caller.claims) {
                socket.end(REVOKED);
            } else if caller.expires_at() <= now {
                socket.end(EXPIRED);
            }
        }
    }

    /// Looks after them until they are dropped. Must be called on the runtime that shall do so.
    pub fn start(self: &Arc<Self>) {
        let mut changes = self.revocations.changes();
        let sockets = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut tick = interval(TICK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    changed = changes.changed() => match changed {
                        Ok(()) => sleep(GATHER).await,
                        Err(_) => return,
                    },
                    _ = tick.tick() => {}
                }
                changes.mark_unchanged();
                let Some(sockets) = sockets.upgrade() else { return };
                sockets.sweep();
            }
        });
    }

    /// Adds its figures to the metrics page.
    #[allow(clippy::cast_precision_loss)] // counts far from 2^53
    pub fn register(self: &Arc<Self>, metrics: &Metrics) {
        let sockets = Arc::downgrade(self);
        metrics.register("wxgate_open_sockets", "gauge", "Open sockets, by route.", move || {
            let mut routes: HashMap<String, usize> = HashMap::new();
            if let Some(sockets) = sockets.upgrade() {
                for socket in sockets.open().sockets.values().filter(|socket| socket.switched) {
                    *routes.entry(socket.route.policy.path.text.clone()).or_default() += 1;
                }
            }
            routes.into_iter().map(|(route, n)| (format!("{{route=\"{route}\"}}"), n as f64)).collect()
        });
        let sockets = Arc::downgrade(self);
        metrics.register("wxgate_sockets_total", "counter", "Sockets that have ended, by reason.", move || {
            let Some(sockets) = sockets.upgrade() else { return Vec::new() };
            let open = sockets.open();
            open.ended.iter().map(|(reason, n)| (format!("{{ended=\"{reason}\"}}"), *n as f64)).collect()
        });
    }
}

/// One socket's place; given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    sockets: Arc<Sockets>,
    id: u64,
}

impl Seat {
    /// The upstream has agreed.
    pub fn switched(&self) {
        if let Some(socket) = self.sockets.open().sockets.get_mut(&self.id) {
            socket.switched = true;
        }
    }

    /// It has run to its end.
    pub fn ended(self, totals: &Totals) {
        *self.sockets.open().ended.entry(totals.ended).or_default() += 1;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.sockets.open();
        let Some(socket) = open.sockets.remove(&self.id) else { return };
        if let Some(caller) = &socket.caller
            && let Some(count) = open.per_member.get_mut(&caller.claims.member_id)
        {
            *count -= 1;
            if *count == 0 {
                open.per_member.remove(&caller.claims.member_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_offer_that_the_route_allows_is_chosen() {
        let allowed = ["websocket".to_owned(), "mqtt".to_owned()];
        for (offered, expected) in [
            ("websocket", Some("websocket")),
            ("WebSocket", Some("websocket")),
            ("h2c, mqtt, websocket", Some("mqtt")),
            ("h2c", None),
            ("websocket/13", None),
            ("", None),
        ] {
            let chosen = chosen(&allowed, &HeaderValue::from_static(offered));
            assert_eq!(chosen.as_ref().map(|c| c.to_str().unwrap()), expected, "{offered}");
        }
    }
}
