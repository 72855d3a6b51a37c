//! What a route asks of its caller; any fault on the way to the answer is a refusal, and the service is never asked.

use std::time::Duration;

use serde_json::json;

use crate::support::gateway::{Gateway, ROUTES};
use crate::support::raw::exchange;

/// A request with this `Authorization`, or none.
fn get(path: &str, authorization: &str) -> String {
    let line = if authorization.is_empty() { String::new() } else { format!("Authorization: {authorization}\r\n") };
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{line}\r\n")
}

#[tokio::test]
async fn required_optional_and_none_each_treat_every_token_in_their_own_way() {
    let gateway = Gateway::start().await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    assert_eq!(gateway.post("/auth/logout", &json!({ "refresh_token": bob.refresh() })).await.status, 204);
    let bearer = |token: &str| format!("Bearer {token}");
    let (good, revoked) = (bearer(alice.token()), bearer(bob.token()));
    let flipped = format!("{good}x");
    let twice = format!("{good}\r\nAuthorization: {good}");
    for (authorization, required, optional) in [
        ("", "token_missing", "200"),
        (good.as_str(), "200", "200"),
        ("Bearer", "token_invalid", "token_invalid"),
        ("Bearer bad", "token_invalid", "token_invalid"),
        (&flipped, "token_invalid", "token_invalid"),
        (alice.token(), "token_missing", "200"),
        ("Basic eDp5", "token_missing", "200"),
        (&revoked, "token_revoked", "token_revoked"),
        (&bearer(alice.refresh()), "token_invalid", "token_invalid"),
        (&twice, "ambiguous_token", "ambiguous_token"),
    ] {
        for (path, expected) in [("/api/x", required), ("/optional/x", optional), ("/public/x", "200")] {
            let before = gateway.upstream.requests().len();
            let answer = exchange(gateway.address(), get(path, authorization)).await.unwrap();
            let arrived = gateway.upstream.requests().len() - before;
            if expected == "200" {
                assert_eq!((answer.status, arrived), (200, 1), "{path} {authorization}");
            } else {
                assert_eq!((&answer.json()["code"], arrived), (&expected.into(), 0), "{path} {authorization}");
            }
        }
    }
}

#[tokio::test]
async fn an_expired_token_is_nobody_and_not_anonymous() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let bearer = format!("Bearer {}", alice.token());
    for path in ["/api/x", "/optional/x"] {
        assert_eq!(exchange(gateway.address(), get(path, &bearer)).await.unwrap().status, 200, "{path}");
    }
    gateway.clock.advance(Duration::from_secs(2 * 3600));
    for path in ["/api/x", "/optional/x"] {
        let answer = exchange(gateway.address(), get(path, &bearer)).await.unwrap();
        assert_eq!(answer.json()["code"], "token_expired", "{path}: remembered or not");
    }
    assert_eq!(gateway.upstream.requests().len(), 2);
    assert_eq!(exchange(gateway.address(), get("/public/x", &bearer)).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_token_in_the_url_is_no_token() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    for query in ["access_token", "token", "jwt", "bearer"] {
        let answer = gateway.get(&format!("/api/x?{query}={}", alice.token()), None).await;
        assert_eq!(answer.code(), "token_missing", "{query}");
    }
    let cookie = format!("GET /api/x HTTP/1.1\r\nHost: a\r\nCookie: token={}\r\n\r\n", alice.token());
    assert_eq!(exchange(gateway.address(), cookie).await.unwrap().json()["code"], "token_missing");
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn a_role_that_the_caller_lacks_closes_the_route() {
    let routes = "[[route]]\npath = \"/staff/*\"\nupstream = \"echo\"\nroles = [\"staff\"]\n\
                  [[route]]\npath = \"/ours/*\"\nupstream = \"echo\"\napps = [\"wx0123456789abcdef\"]\n";
    let gateway = Gateway::with(&format!("{ROUTES}{routes}")).await;
    let alice = gateway.login("alice").await;
    let answer = gateway.get("/staff/x", Some(alice.token())).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"));
    assert_eq!(gateway.get("/staff/x", None).await.code(), "token_missing");
    assert!(gateway.upstream.requests().is_empty());
    assert_eq!(gateway.get("/ours/x", Some(alice.token())).await.status, 200);
    assert_eq!(gateway.get("/ours/x", None).await.code(), "token_missing");
}

/// Who was let in and who was shut out is known again after a start in the same folder.
#[tokio::test]
async fn a_gateway_that_starts_again_decides_as_before() {
    let gateway = Gateway::start().await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    assert_eq!(gateway.post("/auth/logout", &json!({ "refresh_token": bob.refresh() })).await.status, 204);
    let gateway = gateway.restart(ROUTES).await;
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200);
    assert_eq!(gateway.get("/api/x", Some(bob.token())).await.code(), "token_revoked");
}
