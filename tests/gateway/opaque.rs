//! `format = "opaque"`: session ids in place of JWTs, good for everything that a JWT is good for.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::support::gateway::{APPID, Answer, Gateway, Member, OTHER_APP, ROUTES};
use crate::support::upstream::{After, Upstream};
use crate::web::Browser;

const SERVICE: &str = "planted-service-token-77";
const OPAQUE: &str = "token.format = \"opaque\"\n";
const HOUR: Duration = Duration::from_secs(3600);

async fn opaque() -> Gateway {
    Gateway::with(&format!("{OPAQUE}{ROUTES}")).await
}

async fn get(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = gateway.client().get(gateway.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request.send().await.unwrap()).await
}

/// A form with this token.
pub(crate) fn form(request: reqwest::RequestBuilder, token: &str) -> reqwest::RequestBuilder {
    request.header("content-type", "application/x-www-form-urlencoded").body(format!("token={token}"))
}

async fn api(gateway: &Gateway, token: &str) -> Answer {
    gateway.get("/api/x", Some(token)).await
}

/// How often the store was asked whose a handle is.
async fn reads(gateway: &Gateway) -> u64 {
    let page = gateway.client().get(gateway.admin_url("/metrics")).send().await.unwrap().text().await.unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix("wxgate_opaque_reads_total ")).unwrap();
    line.parse().unwrap()
}

async fn reload(gateway: &Gateway, change: impl Fn(String) -> String) {
    let path = gateway.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, change(text)).unwrap();
    gateway.inner().reload().await.unwrap();
}

fn refreshed(answer: &Answer) -> Member {
    assert_eq!(answer.status, 200, "{}", answer.body);
    Member { answer: answer.json() }
}

async fn session(gateway: &Gateway, token: &str) -> Value {
    let me = gateway.get("/auth/me", Some(token)).await;
    assert_eq!(me.status, 200, "{}", me.body);
    me.json()["session"].clone()
}

/// It is in the shape of a handle, and of nothing else.
fn assert_opaque(token: &str) {
    assert!(token.starts_with("wxs_") && token.len() == 103 && !token.contains('.'), "{token}");
}

#[tokio::test]
async fn a_login_yields_a_handle_and_the_upstream_is_told_the_same_as_of_a_jwt() {
    let gateway = Gateway::with(&format!("{OPAQUE}[login]\nmerge_by_unionid = true\n{ROUTES}")).await;
    let alice = gateway.login("alice").await;
    assert_opaque(alice.token());
    assert_eq!((&alice.answer["token_type"], &alice.answer["expires_in"]), (&json!("Bearer"), &json!(7200)));
    assert!(!alice.token().contains(alice.openid()));
    let answer = api(&gateway, alice.token()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let seen = gateway.upstream.requests().pop().unwrap();
    assert_eq!(seen.all("x-wx-openid"), [alice.openid()]);
    assert_eq!(seen.all("x-wx-appid"), [APPID]);
    assert_eq!(seen.all("x-wx-unionid"), [alice.answer["unionid"].as_str().unwrap()]);
    assert_eq!(seen.all("x-wxgate-member"), [alice.id()]);
    assert_eq!(seen.all("x-wxgate-session"), [session(&gateway, alice.token()).await["id"].as_str().unwrap()]);
    assert!(seen.all("authorization").is_empty());
    assert!(!gateway.log.text().contains(alice.token()));
    assert_eq!(gateway.get("/optional/x", Some(alice.token())).await.status, 200);
    assert_eq!(gateway.get("/optional/x", Some("wxs_x")).await.code(), "token_invalid");
}

#[tokio::test]
async fn it_is_read_from_the_store_once_however_many_show_it_at_once() {
    let gateway = opaque().await;
    let alice = gateway.login("alice").await;
    assert_eq!(reads(&gateway).await, 0, "a login looks nothing up");
    let many = join_all((0..40).map(|_| api(&gateway, alice.token()))).await;
    assert!(many.iter().all(|answer| answer.status == 200));
    assert_eq!(reads(&gateway).await, 1);
    // Whatever becomes of the record: it is known until it ends.
    gateway.meddle("DELETE FROM sessions");
    assert_eq!(api(&gateway, alice.token()).await.status, 200);
    reload(&gateway, |text| text.replace("[token]\n", "[token]\naccept_bare = true\n")).await;
    assert_eq!(api(&gateway, alice.token()).await.status, 200, "a reload forgets nothing");
    assert_eq!(reads(&gateway).await, 1);
    gateway.clock.advance(2 * HOUR);
    assert_eq!(api(&gateway, alice.token()).await.code(), "token_expired");
    assert_eq!(reads(&gateway).await, 1, "that it has ended, it says itself");
}

#[tokio::test]
async fn what_nobody_issued_never_reaches_the_store_and_puts_nobody_out() {
    let gateway = opaque().await;
    let alice = gateway.login("alice").await;
    assert_eq!(api(&gateway, alice.token()).await.status, 200);
    let forged = |n: u8| {
        let mut bytes = URL_SAFE_NO_PAD.decode(&alice.token()[4..]).unwrap();
        let at = usize::from(n) % bytes.len();
        bytes[at] ^= 1 + n / 74;
        format!("wxs_{}", URL_SAFE_NO_PAD.encode(bytes))
    };
    for n in 0..=255 {
        assert_eq!(api(&gateway, &forged(n)).await.code(), "token_invalid", "{n}");
    }
    for bad in ["", "wxs_", &alice.token()[..102], &format!("{}A", alice.token()), &alice.token().to_uppercase()] {
        assert_eq!(api(&gateway, bad).await.code(), "token_invalid", "{bad:?}");
    }
    assert_eq!(api(&gateway, alice.refresh()).await.code(), "token_invalid", "a refresh token is none");
    let answer = gateway.post("/auth/refresh", &json!({ "refresh_token": alice.token() })).await;
    assert_eq!(answer.code(), "refresh_invalid", "and it is no refresh token");
    assert_eq!(api(&gateway, alice.token()).await.status, 200);
    assert_eq!(reads(&gateway).await, 1);
}

#[tokio::test]
async fn a_refresh_yields_another_and_the_older_one_lives_out_its_time() {
    let gateway = opaque().await;
    let alice = gateway.login("alice").await;
    gateway.clock.advance(HOUR);
    let next = refreshed(&gateway.refresh(&alice).await);
    assert_opaque(next.token());
    assert!(next.token() != alice.token() && next.refresh() != alice.refresh());
    for token in [alice.token(), next.token()] {
        assert_eq!(api(&gateway, token).await.status, 200);
    }
    let (a, b) = (session(&gateway, alice.token()).await, session(&gateway, next.token()).await);
    assert_eq!(a["id"], b["id"]);
    gateway.clock.advance(HOUR);
    assert_eq!(api(&gateway, alice.token()).await.code(), "token_expired");
    assert_eq!(api(&gateway, next.token()).await.status, 200);
    gateway.clock.advance(35 * Duration::from_secs(1));
    assert_eq!(gateway.refresh(&alice).await.code(), "refresh_reused");
    assert_eq!(api(&gateway, next.token()).await.code(), "token_revoked");
}

#[tokio::test]
async fn every_end_of_a_session_is_the_end_of_its_handles_at_once() {
    let gateway = opaque().await;
    let known = async |user: &str| {
        let member = gateway.login(user).await;
        assert_eq!(api(&gateway, member.token()).await.status, 200);
        member
    };
    let logout = async |member: &Member, body: Value| {
        let request = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(member.token());
        assert_eq!(request.json(&body).send().await.unwrap().status(), 204);
    };
    let (one, two) = (known("alice").await, known("alice").await);
    logout(&one, json!({})).await;
    assert_eq!(api(&gateway, one.token()).await.code(), "token_revoked");
    assert_eq!(api(&gateway, two.token()).await.status, 200, "devices coexist");
    logout(&one, json!({})).await;
    let three = known("alice").await;
    logout(&two, json!({ "all": true })).await;
    for token in [two.token(), three.token()] {
        assert_eq!(api(&gateway, token).await.code(), "token_revoked");
    }
    let bob = known("bob").await;
    let revoke = form(gateway.client().post(gateway.url("/auth/revoke")), bob.token());
    assert_eq!(revoke.send().await.unwrap().status(), 200);
    assert_eq!(api(&gateway, bob.token()).await.code(), "token_revoked");
    let carol = known("carol").await;
    gateway.change(&carol, json!({ "banned": true })).await;
    assert_eq!(api(&gateway, carol.token()).await.code(), "token_revoked");
    let dave = known("dave").await;
    let erase = gateway.client().delete(gateway.url("/auth/me")).bearer_auth(dave.token());
    assert_eq!(erase.send().await.unwrap().status(), 204);
    assert_eq!(api(&gateway, dave.token()).await.code(), "token_revoked");
    let erin = known("erin").await;
    gateway.clock.advance(Duration::from_secs(2));
    gateway.revoke(json!({ "app": APPID })).await;
    assert_eq!(api(&gateway, erin.token()).await.code(), "token_revoked");
    // Nor was it ever seen here before it ended.
    let frank = gateway.login("frank").await;
    logout(&frank, json!({})).await;
    assert_eq!(api(&gateway, frank.token()).await.code(), "token_revoked");
    let gone = gateway.login("grace").await;
    gateway.meddle("DELETE FROM sessions");
    assert_eq!(api(&gateway, gone.token()).await.code(), "token_revoked", "its record is gone");
    assert_eq!(gateway.get("/auth/me", Some(gone.token())).await.code(), "token_revoked");
}

#[tokio::test]
async fn an_expired_one_still_ends_its_session() {
    let gateway = opaque().await;
    let alice = gateway.login("alice").await;
    gateway.clock.advance(3 * HOUR);
    assert_eq!(gateway.get("/auth/me", Some(alice.token())).await.code(), "token_expired");
    let request = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(alice.token());
    assert_eq!(request.send().await.unwrap().status(), 204);
    assert_eq!(gateway.refresh(&alice).await.code(), "token_revoked");
}

#[tokio::test]
async fn all_means_all_also_with_a_handle_of_a_session_that_is_over() {
    let gateway = opaque().await;
    let all = async |gateway: &Gateway, body: Value, token: Option<&str>| {
        let request = gateway.client().post(gateway.url("/auth/logout")).json(&body);
        let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
        assert_eq!(request.send().await.unwrap().status(), 204);
    };
    let (phone, tablet, bob) = (gateway.login("alice").await, gateway.login("alice").await, gateway.login("bob").await);
    assert_eq!(api(&gateway, tablet.token()).await.status, 200);
    all(&gateway, json!({}), Some(phone.token())).await;
    assert_eq!(api(&gateway, tablet.token()).await.status, 200);
    // By a process that never saw the handle while it was good.
    let gateway = gateway.restart(&format!("{OPAQUE}{ROUTES}")).await;
    all(&gateway, json!({ "all": true }), Some(phone.token())).await;
    assert_eq!(api(&gateway, tablet.token()).await.code(), "token_revoked");
    assert_eq!(api(&gateway, bob.token()).await.status, 200, "and nobody else");

    // With what is left of the login besides, too.
    let laptop = gateway.login("alice").await;
    assert_eq!(api(&gateway, laptop.token()).await.status, 200);
    all(&gateway, json!({ "all": true, "refresh_token": phone.refresh() }), None).await;
    assert_eq!(api(&gateway, laptop.token()).await.code(), "token_revoked");
    assert_eq!(api(&gateway, bob.token()).await.status, 200);
}

#[tokio::test]
async fn a_restart_forgets_neither_those_that_are_good_nor_those_that_are_not() {
    let gateway = opaque().await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let request = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(bob.token());
    assert_eq!(request.send().await.unwrap().status(), 204);
    let gateway = gateway.restart(&format!("{OPAQUE}{ROUTES}")).await;
    assert_eq!(api(&gateway, alice.token()).await.status, 200);
    assert_eq!(api(&gateway, bob.token()).await.code(), "token_revoked");
    assert_eq!(reads(&gateway).await, 2);
}

#[tokio::test]
async fn another_format_signs_nobody_out() {
    let gateway = Gateway::start().await;
    let by_jwt = gateway.login("alice").await;
    assert_eq!(api(&gateway, by_jwt.token()).await.status, 200);
    reload(&gateway, |text| text.replace("[token]\n", "[token]\nformat = \"opaque\"\n")).await;
    let by_handle = gateway.login("bob").await;
    assert_opaque(by_handle.token());
    for token in [by_jwt.token(), by_handle.token()] {
        assert_eq!(api(&gateway, token).await.status, 200);
        assert_eq!(gateway.get("/auth/me", Some(token)).await.status, 200);
    }
    let next = refreshed(&gateway.refresh(&by_jwt).await);
    assert_opaque(next.token());
    assert_eq!(session(&gateway, next.token()).await["id"], by_jwt.session());
    reload(&gateway, |text| text.replace("format = \"opaque\"", "format = \"jwt\"")).await;
    for token in [by_jwt.token(), by_handle.token(), next.token()] {
        assert_eq!(api(&gateway, token).await.status, 200);
    }
    assert_eq!(refreshed(&gateway.refresh(&by_handle).await).token().split('.').count(), 3);
    // Another issuer is another gateway to both kinds.
    reload(&gateway, |text| text.replace("https://api.example.com", "https://other.example.com")).await;
    for token in [by_jwt.token(), by_handle.token(), next.token()] {
        assert_eq!(api(&gateway, token).await.code(), "token_invalid");
    }
}

#[tokio::test]
async fn it_stands_where_a_token_may_stand_and_nowhere_else() {
    let bare = Gateway::with(&format!("{OPAQUE}token.accept_bare = true\n{ROUTES}")).await;
    let alice = bare.login("alice").await;
    assert_eq!(get(&bare, "/api/x", &[("authorization", alice.token())]).await.status, 200);
    let (one, other) = (format!("Bearer {}", alice.token()), format!("Bearer {}", bare.login("bob").await.token()));
    let two = get(&bare, "/api/x", &[("authorization", &one), ("authorization", &other)]).await;
    assert_eq!((two.status, two.code().as_str()), (400, "ambiguous_token"));
    assert_eq!(get(&bare, &format!("/api/x?token={}", alice.token()), &[]).await.code(), "token_missing");

    let strict = opaque().await;
    let alice = strict.login("alice").await;
    assert_eq!(get(&strict, "/api/x", &[("authorization", alice.token())]).await.code(), "token_missing");
}

#[tokio::test]
async fn a_page_has_it_in_its_cookie() {
    let tables = "app.kind = \"official-account\"\napp.origins = [\"https://m.example.com\"]\napp.web_result = \"cookie\"\n\
                  [[route]]\npath = \"/api/*\"\nupstream = \"echo\"\ncookie = true\n";
    let gateway = Gateway::with(&format!("{OPAQUE}{tables}")).await;
    gateway.wechat.browse_as("alice", false);
    let mut browser = Browser::default();
    let callback = browser.consent(&gateway, APPID, "https://m.example.com/shop").await;
    assert_eq!(browser.get(&gateway, &callback, &[]).await.status, 302);
    assert_opaque(&browser.cookies["__Host-wxgate-token"]);
    assert_eq!(browser.get(&gateway, "/api/x", &[]).await.status, 200);
    let evil = [("origin", "https://evil.example.com")];
    let answer = browser.send(&gateway, Method::POST, "/api/x", &evil).await;
    assert_eq!(answer.code(), "origin_forbidden", "who sends it is asked before whose it is");
    let page = [("origin", "https://m.example.com")];
    let old = browser.cookies["__Host-wxgate-token"].clone();
    assert_eq!(browser.send(&gateway, Method::POST, "/auth/refresh", &page).await.status, 200);
    assert_ne!(browser.cookies["__Host-wxgate-token"], old);
    assert_eq!(browser.send(&gateway, Method::POST, "/auth/logout", &page).await.status, 204);
    assert_eq!(api(&gateway, &old).await.code(), "token_revoked");
}

#[tokio::test]
async fn one_that_is_about_to_expire_is_followed_by_another() {
    let gateway = Gateway::with(&format!("{OPAQUE}token.renew_within = \"10m\"\n{ROUTES}")).await;
    let alice = gateway.login("alice").await;
    assert!(!api(&gateway, alice.token()).await.headers.contains_key("x-wxgate-token"));
    gateway.clock.advance(2 * HOUR - Duration::from_secs(300));
    let ask = async {
        loop {
            if let Some(fresh) = api(&gateway, alice.token()).await.headers.get("x-wxgate-token") {
                return fresh.to_str().unwrap().to_owned();
            }
        }
    };
    let fresh = tokio::time::timeout(crate::support::DEADLINE, ask).await.unwrap();
    assert_opaque(&fresh);
    gateway.clock.advance(Duration::from_secs(301));
    assert_eq!(api(&gateway, alice.token()).await.code(), "token_expired");
    assert_eq!(api(&gateway, &fresh).await.status, 200);
}

#[tokio::test]
async fn it_is_the_skey_of_old_clients() {
    let gateway = Gateway::with(&format!("{OPAQUE}[login]\nwafer2 = \"/wafer2/login\"\n{ROUTES}")).await;
    let code = gateway.wechat.issue_code(None, "alice");
    let answer = get(&gateway, "/wafer2/login", &[("X-WX-Code", &code)]).await.json();
    let skey = answer["data"]["skey"].as_str().unwrap();
    assert_opaque(skey);
    for path in ["/api/x", "/auth/me"] {
        assert_eq!(get(&gateway, path, &[("X-WX-Skey", skey)]).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn services_learn_from_it_what_a_jwt_would_have_said() {
    let says = r#"{"roles":["vip"],"claims":{"tier":"gold","active":false},"user_id":"u-17"}"#;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{says}", says.len());
    let hook = Upstream::scripted([(head, After::Close)]).await;
    let tables = format!(
        "{OPAQUE}{ROUTES}[[route]]\npath = \"/staff/*\"\nupstream = \"echo\"\nroles = [\"vip\"]\nassertion = true\n\
         forward_token = true\n[login]\nhook = {{ url = \"{}/login\" }}\n\
         [[internal.service]]\nname = \"orders\"\ntoken = \"{SERVICE}\"\n{OTHER_APP}",
        hook.url()
    );
    let gateway = Gateway::with(&tables).await;
    let code = gateway.wechat.issue_code(None, "alice");
    let answer = gateway.post("/auth/login", &json!({ "code": code, "appid": APPID })).await;
    let alice = refreshed(&answer);

    let introspect = async |token: &str| {
        let request = gateway.client().post(gateway.internal_url("/introspect")).bearer_auth(SERVICE);
        let answer = Answer::of(form(request, token).send().await.unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    };
    let said = introspect(alice.token()).await;
    assert_eq!((&said["active"], &said["openid"]), (&json!(true), &json!(alice.openid())));
    assert_eq!((&said["sub"], &said["client_id"]), (&json!(alice.id()), &json!(APPID)));
    assert_eq!((&said["roles"], &said["tier"], &said["user_id"]), (&json!(["vip"]), &json!("gold"), &json!("u-17")));
    assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 7200);

    assert_eq!(gateway.get("/staff/x", Some(alice.token())).await.status, 200);
    let seen = gateway.upstream.requests().pop().unwrap();
    assert_eq!((seen.all("x-wxgate-user"), seen.all("x-wxgate-roles")), (vec!["u-17"], vec!["vip"]));
    assert_eq!(seen.all("authorization"), [format!("Bearer {}", alice.token())]);
    let assertion = seen.all("x-wxgate-assertion")[0].to_owned();
    let payload: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap()).unwrap();
    assert_eq!((&payload["sub"], &payload["aud"]), (&json!(alice.id()), &json!("echo")));

    let verify = async |rest: &str, token: &str| {
        let request = gateway.client().get(gateway.internal_url(&format!("/verify{rest}")));
        let front = base64::engine::general_purpose::STANDARD.encode(format!("orders:{SERVICE}"));
        let request = request.header("proxy-authorization", format!("Basic {front}")).bearer_auth(token);
        Answer::of(request.send().await.unwrap()).await
    };
    // As of a token that was never shown before, too.
    let next = refreshed(&gateway.refresh(&alice).await);
    for token in [alice.token(), next.token()] {
        let let_in = verify("?roles=vip", token).await;
        assert_eq!((let_in.status, &let_in.headers["x-wx-openid"]), (200, &alice.openid().parse().unwrap()));
        assert_eq!(verify("?roles=admin", token).await.status, 403);
    }

    // Roles are live.
    gateway.change(&alice, json!({ "roles": ["staff"] })).await;
    let said = introspect(alice.token()).await;
    assert!(said["roles"].as_array().unwrap().contains(&json!("staff")), "{said}");
    gateway.revoke(json!({ "member": alice.id() })).await;
    assert_eq!(introspect(alice.token()).await, json!({ "active": false }));
    assert_eq!(introspect(&format!("wxs_{}", "A".repeat(99))).await, json!({ "active": false }));
    assert_eq!(verify("", alice.token()).await.code(), "token_revoked");
}

#[tokio::test]
async fn an_operator_sees_what_it_is_and_why_it_is_not_taken() {
    let gateway = opaque().await;
    let alice = gateway.login("alice").await;
    let inspect = async |token: &str| {
        let answer = gateway.admin(Method::POST, "/api/token/inspect", Some(json!({ "token": token }))).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    };
    let found = inspect(alice.token()).await;
    assert_eq!((&found["kind"], &found["valid"]), (&json!("opaque access token"), &json!(true)));
    assert_eq!(found["session"], session(&gateway, alice.token()).await["id"]);
    assert_eq!(found["claims"]["sub"], alice.id());
    let found = inspect(&format!("wxs_{}", "A".repeat(99))).await;
    assert!(found["valid"] == false && found["reason"].as_str().unwrap().contains("signature"), "{found}");
    gateway.revoke(json!({ "member": alice.id() })).await;
    let found = inspect(alice.token()).await;
    assert!(found["valid"] == false && found["reason"].as_str().unwrap().contains("revoked"), "{found}");
    gateway.clock.advance(2 * HOUR);
    let found = inspect(alice.token()).await;
    assert!(found["valid"] == false && found["reason"].as_str().unwrap().contains("expired"), "{found}");
}
