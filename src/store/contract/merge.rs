//! Specifications of [`Members`]: one member for all who have one unionid.

use std::collections::HashSet;
use std::sync::Arc;

use super::{START, app, at, person};
use crate::clock::Timestamp;
use crate::ids::{UnionId, UserId};
use crate::store::{HookAnswer, Identity, Member, MemberFilter, Members, SignIn, SignedIn};

type Store = Arc<dyn Members>;

fn login(appid: &str, unionid: Option<&str>, now: Timestamp) -> SignIn {
    let unionid = unionid.map(|unionid| UnionId::parse(unionid).unwrap());
    SignIn { appid: app(appid), openid: person(&format!("alice-in-{appid}")), unionid, at: now, merge: true }
}

async fn sign_in(store: &Store, who: SignIn) -> SignedIn {
    store.sign_in(who).await.unwrap()
}

/// Two members of one person: registered while the unionid was not known to the first app, which tells it now.
async fn two(store: &Store) -> (Member, Member) {
    let older = sign_in(store, login("wx1", None, at(0))).await.member;
    let newer = sign_in(store, login("wx2", Some("u1"), at(1))).await.member;
    assert_ne!(older.member_id, newer.member_id);
    (older, newer)
}

pub(in crate::store) async fn without_merging_one_unionid_is_two_members(store: Store) {
    let one = sign_in(&store, SignIn { merge: false, ..login("wx1", Some("u1"), START) }).await;
    let two = sign_in(&store, SignIn { merge: false, ..login("wx2", Some("u1"), START) }).await;
    assert_ne!(one.member.member_id, two.member.member_id);
    assert!(two.is_new && two.merged.is_empty());
}

pub(in crate::store) async fn who_logs_in_with_a_second_app_is_the_same_member(store: Store) {
    let one = sign_in(&store, login("wx1", Some("u1"), at(0))).await;
    let two = sign_in(&store, login("wx2", Some("u1"), at(60))).await;
    assert!(one.is_new && !two.is_new && two.merged.is_empty());
    assert_eq!(two.member.member_id, one.member.member_id);
    assert_eq!((two.member.created_at, two.member.last_login_at), (at(0), at(60)));
    let again = sign_in(&store, login("wx2", None, at(90))).await;
    assert_eq!((again.member.member_id, again.member.last_login_at), (one.member.member_id, at(90)));
    assert_eq!(again.member.unionid, UnionId::parse("u1").ok());
    let other = sign_in(&store, login("wx3", Some("u2"), at(90))).await;
    assert!(other.is_new && other.merged.is_empty());
}

pub(in crate::store) async fn the_older_of_two_members_survives_and_the_other_is_its_alias(store: Store) {
    let (older, newer) = two(&store).await;
    store.set_profile(&older.member_id, Some("Alice"), None).await.unwrap();
    store.set_profile(&newer.member_id, Some("爱丽丝"), Some("https://a/1.png")).await.unwrap();
    store.set_phone(&newer.member_id, "13812345678").await.unwrap();
    let merged = sign_in(&store, login("wx1", Some("u1"), at(2))).await;
    assert_eq!((&merged.member.member_id, merged.is_new), (&older.member_id, false));
    assert_eq!(merged.merged, std::slice::from_ref(&newer.member_id));
    let Member { nickname, avatar_url, phone, .. } = &merged.member;
    assert_eq!((&**nickname, &**avatar_url, &**phone), ("Alice", "https://a/1.png", "13812345678"));
    assert_eq!(store.find(&newer.member_id).await.unwrap(), Some(merged.member), "the alias finds him");
    let elsewhere = sign_in(&store, login("wx2", None, at(3))).await;
    assert_eq!((&elsewhere.member.member_id, elsewhere.merged), (&older.member_id, Vec::new()));
    let off = sign_in(&store, SignIn { merge: false, ..login("wx2", None, at(4)) }).await;
    assert_eq!(off.member.member_id, older.member_id, "what was merged stays so");
}

pub(in crate::store) async fn a_merge_loses_neither_roles_nor_a_ban(store: Store) {
    let (older, newer) = two(&store).await;
    store.set_roles(&older.member_id, &["admin".into()]).await.unwrap();
    store.set_roles(&newer.member_id, &["vip".into()]).await.unwrap();
    let answer = HookAnswer { roles: vec!["buyer".into()], user_id: UserId::parse("u-17").ok(), claims: "{}".into() };
    store.set_hook(&newer.member_id, &answer).await.unwrap();
    store.set_ban(&newer.member_id, Some("spam")).await.unwrap();
    let member = sign_in(&store, login("wx1", Some("u1"), at(2))).await.member;
    assert_eq!(member.roles, ["admin", "buyer", "vip"]);
    assert_eq!((member.banned, &*member.ban_reason, &member.hook), (true, "spam", &answer));
    for (filter, listed) in [
        (MemberFilter::Role("vip".into()), 1),
        (MemberFilter::Role("admin".into()), 1),
        (MemberFilter::Banned, 1),
        (MemberFilter::All, 1),
    ] {
        assert_eq!(store.count(&filter, 9).await.unwrap(), listed, "{filter:?}");
    }
    let lifted = store.set_ban(&newer.member_id, None).await.unwrap().unwrap();
    assert!(!lifted.banned && lifted.member_id == older.member_id);
}

pub(in crate::store) async fn a_member_known_by_three_apps_has_no_chain_of_aliases(store: Store) {
    let oldest = sign_in(&store, login("wx0", None, at(0))).await.member;
    let (older, newer) = two(&store).await;
    sign_in(&store, login("wx1", Some("u1"), at(2))).await;
    let merged = sign_in(&store, login("wx0", Some("u1"), at(3))).await;
    assert_eq!((&merged.member.member_id, &*merged.merged), (&oldest.member_id, &[older.member_id.clone()][..]));
    for alias in [&older, &newer] {
        assert_eq!(store.find(&alias.member_id).await.unwrap().as_ref(), Some(&merged.member));
    }
    let identity = |member: &Member| Identity {
        member_id: member.member_id.clone(),
        appid: member.appid.clone(),
        openid: member.openid.clone(),
    };
    let all = [identity(&oldest), identity(&older), identity(&newer)];
    assert_eq!(store.identities(&newer.member_id).await.unwrap(), all, "the member's own first");
}

pub(in crate::store) async fn every_call_takes_an_alias_for_the_member(store: Store) {
    let (older, newer) = two(&store).await;
    sign_in(&store, login("wx1", Some("u1"), at(2))).await;
    let alias = &newer.member_id;
    store.set_profile(alias, Some("Alice"), None).await.unwrap().unwrap();
    store.set_phone(alias, "13812345678").await.unwrap().unwrap();
    store.set_roles(alias, &["vip".into()]).await.unwrap().unwrap();
    store.set_hook(alias, &HookAnswer { claims: "{}".into(), ..HookAnswer::default() }).await.unwrap().unwrap();
    store.set_ban(alias, Some("spam")).await.unwrap().unwrap();
    let member = store.find(&older.member_id).await.unwrap().unwrap();
    assert_eq!((&*member.nickname, &*member.phone, &*member.hook.claims), ("Alice", "13812345678", "{}"));
    assert!(member.banned && member.roles == ["vip"]);
    let forgotten = store.forget_profile(&newer.appid, &newer.openid).await.unwrap().unwrap();
    assert_eq!((&*forgotten.nickname, &*forgotten.phone, &forgotten.member_id), ("", "", &older.member_id));
}

pub(in crate::store) async fn a_merged_member_is_listed_in_each_of_the_apps_and_once_among_all(store: Store) {
    let (older, newer) = two(&store).await;
    sign_in(&store, login("wx1", Some("u1"), at(2))).await;
    store.set_roles(&older.member_id, &["vip".into()]).await.unwrap();
    let listed = async |filter: MemberFilter| store.list(&filter, None, 9).await.unwrap().members;
    let found = listed(MemberFilter::App(app("wx2"))).await;
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].member_id, &found[0].appid), (&older.member_id, &app("wx2")));
    assert_eq!((&found[0].openid, &found[0].roles), (&newer.openid, &vec!["vip".to_owned()]));
    assert_eq!(listed(MemberFilter::OpenId(newer.openid)).await, found);
    assert_eq!(listed(MemberFilter::UnionId(UnionId::parse("u1").unwrap())).await.len(), 2);
    assert_eq!(listed(MemberFilter::All).await.len(), 1);
    assert_eq!(listed(MemberFilter::Role("vip".into())).await.len(), 1);
}

pub(in crate::store) async fn of_thirty_logins_at_once_in_three_apps_all_are_one_member(store: Store) {
    let logins: Vec<_> = (0..30)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { sign_in(&store, login(&format!("wx{}", n % 3), Some("u1"), START)).await })
        })
        .collect();
    let (mut ids, mut new) = (HashSet::new(), 0);
    for login in logins {
        let login = login.await.unwrap();
        ids.insert(login.member.member_id);
        new += u32::from(login.is_new);
    }
    assert_eq!((ids.len(), new), (1, 1));
    let id = ids.into_iter().next().unwrap();
    assert_eq!(store.identities(&id).await.unwrap().len(), 3);
}

pub(in crate::store) async fn erasing_a_merged_member_erases_every_identity(store: Store) {
    let (older, newer) = two(&store).await;
    sign_in(&store, login("wx1", Some("u1"), at(2))).await;
    let known = store.identities(&newer.member_id).await.unwrap();
    let erased = store.erase(&newer.member_id).await.unwrap();
    assert_eq!(erased.len(), 2);
    assert!(known.iter().all(|identity| erased.contains(identity)), "{erased:?}");
    for id in [&older.member_id, &newer.member_id] {
        assert_eq!(store.find(id).await.unwrap(), None);
    }
    let back = sign_in(&store, login("wx2", Some("u1"), at(3))).await;
    assert!(back.is_new && back.member.member_id != older.member_id);
}
