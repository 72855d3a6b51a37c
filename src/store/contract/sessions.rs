//! Specifications of [`Sessions`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::{ACCESS_TTL, REFRESH_TTL, SESSION_TTL, START, app, at, code, key, login, person, refresh, token};
use crate::ids::SessionId;
use crate::store::{Error, NewSession, RefreshUse, Revoked, Rotation, SealedToken, Session, Sessions, UsedCode};

type Store = Arc<dyn Sessions>;

/// Opens a session of `name` at the start and returns it.
async fn opened(store: &Store, name: &str) -> Session {
    let new = login(name, START);
    let session = new.session.clone();
    store.open(new).await.unwrap();
    session
}

async fn rotate(store: &Store, shown: &str, successor: &str, seconds: u64) -> Rotation {
    store.rotate(token(shown), token(successor), refresh(at(seconds))).await.unwrap()
}

fn rotated(session: &Session, seconds: u64) -> Rotation {
    Rotation::Rotated { session: session.clone(), refresh_expires_at: at(seconds).plus(REFRESH_TTL) }
}

pub(in crate::store) async fn an_opened_session_is_found_with_its_code_and_its_key(store: Store) {
    let session = opened(&store, "alice").await;
    assert_eq!(store.find(&session.session_id, at(1)).await.unwrap(), Some(session.clone()));
    let used = UsedCode { session_id: session.session_id, used_at: START, is_new: true };
    assert_eq!(store.used_code(&code("alice"), at(1)).await.unwrap(), Some(used));
    assert_eq!(store.used_code(&code("bob"), at(1)).await.unwrap(), None);
    let keys = store.session_keys(&app("wx1"), &person("alice")).await.unwrap();
    assert_eq!(keys, [key("alice", START)]);
    assert_eq!(store.session_keys(&app("wx2"), &person("alice")).await.unwrap(), []);
}

pub(in crate::store) async fn a_session_ends_at_its_end(store: Store) {
    let session = opened(&store, "alice").await;
    let last = session.expires_at.minus(Duration::from_millis(1));
    assert!(store.find(&session.session_id, last).await.unwrap().is_some());
    assert!(store.find(&session.session_id, session.expires_at).await.unwrap().is_none());
    assert!(!store.end(&session.session_id, session.expires_at, session.expires_at).await.unwrap());
}

pub(in crate::store) async fn whose_a_session_was_is_known_until_it_would_have_expired(store: Store) {
    let session = opened(&store, "alice").await;
    let owner = async |seconds| store.owner_of(&session.session_id, at(seconds)).await.unwrap();
    let known = Some((session.member_id.clone(), session.appid.clone()));
    assert_eq!(owner(1).await, known);
    store.end(&session.session_id, at(2), at(900)).await.unwrap();
    assert_eq!(store.find(&session.session_id, at(3)).await.unwrap(), None);
    assert_eq!(owner(3).await, known, "though it was ended");
    assert_eq!(owner(SESSION_TTL.as_secs()).await, None);
    let nobody = SessionId::parse("nobody").unwrap();
    assert_eq!(store.owner_of(&nobody, at(3)).await.unwrap(), None);
}

pub(in crate::store) async fn a_code_is_remembered_until_it_may_be_forgotten_and_can_then_come_back(store: Store) {
    opened(&store, "alice").await;
    assert!(store.used_code(&code("alice"), at(299)).await.unwrap().is_some());
    assert!(store.used_code(&code("alice"), at(300)).await.unwrap().is_none());
    let again = NewSession { refresh: token("other"), is_new: false, ..login("alice", at(400)) };
    let session_id = again.session.session_id.clone();
    store.open(again).await.unwrap();
    let used = UsedCode { session_id, used_at: at(400), is_new: false };
    assert_eq!(store.used_code(&code("alice"), at(401)).await.unwrap(), Some(used));
}

pub(in crate::store) async fn a_session_that_exists_already_is_refused_and_nothing_of_it_is_written(store: Store) {
    let session = opened(&store, "alice").await;
    let twice = NewSession { session, ..login("bob", START) };
    assert!(matches!(store.open(twice).await, Err(Error::Damaged(_))));
    let same_token = NewSession { refresh: token("alice-0"), ..login("bob", START) };
    assert!(matches!(store.open(same_token.clone()).await, Err(Error::Damaged(_))));
    assert_eq!(store.find(&same_token.session.session_id, START).await.unwrap(), None);
    assert_eq!(store.used_code(&code("bob"), START).await.unwrap(), None);
    assert_eq!(store.session_keys(&app("wx1"), &person("bob")).await.unwrap(), []);
}

pub(in crate::store) async fn a_refresh_token_rotates_again_and_again(store: Store) {
    let session = opened(&store, "alice").await;
    for n in 0..5 {
        let (shown, successor) = (format!("alice-{n}"), format!("alice-{}", n + 1));
        assert_eq!(rotate(&store, &shown, &successor, 1000 * n).await, rotated(&session, 1000 * n));
    }
}

pub(in crate::store) async fn a_repeated_refresh_yields_the_same_successor_until_that_is_used(store: Store) {
    let session = opened(&store, "alice").await;
    assert_eq!(rotate(&store, "alice-0", "alice-1", 10).await, rotated(&session, 10));
    // The successor keeps the end that it got when it was made.
    assert_eq!(rotate(&store, "alice-0", "alice-1", 39).await, rotated(&session, 10));
    assert_eq!(rotate(&store, "alice-1", "alice-2", 39).await, rotated(&session, 39));
    assert_eq!(rotate(&store, "alice-0", "alice-1", 39).await, Rotation::Reused(session));
    assert_eq!(rotate(&store, "alice-2", "alice-3", 39).await, Rotation::Ended);
}

pub(in crate::store) async fn a_repeated_refresh_after_the_grace_is_reuse_and_ends_the_session(store: Store) {
    let session = opened(&store, "alice").await;
    rotate(&store, "alice-0", "alice-1", 10).await;
    assert_eq!(rotate(&store, "alice-0", "alice-1", 40).await, Rotation::Reused(session.clone()));
    assert_eq!(rotate(&store, "alice-0", "alice-1", 40).await, Rotation::Ended);
    assert_eq!(rotate(&store, "alice-1", "alice-2", 40).await, Rotation::Ended);
    assert_eq!(store.find(&session.session_id, at(40)).await.unwrap(), None);
    let revoked = Revoked { session_id: session.session_id, until: at(40).plus(ACCESS_TTL) };
    assert_eq!(store.revoked(at(40)).await.unwrap(), [revoked]);
}

pub(in crate::store) async fn a_token_of_any_earlier_generation_is_reuse(store: Store) {
    for old in 0..4_u64 {
        let name = format!("member{old}");
        let session = opened(&store, &name).await;
        for n in 0..4 {
            rotate(&store, &format!("{name}-{n}"), &format!("{name}-{}", n + 1), 86_400 * n).await;
        }
        store.sweep(at(86_400 * 4)).await.unwrap();
        let shown = format!("{name}-{old}");
        let again = rotate(&store, &shown, &format!("{name}-{}", old + 1), 86_400 * 4).await;
        assert_eq!(again, Rotation::Reused(session), "generation {old}");
    }
}

pub(in crate::store) async fn of_fifty_refreshes_at_once_all_get_one_successor(store: Store) {
    let session = opened(&store, "alice").await;
    let uses: Vec<_> = (0..50)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { rotate(&store, "alice-0", "alice-1", 10).await })
        })
        .collect();
    for one in uses {
        assert_eq!(one.await.unwrap(), rotated(&session, 10));
    }
    assert_eq!(rotate(&store, "alice-1", "alice-2", 11).await, rotated(&session, 11));
}

pub(in crate::store) async fn of_many_successors_raced_for_one_token_one_stands(store: Store) {
    opened(&store, "alice").await;
    let uses: Vec<_> = (0..20)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                store.rotate(token("alice-0"), token(&format!("successor-{n}")), refresh(at(10))).await.is_ok()
            })
        })
        .collect();
    let mut won = 0;
    for one in uses {
        won += u32::from(one.await.unwrap());
    }
    assert_eq!(won, 1, "another successor cannot be handed out, for nobody knows the one that stands");
    let mut standing = 0;
    for n in 0..20 {
        let found = store.find_by_refresh(token(&format!("successor-{n}")), at(10)).await.unwrap();
        standing += u32::from(found.is_some());
    }
    assert_eq!(standing, 1);
}

pub(in crate::store) async fn a_clock_that_was_set_back_is_no_reuse(store: Store) {
    let session = opened(&store, "alice").await;
    assert_eq!(rotate(&store, "alice-0", "alice-1", 7200).await, rotated(&session, 7200));
    assert_eq!(rotate(&store, "alice-0", "alice-1", 3600).await, rotated(&session, 7200));
}

pub(in crate::store) async fn a_refresh_token_never_outlives_its_session(store: Store) {
    let new = login("alice", START);
    let late = NewSession { refresh_expires_at: START.plus(SESSION_TTL * 2), ..new.clone() };
    store.open(late).await.unwrap();
    let near_the_end = new.session.expires_at.minus(Duration::from_secs(60));
    let rotation = store.rotate(token("alice-0"), token("alice-1"), refresh(near_the_end)).await.unwrap();
    let refresh_expires_at = new.session.expires_at;
    assert_eq!(rotation, Rotation::Rotated { session: new.session, refresh_expires_at });
    let after = store.rotate(token("alice-1"), token("alice-2"), refresh(refresh_expires_at)).await.unwrap();
    assert_eq!(after, Rotation::Unknown);
}

pub(in crate::store) async fn an_expired_or_unknown_refresh_token_is_unknown(store: Store) {
    opened(&store, "alice").await;
    assert_eq!(rotate(&store, "nonsense", "alice-1", 0).await, Rotation::Unknown);
    assert_eq!(rotate(&store, "alice-0", "alice-1", REFRESH_TTL.as_secs()).await, Rotation::Unknown);
    assert_eq!(store.revoked(START).await.unwrap(), []);
}

pub(in crate::store) async fn a_refresh_token_tells_its_session_without_being_used(store: Store) {
    let session = opened(&store, "alice").await;
    assert_eq!(store.find_by_refresh(token("alice-0"), at(1)).await.unwrap(), Some(session.clone()));
    assert_eq!(rotate(&store, "alice-0", "alice-1", 2).await, rotated(&session, 2));
    for known in ["alice-0", "alice-1"] {
        assert_eq!(store.find_by_refresh(token(known), at(3)).await.unwrap(), Some(session.clone()));
    }
    assert_eq!(store.find_by_refresh(token("alice-2"), at(3)).await.unwrap(), None);
    store.end(&session.session_id, at(4), at(4).plus(ACCESS_TTL)).await.unwrap();
    assert_eq!(store.find_by_refresh(token("alice-1"), at(5)).await.unwrap(), None);
}

pub(in crate::store) async fn an_ended_session_is_not_found_and_does_not_refresh(store: Store) {
    let session = opened(&store, "alice").await;
    let until = at(1).plus(ACCESS_TTL);
    assert!(store.end(&session.session_id, at(1), until).await.unwrap());
    assert!(!store.end(&session.session_id, at(1), until).await.unwrap());
    assert_eq!(store.find(&session.session_id, at(1)).await.unwrap(), None);
    assert_eq!(rotate(&store, "alice-0", "alice-1", 2).await, Rotation::Ended);
    assert_eq!(store.revoked(at(2)).await.unwrap(), [Revoked { session_id: session.session_id, until }]);
}

pub(in crate::store) async fn ending_an_unknown_session_revokes_its_tokens_all_the_same(store: Store) {
    let foreign = SessionId::parse("made-elsewhere").unwrap();
    assert!(!store.end(&foreign, START, at(60)).await.unwrap());
    assert_eq!(store.revoked(START).await.unwrap(), [Revoked { session_id: foreign, until: at(60) }]);
}

pub(in crate::store) async fn a_revocation_lives_until_its_end_and_never_gets_shorter(store: Store) {
    let new = NewSession { access_until: START, ..login("alice", START) };
    let session = new.session.clone();
    store.open(new).await.unwrap();
    let id = &session.session_id;
    for until in [at(60), at(90), at(30)] {
        store.end(id, START, until).await.unwrap();
    }
    store.sweep(at(89)).await.unwrap();
    assert_eq!(store.revoked(at(89)).await.unwrap(), [Revoked { session_id: id.clone(), until: at(90) }]);
    assert_eq!(store.revoked(at(90)).await.unwrap(), []);
}

pub(in crate::store) async fn a_revocation_outlasts_the_access_tokens_of_its_session(store: Store) {
    let until = async |name: &str, session: &Session| {
        let revoked = store.revoked(START).await.unwrap();
        let found = revoked.into_iter().find(|revoked| revoked.session_id == session.session_id);
        found.unwrap_or_else(|| panic!("{name} is not revoked")).until
    };
    // The caller's own idea of it is shorter: the life of an access token was lowered since.
    let alice = opened(&store, "alice").await;
    store.end(&alice.session_id, at(1), at(60)).await.unwrap();
    assert_eq!(until("alice", &alice).await, START.plus(ACCESS_TTL));

    let bob = opened(&store, "bob").await;
    rotate(&store, "bob-0", "bob-1", 600).await;
    let shorter = RefreshUse { revoked_until: at(900), ..refresh(at(800)) };
    store.rotate(token("bob-1"), token("bob-2"), shorter).await.unwrap();
    store.end_all(&bob.member_id, &bob.appid, None, at(900), at(960)).await.unwrap();
    assert_eq!(until("bob", &bob).await, at(600).plus(ACCESS_TTL));

    // A repeated refresh yields an access token, too.
    let carol = opened(&store, "carol").await;
    rotate(&store, "carol-0", "carol-1", 600).await;
    rotate(&store, "carol-0", "carol-1", 610).await;
    let reuse = RefreshUse { revoked_until: at(960), ..refresh(at(900)) };
    let reused = store.rotate(token("carol-0"), token("carol-1"), reuse).await.unwrap();
    assert_eq!(reused, Rotation::Reused(carol.clone()));
    assert_eq!(until("carol", &carol).await, at(610).plus(ACCESS_TTL));

    let short = login("dave", START);
    let session = Session { expires_at: at(1000), ..short.session.clone() };
    store.open(NewSession { session: session.clone(), ..short }).await.unwrap();
    store.end(&session.session_id, at(1), at(2)).await.unwrap();
    assert_eq!(until("dave", &session).await, at(1000), "no token outlives its session");
}

pub(in crate::store) async fn a_session_is_prolonged_while_it_lives_and_never_past_its_end(store: Store) {
    let new = login("alice", START);
    let id = new.session.session_id.clone();
    store.open(new.clone()).await.unwrap();
    assert_eq!(store.prolong(&id, at(100), at(100).plus(SESSION_TTL)).await.unwrap(), Some(new.session.clone()));
    assert_eq!(store.prolong(&id, at(101), at(200)).await.unwrap(), Some(new.session.clone()), "never shorter");
    assert_eq!(store.prolong(&id, new.session.expires_at, at(200)).await.unwrap(), None);
    store.end(&id, at(200), at(300)).await.unwrap();
    let revoked = Revoked { session_id: id.clone(), until: new.session.expires_at };
    assert_eq!(store.revoked(at(300)).await.unwrap(), [revoked]);
    assert_eq!(store.prolong(&id, at(201), at(300)).await.unwrap(), None, "it has ended");
    assert_eq!(store.prolong(&SessionId::new_v7(START), at(1), at(300)).await.unwrap(), None);
}

pub(in crate::store) async fn an_ended_session_is_told_by_its_refresh_tokens(store: Store) {
    let session = opened(&store, "alice").await;
    rotate(&store, "alice-0", "alice-1", 10).await;
    assert_eq!(store.ended_by_refresh(token("alice-1"), at(11)).await.unwrap(), None);
    store.end(&session.session_id, at(11), at(60)).await.unwrap();
    for known in ["alice-0", "alice-1"] {
        let told = store.ended_by_refresh(token(known), at(12)).await.unwrap();
        assert_eq!(told.as_ref(), Some(&session.session_id));
    }
    assert_eq!(store.ended_by_refresh(token("alice-2"), at(12)).await.unwrap(), None);
    assert_eq!(store.ended_by_refresh(token("alice-0"), START.plus(REFRESH_TTL)).await.unwrap(), None);
}

pub(in crate::store) async fn ending_all_spares_one_session_that_is_named(store: Store) {
    let (own, other) = (login("alice", START), login("alice", at(1)));
    let (spared, ended) = (own.session.clone(), other.session.session_id.clone());
    for (index, new) in [own, other].into_iter().enumerate() {
        store.open(NewSession { refresh: token(&index.to_string()), ..new }).await.unwrap();
    }
    let end_all = async || {
        let all = store.end_all(&spared.member_id, &spared.appid, Some(&spared.session_id), at(2), at(60));
        all.await.unwrap()
    };
    assert_eq!(end_all().await, [ended]);
    assert_eq!(end_all().await, []);
    assert!(store.find(&spared.session_id, at(2)).await.unwrap().is_some());
}

pub(in crate::store) async fn ending_all_spans_the_live_sessions_of_one_member_in_one_app(store: Store) {
    let (first, second) = (login("alice", START), login("alice", at(1)));
    let mut elsewhere = login("alice", START);
    elsewhere.session.appid = app("wx2");
    let bob = login("bob", START);
    let member = first.session.member_id.clone();
    let ids: HashSet<_> = [&first, &second].iter().map(|new| new.session.session_id.clone()).collect();
    let spared = [elsewhere.session.session_id.clone(), bob.session.session_id.clone()];
    for (index, new) in [first, second, elsewhere, bob].into_iter().enumerate() {
        let apart = index.to_string();
        store.open(NewSession { refresh: token(&apart), code: code(&apart), ..new }).await.unwrap();
    }
    let until = at(2).plus(ACCESS_TTL);
    let ended = store.end_all(&member, &app("wx1"), None, at(2), until).await.unwrap();
    assert_eq!(ended.len(), 2);
    assert_eq!(ended.into_iter().collect::<HashSet<_>>(), ids);
    let revoked = store.revoked(at(2)).await.unwrap();
    assert_eq!(revoked.into_iter().map(|r| r.session_id).collect::<HashSet<_>>(), ids);
    for id in &spared {
        assert!(store.find(id, at(2)).await.unwrap().is_some());
    }
    assert_eq!(store.end_all(&member, &app("wx1"), None, at(3), until).await.unwrap(), []);
}

pub(in crate::store) async fn a_late_exchange_never_replaces_a_newer_key(store: Store) {
    let (wx1, alice) = (app("wx1"), person("alice"));
    let arrivals = [("k2", 20), ("k1", 10), ("k4", 40), ("k3", 30), ("k0", 0)];
    let kept = [vec!["k2"], vec!["k2", "k1"], vec!["k4", "k2"], vec!["k4", "k3"], vec!["k4", "k3"]];
    for ((sealed, began), kept) in arrivals.into_iter().zip(kept) {
        let session_key = Some(key(sealed, at(began)));
        store.open(NewSession { session_key, refresh: token(sealed), ..login("alice", at(50)) }).await.unwrap();
        let keys = store.session_keys(&wx1, &alice).await.unwrap();
        assert_eq!(keys.iter().map(|k| k.sealed.as_slice()).collect::<Vec<_>>(), as_bytes(&kept));
    }
}

pub(in crate::store) async fn the_same_key_again_does_not_drive_the_one_before_it_out(store: Store) {
    let (wx1, alice) = (app("wx1"), person("alice"));
    for (sealed, began) in [("k1", 10), ("k2", 20), ("k2", 30), ("k2", 25)] {
        store.keep_key(&wx1, &alice, key(sealed, at(began))).await.unwrap();
    }
    assert_eq!(store.session_keys(&wx1, &alice).await.unwrap(), [key("k2", at(30)), key("k1", at(10))]);
    store.keep_key(&wx1, &alice, key("k3", at(30))).await.unwrap();
    assert_eq!(store.session_keys(&wx1, &alice).await.unwrap(), [key("k3", at(30)), key("k2", at(30))]);
}

pub(in crate::store) async fn an_access_token_is_kept_for_each_app_and_line(store: Store) {
    let token = |sealed: &str, seconds| SealedToken { sealed: sealed.into(), expires_at: at(seconds) };
    assert_eq!(store.access_token(&app("wx1"), "stable").await.unwrap(), None);
    for (appid, line, sealed) in [("wx1", "stable", "a"), ("wx1", "classic", "b"), ("wx2", "stable", "c")] {
        store.keep_access_token(&app(appid), line, token(sealed, 7200)).await.unwrap();
    }
    store.keep_access_token(&app("wx1"), "stable", token("a2", 60)).await.unwrap();
    store.sweep(at(9000)).await.unwrap();
    assert_eq!(store.access_token(&app("wx1"), "stable").await.unwrap(), Some(token("a2", 60)));
    assert_eq!(store.access_token(&app("wx1"), "classic").await.unwrap(), Some(token("b", 7200)));
    assert_eq!(store.access_token(&app("wx2"), "stable").await.unwrap(), Some(token("c", 7200)));
}

pub(in crate::store) async fn keys_can_be_kept_without_a_session_and_be_erased(store: Store) {
    let (wx1, alice, bob) = (app("wx1"), person("alice"), person("bob"));
    store.keep_key(&wx1, &alice, key("k", START)).await.unwrap();
    store.keep_key(&wx1, &bob, key("k", START)).await.unwrap();
    store.erase_keys(&wx1, &alice).await.unwrap();
    store.erase_keys(&wx1, &alice).await.unwrap();
    assert_eq!(store.session_keys(&wx1, &alice).await.unwrap(), []);
    assert_eq!(store.session_keys(&wx1, &bob).await.unwrap(), [key("k", START)]);
}

pub(in crate::store) async fn a_sweep_takes_nothing_that_has_not_expired(store: Store) {
    let session = opened(&store, "alice").await;
    rotate(&store, "alice-0", "alice-1", 60).await;
    let bob = opened(&store, "bob").await;
    store.end(&bob.session_id, START, at(600)).await.unwrap();
    store.sweep(at(299)).await.unwrap();
    assert!(store.used_code(&code("alice"), at(299)).await.unwrap().is_some());
    store.sweep(at(599)).await.unwrap();
    assert_eq!(store.revoked(at(599)).await.unwrap().len(), 1);
    store.sweep(START.plus(REFRESH_TTL)).await.unwrap();
    let days30 = REFRESH_TTL.as_secs();
    assert_eq!(rotate(&store, "alice-1", "alice-2", days30).await, rotated(&session, days30));
    store.sweep(session.expires_at.minus(Duration::from_millis(1))).await.unwrap();
    assert_eq!(store.find(&session.session_id, START).await.unwrap(), Some(session));
    store.sweep(START.plus(SESSION_TTL)).await.unwrap();
    assert_eq!(store.session_keys(&app("wx1"), &person("alice")).await.unwrap().len(), 1);
}

pub(in crate::store) async fn the_store_of_sessions_answers(store: Store) {
    store.ping().await.unwrap();
}

fn as_bytes<'a>(texts: &[&'a str]) -> Vec<&'a [u8]> {
    texts.iter().map(|text| text.as_bytes()).collect()
}
