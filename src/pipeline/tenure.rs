//! How long something that was let in may stay: the rules for sockets and streams, which live longer than one look at a
//! token.
//!
//! A token is checked once per request, and a socket is one long request. So the rules that let it in are asked again here:
//! one task looks through all that is open when something was revoked, and twice a second for tokens that have expired; no
//! socket and no stream watches for itself. It may stay until the newest access token of its session ends that this
//! instance has minted or seen: a refresh prolongs it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::token::Claims;
use crate::token::renewal::{Notes, Renewals};
use crate::token::revocation::Revocations;
use crate::token::roles::Roles;
use crate::tunnel::Ending;

use super::Exchange;
use super::authorize::authorize;
use super::principal::Principal;
use super::route::Route;
use super::sockets::{Sockets, chosen};
use super::streams::Streams;

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
pub(super) const REVOKED: Ending = Ending { code: POLICY, reason: "token_revoked" };
/// The instance has been cut off from the others' news for too long to know.
const STALE: Ending = Ending { code: GOING_AWAY, reason: "store_unavailable" };
const FORBIDDEN: Ending = Ending { code: POLICY, reason: "forbidden" };
pub(super) const DRAINING: Ending = Ending { code: GOING_AWAY, reason: "draining" };
pub(super) const ROUTE_GONE: Ending = Ending { code: GOING_AWAY, reason: "route_removed" };

/// Who came in, and by which route.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) caller: Option<Arc<Principal>>,
    client: IpAddr,
    pub(super) route: Arc<Route>,
    /// When the newest known token of the session ends.
    until: Timestamp,
    /// The caller's roles of today, where they are not those of his token.
    roles: Option<Roles>,
}

impl Tenant {
    pub(super) fn new(exchange: &Exchange, route: &Arc<Route>) -> Self {
        let caller = exchange.principal.get().map(Arc::clone);
        let until = caller.as_ref().map_or(Timestamp::from_secs(0), |caller| caller.expires_at());
        Self { caller, client: exchange.client(), route: Arc::clone(route), until, roles: None }
    }

    /// Why these routes have no place for it; `None` when they have. `protocol`: of a socket.
    pub(super) fn refused_by(&self, routes: &[config::Route], protocol: Option<&HeaderValue>) -> Option<Ending> {
        let old = &self.route.policy;
        let same = |new: &&config::Route| new.path == old.path && new.hosts == old.hosts && new.methods == old.methods;
        let Some(new) = routes.iter().find(same) else { return Some(ROUTE_GONE) };
        if protocol.is_some_and(|protocol| chosen(&new.upgrade, protocol).is_none()) {
            return Some(ROUTE_GONE);
        }
        if !new.networks.admit(self.client) {
            return Some(FORBIDDEN);
        }
        self.is_forbidden(new).then_some(FORBIDDEN)
    }

    /// Whether `route` is not open to the caller.
    fn is_forbidden(&self, route: &config::Route) -> bool {
        let refuses = |claims: Option<&Claims>| authorize(route.auth, &route.roles, &route.apps, claims).is_err();
        let claims = self.caller.as_deref().map(|caller| &caller.claims);
        match (claims, &self.roles) {
            (Some(claims), Some(roles)) => refuses(Some(&Claims { roles: roles.to_vec(), ..claims.clone() })),
            _ => refuses(claims),
        }
    }

    /// Why its token is not good any more, or not for this route; `None` while it is, or when there is none.
    pub(super) fn expelled_by(&mut self, look: &Look<'_>) -> Option<Ending> {
        let caller = self.caller.as_deref()?;
        if let Some(until) = look.renewed.get(&caller.claims.session_id) {
            self.until = self.until.max(*until);
        }
        if look.revocations.is_revoked(&caller.claims) {
            return Some(REVOKED);
        }
        if look.revocations.freshness().is_stale() {
            return Some(STALE);
        }
        self.roles = look.revocations.roles().of(&caller.claims.member_id);
        if self.roles.is_some() && self.is_forbidden(&self.route.policy) {
            return Some(FORBIDDEN);
        }
        (self.until <= look.now).then_some(EXPIRED)
    }
}

/// What is known when all are looked through.
#[derive(Debug)]
pub(super) struct Look<'a> {
    now: Timestamp,
    revocations: &'a Revocations,
    renewed: &'a Notes,
}

/// Looks after sockets and streams for as long as both are there. Must be called on the runtime that shall do so.
pub fn watch(
    sockets: &Arc<Sockets>,
    streams: &Arc<Streams>,
    revocations: &Arc<Revocations>,
    renewals: &Arc<Renewals>,
    clock: &Clock,
) {
    let mut changes = revocations.changes();
    let (sockets, streams) = (Arc::downgrade(sockets), Arc::downgrade(streams));
    let (revocations, renewals, clock) = (Arc::clone(revocations), Arc::downgrade(renewals), clock.clone());
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
            let (Some(sockets), Some(streams)) = (sockets.upgrade(), streams.upgrade()) else { return };
            let renewed = renewals.upgrade().map(|renewals| renewals.take()).unwrap_or_default();
            let look = Look { now: clock.now(), revocations: &revocations, renewed: &renewed };
            sockets.sweep(&look);
            streams.sweep(&look);
        }
    });
}
