//! What ends more than one session, or overrides tokens: epochs of members and apps, changed roles.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::member_row;
use super::sessions::end;
use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId, SessionId};
use crate::store::{Error, NewRoles, Notice, NoticeOf, Revoked};

/// Ends the member's sessions, each with its revocation, and writes the epoch. What says that it was opened later than `at`
/// was opened by a clock that has been set back since.
pub(super) fn end_member(
    db: &Connection,
    member: &MemberId,
    at: Timestamp,
    until: Timestamp,
) -> rusqlite::Result<Vec<SessionId>> {
    let mut live =
        db.prepare_cached("SELECT session_id FROM sessions WHERE member_id = ?1 AND ended = 0 AND expires_at > ?2")?;
    let live = live.query_map((member, at), |row| row.get(0))?.collect::<rusqlite::Result<Vec<SessionId>>>()?;
    for id in &live {
        end(db, id, at, until)?;
    }
    raise(db, "member", member.as_str(), at, until)?;
    Ok(live)
}

/// Writes the epoch of an app, and ends the sessions that are there and that it does not reach; returns how many.
pub(super) fn begin_app(db: &Connection, appid: &AppId, at: Timestamp, until: Timestamp) -> rusqlite::Result<u64> {
    raise(db, "app", appid.as_str(), at, until)?;
    let mut ahead =
        db.prepare_cached("SELECT session_id FROM sessions WHERE appid = ?1 AND ended = 0 AND session_id >= ?2")?;
    let ahead = ahead.query_map((appid, first_id(at)), |row| row.get(0))?;
    let ahead = ahead.collect::<rusqlite::Result<Vec<SessionId>>>()?;
    let mut ended = 0;
    for id in &ahead {
        ended += u64::from(end(db, id, at, until)?);
    }
    Ok(ended)
}

/// An epoch only ever moves forward.
fn raise(db: &Connection, of: &str, id: &str, at: Timestamp, until: Timestamp) -> rusqlite::Result<()> {
    let mut write = db.prepare_cached(
        "INSERT INTO epochs (of, id, at, until) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (of, id) DO UPDATE SET at = max(at, excluded.at), until = max(until, excluded.until)",
    )?;
    write.execute((of, id, at, until)).map(drop)
}

/// Ends at most `limit` sessions of an app that were opened before `at`; returns how many. The epoch stands for their
/// revocations.
pub(super) fn end_some_of_app(db: &Connection, appid: &str, at: Timestamp, limit: u32) -> rusqlite::Result<usize> {
    // The id says so too, and has an index: without it, every later search for what is left would look at every session
    // that was opened since.
    let mut mark = db.prepare_cached(END_OF_APP)?;
    mark.execute((appid, at, first_id(at.plus(Duration::from_millis(1))), limit))
}

pub(super) const END_OF_APP: &str = "UPDATE sessions SET ended = 1, openid = NULL WHERE session_id IN (
     SELECT session_id FROM sessions
     WHERE appid = ?1 AND ended = 0 AND created_at < ?2 AND session_id < ?3 ORDER BY session_id LIMIT ?4)";

/// What no session id of `at` or later is less than: they are UUIDs of version 7 (RFC 9562, section 5.7).
fn first_id(at: Timestamp) -> String {
    let millis = u64::try_from(at.millis()).unwrap_or(0);
    format!("{:08x}-{:04x}-", millis >> 16, millis & 0xffff)
}

/// The apps that have an epoch.
pub(super) fn apps(db: &Connection) -> rusqlite::Result<Vec<(String, Timestamp)>> {
    let mut query = db.prepare_cached("SELECT id, at FROM epochs WHERE of = 'app'")?;
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// What is written last counts, and its time says so: whatever the clock did in between.
pub(super) fn announce_roles(db: &Connection, new: &NewRoles) -> rusqlite::Result<NewRoles> {
    let mut write = db.prepare_cached(
        "INSERT INTO role_changes (member_id, roles, at, until) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (member_id) DO UPDATE SET
             roles = excluded.roles, at = max(at + 1, excluded.at), until = max(until, excluded.until)
         RETURNING at, until",
    )?;
    let row = (&new.member_id, member_row::roles_text(&new.roles), new.at, new.until);
    let (at, until) = write.query_row(row, |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(NewRoles { at, until, ..new.clone() })
}

/// All that is live.
pub(super) fn notices(db: &Connection, now: Timestamp) -> Result<Vec<Notice>, Error> {
    let mut epochs = db.prepare_cached("SELECT of = 'app', id, at, until FROM epochs WHERE until > ?1")?;
    let epoch = |row: &Row<'_>| {
        let (at, until) = (row.get(2)?, row.get(3)?);
        Ok(if row.get(0)? {
            Notice::App { appid: row.get(1)?, at, until }
        } else {
            Notice::Member { member_id: row.get(1)?, at, until }
        })
    };
    let mut all = epochs.query_map([now], epoch)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut changes = db.prepare_cached("SELECT member_id, roles, at, until FROM role_changes WHERE until > ?1")?;
    let change = |row: &Row<'_>| {
        let roles = member_row::roles(row, "roles")?;
        Ok(Notice::Roles(NewRoles { member_id: row.get(0)?, roles, at: row.get(2)?, until: row.get(3)? }))
    };
    for notice in changes.query_map([now], change)? {
        all.push(notice?);
    }
    Ok(all)
}

/// Those of these that are live.
pub(super) fn notices_of(db: &Connection, of: &[NoticeOf], now: Timestamp) -> rusqlite::Result<Vec<Notice>> {
    let mut revocation = db.prepare_cached("SELECT until FROM revocations WHERE session_id = ?1 AND until > ?2")?;
    let mut epoch = db.prepare_cached("SELECT at, until FROM epochs WHERE of = ?1 AND id = ?2 AND until > ?3")?;
    let mut change =
        db.prepare_cached("SELECT roles, at, until FROM role_changes WHERE member_id = ?1 AND until > ?2")?;
    let mut live = Vec::new();
    for one in of {
        let times = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let found = match one.clone() {
            NoticeOf::Session(session_id) => {
                let until = revocation.query_row((&session_id, now), |row| row.get(0)).optional()?;
                until.map(|until| Notice::Session(Revoked { session_id, until }))
            }
            NoticeOf::Member(member_id) => {
                let found = epoch.query_row(("member", &member_id, now), times).optional()?;
                found.map(|(at, until)| Notice::Member { member_id, at, until })
            }
            NoticeOf::App(appid) => {
                let found = epoch.query_row(("app", &appid, now), times).optional()?;
                found.map(|(at, until)| Notice::App { appid, at, until })
            }
            NoticeOf::Roles(member_id) => {
                let roles = |row: &Row<'_>| Ok((member_row::roles(row, "roles")?, row.get(1)?, row.get(2)?));
                let found = change.query_row((&member_id, now), roles).optional()?;
                found.map(|(roles, at, until)| Notice::Roles(NewRoles { member_id, roles, at, until }))
            }
        };
        live.extend(found);
    }
    Ok(live)
}
