//! Records in the store are sealed anew when another sealing key has taken over: slowly, a page at a time, by one instance
//! of a deployment. Records that are used meanwhile are sealed anew there (`auth`). When none is left, and time enough has
//! passed, the old keys go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::ids::{AppId, OpenId};
use crate::metrics::Metrics;
use crate::store::shared::{Purpose, Shared};
use crate::store::vault::Vault;
use crate::store::vault::keys::{self as sealing, Standing};
use crate::store::{Error, Sessions};

use super::key_shelf::KeyShelf;
use super::{Error as Fault, Kept};

/// How often there is a page. With [`PAGE`] this is how fast the store is gone through: a million people in an hour and a half.
const EVERY: Duration = Duration::from_secs(1);

/// People on a page.
const PAGE: u32 = 200;

/// People at once.
const AT_ONCE: usize = 8;

/// What instances know of each other's walk.
const WALK: &[u8] = b"walk";

/// How long a walk is its instance's without a word.
const LEASE: Duration = Duration::from_secs(60);

/// How long others are told that it was done: those that start later go through the store once more, which only reads.
const TOLD: Duration = Duration::from_secs(24 * 3600);

/// Goes through the store.
#[derive(Debug)]
pub(super) struct Resealer {
    sessions: Weak<dyn Sessions>,
    shared: Arc<dyn Shared>,
    vault: Arc<Vault>,
    keys: Arc<KeyShelf>,
    clock: Clock,
    own: [u8; 16],
    sealed: Arc<AtomicU64>,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    /// With these keys, nothing is left that an older one has sealed.
    done: Option<Standing>,
    /// A walk under way: with which keys, and where it is.
    walk: Option<(Standing, Option<String>)>,
    /// Old keys could not be removed the last time, and that was said.
    failing: bool,
}

impl Resealer {
    pub(super) fn new(kept: &Kept) -> Self {
        let sealed = Arc::<AtomicU64>::default();
        register(&kept.metrics, &sealed);
        Self {
            sessions: Arc::downgrade(&kept.sessions),
            shared: Arc::clone(&kept.shared),
            vault: Arc::clone(&kept.vault),
            keys: Arc::clone(&kept.keys),
            clock: kept.clock.clone(),
            own: uuid::Uuid::now_v7().into_bytes(),
            sealed,
            state: State::default(),
        }
    }

    /// Goes on until the gateway is dropped.
    pub(super) fn start(mut self) {
        tokio::spawn(async move {
            let mut tick = interval(EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let Some(sessions) = self.sessions.upgrade() else { return };
                if let Err(error) = self.step(&*sessions).await {
                    tracing::debug!(%error, "records could not be sealed anew; the walk goes on where it was");
                }
            }
        });
    }

    /// Does what is next, if there is anything.
    async fn step(&mut self, sessions: &dyn Sessions) -> Result<(), Error> {
        let Some(keys) = self.vault.settled() else {
            self.state.walk = None;
            return Ok(());
        };
        if self.state.done == Some(keys) {
            self.drop_old().await;
            return Ok(());
        }
        let from = match self.state.walk.clone() {
            Some((with, from)) if with == keys => {
                self.shared.put(Purpose::Resealing, WALK, &self.own, LEASE).await?;
                from
            }
            _ => {
                if self.shared.get(Purpose::Resealing, &keys).await?.is_some() {
                    self.done(keys);
                    return Ok(());
                }
                if !self.shared.claim(Purpose::Resealing, WALK, &self.own, LEASE).await? {
                    return Ok(());
                }
                None
            }
        };
        // Should what follows fail, the next step begins here again.
        self.state.walk = Some((keys, from.clone()));
        let page = sessions.people_with_keys(from.as_deref(), PAGE).await?;
        let walker = &*self;
        let each = |(appid, openid)| async move { walker.person(sessions, &appid, &openid).await };
        stream::iter(page.people).map(Ok).try_for_each_concurrent(AT_ONCE, each).await?;
        self.state.walk = match page.next {
            Some(next) => Some((keys, Some(next))),
            None => {
                let sealed = self.sealed.load(Ordering::Relaxed);
                tracing::info!(sealed, "every session_key in the store is sealed by the newest sealing key");
                self.done(keys);
                self.shared.put(Purpose::Resealing, &keys, b"done", TOLD).await?;
                self.shared.release(Purpose::Resealing, WALK, &self.own).await?;
                None
            }
        };
        Ok(())
    }

    async fn person(&self, sessions: &dyn Sessions, appid: &AppId, openid: &OpenId) -> Result<(), Error> {
        for key in sessions.session_keys(appid, openid).await? {
            // What does not open will not later either; the person's next login puts a good one in its place.
            let Ok(Some(fresh)) = self.vault.reseal(&key.sealed, appid, openid) else { continue };
            if sessions.reseal_key(appid, openid, &key.sealed, fresh).await? {
                self.sealed.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn done(&mut self, keys: Standing) {
        self.state.done = Some(keys);
        self.vault.note_resealed(keys);
    }

    /// Access tokens of apps are sealed too, but live for two hours: what is older than a month opens nothing.
    async fn drop_old(&mut self) {
        if !self.vault.may_drop() {
            return;
        }
        let now = self.clock.now();
        let dropped = self.keys.change(move |shelf| sealing::drop_old(shelf, now).map_err(Fault::Vault)).await;
        let dropped = dropped.and_then(|dropped| self.vault.reread().map(|()| dropped).map_err(Fault::Vault));
        let failed = std::mem::replace(&mut self.state.failing, dropped.is_err());
        match dropped {
            Ok(0) => {}
            Ok(keys) => tracing::info!(keys, "sealing keys of which nothing is left were removed"),
            Err(_) if failed => {}
            Err(error) => tracing::error!(%error, "old sealing keys could not be removed; trying again"),
        }
    }
}

#[allow(clippy::cast_precision_loss)] // counts far from 2^53
fn register(metrics: &Metrics, sealed: &Arc<AtomicU64>) {
    let sealed = Arc::clone(sealed);
    metrics.register("wxgate_resealed_total", "counter", "Records sealed anew by the walk.", move || {
        vec![(String::new(), sealed.load(Ordering::Relaxed) as f64)]
    });
}
