//! How many requests of a route, and of one member on it, are under way: concurrency limits.
//!
//! A rate says how often somebody may ask; this says how much may be going on at once, which is what a slow service dies
//! of. Sockets and streams count for as long as they are open. Counted for the whole process; only where a route has a
//! limit.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hash};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use foldhash::quality::RandomState;

use crate::metrics::{Metrics, label};
use crate::problem::{Code, Problem};

/// Locks that the members of a route are spread over.
const SHARDS: usize = 16;

/// The counts of all routes that have a limit, by [`crate::config::Route::label`]; they outlive a reload.
#[derive(Debug, Default)]
pub struct Tables(Mutex<BTreeMap<String, Weak<Table>>>);

/// The counts of one route.
#[derive(Debug, Default)]
pub struct Table {
    all: AtomicUsize,
    /// By keyed hash; who has nothing under way is not there, so it is never larger than `all`.
    members: [Mutex<HashMap<u64, usize>>; SHARDS],
    hasher: RandomState,
    /// Refused, for the route and for one member.
    refused: [AtomicU64; 2],
}

/// One request under way; counted out when it is dropped.
#[derive(Debug)]
pub struct Held {
    table: Arc<Table>,
    member: Option<u64>,
}

/// What is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The route.
    Route,
    /// What this member may have.
    Member,
}

impl From<Full> for Problem {
    fn from(full: Full) -> Self {
        match full {
            Full::Route => {
                Self::new(Code::Overloaded, "This route has as much to do as it may: try again in a moment.")
            }
            Full::Member => Self::new(Code::RateLimited, "Too many requests at once: wait for the answers to some."),
        }
    }
}

impl Tables {
    /// The counts of this route: those in use if there are some.
    pub fn get(&self, route: &str) -> Arc<Table> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|_, table| table.strong_count() > 0);
        if let Some(table) = tables.get(route).and_then(Weak::upgrade) {
            return table;
        }
        let table = Arc::<Table>::default();
        tables.insert(route.to_owned(), Arc::downgrade(&table));
        table
    }

    fn list(&self) -> Vec<(String, Arc<Table>)> {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.iter().filter_map(|(route, table)| Some((route.clone(), table.upgrade()?))).collect()
    }

    /// Adds the figures to the metrics page.
    #[allow(clippy::cast_precision_loss)] // counts far from 2^53
    pub fn register(self: &Arc<Self>, metrics: &Metrics) {
        let tables = Arc::clone(self);
        let help = "Requests under way on routes with max_in_flight.";
        metrics.register("wxgate_route_in_flight", "gauge", help, move || {
            let line = |(route, table): (String, Arc<Table>)| {
                (format!("{{route={}}}", label(&route)), table.all.load(Ordering::Relaxed) as f64)
            };
            tables.list().into_iter().map(line).collect()
        });
        let tables = Arc::clone(self);
        let help = "Requests refused because too many were under way, on the route or of one member.";
        metrics.register("wxgate_in_flight_refused_total", "counter", help, move || {
            let lines = |(route, table): (String, Arc<Table>)| {
                [("route", 0), ("member", 1)].map(|(by, n)| {
                    let refused = table.refused[n].load(Ordering::Relaxed) as f64;
                    (format!("{{route={},by=\"{by}\"}}", label(&route)), refused)
                })
            };
            tables.list().into_iter().flat_map(lines).collect()
        });
    }
}

impl Table {
    /// Counts one request in; `per_member` is for whom, and how many that one may have.
    ///
    /// # Errors
    /// When there are as many as there may be; it is not counted then.
    pub fn enter<K: Hash>(
        self: &Arc<Self>,
        most: Option<NonZeroUsize>,
        per_member: Option<(K, NonZeroUsize)>,
    ) -> Result<Held, Full> {
        let most = most.map_or(usize::MAX, NonZeroUsize::get);
        let one_more = |n: usize| (n < most).then_some(n + 1);
        if self.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            self.refused[0].fetch_add(1, Ordering::Relaxed);
            return Err(Full::Route);
        }
        // From here on it is counted out, whatever happens.
        let mut held = Held { table: Arc::clone(self), member: None };
        if let Some((key, most)) = per_member {
            let key = self.hasher.hash_one(key);
            let mut members = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
            let count = members.entry(key).or_default();
            if *count >= most.get() {
                drop(members);
                self.refused[1].fetch_add(1, Ordering::Relaxed);
                return Err(Full::Member);
            }
            *count += 1;
            held.member = Some(key);
        }
        Ok(held)
    }

    fn shard(&self, key: u64) -> &Mutex<HashMap<u64, usize>> {
        &self.members[key as usize % SHARDS]
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.table.all.fetch_sub(1, Ordering::Relaxed);
        let Some(key) = self.member else { return };
        let mut members = self.table.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = members.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                members.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn most(n: usize) -> Option<NonZeroUsize> {
        NonZeroUsize::new(n)
    }

    #[test]
    fn a_route_has_so_many_and_a_member_so_many_of_them() {
        let table = Arc::<Table>::default();
        let enter = |who: &'static str| table.enter(most(3), most(2).map(|most| (who, most)));
        let first = enter("alice").unwrap();
        let second = enter("alice").unwrap();
        assert_eq!(enter("alice").unwrap_err(), Full::Member);
        let _third = enter("bob").unwrap();
        assert_eq!(enter("carol").unwrap_err(), Full::Route);
        drop((first, second));
        let held = [enter("alice").unwrap(), enter("alice").unwrap()];
        drop(held);
        assert_eq!(table.all.load(Ordering::Relaxed), 1);
        assert_eq!(table.members.iter().map(|shard| shard.lock().unwrap().len()).sum::<usize>(), 1, "bob's alone");
    }

    #[test]
    fn counts_go_on_over_a_reload() {
        let tables = Tables::default();
        let before = tables.get("/a");
        let held = before.enter(most(1), None::<((), _)>).unwrap();
        let after = tables.get("/a");
        drop(before);
        assert!(after.enter(most(1), None::<((), _)>).is_err());
        drop(held);
        assert!(after.enter(most(1), None::<((), _)>).is_ok());
    }
}
