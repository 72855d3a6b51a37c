//! The ring in force is the one in the key directory, and so are the sealing keys: what is due is done, what others did is
//! taken up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::clock::Clock;
use crate::config;
use crate::store::vault;
use crate::store::vault::keys::Rotated;
use crate::token::keys::{self, KeyRing};
use crate::token::rotation::{self, Policy, Step};

use super::{Error, Gateway, Snapshot};

/// How often: reading one small file. Well within the time that a key is published before it signs, also when it is to sign at
/// once ([`rotation::LEAD_AT_ONCE`]).
const EVERY: Duration = Duration::from_secs(1);

/// Of so many faults in a row one is told.
const TOLD: u32 = 30;

/// Makes the keys of a first start, and does what was due while no gateway ran. Notes how long tokens will live before the first
/// of them is signed: what is revoked is remembered for that long.
pub(super) fn prepare(section: &config::Token, clock: &Clock) -> Result<(), Error> {
    KeyRing::open(&section.keys, section.algorithm, clock)?;
    told(&rotation::tend(&section.keys, &Policy::of(section), clock)?);
    Ok(())
}

fn told(steps: &[Step]) {
    for step in steps {
        tracing::info!(?step, "the key ring has changed");
    }
}

impl Gateway {
    /// Looks after the keys until the gateway is dropped.
    pub(super) fn start_key_care(self: &Arc<Self>) {
        let gateway = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut tick = tokio::time::interval_at(Instant::now() + EVERY, EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut faults = 0;
            loop {
                tick.tick().await;
                let Some(gateway) = gateway.upgrade() else { return };
                match gateway.tend_keys().await {
                    Ok(()) => faults = 0,
                    Err(error) => {
                        if faults % TOLD == 0 {
                            let error = format!("{:#}", anyhow::Error::from(error));
                            tracing::error!(error, "the key ring could not be looked after; the one in force stays");
                        }
                        faults += 1;
                    }
                }
            }
        });
    }

    /// Rotates keys that are of age, drops those of which nothing is left, and puts the ring in force that is in the key
    /// directory.
    ///
    /// # Errors
    /// When the directory cannot be used; the ring in force stays.
    pub async fn tend_keys(self: &Arc<Self>) -> Result<(), Error> {
        self.with_ring(|gateway, policy| {
            rotation::tend(&gateway.current().config.token.keys, policy, &gateway.kept.clock)
        })
        .await?;
        self.with_vault(|gateway| gateway.kept.vault.tend(gateway.current().config.token.rotate_every)).await.map(drop)
    }

    /// Has a new sealing key take over, at once or when every instance knows it. What older ones have sealed is sealed anew
    /// little by little.
    ///
    /// # Errors
    /// When the key directory cannot be used; the keys stay as they are.
    pub async fn rotate_sealing(self: &Arc<Self>, at_once: bool) -> Result<Rotated, Error> {
        self.with_vault(move |gateway| gateway.kept.vault.rotate(at_once)).await
    }

    async fn with_vault<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, vault::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let gateway = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&gateway)).await {
            Ok(outcome) => Ok(outcome?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Has a new signing key take over, as [`rotation::rotate`] does.
    ///
    /// # Errors
    /// As [`Gateway::tend_keys`].
    pub async fn rotate_keys(self: &Arc<Self>, at_once: bool) -> Result<Vec<Step>, Error> {
        self.with_ring(move |gateway, policy| {
            rotation::rotate(&gateway.current().config.token.keys, policy, at_once, &gateway.kept.clock)
        })
        .await
    }

    async fn with_ring(
        self: &Arc<Self>,
        change: impl FnOnce(&Self, &Policy) -> Result<Vec<Step>, keys::Error> + Send + 'static,
    ) -> Result<Vec<Step>, Error> {
        let _one_at_a_time = self.reloading.lock().await;
        let gateway = Arc::clone(self);
        let work = move || {
            let section = gateway.current().config.token.clone();
            KeyRing::is_there(&section.keys)?;
            let steps = change(&gateway, &Policy::of(&section))?;
            told(&steps);
            gateway.take_up_ring()?;
            Ok(steps)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// The same configuration with the ring of the directory, if that is another one than before.
    fn take_up_ring(&self) -> Result<(), Error> {
        let old = self.current();
        if old.ring.is_current(&old.config.token.keys)? {
            return Ok(());
        }
        let _on_control = self.control.enter();
        let snapshot = Snapshot::new(old.config.clone(), &self.kept, old.generation + 1)?;
        self.snapshot.store(Arc::new(snapshot));
        Ok(())
    }
}
