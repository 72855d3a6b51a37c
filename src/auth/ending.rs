//! The end of sessions: on disk, and in force on this instance.
//!
//! Memory decides about access tokens, the store about everything else; the two must not differ for long. So a named
//! session is refused here before the store is asked (a refusal too strict does no harm), and when a write fails, which
//! does not mean that nothing was written, memory is read again from the store.

use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::ids::{AppId, MemberId, SessionId};
use crate::store::{Error, NewRoles, Notice, NoticeOf, RefreshHash, Revoked, Session, Sessions};
use crate::token::revocation::{Due, Revocations};

use super::Auth;

/// How much longer than its tokens a revocation is remembered. A clock that runs ahead for a while must not make the
/// sweep forget what is needed again once it was set right.
const CLOCK_FAULT: Duration = Duration::from_secs(2 * 3600);

/// What may be forgotten is asked for in parts of this size: a few milliseconds of the store's time.
const ASKED_AT_ONCE: usize = 1000;

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

/// Forgets what has expired, in memory and in the store. Returns how many rows went. The cost is that of what expires: the
/// store is asked for that alone, unless a write is in doubt.
///
/// # Errors
/// When the store cannot be read or written; memory forgets nothing then that the store may know to be needed.
pub async fn sweep(sessions: &dyn Sessions, revocations: &Revocations, now: Timestamp) -> Result<u64, Error> {
    let mut swept = 0;
    if revocations.take_doubt() {
        let unheard = Unheard::of(revocations);
        // A write first: one that is late is done, or never will be, when a later one is.
        swept = sessions.sweep(now).await?;
        resync(sessions, revocations, now).await?;
        unheard.heard();
    }
    let due = revocations.due(now);
    // First: the store may know a later end than memory does.
    for page in notices_of(&due).chunks(ASKED_AT_ONCE) {
        for notice in sessions.notices_of(page, now).await? {
            apply(revocations, &notice);
        }
    }
    revocations.forget(&due, now);
    Ok(swept + sessions.sweep(now).await?)
}

fn notices_of(due: &Due) -> Vec<NoticeOf> {
    let sessions = due.sessions.iter().cloned().map(NoticeOf::Session);
    let epochs = due.members.iter().cloned().map(NoticeOf::Member).chain(due.apps.iter().cloned().map(NoticeOf::App));
    sessions.chain(epochs).chain(due.roles.iter().cloned().map(NoticeOf::Roles)).collect()
}

/// Does a write that may end a session, and passes on how it went. A failed one may stand on disk all the same, at once or when a
/// disk that hangs goes on, and so may one that breaks off because whoever waits for it goes away: that stays in doubt until a
/// later write has gone well and everything has been read behind it.
async fn settled<T>(
    sessions: &dyn Sessions,
    revocations: &Revocations,
    clock: &Clock,
    write: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let before = revocations.take_doubt();
    let unheard = Unheard::of(revocations);
    let written = write.await;
    if written.is_ok() && !before {
        unheard.heard();
        return written;
    }
    match resync(sessions, revocations, clock.now()).await {
        Ok(()) if written.is_ok() => unheard.heard(),
        Ok(()) => {}
        Err(error) => tracing::warn!(%error, "revocations could not be read again; the next sweep tries once more"),
    }
    written
}

/// Memory may not have heard of what is being written: in doubt, unless it is said otherwise before this goes.
struct Unheard<'a>(Option<&'a Revocations>);

impl<'a> Unheard<'a> {
    fn of(revocations: &'a Revocations) -> Self {
        Self(Some(revocations))
    }

    fn heard(mut self) {
        self.0 = None;
    }
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if let Some(revocations) = self.0 {
            revocations.doubt();
        }
    }
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
        now.plus(self.access_life())
    }

    /// What [`Auth::access_until`] adds.
    pub(super) fn access_life(&self) -> Duration {
        self.section.access_ttl + CLOCK_FAULT
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
        self.settled(self.sessions.end(id, now, until)).await
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
        let ended = self.settled(self.sessions.end_all(member, appid, spared, now, until)).await?;
        for id in &ended {
            self.revocations.revoke_session(id, until);
        }
        Ok(ended.len() as u64)
    }

    /// Does a write that may end a session, and passes on how it went: [`settled`].
    pub(super) async fn settled<T>(&self, write: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        settled(&*self.sessions, &self.revocations, &self.clock, write).await
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
    use std::sync::Arc;

    use super::*;
    use crate::store::sqlite::Sqlite;

    const HOUR: Duration = Duration::from_secs(3600);

    fn session(name: &str) -> SessionId {
        SessionId::parse(name).unwrap()
    }

    async fn store() -> (Arc<Sqlite>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (Sqlite::open(&folder.path().join("wxgate.db")).unwrap(), folder)
    }

    const START: Timestamp = Timestamp::from_secs(1_763_688_000);

    #[tokio::test]
    async fn what_the_store_prolonged_is_not_forgotten() {
        let (store, _folder) = store().await;
        let (revocations, member) = (Revocations::new(), MemberId::parse("m").unwrap());
        store.end(&session("longer"), START, START.plus(2 * HOUR)).await.unwrap();
        store.end(&session("over"), START, START.plus(HOUR)).await.unwrap();
        store.end_member(&member, START, START.plus(2 * HOUR)).await.unwrap();
        // As when the store knows of a token that lives longer.
        for id in ["longer", "over"] {
            revocations.revoke_session(&session(id), START.plus(HOUR));
        }
        revocations.revoke_member(&member, START, START.plus(HOUR));
        sweep(&*store, &revocations, START.plus(HOUR)).await.unwrap();
        assert!(revocations.has_ended(&session("longer")) && !revocations.has_ended(&session("over")));
        assert_eq!(revocations.len(), 2);
        sweep(&*store, &revocations, START.plus(2 * HOUR)).await.unwrap();
        assert_eq!(revocations.len(), 0);
    }

    #[tokio::test]
    async fn after_a_write_in_doubt_the_sweep_learns_all_that_the_store_knows() {
        let (store, _folder) = store().await;
        let revocations = Revocations::new();
        // Its answer was lost.
        store.end(&session("unknown"), START, START.plus(2 * HOUR)).await.unwrap();
        let unheard = Unheard::of(&revocations);
        sweep(&*store, &revocations, START.plus(HOUR)).await.unwrap();
        assert_eq!(revocations.len(), 0, "nothing of memory is due, and nothing is in doubt");
        drop(unheard);
        sweep(&*store, &revocations, START.plus(HOUR)).await.unwrap();
        assert!(revocations.has_ended(&session("unknown")));
        assert!(!revocations.take_doubt());
    }

    #[tokio::test]
    async fn a_write_that_is_done_after_it_was_given_up_is_learned_of_by_the_next_one() {
        let (store, _folder) = store().await;
        let (revocations, clock) = (Revocations::new(), Clock::manual(START));
        let (member, app) = (MemberId::parse("m").unwrap(), AppId::parse("wx1").unwrap());
        // The disk hangs, and what is read meanwhile is as it was before.
        let late = async { Err::<(), _>(Error::Unavailable("late".into())) };
        settled(&*store, &revocations, &clock, late).await.unwrap_err();
        assert_eq!(revocations.len(), 0);
        // It goes on.
        store.end(&session("laptop"), START, START.plus(HOUR)).await.unwrap();
        // Whoever asks once more finds nothing left to end.
        let again = store.end_all(&member, &app, None, START, START.plus(HOUR));
        assert!(settled(&*store, &revocations, &clock, again).await.unwrap().is_empty());
        assert!(revocations.has_ended(&session("laptop")));
        assert!(!revocations.take_doubt());
    }

    #[tokio::test]
    async fn while_the_store_is_away_nothing_is_forgotten_and_a_doubt_remains() {
        let (store, _folder) = store().await;
        let revocations = Revocations::new();
        revocations.revoke_session(&session("s"), START.plus(HOUR));
        Unheard::of(&revocations).heard();
        assert!(!revocations.take_doubt());
        revocations.doubt();
        store.close().await;
        sweep(&*store, &revocations, START.plus(2 * HOUR)).await.unwrap_err();
        assert!(revocations.take_doubt());
        sweep(&*store, &revocations, START.plus(2 * HOUR)).await.unwrap_err();
        assert!(revocations.has_ended(&session("s")));
    }
}
