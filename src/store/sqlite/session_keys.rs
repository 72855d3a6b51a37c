//! The sealed session_keys of a person: the newest and the one before it, in one row.

use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::clock::Timestamp;
use crate::ids::{AppId, OpenId};
use crate::store::{KeysPage, SealedKey};

/// Adds `key` to the person's keys. Order is by the start of the exchange, not by arrival: a late answer of an older
/// exchange takes the second place or none.
pub(super) fn keep(db: &Connection, appid: &AppId, openid: &OpenId, key: &SealedKey) -> rusqlite::Result<()> {
    let before = list(db, appid, openid)?;
    let after = merged(before.clone(), key.clone());
    if after == before {
        return Ok(());
    }
    let newest = after.first().map(columns);
    let previous = after.get(1).map(columns);
    let mut write = db.prepare_cached(
        "INSERT OR REPLACE INTO session_keys (appid, openid, newest, newest_at, previous, previous_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    write.execute((
        appid,
        openid,
        newest.map(|k| k.0),
        newest.map(|k| k.1),
        previous.map(|k| k.0),
        previous.map(|k| k.1),
    ))?;
    Ok(())
}

/// Newest first, at most two.
pub(super) fn list(db: &Connection, appid: &AppId, openid: &OpenId) -> rusqlite::Result<Vec<SealedKey>> {
    let mut query = db.prepare_cached(
        "SELECT newest, newest_at, previous, previous_at FROM session_keys WHERE appid = ?1 AND openid = ?2",
    )?;
    Ok(query.query_row((appid, openid), both).optional()?.unwrap_or_default())
}

/// Those after `from` (app and person, with a blank between: neither has one), in the order of the primary key.
pub(super) fn people(db: &Connection, from: &str, limit: u32) -> rusqlite::Result<KeysPage> {
    let mut query = db.prepare_cached(
        "SELECT appid, openid FROM session_keys WHERE (appid, openid) > (?1, ?2) ORDER BY appid, openid LIMIT ?3",
    )?;
    let (appid, openid) = from.split_once(' ').unwrap_or_default();
    let found = query.query_map((appid, openid, limit), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let people = found.collect::<rusqlite::Result<Vec<(AppId, OpenId)>>>()?;
    let last = people.last().filter(|_| people.len() >= limit as usize);
    let next = last.map(|(appid, openid)| format!("{} {}", appid.as_str(), openid.as_str()));
    Ok(KeysPage { people, next })
}

/// Replaces a record by another of the same key.
pub(super) fn reseal(
    db: &Connection,
    appid: &AppId,
    openid: &OpenId,
    from: &[u8],
    to: &[u8],
) -> rusqlite::Result<bool> {
    let mut write = db.prepare_cached(
        "UPDATE session_keys SET newest = iif(newest = ?3, ?4, newest), previous = iif(previous = ?3, ?4, previous)
         WHERE appid = ?1 AND openid = ?2 AND (newest = ?3 OR previous = ?3)",
    )?;
    Ok(write.execute((appid, openid, from, to))? > 0)
}

/// Forgets both.
pub(super) fn erase(db: &Connection, appid: &AppId, openid: &OpenId) -> rusqlite::Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM session_keys WHERE appid = ?1 AND openid = ?2")?;
    delete.execute((appid, openid)).map(drop)
}

fn both(row: &Row<'_>) -> rusqlite::Result<Vec<SealedKey>> {
    let mut keys = vec![SealedKey { sealed: row.get(0)?, exchanged_at: row.get(1)? }];
    if let (Some(sealed), Some(exchanged_at)) = (row.get(2)?, row.get(3)?) {
        keys.push(SealedKey { sealed, exchanged_at });
    }
    Ok(keys)
}

/// The newest two of `keys` and `key`. WeChat returns the same key for several logins in a row; that is one key with
/// the time of its newest exchange, else it would drive the one before it out.
fn merged(mut keys: Vec<SealedKey>, mut key: SealedKey) -> Vec<SealedKey> {
    if let Some(at) = keys.iter().position(|known| known.sealed == key.sealed) {
        let known = keys.remove(at);
        key.exchanged_at = key.exchanged_at.max(known.exchanged_at);
    }
    let place = keys.iter().position(|known| known.exchanged_at <= key.exchanged_at).unwrap_or(keys.len());
    keys.insert(place, key);
    keys.truncate(2);
    keys
}

fn columns(key: &SealedKey) -> (&[u8], Timestamp) {
    (&key.sealed, key.exchanged_at)
}
