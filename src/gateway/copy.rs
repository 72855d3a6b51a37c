//! Copies of the databases that are files of this gateway.

use std::fs::File;
use std::path::PathBuf;

use crate::config::{MembersStore, SessionsStore};
use crate::store::sqlite::{self, OpenError};

use super::Gateway;

/// Makes the copy; blocks.
pub type Copying = Box<dyn FnOnce() -> Result<File, OpenError> + Send>;

impl Gateway {
    /// Makes a copy of the members' database; `None` when it is no file of ours.
    pub fn copy_of_members(&self) -> Option<Copying> {
        match &self.current().config.store.members {
            MembersStore::Sqlite(path) => Some(of(path.clone())),
            MembersStore::Postgres(_) => None,
        }
    }

    /// As [`Gateway::copy_of_members`], of the sessions.
    pub fn copy_of_sessions(&self) -> Option<Copying> {
        match &self.current().config.store.sessions {
            SessionsStore::Sqlite(path) => Some(of(path.clone())),
            SessionsStore::Redis(_) => None,
        }
    }
}

fn of(path: PathBuf) -> Copying {
    Box::new(move || sqlite::copy(&path))
}
