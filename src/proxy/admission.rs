//! Before an attempt, where an upstream has limits: is its circuit closed, has a server room, or the line.
//!
//! An upstream without `max_connections` and `breaker` has no admission, and pays nothing for this.

use std::sync::Arc;

use tokio::time::Instant;

use super::Error;
use super::backend::Backend;
use super::circuit::{Change, Circuit};
use super::health::now;
use super::pool::Pool;
use super::queue::{Line, Room};
use super::response_body::Hold;
use super::upstream::Upstream;
use crate::config::section::{Breaker, Capacity, Queue};

/// The limits of one upstream, as one configuration says them.
#[derive(Debug)]
pub(super) struct Admission {
    /// Requests that one server may have.
    most: usize,
    queue: Queue,
    line: Arc<Line>,
    breaker: Option<(Breaker, Arc<Circuit>)>,
}

impl Admission {
    /// `None` without limits.
    pub(super) fn new(section: &Capacity, line: &Arc<Line>, circuit: &Arc<Circuit>) -> Option<Arc<Self>> {
        let breaker = section.breaker.clone().map(|breaker| (breaker, Arc::clone(circuit)));
        if section.max_connections.is_none() && breaker.is_none() {
            return None;
        }
        let most = section.max_connections.map_or(usize::MAX, std::num::NonZeroUsize::get);
        Some(Arc::new(Self { most, queue: section.queue.clone(), line: Arc::clone(line), breaker }))
    }

    /// A hold on the server at `index`, or on another when that one has no room; and where that is.
    ///
    /// # Errors
    /// [`Error::CircuitOpen`], [`Error::TooManyRequests`], [`Error::QueueFull`], [`Error::QueueTimeout`].
    pub(super) async fn hold(
        self: &Arc<Self>,
        upstream: &Upstream,
        pool: &Arc<Pool>,
        index: usize,
        total: Option<Instant>,
    ) -> Result<(usize, Hold), Error> {
        let counted = self.count_in()?;
        let all = upstream.backends();
        let room = match self.find(upstream, index) {
            Some(room) => room,
            None => self.line.wait(all, self.most, &self.queue, total).await?,
        };
        let is_it = |backend: &Arc<Backend>| Arc::ptr_eq(backend, &room.backend);
        // One that waited since before a reload may be given a server that only the new configuration knows.
        let index = if is_it(&all[index]) { index } else { all.iter().position(is_it).unwrap_or(index) };
        Ok((index, Hold::admitted(pool, counted.into(room), self)))
    }

    fn count_in(&self) -> Result<Counted<'_>, Error> {
        let Some((breaker, circuit)) = &self.breaker else { return Ok(Counted(None)) };
        if breaker.failures.is_some() && !circuit.allows(now(), breaker.open) {
            return Err(Error::CircuitOpen(breaker.open));
        }
        if !circuit.enter(breaker.max_requests.map_or(usize::MAX, std::num::NonZeroUsize::get)) {
            return Err(Error::TooManyRequests);
        }
        Ok(Counted(Some(circuit)))
    }

    /// Room at once: at `index`, else at any other server that is in the choice.
    fn find(&self, upstream: &Upstream, index: usize) -> Option<Room> {
        if self.line.is_busy() {
            return None;
        }
        let all = upstream.backends();
        let take = |n: usize| Room::take(&all[n], self.most, &self.line);
        take(index).or_else(|| {
            let others = (1..all.len()).map(|step| (index + step) % all.len());
            others.filter(|n| upstream.is_up(*n)).find_map(take)
        })
    }

    /// The server's answer was good, or it has failed.
    pub(super) fn judged(&self, good: bool) {
        let Some((breaker, circuit)) = &self.breaker else { return };
        let Some(most) = breaker.failures else { return };
        let change = if good { circuit.good() } else { circuit.bad(now(), most.get(), breaker.open) };
        match change {
            Change::None => {}
            Change::Opened => {
                let (failures, secs) = (most.get(), breaker.open.as_secs());
                tracing::warn!(upstream = breaker.upstream, failures, secs, "circuit opened: the upstream only fails");
            }
            Change::Closed => tracing::info!(upstream = breaker.upstream, "circuit closed: the upstream answers again"),
        }
    }
}

/// A request that was counted in and has no room yet.
struct Counted<'a>(Option<&'a Arc<Circuit>>);

impl Counted<'_> {
    /// From now on it is counted out with its room.
    fn into(mut self, mut room: Room) -> Room {
        if let Some(circuit) = self.0.take() {
            room.leaves(circuit);
        }
        room
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(circuit) = self.0 {
            circuit.leave();
        }
    }
}
