//! Sliding renewal: who is about to be logged out by the clock gets a fresh token with the answer.

use std::time::Duration;

use crate::support::DEADLINE;
use crate::support::gateway::{Answer, Gateway, ROUTES, claims};

const MINUTE: Duration = Duration::from_secs(60);

async fn gateway(more: &str) -> Gateway {
    Gateway::with(&format!("token.renew_within = \"10m\"\n{more}\n{ROUTES}")).await
}

fn carried(answer: &Answer) -> Option<&str> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.headers.get("x-wxgate-token").map(|token| token.to_str().unwrap())
}

/// The fresh token; asked for again, where the store took its time.
async fn renewed(gateway: &Gateway, token: &str) -> Answer {
    let ask = async {
        loop {
            let answer = gateway.get("/api/x", Some(token)).await;
            if carried(&answer).is_some() {
                return answer;
            }
        }
    };
    tokio::time::timeout(DEADLINE, ask).await.expect("no fresh token came")
}

#[tokio::test]
async fn a_token_that_is_about_to_expire_is_followed_by_a_fresh_one() {
    let gateway = gateway("").await;
    let alice = gateway.login("alice").await;
    gateway.clock.advance(110 * MINUTE - Duration::from_secs(1));
    assert_eq!(carried(&gateway.get("/api/x", Some(alice.token())).await), None);
    gateway.clock.advance(Duration::from_secs(1));
    let answer = renewed(&gateway, alice.token()).await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    let fresh = carried(&answer).unwrap().to_owned();
    let (old, new) = (claims(alice.token()), claims(&fresh));
    assert_eq!((&new["sid"], &new["auth_time"]), (&old["sid"], &old["auth_time"]));
    assert_eq!(new["exp"].as_i64(), old["exp"].as_i64().map(|exp| exp + 110 * 60));
    let again = gateway.get("/api/x", Some(alice.token())).await;
    assert_eq!(carried(&again), Some(fresh.as_str()), "one for all requests");

    assert_eq!(carried(&gateway.get("/api/x", Some(&fresh)).await), None, "it has time left");
    assert_eq!(carried(&gateway.get("/public/x", Some(alice.token())).await), None, "no caller");
    gateway.clock.advance(10 * MINUTE);
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.code(), "token_expired");
    assert_eq!(gateway.get("/api/x", Some(&fresh)).await.status, 200);
    assert!(!gateway.log.text().contains(&fresh));
}

#[tokio::test]
async fn nothing_is_renewed_unless_the_configuration_says_so() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.clock.advance(119 * MINUTE);
    assert_eq!(carried(&gateway.get("/api/x", Some(alice.token())).await), None);
}

#[tokio::test]
async fn no_fresh_token_outlives_the_session() {
    let gateway = gateway("token.session_ttl = \"3h\"\ntoken.refresh_ttl = \"3h\"").await;
    let alice = gateway.login("alice").await;
    gateway.clock.advance(115 * MINUTE);
    let fresh = carried(&renewed(&gateway, alice.token()).await).unwrap().to_owned();
    let end = claims(alice.token())["iat"].as_i64().unwrap() + 3 * 3600;
    assert_eq!(claims(&fresh)["exp"], end);
    gateway.clock.advance(60 * MINUTE);
    assert_eq!(carried(&gateway.get("/api/x", Some(&fresh)).await), None, "there is nothing to gain");
    gateway.clock.advance(5 * MINUTE);
    assert_eq!(gateway.get("/api/x", Some(&fresh)).await.code(), "token_expired");
}

#[tokio::test]
async fn a_session_that_was_ended_or_is_unknown_is_not_prolonged() {
    let gateway = gateway("").await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    gateway.clock.advance(115 * MINUTE);
    let fresh = carried(&renewed(&gateway, alice.token()).await).unwrap().to_owned();
    let logout = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(alice.token());
    assert_eq!(logout.send().await.unwrap().status(), 204);
    for token in [alice.token(), &fresh] {
        let answer = gateway.get("/api/x", Some(token)).await;
        assert_eq!(answer.code(), "token_revoked");
        assert!(!answer.headers.contains_key("x-wxgate-token"));
    }
    gateway.meddle(&format!("DELETE FROM sessions WHERE session_id = '{}'", bob.session()));
    assert_eq!(carried(&gateway.get("/api/x", Some(bob.token())).await), None);
}

#[tokio::test]
async fn an_answer_that_leaves_after_the_logout_brings_no_fresh_token() {
    let gateway = gateway("").await;
    let alice = gateway.login("alice").await;
    gateway.clock.advance(115 * MINUTE);
    renewed(&gateway, alice.token()).await;
    let before = gateway.upstream.requests().len();
    let slow = gateway.client().get(gateway.url("/api/hold")).bearer_auth(alice.token()).send();
    let slow = tokio::spawn(slow);
    gateway.upstream.until_requests(before + 1).await;
    let logout = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(alice.token());
    assert_eq!(logout.send().await.unwrap().status(), 204);
    gateway.upstream.release(1);
    assert_eq!(carried(&Answer::of(slow.await.unwrap().unwrap()).await), None);
}

#[tokio::test]
async fn a_renewed_token_is_remembered_for_as_long_as_it_lives() {
    let gateway = Gateway::with(&format!("token.access_ttl = \"24h\"\ntoken.renew_within = \"30m\"\n{ROUTES}")).await;
    let alice = gateway.login("alice").await;
    gateway.clock.advance(24 * 60 * MINUTE - 10 * MINUTE);
    let fresh = carried(&renewed(&gateway, alice.token()).await).unwrap().to_owned();
    gateway.rewrite(|text| text.replace("\"24h\"", "\"1h\"")).await;
    // By the refresh token: nothing that is shown says how long the renewed one lives.
    let logout = gateway.post("/auth/logout", &serde_json::json!({ "refresh_token": alice.refresh() })).await;
    assert_eq!(logout.status, 204);
    gateway.clock.advance(20 * 60 * MINUTE);
    gateway.sweep().await;
    assert_eq!(gateway.get("/api/x", Some(&fresh)).await.code(), "token_revoked");
    gateway.clock.advance(7 * 60 * MINUTE);
    gateway.sweep().await;
    assert!(gateway.inner().kept().revocations.is_empty(), "and no longer");
}

#[tokio::test]
async fn a_page_of_another_origin_may_read_it() {
    let cors = "[[route]]\npath = \"/page\"\nupstream = \"echo\"\ncors = { origins = [\"https://m.example.com\"] }\n";
    let gateway = Gateway::with(&format!("token.renew_within = \"10m\"\n{ROUTES}{cors}")).await;
    let alice = gateway.login("alice").await;
    let exposed = async || {
        let request = gateway.client().get(gateway.url("/page")).bearer_auth(alice.token());
        let answer = Answer::of(request.header("origin", "https://m.example.com").send().await.unwrap()).await;
        let names = answer.headers.get_all("access-control-expose-headers").iter();
        names.map(|name| name.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(exposed().await.is_empty());
    gateway.clock.advance(115 * MINUTE);
    renewed(&gateway, alice.token()).await;
    assert_eq!(exposed().await, ["x-wxgate-token"]);
}
