//! Refresh: every use rotates the token, a lost answer can be had again, and a copy that is used later ends the session.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::gateway::{Answer, Gateway, Member, ROUTES};

async fn refresh(gateway: &Gateway, token: &str) -> Answer {
    gateway.post("/auth/refresh", &json!({ "refresh_token": token })).await
}

async fn refreshed(gateway: &Gateway, token: &str) -> Member {
    let answer = refresh(gateway, token).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    Member { answer: answer.json() }
}

async fn refused(gateway: &Gateway, token: &str) -> String {
    let answer = refresh(gateway, token).await;
    assert_eq!(answer.status, 401, "{}", answer.body);
    assert!(answer.headers.contains_key("www-authenticate"));
    answer.code()
}

#[tokio::test]
async fn a_refresh_gives_a_new_pair_of_the_same_session() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.clock.advance(Duration::from_secs(7300));
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.code(), "token_expired");
    let answer = refresh(&gateway, alice.refresh()).await;
    assert_eq!((answer.status, answer.headers["cache-control"].to_str().unwrap()), (200, "no-store"));
    let fresh = Member { answer: answer.json() };
    assert_ne!(fresh.refresh(), alice.refresh());
    assert_eq!((fresh.id(), fresh.openid()), (alice.id(), alice.openid()));
    assert_eq!((&fresh.answer["expires_in"], &fresh.answer["is_new"]), (&json!(7200), &json!(false)));
    assert_eq!(fresh.answer["refresh_expires_in"], 30 * 86_400, "the time starts anew");
    assert_eq!(gateway.get("/api/x", Some(fresh.token())).await.status, 200);
    assert_eq!(gateway.wechat.calls().count("/sns/jscode2session"), 1, "WeChat has no part in it");
}

#[tokio::test]
async fn within_the_grace_the_same_token_gives_the_same_successor_again() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let first = refreshed(&gateway, alice.refresh()).await;
    gateway.clock.advance(Duration::from_millis(29_999));
    let again = refreshed(&gateway, alice.refresh()).await;
    assert_eq!(first.refresh(), again.refresh());
    assert_ne!(first.token(), again.token(), "and a fresh access token");
}

#[tokio::test]
async fn the_same_successor_comes_after_a_restart_too() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let first = refreshed(&gateway, alice.refresh()).await;
    let gateway = gateway.restart(ROUTES).await;
    assert_eq!(refreshed(&gateway, alice.refresh()).await.refresh(), first.refresh());
    refreshed(&gateway, first.refresh()).await;
}

#[tokio::test]
async fn after_the_grace_a_used_token_is_reuse_and_ends_the_session() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let fresh = refreshed(&gateway, alice.refresh()).await;
    gateway.clock.advance(Duration::from_secs(30));
    assert_eq!(refused(&gateway, alice.refresh()).await, "refresh_reused");
    // Whoever holds the rest of the family holds nothing any more, at once.
    assert_eq!(refused(&gateway, fresh.refresh()).await, "token_revoked");
    for token in [alice.token(), fresh.token()] {
        assert_eq!(gateway.get("/api/x", Some(token)).await.code(), "token_revoked");
    }
    gateway.until_metric("wxgate_refresh_reuses_total", 1).await;
    assert_eq!(gateway.upstream.requests().len(), 0);
}

#[tokio::test]
async fn once_its_successor_was_used_a_token_is_reuse_even_within_the_grace() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let second = refreshed(&gateway, alice.refresh()).await;
    let third = refreshed(&gateway, second.refresh()).await;
    assert_eq!(refused(&gateway, alice.refresh()).await, "refresh_reused");
    assert_eq!(refused(&gateway, third.refresh()).await, "token_revoked");
}

#[tokio::test]
async fn reuse_on_one_device_leaves_the_other_alone() {
    let gateway = Gateway::start().await;
    let (phone, tablet) = (gateway.login("alice").await, gateway.login("alice").await);
    refreshed(&gateway, phone.refresh()).await;
    gateway.clock.advance(Duration::from_secs(60));
    assert_eq!(refused(&gateway, phone.refresh()).await, "refresh_reused");
    assert_eq!(gateway.get("/api/x", Some(tablet.token())).await.status, 200);
    refreshed(&gateway, tablet.refresh()).await;
}

#[tokio::test]
async fn twenty_refreshes_of_one_token_at_once_have_one_successor() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let answers = join_all((0..20).map(|_| refreshed(&gateway, alice.refresh()))).await;
    let successor = answers[0].refresh();
    assert!(answers.iter().all(|answer| answer.refresh() == successor));
    refreshed(&gateway, successor).await;
}

#[tokio::test]
async fn an_unused_refresh_token_ends_with_its_time() {
    let gateway = Gateway::with(&format!("token.refresh_ttl = \"1d\"{ROUTES}")).await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    assert_eq!(alice.answer["refresh_expires_in"], 86_400);
    gateway.clock.advance(Duration::from_secs(86_399));
    refreshed(&gateway, alice.refresh()).await;
    gateway.clock.advance(Duration::from_secs(1));
    assert_eq!(refused(&gateway, bob.refresh()).await, "refresh_invalid");
}

#[tokio::test]
async fn no_refresh_leads_past_the_end_of_the_session() {
    let tables = format!("token.refresh_ttl = \"2d\"\ntoken.session_ttl = \"3d\"\n{ROUTES}");
    let gateway = Gateway::with(&tables).await;
    let mut alice = gateway.login("alice").await;
    let day = 86_400;
    for (left, expected) in [(2 * day, 2 * day), (day, day)] {
        gateway.clock.advance(Duration::from_secs(day));
        alice = refreshed(&gateway, alice.refresh()).await;
        assert_eq!(alice.answer["refresh_expires_in"], expected, "{left} seconds are left of the session");
    }
    gateway.clock.advance(Duration::from_secs(day - 60));
    alice = refreshed(&gateway, alice.refresh()).await;
    assert_eq!((&alice.answer["expires_in"], &alice.answer["refresh_expires_in"]), (&json!(60), &json!(60)));
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200);
    gateway.clock.advance(Duration::from_secs(60));
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.code(), "token_expired");
    assert_eq!(refused(&gateway, alice.refresh()).await, "refresh_invalid");
}

#[tokio::test]
async fn what_is_not_a_refresh_token_is_not_taken_for_one() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let flipped: String = alice.refresh().chars().rev().collect();
    for wrong in [alice.token(), "x", "00000000000000000000000000000000000000000000", &flipped, &"a".repeat(100_000)] {
        let shown: String = wrong.chars().take(50).collect();
        assert_eq!(refused(&gateway, wrong).await, "refresh_invalid", "{shown}");
    }
    assert_eq!(refused(&gateway, &format!("{}=", alice.refresh())).await, "refresh_invalid");
    refreshed(&gateway, alice.refresh()).await;
}

#[tokio::test]
async fn a_body_of_the_wrong_shape_is_refused_and_uses_nothing() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let token = alice.refresh();
    let wrong = [
        json!({}),
        json!({ "refresh_token": "" }),
        json!({ "refresh_token": null }),
        json!({ "refresh_token": 7 }),
        json!({ "refresh_token": [token] }),
        json!({ "refreshToken": token }),
        json!([token]),
        json!(token),
        Value::Null,
    ];
    for body in wrong {
        let answer = gateway.post("/auth/refresh", &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{body}");
    }
    let answer = gateway.post("/auth/refresh", &json!({ "refresh_token": token, "grant_type": "refresh_token" })).await;
    assert_eq!(answer.status, 200, "what is not known is ignored: {}", answer.body);
}

#[tokio::test]
async fn a_profile_that_changed_is_in_the_next_answer() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let put = gateway.client().put(gateway.url("/auth/me")).bearer_auth(alice.token());
    assert_eq!(put.json(&json!({ "nickname": "Alice" })).send().await.unwrap().status(), 200);
    assert_eq!(refreshed(&gateway, alice.refresh()).await.answer["member"]["nickname"], "Alice");
}
