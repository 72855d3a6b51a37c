//! Tokens in cookies: for pages that log in through WeChat, and for nobody who only makes a browser send requests.

use http::Method;
use serde_json::json;

use crate::support::gateway::{APPID, Answer, Gateway};
use crate::web::{Browser, location};

const PAGE: &str = "https://m.example.com/shop?item=7#/top";
const ORIGIN: (&str, &str) = ("origin", "https://m.example.com");
const EVIL: (&str, &str) = ("origin", "https://evil.example.com");

const TABLES: &str = r#"
app.kind = "official-account"
app.origins = ["https://m.example.com"]
app.web_result = "cookie"

[[route]]
path = "/api/*"
upstream = "echo"
cookie = true
cors = { origins = ["https://m.example.com"], credentials = true }

[[route]]
path = "/optional/*"
upstream = "echo"
auth = "optional"
cookie = true

[[route]]
path = "/headers/*"
upstream = "echo"

[[route]]
path = "/public/*"
upstream = "echo"
auth = "none"
"#;

async fn log_in(gateway: &Gateway, user: &str) -> Browser {
    gateway.wechat.browse_as(user, false);
    let mut browser = Browser::default();
    let callback = browser.consent(gateway, APPID, PAGE).await;
    let answer = browser.get(gateway, &callback, &[]).await;
    assert_eq!((answer.status, location(&answer)), (302, PAGE), "{}", answer.body);
    browser
}

async fn post(gateway: &Gateway, browser: &mut Browser, path: &str, headers: &[(&str, &str)]) -> Answer {
    browser.send(gateway, Method::POST, path, headers).await
}

#[tokio::test]
async fn a_web_login_ends_with_cookies_that_no_script_can_read() {
    let gateway = Gateway::with(TABLES).await;
    let mut browser = Browser::default();
    let callback = browser.consent(&gateway, APPID, PAGE).await;
    let answer = browser.get(&gateway, &callback, &[]).await;
    assert_eq!((answer.status, location(&answer), answer.body.as_str()), (302, PAGE, ""));
    let cookies: Vec<&str> = answer.headers.get_all("set-cookie").iter().map(|c| c.to_str().unwrap()).collect();
    assert_eq!(cookies.len(), 3, "the state's goes: {cookies:?}");
    for (name, same_site) in [("__Host-wxgate-token", "Lax"), ("__Host-wxgate-refresh", "Strict")] {
        let cookie = cookies.iter().find(|cookie| cookie.starts_with(&format!("{name}="))).unwrap();
        let attributes = cookie.split_once("; ").unwrap().1;
        assert_eq!(attributes, format!("Path=/; Max-Age=2592000; Secure; HttpOnly; SameSite={same_site}"));
    }
    assert_eq!(browser.cookies.len(), 2);
    assert!(browser.cookies.values().all(|token| !gateway.log.text().contains(token)));
}

#[tokio::test]
async fn a_page_is_known_by_its_cookie_where_the_route_says_so_and_no_upstream_sees_it() {
    let gateway = Gateway::with(TABLES).await;
    let mut browser = log_in(&gateway, "alice").await;
    browser.cookies.insert("theme".to_owned(), "dark".to_owned());
    for (path, known) in [("/api/x", true), ("/optional/x", true), ("/public/x", false)] {
        let answer = browser.get(&gateway, path, &[]).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        let seen = gateway.upstream.requests().pop().unwrap();
        assert_eq!(seen.all("x-wx-openid").len(), usize::from(known), "{path}");
        assert_eq!(seen.all("cookie"), ["theme=dark"], "{path}");
    }
    assert_eq!(browser.get(&gateway, "/headers/x", &[]).await.code(), "token_missing");
    let me = browser.get(&gateway, "/auth/me", &[]).await;
    assert_eq!((me.status, me.json()["member"]["appid"].as_str()), (200, Some(APPID)));
}

#[tokio::test]
async fn whoever_makes_a_browser_act_from_elsewhere_is_refused() {
    let gateway = Gateway::with(TABLES).await;
    let mut browser = log_in(&gateway, "alice").await;
    let before = gateway.upstream.requests().len();
    for headers in [
        &[][..],
        &[EVIL],
        &[("origin", "null")],
        &[("origin", "https://m.example.com.evil.org")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "cross-site")],
        &[EVIL, ("sec-fetch-site", "same-origin")],
    ] {
        for path in ["/api/x", "/optional/x", "/auth/refresh", "/auth/logout", "/auth/check"] {
            let answer = post(&gateway, &mut browser, path, headers).await;
            assert_eq!((answer.status, answer.code().as_str()), (403, "origin_forbidden"), "{path} {headers:?}");
        }
    }
    let update = browser.send(&gateway, Method::PUT, "/auth/me", &[EVIL]).await;
    assert_eq!(update.code(), "origin_forbidden");
    let erase = browser.send(&gateway, Method::DELETE, "/auth/me", &[EVIL]).await;
    assert_eq!(erase.code(), "origin_forbidden");
    // A WebSocket is opened by a GET, and browsers let every page open one.
    let socket = [EVIL, ("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
    let answer = browser.send(&gateway, Method::GET, "/api/x", &socket).await;
    assert_eq!(answer.code(), "origin_forbidden");
    assert_eq!(gateway.upstream.requests().len(), before, "nothing was forwarded");
    for headers in [&[ORIGIN][..], &[("origin", "https://api.example.com")], &[("sec-fetch-site", "same-origin")]] {
        assert_eq!(post(&gateway, &mut browser, "/api/x", headers).await.status, 200, "{headers:?}");
    }
}

#[tokio::test]
async fn two_different_tokens_are_ambiguous_and_one_shown_twice_is_one() {
    let gateway = Gateway::with(TABLES).await;
    let (mut alice, bob) = (log_in(&gateway, "alice").await, log_in(&gateway, "bob").await);
    let (own, other) = (alice.cookies["__Host-wxgate-token"].clone(), bob.cookies["__Host-wxgate-token"].clone());
    let before = gateway.upstream.requests().len();
    for path in ["/api/x", "/optional/x", "/auth/me"] {
        let bearer = format!("Bearer {other}");
        let answer = alice.send(&gateway, Method::GET, path, &[("authorization", &bearer)]).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "ambiguous_token"), "{path}");
        let cookies = format!("__Host-wxgate-token={own}; __Host-wxgate-token={other}");
        let answer = Browser::default().send(&gateway, Method::GET, path, &[("cookie", &cookies)]).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "ambiguous_token"), "{path}");
    }
    assert_eq!(gateway.upstream.requests().len(), before);
    let bearer = format!("Bearer {own}");
    let answer = alice.send(&gateway, Method::POST, "/api/x", &[("authorization", &bearer)]).await;
    assert_eq!(answer.status, 200, "no page can forge an Authorization header");
}

#[tokio::test]
async fn a_page_refreshes_without_seeing_a_token() {
    let gateway = Gateway::with(TABLES).await;
    let mut browser = log_in(&gateway, "alice").await;
    let old = browser.clone();
    let answer = post(&gateway, &mut browser, "/auth/refresh", &[ORIGIN]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://m.example.com");
    assert_eq!(answer.headers["access-control-allow-credentials"], "true");
    let body = answer.json();
    assert!(body["access_token"].is_null() && body["refresh_token"].is_null(), "{body}");
    assert_eq!(body["expires_in"], 7200);
    assert_ne!(browser.cookies, old.cookies);
    assert_eq!(post(&gateway, &mut browser, "/api/x", &[ORIGIN]).await.status, 200);

    let mut lost = old.clone();
    assert_eq!(post(&gateway, &mut lost, "/auth/refresh", &[ORIGIN]).await.status, 200);
    let refresh = "__Host-wxgate-refresh";
    assert_eq!(lost.cookies[refresh], browser.cookies[refresh], "the same successor for a lost answer");
    assert_eq!(post(&gateway, &mut browser, "/auth/refresh", &[ORIGIN]).await.status, 200);
    let mut thief = old;
    let answer = post(&gateway, &mut thief, "/auth/refresh", &[ORIGIN]).await;
    assert_eq!(answer.code(), "refresh_reused");
    assert!(thief.cookies.is_empty(), "a page that is logged out loses its cookies");
}

#[tokio::test]
async fn logout_ends_the_session_and_takes_the_cookies_away() {
    let gateway = Gateway::with(TABLES).await;
    let mut browser = log_in(&gateway, "alice").await;
    let mut kept = browser.clone();
    assert_eq!(post(&gateway, &mut browser, "/auth/logout", &[ORIGIN]).await.status, 204);
    assert!(browser.cookies.is_empty());
    assert_eq!(kept.get(&gateway, "/api/x", &[]).await.code(), "token_revoked");
    assert_eq!(kept.get(&gateway, "/auth/me", &[]).await.code(), "token_revoked");
}

#[tokio::test]
async fn pages_of_listed_origins_alone_may_read_the_endpoints() {
    let gateway = Gateway::with(TABLES).await;
    let preflight = async |origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        Browser::default().send(&gateway, Method::OPTIONS, "/auth/login", &headers).await
    };
    let answer = preflight("https://m.example.com").await;
    assert_eq!((answer.status, &answer.headers["access-control-allow-credentials"]), (204, &"true".parse().unwrap()));
    assert_eq!(answer.headers["access-control-allow-methods"], "GET, POST, PUT, DELETE");
    assert_eq!(answer.headers["access-control-allow-headers"], "authorization, content-type");
    for origin in ["https://evil.example.com", "https://m.example.com.evil.org", "http://m.example.com", "null"] {
        let answer = preflight(origin).await;
        assert_eq!(answer.code(), "origin_forbidden", "{origin}");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        let answer = Browser::default().send(&gateway, Method::POST, "/auth/login", &[("origin", origin)]).await;
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{origin}");
    }
}

#[tokio::test]
async fn without_a_web_login_of_this_kind_no_cookie_is_read() {
    let ticket = TABLES.replace("app.web_result = \"cookie\"\n", "");
    let (with, without) = (Gateway::with(TABLES).await, Gateway::with(&ticket).await);
    let token = log_in(&with, "alice").await.cookies["__Host-wxgate-token"].clone();
    let cookie = format!("__Host-wxgate-token={token}");
    let answer = Browser::default().send(&without, Method::GET, "/auth/me", &[("cookie", &cookie)]).await;
    assert_eq!(answer.code(), "token_missing");
    let body = json!({});
    let answer = without.post("/auth/refresh", &body).await;
    assert_eq!(answer.code(), "invalid_request");
}
