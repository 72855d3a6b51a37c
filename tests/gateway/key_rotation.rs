//! Signing keys come and go, and nobody notices: by age, by command, with another algorithm, and on other instances.

use std::time::Duration;

use serde_json::{Value, json};
use wxgate::token::rotation::{self, LEAD, LEAD_AT_ONCE, Policy};

use crate::support::DEADLINE;
use crate::support::gateway::{Answer, Gateway, Member, ROUTES};
use crate::support::process::{Exit, Output, Process};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn kid(member: &Member) -> String {
    jsonwebtoken::decode_header(member.token()).unwrap().kid.unwrap()
}

async fn published(gateway: &Gateway) -> Vec<String> {
    let document = gateway.get("/.well-known/jwks.json", None).await.json();
    let keys = document["keys"].as_array().unwrap().iter();
    keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

async fn admin(gateway: &Gateway, path: &str, body: &Value) -> Answer {
    let token = std::fs::read_to_string(gateway.dir.path().join("keys/admin.token")).unwrap();
    let request = gateway.client().post(gateway.admin_url(path)).bearer_auth(token.trim()).json(body);
    Answer::of(request.send().await.unwrap()).await
}

/// Runs a command of an operator on this gateway.
pub(crate) async fn command(gateway: &Gateway, arguments: &[&str]) -> (Exit, Output) {
    let folder = gateway.dir.path();
    // The test's gateway listens on a free port.
    let address = gateway.admin_url("").trim_start_matches("http://").to_owned();
    let text = std::fs::read_to_string(folder.join("gateway.toml")).unwrap();
    let text = text.replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{address}\""));
    std::fs::write(folder.join("operator.toml"), text).unwrap();
    let mut process = Process::wxgate_in(folder, &[arguments, &["--config", "operator.toml"]].concat());
    let exit = process.exit().await;
    (exit, process.output())
}

#[tokio::test]
async fn a_key_of_age_is_replaced_and_nobody_is_logged_out() {
    let gateway = Gateway::with(&format!("token.rotate_every = \"30d\"\n{ROUTES}")).await;
    let first = gateway.login("alice").await;
    gateway.clock.advance(30 * DAY - LEAD);
    gateway.inner().tend_keys().await.unwrap();
    let during = gateway.login("alice").await;
    assert_eq!(kid(&during), kid(&first), "the next key is published and does not sign yet");
    let keys = published(&gateway).await;
    assert_eq!((keys.len(), &keys[0]), (2, &kid(&first)));

    gateway.clock.advance(LEAD);
    gateway.inner().tend_keys().await.unwrap();
    let second = gateway.login("alice").await;
    assert_eq!(kid(&second), keys[1], "published before it signed");
    for member in [&during, &second] {
        assert_eq!(gateway.get("/api/x", Some(member.token())).await.status, 200);
    }
    // When nothing that it signed is good any more, the old key goes, with its file.
    gateway.clock.advance(Duration::from_secs(2 * 3600 + 2 * 3600));
    gateway.inner().tend_keys().await.unwrap();
    assert_eq!(published(&gateway).await, [kid(&second)]);
    let file = gateway.dir.path().join(format!("keys/ES256-{}.pem", kid(&first)));
    assert!(!file.exists());
}

#[tokio::test]
async fn another_algorithm_logs_nobody_out_and_is_published_before_it_signs() {
    let gateway = Gateway::with(&format!("token.algorithm = \"RS256\"\n{ROUTES}")).await;
    let before = gateway.login("alice").await;
    gateway.rewrite(|text| text.replace("\"RS256\"", "\"ES256\"")).await;
    let during = gateway.login("alice").await;
    assert_eq!(kid(&during), kid(&before));
    assert_eq!(published(&gateway).await.len(), 2);
    gateway.clock.advance(LEAD);
    gateway.inner().tend_keys().await.unwrap();
    let after = gateway.login("alice").await;
    assert_eq!(jsonwebtoken::decode_header(after.token()).unwrap().alg, jsonwebtoken::Algorithm::ES256);
    for member in [&before, &during, &after] {
        assert_eq!(gateway.get("/api/x", Some(member.token())).await.status, 200);
    }
    let refreshed = gateway.post("/auth/refresh", &json!({ "refresh_token": before.refresh() })).await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.body);
}

#[tokio::test]
async fn what_another_instance_did_to_the_ring_is_taken_up() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let policy = Policy::of(&gateway.inner().current().config.token);
    rotation::rotate(&gateway.dir.path().join("keys"), &policy, true, &gateway.clock).unwrap();
    // Nobody tells this one: it looks.
    let known = async {
        while published(&gateway).await.len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, known).await.expect("the new key was never seen");
    assert_eq!(kid(&gateway.login("alice").await), kid(&alice), "it is known before it signs");
    gateway.clock.advance(LEAD_AT_ONCE + Duration::from_secs(1));
    gateway.inner().tend_keys().await.unwrap();
    let after = gateway.login("alice").await;
    assert_ne!(kid(&after), kid(&alice));
    for member in [&alice, &after] {
        assert_eq!(gateway.get("/api/x", Some(member.token())).await.status, 200);
    }
}

#[tokio::test]
async fn an_operator_lists_and_rotates_keys() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let (exit, output) = command(&gateway, &["keys", "list"]).await;
    assert_eq!((exit, output.stdout.len()), (Exit::Code(0), 2), "its ring and what seals: {output:#?}");
    assert!(output.stdout[0].contains(&kid(&alice)) && output.stdout[0].contains("active"), "{output:#?}");

    let (exit, output) = command(&gateway, &["keys", "rotate"]).await;
    assert_eq!((exit, output.stdout.len()), (Exit::Code(0), 3), "{output:#?}");
    assert!(output.stdout[1].contains("next") && output.stdout[1].contains("signs from 2026-11-21T00:10:00Z"));
    assert_eq!(kid(&gateway.login("alice").await), kid(&alice));

    let (exit, output) = command(&gateway, &["keys", "rotate", "--now"]).await;
    assert_eq!(exit, Exit::Code(0), "{output:#?}");
    let said = output.stdout[1].contains("next") && output.stdout[1].contains("signs from 2026-11-21T00:00:06Z");
    assert!(said, "every instance has seen it by then: {output:#?}");
    gateway.clock.advance(LEAD_AT_ONCE + Duration::from_secs(1));
    gateway.inner().tend_keys().await.unwrap();
    let (_, output) = command(&gateway, &["keys", "list"]).await;
    assert!(output.stdout[0].contains("retiring") && output.stdout[1].contains("active"), "{output:#?}");
    assert_ne!(kid(&gateway.login("alice").await), kid(&alice));
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200);
    let audit = std::fs::read_to_string(gateway.dir.path().join("audit.log")).unwrap();
    assert_eq!(audit.lines().filter(|line| line.contains("keys.rotate")).count(), 4);
}

#[tokio::test]
async fn the_keys_are_operators_business() {
    let gateway = Gateway::start().await;
    let get = gateway.client().get(gateway.admin_url("/api/keys"));
    assert_eq!(Answer::of(get.send().await.unwrap()).await.code(), "token_missing");
    for path in ["/api/keys/rotate", "/api/token/inspect"] {
        let post = gateway.client().post(gateway.admin_url(path)).bearer_auth("no").json(&json!({}));
        assert_eq!(Answer::of(post.send().await.unwrap()).await.code(), "token_invalid", "{path}");
    }
    assert_eq!(admin(&gateway, "/api/keys/rotate", &json!({ "now": "yes" })).await.code(), "invalid_request");
    assert_eq!(admin(&gateway, "/api/token/inspect", &json!({})).await.code(), "invalid_request");
    let token = std::fs::read_to_string(gateway.dir.path().join("keys/admin.token")).unwrap();
    let list = gateway.client().get(gateway.admin_url("/api/keys")).bearer_auth(token.trim());
    let list = Answer::of(list.send().await.unwrap()).await;
    let key = list.json()["keys"][0].clone();
    let mut names: Vec<&String> = key.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["algorithm", "created_at", "kid", "since", "state"], "nothing of the key itself");
}

#[tokio::test]
async fn an_operator_sees_what_a_token_is_and_why_it_is_not_taken() {
    let routes = format!("{ROUTES}\n[[route]]\npath = \"/signed\"\nupstream = \"echo\"\nassertion = true\n");
    let gateway = Gateway::with(&routes).await;
    let alice = gateway.login("alice").await;
    assert_eq!(gateway.get("/signed", Some(alice.token())).await.status, 200);
    let assertion = gateway.upstream.requests()[0].all("x-wxgate-assertion")[0].to_owned();
    let inspect = async |token: &str| admin(&gateway, "/api/token/inspect", &json!({ "token": token })).await.json();

    let found = inspect(alice.token()).await;
    assert_eq!((&found["kind"], &found["valid"]), (&json!("access token"), &json!(true)));
    assert_eq!((&found["header"]["typ"], &found["claims"]["openid"]), (&json!("at+jwt"), &json!(alice.openid())));
    let found = inspect(&assertion).await;
    assert_eq!((&found["kind"], &found["valid"]), (&json!("assertion"), &json!(true)));
    let found = inspect(alice.refresh()).await;
    assert_eq!((&found["kind"], &found["valid"]), (&json!("refresh token"), &json!(true)));
    assert_eq!(found["session"], alice.session());
    let found = inspect("rubbish").await;
    assert_eq!((&found["kind"], &found["valid"]), (&json!("unknown"), &json!(false)));

    gateway.clock.advance(Duration::from_secs(2 * 3600));
    for (token, why) in [(alice.token(), "expired"), (&assertion, "expired")] {
        let found = inspect(token).await;
        assert!(found["valid"] == false && found["reason"].as_str().unwrap().contains(why), "{found}");
    }
    let (exit, output) = command(&gateway, &["token", "inspect", alice.token()]).await;
    assert_eq!((exit, output.stdout[0].as_str()), (Exit::Code(1), "access token: not valid: the token has expired"));
    let fresh = gateway.login("alice").await;
    let wxgate = env!("CARGO_BIN_EXE_wxgate");
    let script = format!("echo {} | '{wxgate}' token inspect - --config operator.toml", fresh.token());
    let mut process = Process::shell(gateway.dir.path(), &script);
    assert_eq!((process.exit().await, process.output().stdout[0].as_str()), (Exit::Code(0), "access token: valid"));
    let logout = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(fresh.token());
    assert_eq!(logout.send().await.unwrap().status(), 204);
    assert_eq!(inspect(fresh.token()).await["reason"], "the token was revoked");
    for secret in [alice.token(), alice.refresh(), &assertion] {
        assert!(!gateway.log.text().contains(secret));
    }
}
