//! One piece of work at a time under one name, on all instances together.
//!
//! [`single_flight`](super::single_flight) sees to it within a process; here a claim in the shared store does between them. The
//! claim outlives the work, and ends by itself when its owner has died.

use std::future::Future;
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::time::{sleep, timeout};

use crate::problem::Problem;
use crate::store::shared::{Purpose, Shared};

/// How often an instance looks whether another one is through.
const LOOK: Duration = Duration::from_millis(50);

/// How long a claim that may have been granted is tried to be given back.
const PATIENCE: Duration = Duration::from_millis(500);

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
    loop {
        match shared.claim(purpose, name, &own, lease).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => {
                // It may have been granted, and the answer lost: it would stand in everybody's way for as long as it lasts.
                let _ = timeout(PATIENCE, shared.release(purpose, name, &own)).await;
                return Err(error.into());
            }
        }
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

    use async_trait::async_trait;

    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::problem::Code;
    use crate::store::Error;
    use crate::store::shared::{Charge, Memory, News};

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

    /// Does what it is told, and its answers to claims are lost.
    #[derive(Debug)]
    struct Deaf(Memory);

    #[async_trait]
    impl Shared for Deaf {
        async fn claim(&self, purpose: Purpose, name: &[u8], value: &[u8], life: Duration) -> Result<bool, Error> {
            self.0.claim(purpose, name, value, life).await?;
            Err(Error::Unavailable("the answer was lost".into()))
        }

        async fn put(&self, purpose: Purpose, name: &[u8], value: &[u8], life: Duration) -> Result<(), Error> {
            self.0.put(purpose, name, value, life).await
        }

        async fn get(&self, purpose: Purpose, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
            self.0.get(purpose, name).await
        }

        async fn take(&self, purpose: Purpose, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
            self.0.take(purpose, name).await
        }

        async fn release(&self, purpose: Purpose, name: &[u8], value: &[u8]) -> Result<(), Error> {
            self.0.release(purpose, name, value).await
        }

        async fn news(&self, _: Option<&str>) -> Result<Option<News>, Error> {
            Ok(None)
        }

        async fn charge(&self, _: &[Charge]) -> Result<Option<Vec<Duration>>, Error> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn a_claim_whose_answer_was_lost_stands_in_nobodys_way() {
        let shared = Deaf(Memory::new(Clock::manual(Timestamp::from_secs(1000))));
        let nothing = || async { Ok(None::<u32>) };
        let lost = exclusively(&shared, NAME, LEASE, nothing, async { Ok(1) }).await;
        assert_eq!(lost.unwrap_err().code(), Code::StoreUnavailable);
        assert_eq!(exclusively(&shared.0, NAME, LEASE, nothing, async { Ok(2) }).await.unwrap(), 2);
        // What somebody else has claimed is not given back.
        assert!(shared.0.claim(NAME.0, NAME.1, b"another", LEASE).await.unwrap());
        exclusively(&shared, NAME, LEASE, nothing, async { Ok(3) }).await.unwrap_err();
        assert!(!shared.0.claim(NAME.0, NAME.1, b"a third", LEASE).await.unwrap());
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
