//! What everybody may read: the public keys, who issues tokens, and that nothing else is there.

use http::Method;
use serde_json::{Value, json};

use crate::support::gateway::{Answer, Gateway, ROUTES};

async fn keys(gateway: &Gateway, if_none_match: Option<&str>) -> Answer {
    let mut request = gateway.client().get(gateway.url("/.well-known/jwks.json"));
    if let Some(etag) = if_none_match {
        request = request.header("if-none-match", etag);
    }
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn the_public_keys_are_there_and_nothing_private_is() {
    let gateway = Gateway::start().await;
    let answer = keys(&gateway, None).await;
    assert_eq!((answer.status, answer.headers["content-type"].to_str().unwrap()), (200, "application/jwk-set+json"));
    assert_eq!(answer.headers["cache-control"], "public, max-age=300");
    let set = answer.json();
    let key = set["keys"][0].as_object().unwrap();
    assert_eq!(
        (&key["kty"], &key["crv"], &key["alg"], &key["use"]),
        (&json!("EC"), &json!("P-256"), &json!("ES256"), &json!("sig"))
    );
    for private in ["d", "p", "q", "k", "dp", "dq", "qi"] {
        assert!(!key.contains_key(private));
    }
    let alice = gateway.login("alice").await;
    let header = jsonwebtoken::decode_header(alice.token()).unwrap();
    assert_eq!(header.kid.as_deref(), key["kid"].as_str());
}

#[tokio::test]
async fn a_service_verifies_a_token_with_the_published_keys_alone() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&keys(&gateway, None).await.body).unwrap();
    let header = jsonwebtoken::decode_header(alice.token()).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(set.find(header.kid.as_deref().unwrap()).unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&["wxgate"]);
    validation.set_issuer(&["https://api.example.com"]);
    validation.validate_exp = false; // the gateway's clock stands in the test's hand
    let claims = jsonwebtoken::decode::<Value>(alice.token(), &key, &validation).unwrap().claims;
    assert_eq!((claims["openid"].as_str(), claims["sub"].as_str()), (Some(alice.openid()), Some(alice.id())));
    assert_eq!((&claims["aud"], &claims["client_id"]), (&json!("wxgate"), &claims["appid"]));
}

#[tokio::test]
async fn who_has_the_keys_is_told_that_they_have_not_changed() {
    let gateway = Gateway::start().await;
    let first = keys(&gateway, None).await;
    let etag = first.headers["etag"].to_str().unwrap();
    for shown in [etag.to_owned(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
        let again = keys(&gateway, Some(&shown)).await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{shown}");
        assert_eq!(again.headers["etag"], first.headers["etag"]);
        assert_eq!(again.headers["cache-control"], first.headers["cache-control"]);
    }
    assert_eq!(keys(&gateway, Some("\"other\"")).await.body, first.body);
}

#[tokio::test]
async fn the_metadata_say_what_there_is_and_no_more() {
    let gateway = Gateway::with(&format!("server.base = \"/account\"{ROUTES}")).await;
    let answer = gateway.get("/.well-known/oauth-authorization-server", None).await;
    assert_eq!((answer.status, answer.headers["content-type"].to_str().unwrap()), (200, "application/json"));
    let expected = json!({
        "issuer": "https://api.example.com",
        "jwks_uri": "https://api.example.com/.well-known/jwks.json",
        "revocation_endpoint": "https://api.example.com/account/revoke",
        "response_types_supported": [],
    });
    assert_eq!(answer.json(), expected);
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_404() {
    let gateway = Gateway::start().await;
    for path in ["/auth", "/auth/", "/auth/nothing", "/auth/login/", "/auth/me/x", "/.well-known/x", "/auth/LOGIN"] {
        let answer = gateway.post(path, &json!({})).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "route_not_found"), "{path}");
        assert!(!answer.json()["instance"].as_str().unwrap().is_empty());
    }
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn another_method_is_405_and_the_right_ones_are_named() {
    let gateway = Gateway::start().await;
    let table = [
        (Method::GET, "/auth/login", "POST"),
        (Method::DELETE, "/auth/refresh", "POST"),
        (Method::PUT, "/auth/logout", "POST"),
        (Method::GET, "/auth/revoke", "POST"),
        (Method::POST, "/auth/me", "GET,HEAD,PUT,DELETE"),
        (Method::POST, "/.well-known/jwks.json", "GET,HEAD"),
        (Method::PATCH, "/.well-known/oauth-authorization-server", "GET,HEAD"),
    ];
    for (method, path, allowed) in table {
        let answer =
            Answer::of(gateway.client().request(method.clone(), gateway.url(path)).send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"), "{method} {path}");
        assert_eq!(answer.headers["allow"], allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn the_endpoints_stand_where_the_base_says() {
    let gateway = Gateway::with(&format!("server.base = \"/account\"{ROUTES}")).await;
    let code = gateway.wechat.issue_code(None, "alice");
    assert_eq!(gateway.post("/auth/login", &json!({ "code": code })).await.code(), "route_not_found");
    let answer = gateway.post("/account/login", &json!({ "code": code })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(gateway.get("/account/me", answer.json()["access_token"].as_str()).await.status, 200);
}

#[tokio::test]
async fn the_endpoints_describe_themselves_and_a_cache_may_keep_that() {
    let gateway = Gateway::with(&format!("server.base = \"/account\"\n{ROUTES}")).await;
    let ask = async |etag: &str| {
        let request = gateway.client().get(gateway.url("/openapi.json")).header("if-none-match", etag);
        Answer::of(request.send().await.unwrap()).await
    };
    let answer = ask("\"other\"").await;
    assert_eq!((answer.status, answer.headers["content-type"].to_str().unwrap()), (200, "application/json"));
    assert_eq!(answer.headers["cache-control"], "public, max-age=300");
    let document = answer.json();
    assert_eq!(
        (&document["openapi"], &document["servers"][0]["url"]),
        (&json!("3.1.0"), &json!("https://api.example.com"))
    );
    let again = ask(answer.headers["etag"].to_str().unwrap()).await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    // Every method that it names is there, and no other.
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path.replace("{appid}", "wx0123456789abcdef");
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let named = operations.get(method.to_ascii_lowercase()).is_some();
            let request = gateway.client().request(method.parse::<Method>().unwrap(), gateway.url(&path));
            assert_eq!(request.send().await.unwrap().status() != 405, named, "{method} {path}");
        }
    }
}
