//! The ring in force is the one in the key directory or in the store, and so are the sealing keys: what is due is done, what
//! others did is taken up.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::clock::Clock;
use crate::config;
use crate::keyfile::Shelf;
use crate::store::vault::keys::{self as sealing, Rotated};
use crate::token::keys::KeyRing;
use crate::token::rotation::{self, Policy, Step};

use super::key_shelf::blocking;
use super::{Error, Gateway, Kept, Snapshot};

/// How often: reading one small file, or record. Well within the time that a key is published before it signs, also when it is to sign at
/// once ([`rotation::LEAD_AT_ONCE`]).
const EVERY: Duration = Duration::from_secs(1);

/// A look that takes longer may be one at a store that hangs: shorter than [`rotation::LEAD_AT_ONCE`] by more than [`EVERY`].
const LATE: Duration = Duration::from_secs(2);

/// Of so many faults in a row one is told.
const TOLD: u32 = 30;

/// Makes the keys of a first start, and does what was due while no gateway ran. Notes how long tokens will live before the first
/// of them is signed: what is revoked is remembered for that long.
pub(super) async fn prepare(section: &config::Token, kept: &Kept) -> Result<(), Error> {
    let steps = kept.keys.change_here(|shelf| made(section, shelf, &kept.clock)).await?;
    told(&steps);
    Ok(())
}

/// As [`prepare`], on this shelf.
pub(super) fn made(section: &config::Token, shelf: &Shelf, clock: &Clock) -> Result<Vec<Step>, Error> {
    KeyRing::open(shelf, section.algorithm, clock)?;
    Ok(rotation::tend(shelf, &Policy::of(section), clock)?)
}

pub(super) fn told(steps: &[Step]) {
    for step in steps {
        tracing::info!(?step, "the key ring has changed");
    }
}

fn sealing_told(Rotated { id, seals_from }: &Rotated) {
    tracing::info!(key = sealing::name(id), %seals_from, "a sealing key takes over");
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
                let mut tended = pin!(gateway.tend_keys());
                let tended = match timeout(LATE, &mut tended).await {
                    Ok(tended) => tended,
                    Err(_) => {
                        gateway.kept.revocations.freshness().miss_keys(true);
                        tended.await
                    }
                };
                match tended {
                    Ok(()) => faults = 0,
                    Err(error) => {
                        // Whoever is leaving may have let go of the database that they are in.
                        if faults % TOLD == 0 && !gateway.is_draining() {
                            let error = format!("{:#}", anyhow::Error::from(error));
                            tracing::error!(error, "the key ring could not be looked after; the one in force stays");
                        }
                        faults += 1;
                    }
                }
            }
        });
    }

    /// Rotates keys that are of age, drops those of which nothing is left, and puts those in force that are in the folder or
    /// in the store.
    ///
    /// # Errors
    /// When they cannot be read or written; those in force stay.
    pub async fn tend_keys(self: &Arc<Self>) -> Result<(), Error> {
        let section = self.current().config.token.clone();
        let (policy, every) = (Policy::of(&section), section.rotate_every);
        let work = move |shelf: &Shelf, clock: &Clock| {
            let steps = rotation::tend(shelf, &policy, clock)?;
            let rotated = every.map(|every| sealing::rotate_if_of_age(shelf, every, clock.now()));
            // The signing keys are taken up, whatever is wrong with the others.
            Ok((steps, rotated.transpose().map(Option::flatten)))
        };
        let tended = self.with_keys(work).await;
        // From here on a key that is not known may be one that others have put there, or certainly is none.
        self.kept.revocations.freshness().miss_keys(tended.is_err());
        let (steps, rotated) = tended?;
        told(&steps);
        rotated?.iter().for_each(sealing_told);
        Ok(self.kept.vault.reread()?)
    }

    /// Has a new sealing key take over, at once or when every instance knows it. What older ones have sealed is sealed anew
    /// little by little.
    ///
    /// # Errors
    /// As [`Gateway::tend_keys`].
    pub async fn rotate_sealing(self: &Arc<Self>, at_once: bool) -> Result<Rotated, Error> {
        let rotated = self.with_keys(move |shelf, clock| Ok(sealing::rotate(shelf, at_once, clock.now())?)).await?;
        sealing_told(&rotated);
        self.kept.vault.reread()?;
        Ok(rotated)
    }

    /// Has a new signing key take over, as [`rotation::rotate`] does.
    ///
    /// # Errors
    /// As [`Gateway::tend_keys`].
    pub async fn rotate_keys(self: &Arc<Self>, at_once: bool) -> Result<Vec<Step>, Error> {
        let policy = Policy::of(&self.current().config.token);
        let work = move |shelf: &Shelf, clock: &Clock| Ok(rotation::rotate(shelf, &policy, at_once, clock)?);
        let steps = self.with_keys(work).await?;
        told(&steps);
        Ok(steps)
    }

    /// Changes the keys and takes up what is there then.
    pub(super) async fn with_keys<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl Fn(&Shelf, &Clock) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let _one_at_a_time = self.reloading.lock().await;
        let clock = self.kept.clock.clone();
        let work = move |shelf: &Shelf| {
            KeyRing::is_there(shelf)?;
            change(shelf, &clock)
        };
        let outcome = self.kept.keys.change(work).await?;
        let gateway = Arc::clone(self);
        blocking(move || gateway.take_up_ring()).await?;
        Ok(outcome)
    }

    /// The same configuration with the ring that is there, if that is another one than before.
    fn take_up_ring(&self) -> Result<(), Error> {
        let old = self.current();
        let shelf = self.kept.keys.shelf();
        if old.ring.is_current(shelf)? {
            return Ok(());
        }
        // In a folder it is that of the start: whoever replaces it there has to restart.
        if self.kept.keys.is_in_store() {
            self.kept.refresh.reread(shelf)?;
        }
        let _on_control = self.control.enter();
        let snapshot = Snapshot::new(old.config.clone(), &self.kept, old.generation + 1)?;
        self.snapshot.store(Arc::new(snapshot));
        Ok(())
    }
}
