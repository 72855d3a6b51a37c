//! Roles are live: a change counts at once, whatever a token says.

use futures_util::StreamExt as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::DEADLINE;
use crate::support::gateway::{Gateway, Member};

const TABLES: &str = r#"
[[route]]
path = "/api/*"
upstream = "echo"

[[route]]
path = "/staff/*"
upstream = "echo"
roles = ["admin", "ops"]
"#;

async fn staff(gateway: &Gateway, member: &Member) -> u16 {
    gateway.get("/staff/x", Some(member.token())).await.status
}

/// The roles that the service behind the gateway sees.
async fn seen(gateway: &Gateway, member: &Member) -> String {
    gateway.get("/api/x", Some(member.token())).await;
    gateway.upstream.requests().last().unwrap().all("x-wxgate-roles").join("|")
}

#[tokio::test]
async fn a_role_that_is_given_opens_the_door_and_one_that_is_taken_closes_it_with_the_same_token() {
    let gateway = Gateway::with(TABLES).await;
    let alice = gateway.login("alice").await;
    let bob = gateway.login("bob").await;
    assert_eq!(staff(&gateway, &alice).await, 403);
    let shown = gateway.change(&alice, json!({ "roles": ["vip", "admin"] })).await;
    assert_eq!(shown["roles"], json!(["admin", "vip"]));
    assert_eq!((staff(&gateway, &alice).await, staff(&gateway, &bob).await), (200, 403));
    assert_eq!(seen(&gateway, &alice).await, "admin,vip");

    // A token that was made with the role loses it, too.
    let answer = gateway.refresh(&alice).await;
    let fresh = Member { answer: answer.json() };
    assert_eq!(staff(&gateway, &fresh).await, 200);
    gateway.change(&alice, json!({ "roles": [] })).await;
    assert_eq!((staff(&gateway, &fresh).await, staff(&gateway, &alice).await), (403, 403));
    assert_eq!(seen(&gateway, &fresh).await, "");
    let problem = gateway.get("/staff/x", Some(fresh.token())).await;
    assert_eq!(problem.code(), "forbidden");
}

#[tokio::test]
async fn a_change_of_roles_survives_a_restart_and_ends_with_the_tokens_it_concerns() {
    let gateway = Gateway::with(TABLES).await;
    let alice = gateway.login("alice").await;
    gateway.change(&alice, json!({ "roles": ["ops"] })).await;
    let gateway = gateway.restart(TABLES).await;
    assert_eq!(staff(&gateway, &alice).await, 200);
    gateway.change(&alice, json!({ "roles": ["vip"] })).await;
    let gateway = gateway.restart(TABLES).await;
    assert_eq!(staff(&gateway, &alice).await, 403);
    let me = gateway.get("/auth/me", Some(alice.token())).await.json();
    assert_eq!(me["member"]["roles"], json!(["vip"]));
}

#[tokio::test]
async fn an_open_socket_ends_when_the_role_that_let_it_in_is_taken() {
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
         [[route]]\npath = \"/ws\"\nupstream = \"sockets\"\nroles = [\"admin\"]\n"
    );
    let gateway = Gateway::with(&tables).await;
    let alice = gateway.login("alice").await;
    gateway.change(&alice, json!({ "roles": ["admin"] })).await;
    let mut request = format!("ws://{}/ws", gateway.address()).into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {}", alice.token()).parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    gateway.change(&alice, json!({ "roles": ["vip"] })).await;
    let closed = tokio::time::timeout(DEADLINE, socket.next()).await.expect("closed in time");
    let Some(Ok(Message::Close(Some(frame)))) = closed else { panic!("{closed:?}") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4001, "forbidden"));
    service.abort();
}

#[tokio::test]
async fn roles_that_cannot_stand_in_a_header_are_refused() {
    let gateway = Gateway::with(TABLES).await;
    let alice = gateway.login("alice").await;
    let path = format!("/api/members/{}", alice.id());
    for bad in [json!({ "roles": ["a,b"] }), json!({ "roles": ["管理"] }), json!({ "role": ["vip"] }), json!({})] {
        let answer = gateway.admin(http::Method::PUT, &path, Some(bad)).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"));
    }
    assert_eq!(gateway.audit().len(), 0, "nothing was begun");
}

/// From now on the embedded store fails where roles are told, or where members are written; until [`mend`].
fn break_off(gateway: &Gateway, at: &str) {
    gateway.meddle(&format!("CREATE TRIGGER fault BEFORE {at} BEGIN SELECT RAISE(ABORT, 'a fault'); END"));
}

fn mend(gateway: &Gateway) {
    gateway.meddle("DROP TRIGGER fault");
}

async fn change_fails(gateway: &Gateway, member: &Member, roles: serde_json::Value) {
    let path = format!("/api/members/{}", member.id());
    let answer = gateway.admin(http::Method::PUT, &path, Some(json!({ "roles": roles }))).await;
    assert_eq!(answer.status, 500, "{}", answer.body);
}

#[tokio::test]
async fn a_change_that_could_not_be_told_is_told_when_the_member_refreshes() {
    let gateway = Gateway::with(TABLES).await;
    let alice = gateway.login("alice").await;
    break_off(&gateway, "INSERT ON role_changes WHEN (SELECT count(*) FROM role_changes) > 0");
    change_fails(&gateway, &alice, json!(["admin"])).await;
    mend(&gateway);
    assert_eq!(staff(&gateway, &alice).await, 403, "stored, and not told");
    assert_eq!(gateway.refresh(&alice).await.status, 200);
    assert_eq!(staff(&gateway, &alice).await, 200, "the older token");
}

#[tokio::test]
async fn a_role_is_taken_before_that_is_stored_and_comes_back_when_it_could_not_be() {
    let gateway = Gateway::with(TABLES).await;
    let alice = gateway.login("alice").await;
    gateway.change(&alice, json!({ "roles": ["admin"] })).await;
    break_off(&gateway, "INSERT ON role_changes");
    change_fails(&gateway, &alice, json!([])).await;
    mend(&gateway);
    assert_eq!(
        gateway.shown(&format!("/api/members/{}", alice.id())).await["roles"],
        json!(["admin"]),
        "nothing was done"
    );
    assert_eq!(staff(&gateway, &alice).await, 200);
    break_off(&gateway, "UPDATE OF roles ON members");
    change_fails(&gateway, &alice, json!([])).await;
    mend(&gateway);
    assert_eq!(staff(&gateway, &alice).await, 403, "a fault leaves nobody with what was taken");
    let fresh = Member { answer: gateway.refresh(&alice).await.json() };
    assert_eq!((staff(&gateway, &fresh).await, staff(&gateway, &alice).await), (200, 200), "it is what is stored");
}
