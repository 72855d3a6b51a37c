//! Access tokens at the door: where they may stand, how long they are good, and that nothing else passes for one.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::gateway::{Answer, Gateway, ROUTES};
use crate::support::http1::Broken;
use crate::support::raw::{self, Client};

/// A GET with exactly these header lines.
async fn get_with(gateway: &Gateway, target: &str, lines: &str) -> raw::Response {
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    raw::exchange(gateway.address(), request).await.unwrap()
}

/// It was refused with this, and the service was not asked.
#[track_caller]
fn refused(gateway: &Gateway, answer: &raw::Response, status: u16, code: &str, what: &str) {
    assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{what}");
    assert!(gateway.upstream.requests().is_empty(), "{what}: the service was asked");
}

#[tokio::test]
async fn a_token_stands_in_the_authorization_header_and_nowhere_else() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let token = alice.token();
    let elsewhere = [
        (format!("/api/x?access_token={token}"), String::new()),
        (format!("/api/x?token={token}"), String::new()),
        ("/api/x".to_owned(), format!("Cookie: access_token={token}; token={token}; Authorization=Bearer {token}\r\n")),
        ("/api/x".to_owned(), format!("X-Access-Token: {token}\r\n")),
        ("/api/x".to_owned(), format!("Proxy-Authorization: Bearer {token}\r\n")),
        ("/api/x".to_owned(), format!("Authorization: {token}\r\n")),
        ("/api/x".to_owned(), format!("Authorization: Basic {token}\r\n")),
        ("/api/x".to_owned(), format!("Authorization: Bearer{token}\r\n")),
        ("/api/x".to_owned(), format!("Authorization: Token {token}\r\n")),
    ];
    for (target, lines) in elsewhere {
        let answer = get_with(&gateway, &target, &lines).await;
        refused(&gateway, &answer, 401, "token_missing", &lines);
        assert_eq!(answer.headers.get("www-authenticate"), Some("Bearer realm=\"wxgate\""), "{lines}");
    }
    let scheme = get_with(&gateway, "/api/x", &format!("authorization: bEARER {token}\r\n")).await;
    assert_eq!(scheme.status, 200, "the scheme has no case (RFC 9110, section 11.1)");
}

#[tokio::test]
async fn two_authorization_headers_are_refused_even_when_they_agree() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let bearer = format!("Authorization: Bearer {}\r\n", alice.token());
    for lines in [format!("{bearer}{bearer}"), format!("{bearer}Authorization: Basic YTpi\r\n")] {
        for target in ["/api/x", "/optional/x", "/auth/me"] {
            let answer = get_with(&gateway, target, &lines).await;
            refused(&gateway, &answer, 400, "ambiguous_token", target);
        }
    }
}

#[tokio::test]
async fn a_token_with_anything_about_it_is_another_token() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let token = alice.token();
    let altered = [
        format!("{token} x"),
        format!("{token}x"),
        format!("{token}."),
        format!("{token}="),
        format!(" {token}"),
        format!("{token},{token}"),
        format!("\"{token}\""),
        format!("{}\t{token}", ""),
        token.replace('.', ".."),
        String::new(),
    ];
    // Once the right one is in the cache, too.
    for round in ["before", "after"] {
        for wrong in &altered {
            let answer = get_with(&gateway, "/optional/x", &format!("Authorization: Bearer {wrong}\r\n")).await;
            let what = format!("{round}: {wrong:?}");
            assert_eq!((answer.status, &answer.json()["code"]), (401, &json!("token_invalid")), "{what}");
            let challenge = answer.headers.get("www-authenticate").unwrap();
            assert!(challenge.starts_with("Bearer realm=\"wxgate\", error=\"invalid_token\""), "{challenge}");
        }
        assert_eq!(gateway.get("/api/x", Some(token)).await.status, 200);
    }
    assert_eq!(gateway.upstream.requests().len(), 2, "only the right ones came through");
}

#[tokio::test]
async fn a_bare_token_is_read_where_the_admin_said_so() {
    let gateway = Gateway::with(&format!("token.accept_bare = true\n{ROUTES}")).await;
    let alice = gateway.login("alice").await;
    let bare = get_with(&gateway, "/api/x", &format!("Authorization: {}\r\n", alice.token())).await;
    assert_eq!(bare.status, 200);
    assert!(gateway.upstream.requests()[0].all("authorization").is_empty(), "and does not travel on");
    let me = get_with(&gateway, "/auth/me", &format!("Authorization: {}\r\n", alice.token())).await;
    assert_eq!(me.status, 200);
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200);
    let wrong = get_with(&gateway, "/optional/x", &format!("Authorization: {}x\r\n", alice.token())).await;
    assert_eq!((wrong.status, &wrong.json()["code"]), (401, &json!("token_invalid")));
}

#[tokio::test]
async fn where_a_token_is_optional_a_bad_one_is_still_refused() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let bad = get_with(&gateway, "/optional/x", "Authorization: Bearer x.y.z\r\n").await;
    refused(&gateway, &bad, 401, "token_invalid", "bad");
    gateway.post("/auth/logout", &json!({ "refresh_token": alice.refresh() })).await;
    let revoked = get_with(&gateway, "/optional/x", &format!("Authorization: Bearer {}\r\n", alice.token())).await;
    refused(&gateway, &revoked, 401, "token_revoked", "revoked");
    gateway.clock.advance(Duration::from_secs(7200));
    let expired = get_with(&gateway, "/optional/x", &format!("Authorization: Bearer {}\r\n", alice.token())).await;
    refused(&gateway, &expired, 401, "token_expired", "expired");
    assert_eq!(get_with(&gateway, "/optional/x", "").await.status, 200);
    assert!(gateway.upstream.requests()[0].all("x-wx-openid").is_empty());
}

#[tokio::test]
async fn where_no_token_is_wanted_none_is_read_and_none_is_passed_on() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    for lines in [format!("Authorization: Bearer {}\r\n", alice.token()), "Authorization: Bearer x\r\n".to_owned()] {
        assert_eq!(get_with(&gateway, "/public/x", &lines).await.status, 200);
    }
    for request in gateway.upstream.requests() {
        assert!(request.all("authorization").is_empty() && request.all("x-wx-openid").is_empty());
    }
}

#[tokio::test]
async fn a_token_ends_at_its_second_also_in_the_cache() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    for _ in 0..2 {
        assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200);
    }
    gateway.until_metric("wxgate_token_cache_hits_total", 1).await;
    gateway.clock.advance(Duration::from_millis(7_199_999));
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200);
    gateway.clock.advance(Duration::from_millis(1));
    let expired = gateway.get("/api/x", Some(alice.token())).await;
    assert_eq!((expired.status, expired.code().as_str()), (401, "token_expired"));
    let challenge = expired.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    assert_eq!(gateway.upstream.requests().len(), 3);
}

#[tokio::test]
async fn a_token_that_was_revoked_is_refused_also_from_the_cache() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let mut kept_alive = Client::connect(gateway.address()).await;
    let request = format!("GET /api/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", alice.token());
    for _ in 0..2 {
        kept_alive.send(&request).await;
        assert_eq!(kept_alive.response().await.unwrap().status, 200);
    }
    assert_eq!(gateway.post("/auth/logout", &json!({ "refresh_token": alice.refresh() })).await.status, 204);
    kept_alive.send(&request).await;
    let answer = kept_alive.response().await.unwrap();
    assert_eq!((answer.status, &answer.json()["code"]), (401, &json!("token_revoked")));
    assert_eq!(gateway.upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_token_that_is_far_too_long_costs_little_and_passes_nowhere() {
    let gateway = Gateway::start().await;
    for (length, expected) in [(9_000, 401), (20_000, 401), (60_000, 431), (1_000_000, 431)] {
        let part = "e".repeat(length / 3);
        let mut client = Client::connect(gateway.address()).await;
        let bearer = format!("Authorization: Bearer {part}.{part}.{part}");
        client.send(format!("GET /api/x HTTP/1.1\r\nHost: a\r\n{bearer}\r\n\r\n")).await;
        match client.response().await {
            Ok(answer) => assert_eq!(answer.status, expected, "{length} bytes"),
            // A client that is still sending when it is refused may lose the answer to the reset.
            Err(Broken::Closed | Broken::CutOff) => assert_eq!(expected, 431, "{length} bytes"),
            Err(other) => panic!("{length} bytes: {other}"),
        }
    }
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn what_was_not_signed_by_a_key_of_the_ring_is_refused() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let parts: Vec<&str> = alice.token().split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("three parts") };
    let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let write = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let with = |value: &str, name: &str, new: Value| {
        let mut value = read(value);
        value[name] = new;
        write(&value)
    };
    let jwks = gateway.get("/.well-known/jwks.json", None).await;
    let public_x = jwks.json()["keys"][0]["x"].as_str().unwrap().to_owned();
    let hmac = |secret: &[u8]| {
        let message = format!("{}.{claims}", with(header, "alg", json!("HS256")));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        let tag = URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, message.as_bytes()));
        format!("{message}.{tag}")
    };
    let mut forged = vec![
        hmac(public_x.as_bytes()),
        hmac(jwks.body.as_bytes()),
        hmac(b""),
        format!("{header}.{}.{signature}", with(claims, "sub", json!("somebody-else"))),
        format!("{header}.{}.{signature}", with(claims, "exp", json!(4_000_000_000_i64))),
        format!("{header}.{claims}."),
        format!("{header}.{claims}"),
        format!("{header}.{claims}.{signature}.{signature}"),
        format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([0; 64])),
        format!("{}.{claims}.{signature}", with(header, "typ", json!("JWT"))),
        format!("{}.{claims}.{signature}", with(header, "kid", json!("../../etc/passwd"))),
        format!("{}.{claims}.{signature}", with(header, "jku", json!(format!("{}/keys", gateway.wechat.api_base())))),
        format!("{}.{claims}.{signature}", with(header, "crit", json!(["exp"]))),
        format!("{}.{claims}.{signature}", URL_SAFE_NO_PAD.encode("[".repeat(5000))),
    ];
    for none in ["none", "None", "NONE", "nOnE"] {
        forged.push(format!("{}.{claims}.", with(header, "alg", json!(none))));
        forged.push(format!("{}.{claims}.{signature}", with(header, "alg", json!(none))));
    }
    for token in forged {
        let answer = gateway.get("/optional/x", Some(&token)).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "token_invalid"), "{token}");
    }
    assert!(gateway.upstream.requests().is_empty());
    let calls = gateway.wechat.calls();
    assert_eq!(calls.counts.len(), 1, "nothing was fetched: {:?}", calls.counts);
}

#[tokio::test]
async fn a_clock_that_ran_ahead_does_not_bring_a_revoked_token_back() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    assert_eq!(gateway.post("/auth/logout", &json!({ "refresh_token": alice.refresh() })).await.status, 204);
    gateway.clock.advance(Duration::from_secs(90 * 60));
    let hour = Duration::from_secs(3600);
    gateway.clock.advance(hour);
    let kept = gateway.inner().kept();
    kept.revocations.forget(&kept.revocations.due(gateway.clock.now()), gateway.clock.now());
    kept.sessions.sweep(gateway.clock.now()).await.unwrap();
    gateway.clock.set_back(hour);
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.code(), "token_revoked");
    let revoked = kept.sessions.revoked(gateway.clock.now()).await.unwrap();
    assert_eq!(revoked.len(), 1, "nor does a restart");
}

#[tokio::test]
async fn an_hour_forward_and_an_hour_back_is_survived() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let status = async |token: &str| gateway.get("/api/x", Some(token)).await.status;
    let refresh =
        async |token: &str| -> Answer { gateway.post("/auth/refresh", &json!({ "refresh_token": token })).await };
    let hour = Duration::from_secs(3600);

    gateway.clock.advance(hour);
    assert_eq!(status(alice.token()).await, 200);
    let ahead = gateway.login("bob").await;
    assert_eq!(status(ahead.token()).await, 200);

    // Back to where it was: what was issued meanwhile is of the future and waits; a refresh mends that.
    gateway.clock.set_back(hour);
    assert_eq!(status(alice.token()).await, 200);
    assert_eq!(gateway.get("/api/x", Some(&format!("{}x", ahead.token()))).await.status, 401);
    let mended = refresh(ahead.refresh()).await;
    assert_eq!(mended.status, 200, "{}", mended.body);
    assert_eq!(status(mended.json()["access_token"].as_str().unwrap()).await, 200);

    // And an hour before everything.
    gateway.clock.set_back(hour);
    let carol = gateway.login("carol").await;
    assert_eq!(status(carol.token()).await, 200);
    let early = refresh(alice.refresh()).await;
    assert_eq!(early.status, 200, "{}", early.body);
    assert_eq!(status(early.json()["access_token"].as_str().unwrap()).await, 200);
    assert_eq!(gateway.post("/auth/logout", &json!({ "refresh_token": carol.refresh() })).await.status, 204);
    assert_eq!(gateway.get("/api/x", Some(carol.token())).await.code(), "token_revoked");
    gateway.until_metric("wxgate_panics_total", 0).await;
}
