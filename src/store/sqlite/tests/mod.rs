//! What is particular to SQLite: [`commit`], [`files`], [`joint`] and [`rows`]. That it does what every store does is at the end.

mod commit;
mod files;
mod joint;
mod rows;

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::Sqlite;
use crate::store::{Members, Sessions};

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/wxgate.db");
    (folder, path)
}

async fn with<S: ?Sized>(cast: fn(Arc<Sqlite>) -> Arc<S>) -> (Arc<S>, TempDir) {
    let (folder, path) = folder();
    (cast(Sqlite::open(&path).unwrap()), folder)
}

mod contract_of_members {
    use super::*;
    crate::store::contract::members_contract!(with::<dyn Members>(|store| store));
}

mod contract_of_sessions {
    use super::*;
    crate::store::contract::sessions_contract!(with::<dyn Sessions>(|store| store));
}
