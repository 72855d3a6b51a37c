//! Specifications of [`Sessions`]: how many there may be, the end of many, and what overrides tokens.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::{ACCESS_TTL, SESSION_TTL, START, app, at, code, login, refresh, token};
use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId, SessionId};
use crate::store::{NewRoles, NewSession, Notice, NoticeOf, Revoked, Rotation, Session, Sessions, SessionsOf};

type Store = Arc<dyn Sessions>;

/// Login number `n` of `name`, in this app.
fn opening(name: &str, n: u64, appid: &str, now: Timestamp) -> NewSession {
    let mut new = login(name, now);
    new.session.appid = app(appid);
    new.refresh = token(&format!("{name}-{appid}-{n}"));
    new.code = code(&format!("{name}-{appid}-{n}"));
    new
}

async fn opened(store: &Store, name: &str, n: u64, appid: &str, now: Timestamp) -> Session {
    let new = opening(name, n, appid, now);
    let session = new.session.clone();
    assert_eq!(store.open(new).await.unwrap(), []);
    session
}

fn member(name: &str) -> MemberId {
    MemberId::parse(&format!("member-of-{name}")).unwrap()
}

async fn live(store: &Store, of: SessionsOf, now: Timestamp) -> Vec<Session> {
    store.list(&of, None, 10_000, now).await.unwrap()
}

async fn is_live(store: &Store, session: &Session, now: Timestamp) -> bool {
    store.find(&session.session_id, now).await.unwrap().is_some()
}

pub(in crate::store) async fn the_oldest_session_ends_when_there_are_too_many(store: Store) {
    let first = opened(&store, "alice", 0, "wx1", at(0)).await;
    let second = opened(&store, "alice", 1, "wx2", at(1)).await;
    let bob = opened(&store, "bob", 0, "wx1", at(0)).await;
    let third = NewSession { max_sessions: NonZeroU32::new(2), ..opening("alice", 2, "wx1", at(2)) };
    let id = third.session.session_id.clone();
    assert_eq!(store.open(third).await.unwrap(), std::slice::from_ref(&first.session_id));
    let mine = live(&store, SessionsOf::Member(member("alice")), at(3)).await;
    assert_eq!(mine.into_iter().map(|s| s.session_id).collect::<Vec<_>>(), [id, second.session_id]);
    assert!(is_live(&store, &bob, at(3)).await);
    let revoked = store.revoked(at(3)).await.unwrap();
    assert_eq!(revoked, [Revoked { session_id: first.session_id, until: at(2).plus(ACCESS_TTL) }]);
    assert_eq!(store.rotate(token("alice-wx1-0"), token("x"), refresh(at(3))).await.unwrap(), Rotation::Ended);

    // By a clock that was set back, the new one is the oldest, and still it is the one that was asked for.
    let early = NewSession { max_sessions: NonZeroU32::new(1), ..opening("alice", 3, "wx1", START) };
    let id = early.session.session_id.clone();
    assert_eq!(store.open(early).await.unwrap().len(), 2);
    let mine = live(&store, SessionsOf::Member(member("alice")), at(3)).await;
    assert_eq!(mine.into_iter().map(|s| s.session_id).collect::<Vec<_>>(), [id]);
}

pub(in crate::store) async fn of_twenty_logins_at_once_no_more_than_allowed_stay(store: Store) {
    let logins: Vec<_> = (0..20)
        .map(|n| {
            let new = NewSession { max_sessions: NonZeroU32::new(3), ..opening("alice", n, "wx1", at(n)) };
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.open(new).await.unwrap() })
        })
        .collect();
    let mut ended = HashSet::new();
    for login in logins {
        for id in login.await.unwrap() {
            assert!(ended.insert(id), "each ends once");
        }
    }
    assert_eq!(ended.len(), 17);
    assert_eq!(store.count(&SessionsOf::Member(member("alice")), 100, at(30)).await.unwrap(), 3);
}

pub(in crate::store) async fn the_end_of_a_member_spans_all_apps_and_spares_a_later_login(store: Store) {
    let here = opened(&store, "alice", 0, "wx1", at(0)).await;
    let there = opened(&store, "alice", 1, "wx2", at(10)).await;
    let bob = opened(&store, "bob", 0, "wx1", at(0)).await;
    let until = at(10).plus(ACCESS_TTL * 2);
    let ended = store.end_member(&member("alice"), at(10), until).await.unwrap();
    let later = opened(&store, "alice", 2, "wx1", at(10)).await;
    let both = HashSet::from([here.session_id, there.session_id]);
    assert_eq!(ended.iter().cloned().collect::<HashSet<_>>(), both);
    assert!(is_live(&store, &later, at(11)).await && is_live(&store, &bob, at(11)).await);
    let revoked = store.revoked(at(11)).await.unwrap();
    assert_eq!(revoked.into_iter().map(|r| r.session_id).collect::<HashSet<_>>(), both);
    let epoch = Notice::Member { member_id: member("alice"), at: at(10), until };
    assert_eq!(store.notices(at(11)).await.unwrap(), [epoch]);
    assert_eq!(store.rotate(token("alice-wx2-1"), token("x"), refresh(at(11))).await.unwrap(), Rotation::Ended);
}

pub(in crate::store) async fn an_end_spares_no_session_that_was_opened_where_the_clock_is_ahead(store: Store) {
    let ahead = [
        opened(&store, "alice", 0, "wx1", at(300)).await,
        opened(&store, "bob", 0, "wx1", at(300)).await,
        opened(&store, "carol", 0, "wx2", at(300)).await,
    ];
    let [alice, bob, carol] = ahead.map(|session| session.session_id);
    let until = at(10).plus(SESSION_TTL);
    assert_eq!(store.end_member(&member("alice"), at(10), until).await.unwrap(), std::slice::from_ref(&alice));
    assert_eq!(store.end_app(&app("wx1"), at(10), until).await.unwrap(), 1);
    let later = opened(&store, "bob", 1, "wx1", at(10)).await;
    for (id, is_live) in [(&alice, false), (&bob, false), (&carol, true), (&later.session_id, true)] {
        assert_eq!(store.find(id, at(300)).await.unwrap().is_some(), is_live);
    }
    // The epoch does not reach them: their tokens are refused by the session.
    let revoked = store.revoked(at(11)).await.unwrap().into_iter().map(|r| r.session_id);
    assert_eq!(revoked.collect::<HashSet<_>>(), HashSet::from([alice, bob]));
}

pub(in crate::store) async fn the_end_of_an_app_spares_other_apps_and_later_logins(store: Store) {
    let alice = opened(&store, "alice", 0, "wx1", at(0)).await;
    let bob = opened(&store, "bob", 0, "wx1", at(9)).await;
    let elsewhere = opened(&store, "alice", 1, "wx2", at(0)).await;
    let until = at(10).plus(SESSION_TTL);
    assert_eq!(store.end_app(&app("wx1"), at(10), until).await.unwrap(), 2);
    let later = opened(&store, "carol", 0, "wx1", at(10)).await;
    assert!(!is_live(&store, &alice, at(11)).await && !is_live(&store, &bob, at(11)).await);
    assert!(is_live(&store, &later, at(11)).await && is_live(&store, &elsewhere, at(11)).await);
    let epoch = Notice::App { appid: app("wx1"), at: at(10), until };
    assert_eq!(store.notices(at(11)).await.unwrap(), [epoch]);
    assert_eq!(store.rotate(token("alice-wx1-0"), token("x"), refresh(at(11))).await.unwrap(), Rotation::Ended);
    assert_eq!(live(&store, SessionsOf::App(app("wx1")), at(11)).await, [later]);

    // As when the first pass broke off: a session of before that is there now.
    let left = opened(&store, "dave", 0, "wx1", at(5)).await;
    store.sweep(at(12)).await.unwrap();
    assert!(!is_live(&store, &left, at(12)).await);
}

pub(in crate::store) async fn the_end_of_an_app_takes_thousands_of_sessions(store: Store) {
    let logins: Vec<_> = (0..1100)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { opened(&store, &format!("m{n}"), 0, "wx1", START).await })
        })
        .collect();
    for login in logins {
        login.await.unwrap();
    }
    assert_eq!(store.end_app(&app("wx1"), at(1), at(1).plus(SESSION_TTL)).await.unwrap(), 1100);
    assert_eq!(store.count(&SessionsOf::App(app("wx1")), 10_000, at(1)).await.unwrap(), 0);
    assert_eq!(store.revoked(at(1)).await.unwrap(), [], "the epoch stands for them");
}

pub(in crate::store) async fn an_epoch_never_moves_back_and_is_forgotten_at_its_end(store: Store) {
    store.end_member(&member("alice"), at(10), at(20)).await.unwrap();
    store.end_member(&member("alice"), at(5), at(15)).await.unwrap();
    let epoch = Notice::Member { member_id: member("alice"), at: at(10), until: at(20) };
    assert_eq!(store.notices(at(19)).await.unwrap(), [epoch]);
    assert_eq!(store.notices(at(20)).await.unwrap(), []);
    store.sweep(at(20)).await.unwrap();
    assert_eq!(store.notices(at(19)).await.unwrap(), [], "and swept");
}

pub(in crate::store) async fn whoever_is_about_to_forget_a_notice_is_told_how_long_it_lasts(store: Store) {
    let id = |name: &str| SessionId::parse(name).unwrap();
    let (alice, wx1) = (member("alice"), app("wx1"));
    let roles = NewRoles { member_id: alice.clone(), roles: vec!["vip".into()], at: at(10), until: at(100) };
    store.end(&id("unknown"), START, at(100)).await.unwrap();
    store.end(&id("another"), START, at(100)).await.unwrap();
    store.end_member(&alice, at(10), at(100)).await.unwrap();
    store.end_app(&wx1, at(10), at(100)).await.unwrap();
    store.announce_roles(roles.clone()).await.unwrap();
    let all = [
        NoticeOf::Session(id("unknown")),
        NoticeOf::Session(id("never")),
        NoticeOf::Member(alice.clone()),
        NoticeOf::Member(member("bob")),
        NoticeOf::App(wx1.clone()),
        NoticeOf::Roles(alice.clone()),
        NoticeOf::Roles(member("bob")),
    ];
    let session = |until| Notice::Session(Revoked { session_id: id("unknown"), until });
    let epochs = |at: Timestamp, until| {
        [Notice::Member { member_id: alice.clone(), at, until }, Notice::App { appid: wx1.clone(), at, until }]
    };
    let mut live = vec![session(at(100))];
    live.extend(epochs(at(10), at(100)));
    live.push(Notice::Roles(roles));
    assert_eq!(store.notices_of(&all, at(99)).await.unwrap(), live);
    assert_eq!(store.notices_of(&all, at(100)).await.unwrap(), []);
    assert_eq!(store.notices_of(&[], at(0)).await.unwrap(), []);
    // Each was prolonged in the meantime, as by another instance.
    store.end(&id("unknown"), at(50), at(150)).await.unwrap();
    store.end_member(&alice, at(60), at(160)).await.unwrap();
    store.end_app(&wx1, at(60), at(160)).await.unwrap();
    let mut live = vec![session(at(150))];
    live.extend(epochs(at(60), at(160)));
    assert_eq!(store.notices_of(&all, at(100)).await.unwrap(), live);
    assert_eq!(store.notices_of(&all, at(150)).await.unwrap(), &live[1..]);
}

pub(in crate::store) async fn of_two_changes_of_roles_the_one_that_arrives_last_counts(store: Store) {
    let change = |roles: &[&str], millis: u64, until: u64| NewRoles {
        member_id: member("alice"),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        at: START.plus(Duration::from_millis(millis)),
        until: at(until),
    };
    for (new, expected) in [
        (change(&["admin", "vip"], 10, 60), change(&["admin", "vip"], 10, 60)),
        (change(&["vip"], 10, 50), change(&["vip"], 11, 60)),
        // By a clock that is behind: its time is moved, so that whoever hears of both keeps this one.
        (change(&["late"], 5, 90), change(&["late"], 12, 90)),
        (change(&[], 20, 90), change(&[], 20, 90)),
    ] {
        assert_eq!(store.announce_roles(new).await.unwrap(), expected);
        assert_eq!(store.notices(at(1)).await.unwrap(), [Notice::Roles(expected)]);
    }
    assert_eq!(store.notices(at(90)).await.unwrap(), []);
    store.sweep(at(90)).await.unwrap();
    assert_eq!(store.notices(at(1)).await.unwrap(), []);
}

pub(in crate::store) async fn sessions_are_listed_page_by_page_newest_first(store: Store) {
    let mut sessions = Vec::new();
    for n in 0..7 {
        sessions.push(opened(&store, "alice", n, if n % 2 == 0 { "wx1" } else { "wx2" }, at(n)).await);
        opened(&store, "bob", n, "wx1", at(n)).await;
    }
    store.end(&sessions.remove(3).session_id, at(8), at(9)).await.unwrap();
    sessions.reverse();
    let of = SessionsOf::Member(member("alice"));
    let (mut all, mut after) = (Vec::new(), None::<SessionId>);
    loop {
        let page = store.list(&of, after.as_ref(), 2, at(10)).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.session_id.clone());
        all.extend(page);
    }
    assert_eq!(all, sessions);
    assert_eq!(live(&store, SessionsOf::App(app("wx1")), at(10)).await.len(), 4 + 7);
    assert_eq!(live(&store, of, START.plus(SESSION_TTL)).await.len(), 5, "the first has expired");
    assert_eq!(live(&store, SessionsOf::App(AppId::parse("wx3").unwrap()), at(10)).await, []);
}

pub(in crate::store) async fn sessions_are_counted_no_further_than_asked(store: Store) {
    for n in 0..5 {
        opened(&store, "alice", n, "wx1", at(n)).await;
    }
    for of in [SessionsOf::Member(member("alice")), SessionsOf::App(app("wx1"))] {
        for (at_most, counted) in [(0, 0), (3, 3), (5, 5), (9, 5)] {
            assert_eq!(store.count(&of, at_most, at(9)).await.unwrap(), counted);
        }
        assert_eq!(store.count(&of, 9, START.plus(SESSION_TTL)).await.unwrap(), 4);
    }
}
