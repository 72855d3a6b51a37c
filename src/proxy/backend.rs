//! One server of an upstream: its identity, its addresses, its counts.
//!
//! A backend outlives a reload: [`Backends`] gives the same one for the same host and port, so that idle connections and
//! counts stay with it. Balancing is in `upstream`, connecting in `connection`.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::uri::Authority;
use tokio::time::Instant;

use super::balance::mix;
use super::circuit::Circuit;
use super::health::{self, Change, Probe, Standing};
use super::queue::Line;
use super::retry::Budget;
use super::roster::Verdicts;
use crate::config::section::{self, Transport};

/// How long a resolved name is used without asking again: many connects at once ask once, and a moved server is found
/// within a few seconds.
const FRESH: Duration = Duration::from_secs(5);

/// Every backend in use, by address. The composition root keeps one for the life of the process.
#[derive(Debug, Default)]
pub struct Backends {
    /// Locked only while a configuration is built, never by a request.
    known: Mutex<Known>,
    verdicts: Arc<Verdicts>,
}

/// What makes two servers one: host, port, and how they are spoken to.
type Address = (String, u16, Option<Arc<Transport>>);

#[derive(Debug, Default)]
struct Known {
    by_address: HashMap<Address, Weak<Backend>>,
    /// By [`Backend::slot`] and what is asked.
    probes: HashMap<(usize, section::Health), Weak<Probe>>,
    /// By the upstream's name.
    budgets: HashMap<String, Weak<Budget>>,
    lines: HashMap<String, Weak<Line>>,
    circuits: HashMap<String, Weak<Circuit>>,
    next: usize,
}

impl Backends {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The backend of this address: the one in use if there is one.
    pub fn get(&self, section: &section::Backend) -> Arc<Backend> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_address.retain(|_, backend| backend.strong_count() > 0);
        // One that is spoken to in another way is another one: their connections are not for each other's requests.
        let address = (section.host.to_ascii_lowercase(), section.port, section.transport.clone());
        if let Some(backend) = known.by_address.get(&address).and_then(Weak::upgrade) {
            return backend;
        }
        let backend = Arc::new(Backend::new(section, known.next, self.verdicts()));
        known.next += 1;
        known.by_address.insert(address, Arc::downgrade(&backend));
        backend
    }

    /// How often one of them came to be thought of otherwise.
    pub(super) fn verdicts(&self) -> Arc<Verdicts> {
        Arc::clone(&self.verdicts)
    }

    /// The retry budget of this upstream: the one in use if there is one.
    pub(super) fn budget(&self, upstream: &str) -> Arc<Budget> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        of_name(&mut known.budgets, upstream)
    }

    /// Its line of waiting requests, and its circuit, likewise.
    pub(super) fn limits(&self, upstream: &str) -> (Arc<Line>, Arc<Circuit>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let line = of_name(&mut known.lines, upstream);
        (line, of_name(&mut known.circuits, upstream))
    }

    /// The probe of this backend by this section: the one that runs if there is one. A new one needs a runtime.
    pub(super) fn probe(&self, backend: &Arc<Backend>, section: &section::Health) -> Arc<Probe> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.probes.retain(|_, probe| probe.strong_count() > 0);
        let name = (backend.slot(), section.clone());
        if let Some(probe) = known.probes.get(&name).and_then(Weak::upgrade) {
            return probe;
        }
        let probe = Probe::start(backend, section);
        known.probes.insert(name, Arc::downgrade(&probe));
        probe
    }
}

/// What belongs to this name: the one in use if there is one.
fn of_name<T: Default>(known: &mut HashMap<String, Weak<T>>, name: &str) -> Arc<T> {
    known.retain(|_, item| item.strong_count() > 0);
    if let Some(item) = known.get(name).and_then(Weak::upgrade) {
        return item;
    }
    let item = Arc::<T>::default();
    known.insert(name.to_owned(), Arc::downgrade(&item));
    item
}

/// One server.
#[derive(Debug)]
pub struct Backend {
    authority: Authority,
    host: String,
    port: u16,
    slot: usize,
    identity: u64,
    transport: Option<Arc<Transport>>,
    resolved: Resolved,
    pub(super) counts: Counts,
    standing: Standing,
    verdicts: Arc<Verdicts>,
    /// When it became known, milliseconds of this process.
    known_since: u64,
}

#[derive(Debug)]
enum Resolved {
    /// The host is an address.
    Literal(SocketAddr),
    /// What the name last resolved to, and when. Locked for a copy, by connects only.
    Name {
        /// The answer.
        known: Mutex<Option<(Instant, Arc<[SocketAddr]>)>>,
        /// Held by the one that asks; the others wait for its answer.
        asking: tokio::sync::Mutex<()>,
    },
}

impl Backend {
    fn new(section: &section::Backend, slot: usize, verdicts: Arc<Verdicts>) -> Self {
        let resolved = match section.host.parse::<IpAddr>() {
            Ok(ip) => Resolved::Literal(SocketAddr::new(ip, section.port)),
            Err(_) => Resolved::Name { known: Mutex::new(None), asking: tokio::sync::Mutex::new(()) },
        };
        let host = section.host.to_ascii_lowercase();
        let identity = identity(&host, section.port);
        let authority = section.authority.clone();
        let (counts, standing, known_since) = (Counts::default(), Standing::default(), health::now());
        let transport = section.transport.clone();
        let port = section.port;
        Self { authority, host, port, slot, identity, transport, resolved, counts, standing, verdicts, known_since }
    }

    /// Host and port as the configuration writes them.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Its host: a name, or an address.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// How it is spoken to; `None` is plain HTTP/1.1.
    pub(super) fn transport(&self) -> Option<&Transport> {
        self.transport.as_deref()
    }

    /// Whether it speaks HTTP/2.
    pub fn speaks_http2(&self) -> bool {
        self.transport.as_ref().is_some_and(|transport| transport.http2)
    }

    /// Whether it is reached by TLS.
    pub(super) fn is_https(&self) -> bool {
        self.transport.as_ref().is_some_and(|transport| transport.tls.is_some())
    }

    /// What it has done so far, for metrics.
    pub fn counters(&self) -> Counters {
        Counters {
            in_flight: self.counts.in_flight.load(Ordering::Relaxed),
            requests: self.counts.requests.load(Ordering::Relaxed),
            failures: self.counts.failures.load(Ordering::Relaxed),
            connects: self.counts.connects.load(Ordering::Relaxed),
            ejections: self.standing.ejections.load(Ordering::Relaxed),
        }
    }

    /// Whether it is known by a name, which may come to mean other addresses.
    pub(super) const fn is_named(&self) -> bool {
        matches!(self.resolved, Resolved::Name { .. })
    }

    /// Whether its failures have it ejected at present.
    pub(super) fn is_ejected(&self) -> bool {
        self.standing.is_out(health::now)
    }

    /// When its present ejection ends, milliseconds of this process; 0 when it is not ejected at `now`.
    pub(super) fn ejected_until(&self, now: u64) -> u64 {
        self.standing.out_until(now)
    }

    /// To be told when what is thought of it has changed.
    pub(super) fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Since when it has been there: known, and back from its last ejection.
    pub(super) fn since(&self) -> u64 {
        self.known_since.max(self.standing.returned())
    }

    /// It failed, or answered badly.
    pub(super) fn failed(&self) {
        if let Change::Ejected(span) = self.standing.bad(health::now()) {
            self.verdicts.changed();
            let (backend, secs) = (&self.authority, span.as_secs());
            tracing::warn!(%backend, secs, "backend ejected: it failed several times in a row");
        }
    }

    /// It answered well.
    pub(super) fn answered(&self) {
        if self.standing.good(health::now) == Change::Back {
            tracing::info!(backend = %self.authority, "backend is back: it answers again");
        }
    }

    /// Its place in a pool: small, and never given to another address.
    pub(super) const fn slot(&self) -> usize {
        self.slot
    }

    /// A number made of its address alone, the same on every instance.
    pub(super) const fn identity(&self) -> u64 {
        self.identity
    }

    /// Its addresses, in the order to be tried; at least one. A name that no longer resolves keeps its last addresses: a
    /// failing resolver is more likely than a server that went away.
    ///
    /// # Errors
    /// When the name does not resolve and never has.
    pub(super) async fn addresses(&self) -> io::Result<Addresses> {
        let (known, asking) = match &self.resolved {
            Resolved::Literal(address) => return Ok(Addresses::One([*address])),
            Resolved::Name { known, asking } => (known, asking),
        };
        let read = || known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_fresh = |at: &Instant| at.elapsed() < FRESH;
        if let Some((_, addresses)) = read().filter(|(at, _)| is_fresh(at)) {
            return Ok(Addresses::Many(addresses));
        }
        let _one_at_a_time = asking.lock().await;
        let last = read();
        if let Some((_, addresses)) = last.clone().filter(|(at, _)| is_fresh(at)) {
            return Ok(Addresses::Many(addresses));
        }
        match lookup(&self.host, self.port).await {
            Ok(addresses) => {
                *known.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), Arc::clone(&addresses)));
                Ok(Addresses::Many(addresses))
            }
            Err(error) => last.map(|(_, addresses)| Addresses::Many(addresses)).ok_or(error),
        }
    }
}

async fn lookup(host: &str, port: u16) -> io::Result<Arc<[SocketAddr]>> {
    let found: Arc<[SocketAddr]> = tokio::net::lookup_host((host, port)).await?.collect();
    if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
}

/// The addresses of a backend.
pub(super) enum Addresses {
    One([SocketAddr; 1]),
    Many(Arc<[SocketAddr]>),
}

impl Addresses {
    pub(super) fn as_slice(&self) -> &[SocketAddr] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

/// FNV-1a over host and port, mixed: stable across versions, unlike the standard hashers.
fn identity(host: &str, port: u16) -> u64 {
    let bytes = host.bytes().chain(port.to_be_bytes());
    mix(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// The running counts of a backend, shared by all workers. On a cache line of their own, so that counting does not slow
/// down readers of the fields beside them.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Counts {
    pub(super) in_flight: AtomicUsize,
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) connects: AtomicU64,
}

/// What a backend has done since it became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Requests whose answer has not ended yet.
    pub in_flight: usize,
    /// Attempts; a request that was sent twice counts twice.
    pub requests: u64,
    /// Attempts that failed by the upstream's fault, answers that broke off included.
    pub failures: u64,
    /// Connections opened.
    pub connects: u64,
    /// How often it was left out of the choice because it had failed several times in a row.
    pub ejections: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(host: &str, port: u16) -> section::Backend {
        let authority = format!("{host}:{port}").parse().unwrap();
        section::Backend { authority, host: host.to_owned(), port, transport: None }
    }

    #[test]
    fn the_same_address_is_the_same_backend_for_as_long_as_somebody_holds_it() {
        let backends = Backends::new();
        let one = backends.get(&section("Shop.internal", 80));
        let same = backends.get(&section("shop.internal", 80));
        let other = backends.get(&section("shop.internal", 81));
        assert!(Arc::ptr_eq(&one, &same));
        assert!(!Arc::ptr_eq(&one, &other));
        let slot = one.slot();
        drop((one, same));
        assert_ne!(backends.get(&section("shop.internal", 80)).slot(), slot);
    }

    #[tokio::test]
    async fn a_name_is_resolved_anew_after_a_while_and_what_has_moved_is_found() {
        let backend = Backend::new(&section("localhost", 80), 0, Arc::default());
        let elsewhere: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let Resolved::Name { known: cell, .. } = &backend.resolved else { panic!("a name") };
        *cell.lock().unwrap() = Some((Instant::now(), Arc::from([elsewhere])));
        assert_eq!(backend.addresses().await.unwrap().as_slice(), [elsewhere]);
        let long_ago = Instant::now().checked_sub(FRESH * 2).unwrap();
        *cell.lock().unwrap() = Some((long_ago, Arc::from([elsewhere])));
        assert!(backend.addresses().await.unwrap().as_slice().iter().all(|found| found.ip().is_loopback()));
    }

    #[tokio::test]
    async fn a_name_that_stops_resolving_keeps_its_last_addresses() {
        let backend = Backend::new(&section("no-such-host.invalid", 80), 0, Arc::default());
        assert!(backend.addresses().await.is_err());
        let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let Resolved::Name { known: cell, .. } = &backend.resolved else { panic!("a name") };
        let long_ago = Instant::now().checked_sub(FRESH * 2).unwrap();
        *cell.lock().unwrap() = Some((long_ago, Arc::from([address])));
        assert_eq!(backend.addresses().await.unwrap().as_slice(), [address]);
    }
}
