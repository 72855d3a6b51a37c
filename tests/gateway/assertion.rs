//! The caller, signed for one upstream: what it says, who can check it, how long it stands, and what it is not good for.

use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde_json::{Value, json};

use crate::support::gateway::{APPID, Gateway, START};
use crate::support::upstream::{Request, Upstream};

const ROUTES: &str = r#"
[[route]]
path = "/api/*"
upstream = "echo"
assertion = true
auth = "optional"

[[route]]
path = "/plain/*"
upstream = "echo"
"#;

/// As a service does: with the published keys, its own name and the type, and nothing else.
async fn checked(gateway: &Gateway, jwt: &str, name: &str) -> Result<(Header, Value), String> {
    let header = jsonwebtoken::decode_header(jwt).map_err(|e| e.to_string())?;
    if header.typ.as_deref() != Some("wxgate-assertion+jwt") {
        return Err(format!("typ {:?}", header.typ));
    }
    let published = gateway.get("/.well-known/jwks.json", None).await.json();
    let set: JwkSet = serde_json::from_value(published).unwrap();
    let jwk = set.find(header.kid.as_deref().unwrap()).ok_or("not published")?;
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&[name]);
    validation.set_issuer(&["https://api.example.com"]);
    // The gateway's clock stands still in the future.
    validation.validate_exp = false;
    let claims = jsonwebtoken::decode(jwt, &DecodingKey::from_jwk(jwk).unwrap(), &validation);
    Ok((header, claims.map_err(|e| e.to_string())?.claims))
}

fn shown(request: &Request) -> String {
    let shown = request.all("x-wxgate-assertion");
    assert_eq!(shown.len(), 1, "{shown:?}");
    shown[0].to_owned()
}

async fn assertion(gateway: &Gateway, token: &str) -> String {
    assert_eq!(gateway.get("/api/x", Some(token)).await.status, 200);
    shown(gateway.upstream.requests().last().unwrap())
}

#[tokio::test]
async fn an_upstream_that_asks_gets_the_caller_signed_for_it_alone() {
    let gateway = Gateway::with(ROUTES).await;
    let alice = gateway.login("alice").await;
    let jwt = assertion(&gateway, alice.token()).await;
    let (_, claims) = checked(&gateway, &jwt, "echo").await.unwrap();
    let expected = json!({
        "iss": "https://api.example.com", "aud": "echo", "sub": alice.id(), "client_id": APPID, "appid": APPID,
        "openid": alice.openid(), "unionid": alice.answer["unionid"], "sid": alice.session(), "auth_time": START,
        "iat": START, "exp": START + 60,
    });
    assert_eq!(claims, expected);
    assert!(checked(&gateway, &jwt, "orders").await.unwrap_err().contains("InvalidAudience"));

    assert_eq!(gateway.get("/plain/x", Some(alice.token())).await.status, 200);
    assert_eq!(gateway.get("/api/x", None).await.status, 200);
    for request in &gateway.upstream.requests()[1..] {
        assert_eq!(request.all("x-wxgate-assertion"), [""; 0], "not asked for, or nobody to speak of");
    }
}

#[tokio::test]
async fn requests_of_half_a_minute_share_one_signature() {
    let other = Upstream::echo().await;
    let routes = format!(
        "{ROUTES}\n[[upstream]]\nname = \"other\"\nservers = [\"http://{}\"]\n\
         [[route]]\npath = \"/other\"\nupstream = \"other\"\nassertion = true\n",
        other.address()
    );
    let gateway = Gateway::with(&routes).await;
    let alice = gateway.login("alice").await;
    // An ECDSA signature is another each time: the same bytes mean that none was made.
    let first = assertion(&gateway, alice.token()).await;
    assert_eq!(gateway.get("/other", Some(alice.token())).await.status, 200);
    assert_ne!(shown(&other.requests()[0]), first);
    gateway.clock.advance(Duration::from_secs(29));
    assert_eq!(assertion(&gateway, alice.token()).await, first);

    gateway.clock.advance(Duration::from_secs(1));
    let second = assertion(&gateway, alice.token()).await;
    assert_ne!(second, first, "an upstream has half a minute left of it at least");
    let (_, claims) = checked(&gateway, &second, "echo").await.unwrap();
    assert_eq!((claims["iat"].as_i64(), claims["exp"].as_i64()), (Some(START + 30), Some(START + 90)));

    let bob = gateway.login("bob").await;
    let (_, claims) = checked(&gateway, &assertion(&gateway, bob.token()).await, "echo").await.unwrap();
    assert_eq!(claims["openid"], bob.openid());
}

#[tokio::test]
async fn an_assertion_is_never_of_another_hour_when_the_clock_is_set() {
    let gateway = Gateway::with(ROUTES).await;
    let alice = gateway.login("alice").await;
    assertion(&gateway, alice.token()).await;
    gateway.clock.advance(Duration::from_secs(3600));
    let ahead = assertion(&gateway, alice.token()).await;
    gateway.clock.set_back(Duration::from_secs(3600));
    let back = assertion(&gateway, alice.token()).await;
    for (jwt, issued_at) in [(&ahead, START + 3600), (&back, START)] {
        let (_, claims) = checked(&gateway, jwt, "echo").await.unwrap();
        assert_eq!(claims["iat"], issued_at);
    }
}

#[tokio::test]
async fn with_a_shared_secret_assertions_are_signed_by_a_key_that_is_published() {
    let gateway = Gateway::with(&format!("token.algorithm = \"HS256\"\n{ROUTES}")).await;
    let alice = gateway.login("alice").await;
    assert_eq!(jsonwebtoken::decode_header(alice.token()).unwrap().alg, Algorithm::HS256);
    let (header, claims) = checked(&gateway, &assertion(&gateway, alice.token()).await, "echo").await.unwrap();
    assert_eq!((header.alg, &claims["openid"]), (Algorithm::ES256, &json!(alice.openid())));
}

#[tokio::test]
async fn an_assertion_opens_nothing_at_the_gateway() {
    let gateway = Gateway::with(ROUTES).await;
    let alice = gateway.login("alice").await;
    let jwt = assertion(&gateway, alice.token()).await;
    let before = gateway.upstream.requests().len();
    for path in ["/api/x", "/plain/x", "/auth/me"] {
        assert_eq!(gateway.get(path, Some(&jwt)).await.code(), "token_invalid", "{path}");
    }
    assert_eq!(gateway.post("/auth/refresh", &json!({ "refresh_token": jwt })).await.code(), "refresh_invalid");
    assert_eq!(gateway.upstream.requests().len(), before);
    let at_service = checked(&gateway, alice.token(), "wxgate").await;
    assert!(at_service.unwrap_err().contains("at+jwt"), "nor is an access token an assertion");
}

#[tokio::test]
async fn who_has_logged_out_has_no_assertion_any_more() {
    let gateway = Gateway::with(ROUTES).await;
    let alice = gateway.login("alice").await;
    assertion(&gateway, alice.token()).await;
    let logout = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(alice.token());
    assert_eq!(logout.send().await.unwrap().status(), 204);
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.code(), "token_revoked");
    assert_eq!(gateway.upstream.requests().len(), 1);
}
