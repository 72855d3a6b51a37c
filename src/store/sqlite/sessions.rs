//! [`Sessions`] in SQLite. Rotation of refresh tokens and the rule of the two session keys have files of their own.

use std::num::NonZeroU32;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::{Sqlite, epochs, key_bundle, rotation, session_keys};
use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId, OpenId, SessionId};
use crate::store::{
    CodeHash, Error, KeysPage, NewRoles, NewSession, Notice, NoticeOf, RefreshHash, RefreshUse, Revoked, Rotation,
    SealedKey, SealedToken, Session, Sessions, SessionsOf, UsedCode,
};

/// Rows that one job of a sweep deletes: a few milliseconds, so that no login waits for long.
const SWEPT_AT_ONCE: u32 = 500;

/// After every session id.
const PAST_IDS: &str = "\u{7f}";

/// Live sessions of a member or an app, newest first: `?1` whose, `?2` now, `?3` where the last page ended.
const OF_MEMBER: &str = "FROM sessions WHERE member_id = ?1 AND ended = 0 AND expires_at > ?2 AND session_id < ?3
    ORDER BY session_id DESC";
const OF_APP: &str = "FROM sessions WHERE appid = ?1 AND ended = 0 AND expires_at > ?2 AND session_id < ?3
    ORDER BY session_id DESC";

/// Live revocations: `?1` and `?2` where the last page ended, `?3` how many.
pub(super) const REVOKED: &str = "SELECT session_id, until FROM revocations WHERE (until, session_id) > (?1, ?2)
    ORDER BY until, session_id LIMIT ?3";

/// Revocations that one job reads: some tens of milliseconds, so that a million of them meets no deadline.
pub(super) const READ_AT_ONCE: u32 = 50_000;

/// For the test that asks SQLite for its plans.
#[cfg(test)]
pub(super) const QUESTIONS: [&str; 2] = [OF_MEMBER, OF_APP];

/// Tokens go before their sessions, so that no token is ever without one.
const SWEEPS: [&str; 6] = [
    "DELETE FROM codes WHERE hash IN (SELECT hash FROM codes WHERE expires_at <= ?1 LIMIT ?2)",
    "DELETE FROM refresh_tokens WHERE hash IN (SELECT hash FROM refresh_tokens WHERE expires_at <= ?1 LIMIT ?2)",
    "DELETE FROM sessions WHERE session_id IN (SELECT session_id FROM sessions WHERE expires_at <= ?1 LIMIT ?2)",
    "DELETE FROM revocations WHERE session_id IN (SELECT session_id FROM revocations WHERE until <= ?1 LIMIT ?2)",
    "DELETE FROM role_changes WHERE member_id IN (SELECT member_id FROM role_changes WHERE until <= ?1 LIMIT ?2)",
    "DELETE FROM epochs WHERE (of, id) IN (SELECT of, id FROM epochs WHERE until <= ?1 LIMIT ?2)",
];

#[async_trait]
impl Sessions for Sqlite {
    async fn open(&self, new: NewSession) -> Result<Vec<SessionId>, Error> {
        self.write(move |db| Ok(open(db, &new)?)).await
    }

    async fn find(&self, id: &SessionId, now: Timestamp) -> Result<Option<Session>, Error> {
        let id = id.clone();
        self.read(move |db| {
            let mut query =
                db.prepare_cached("SELECT * FROM sessions WHERE session_id = ?1 AND ended = 0 AND expires_at > ?2")?;
            Ok(query.query_row((id, now), session).optional()?)
        })
        .await
    }

    async fn owner_of(&self, id: &SessionId, now: Timestamp) -> Result<Option<(MemberId, AppId)>, Error> {
        let id = id.clone();
        self.read(move |db| {
            let mut query =
                db.prepare_cached("SELECT member_id, appid FROM sessions WHERE session_id = ?1 AND expires_at > ?2")?;
            Ok(query.query_row((id, now), |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
        })
        .await
    }

    async fn prolong(&self, id: &SessionId, now: Timestamp, access_until: Timestamp) -> Result<Option<Session>, Error> {
        let id = id.clone();
        self.write(move |db| {
            let mut raise = db.prepare_cached(
                "UPDATE sessions SET access_until = max(access_until, min(?3, expires_at))
                 WHERE session_id = ?1 AND ended = 0 AND expires_at > ?2 RETURNING *",
            )?;
            Ok(raise.query_row((&id, now, access_until), session).optional()?)
        })
        .await
    }

    async fn used_code(&self, code: &CodeHash, now: Timestamp) -> Result<Option<UsedCode>, Error> {
        let code = *code;
        self.read(move |db| {
            let mut query =
                db.prepare_cached("SELECT session_id, used_at, is_new FROM codes WHERE hash = ?1 AND expires_at > ?2")?;
            let used = query.query_row((code, now), |row| {
                Ok(UsedCode { session_id: row.get(0)?, used_at: row.get(1)?, is_new: row.get(2)? })
            });
            Ok(used.optional()?)
        })
        .await
    }

    async fn rotate(&self, shown: RefreshHash, successor: RefreshHash, use_: RefreshUse) -> Result<Rotation, Error> {
        self.write(move |db| rotation::rotate(db, shown, successor, use_)).await
    }

    async fn find_by_refresh(&self, shown: RefreshHash, now: Timestamp) -> Result<Option<Session>, Error> {
        self.read(move |db| Ok(rotation::owner(db, shown, now)?)).await
    }

    async fn ended_by_refresh(&self, shown: RefreshHash, now: Timestamp) -> Result<Option<SessionId>, Error> {
        self.read(move |db| {
            let mut query = db.prepare_cached(
                "SELECT s.session_id FROM refresh_tokens t JOIN sessions s ON s.session_id = t.session_id
                 WHERE t.hash = ?1 AND t.expires_at > ?2 AND s.expires_at > ?2 AND s.ended = 1",
            )?;
            Ok(query.query_row((shown, now), |row| row.get(0)).optional()?)
        })
        .await
    }

    async fn end(&self, id: &SessionId, now: Timestamp, revoked_until: Timestamp) -> Result<bool, Error> {
        let id = id.clone();
        self.write(move |db| Ok(end(db, &id, now, revoked_until)?)).await
    }

    async fn end_all(
        &self,
        member: &MemberId,
        appid: &AppId,
        spared: Option<&SessionId>,
        now: Timestamp,
        revoked_until: Timestamp,
    ) -> Result<Vec<SessionId>, Error> {
        let (member, appid, spared) = (member.clone(), appid.clone(), spared.cloned());
        self.write(move |db| {
            let mut live = db.prepare_cached(
                "SELECT session_id FROM sessions
                 WHERE member_id = ?1 AND appid = ?2 AND ended = 0 AND expires_at > ?3 AND session_id IS NOT ?4",
            )?;
            let live = live.query_map((&member, &appid, now, &spared), |row| row.get(0))?;
            let live = live.collect::<rusqlite::Result<Vec<SessionId>>>()?;
            for id in &live {
                end(db, id, now, revoked_until)?;
            }
            Ok(live)
        })
        .await
    }

    async fn end_member(
        &self,
        member: &MemberId,
        at: Timestamp,
        revoked_until: Timestamp,
    ) -> Result<Vec<SessionId>, Error> {
        let member = member.clone();
        self.write(move |db| Ok(epochs::end_member(db, &member, at, revoked_until)?)).await
    }

    async fn end_app(&self, appid: &AppId, at: Timestamp, until: Timestamp) -> Result<u64, Error> {
        let app = appid.clone();
        let ahead = self.write(move |db| Ok(epochs::begin_app(db, &app, at, until)?)).await?;
        Ok(ahead + self.end_rest_of_app(appid.as_str(), at).await?)
    }

    async fn announce_roles(&self, roles: NewRoles) -> Result<NewRoles, Error> {
        self.write(move |db| Ok(epochs::announce_roles(db, &roles)?)).await
    }

    async fn notices(&self, now: Timestamp) -> Result<Vec<Notice>, Error> {
        self.read(move |db| epochs::notices(db, now)).await
    }

    async fn notices_of(&self, of: &[NoticeOf], now: Timestamp) -> Result<Vec<Notice>, Error> {
        let of = of.to_vec();
        self.read(move |db| Ok(epochs::notices_of(db, &of, now)?)).await
    }

    async fn list(
        &self,
        of: &SessionsOf,
        after: Option<&SessionId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Session>, Error> {
        let ((from, whose), after) = (question(of), after.map_or(PAST_IDS, SessionId::as_str).to_owned());
        self.read(move |db| {
            let mut query = db.prepare_cached(&format!("SELECT * {from} LIMIT {limit}"))?;
            let found = query.query_map((whose, now, after), session)?;
            Ok(found.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    async fn count(&self, of: &SessionsOf, at_most: u32, now: Timestamp) -> Result<u32, Error> {
        let (from, whose) = question(of);
        self.read(move |db| {
            let mut query = db.prepare_cached(&format!("SELECT count(*) FROM (SELECT 1 {from} LIMIT {at_most})"))?;
            Ok(query.query_row((whose, now, PAST_IDS), |row| row.get(0))?)
        })
        .await
    }

    async fn revoked(&self, now: Timestamp) -> Result<Vec<Revoked>, Error> {
        let mut all = Vec::new();
        // What is revoked meanwhile, behind the place that was reached, is in force already.
        let (mut until, mut id) = (now, PAST_IDS.to_owned());
        loop {
            let page = self.read(move |db| Ok(revoked_after(db, until, &id)?)).await?;
            let is_last = page.len() < READ_AT_ONCE as usize;
            all.extend(page);
            match all.last() {
                Some(Revoked { session_id, until: end }) if !is_last => {
                    (until, id) = (*end, session_id.as_str().to_owned())
                }
                _ => return Ok(all),
            }
        }
    }

    async fn keep_key(&self, appid: &AppId, openid: &OpenId, key: SealedKey) -> Result<(), Error> {
        let (appid, openid) = (appid.clone(), openid.clone());
        self.write(move |db| Ok(session_keys::keep(db, &appid, &openid, &key)?)).await
    }

    async fn session_keys(&self, appid: &AppId, openid: &OpenId) -> Result<Vec<SealedKey>, Error> {
        let (appid, openid) = (appid.clone(), openid.clone());
        self.read(move |db| Ok(session_keys::list(db, &appid, &openid)?)).await
    }

    async fn people_with_keys(&self, from: Option<&str>, limit: u32) -> Result<KeysPage, Error> {
        let from = from.unwrap_or_default().to_owned();
        self.read(move |db| Ok(session_keys::people(db, &from, limit)?)).await
    }

    async fn reseal_key(&self, appid: &AppId, openid: &OpenId, from: &[u8], to: Vec<u8>) -> Result<bool, Error> {
        let (appid, openid, from) = (appid.clone(), openid.clone(), from.to_owned());
        self.write(move |db| Ok(session_keys::reseal(db, &appid, &openid, &from, &to)?)).await
    }

    async fn erase_keys(&self, appid: &AppId, openid: &OpenId) -> Result<(), Error> {
        let (appid, openid) = (appid.clone(), openid.clone());
        self.write(move |db| Ok(session_keys::erase(db, &appid, &openid)?)).await
    }

    async fn keep_access_token(&self, appid: &AppId, line: &'static str, token: SealedToken) -> Result<(), Error> {
        let appid = appid.clone();
        self.write(move |db| {
            let mut write = db.prepare_cached(
                "INSERT OR REPLACE INTO access_tokens (appid, line, sealed, expires_at) VALUES (?1, ?2, ?3, ?4)",
            )?;
            Ok(write.execute((&appid, line, &token.sealed, token.expires_at)).map(drop)?)
        })
        .await
    }

    async fn access_token(&self, appid: &AppId, line: &'static str) -> Result<Option<SealedToken>, Error> {
        let appid = appid.clone();
        self.read(move |db| {
            let mut query =
                db.prepare_cached("SELECT sealed, expires_at FROM access_tokens WHERE appid = ?1 AND line = ?2")?;
            let token =
                query.query_row((appid, line), |row| Ok(SealedToken { sealed: row.get(0)?, expires_at: row.get(1)? }));
            Ok(token.optional()?)
        })
        .await
    }

    async fn key_bundle(&self) -> Result<Option<Vec<u8>>, Error> {
        self.read(|db| Ok(key_bundle::get(db)?)).await
    }

    async fn replace_key_bundle(&self, from: Option<&[u8]>, to: &[u8]) -> Result<bool, Error> {
        let (from, to) = (from.map(<[u8]>::to_vec), to.to_vec());
        self.write(move |db| Ok(key_bundle::replace(db, from.as_deref(), &to)?)).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, Error> {
        let mut swept = 0;
        for (app, at) in self.read(|db| Ok(epochs::apps(db)?)).await? {
            self.end_rest_of_app(&app, at).await?;
        }
        for sql in SWEEPS {
            loop {
                // Each batch is a job of its own: what others have queued goes in between.
                let gone = self.write(move |db| Ok(db.prepare_cached(sql)?.execute((now, SWEPT_AT_ONCE))?)).await?;
                swept += gone as u64;
                if gone < SWEPT_AT_ONCE as usize {
                    break;
                }
            }
        }
        Ok(swept)
    }

    async fn ping(&self) -> Result<(), Error> {
        self.answers().await
    }
}

/// A page of [`REVOKED`].
fn revoked_after(db: &Connection, until: Timestamp, id: &str) -> rusqlite::Result<Vec<Revoked>> {
    let mut query = db.prepare_cached(REVOKED)?;
    let one = |row: &Row<'_>| Ok(Revoked { session_id: row.get(0)?, until: row.get(1)? });
    query.query_map((until, id, READ_AT_ONCE), one)?.collect()
}

impl Sqlite {
    /// Ends what the epoch of an app concerns, batch by batch: what others have queued goes in between.
    async fn end_rest_of_app(&self, appid: &str, at: Timestamp) -> Result<u64, Error> {
        let mut ended = 0;
        loop {
            let app = appid.to_owned();
            let some = self.write(move |db| Ok(epochs::end_some_of_app(db, &app, at, SWEPT_AT_ONCE)?)).await?;
            ended += some as u64;
            if some < SWEPT_AT_ONCE as usize {
                return Ok(ended);
            }
        }
    }
}

fn question(of: &SessionsOf) -> (&'static str, String) {
    match of {
        SessionsOf::Member(id) => (OF_MEMBER, id.as_str().to_owned()),
        SessionsOf::App(id) => (OF_APP, id.as_str().to_owned()),
    }
}

pub(super) fn open(db: &Connection, new: &NewSession) -> rusqlite::Result<Vec<SessionId>> {
    let NewSession { session, session_key, .. } = new;
    db.prepare_cached(
        "INSERT INTO sessions (session_id, member_id, appid, openid, created_at, expires_at, access_until)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, min(?6, ?7))",
    )?
    .execute((
        &session.session_id,
        &session.member_id,
        &session.appid,
        &session.openid,
        session.created_at,
        session.expires_at,
        new.access_until,
    ))?;
    let refresh_expires_at = new.refresh_expires_at.min(session.expires_at);
    rotation::issue(db, new.refresh, session, session.created_at, refresh_expires_at)?;
    // A record of the same code can be there when it has expired and was not swept yet.
    db.prepare_cached(
        "INSERT OR REPLACE INTO codes (hash, session_id, used_at, is_new, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute((new.code, &session.session_id, session.created_at, new.is_new, new.code_expires_at))?;
    if let Some(key) = session_key {
        session_keys::keep(db, &session.appid, &session.openid, key)?;
    }
    match new.max_sessions {
        Some(most) => make_room(db, session, most, new.access_until),
        None => Ok(Vec::new()),
    }
}

/// Ends the oldest sessions of the member of `new`, so that with it there are at most `most`.
fn make_room(
    db: &Connection,
    new: &Session,
    most: NonZeroU32,
    revoked_until: Timestamp,
) -> rusqlite::Result<Vec<SessionId>> {
    let now = new.created_at;
    let mut query = db.prepare_cached(
        "SELECT session_id FROM sessions
         WHERE member_id = ?1 AND ended = 0 AND expires_at > ?2 AND session_id <> ?3
         ORDER BY session_id DESC LIMIT -1 OFFSET ?4",
    )?;
    let surplus = query.query_map((&new.member_id, now, &new.session_id, most.get() - 1), |row| row.get(0))?;
    let surplus = surplus.collect::<rusqlite::Result<Vec<SessionId>>>()?;
    for id in &surplus {
        end(db, id, now, revoked_until)?;
    }
    Ok(surplus)
}

/// Ends a session, forgets whose it was, and writes its revocation, also when the session is not known: its tokens may
/// still be about. True when it was live.
pub(super) fn end(db: &Connection, id: &SessionId, now: Timestamp, until: Timestamp) -> rusqlite::Result<bool> {
    let mut mark = db.prepare_cached(
        "UPDATE sessions SET ended = 1, openid = NULL WHERE session_id = ?1 AND ended = 0 AND expires_at > ?2",
    )?;
    let was_live = mark.execute((id, now))? > 0;
    let mut revoke = db.prepare_cached(
        "INSERT INTO revocations (session_id, until)
         VALUES (?1, max(?2, coalesce((SELECT access_until FROM sessions WHERE session_id = ?1), 0)))
         ON CONFLICT (session_id) DO UPDATE SET until = max(until, excluded.until)",
    )?;
    revoke.execute((id, until))?;
    Ok(was_live)
}

pub(super) fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        session_id: row.get("session_id")?,
        member_id: row.get("member_id")?,
        appid: row.get("appid")?,
        openid: row.get("openid")?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
    })
}
