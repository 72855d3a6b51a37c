//! Letting go of what one process alone may have, so that a successor can go on with it while this one finishes.

use crate::config::{Config, MembersStore, SessionsStore};
use crate::store::sqlite;

use super::{Error, Gateway};

/// The process that has a database of this configuration; `None` when all are free, or are servers.
///
/// # Errors
/// When that cannot be told.
pub fn holder(config: &Config) -> Result<Option<String>, Error> {
    if let MembersStore::Sqlite(path) = &config.store.members
        && let Some(holder) = sqlite::holder(path)?
    {
        return Ok(Some(holder));
    }
    if let SessionsStore::Sqlite(path) = &config.store.sessions
        && let Some(holder) = sqlite::holder(path)?
    {
        return Ok(Some(holder));
    }
    Ok(None)
}

impl Gateway {
    /// Closes the databases that are files of this process, once no call of an endpoint is under way. What is being forwarded
    /// goes on. A request that still comes and needs a token or the store is refused with 503: what a successor revokes is
    /// not heard of here.
    pub async fn release_databases(&self) {
        let kept = &self.kept;
        if kept.embedded.is_empty() {
            return;
        }
        kept.endpoint_room.close().await;
        kept.revocations.freshness().cut_off(&kept.clock);
        for database in &kept.embedded {
            database.close().await;
        }
    }
}
