//! Too often → 429; too much at once → 429 or 503.
//!
//! The layer stands in the stack twice. Before authentication it counts by address and by route, so that a flood is
//! refused before it costs a signature; after it, by caller. The counting itself is [`crate::limiter`]; here stands what a
//! key is. `POST /auth/login` (and the login of the wafer2 SDK) by address is counted here too; by app it is counted where
//! the app is known, in the endpoint.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Method;
use tower::{Layer, Service};

use crate::clock::Clock;
use crate::config::{self, LimitBy, LimitScope};
use crate::limiter::shared::Named;
use crate::limiter::{CALLERS, FEW, Limit, Tables};
use crate::metrics::Shard;
use crate::problem::{Code, Problem};
use crate::token::Claims;

use super::in_flight;
use super::route::{Matched, Route};
use super::{Decided, Exchange, Request, Response, refuse};

/// Every limit of one configuration.
#[derive(Debug)]
pub struct Limits {
    /// In the order of the routes.
    pub routes: Vec<Option<Arc<Limit>>>,
    /// What is under way, in the order of the routes.
    pub in_flight: Vec<Option<Arc<in_flight::Table>>>,
    /// Of `POST /auth/login`.
    pub login: Option<Arc<Limit>>,
    /// Of the endpoints that decrypt, by member; counted there.
    pub decrypt: Arc<Limit>,
}

impl Limits {
    /// Of this configuration. A rule that was there before goes on with its table.
    pub fn new(config: &config::Config, tables: &Tables, under_way: &in_flight::Tables) -> Self {
        let routes = config.routes.iter().map(|route| Some(limit(route.label(), route.limit?, tables))).collect();
        let login = config.login.limit.map(|section| limit("login".to_owned(), section, tables));
        let decrypt = limit("login.decrypt".to_owned(), config.login.decrypt_limit, tables);
        let counted = |route: &config::Route| {
            let limited = route.max_in_flight.is_some() || route.max_in_flight_per_member.is_some();
            limited.then(|| under_way.get(&route.label()))
        };
        Self { routes, in_flight: config.routes.iter().map(counted).collect(), login, decrypt }
    }
}

fn limit(rule: String, section: config::Limit, tables: &Tables) -> Arc<Limit> {
    let by = section.by.name();
    let table = tables.get((rule, by), if section.by == LimitBy::Route { FEW } else { CALLERS });
    let limit = Limit::new(by, (section.rate.count, section.rate.per), section.burst, table);
    Arc::new(match section.scope {
        LimitScope::Local => limit,
        LimitScope::Shared => limit.shared(tables.told()),
    })
}

/// Whom a request is counted for.
#[derive(Debug, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    /// This address or, of version 6, its /64: one subscriber has as many addresses in it as he likes.
    Address(IpAddr),
    /// A person in one app.
    Person(&'a str, &'a str),
    /// A member.
    Member(&'a str),
    /// An app.
    App(&'a str),
    /// Everybody.
    Everybody,
}

impl<'a> Key<'a> {
    /// The key of a request. Where nobody is logged in, callers are told apart by address.
    pub fn of(by: LimitBy, caller: Option<&'a Claims>, address: IpAddr) -> Self {
        match (by, caller) {
            (LimitBy::Openid, Some(caller)) => Self::Person(caller.appid.as_str(), caller.openid.as_str()),
            (LimitBy::Member, Some(caller)) => Self::Member(caller.member_id.as_str()),
            (LimitBy::App, Some(caller)) => Self::App(caller.appid.as_str()),
            (LimitBy::Openid | LimitBy::Member | LimitBy::App, None) | (LimitBy::Ip, _) => Self::address(address),
            (LimitBy::Route, _) => Self::Everybody,
        }
    }

    fn address(address: IpAddr) -> Self {
        const SUBSCRIBER: u128 = !0 << 64;
        Self::Address(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & SUBSCRIBER)),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// The rule says of which kind all of its keys are, but that callers without a token are told apart by address.
impl Named for Key<'_> {
    fn name(&self, name: &mut Vec<u8>) {
        match self {
            Self::Address(IpAddr::V4(address)) => {
                name.push(4);
                name.extend_from_slice(&address.octets());
            }
            Self::Address(IpAddr::V6(address)) => {
                name.push(6);
                name.extend_from_slice(&address.octets());
            }
            Self::Person(appid, openid) => {
                name.push(b'p');
                name.extend_from_slice(appid.as_bytes());
                name.push(0);
                name.extend_from_slice(openid.as_bytes());
            }
            Self::Member(id) | Self::App(id) => {
                name.push(b'i');
                name.extend_from_slice(id.as_bytes());
            }
            Self::Everybody => {}
        }
    }
}

/// On which side of authentication a layer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// Makes [`LimitRate`].
#[derive(Debug, Clone)]
pub struct LimitLayer {
    side: Side,
    login: Option<LoginLimit>,
    clock: Clock,
    /// Before: where those are counted that are refused because they had to wait for too long.
    shed: Option<Arc<Shard>>,
}

/// The limit of logins by address.
#[derive(Debug, Clone)]
struct LoginLimit {
    limit: Arc<Limit>,
    /// Where logins are.
    path: Arc<str>,
    /// Where those of the wafer2 SDK are, if they are on.
    wafer2: Option<Arc<str>>,
}

impl LoginLimit {
    fn counts(&self, request: &Request) -> bool {
        let path = request.uri().path();
        (request.method() == Method::POST && path == &*self.path) || self.wafer2.as_deref() == Some(path)
    }
}

impl LimitLayer {
    /// The layer before authentication. `base` is where the endpoints stand.
    pub fn before(config: &config::Config, limits: &Limits, clock: Clock, shard: &Arc<Shard>) -> Self {
        let by_address = config.login.limit.is_some_and(|limit| limit.by == LimitBy::Ip);
        let path: Arc<str> = format!("{}/login", config.server.base).into();
        let wafer2 = config.login.wafer2.as_deref().map(Arc::from);
        let login = limits.login.clone().filter(|_| by_address).map(|limit| LoginLimit { limit, path, wafer2 });
        Self { side: Side::Before, login, clock, shed: Some(Arc::clone(shard)) }
    }

    /// The layer after it.
    pub fn after(clock: Clock) -> Self {
        Self { side: Side::After, login: None, clock, shed: None }
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = LimitRate<S>;

    fn layer(&self, inner: S) -> LimitRate<S> {
        LimitRate { inner, layer: self.clone() }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct LimitRate<S> {
    inner: S,
    layer: LimitLayer,
}

impl LimitLayer {
    fn decide(&self, request: &Request) -> Result<(), Problem> {
        let exchange = &request.exchange;
        match exchange.matched()? {
            Matched::Route(route) => self.route(route, exchange),
            Matched::Endpoint => match &self.login {
                Some(login) if login.counts(request) => {
                    Ok(login.limit.take_named(&Key::address(exchange.client()), self.clock.steady())?)
                }
                _ => Ok(()),
            },
            Matched::Health | Matched::Static(_) => Ok(()),
        }
    }

    fn route(&self, route: &Route, exchange: &Exchange) -> Result<(), Problem> {
        if exchange.overdue
            && let Some(shard) = &self.shed
        {
            shard.shed.inc();
            return Err(Problem::new(Code::Overloaded, "The gateway has too much to do: try again in a moment."));
        }
        self.rate(route, exchange)?;
        match &route.in_flight {
            Some(table) if self.side == Side::After => Self::under_way(table, route, exchange),
            _ => Ok(()),
        }
    }

    fn rate(&self, route: &Route, exchange: &Exchange) -> Result<(), Problem> {
        let (Some(limit), Some(section)) = (&route.limit, &route.policy.limit) else { return Ok(()) };
        if (self.side == Side::After) != section.by.needs_caller() {
            return Ok(());
        }
        let caller = exchange.principal.get().map(|principal| &principal.claims);
        Ok(limit.take_named(&Key::of(section.by, caller, exchange.client()), self.clock.steady())?)
    }

    fn under_way(table: &Arc<in_flight::Table>, route: &Route, exchange: &Exchange) -> Result<(), Problem> {
        let caller = exchange.principal.get().map(|principal| &principal.claims);
        let per_member = route.policy.max_in_flight_per_member;
        let per_member = per_member.map(|most| (Key::of(LimitBy::Member, caller, exchange.client()), most));
        let _ = exchange.held.set(table.enter(route.policy.max_in_flight, per_member)?);
        Ok(())
    }
}

impl<S> Service<Request> for LimitRate<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Decided<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.layer.decide(&request) {
            Ok(()) => Decided::passed(self.inner.call(request)),
            Err(problem) => refuse(&request, problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_without_a_token_are_told_apart_by_address_and_version_6_by_network() {
        let key = |by, address: &str| Key::of(by, None, address.parse().unwrap());
        for by in [LimitBy::Ip, LimitBy::Openid, LimitBy::Member, LimitBy::App] {
            for (one, other, same) in [
                ("1.2.3.4", "1.2.3.4", true),
                ("1.2.3.4", "1.2.3.5", false),
                ("1.2.3.4", "::ffff:1.2.3.4", true),
                ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
                ("2001:db8::1", "2001:db8:0:1::1", false),
            ] {
                assert_eq!(key(by, one) == key(by, other), same, "{one} {other}");
            }
        }
        assert_eq!(key(LimitBy::Route, "1.2.3.4"), key(LimitBy::Route, "::1"));
    }
}
