//! Which stores `[store]` names, opened.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{self, MembersStore, SessionsStore};
use crate::metrics::Metrics;
use crate::store::joint::Joint;
use crate::store::postgres::Postgres;
use crate::store::redis::Redis;
use crate::store::shared::{Memory, Shared};
use crate::store::sqlite::Sqlite;
use crate::store::{Members, Sessions};

use super::Error;

/// The open stores.
pub(super) struct Stores {
    pub(super) members: Arc<dyn Members>,
    pub(super) sessions: Arc<dyn Sessions>,
    /// Both, where they are one.
    pub(super) joint: Option<Arc<dyn Joint>>,
    pub(super) shared: Arc<dyn Shared>,
    /// Databases that this process alone may have open.
    pub(super) embedded: Vec<Arc<Sqlite>>,
    /// Of the store of sessions.
    pub(super) birth_mark: String,
}

/// Opens both; one, when both are the same file.
#[allow(clippy::cast_precision_loss)] // a count far from 2^53
pub(super) async fn open(section: &config::Store, metrics: &Metrics, clock: &Clock) -> Result<Stores, Error> {
    let mut embedded = Vec::<Arc<Sqlite>>::new();
    let (sessions, shared, birth_mark): (Arc<dyn Sessions>, Arc<dyn Shared>, _) = match &section.sessions {
        SessionsStore::Sqlite(path) => {
            let sqlite = Sqlite::open(path)?;
            register(metrics, &sqlite);
            let birth_mark = sqlite.birth_mark().to_owned();
            embedded.push(Arc::clone(&sqlite));
            (sqlite, Arc::new(Memory::new(clock.clone())), birth_mark)
        }
        SessionsStore::Redis(address) => {
            let redis = Redis::open(address).await?;
            let (birth_mark, store) = (redis.birth_mark().to_owned(), Arc::downgrade(&redis));
            let help = "Notices in the shared store that this version does not know.";
            metrics.register("wxgate_store_notices_skipped_total", "counter", help, move || {
                store.upgrade().map(|s| (String::new(), s.skipped_notices() as f64)).into_iter().collect()
            });
            (Arc::clone(&redis) as Arc<dyn Sessions>, redis, birth_mark)
        }
    };
    let mut joint = None;
    let members: Arc<dyn Members> = match &section.members {
        MembersStore::Sqlite(path) => match (embedded.first(), &section.sessions) {
            (Some(sqlite), SessionsStore::Sqlite(same)) if same == path => {
                joint = Some(Arc::clone(sqlite) as Arc<dyn Joint>);
                Arc::clone(sqlite) as Arc<dyn Members>
            }
            (first, _) => {
                let sqlite = Sqlite::open(path)?;
                if first.is_none() {
                    register(metrics, &sqlite);
                }
                embedded.push(Arc::clone(&sqlite));
                sqlite
            }
        },
        MembersStore::Postgres(address) => {
            let postgres = Postgres::open(address).await?;
            register_sign_ins(metrics, &postgres);
            postgres
        }
    };
    Ok(Stores { members, sessions, joint, shared, embedded, birth_mark })
}

#[allow(clippy::cast_precision_loss)] // counts far from 2^53
fn register(metrics: &Metrics, store: &Arc<Sqlite>) {
    let figure = |read: fn(&Sqlite) -> f64| {
        let store = Arc::downgrade(store);
        move || store.upgrade().map(|s| (String::new(), read(&s))).into_iter().collect::<Vec<_>>()
    };
    metrics.register("wxgate_store_commits_total", "counter", "Transactions on disk.", figure(|s| s.commits() as f64));
    metrics.register("wxgate_store_jobs_total", "counter", "Changes in them.", figure(|s| s.jobs() as f64));
    metrics.register("wxgate_store_queue", "gauge", "Changes that wait.", figure(|s| s.queue_depth() as f64));
}

#[allow(clippy::cast_precision_loss)] // counts far from 2^53
fn register_sign_ins(metrics: &Metrics, store: &Arc<Postgres>) {
    let figure = |read: fn(&Postgres) -> u64| {
        let store = Arc::downgrade(store);
        move || store.upgrade().map(|s| (String::new(), read(&s) as f64)).into_iter().collect::<Vec<_>>()
    };
    let help = "Statements by which people signed in at Postgres, each with a commit.";
    metrics.register("wxgate_store_sign_in_statements_total", "counter", help, figure(Postgres::commits));
    metrics.register("wxgate_store_sign_ins_total", "counter", "Sign-ins in them.", figure(Postgres::sign_ins));
}
