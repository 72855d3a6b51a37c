//! The sealed keys of the deployment: one row, or none.

use rusqlite::{Connection, OptionalExtension as _};

/// What is there.
pub(super) fn get(db: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    db.prepare_cached("SELECT sealed FROM key_bundle")?.query_row([], |row| row.get(0)).optional()
}

/// Replaces `from`, and nothing else, by `to`.
pub(super) fn replace(db: &Connection, from: Option<&[u8]>, to: &[u8]) -> rusqlite::Result<bool> {
    let replaced = match from {
        Some(from) => db.prepare_cached("UPDATE key_bundle SET sealed = ?2 WHERE sealed = ?1")?.execute((from, to))?,
        None => db.prepare_cached("INSERT OR IGNORE INTO key_bundle (one, sealed) VALUES (1, ?1)")?.execute([to])?,
    };
    Ok(replaced > 0)
}
