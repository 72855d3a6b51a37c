//! Specifications of [`Members`].

use std::collections::HashSet;
use std::sync::Arc;

use super::{START, app, at, person};
use crate::clock::Timestamp;
use crate::ids::{MemberId, UnionId};
use crate::store::{Member, Members, SignIn};

type Store = Arc<dyn Members>;

async fn sign_in(store: &Store, who: SignIn) -> (Member, bool) {
    let signed_in = store.sign_in(who).await.unwrap();
    (signed_in.member, signed_in.is_new)
}

fn someone(openid: &str, now: Timestamp) -> SignIn {
    SignIn { appid: app("wx1"), openid: person(openid), unionid: None, at: now, merge: false }
}

fn with_unionid(unionid: &str, now: Timestamp) -> SignIn {
    SignIn { unionid: Some(UnionId::parse(unionid).unwrap()), ..someone("alice", now) }
}

pub(in crate::store) async fn the_first_login_registers_and_the_next_one_finds(store: Store) {
    let (member, is_new) = sign_in(&store, someone("alice", at(0))).await;
    assert!(is_new);
    assert_eq!((member.created_at, member.last_login_at), (at(0), at(0)));
    assert_eq!((&*member.nickname, &*member.avatar_url, &*member.phone), ("", "", ""));
    assert!(member.roles.is_empty() && !member.banned && member.unionid.is_none());

    let (again, is_new) = sign_in(&store, someone("alice", at(60))).await;
    assert!(!is_new);
    assert_eq!(again.member_id, member.member_id);
    assert_eq!((again.created_at, again.last_login_at), (at(0), at(60)));
    assert_eq!(store.find(&member.member_id).await.unwrap(), Some(again));
    assert_eq!(store.find(&MemberId::parse("nobody").unwrap()).await.unwrap(), None);
}

pub(in crate::store) async fn one_person_in_two_apps_is_two_members(store: Store) {
    let (here, _) = sign_in(&store, someone("alice", START)).await;
    let (there, is_new) = sign_in(&store, SignIn { appid: app("wx2"), ..someone("alice", START) }).await;
    assert!(is_new);
    assert_ne!(here.member_id, there.member_id);
}

pub(in crate::store) async fn of_thirty_first_logins_at_once_one_is_new_and_all_get_one_member(store: Store) {
    let logins: Vec<_> = (0..30)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { sign_in(&store, someone("alice", START)).await })
        })
        .collect();
    let (mut ids, mut new) = (HashSet::new(), 0);
    for login in logins {
        let (member, is_new) = login.await.unwrap();
        ids.insert(member.member_id);
        new += u32::from(is_new);
    }
    assert_eq!((ids.len(), new), (1, 1));
}

/// Each of a hundred people twice, all at the same time: stores may write them together.
pub(in crate::store) async fn of_many_logins_at_once_each_gets_its_own_member(store: Store) {
    let logins: Vec<_> = (0..200)
        .map(|n| {
            let (store, name) = (Arc::clone(&store), format!("person-{}", n % 100));
            let time = at(n);
            tokio::spawn(async move { (sign_in(&store, someone(&name, time)).await, name) })
        })
        .collect();
    let (mut ids, mut new) = (HashSet::new(), HashSet::new());
    for login in logins {
        let ((member, is_new), name) = login.await.unwrap();
        assert_eq!(member.openid, person(&name));
        ids.insert(member.member_id);
        assert!(!is_new || new.insert(name), "new once");
    }
    assert_eq!((ids.len(), new.len()), (100, 100));
    let finds = ids.iter().map(|id| store.find(id));
    for (found, id) in futures_util::future::join_all(finds).await.into_iter().zip(&ids) {
        let found = found.unwrap().unwrap();
        assert_eq!(&found.member_id, id);
        assert!(found.last_login_at >= at(100), "of two logins the later one");
    }
}

pub(in crate::store) async fn a_unionid_is_kept_when_the_next_login_does_not_tell_it(store: Store) {
    sign_in(&store, someone("alice", START)).await;
    let (member, _) = sign_in(&store, with_unionid("u1", START)).await;
    assert_eq!(member.unionid, UnionId::parse("u1").ok());
    let (member, _) = sign_in(&store, someone("alice", START)).await;
    assert_eq!(member.unionid, UnionId::parse("u1").ok());
}

pub(in crate::store) async fn a_unionid_that_changed_replaces_the_old_one(store: Store) {
    sign_in(&store, with_unionid("u1", START)).await;
    let (member, _) = sign_in(&store, with_unionid("u2", START)).await;
    assert_eq!(member.unionid, UnionId::parse("u2").ok());
}

pub(in crate::store) async fn a_login_that_arrives_late_does_not_turn_the_time_of_the_last_one_back(store: Store) {
    sign_in(&store, someone("alice", at(60))).await;
    let (member, _) = sign_in(&store, someone("alice", at(30))).await;
    assert_eq!(member.last_login_at, at(60));
}

pub(in crate::store) async fn a_profile_changes_where_it_is_given_and_stays_elsewhere(store: Store) {
    let (member, _) = sign_in(&store, someone("alice", START)).await;
    let id = member.member_id;
    store.set_profile(&id, Some("爱丽丝'; DROP TABLE members; --"), Some("https://a/1.png")).await.unwrap();
    let member = store.set_profile(&id, None, Some("")).await.unwrap().unwrap();
    assert_eq!((&*member.nickname, &*member.avatar_url), ("爱丽丝'; DROP TABLE members; --", ""));
    assert_eq!(store.find(&id).await.unwrap(), Some(member));
    let nobody = MemberId::parse("nobody").unwrap();
    assert_eq!(store.set_profile(&nobody, Some("x"), None).await.unwrap(), None);
}

pub(in crate::store) async fn a_phone_number_is_set_and_touches_nothing_else(store: Store) {
    let (member, _) = sign_in(&store, with_unionid("u1", START)).await;
    let id = member.member_id.clone();
    store.set_profile(&id, Some("Alice"), None).await.unwrap();
    let with_phone = store.set_phone(&id, "+14155550123").await.unwrap().unwrap();
    assert_eq!((&*with_phone.phone, &*with_phone.nickname), ("+14155550123", "Alice"));
    assert_eq!(with_phone.unionid, member.unionid);
    assert_eq!(store.find(&id).await.unwrap(), Some(with_phone));
    assert_eq!(store.set_phone(&MemberId::parse("nobody").unwrap(), "1").await.unwrap(), None);
}

pub(in crate::store) async fn an_erased_member_is_gone_and_comes_back_as_another_one(store: Store) {
    let (member, _) = sign_in(&store, with_unionid("u1", START)).await;
    assert_eq!(store.erase(&member.member_id).await.unwrap().len(), 1);
    assert_eq!(store.erase(&member.member_id).await.unwrap(), []);
    assert_eq!(store.find(&member.member_id).await.unwrap(), None);
    let (back, is_new) = sign_in(&store, someone("alice", START)).await;
    assert!(is_new && back.member_id != member.member_id && back.unionid.is_none());
}

pub(in crate::store) async fn the_store_of_members_answers(store: Store) {
    store.ping().await.unwrap();
}

pub(in crate::store) async fn a_forgotten_profile_is_empty_and_the_member_is_the_same(store: Store) {
    let (alice, _) = sign_in(&store, someone("alice", START)).await;
    let (bob, _) = sign_in(&store, someone("bob", START)).await;
    for member in [&alice, &bob] {
        store.set_profile(&member.member_id, Some("name"), Some("https://a.example/a.png")).await.unwrap();
    }
    let forgotten = store.forget_profile(&app("wx1"), &person("alice")).await.unwrap();
    assert_eq!(forgotten, Some(alice.clone()), "as after the first login");
    assert_eq!(store.find(&alice.member_id).await.unwrap(), Some(alice));
    assert_eq!(store.find(&bob.member_id).await.unwrap().unwrap().nickname, "name");
    assert_eq!(store.forget_profile(&app("wx2"), &person("alice")).await.unwrap(), None);
}
