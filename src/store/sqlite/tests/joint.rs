//! A login and a refresh in one transaction each do what they do in several.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::commit::while_the_writer_is_busy;
use super::folder;
use crate::ids::MemberId;
use crate::store::contract::{app, at, code, login, person, refresh, token};
use crate::store::joint::Joint as _;
use crate::store::sqlite::Sqlite;
use crate::store::{Error, Members, NewSession, Rotation, Sessions as _, SignIn, SignedIn};

fn who(name: &str) -> SignIn {
    SignIn { appid: app("wx1"), openid: person(name), unionid: None, at: at(0), merge: false }
}

/// A session of `name` for this member.
fn session(name: &str, member: &MemberId) -> NewSession {
    let mut new = login(name, at(0));
    new.session.member_id = member.clone();
    new
}

#[tokio::test]
async fn who_signs_in_has_a_session_after_one_commit() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    for is_new in [true, false] {
        let name = format!("login-{is_new}");
        let grant = {
            let name = name.clone();
            Box::new(move |signed_in: &SignedIn| {
                assert_eq!(signed_in.is_new, is_new);
                Some(session(&name, &signed_in.member.member_id))
            })
        };
        let before = store.commits();
        let (signed_in, opened) = store.log_in(who("anna"), grant).await.unwrap();
        assert_eq!(store.commits(), before + 1);
        let opened = opened.unwrap();
        assert_eq!((signed_in.is_new, opened.ended.len()), (is_new, 0));
        let found = store.find_by_refresh(token(&format!("{name}-0")), at(1)).await.unwrap();
        assert_eq!(found.as_ref(), Some(&opened.new.session));
        assert_eq!(found.unwrap().member_id, signed_in.member.member_id);
        assert!(store.used_code(&code(&name), at(1)).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn who_is_granted_nothing_is_signed_in_and_has_no_session() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    let (signed_in, opened) = store.log_in(who("anna"), Box::new(|_| None)).await.unwrap();
    assert!(signed_in.is_new && opened.is_none());
    let id = &signed_in.member.member_id;
    assert!(Members::find(&*store, id).await.unwrap().is_some());
    assert!(store.find_by_refresh(token("anna-0"), at(1)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_session_that_cannot_be_opened_leaves_nobody_registered() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    let taken = login("taken", at(0));
    store.open(taken.clone()).await.unwrap();
    let refused = store.log_in(who("anna"), Box::new(move |_| Some(taken.clone()))).await;
    assert!(matches!(refused, Err(Error::Damaged(_))), "{refused:?}");
    assert!(store.sign_in(who("anna")).await.unwrap().is_new);
}

#[tokio::test]
async fn a_login_that_is_run_again_is_answered_with_what_is_on_disk() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    let tries = Arc::new(AtomicU32::new(0));
    let (login, failed) = while_the_writer_is_busy(&store, async {
        let (joint, counted) = (Arc::clone(&store), Arc::clone(&tries));
        let grant = move |signed_in: &SignedIn| {
            let n = counted.fetch_add(1, Ordering::SeqCst);
            Some(session(&format!("try-{n}"), &signed_in.member.member_id))
        };
        let login = tokio::spawn(async move { joint.log_in(who("anna"), Box::new(grant)).await });
        let other = Arc::clone(&store);
        let failing =
            "INSERT INTO codes SELECT * FROM codes WHERE 0; UPDATE sessions SET ended = ended; SELECT * FROM nothing";
        let failed = tokio::spawn(async move { other.write(move |db| Ok(db.execute_batch(failing)?)).await });
        while store.queue_depth() < 2 {
            tokio::task::yield_now().await;
        }
        (login, failed)
    })
    .await;
    assert!(failed.await.unwrap().is_err());
    let (signed_in, opened) = login.await.unwrap().unwrap();
    let (session, id) = (opened.unwrap().new.session, signed_in.member.member_id);
    assert_eq!(tries.load(Ordering::SeqCst), 2, "the job behind it failed and had changed something");
    assert!(signed_in.is_new && Members::find(&*store, &id).await.unwrap().is_some());
    assert_eq!(store.find_by_refresh(token("try-1-0"), at(1)).await.unwrap(), Some(session));
    assert_eq!(store.find_by_refresh(token("try-0-0"), at(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_refresh_tells_whose_it_is_as_he_is_now() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    let grant = Box::new(|signed_in: &SignedIn| Some(session("anna", &signed_in.member.member_id)));
    let (signed_in, _) = store.log_in(who("anna"), grant).await.unwrap();
    let id = signed_in.member.member_id;
    store.set_ban(&id, Some("spam")).await.unwrap();
    let (rotation, member) = store.refresh(token("anna-0"), token("anna-1"), refresh(at(10))).await.unwrap();
    assert!(matches!(rotation, Rotation::Rotated { .. }));
    assert!(member.is_some_and(|member| member.banned && member.member_id == id));
    let (rotation, member) = store.refresh(token("nobody's"), token("x"), refresh(at(10))).await.unwrap();
    assert_eq!((rotation, member), (Rotation::Unknown, None));
}
