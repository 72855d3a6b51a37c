//! Members and sessions, kept durably.
//!
//! Two traits, [`Members`] and [`Sessions`], with one contract each; [`sqlite`] implements both in one embedded file.
//! A call that changes something returns only when the change is on disk (contract, promise 7). An error, or a future
//! that is dropped, promises nothing: mostly nothing was written, but when the deadline passed during a commit the change
//! may stand. [`vault`] seals `session_key` before it gets here: a store never sees it in clear. HTTP, JSON of WeChat and
//! tokens are unknown here.

pub mod joint;
pub mod member;
pub mod postgres;
pub mod redis;
pub mod shared;
pub mod sqlite;
pub mod vault;

#[cfg(test)]
mod contract;
#[cfg(test)]
#[path = "../../tests/gateway/support/held.rs"]
mod held;

use std::fmt::Debug;
use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId, OpenId, SessionId};

pub use member::{HookAnswer, Identity, Member, MemberCursor, MemberFilter, MemberPage, Members, SignIn, SignedIn};

/// Why a store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, is full, or did not answer in time. The caller may try again later.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What it holds cannot be right: it is damaged, or was changed from outside.
    #[error("the store holds a damaged record: {0}")]
    Damaged(&'static str),
}

/// SHA-256 of a refresh token: what is stored of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RefreshHash(pub [u8; 32]);

/// SHA-256 of appid and login code: what is stored of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodeHash(pub [u8; 32]);

/// One login on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id, `sid` of its tokens.
    pub session_id: SessionId,
    /// Whose.
    pub member_id: MemberId,
    /// The app.
    pub appid: AppId,
    /// The person within it.
    pub openid: OpenId,
    /// The login, `auth_time`.
    pub created_at: Timestamp,
    /// Absolute end: login plus `session_ttl`.
    pub expires_at: Timestamp,
}

/// A new session and all that is written with it, in one transaction.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// The session.
    pub session: Session,
    /// Hash of its first refresh token.
    pub refresh: RefreshHash,
    /// When that token ends.
    pub refresh_expires_at: Timestamp,
    /// The login code that made it, remembered until `code_expires_at`.
    pub code: CodeHash,
    /// When the code may be forgotten (it is dead at WeChat by then).
    pub code_expires_at: Timestamp,
    /// Whether this was the member's first login.
    pub is_new: bool,
    /// The sealed session_key of (appid, openid); a web login has none.
    pub session_key: Option<SealedKey>,
    /// Until when its access tokens may live, before it is cut at the session's end: as long it is remembered as revoked
    /// at least, should it be ended.
    pub access_until: Timestamp,
    /// How many live sessions its member may have, this one included, in all apps together; the oldest end to make room.
    pub max_sessions: Option<NonZeroU32>,
}

/// A sealed session_key and when its exchange began. Of two, the one whose exchange began later is the newer, whichever
/// arrives first; the newest and the one before it are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// As [`vault`] made it.
    pub sealed: Vec<u8>,
    /// When the exchange with WeChat began.
    pub exchanged_at: Timestamp,
}

/// People who have sealed session_keys: a part of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeysPage {
    /// Who.
    pub people: Vec<(AppId, OpenId)>,
    /// Where to go on; `None` at the end.
    pub next: Option<String>,
}

/// A sealed access token of an app, and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedToken {
    /// As [`vault`] made it.
    pub sealed: Vec<u8>,
    /// When WeChat stops taking it.
    pub expires_at: Timestamp,
}

/// What a login code led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedCode {
    /// The session that it opened.
    pub session_id: SessionId,
    /// When.
    pub used_at: Timestamp,
    /// Whether that was the member's first login.
    pub is_new: bool,
}

/// What became of a refresh token that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// It was the current one and is now used: the successor stands. Or it was used less than the grace ago and its
    /// successor is still unused: the same successor.
    Rotated {
        /// The session.
        session: Session,
        /// End of the successor.
        refresh_expires_at: Timestamp,
    },
    /// It was used before, and the grace is over or the successor is used: the session has just been ended.
    Reused(Session),
    /// Its session was ended (logout, ban, reuse).
    Ended,
    /// Nothing known of it, or it expired.
    Unknown,
}

/// A revoked session: its tokens are refused until the last of them has expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The session.
    pub session_id: SessionId,
    /// When its last access token expires; the entry may be forgotten then.
    pub until: Timestamp,
}

/// Something that overrides what older tokens say. Written once, in force on every instance: at once where it was
/// written, within a second elsewhere, and from the first request on after a restart. Each may be forgotten at `until`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A session is over.
    Session(Revoked),
    /// Every session of this member that was opened before `at` is over.
    Member {
        /// The member.
        member_id: MemberId,
        /// The epoch.
        at: Timestamp,
        /// When the last access token that it concerns has expired.
        until: Timestamp,
    },
    /// Every session of this app that was opened before `at` is over.
    App {
        /// The app.
        appid: AppId,
        /// The epoch.
        at: Timestamp,
        /// When the last token that it concerns has expired.
        until: Timestamp,
    },
    /// The member has these roles, whatever a token says.
    Roles(NewRoles),
}

/// What a [`Notice`] is of: of each there is one at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeOf {
    /// [`Notice::Session`].
    Session(SessionId),
    /// [`Notice::Member`].
    Member(MemberId),
    /// [`Notice::App`].
    App(AppId),
    /// [`Notice::Roles`].
    Roles(MemberId),
}

/// Roles of a member that were changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRoles {
    /// The member.
    pub member_id: MemberId,
    /// All of them, sorted.
    pub roles: Vec<String>,
    /// When, by the clock of whoever changed them, or just after the change that the store held before: of two changes the
    /// one that arrived last counts, whatever the clocks of those who made them say.
    pub at: Timestamp,
    /// When the last token with other roles has expired.
    pub until: Timestamp,
}

/// Whose sessions are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionsOf {
    /// Those of a member, in all apps.
    Member(MemberId),
    /// Those of an app.
    App(AppId),
}

/// Sessions, refresh tokens, used login codes, sealed session keys, revocations.
#[async_trait]
pub trait Sessions: Send + Sync + Debug {
    /// Writes a new session with everything that belongs to it, at once; its session_key is kept by the rule of
    /// [`SealedKey`]. A record of the same code is replaced (WeChat took the code again, so the old one is of the past).
    /// Where the member has more than [`NewSession::max_sessions`] then, the oldest others are ended in the same
    /// transaction, as [`Sessions::end`] does; they are returned.
    /// [`Error::Damaged`] when the session or the refresh token is there already; then nothing is written.
    async fn open(&self, new: NewSession) -> Result<Vec<SessionId>, Error>;

    /// The session of this id, unless it was ended or has expired at `now`.
    async fn find(&self, id: &SessionId, now: Timestamp) -> Result<Option<Session>, Error>;

    /// Whose session of which app this is, or was when it was ended, as long as it would not have expired at `now`.
    async fn owner_of(&self, id: &SessionId, now: Timestamp) -> Result<Option<(MemberId, AppId)>, Error>;

    /// As [`Sessions::find`], for one whose access token is about to be renewed: writes down that a token of it may live until
    /// `access_until` ([`NewSession::access_until`]), before there is one.
    async fn prolong(&self, id: &SessionId, now: Timestamp, access_until: Timestamp) -> Result<Option<Session>, Error>;

    /// What this code led to, if it was used and is remembered.
    async fn used_code(&self, code: &CodeHash, now: Timestamp) -> Result<Option<UsedCode>, Error>;

    /// Uses `shown`: writes consumption and `successor` together, or finds that this was done before. Of any number of
    /// calls at once one is first. Reuse ends the session and writes its revocation in the same transaction.
    /// [`Error::Damaged`] when it was used within the grace with another `successor`: that one's text is lost, and a
    /// second one must not stand beside it (instances that do not share the refresh key).
    async fn rotate(&self, shown: RefreshHash, successor: RefreshHash, use_: RefreshUse) -> Result<Rotation, Error>;

    /// The live session that this unexpired refresh token belongs to (current or used), without using it.
    async fn find_by_refresh(&self, shown: RefreshHash, now: Timestamp) -> Result<Option<Session>, Error>;

    /// The session of this unexpired refresh token, if it was ended.
    async fn ended_by_refresh(&self, shown: RefreshHash, now: Timestamp) -> Result<Option<SessionId>, Error>;

    /// Ends one session, forgets whose it was, and writes its revocation, also when the session is not known here (a
    /// token of a shared key ring may name it). True when it was live. The revocation lasts until `revoked_until`, and
    /// until the session's access tokens have expired ([`NewSession::access_until`], raised by each refresh and renewal); it
    /// never gets shorter.
    async fn end(&self, id: &SessionId, now: Timestamp, revoked_until: Timestamp) -> Result<bool, Error>;

    /// Ends all live sessions of a member in one app, but for `spared`, as [`Sessions::end`] does; returns them.
    async fn end_all(
        &self,
        member: &MemberId,
        appid: &AppId,
        spared: Option<&SessionId>,
        now: Timestamp,
        revoked_until: Timestamp,
    ) -> Result<Vec<SessionId>, Error>;

    /// Ends all live sessions of a member, in all apps, as [`Sessions::end`] does, and writes the epoch of the member
    /// ([`Notice::Member`]) with them: a token of a session that is not known here ends, too. A session that is there ends
    /// also when it says that it was opened after `at` (where it was opened the clock may be ahead); one that is opened later
    /// is spared. An epoch only ever moves forward. Returns the sessions.
    async fn end_member(
        &self,
        member: &MemberId,
        at: Timestamp,
        revoked_until: Timestamp,
    ) -> Result<Vec<SessionId>, Error>;

    /// Writes the epoch of an app ([`Notice::App`]); once that is on disk, ends its sessions that were opened before `at`,
    /// a part at a time, without a revocation for each. Those that are there and say that they were opened later end, too,
    /// each with its revocation until `until`. Returns how many ended. What is left when that breaks off is ended by
    /// [`Sessions::sweep`], while the epoch lasts: so `until` must not be before the end of the sessions.
    async fn end_app(&self, appid: &AppId, at: Timestamp, until: Timestamp) -> Result<u64, Error>;

    /// Writes down that the member's roles have changed ([`Notice::Roles`]), in place of what was written before. Returns what
    /// stands now: its time is later than that of what it replaces, so that whoever hears of both keeps this one.
    async fn announce_roles(&self, roles: NewRoles) -> Result<NewRoles, Error>;

    /// Live epochs and roles, for loading at start. Revocations of single sessions are in [`Sessions::revoked`].
    async fn notices(&self, now: Timestamp) -> Result<Vec<Notice>, Error>;

    /// At most `limit` live sessions, newest first (by id, which begins with the time), after the last one of the page
    /// before. Costs the same on the last page as on the first.
    async fn list(
        &self,
        of: &SessionsOf,
        after: Option<&SessionId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Session>, Error>;

    /// How many live sessions there are, counted no further than `at_most`.
    async fn count(&self, of: &SessionsOf, at_most: u32, now: Timestamp) -> Result<u32, Error>;

    /// Those of these notices that are live. For whoever is about to forget them: here it may stand that they last longer. The
    /// cost is that of so many look-ups, whatever else there is.
    async fn notices_of(&self, of: &[NoticeOf], now: Timestamp) -> Result<Vec<Notice>, Error>;

    /// Live revocations, for loading at start.
    async fn revoked(&self, now: Timestamp) -> Result<Vec<Revoked>, Error>;

    /// Keeps a sealed session_key of an exchange that opened no session, as [`Sessions::open`] does with the one of a
    /// login.
    async fn keep_key(&self, appid: &AppId, openid: &OpenId, key: SealedKey) -> Result<(), Error>;

    /// The sealed session_keys of a person: newest first, at most two.
    async fn session_keys(&self, appid: &AppId, openid: &OpenId) -> Result<Vec<SealedKey>, Error>;

    /// People who have sealed session_keys, about `limit` of them, and where to go on; `None`: that is all. Whoever has some
    /// all the while is found, perhaps twice; in no order. The place is opaque, and good for as long as one walk takes.
    async fn people_with_keys(&self, from: Option<&str>, limit: u32) -> Result<KeysPage, Error>;

    /// Puts `to` in the place of `from`, if that is one of the person's two still: the same session_key, sealed anew. True
    /// when it was.
    async fn reseal_key(&self, appid: &AppId, openid: &OpenId, from: &[u8], to: Vec<u8>) -> Result<bool, Error>;

    /// Forgets the sealed session_keys of a person.
    async fn erase_keys(&self, appid: &AppId, openid: &OpenId) -> Result<(), Error>;

    /// Keeps the sealed access token of an app, in place of the one before it on the same line (WeChat has two, which do
    /// not touch each other).
    async fn keep_access_token(&self, appid: &AppId, line: &'static str, token: SealedToken) -> Result<(), Error>;

    /// The sealed access token of an app on this line, also when it has expired.
    async fn access_token(&self, appid: &AppId, line: &'static str) -> Result<Option<SealedToken>, Error>;

    /// The sealed keys of the deployment ([`Bundle`](crate::keyfile::Bundle)), if they are kept here.
    async fn key_bundle(&self) -> Result<Option<Vec<u8>>, Error>;

    /// Puts `to` in the place of `from`, if that is what is there (`None`: nothing); true when it was. Of any number of calls at
    /// once with the same `from` one does it. After an error it may have been done.
    async fn replace_key_bundle(&self, from: Option<&[u8]>, to: &[u8]) -> Result<bool, Error>;

    /// Deletes what has expired at `now`: sessions, refresh tokens, codes, revocations, notices. Before an end is forgotten, what
    /// it left when it broke off is ended. Returns how many rows went.
    async fn sweep(&self, now: Timestamp) -> Result<u64, Error>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), Error>;
}

/// The times of one refresh.
#[derive(Debug, Clone, Copy)]
pub struct RefreshUse {
    /// Now.
    pub now: Timestamp,
    /// How long a used token still yields its successor.
    pub grace: Duration,
    /// End of a new successor, before it is cut at the session's end.
    pub refresh_expires_at: Timestamp,
    /// Until when a session that ends by reuse stays in the revocation list, at least. Of one that goes on, how long the
    /// access token that this use leads to may live: raises the session's [`NewSession::access_until`].
    pub revoked_until: Timestamp,
}
