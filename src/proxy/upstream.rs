//! A named set of backends, and the choice among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

use super::backend::{Backend, Backends};
use super::balance::{p2c, rendezvous, round_robin};
use super::health::Probe;
use super::retry::Budget;
use crate::config::section::{self, Balance};

/// An upstream as one configuration describes it. It is replaced by a reload; its backends are not.
#[derive(Debug)]
pub struct Upstream {
    name: String,
    backends: Box<[Arc<Backend>]>,
    /// One for each backend, or none at all.
    probes: Box<[Arc<Probe>]>,
    budget: Arc<Budget>,
    balance: Balance,
    connect_timeout: Duration,
    /// Counts choices: the turn of round robin, and the seed of the next draw.
    turn: AtomicU64,
}

impl Upstream {
    /// The upstream of this section, with backends out of `backends`. With health checks it needs a runtime, on which they
    /// run for as long as the upstream, or another that asks the same, is there.
    pub fn new(section: &section::Upstream, backends: &Backends) -> Arc<Self> {
        let own: Box<[Arc<Backend>]> = section.servers.iter().map(|server| backends.get(server)).collect();
        let probe = |health| own.iter().map(|backend| backends.probe(backend, health)).collect();
        Arc::new(Self {
            name: section.name.clone(),
            probes: section.health.as_ref().map(probe).unwrap_or_default(),
            backends: own,
            budget: backends.budget(&section.name),
            balance: section.balance,
            connect_timeout: section.connect_timeout,
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
    pub fn speaks_http2(&self) -> bool {
        self.backends.iter().any(|backend| backend.speaks_http2())
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
        let all = self.backends.len();
        let up = (0..all).filter(|&index| self.is_up(index)).count();
        // Half of them or more are out: more likely it is us, or what all of them need. Nobody is left out then.
        if up == all || up * 2 <= all {
            let n = all - usize::from(excluded.is_some());
            // Chosen among n places, of which those from the excluded one on stand for their right neighbour.
            return self.pick(affinity, n, |i| if excluded.is_some_and(|excluded| i >= excluded) { i + 1 } else { i });
        }
        let others = |index: &usize| Some(*index) != excluded;
        let mut open: SmallVec<[usize; 16]> = (0..all).filter(others).filter(|&index| self.is_up(index)).collect();
        if open.is_empty() {
            open.extend((0..all).filter(others));
        }
        self.pick(affinity, open.len(), |i| open[i])
    }

    /// One of `n` places.
    fn pick(&self, affinity: u64, n: usize, place: impl Fn(usize) -> usize) -> Option<usize> {
        if n < 2 {
            return (n == 1).then(|| place(0));
        }
        let hashed = matches!(self.balance, Balance::HashOpenid | Balance::HashIp) && affinity != 0;
        if hashed {
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
    use super::*;

    fn upstream(balance: Balance, n: u16) -> Arc<Upstream> {
        let server = |port| {
            let authority = format!("127.0.0.1:{port}").parse().unwrap();
            section::Backend { authority, host: "127.0.0.1".to_owned(), port, transport: None }
        };
        let section = section::Upstream {
            name: "shop".to_owned(),
            servers: (1..=n).map(server).collect(),
            balance,
            connect_timeout: Duration::from_secs(1),
            health: None,
        };
        Upstream::new(&section, &Backends::new())
    }

    #[test]
    fn the_excluded_backend_is_never_chosen_and_every_other_can_be() {
        for balance in [Balance::RoundRobin, Balance::P2c, Balance::HashIp, Balance::HashOpenid] {
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

    fn eject(upstream: &Upstream, index: usize) {
        while !upstream.backends()[index].is_ejected() {
            upstream.backends()[index].failed();
        }
    }

    #[test]
    fn an_ejected_backend_is_left_out_until_half_of_them_are() {
        for balance in [Balance::RoundRobin, Balance::P2c, Balance::HashIp, Balance::HashOpenid] {
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
