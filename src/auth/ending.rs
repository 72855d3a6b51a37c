//! The end of sessions: on disk, and in force on this instance.
//!
//! Memory decides about access tokens, the store about everything else; the two must not differ for long. So a named
//! session is refused here before the store is asked (a refusal too strict does no harm), and when a write fails, which
//! does not mean that nothing was written, memory is read again from the store.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId, SessionId};
use crate::store::{Error, NewRoles, Notice, RefreshHash, Revoked, Session, Sessions};
use crate::token::revocation::Revocations;

use super::Auth;

/// How much longer than its tokens a revocation is remembered. A clock that runs ahead for a while must not make the
/// sweep forget what is needed again once it was set right.
const CLOCK_FAULT: Duration = Duration::from_secs(2 * 3600);

/// Puts every revocation, epoch and change of roles of the store in force here.
///
/// # Errors
/// When the store cannot be read.
pub async fn resync(sessions: &dyn Sessions, revocations: &Revocations, now: Timestamp) -> Result<(), Error> {
    let revoked = sessions.revoked(now).await?;
    revocations.revoke_sessions(revoked.iter().map(|Revoked { session_id, until }| (session_id, *until)));
    drop(revoked);
    for notice in sessions.notices(now).await? {
        apply(revocations, &notice);
    }
    Ok(())
}

/// Puts what the store says in force here: what was read at the start, and what another instance has announced since.
pub fn apply(revocations: &Revocations, notice: &Notice) {
    match notice {
        Notice::Session(Revoked { session_id, until }) => revocations.revoke_session(session_id, *until),
        Notice::Member { member_id, at, until } => revocations.revoke_member(member_id, *at, *until),
        Notice::App { appid, at, until } => revocations.revoke_app(appid, *at, *until),
        Notice::Roles(new) => put_roles(revocations, new),
    }
}

/// As [`apply`], of roles alone.
pub(super) fn put_roles(revocations: &Revocations, new: &NewRoles) {
    revocations.set_roles(&new.member_id, &new.roles, new.at, new.until);
}

/// Forgets what has expired, in memory and in the store. Returns how many rows went.
///
/// # Errors
/// When the store cannot be read or written; memory forgets nothing then that the store may know to be needed.
pub async fn sweep(sessions: &dyn Sessions, revocations: &Revocations, now: Timestamp) -> Result<u64, Error> {
    // First: the store may know a later end than memory does.
    resync(sessions, revocations, now).await?;
    revocations.sweep(now);
    sessions.sweep(now).await
}

impl Auth {
    /// Until when what ends now must be remembered: a token that it concerns may be of another minter whose key was imported,
    /// or of a time when tokens lived longer; `shown`, when that token expires by which it was ended, may be later still.
    /// [`CLOCK_FAULT`] comes on top.
    pub(super) fn revoked_until(&self, now: Timestamp, shown: Option<Timestamp>) -> Timestamp {
        let longest = now.plus(self.ring.longest_life().max(self.section.access_ttl));
        longest.max(shown.unwrap_or(now)).plus(CLOCK_FAULT)
    }

    /// Until when an access token may live that is minted now, with [`CLOCK_FAULT`] on top. A session is remembered as revoked
    /// for that long by the store itself, so this is enough wherever the session is known to be there.
    pub(super) fn access_until(&self, now: Timestamp) -> Timestamp {
        now.plus(self.section.access_ttl).plus(CLOCK_FAULT)
    }

    /// Whether an epoch has ended this session, which its record may not show yet.
    pub(super) fn is_over(&self, session: &Session) -> bool {
        self.revocations.is_over(&session.member_id, &session.appid, session.created_at)
    }

    /// Ends one session. True when it was live.
    ///
    /// # Errors
    /// When the store cannot write; its access tokens are refused here all the same.
    pub(super) async fn end(&self, id: &SessionId, now: Timestamp, until: Timestamp) -> Result<bool, Error> {
        self.revocations.revoke_session(id, until);
        self.settled(self.sessions.end(id, now, until).await).await
    }

    /// Ends the sessions of a member in one app, but for `spared`. Returns how many.
    ///
    /// # Errors
    /// When the store cannot write.
    pub(super) async fn end_all(
        &self,
        (member, appid): (&MemberId, &AppId),
        spared: Option<&SessionId>,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<u64, Error> {
        let ended = self.settled(self.sessions.end_all(member, appid, spared, now, until).await).await?;
        for id in &ended {
            self.revocations.revoke_session(id, until);
        }
        Ok(ended.len() as u64)
    }

    /// Passes on how a write went that may have ended a session. A failed one may stand on disk all the same.
    pub(super) async fn settled<T>(&self, written: Result<T, Error>) -> Result<T, Error> {
        if written.is_err()
            && let Err(error) = resync(&*self.sessions, &self.revocations, self.clock.now()).await
        {
            tracing::warn!(%error, "revocations could not be read again; the next sweep tries once more");
        }
        written
    }

    /// When `shown` is of a session that was ended, perhaps by a write whose answer was lost: in force here, too. Returns the
    /// session.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn catch_up(&self, shown: RefreshHash, now: Timestamp) -> Result<Option<SessionId>, Error> {
        let ended = self.sessions.ended_by_refresh(shown, now).await?;
        if let Some(id) = &ended {
            self.revocations.revoke_session(id, self.access_until(now));
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::Sqlite;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_sweep_learns_what_the_store_knows_before_it_forgets() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("wxgate.db")).unwrap();
        let start = Timestamp::from_secs(1_763_688_000);
        let revocations = Revocations::new();
        let (longer, unknown) = (SessionId::parse("longer").unwrap(), SessionId::parse("unknown").unwrap());
        for id in [&longer, &unknown] {
            store.end(id, start, start.plus(2 * HOUR)).await.unwrap();
        }
        // As when the store knows of a token that lives longer, and when the answer of a write was lost.
        revocations.revoke_session(&longer, start.plus(HOUR));
        sweep(&*store, &revocations, start.plus(HOUR)).await.unwrap();
        assert_eq!(revocations.len(), 2);
        sweep(&*store, &revocations, start.plus(2 * HOUR)).await.unwrap();
        assert_eq!(revocations.len(), 0);
    }
}
