//! Specifications of [`Members`]: what operators see and set.

use std::sync::Arc;

use super::{START, app, at, person};
use crate::clock::Timestamp;
use crate::ids::{MemberId, UnionId, UserId};
use crate::store::{HookAnswer, Member, MemberFilter, Members, SignIn};

type Store = Arc<dyn Members>;

async fn registered(store: &Store, appid: &str, openid: &str, unionid: Option<&str>, now: Timestamp) -> Member {
    let unionid = unionid.map(|unionid| UnionId::parse(unionid).unwrap());
    let who = SignIn { appid: app(appid), openid: person(openid), unionid, at: now, merge: false };
    store.sign_in(who).await.unwrap().member
}

async fn alice(store: &Store) -> Member {
    registered(store, "wx1", "alice", None, START).await
}

fn texts(roles: &[&str]) -> Vec<String> {
    roles.iter().map(|role| (*role).to_owned()).collect()
}

/// All pages of three, as openids; each page but the last is full.
async fn listed(store: &Store, filter: &MemberFilter) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(filter, after.as_ref(), 3).await.unwrap();
        assert!(page.next.is_none() || page.members.len() == 3);
        all.extend(page.members.iter().map(|member| member.openid.as_str().to_owned()));
        match page.next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

pub(in crate::store) async fn roles_of_operators_and_of_the_hook_stand_together(store: Store) {
    let id = alice(&store).await.member_id;
    let member = store.set_roles(&id, &texts(&["vip", "admin", "vip"])).await.unwrap().unwrap();
    assert_eq!(member.roles, ["admin", "vip"]);
    let answer = HookAnswer { roles: texts(&["buyer", "vip"]), ..HookAnswer::default() };
    let member = store.set_hook(&id, &answer).await.unwrap().unwrap();
    assert_eq!((&member.roles, &member.hook), (&texts(&["admin", "buyer", "vip"]), &answer));
    let member = store.set_roles(&id, &[]).await.unwrap().unwrap();
    assert_eq!(member.roles, ["buyer", "vip"], "those of the hook are not the operator's to take");
    assert_eq!(store.find(&id).await.unwrap(), Some(member));
    let nobody = MemberId::parse("nobody").unwrap();
    assert_eq!(store.set_roles(&nobody, &texts(&["vip"])).await.unwrap(), None);
}

pub(in crate::store) async fn what_the_hook_said_is_replaced_by_what_it_says_next(store: Store) {
    let id = alice(&store).await.member_id;
    let full = HookAnswer {
        roles: texts(&["vip"]),
        user_id: UserId::parse("u-17").ok(),
        claims: r#"{"tier":"金"}"#.to_owned(),
    };
    assert_eq!(store.set_hook(&id, &full).await.unwrap().unwrap().hook, full);
    assert_eq!(store.find(&id).await.unwrap().unwrap().hook, full);
    let member = store.set_hook(&id, &HookAnswer::default()).await.unwrap().unwrap();
    assert_eq!((member.hook, member.roles), (HookAnswer::default(), Vec::new()));
    assert_eq!(store.set_hook(&MemberId::parse("nobody").unwrap(), &full).await.unwrap(), None);
}

pub(in crate::store) async fn a_ban_stands_with_its_reason_until_it_is_lifted(store: Store) {
    let before = alice(&store).await;
    let id = before.member_id.clone();
    let banned = store.set_ban(&id, Some("刷单")).await.unwrap().unwrap();
    assert_eq!((banned.banned, &*banned.ban_reason), (true, "刷单"));
    assert!(alice(&store).await.banned, "a login does not lift it");
    assert_eq!(store.set_ban(&id, None).await.unwrap(), Some(before));
    assert!(store.set_ban(&id, Some("")).await.unwrap().unwrap().banned, "a reason is not needed");
    assert_eq!(store.set_ban(&MemberId::parse("nobody").unwrap(), None).await.unwrap(), None);
}

pub(in crate::store) async fn members_are_listed_page_by_page_newest_first(store: Store) {
    for n in 0..8 {
        registered(&store, if n % 2 == 0 { "wx1" } else { "wx2" }, &format!("o{n}"), None, at(n)).await;
    }
    assert_eq!(listed(&store, &MemberFilter::All).await, ["o7", "o6", "o5", "o4", "o3", "o2", "o1", "o0"]);
    let page = store.list(&MemberFilter::All, None, 8).await.unwrap();
    assert_eq!((page.members.len(), page.next), (8, None), "a full page is the last when nothing follows");
    let first = store.list(&MemberFilter::All, None, 1).await.unwrap();
    registered(&store, "wx1", "later", None, at(9)).await;
    let second = store.list(&MemberFilter::All, first.next.as_ref(), 1).await.unwrap();
    assert_eq!(second.members[0].openid.as_str(), "o6", "who comes meanwhile moves nobody");
}

pub(in crate::store) async fn members_are_listed_by_app_by_role_and_by_ban(store: Store) {
    for n in 0..9 {
        let id = registered(&store, if n < 5 { "wx1" } else { "wx2" }, &format!("o{n}"), None, at(n)).await.member_id;
        if n % 2 == 0 {
            store.set_roles(&id, &texts(&["vip"])).await.unwrap();
        }
        if n % 3 == 0 {
            store.set_ban(&id, Some("")).await.unwrap();
        }
    }
    assert_eq!(listed(&store, &MemberFilter::App(app("wx1"))).await, ["o4", "o3", "o2", "o1", "o0"]);
    assert_eq!(listed(&store, &MemberFilter::App(app("wx3"))).await, [""; 0]);
    let vip = MemberFilter::Role("vip".into());
    assert_eq!(listed(&store, &vip).await, ["o8", "o6", "o4", "o2", "o0"]);
    assert_eq!(listed(&store, &MemberFilter::Banned).await, ["o6", "o3", "o0"]);
    let first = &store.list(&vip, None, 1).await.unwrap().members[0];
    store.set_roles(&first.member_id, &texts(&["other"])).await.unwrap();
    assert_eq!(listed(&store, &vip).await, ["o6", "o4", "o2", "o0"]);
}

pub(in crate::store) async fn members_are_found_by_openid_unionid_and_phone(store: Store) {
    let one = registered(&store, "wx1", "alice", Some("u1"), at(0)).await;
    let two = registered(&store, "wx2", "alice", Some("u1"), at(1)).await;
    registered(&store, "wx1", "bob", Some("u2"), at(2)).await;
    store.set_phone(&two.member_id, "+14155550123").await.unwrap();
    let both = [two.member_id.clone(), one.member_id.clone()];
    let ids = async |filter| {
        let page = store.list(&filter, None, 10).await.unwrap();
        page.members.into_iter().map(|member| member.member_id).collect::<Vec<_>>()
    };
    assert_eq!(ids(MemberFilter::OpenId(person("alice"))).await, both);
    assert_eq!(ids(MemberFilter::UnionId(UnionId::parse("u1").unwrap())).await, both);
    assert_eq!(ids(MemberFilter::Phone("+14155550123".into())).await, both[..1]);
    assert_eq!(ids(MemberFilter::Phone(String::new())).await, []);
    assert_eq!(ids(MemberFilter::OpenId(person("carol"))).await, []);
}

pub(in crate::store) async fn members_are_found_by_the_beginning_of_their_nickname_also_where_thousands_have_the_same(
    store: Store,
) {
    let names = ["微信用户", "微信用户", "微信用户", "微信用户", "Alice", "alina", "Bob", "100%_", ""];
    for (n, name) in names.iter().enumerate() {
        let id = registered(&store, "wx1", &format!("o{n}"), None, START).await.member_id;
        store.set_profile(&id, Some(name), None).await.unwrap();
    }
    let found = async |prefix: &str| listed(&store, &MemberFilter::Nickname(prefix.to_owned())).await;
    assert_eq!(found("微信").await, ["o0", "o1", "o2", "o3"]);
    assert_eq!(found("AL").await, ["o4", "o5"]);
    assert_eq!(found("b").await, ["o6"]);
    assert_eq!(found("100%").await, ["o7"]);
    assert_eq!(found("%").await, [""; 0]);
    assert_eq!(found("").await.len(), 8, "all who have one");
}

pub(in crate::store) async fn somebody_who_was_erased_is_in_no_list(store: Store) {
    let id = registered(&store, "wx1", "alice", Some("u1"), START).await.member_id;
    store.set_profile(&id, Some("Alice"), None).await.unwrap();
    store.set_phone(&id, "13812345678").await.unwrap();
    store.set_roles(&id, &texts(&["vip"])).await.unwrap();
    store.set_ban(&id, Some("x")).await.unwrap();
    store.erase(&id).await.unwrap();
    for filter in [
        MemberFilter::All,
        MemberFilter::App(app("wx1")),
        MemberFilter::Role("vip".into()),
        MemberFilter::Banned,
        MemberFilter::OpenId(person("alice")),
        MemberFilter::UnionId(UnionId::parse("u1").unwrap()),
        MemberFilter::Phone("13812345678".into()),
        MemberFilter::Nickname("Al".into()),
    ] {
        assert_eq!(listed(&store, &filter).await, [""; 0], "{filter:?}");
        assert_eq!(store.count(&filter, 10).await.unwrap(), 0, "{filter:?}");
    }
    assert_eq!(store.identities(&id).await.unwrap(), []);
    let back = registered(&store, "wx1", "alice", None, START).await;
    assert!(back.roles.is_empty() && !back.banned);
}

pub(in crate::store) async fn a_count_goes_no_further_than_asked(store: Store) {
    for n in 0..5 {
        registered(&store, "wx1", &format!("o{n}"), None, START).await;
    }
    for (at_most, counted) in [(0, 0), (3, 3), (5, 5), (100, 5)] {
        assert_eq!(store.count(&MemberFilter::All, at_most).await.unwrap(), counted);
        assert_eq!(store.count(&MemberFilter::App(app("wx1")), at_most).await.unwrap(), counted);
    }
    assert_eq!(store.count(&MemberFilter::Role("vip".into()), 9).await.unwrap(), 0);
}
