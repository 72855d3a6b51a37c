//! What was revoked before its time: asked on every request, changed rarely, read without locks.
//!
//! Three kinds of entry. A *session* is dead. An *epoch* of a member or of an app ends every session that was opened
//! before it; the one of all, set when the store was lost, does so for good. Each other entry lives until the last token that it concerns has expired, then it is [due](Revocations::due) and forgotten,
//! so the set is as large as what was revoked within one token life. The store keeps revocations durably; this is the
//! copy in memory.
//!
//! Roles that were changed ([`roles`](super::roles)) live beside them, and announce themselves in the same way.
//!
//! *Epochs and the second.* A token says in whole seconds when its login was. An epoch must end a login of the same
//! second that came before it and spare one that came after it. The session ids that the gateway makes are UUIDs of
//! version 7 and carry the millisecond (RFC 9562, section 5.7); where that agrees with `auth_time`, it decides, and a tie
//! spares: whoever sets an epoch also revokes by id the sessions that it ended. A token of another minter has no such
//! precision and dies with the whole second: there it is better to ask once too often for a login than to let a banned
//! member in.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use foldhash::quality::RandomState;
use papaya::{Compute, HashMap, HashMapRef, LocalGuard, Operation};
use tokio::sync::watch;

use super::Claims;
use super::freshness::Freshness;
use super::roles::ChangedRoles;
use crate::clock::{MAX_SKEW, Timestamp};
use crate::ids::{AppId, MemberId, SessionId};

/// How far the millisecond in a session id may lie from `auth_time` and still be that login's: the two are taken one
/// after the other, maybe on both sides of a second's end.
const AGREEMENT_MILLIS: i64 = 2000;

/// 1970, before every login.
const NEVER: i64 = 0;

/// Everything before `at` is revoked; may be forgotten at `until`.
#[derive(Debug, Clone, Copy)]
struct Epoch {
    at: Timestamp,
    until: Timestamp,
}

impl Epoch {
    fn later(self, other: Self) -> Self {
        Self { at: self.at.max(other.at), until: self.until.max(other.until) }
    }
}

/// The set. Share it in an `Arc`; it outlives a reload.
#[derive(Debug, Default)]
pub struct Revocations {
    /// Entries in all maps, never fewer than there are: raised before an insertion, lowered after a removal.
    entries: AtomicUsize,
    sessions: HashMap<SessionId, Timestamp, RandomState>,
    members: HashMap<MemberId, Epoch, RandomState>,
    apps: HashMap<AppId, Epoch, RandomState>,
    /// Milliseconds: every login before is dead; [`NEVER`] as a rule. Not counted in `entries`.
    all: AtomicI64,
    roles: ChangedRoles,
    /// Told at each new entry.
    changes: watch::Sender<()>,
    freshness: Freshness,
    /// See [`Revocations::doubt`].
    in_doubt: AtomicBool,
}

impl Revocations {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a token that says this is to be refused.
    pub fn is_revoked(&self, claims: &Claims) -> bool {
        let all = self.all.load(Ordering::Acquire);
        if all != NEVER && opened_before(claims, Timestamp::from_millis(all)) {
            return true;
        }
        // Most of the time nothing else is revoked; then this is all there is to do.
        if self.entries.load(Ordering::Acquire) == 0 {
            return false;
        }
        self.sessions.pin().contains_key(&claims.session_id)
            || self.members.pin().get(&claims.member_id).is_some_and(|epoch| opened_before(claims, epoch.at))
            || self.apps.pin().get(&claims.appid).is_some_and(|epoch| opened_before(claims, epoch.at))
    }

    /// Whether a session that was opened then is over by an epoch; for those who hold the session and not a token of it. What
    /// was opened in the very millisecond of an epoch is spared, as a token is.
    pub fn is_over(&self, member: &MemberId, appid: &AppId, opened_at: Timestamp) -> bool {
        let all = self.all.load(Ordering::Acquire);
        (all != NEVER && opened_at < Timestamp::from_millis(all))
            || self.members.pin().get(member).is_some_and(|epoch| opened_at < epoch.at)
            || self.apps.pin().get(appid).is_some_and(|epoch| opened_at < epoch.at)
    }

    /// When a session says that it was opened that is opened now: `now`, or the latest epoch that concerns it, where that was set by
    /// a clock that is ahead or leaves room for one. So no end of what was before takes it along. An epoch that no two clocks
    /// explain moves nothing.
    pub fn earliest_login(&self, member: &MemberId, appid: &AppId, now: Timestamp) -> Timestamp {
        let of_member = self.members.pin().get(member).map(|epoch| epoch.at);
        let of_app = self.apps.pin().get(appid).map(|epoch| epoch.at);
        let all = Timestamp::from_millis(self.all.load(Ordering::Acquire));
        let latest = of_member.max(of_app).map_or(all, |epoch| epoch.max(all));
        if latest <= now.plus(2 * MAX_SKEW) { latest.max(now) } else { now }
    }

    /// Whether this very session was revoked; for those who know no more of it than its id.
    pub fn has_ended(&self, id: &SessionId) -> bool {
        self.sessions.pin().contains_key(id)
    }

    /// Roles that were changed, whatever a token says.
    pub fn roles(&self) -> &ChangedRoles {
        &self.roles
    }

    /// The member has these roles, sorted, from `at` on. `until`: when the last token with others has expired.
    pub fn set_roles(&self, id: &MemberId, roles: &[String], at: Timestamp, until: Timestamp) {
        self.roles.set(id, roles, at, until);
        self.changes.send_replace(());
    }

    /// Ends one session. `until`: when the last access token of it has expired.
    pub fn revoke_session(&self, id: &SessionId, until: Timestamp) {
        self.put(&self.sessions, id, until, Ord::max);
    }

    /// As [`Self::revoke_session`], of many: room for all is made once, and those who listen are told once. What is known
    /// already costs a look.
    pub fn revoke_sessions<'a>(&self, all: impl ExactSizeIterator<Item = (&'a SessionId, Timestamp)>) {
        let sessions = self.sessions.pin();
        // While the map grows, every insertion takes part in moving what is there; of a million that is most of the work.
        sessions.reserve(all.len().saturating_sub(sessions.len()));
        let mut are_new = false;
        for (id, until) in all {
            if sessions.get(id).is_none_or(|known| *known < until) {
                self.put_pinned(&sessions, id, until, Ord::max);
                are_new = true;
            }
        }
        if are_new {
            self.changes.send_replace(());
        }
    }

    /// Ends the sessions of a member that were opened before `at`. `until`: when the last access token of theirs has
    /// expired. Epochs only ever move forward.
    pub fn revoke_member(&self, id: &MemberId, at: Timestamp, until: Timestamp) {
        self.put(&self.members, id, Epoch { at, until }, Epoch::later);
    }

    /// Ends the sessions of all members of an app that were opened before `at`; as [`Self::revoke_member`].
    pub fn revoke_app(&self, id: &AppId, at: Timestamp, until: Timestamp) {
        self.put(&self.apps, id, Epoch { at, until }, Epoch::later);
    }

    /// Ends every session that was opened before `at`, for as long as this set lives. Only ever moves forward.
    pub fn revoke_all(&self, at: Timestamp) {
        self.all.fetch_max(at.millis(), Ordering::AcqRel);
        self.changes.send_replace(());
    }

    /// How lately this set has heard of the others'.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Tells when something was revoked: what lives longer than one request has to ask again.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The entries that may be forgotten: their `until` is `now` or past. To be looked up where they are kept, then
    /// [forgotten](Self::forget).
    pub fn due(&self, now: Timestamp) -> Due {
        Due {
            sessions: over(&self.sessions, |until| *until <= now),
            members: over(&self.members, |epoch| epoch.until <= now),
            apps: over(&self.apps, |epoch| epoch.until <= now),
            roles: self.roles.due(now),
        }
    }

    /// Drops those of these entries that are over still.
    pub fn forget(&self, due: &Due, now: Timestamp) {
        self.drop_from(&self.sessions, &due.sessions, |until| *until <= now);
        self.drop_from(&self.members, &due.members, |epoch| epoch.until <= now);
        self.drop_from(&self.apps, &due.apps, |epoch| epoch.until <= now);
        self.roles.forget(&due.roles, now);
    }

    /// What is kept may hold more than this set has heard of: a write failed, or broke off, and may stand all the same.
    pub fn doubt(&self) {
        self.in_doubt.store(true, Ordering::Release);
    }

    /// Whether there is such a doubt; whoever asks has to settle it, or to say it anew.
    pub fn take_doubt(&self) -> bool {
        self.in_doubt.swap(false, Ordering::AcqRel)
    }

    /// How many entries there are; for metrics.
    pub fn len(&self) -> usize {
        self.entries.load(Ordering::Acquire)
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn put<K, V>(&self, map: &HashMap<K, V, RandomState>, key: &K, value: V, merge: fn(V, V) -> V)
    where
        K: Clone + Eq + std::hash::Hash,
        V: Copy,
    {
        self.put_pinned(&map.pin(), key, value, merge);
        self.changes.send_replace(());
    }

    fn put_pinned<K, V>(
        &self,
        map: &HashMapRef<'_, K, V, RandomState, LocalGuard<'_>>,
        key: &K,
        value: V,
        merge: fn(V, V) -> V,
    ) where
        K: Clone + Eq + std::hash::Hash,
        V: Copy,
    {
        self.entries.fetch_add(1, Ordering::AcqRel);
        let done = map
            .compute(key.clone(), |old| Operation::<V, ()>::Insert(old.map_or(value, |(_, &old)| merge(old, value))));
        if !matches!(done, Compute::Inserted(..)) {
            self.entries.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn drop_from<K, V>(&self, map: &HashMap<K, V, RandomState>, due: &[K], over: impl Fn(&V) -> bool)
    where
        K: Eq + std::hash::Hash,
    {
        let map = map.pin();
        for key in due {
            // Asked again at the removal: the entry may have been prolonged in between.
            if let Ok(Some(_)) = map.remove_if(key, |_, value| over(value)) {
                self.entries.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

/// Entries that may be forgotten.
#[derive(Debug, Default)]
pub struct Due {
    /// Revoked sessions.
    pub sessions: Vec<SessionId>,
    /// Members that have an epoch.
    pub members: Vec<MemberId>,
    /// Apps that have one.
    pub apps: Vec<AppId>,
    /// Members whose roles were changed.
    pub roles: Vec<MemberId>,
}

fn over<K: Clone + Eq + std::hash::Hash, V>(map: &HashMap<K, V, RandomState>, over: impl Fn(&V) -> bool) -> Vec<K> {
    map.pin().iter().filter(|(_, value)| over(value)).map(|(key, _)| key.clone()).collect()
}

/// Whether the login behind a token was before `at`.
fn opened_before(claims: &Claims, at: Timestamp) -> bool {
    match claims.auth_time.and_then(|auth_time| precise(&claims.session_id, auth_time)) {
        Some(login) => login < at,
        None => claims.auth_time.unwrap_or(claims.issued_at).secs() <= at.secs(),
    }
}

/// The millisecond of a login, from the id of its session.
fn precise(session: &SessionId, auth_time: Timestamp) -> Option<Timestamp> {
    let id = uuid::Uuid::try_parse(session.as_str()).ok().filter(|id| id.get_version_num() == 7)?;
    // The first 48 bits (RFC 9562, section 5.7).
    let millis = Timestamp::from_millis(i64::try_from(id.as_u128() >> 80).ok()?);
    (millis.millis().abs_diff(auth_time.millis()) <= AGREEMENT_MILLIS.unsigned_abs()).then_some(millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::OpenId;

    const LOGIN: i64 = 1_700_000_000_500;

    impl Revocations {
        fn sweep(&self, now: Timestamp) {
            self.forget(&self.due(now), now);
        }
    }

    fn ms(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn v7(millis: i64) -> String {
        let millis = u64::try_from(millis).unwrap();
        uuid::Builder::from_unix_timestamp_millis(millis, &[7; 10]).into_uuid().to_string()
    }

    fn token(session: &str, auth_time: Option<i64>) -> Claims {
        Claims {
            member_id: MemberId::parse("alice").unwrap(),
            session_id: SessionId::parse(session).unwrap(),
            appid: AppId::parse("wx1").unwrap(),
            openid: OpenId::parse("o1").unwrap(),
            unionid: None,
            roles: Vec::new(),
            user_id: None,
            jti: None,
            auth_time: auth_time.map(|t| Timestamp::from_secs(ms(t).secs())),
            issued_at: Timestamp::from_secs(ms(LOGIN).secs()),
            expires_at: ms(LOGIN + 7_200_000),
        }
    }

    fn member_epoch(at: i64) -> Revocations {
        let set = Revocations::new();
        set.revoke_member(&MemberId::parse("alice").unwrap(), ms(at), ms(at + 7_200_000));
        set
    }

    #[test]
    fn a_revoked_session_is_refused_and_no_other() {
        let set = Revocations::new();
        assert!(!set.is_revoked(&token("s1", None)));
        set.revoke_session(&SessionId::parse("s1").unwrap(), ms(LOGIN + 1));
        assert!(set.is_revoked(&token("s1", None)));
        assert!(!set.is_revoked(&token("s2", None)));
    }

    #[test]
    fn many_sessions_at_once_are_revoked_as_one_by_one_and_told_of_when_there_is_news() {
        let set = Revocations::new();
        let mut told = set.changes();
        let ids: Vec<SessionId> = (0..1000).map(|n| SessionId::parse(&format!("s{n}")).unwrap()).collect();
        let revoke = |until: i64| set.revoke_sessions(ids.iter().map(|id| (id, ms(until))));
        set.revoke_session(&ids[7], ms(LOGIN + 5));
        told.mark_unchanged();
        revoke(LOGIN + 3);
        assert!(told.has_changed().unwrap());
        assert_eq!(set.len(), 1000, "one was there");
        assert!(set.is_revoked(&token("s999", None)) && !set.is_revoked(&token("s1000", None)));
        told.mark_unchanged();
        revoke(LOGIN + 3);
        assert!(!told.has_changed().unwrap(), "nothing new");
        // The one that was to last longer still does.
        set.sweep(ms(LOGIN + 4));
        assert_eq!(set.len(), 1);
        revoke(LOGIN + 6);
        assert_eq!(set.len(), 1000);
    }

    #[test]
    fn an_epoch_spares_a_later_login_of_the_same_second_and_ends_an_earlier_one() {
        let set = member_epoch(LOGIN);
        assert!(set.is_revoked(&token(&v7(LOGIN - 1), Some(LOGIN - 1))));
        assert!(!set.is_revoked(&token(&v7(LOGIN + 1), Some(LOGIN + 1))));
        assert!(!set.is_revoked(&token(&v7(LOGIN), Some(LOGIN))), "a tie spares");
    }

    #[test]
    fn a_session_id_made_on_the_other_side_of_a_second_still_tells_the_millisecond() {
        let set = member_epoch(1_700_000_001_005);
        assert!(set.is_revoked(&token(&v7(1_700_000_001_001), Some(1_700_000_000_999))));
        assert!(!set.is_revoked(&token(&v7(1_700_000_001_009), Some(1_700_000_000_999))));
    }

    #[test]
    fn a_token_of_another_minter_dies_with_the_whole_second() {
        let set = member_epoch(LOGIN);
        for session in ["s1".to_owned(), v7(LOGIN + 86_400_000)] {
            assert!(set.is_revoked(&token(&session, Some(LOGIN + 400))));
            assert!(!set.is_revoked(&token(&session, Some(LOGIN + 500))), "the next second");
        }
        assert!(set.is_revoked(&token("s1", None)), "without auth_time, iat counts");
    }

    #[test]
    fn a_session_itself_is_held_against_the_same_epochs() {
        let set = member_epoch(LOGIN);
        set.revoke_app(&AppId::parse("wx2").unwrap(), ms(LOGIN), ms(LOGIN + 1));
        let (alice, bob) = (MemberId::parse("alice").unwrap(), MemberId::parse("bob").unwrap());
        let (wx1, wx2) = (AppId::parse("wx1").unwrap(), AppId::parse("wx2").unwrap());
        assert!(set.is_over(&alice, &wx1, ms(LOGIN - 1)) && set.is_over(&bob, &wx2, ms(LOGIN - 1)));
        assert!(!set.is_over(&alice, &wx1, ms(LOGIN)) && !set.is_over(&bob, &wx1, ms(LOGIN - 1)));
    }

    #[test]
    fn who_logs_in_where_the_clock_is_behind_comes_after_every_epoch() {
        let set = member_epoch(LOGIN + 4000);
        set.revoke_app(&AppId::parse("wx2").unwrap(), ms(LOGIN + 5000), ms(LOGIN + 9_000_000));
        let (alice, bob) = (MemberId::parse("alice").unwrap(), MemberId::parse("bob").unwrap());
        let (wx1, wx2) = (AppId::parse("wx1").unwrap(), AppId::parse("wx2").unwrap());
        assert_eq!(set.earliest_login(&bob, &wx1, ms(LOGIN)), ms(LOGIN), "nothing concerns it");
        assert_eq!(set.earliest_login(&alice, &wx1, ms(LOGIN)), ms(LOGIN + 4000));
        assert_eq!(set.earliest_login(&alice, &wx2, ms(LOGIN)), ms(LOGIN + 5000));
        assert_eq!(set.earliest_login(&alice, &wx2, ms(LOGIN + 5001)), ms(LOGIN + 5001));
        set.revoke_all(ms(LOGIN + 10_000));
        let opened = set.earliest_login(&alice, &wx2, ms(LOGIN));
        assert_eq!(opened, ms(LOGIN + 10_000));
        assert!(!set.is_revoked(&token(&v7(opened.millis()), Some(opened.millis()))));
        assert!(!set.is_over(&alice, &wx2, opened));
        assert_eq!(set.earliest_login(&alice, &wx2, ms(LOGIN - 1)), ms(LOGIN - 1), "no clock is that far ahead");
    }

    #[test]
    fn an_app_epoch_ends_the_sessions_of_that_app_alone() {
        let set = Revocations::new();
        set.revoke_app(&AppId::parse("wx1").unwrap(), ms(LOGIN + 60_000), ms(LOGIN + 90_000));
        assert!(set.is_revoked(&token("s1", None)));
        let other = Claims { appid: AppId::parse("wx2").unwrap(), ..token("s1", None) };
        assert!(!set.is_revoked(&other));
    }

    #[test]
    fn an_epoch_never_moves_back() {
        let set = member_epoch(LOGIN);
        set.revoke_member(&MemberId::parse("alice").unwrap(), ms(LOGIN - 60_000), ms(LOGIN - 1));
        assert!(set.is_revoked(&token(&v7(LOGIN - 1), Some(LOGIN - 1))));
        set.sweep(ms(LOGIN));
        assert!(!set.is_empty(), "nor is it forgotten earlier");
    }

    #[test]
    fn what_was_before_the_loss_of_the_store_stays_dead_for_every_app() {
        let set = Revocations::new();
        set.revoke_all(ms(LOGIN));
        set.revoke_all(ms(LOGIN - 60_000));
        set.sweep(ms(i64::MAX));
        assert!(set.is_revoked(&token(&v7(LOGIN - 1), Some(LOGIN - 1))));
        assert!(set.is_revoked(&Claims { appid: AppId::parse("wx2").unwrap(), ..token("s1", Some(LOGIN - 1)) }));
        assert!(!set.is_revoked(&token(&v7(LOGIN), Some(LOGIN))));
    }

    #[test]
    fn entries_go_when_the_last_token_they_concern_has_expired() {
        let set = member_epoch(LOGIN);
        set.revoke_session(&SessionId::parse("s1").unwrap(), ms(LOGIN + 10));
        set.revoke_session(&SessionId::parse("s1").unwrap(), ms(LOGIN + 5));
        assert_eq!(set.len(), 2);
        set.sweep(ms(LOGIN + 9));
        assert_eq!(set.len(), 2);
        set.sweep(ms(LOGIN + 10));
        assert_eq!(set.len(), 1);
        set.sweep(ms(LOGIN + 7_200_000));
        assert!(set.is_empty());
    }

    #[test]
    fn a_revocation_is_not_lost_beside_a_sweep() {
        let set = Revocations::new();
        std::thread::scope(|scope| {
            for n in 0..4 {
                let set = &set;
                scope.spawn(move || {
                    for i in 0..500 {
                        let id = SessionId::parse(&format!("s{}", i % 50)).unwrap();
                        set.revoke_session(&id, ms(i64::from(i % 2 == 0) * 100));
                        set.sweep(ms(50));
                        let kept = SessionId::parse(&format!("kept-{n}-{i}")).unwrap();
                        set.revoke_session(&kept, ms(100));
                        assert!(set.is_revoked(&token(kept.as_str(), None)));
                    }
                });
            }
        });
        set.sweep(ms(50));
        assert_eq!(set.len(), set.sessions.len());
        set.sweep(ms(100));
        assert_eq!(set.len(), 0);
    }
}
