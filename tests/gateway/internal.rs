//! The services' listener: who may ask, what a token says, who may pass.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::gateway::{APPID, Answer, Gateway, ROUTES};

const TOKEN: &str = "planted-service-token-77";

/// With one service that is known by its token.
async fn with_a_service() -> Gateway {
    let service = format!("\n[[internal.service]]\nname = \"orders\"\ntoken = \"{TOKEN}\"\n");
    Gateway::with(&format!("{ROUTES}{service}")).await
}

fn basic(name: &str, token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{token}")))
}

fn form(request: reqwest::RequestBuilder, body: &str) -> reqwest::RequestBuilder {
    request.header("content-type", "application/x-www-form-urlencoded").body(body.to_owned())
}

async fn introspect(gateway: &Gateway, token: &str) -> Value {
    let request = gateway.client().post(gateway.internal_url("/introspect")).bearer_auth(TOKEN);
    let answer = Answer::of(form(request, &format!("token={token}")).send().await.unwrap()).await;
    assert_eq!((answer.status, &answer.headers["cache-control"]), (200, &"no-store".parse().unwrap()));
    answer.json()
}

/// `/verify` as a front proxy asks: the client's token in `Authorization`, its own credentials beside it.
async fn verify(gateway: &Gateway, rest: &str, token: Option<&str>) -> Answer {
    let mut request = gateway.client().get(gateway.internal_url(&format!("/verify{rest}")));
    request = request.header("proxy-authorization", basic("orders", TOKEN));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn only_a_service_may_ask() {
    let gateway = with_a_service().await;
    let alice = gateway.login("alice").await;
    let ask = |header: Option<(&'static str, String)>| {
        let request = gateway.client().post(gateway.internal_url("/introspect"));
        let mut request = form(request, &format!("token={}", alice.token()));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        async { Answer::of(request.send().await.unwrap()).await }
    };
    for (header, code) in [
        (None, "token_missing"),
        (Some(("authorization", "Bearer wrong".to_owned())), "token_invalid"),
        (Some(("authorization", format!("Bearer {}", alice.token()))), "token_invalid"),
        (Some(("proxy-authorization", basic("stock", TOKEN))), "token_invalid"),
        (Some(("proxy-authorization", basic("orders", "wrong"))), "token_invalid"),
    ] {
        let answer = ask(header).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, code));
    }
    for header in [("authorization", format!("Bearer {TOKEN}")), ("proxy-authorization", basic("orders", TOKEN))] {
        assert_eq!(ask(Some(header)).await.json()["active"], true);
    }
    assert!(!gateway.log.text().contains(TOKEN));
}

#[tokio::test]
async fn without_a_service_nobody_may_ask_and_an_address_is_enough_where_it_is_named() {
    let ask = async |gateway: &Gateway| {
        let request = gateway.client().post(gateway.internal_url("/introspect"));
        Answer::of(form(request, "token=x").send().await.unwrap()).await
    };
    let closed = Gateway::start().await;
    assert_eq!(ask(&closed).await.code(), "token_missing");
    let elsewhere = "[[internal.service]]\nname = \"front\"\nfrom = [\"10.0.0.0/8\"]\n";
    let elsewhere = Gateway::with(&format!("{elsewhere}{ROUTES}")).await;
    assert_eq!(ask(&elsewhere).await.code(), "token_missing");
    let here = "[[internal.service]]\nname = \"front\"\nfrom = [\"127.0.0.0/8\"]\n";
    let here = Gateway::with(&format!("{here}{ROUTES}")).await;
    assert_eq!(ask(&here).await.json(), json!({ "active": false }));
}

#[tokio::test]
async fn introspection_says_what_a_good_token_says_and_nothing_of_a_bad_one() {
    let gateway = with_a_service().await;
    let alice = gateway.login("alice").await;
    let said = introspect(&gateway, alice.token()).await;
    for (name, value) in [
        ("active", json!(true)),
        ("token_type", json!("Bearer")),
        ("sub", json!(alice.id())),
        ("appid", json!(APPID)),
        ("client_id", json!(APPID)),
        ("openid", json!(alice.openid())),
        ("iss", json!("https://api.example.com")),
    ] {
        assert_eq!(said[name], value, "{name}");
    }
    assert!(said["exp"].as_i64() > said["iat"].as_i64() && said["sid"].is_string());
    let inactive = json!({ "active": false });
    for token in ["", "x", "a.b.c", &format!("{}x", alice.token()), &"A".repeat(43)] {
        assert_eq!(introspect(&gateway, token).await, inactive, "{token}");
    }
    gateway.client().post(gateway.url("/auth/logout")).bearer_auth(alice.token()).send().await.unwrap();
    assert_eq!(introspect(&gateway, alice.token()).await, inactive);
    assert_eq!(introspect(&gateway, alice.refresh()).await, inactive);
}

#[tokio::test]
async fn a_refresh_token_is_active_until_it_is_used() {
    let gateway = with_a_service().await;
    let alice = gateway.login("alice").await;
    let said = introspect(&gateway, alice.refresh()).await;
    assert_eq!((&said["active"], &said["token_type"]), (&json!(true), &json!("refresh_token")));
    let next = gateway.post("/auth/refresh", &json!({ "refresh_token": alice.refresh() })).await.json();
    assert_eq!(introspect(&gateway, alice.refresh()).await, json!({ "active": false }));
    assert_eq!(introspect(&gateway, next["refresh_token"].as_str().unwrap()).await["active"], true);
}

#[tokio::test]
async fn an_introspection_without_one_token_is_not_valid() {
    let gateway = with_a_service().await;
    let url = gateway.internal_url("/introspect");
    let post = || gateway.client().post(&url).bearer_auth(TOKEN);
    for request in
        [post(), form(post(), "tokens=x"), form(post(), "token=x&token=y"), post().json(&json!({ "token": "x" }))]
    {
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"));
    }
    let large = form(post(), &format!("token={}", "x".repeat(100_000))).send().await.unwrap();
    assert_eq!(large.status(), 413);
    let get = Answer::of(gateway.client().get(&url).bearer_auth(TOKEN).send().await.unwrap()).await;
    assert_eq!((get.status, get.code().as_str()), (405, "method_not_allowed"));
}

#[tokio::test]
async fn verify_lets_a_member_pass_with_his_identity() {
    let gateway = with_a_service().await;
    let alice = gateway.login("alice").await;
    let answer = verify(&gateway, "", Some(alice.token())).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(answer.headers["x-wx-openid"], alice.openid());
    assert_eq!(answer.headers["x-wx-appid"], APPID);
    assert_eq!(answer.headers["x-wxgate-member"], alice.id());
    assert_eq!(answer.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn verify_refuses_as_a_route_would() {
    let gateway = with_a_service().await;
    let alice = gateway.login("alice").await;
    let good = Some(alice.token());
    for (query, token, status, code) in [
        ("", None, 401, "token_missing"),
        ("", Some("x"), 401, "token_invalid"),
        ("/optional", Some("x"), 401, "token_invalid"),
        ("/optional?roles=staff", None, 401, "token_missing"),
        ("?auth=optional", None, 400, "invalid_request"),
        ("?roles=staff", good, 403, "forbidden"),
        ("?apps=wxelsewhere", good, 403, "forbidden"),
        ("?role=staff", good, 400, "invalid_request"),
        ("?roles=", good, 400, "invalid_request"),
    ] {
        let answer = verify(&gateway, query, token).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{query}");
        assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("x-wx")), "{query}");
    }
    let anonymous = verify(&gateway, "/optional", None).await;
    assert_eq!(anonymous.status, 200);
    for name in ["x-wx-openid", "x-wx-source", "x-wxgate-member", "x-wxgate-roles"] {
        assert_eq!(anonymous.headers[name], "", "what a proxy copies over a client's own header");
    }
    assert_eq!(verify(&gateway, &format!("?apps={APPID},wxelsewhere"), good).await.status, 200);

    gateway.client().post(gateway.url("/auth/logout")).bearer_auth(alice.token()).send().await.unwrap();
    assert_eq!(verify(&gateway, "", good).await.code(), "token_revoked");
}

#[tokio::test]
async fn a_members_token_is_no_services_token() {
    let gateway = with_a_service().await;
    let alice = gateway.login("alice").await;
    let url = gateway.internal_url("/verify");
    let answer = Answer::of(gateway.client().get(url).bearer_auth(alice.token()).send().await.unwrap()).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "token_missing"));
}

#[tokio::test]
async fn a_new_token_of_a_service_is_in_force_after_a_reload() {
    let gateway = with_a_service().await;
    let path = gateway.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(TOKEN, "another-service-token")).unwrap();
    let reloaded = gateway.inner().reload().await;
    let changes = reloaded.unwrap().changes;
    assert!(
        changes
            .iter()
            .any(|change| change.starts_with("neutral [[internal.service]]") && change.ends_with("token changed")),
        "{changes:?}"
    );
    let ask = async |token: &str| {
        let request = gateway.client().post(gateway.internal_url("/introspect")).bearer_auth(token);
        form(request, "token=x").send().await.unwrap().status().as_u16()
    };
    assert_eq!((ask(TOKEN).await, ask("another-service-token").await), (401, 200));
}

#[tokio::test]
async fn the_internal_endpoints_are_not_on_the_public_listener() {
    let gateway = with_a_service().await;
    for path in ["/introspect", "/verify"] {
        let answer = gateway.get(path, Some(TOKEN)).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "route_not_found"), "{path}");
    }
}
