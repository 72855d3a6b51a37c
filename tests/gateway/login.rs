//! The main job: a code becomes a session, a token opens the service, the service reads who asks.

use serde_json::json;

use crate::support::gateway::{APPID, Gateway};

#[tokio::test]
async fn a_member_logs_in_and_the_service_reads_the_openid() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let answer = gateway.get("/api/orders?x=1", Some(alice.token())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let requests = gateway.upstream.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].request_line, "GET /api/orders?x=1 HTTP/1.1");
    assert_eq!(requests[0].all("x-wx-openid"), [alice.openid()]);
    assert_eq!(requests[0].all("x-wx-appid"), [APPID]);
    assert_eq!(requests[0].all("x-wx-source"), ["wx_client"]);
    assert_eq!(requests[0].all("x-wxgate-member"), [alice.id()]);
    assert!(requests[0].all("authorization").is_empty());
}

#[tokio::test]
async fn without_a_token_the_service_is_never_asked() {
    let gateway = Gateway::start().await;
    let answer = gateway.get("/api/orders", None).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "token_missing"));
    assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn thirty_racing_logins_with_one_code_are_one_call_to_wechat_and_one_session() {
    let gateway = Gateway::start().await;
    let code = gateway.wechat.issue_code(None, "alice");
    let body = json!({ "code": code });
    let answers = futures_util::future::join_all((0..30).map(|_| gateway.post("/auth/login", &body))).await;
    let first = answers[0].json();
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer = answer.json();
        assert_eq!(answer["refresh_token"], first["refresh_token"]);
        assert_eq!(answer["member_id"], first["member_id"]);
    }
    assert_eq!(gateway.wechat.calls().count("/sns/jscode2session"), 1);
}
