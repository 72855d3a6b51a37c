//! Who has open sockets (connections that left HTTP), how many a member may have, and what ends them: expiry, revocation,
//! reload, drain. The rules are those of [`super::tenure`].

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use tokio::sync::oneshot;

use crate::config;
use crate::ids::MemberId;
use crate::metrics::Metrics;
use crate::problem::{Code, Problem};
use crate::token::revocation::Revocations;
use crate::tunnel::{Ending, Totals};

use super::Exchange;
use super::route::Route;
use super::tenure::{DRAINING, Look, Tenant};

/// All open sockets of all workers. One for the process.
#[derive(Debug)]
pub struct Sockets {
    revocations: Arc<Revocations>,
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
    tenant: Tenant,
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

    fn refused_by(&self, routes: &[config::Route]) -> Option<Ending> {
        self.tenant.refused_by(routes, Some(&self.protocol))
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
    pub fn new(revocations: Arc<Revocations>) -> Arc<Self> {
        Arc::new(Self { revocations, open: Mutex::default() })
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
        let (end, ended) = oneshot::channel();
        let tenant = Tenant::new(exchange, route);
        let socket = Socket { tenant, protocol: protocol.clone(), switched: false, end: Some(end) };
        let mut open = self.open();
        if open.draining {
            return Err(Problem::new(Code::Draining, "This instance is shutting down; ask another."));
        }
        if open.reloaded.as_ref().is_some_and(|routes| socket.refused_by(routes).is_some()) {
            return Err(Problem::new(Code::RouteNotFound, "No route matches this host and path."));
        }
        if let Some(caller) = &socket.tenant.caller {
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
    pub(super) fn sweep(&self, look: &Look<'_>) {
        for socket in self.open().sockets.values_mut() {
            if let Some(ending) = socket.tenant.expelled_by(look) {
                socket.end(ending);
            }
        }
    }

    /// Adds its figures to the metrics page.
    #[allow(clippy::cast_precision_loss)] // counts far from 2^53
    pub fn register(self: &Arc<Self>, metrics: &Metrics) {
        let sockets = Arc::downgrade(self);
        metrics.register("wxgate_open_sockets", "gauge", "Open sockets, by route.", move || {
            let mut routes: HashMap<String, usize> = HashMap::new();
            if let Some(sockets) = sockets.upgrade() {
                for socket in sockets.open().sockets.values().filter(|socket| socket.switched) {
                    *routes.entry(socket.tenant.route.policy.path.text.clone()).or_default() += 1;
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
        if let Some(caller) = &socket.tenant.caller
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
