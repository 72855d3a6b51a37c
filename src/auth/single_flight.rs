//! One piece of work per key, however many ask for it at once.
//!
//! The first to come starts the work, as a task of its own, so that it is finished even when the one who asked goes away;
//! those who come while it runs wait for the same outcome. Nothing is kept once it is done.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Work under way, by key. Bounded by the number of calls that are being answered.
#[derive(Debug)]
pub struct SingleFlight<K, T> {
    running: Mutex<HashMap<K, watch::Receiver<Option<T>>>>,
}

impl<K, T> Default for SingleFlight<K, T> {
    fn default() -> Self {
        Self { running: Mutex::default() }
    }
}

impl<K, T> SingleFlight<K, T>
where
    K: Eq + Hash + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// The outcome of the work for `key`: of that which runs, or of `work`, which is started then. The flag says whether
    /// this call started it. `None` when the work panicked.
    pub async fn run<F>(self: &Arc<Self>, key: K, work: impl FnOnce() -> F) -> (Option<T>, bool)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (mut outcome, started) = self.join(key, work);
        let outcome = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        (outcome, started)
    }

    fn join<F>(self: &Arc<Self>, key: K, work: impl FnOnce() -> F) -> (watch::Receiver<Option<T>>, bool)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = running.get(&key) {
            return (outcome.clone(), false);
        }
        let (tell, outcome) = watch::channel(None);
        running.insert(key.clone(), outcome.clone());
        drop(running);
        let landing = Landing { flight: Arc::clone(self), key };
        let work = work();
        tokio::spawn(async move {
            let outcome = work.await;
            // Told before it is forgotten: whoever comes between finds the outcome and does not start again.
            let _ = tell.send(Some(outcome));
            drop(landing);
        });
        (outcome, true)
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Forgets the key when the work is over, also when it panicked.
struct Landing<K: Eq + Hash, T> {
    flight: Arc<SingleFlight<K, T>>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.flight.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn those_who_come_while_it_runs_share_its_outcome() {
        let flight = Arc::new(SingleFlight::<u8, u32>::default());
        let started = Arc::new(AtomicU32::new(0));
        let (open, gate) = watch::channel(false);
        let calls: Vec<_> = (0..30)
            .map(|_| {
                let (flight, started, mut gate) = (Arc::clone(&flight), Arc::clone(&started), gate.clone());
                tokio::spawn(async move {
                    flight
                        .run(7, || async move {
                            let n = started.fetch_add(1, Ordering::SeqCst);
                            let _ = gate.wait_for(|open| *open).await;
                            n + 100
                        })
                        .await
                })
            })
            .collect();
        while flight.is_empty() {
            tokio::task::yield_now().await;
        }
        open.send_replace(true);
        let mut first = 0;
        for call in calls {
            let (outcome, was_first) = call.await.unwrap();
            assert_eq!(outcome, Some(100));
            first += u32::from(was_first);
        }
        assert_eq!((first, started.load(Ordering::SeqCst)), (1, 1));
        assert!(flight.is_empty());
    }

    #[tokio::test]
    async fn the_work_goes_on_when_the_one_who_asked_goes_away_and_a_panic_frees_the_key() {
        let flight = Arc::new(SingleFlight::<u8, u32>::default());
        let (open, mut gate) = watch::channel(false);
        let (done, mut finished) = watch::channel(false);
        let asked = flight.run(1, || async move {
            let _ = gate.wait_for(|open| *open).await;
            done.send_replace(true);
            1
        });
        assert!(futures_util::FutureExt::now_or_never(asked).is_none());
        open.send_replace(true);
        finished.wait_for(|f| *f).await.unwrap();
        let panicked = flight.run(2, || async { panic!("planned") }).await;
        assert_eq!(panicked, (None, true));
        while !flight.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
