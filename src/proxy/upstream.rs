//! A named set of backends, and the choice among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::backend::{Backend, Backends};
use super::balance::{p2c, rendezvous, round_robin};
use crate::config::section::{self, Balance};

/// An upstream as one configuration describes it. It is replaced by a reload; its backends are not.
#[derive(Debug)]
pub struct Upstream {
    name: String,
    backends: Box<[Arc<Backend>]>,
    balance: Balance,
    connect_timeout: Duration,
    /// Counts choices: the turn of round robin, and the seed of the next draw.
    turn: AtomicU64,
}

impl Upstream {
    /// The upstream of this section, with backends out of `backends`.
    pub fn new(section: &section::Upstream, backends: &Backends) -> Arc<Self> {
        Arc::new(Self {
            name: section.name.clone(),
            backends: section.servers.iter().map(|server| backends.get(server)).collect(),
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

    /// How it chooses, which tells what an affinity is to be made of.
    pub const fn balance(&self) -> Balance {
        self.balance
    }

    pub(super) const fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// The index of a backend for a request with this affinity (0: none), other than `excluded`; `None` when no other is
    /// left.
    pub(super) fn choose(&self, affinity: u64, excluded: Option<usize>) -> Option<usize> {
        let n = self.backends.len() - usize::from(excluded.is_some());
        // Chosen among n places, of which those from the excluded one on stand for their right neighbour.
        let place = |i: usize| if excluded.is_some_and(|excluded| i >= excluded) { i + 1 } else { i };
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
            section::Backend { authority, host: "127.0.0.1".to_owned(), port }
        };
        let section = section::Upstream {
            name: "shop".to_owned(),
            servers: (1..=n).map(server).collect(),
            balance,
            connect_timeout: Duration::from_secs(1),
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
}
