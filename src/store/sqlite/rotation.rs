//! What becomes of a refresh token that is shown: the one place that decides between rotation, repetition and reuse.

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::sessions::{end, session};
use crate::clock::Timestamp;
use crate::store::{Error, RefreshHash, RefreshUse, Rotation, Session};

/// `?1` which token, `?2` now.
pub(super) const SHOWN: &str = "SELECT s.*, t.used_at, t.successor
    FROM refresh_tokens t JOIN sessions s ON s.session_id = t.session_id
    WHERE t.hash = ?1 AND t.expires_at > ?2 AND s.expires_at > ?2";

/// A refresh token and where its session stands.
struct Shown {
    session: Option<Session>,
    used: Option<(Timestamp, RefreshHash)>,
}

/// Uses `shown`. All in the caller's transaction of the one writer, so that of any number of calls one comes first.
pub(super) fn rotate(
    db: &Connection,
    shown: RefreshHash,
    successor: RefreshHash,
    use_: RefreshUse,
) -> Result<Rotation, Error> {
    let Some(found) = look_up(db, shown, use_.now)? else { return Ok(Rotation::Unknown) };
    let Some(session) = found.session else { return Ok(Rotation::Ended) };
    let Some((used_at, given)) = found.used else {
        return consume(db, shown, successor, session, use_);
    };
    if use_.now.since(used_at) < use_.grace
        && let Some(refresh_expires_at) = unused(db, given, use_.now)?
    {
        if given != successor {
            return Err(Error::Damaged("the successor of this refresh token was derived with another refresh key"));
        }
        prolong(db, &session, use_.revoked_until)?;
        return Ok(Rotation::Rotated { session, refresh_expires_at });
    }
    end(db, &session.session_id, use_.now, use_.revoked_until)?;
    Ok(Rotation::Reused(session))
}

/// The live session that `shown` belongs to.
pub(super) fn owner(db: &Connection, shown: RefreshHash, now: Timestamp) -> rusqlite::Result<Option<Session>> {
    Ok(look_up(db, shown, now)?.and_then(|found| found.session))
}

/// `None` when the token or its session is unknown or has expired.
fn look_up(db: &Connection, shown: RefreshHash, now: Timestamp) -> rusqlite::Result<Option<Shown>> {
    db.prepare_cached(SHOWN)?.query_row((shown, now), read).optional()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Shown> {
    let ended: bool = row.get("ended")?;
    let used_at: Option<Timestamp> = row.get("used_at")?;
    let successor: Option<RefreshHash> = row.get("successor")?;
    Ok(Shown { session: if ended { None } else { Some(session(row)?) }, used: used_at.zip(successor) })
}

fn consume(
    db: &Connection,
    shown: RefreshHash,
    successor: RefreshHash,
    session: Session,
    use_: RefreshUse,
) -> Result<Rotation, Error> {
    let mut mark = db
        .prepare_cached("UPDATE refresh_tokens SET used_at = ?2, successor = ?3 WHERE hash = ?1 AND used_at IS NULL")?;
    mark.execute((shown, use_.now, successor))?;
    let refresh_expires_at = use_.refresh_expires_at.min(session.expires_at);
    issue(db, successor, &session, use_.now, refresh_expires_at)?;
    prolong(db, &session, use_.revoked_until)?;
    Ok(Rotation::Rotated { session, refresh_expires_at })
}

/// Notes that an access token of `session` may live until `access_until`.
fn prolong(db: &Connection, session: &Session, access_until: Timestamp) -> rusqlite::Result<()> {
    let mut raise =
        db.prepare_cached("UPDATE sessions SET access_until = ?2 WHERE session_id = ?1 AND access_until < ?2")?;
    raise.execute((&session.session_id, access_until.min(session.expires_at))).map(drop)
}

/// Writes an unused token of `session`.
pub(super) fn issue(
    db: &Connection,
    hash: RefreshHash,
    session: &Session,
    now: Timestamp,
    expires_at: Timestamp,
) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO refresh_tokens (hash, session_id, issued_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
    )?;
    insert.execute((hash, &session.session_id, now, expires_at)).map(drop)
}

/// End of the token, if it stands at `now` and is unused.
fn unused(db: &Connection, hash: RefreshHash, now: Timestamp) -> rusqlite::Result<Option<Timestamp>> {
    let mut query = db.prepare_cached(
        "SELECT expires_at FROM refresh_tokens WHERE hash = ?1 AND used_at IS NULL AND expires_at > ?2",
    )?;
    query.query_row((hash, now), |row| row.get(0)).optional()
}
