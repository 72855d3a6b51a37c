//! What stands when a process died between two writes: too much is refused, never too little.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::super::Redis;
use super::on_one_server;
use crate::clock::Timestamp;
use crate::ids::SessionId;
use crate::store::contract::{ACCESS_TTL, START, at, login, refresh, token};
use crate::store::{NewSession, Notice, Rotation, Sessions as _, SessionsOf};

async fn opened(store: &Arc<Redis>, new: NewSession) -> SessionId {
    let id = new.session.session_id.clone();
    store.open(new).await.unwrap();
    id
}

async fn is_over(store: &Arc<Redis>, id: &SessionId, now: Timestamp) {
    assert_eq!(store.find(id, now).await.unwrap(), None);
    assert_eq!(store.prolong(id, now, now.plus(ACCESS_TTL)).await.unwrap(), None);
    assert_eq!(store.find_by_refresh(token("alice-0"), now).await.unwrap(), None);
    assert_eq!(store.ended_by_refresh(token("alice-0"), now).await.unwrap().as_ref(), Some(id));
    assert_eq!(store.rotate(token("alice-0"), token("x"), refresh(now)).await.unwrap(), Rotation::Ended);
}

#[tokio::test]
async fn a_session_that_is_revoked_and_not_yet_marked_is_over_for_good() {
    let store = on_one_server().await;
    let id = opened(&store, login("alice", START)).await;
    store.revoke(&id, at(100)).await.unwrap();
    is_over(&store, &id, at(1)).await;
    store.sweep(at(100)).await.unwrap();
    assert_eq!(store.revoked(at(0)).await.unwrap(), [], "forgotten");
    is_over(&store, &id, at(101)).await;
}

#[tokio::test]
async fn the_end_of_a_member_that_broke_off_is_finished_before_it_is_forgotten() {
    let store = on_one_server().await;
    let id = opened(&store, login("alice", START)).await;
    let member_id = login("alice", START).session.member_id;
    store.notify(&Notice::Member { member_id, at: at(10), until: at(100) }).await.unwrap();
    let mut later = login("alice", at(10));
    (later.refresh, later.code) = (token("later"), crate::store::contract::code("later"));
    let later = opened(&store, later).await;
    store.sweep(at(99)).await.unwrap();
    assert!(store.find(&id, at(99)).await.unwrap().is_some(), "whoever asks knows the epoch");
    store.sweep(at(100)).await.unwrap();
    is_over(&store, &id, at(101)).await;
    assert!(store.find(&later, at(101)).await.unwrap().is_some());
}

#[tokio::test]
async fn who_is_to_make_room_stays_listed_until_it_has_ended() {
    let store = on_one_server().await;
    let oldest = opened(&store, login("alice", START)).await;
    let nth = |n: u64| NewSession {
        refresh: token(&format!("alice-{n}")),
        code: crate::store::contract::code(&n.to_string()),
        max_sessions: NonZeroU32::new(1),
        ..login("alice", at(n))
    };
    let of = SessionsOf::Member(login("alice", START).session.member_id);
    // As far as a login came that died before it ended anybody.
    let broken_off = nth(1);
    store.make(&broken_off).await.unwrap();
    assert_eq!(store.enlist(&broken_off).await.unwrap(), std::slice::from_ref(&oldest));
    assert!(store.list(&of, None, 9, at(1)).await.unwrap().iter().any(|s| s.session_id == oldest));
    let next = nth(2);
    let mut ended = store.open(next.clone()).await.unwrap();
    ended.sort();
    assert_eq!(ended, [oldest, broken_off.session.session_id]);
    assert_eq!(store.listed(&of).await.unwrap(), [next.session.session_id]);
}

#[tokio::test]
async fn an_app_is_known_again_after_redis_was_emptied() {
    let store = on_one_server().await;
    opened(&store, login("alice", START)).await;
    let _: u32 = store.link.write("", redis::cmd("DEL").arg(store.keys.apps())).await.unwrap();
    opened(&store, NewSession { refresh: token("bob-0"), ..login("bob", START) }).await;
    let apps: Vec<String> = store.link.read(redis::cmd("SMEMBERS").arg(store.keys.apps())).await.unwrap();
    assert_eq!(apps, ["wx1"], "or no sweep would look at its list");
}
