//! Bans, the limit of sessions, and the end of many sessions at once.

use std::time::Duration;

use futures_util::StreamExt as _;
use http::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::DEADLINE;
use crate::support::gateway::{APPID, Gateway, Member, OTHER_APP, OTHER_APPID, ROUTES};

async fn status(gateway: &Gateway, member: &Member) -> u16 {
    gateway.get("/api/x", Some(member.token())).await.status
}

async fn log_in(gateway: &Gateway, user: &str) -> crate::support::gateway::Answer {
    let code = gateway.wechat.issue_code(None, user);
    gateway.post("/auth/login", &json!({ "code": code })).await
}

#[tokio::test]
async fn a_ban_ends_every_session_and_lets_nobody_in_until_it_is_lifted() {
    let gateway = Gateway::start().await;
    let (phone, tablet) = (gateway.login("alice").await, gateway.login("alice").await);
    let bob = gateway.login("bob").await;
    let shown = gateway.change(&phone, json!({ "banned": true, "reason": "刷单" })).await;
    assert_eq!((&shown["banned"], &shown["ban_reason"]), (&json!(true), &json!("刷单")));
    for member in [&phone, &tablet] {
        assert_eq!(gateway.get("/api/x", Some(member.token())).await.code(), "token_revoked");
        assert_eq!(gateway.refresh(member).await.status, 401);
    }
    let answer = log_in(&gateway, "alice").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "member_banned"));
    assert!(!answer.body.contains("刷单"), "the reason is the operator's");
    assert_eq!(status(&gateway, &bob).await, 200);

    gateway.change(&phone, json!({ "banned": false })).await;
    assert_eq!(status(&gateway, &phone).await, 401, "what has ended stays so");
    let back = gateway.login("alice").await;
    assert_eq!((status(&gateway, &back).await, back.id()), (200, phone.id()));
}

/// Of logins of one person that meet `end` at some moment, those that went well.
async fn logins_during(gateway: &Gateway, user: &str, end: impl Future<Output = ()>) -> Vec<Value> {
    let logins = (0..24).map(|_| log_in(gateway, user));
    let (answers, ()) = tokio::join!(futures_util::future::join_all(logins), end);
    answers.iter().filter(|answer| answer.status == 200).map(|answer| answer.json()).collect()
}

#[tokio::test]
async fn no_login_outlives_a_ban_or_an_erasure_that_it_met() {
    let gateway = Gateway::start().await;
    let mut met = 0;
    for round in 0..20 {
        let user = format!("person-{round}");
        let member = gateway.login(&user).await;
        let logins = logins_during(&gateway, &user, async {
            if round % 2 == 0 {
                gateway.change(&member, json!({ "banned": true })).await;
            } else {
                let path = format!("/api/members/{}", member.id());
                assert_eq!(gateway.admin(Method::DELETE, &path, None).await.status, 200);
            }
        })
        .await;
        // Who was erased comes back as somebody else: those sessions are of a new member.
        for login in logins.iter().filter(|login| login["member_id"] == member.id()) {
            let token = login["access_token"].as_str();
            assert_eq!(gateway.get("/api/x", token).await.status, 401, "round {round}");
            met += 1;
        }
        let db = rusqlite::Connection::open(gateway.dir.path().join("wxgate.db")).unwrap();
        let live = "SELECT count(*) FROM sessions WHERE member_id = ?1 AND ended = 0";
        assert_eq!(db.query_row(live, [member.id()], |row| row.get::<_, i64>(0)).unwrap(), 0, "round {round}");
    }
    assert!(met > 0, "no login was ever under way");
}

#[tokio::test]
async fn a_ban_holds_after_a_restart() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.change(&alice, json!({ "banned": true })).await;
    let gateway = gateway.restart(ROUTES).await;
    assert_eq!(status(&gateway, &alice).await, 401);
    assert_eq!(log_in(&gateway, "alice").await.code(), "member_banned");
}

#[tokio::test]
async fn a_ban_closes_an_open_socket() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(tokio_tungstenite::accept_async(stream).await);
        }
    });
    let tables = format!(
        "[[upstream]]\nname = \"sockets\"\nservers = [\"http://{address}\"]\n\
         [[route]]\npath = \"/ws\"\nupstream = \"sockets\"\n"
    );
    let gateway = Gateway::with(&tables).await;
    let alice = gateway.login("alice").await;
    let mut request = format!("ws://{}/ws", gateway.address()).into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {}", alice.token()).parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    gateway.change(&alice, json!({ "banned": true })).await;
    let closed = tokio::time::timeout(DEADLINE, socket.next()).await.expect("closed in time");
    let Some(Ok(Message::Close(Some(frame)))) = closed else { panic!("{closed:?}") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4001, "token_revoked"));
    service.abort();
}

#[tokio::test]
async fn an_operator_ends_one_session_or_all_of_a_member() {
    let gateway = Gateway::start().await;
    let (phone, tablet, bob) = (gateway.login("alice").await, gateway.login("alice").await, gateway.login("bob").await);
    assert_eq!(gateway.revoke(json!({ "session": phone.session() })).await, 1);
    assert_eq!(gateway.revoke(json!({ "session": phone.session() })).await, 0);
    assert_eq!((status(&gateway, &phone).await, status(&gateway, &tablet).await), (401, 200));
    let again = gateway.login("alice").await;
    assert_eq!(gateway.revoke(json!({ "member": phone.id() })).await, 2);
    for member in [&tablet, &again] {
        assert_eq!(status(&gateway, member).await, 401);
        assert_eq!(gateway.refresh(member).await.code(), "token_revoked");
    }
    assert_eq!(status(&gateway, &bob).await, 200);
    let later = gateway.login("alice").await;
    assert_eq!(status(&gateway, &later).await, 200, "a later login of the same second is spared");
}

#[tokio::test]
async fn an_operator_ends_all_sessions_of_an_app_and_later_logins_are_spared() {
    let gateway = Gateway::with(&format!("{ROUTES}{OTHER_APP}")).await;
    let in_app = async |appid: &str, user: &str| {
        let appid = wxgate::ids::AppId::parse(appid).unwrap();
        let code = gateway.wechat.issue_code(Some(&appid), user);
        let answer = gateway.post("/auth/login", &json!({ "appid": appid, "code": code })).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        Member { answer: answer.json() }
    };
    let (alice, bob) = (in_app(APPID, "alice").await, in_app(APPID, "bob").await);
    let elsewhere = in_app(OTHER_APPID, "alice").await;
    gateway.clock.advance(Duration::from_millis(1));
    assert_eq!(gateway.revoke(json!({ "app": APPID })).await, 2);
    for member in [&alice, &bob] {
        assert_eq!(gateway.get("/api/x", Some(member.token())).await.code(), "token_revoked");
        assert_eq!(gateway.refresh(member).await.code(), "token_revoked");
    }
    let later = in_app(APPID, "alice").await;
    assert_eq!((status(&gateway, &elsewhere).await, status(&gateway, &later).await), (200, 200));
    assert_eq!(gateway.refresh(&later).await.status, 200);
    let gateway = gateway.restart(&format!("{ROUTES}{OTHER_APP}")).await;
    assert_eq!((status(&gateway, &alice).await, status(&gateway, &later).await), (401, 200));
}

#[tokio::test]
async fn the_oldest_session_ends_when_a_member_has_too_many() {
    let gateway = Gateway::with(&format!("{ROUTES}\n[login]\nmax_sessions = 2\n")).await;
    let mut devices = Vec::new();
    for _ in 0..3 {
        devices.push(gateway.login("alice").await);
        gateway.clock.advance(Duration::from_secs(1));
    }
    let bob = gateway.login("bob").await;
    assert_eq!(status(&gateway, &devices[0]).await, 401);
    assert_eq!(gateway.refresh(&devices[0]).await.code(), "token_revoked");
    for member in [&devices[1], &devices[2], &bob] {
        assert_eq!(status(&gateway, member).await, 200);
    }
    let shown = gateway.shown(&format!("/api/sessions?member={}", bob.id())).await;
    assert_eq!(shown["count"], 1);
}

#[tokio::test]
async fn an_erased_member_is_gone_with_sessions_and_keys() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let path = format!("/api/members/{}", alice.id());
    assert_eq!(gateway.admin(Method::DELETE, &path, None).await.status, 200);
    assert_eq!(status(&gateway, &alice).await, 401);
    assert_eq!(gateway.admin(Method::GET, &path, None).await.code(), "route_not_found");
    assert_eq!(gateway.admin(Method::DELETE, &path, None).await.status, 404);
    let back = gateway.login("alice").await;
    assert_ne!(back.id(), alice.id());
}
