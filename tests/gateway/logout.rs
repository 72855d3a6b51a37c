//! Logout and revocation: the end of a session is on disk before it is answered, and in force at once.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::gateway::{Answer, Gateway, Member, ROUTES};

/// Logout with an access token, and this body if any.
async fn logout(gateway: &Gateway, token: Option<&str>, body: Option<Value>) -> Answer {
    let mut request = gateway.client().post(gateway.url("/auth/logout"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    Answer::of(request.send().await.unwrap()).await
}

async fn revoke(gateway: &Gateway, form: &str) -> Answer {
    let request = gateway.client().post(gateway.url("/auth/revoke")).body(form.to_owned());
    Answer::of(request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap()).await
}

/// Neither token of the member does anything any more.
async fn assert_gone(gateway: &Gateway, member: &Member) {
    let proxied = gateway.get("/api/x", Some(member.token())).await;
    assert_eq!((proxied.status, proxied.code().as_str()), (401, "token_revoked"));
    assert_eq!(gateway.get("/auth/me", Some(member.token())).await.code(), "token_revoked");
    let refresh = gateway.post("/auth/refresh", &json!({ "refresh_token": member.refresh() })).await;
    assert_eq!((refresh.status, refresh.code().as_str()), (401, "token_revoked"));
}

/// Its access token is good as far as this instance knows.
async fn assert_alive_here(gateway: &Gateway, member: &Member) {
    assert_eq!(gateway.get("/api/x", Some(member.token())).await.status, 200);
}

async fn assert_alive(gateway: &Gateway, member: &Member) {
    assert_eq!(gateway.get("/api/x", Some(member.token())).await.status, 200);
    assert_eq!(gateway.get("/auth/me", Some(member.token())).await.status, 200);
}

#[tokio::test]
async fn a_logout_with_the_access_token_ends_the_session_at_once() {
    let gateway = Gateway::start().await;
    let (alice, tablet) = (gateway.login("alice").await, gateway.login("alice").await);
    assert_alive(&gateway, &alice).await;
    let answer = logout(&gateway, Some(alice.token()), None).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_gone(&gateway, &alice).await;
    assert_alive(&gateway, &tablet).await;
}

#[tokio::test]
async fn a_logout_with_the_refresh_token_ends_the_session_at_once() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    assert_eq!(logout(&gateway, None, Some(json!({ "refresh_token": alice.refresh() }))).await.status, 204);
    assert_gone(&gateway, &alice).await;
}

#[tokio::test]
async fn a_used_refresh_token_still_names_its_session() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let fresh = gateway.post("/auth/refresh", &json!({ "refresh_token": alice.refresh() })).await;
    assert_eq!(logout(&gateway, None, Some(json!({ "refresh_token": alice.refresh() }))).await.status, 204);
    assert_gone(&gateway, &Member { answer: fresh.json() }).await;
}

#[tokio::test]
async fn logging_out_of_all_devices_spans_this_member_and_no_other() {
    let gateway = Gateway::start().await;
    let (phone, tablet, bob) = (gateway.login("alice").await, gateway.login("alice").await, gateway.login("bob").await);
    assert_eq!(logout(&gateway, Some(phone.token()), Some(json!({ "all": true }))).await.status, 204);
    assert_gone(&gateway, &phone).await;
    assert_gone(&gateway, &tablet).await;
    assert_alive(&gateway, &bob).await;
    // In the same second: what was opened after the end is not hit by it.
    assert_alive(&gateway, &gateway.login("alice").await).await;
}

#[tokio::test]
async fn all_with_a_refresh_token_spans_the_same() {
    let gateway = Gateway::start().await;
    let (phone, tablet) = (gateway.login("alice").await, gateway.login("alice").await);
    let body = json!({ "refresh_token": phone.refresh(), "all": true });
    assert_eq!(logout(&gateway, None, Some(body)).await.status, 204);
    assert_gone(&gateway, &phone).await;
    assert_gone(&gateway, &tablet).await;
}

#[tokio::test]
async fn logging_out_twice_is_no_fault() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    for _ in 0..2 {
        assert_eq!(logout(&gateway, Some(alice.token()), None).await.status, 204);
        assert_eq!(logout(&gateway, None, Some(json!({ "refresh_token": alice.refresh() }))).await.status, 204);
    }
    gateway.until_metric("wxgate_logouts_total", 1).await;
}

#[tokio::test]
async fn an_expired_access_token_still_ends_its_session() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.clock.advance(Duration::from_secs(7200));
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.code(), "token_expired");
    assert_eq!(logout(&gateway, Some(alice.token()), None).await.status, 204);
    let refresh = gateway.post("/auth/refresh", &json!({ "refresh_token": alice.refresh() })).await;
    assert_eq!((refresh.status, refresh.code().as_str()), (401, "token_revoked"));
}

#[tokio::test]
async fn a_logout_needs_a_token_that_is_one() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let none = logout(&gateway, None, None).await;
    assert_eq!((none.status, none.code().as_str()), (401, "token_missing"));
    let forged = format!("{}x", alice.token());
    assert_eq!(logout(&gateway, Some(&forged), None).await.code(), "token_invalid");
    assert_eq!(logout(&gateway, None, Some(json!({ "refresh_token": "x" }))).await.code(), "refresh_invalid");
    for wrong in [json!({ "refresh_token": 7 }), json!({ "all": "yes" }), json!({ "all": 1 }), json!([]), json!("x")] {
        let answer = logout(&gateway, Some(alice.token()), Some(wrong.clone())).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{wrong}");
    }
    assert_alive(&gateway, &alice).await;
}

#[tokio::test]
async fn an_authorization_that_is_no_token_of_ours_does_not_hide_the_refresh_token() {
    let gateway = Gateway::start().await;
    for stranger in ["x", "undefined", "eyJhbGciOiJub25lIn0.e30."] {
        let alice = gateway.login("alice").await;
        let body = json!({ "refresh_token": alice.refresh() });
        assert_eq!(logout(&gateway, Some(stranger), Some(body)).await.status, 204, "{stranger}");
        assert_gone(&gateway, &alice).await;
    }
}

#[tokio::test]
async fn a_logout_that_fails_halfway_leaves_no_access_token_that_works() {
    let gateway = Gateway::start().await;
    let (phone, tablet) = (gateway.login("alice").await, gateway.login("alice").await);
    let fault = |of: &str| {
        format!(
            "CREATE TRIGGER fault BEFORE UPDATE OF ended ON sessions WHEN old.session_id = '{of}'
             BEGIN SELECT raise(FAIL, 'planned'); END"
        )
    };
    // The session itself is ended, those of the other devices cannot be.
    gateway.meddle(&fault(&tablet.session()));
    let all = json!({ "all": true });
    assert_eq!(logout(&gateway, Some(phone.token()), Some(all)).await.code(), "internal");
    assert_gone(&gateway, &phone).await;
    assert_alive(&gateway, &tablet).await;
    // Nothing can be ended: refused here all the same.
    assert_eq!(logout(&gateway, Some(tablet.token()), None).await.code(), "internal");
    assert_eq!(gateway.get("/api/x", Some(tablet.token())).await.code(), "token_revoked");
    gateway.meddle("DROP TRIGGER fault");
    assert_eq!(logout(&gateway, Some(tablet.token()), None).await.status, 204);
    assert_gone(&gateway, &tablet).await;
}

#[tokio::test]
async fn a_session_whose_end_was_written_but_never_answered_is_found_out_by_its_refresh_token() {
    let gateway = Gateway::start().await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    gateway.meddle("UPDATE sessions SET ended = 1, openid = NULL");
    assert_alive_here(&gateway, &alice).await;
    let refresh = gateway.post("/auth/refresh", &json!({ "refresh_token": alice.refresh() })).await;
    assert_eq!((refresh.status, refresh.code().as_str()), (401, "token_revoked"));
    assert_gone(&gateway, &alice).await;
    assert_alive_here(&gateway, &bob).await;
    assert_eq!(logout(&gateway, None, Some(json!({ "refresh_token": bob.refresh() }))).await.status, 204);
    assert_eq!(gateway.get("/api/x", Some(bob.token())).await.code(), "token_revoked");
}

#[tokio::test]
async fn a_write_that_fails_shows_what_was_written_before() {
    let gateway = Gateway::start().await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    gateway.meddle(&format!(
        "INSERT INTO revocations VALUES ('{}', 9e15);
         CREATE TRIGGER fault BEFORE UPDATE ON refresh_tokens BEGIN SELECT raise(FAIL, 'planned'); END",
        alice.session()
    ));
    assert_alive_here(&gateway, &alice).await;
    let refresh = gateway.post("/auth/refresh", &json!({ "refresh_token": bob.refresh() })).await;
    assert_eq!(refresh.code(), "internal");
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.code(), "token_revoked");
}

#[tokio::test]
async fn a_session_that_ends_after_the_life_of_tokens_was_lowered_takes_the_older_ones_along() {
    let lives = |access: &str| format!("token.access_ttl = \"{access}\"\n{ROUTES}");
    let gateway = Gateway::with(&lives("24h")).await;
    let alice = gateway.login("alice").await;
    let gateway = gateway.restart(&lives("5m")).await;
    assert_eq!(logout(&gateway, None, Some(json!({ "refresh_token": alice.refresh() }))).await.status, 204);
    // Three hours later nothing else would remember it.
    gateway.clock.advance(Duration::from_secs(3 * 3600));
    let kept = gateway.inner().kept();
    wxgate::auth::ending::sweep(&*kept.sessions, &kept.revocations, gateway.clock.now()).await.unwrap();
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.code(), "token_revoked");
}

#[tokio::test]
async fn what_was_ended_stays_ended_after_a_restart() {
    let gateway = Gateway::start().await;
    let (alice, tablet, bob) = (gateway.login("alice").await, gateway.login("alice").await, gateway.login("bob").await);
    assert_eq!(logout(&gateway, Some(alice.token()), None).await.status, 204);
    assert_eq!(revoke(&gateway, &format!("token={}", bob.refresh())).await.status, 200);
    let gateway = gateway.restart(ROUTES).await;
    assert_gone(&gateway, &alice).await;
    assert_gone(&gateway, &bob).await;
    assert_alive(&gateway, &tablet).await;
}

#[tokio::test]
async fn revocation_takes_either_kind_of_token() {
    let gateway = Gateway::start().await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let answer = revoke(&gateway, &format!("token={}&token_type_hint=refresh_token", alice.token())).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_gone(&gateway, &alice).await;
    assert_eq!(revoke(&gateway, &format!("token_type_hint=access_token&token={}", bob.refresh())).await.status, 200);
    assert_gone(&gateway, &bob).await;
}

#[tokio::test]
async fn revocation_of_what_is_no_token_is_answered_like_any_other() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    for token in ["x", "", "a.b.c", "%00%ff", &"y".repeat(20_000)] {
        assert_eq!(revoke(&gateway, &format!("token={token}")).await.status, 200);
    }
    assert_alive(&gateway, &alice).await;
}

#[tokio::test]
async fn a_revocation_without_one_token_is_not_well_formed() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let twice = format!("token={0}&token={0}", alice.token());
    for form in ["", "toke=x", &format!("{{\"token\":\"{}\"}}", alice.token()), &twice] {
        let answer = revoke(&gateway, form).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{form}");
    }
    assert_alive(&gateway, &alice).await;
}
