//! A named set of backends, and the choice among them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

use super::admission::Admission;
use super::backend::{Backend, Backends};
use super::balance::{p2c, rendezvous, round_robin};
use super::circuit::Circuit;
use super::health::{Probe, now};
use super::queue::{Line, QueueFigures};
use super::retry::Budget;
use super::roster::{Present, Roster};
use super::slow_start::ramp;
use super::weight;
use crate::config::section::{self, Balance};

/// Up to so many backends are asked one by one whether they are up: that is cheaper than to know it.
const FEW: usize = 16;

/// What each server takes of the requests.
#[derive(Debug)]
struct Shares {
    /// One for each backend; not zero.
    weights: Box<[u64]>,
    slow_start: Duration,
}

impl Shares {
    fn new(section: &section::Upstream) -> Option<Self> {
        let section::Capacity { weights, slow_start, .. } = &section.capacity;
        if weights.is_empty() && slow_start.is_zero() {
            return None;
        }
        let weight = |n| weights.get(n).map_or(1, |weight: &NonZeroU32| u64::from(weight.get()));
        Some(Self { weights: (0..section.servers.len()).map(weight).collect(), slow_start: *slow_start })
    }
}

/// An upstream as one configuration describes it. It is replaced by a reload; its backends are not.
#[derive(Debug)]
pub struct Upstream {
    name: String,
    backends: Box<[Arc<Backend>]>,
    /// One for each backend, or none at all.
    probes: Box<[Arc<Probe>]>,
    budget: Arc<Budget>,
    balance: Balance,
    http2: bool,
    connect_timeout: Duration,
    /// `None` where all servers always have the same share.
    shares: Option<Shares>,
    /// `None` without limits.
    admission: Option<Arc<Admission>>,
    line: Arc<Line>,
    circuit: Arc<Circuit>,
    roster: Roster,
    /// Counts choices: the turn of round robin, and the seed of the next draw.
    turn: AtomicU64,
}

impl Upstream {
    /// The upstream of this section, with backends out of `backends`. With health checks it needs a runtime, on which they
    /// run for as long as the upstream, or another that asks the same, is there.
    pub fn new(section: &section::Upstream, backends: &Backends) -> Arc<Self> {
        let own: Box<[Arc<Backend>]> = section.servers.iter().map(|server| backends.get(server)).collect();
        let (line, circuit) = backends.limits(&section.name);
        let probe = |health| own.iter().map(|backend| backends.probe(backend, health)).collect();
        Arc::new(Self {
            name: section.name.clone(),
            probes: section.health.as_ref().map(probe).unwrap_or_default(),
            http2: own.iter().any(|backend| backend.speaks_http2()),
            backends: own,
            budget: backends.budget(&section.name),
            balance: section.balance,
            connect_timeout: section.connect_timeout,
            shares: Shares::new(section),
            admission: Admission::new(&section.capacity, &line, &circuit),
            line,
            circuit,
            roster: Roster::new(backends.verdicts()),
            turn: AtomicU64::new(0),
        })
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its servers, as configured.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// Whether its servers speak HTTP/2.
    pub const fn speaks_http2(&self) -> bool {
        self.http2
    }

    /// How it chooses, which tells what an affinity is to be made of.
    pub const fn balance(&self) -> Balance {
        self.balance
    }

    pub(super) const fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What lets requests in, where there are limits.
    pub(super) fn admission(&self) -> Option<&Arc<Admission>> {
        self.admission.as_ref()
    }

    /// What its queue has done.
    pub fn queue(&self) -> QueueFigures {
        self.line.figures()
    }

    /// Whether its circuit is open, how often it was opened, and how many requests its breaker has refused.
    pub fn circuit(&self) -> (bool, u64, u64) {
        self.circuit.figures()
    }

    /// Retries so far, and those that were not made because there were too many.
    pub fn retries(&self) -> (u64, u64) {
        self.budget.figures()
    }

    /// Whether the `index`-th backend is in the choice: its probes pass, and its failures have not ejected it.
    pub fn is_up(&self, index: usize) -> bool {
        self.probes.get(index).is_none_or(|probe| probe.is_up()) && !self.backends[index].is_ejected()
    }

    /// The index of a backend for a request with this affinity (0: none), other than `excluded`; `None` when no other is
    /// left.
    pub(super) fn choose(&self, affinity: u64, excluded: Option<usize>) -> Option<usize> {
        if let Some(shares) = &self.shares {
            return self.choose_by_share(shares, affinity, excluded);
        }
        let all = self.backends.len();
        if all <= FEW {
            let up: SmallVec<[usize; FEW]> = (0..all).filter(|&index| self.is_up(index)).collect();
            return self.choose_among(&up, affinity, excluded);
        }
        self.choose_among(self.roster.current(now, || self.present()).up(), affinity, excluded)
    }

    /// Asks every backend.
    fn present(&self) -> Present {
        let now = now();
        let ends = self.backends.iter().map(|backend| backend.ejected_until(now)).filter(|until| *until != 0);
        let until = ends.min().unwrap_or(0);
        Present { up: (0..self.backends.len()).filter(|&index| self.is_up(index)).collect(), until }
    }

    /// As [`Self::choose`], where these are up, in ascending order.
    fn choose_among(&self, up: &[usize], affinity: u64, excluded: Option<usize>) -> Option<usize> {
        let all = self.backends.len();
        // Half of them or more are out: more likely it is us, or what all of them need. Nobody is left out then.
        let everybody = up.len() == all || up.len() * 2 <= all;
        let left_out = if everybody { excluded } else { excluded.and_then(|index| up.binary_search(&index).ok()) };
        let n = if everybody { all } else { up.len() } - usize::from(left_out.is_some());
        // Chosen among n places, of which those from the one that is left out on stand for their right neighbour.
        self.pick(affinity, n, |i| {
            let i = if left_out.is_some_and(|left_out| i >= left_out) { i + 1 } else { i };
            if everybody { i } else { up[i] }
        })
    }

    /// As [`Self::choose`], where servers have shares of their own.
    fn choose_by_share(&self, shares: &Shares, affinity: u64, excluded: Option<usize>) -> Option<usize> {
        let all = self.backends.len();
        let others = || (0..all).filter(|index| Some(*index) != excluded);
        let mut open: SmallVec<[usize; 16]> = others().filter(|&index| self.is_up(index)).collect();
        let up = open.len() + usize::from(excluded.is_some_and(|excluded| self.is_up(excluded)));
        if up * 2 <= all || open.is_empty() {
            open = others().collect();
        }
        if open.len() < 2 {
            return open.first().copied();
        }
        let steady = shares.slow_start.is_zero();
        let now = if steady { 0 } else { now() };
        let share = |index: usize| {
            if steady {
                return shares.weights[index];
            }
            let since = self.backends[index].since().max(self.probes.get(index).map_or(0, |probe| probe.since()));
            shares.weights[index] * ramp(since, now, shares.slow_start)
        };
        let taken: SmallVec<[u64; 16]> = open.iter().map(|&index| share(index)).collect();
        if self.is_hashed(affinity) {
            return Some(open[weight::rendezvous(&taken, affinity, |n| self.backends[open[n]].identity())]);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Some(
            open[match self.balance {
                Balance::RoundRobin => weight::in_turn(&taken, turn),
                Balance::P2c | Balance::HashOpenid | Balance::HashIp => {
                    weight::p2c(&taken, turn, |n| self.backends[open[n]].counts.in_flight.load(Ordering::Relaxed))
                }
            }],
        )
    }

    /// Whether the caller decides, and not the load.
    fn is_hashed(&self, affinity: u64) -> bool {
        matches!(self.balance, Balance::HashOpenid | Balance::HashIp) && affinity != 0
    }

    /// One of `n` places.
    fn pick(&self, affinity: u64, n: usize, place: impl Fn(usize) -> usize) -> Option<usize> {
        if n < 2 {
            return (n == 1).then(|| place(0));
        }
        if self.is_hashed(affinity) {
            return Some(place(rendezvous(n, affinity, |i| self.backends[place(i)].identity())));
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Some(place(match self.balance {
            Balance::RoundRobin => round_robin(n, turn),
            Balance::P2c | Balance::HashOpenid | Balance::HashIp => {
                p2c(n, turn, |i| self.backends[place(i)].counts.in_flight.load(Ordering::Relaxed))
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn upstream(balance: Balance, n: u16) -> Arc<Upstream> {
        upstream_with(balance, n, |_| {})
    }

    fn upstream_with(balance: Balance, n: u16, change: impl FnOnce(&mut section::Upstream)) -> Arc<Upstream> {
        let server = |port| {
            let authority = format!("127.0.0.1:{port}").parse().unwrap();
            section::Backend { authority, host: "127.0.0.1".to_owned(), port, transport: None }
        };
        let mut section = section::Upstream {
            name: "shop".to_owned(),
            servers: (1..=n).map(server).collect(),
            balance,
            connect_timeout: Duration::from_secs(1),
            health: None,
            capacity: section::Capacity::default(),
        };
        change(&mut section);
        Upstream::new(&section, &Backends::new())
    }

    #[test]
    fn the_excluded_backend_is_never_chosen_and_every_other_can_be() {
        for balance in ALL {
            let upstream = upstream(balance, 4);
            for excluded in 0..4 {
                let mut seen = [false; 4];
                for affinity in 0..200 {
                    seen[upstream.choose(affinity, Some(excluded)).unwrap()] = true;
                }
                let wanted: Vec<bool> = (0..4).map(|i| i != excluded).collect();
                assert_eq!(seen.to_vec(), wanted, "{balance:?}");
            }
        }
    }

    #[test]
    fn a_single_backend_has_no_alternative() {
        let upstream = upstream(Balance::P2c, 1);
        assert_eq!((upstream.choose(0, None), upstream.choose(0, Some(0))), (Some(0), None));
    }

    #[test]
    fn a_caller_stays_with_its_backend() {
        let upstream = upstream(Balance::HashOpenid, 5);
        for affinity in 1..50 {
            let first = upstream.choose(affinity, None);
            assert!((0..5).all(|_| upstream.choose(affinity, None) == first));
        }
    }

    #[test]
    fn the_less_loaded_of_two_backends_is_preferred() {
        let upstream = upstream(Balance::P2c, 2);
        upstream.backends()[0].counts.in_flight.store(3, Ordering::Relaxed);
        assert!((0..50).all(|_| upstream.choose(0, None) == Some(1)));
    }

    fn weighted(balance: Balance) -> Arc<Upstream> {
        upstream_with(balance, 3, |section| {
            section.capacity.weights = [1, 2, 5].into_iter().filter_map(NonZeroU32::new).collect();
        })
    }

    const ALL: [Balance; 4] = [Balance::RoundRobin, Balance::P2c, Balance::HashIp, Balance::HashOpenid];

    #[test]
    fn every_balance_honours_weights() {
        for balance in ALL {
            let upstream = weighted(balance);
            let mut count = [0u32; 3];
            for affinity in 1..=8000 {
                let index = upstream.choose(affinity, None).unwrap();
                count[index] += 1;
                // Work that never ends, so that the less loaded one is the one with less for its share.
                upstream.backends()[index].counts.in_flight.fetch_add(1, Ordering::Relaxed);
            }
            for (got, due) in count.into_iter().zip([1000, 2000, 5000]) {
                assert!(u32::abs_diff(got, due) <= 200, "{balance:?}: {count:?}");
            }
        }
    }

    #[test]
    fn a_weight_does_not_bring_back_who_is_out_or_excluded() {
        for balance in ALL {
            let upstream = weighted(balance);
            eject(&upstream, 2);
            for affinity in 1..200 {
                assert!(upstream.choose(affinity, None).unwrap() != 2, "{balance:?}");
                assert_eq!(upstream.choose(affinity, Some(0)), Some(1), "{balance:?}");
            }
            eject(&upstream, 1);
            let all: BTreeSet<_> = (1..500).map(|a| upstream.choose(a, None).unwrap()).collect();
            assert_eq!(all.len(), 3, "{balance:?}: half are out, so all are asked");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_came_later_takes_its_share_little_by_little() {
        let backends = Backends::new();
        let server = |port: u16| {
            let authority = format!("127.0.0.1:{port}").parse().unwrap();
            section::Backend { authority, host: "127.0.0.1".to_owned(), port, transport: None }
        };
        let mut section = section::Upstream {
            name: "shop".to_owned(),
            servers: vec![server(1)],
            balance: Balance::RoundRobin,
            connect_timeout: Duration::from_secs(1),
            health: None,
            capacity: section::Capacity { slow_start: Duration::from_secs(3600), ..section::Capacity::default() },
        };
        let first = Upstream::new(&section, &backends);
        assert_eq!(first.choose(0, None), Some(0));
        tokio::time::advance(Duration::from_secs(3600)).await;
        section.servers.push(server(2));
        let both = Upstream::new(&section, &backends);
        let new = || (0..1100).filter(|_| both.choose(0, None) == Some(1)).count();
        assert!((90..=110).contains(&new()), "a tenth of a whole share beside a whole one: {}", new());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!((540..=560).contains(&new()), "the whole share: {}", new());
    }

    fn eject(upstream: &Upstream, index: usize) {
        while !upstream.backends()[index].is_ejected() {
            upstream.backends()[index].failed();
        }
    }

    #[test]
    fn an_ejected_backend_is_left_out_until_half_of_them_are() {
        for balance in ALL {
            let upstream = upstream(balance, 4);
            let seen = |excluded| {
                let mut seen = [false; 4];
                for affinity in 0..200 {
                    seen[upstream.choose(affinity, excluded).unwrap()] = true;
                }
                seen
            };
            eject(&upstream, 1);
            assert_eq!(seen(None), [true, false, true, true], "{balance:?}");
            assert_eq!(seen(Some(0)), [false, false, true, true], "{balance:?}");
            eject(&upstream, 2);
            assert_eq!(seen(None), [true; 4], "{balance:?}: half are out");
            assert_eq!(seen(Some(3)), [true, true, true, false], "{balance:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_backends_too_the_ejected_one_is_left_out_and_comes_back() {
        let many = FEW as u16 + 4;
        for balance in ALL {
            let upstream = upstream(balance, many);
            let seen = |excluded| (1..5000).map(|n| upstream.choose(n, excluded).unwrap()).collect::<BTreeSet<_>>();
            let others = |gone: &[usize]| (0..usize::from(many)).filter(|n| !gone.contains(n)).collect::<BTreeSet<_>>();
            assert_eq!(seen(None), others(&[]), "{balance:?}");
            eject(&upstream, 7);
            assert_eq!(seen(None), others(&[7]), "{balance:?}");
            assert_eq!(seen(Some(9)), others(&[7, 9]), "{balance:?}");
            assert_eq!(seen(Some(7)), others(&[7]), "{balance:?}");
            tokio::time::advance(Duration::from_secs(6)).await;
            assert_eq!(seen(None), others(&[]), "{balance:?}: its time is over");
            (0..usize::from(many) / 2).for_each(|n| eject(&upstream, n));
            assert_eq!(seen(None), others(&[]), "{balance:?}: half are out");
        }
    }

    #[test]
    fn only_the_callers_of_an_ejected_backend_move() {
        let upstream = upstream(Balance::HashOpenid, 5);
        let before: Vec<usize> = (1..200).map(|affinity| upstream.choose(affinity, None).unwrap()).collect();
        eject(&upstream, 3);
        for (affinity, before) in (1..200).zip(before) {
            let now = upstream.choose(affinity, None).unwrap();
            assert!(if before == 3 { now != 3 } else { now == before });
        }
    }

    #[test]
    fn a_single_backend_is_never_left_out() {
        let upstream = upstream(Balance::P2c, 1);
        eject(&upstream, 0);
        assert_eq!((upstream.choose(0, None), upstream.is_up(0)), (Some(0), false));
    }
}
