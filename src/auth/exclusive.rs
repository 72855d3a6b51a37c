//! One piece of work at a time under one name, on all instances together.
//!
//! [`single_flight`](super::single_flight) sees to it within a process; here a claim in the shared store does between them. The
//! claim outlives the work, and ends by itself when its owner has died.

use std::future::Future;
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::time::sleep;

use crate::problem::Problem;
use crate::store::shared::{Purpose, Shared};

/// How often an instance looks whether another one is through.
const LOOK: Duration = Duration::from_millis(50);

/// Does `work` once nobody else does, or has done it: as soon as `found` gives something, that is the outcome. `lease` must be
/// longer than `work` may take.
///
/// # Errors
/// `store_unavailable`, and those of `found` and `work`.
pub(super) async fn exclusively<T, F, W>(
    shared: &dyn Shared,
    (purpose, name): (Purpose, &[u8]),
    lease: Duration,
    found: impl Fn() -> F + Send,
    work: W,
) -> Result<T, Problem>
where
    F: Future<Output = Result<Option<T>, Problem>> + Send,
    W: Future<Output = Result<T, Problem>> + Send,
{
    let mut own = [0; 16];
    rand::fill(&mut own).map_err(Problem::internal)?;
    while !shared.claim(purpose, name, &own, lease).await? {
        if let Some(outcome) = found().await? {
            return Ok(outcome);
        }
        sleep(LOOK).await;
    }
    // Whoever had the claim before may have been through in between.
    let outcome = match found().await {
        Ok(Some(outcome)) => Ok(outcome),
        Ok(None) => work.await,
        Err(problem) => Err(problem),
    };
    if let Err(error) = shared.release(purpose, name, &own).await {
        tracing::debug!(%error, "a claim could not be released; it ends by itself");
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::problem::Code;
    use crate::store::shared::Memory;

    const LEASE: Duration = Duration::from_secs(20);
    const NAME: (Purpose, &[u8]) = (Purpose::Code, b"name");

    #[tokio::test(start_paused = true)]
    async fn of_many_instances_one_works_and_the_others_find_what_it_did() {
        let shared = Arc::new(Memory::new(Clock::manual(Timestamp::from_secs(1000))));
        let (worked, done) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let instances: Vec<_> = (0..5)
            .map(|_| {
                let (shared, worked, done) = (Arc::clone(&shared), Arc::clone(&worked), Arc::clone(&done));
                tokio::spawn(async move {
                    let found = || async { Ok(Some(done.load(Ordering::SeqCst)).filter(|done| *done > 0)) };
                    let work = async {
                        worked.fetch_add(1, Ordering::SeqCst);
                        sleep(Duration::from_secs(1)).await;
                        done.store(7, Ordering::SeqCst);
                        Ok(7)
                    };
                    exclusively(&*shared, NAME, LEASE, found, work).await.unwrap()
                })
            })
            .collect();
        for instance in instances {
            assert_eq!(instance.await.unwrap(), 7);
        }
        assert_eq!(worked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failure_frees_the_name_and_a_claim_of_the_dead_ends() {
        let clock = Clock::manual(Timestamp::from_secs(1000));
        let shared = Memory::new(clock.clone());
        let nothing = || async { Ok(None::<u32>) };
        let failing = async { Err(Problem::internal("planned")) };
        let failed = exclusively(&shared, NAME, LEASE, nothing, failing).await;
        assert_eq!(failed.unwrap_err().code(), Code::Internal);
        assert!(shared.claim(NAME.0, NAME.1, b"of one who dies", LEASE).await.unwrap());
        clock.advance(LEASE);
        assert_eq!(exclusively(&shared, NAME, LEASE, nothing, async { Ok(1) }).await.unwrap(), 1);
    }
}
