//! Settles with the other instances what limits in common have let happen, through the store of sessions.
//!
//! One exchange at a time, begun as soon as something is owed: what is owed meanwhile goes with the next. The store learns a
//! keyed hash of each key, and no address or openid.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_lc_rs::hmac;
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::limiter::Tables;
use crate::limiter::shared::Bill;
use crate::metrics::Metrics;
use crate::store::shared::{Charge, Purpose, Shared};
use crate::token::refresh::RefreshSecret;

/// Keys that are charged at once.
const AT_ONCE: usize = 256;

/// How long the store may take for them.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long it is left alone after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// How often it is looked whether the gateway is still there.
const LOOK: Duration = Duration::from_secs(5);

/// How it goes.
#[derive(Debug, Default)]
struct Figures {
    /// Events that all instances know of.
    settled: AtomicU64,
    /// Events that counted here alone.
    alone: AtomicU64,
    away: AtomicBool,
}

/// The task.
pub(super) struct SharedLimits {
    tables: Weak<Tables>,
    shared: Arc<dyn Shared>,
    clock: Clock,
    names: hmac::Key,
    figures: Arc<Figures>,
}

impl SharedLimits {
    /// Goes on until the gateway is dropped.
    #[allow(clippy::cast_precision_loss)] // counts far from 2^53
    pub(super) fn start(
        tables: &Arc<Tables>,
        shared: &Arc<dyn Shared>,
        clock: &Clock,
        secret: &RefreshSecret,
        metrics: &Metrics,
    ) {
        let figures = Arc::<Figures>::default();
        let of = Arc::clone(&figures);
        let help = "Events of limits in common: all instances know of them, or they counted here alone.";
        metrics.register("wxgate_limit_shared_total", "counter", help, move || {
            [("settled", &of.settled), ("alone", &of.alone)]
                .map(|(outcome, n)| (format!("{{outcome=\"{outcome}\"}}"), n.load(Ordering::Relaxed) as f64))
                .into()
        });
        let of = Arc::clone(&figures);
        let help = "1 while limits in common are counted here alone, because the store is away.";
        metrics.register("wxgate_limit_alone", "gauge", help, move || {
            vec![(String::new(), f64::from(u8::from(of.away.load(Ordering::Relaxed))))]
        });
        let names = hmac::Key::new(hmac::HMAC_SHA256, &*secret.limit_names_key());
        let told = tables.told();
        let this =
            Self { tables: Arc::downgrade(tables), shared: Arc::clone(shared), clock: clock.clone(), names, figures };
        tokio::spawn(async move {
            loop {
                let look = if this.figures.away.load(Ordering::Relaxed) { PAUSE } else { LOOK };
                let _ = timeout(look, told.notified()).await;
                let Some(tables) = this.tables.upgrade() else { return };
                let bills = tables.bills();
                drop(tables);
                if !this.settle(&bills).await {
                    sleep(PAUSE).await;
                }
            }
        });
    }

    /// False when the store is away.
    async fn settle(&self, bills: &[Bill]) -> bool {
        if bills.is_empty() && self.figures.away.load(Ordering::Relaxed) {
            // Nothing is owed that would tell whether it is back.
            let asked = timeout(PATIENCE, self.shared.get(Purpose::State, b"limits")).await;
            return asked.is_ok_and(|asked| asked.is_ok()) && self.is_back();
        }
        for (n, some) in bills.chunks(AT_ONCE).enumerate() {
            if let Err(error) = self.charge(some).await {
                let left = bills[n * AT_ONCE..].iter().map(|bill| u64::from(bill.events)).sum();
                self.figures.alone.fetch_add(left, Ordering::Relaxed);
                if !self.figures.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(error, "limits in common cannot be settled: each instance counts for itself");
                }
                return false;
            }
            self.is_back();
        }
        true
    }

    fn is_back(&self) -> bool {
        if self.figures.away.swap(false, Ordering::Relaxed) {
            tracing::info!("limits in common are settled again");
        }
        true
    }

    async fn charge(&self, bills: &[Bill]) -> Result<(), String> {
        let charges: Vec<Charge> =
            bills.iter().map(|bill| Charge { name: self.name(bill), cost: bill.cost(), reach: bill.reach() }).collect();
        let charged = timeout(PATIENCE, self.shared.charge(&charges)).await;
        let aheads = charged.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
        let now = self.clock.steady();
        for (bill, ahead) in bills.iter().zip(aheads.unwrap_or_default()) {
            bill.settled(ahead, now);
        }
        let events = bills.iter().map(|bill| u64::from(bill.events)).sum();
        self.figures.settled.fetch_add(events, Ordering::Relaxed);
        Ok(())
    }

    fn name(&self, bill: &Bill) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.names);
        let (rule, by) = &bill.rule;
        for part in [rule.as_bytes(), by.as_bytes()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.update(&bill.name);
        let mut name = [0; 16];
        name.copy_from_slice(&context.sign().as_ref()[..16]);
        name
    }
}
