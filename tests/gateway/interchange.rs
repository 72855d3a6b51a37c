//! Promise 4: what is one kind of token is no other, wherever it is shown.

use serde_json::json;

use crate::support::gateway::{APPID, Answer, Gateway};
use crate::web::{Browser, location};

const TABLES: &str = r#"
app.kind = "official-account"
app.origins = ["https://m.example.com"]

[[route]]
path = "/api/*"
upstream = "echo"
cookie = true
assertion = true
"#;

/// One of each kind, all of them alive.
async fn of_each_kind(gateway: &Gateway) -> Vec<(&'static str, String)> {
    gateway.wechat.browse_as("alice", false);
    let mut browser = Browser::default();
    let tokens = gateway.post("/auth/login", &json!({ "ticket": browser.ticket(gateway, APPID).await })).await.json();
    let access = tokens["access_token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.get("/api/x", Some(&access)).await.status, 200);
    let assertion = gateway.upstream.requests()[0].all("x-wxgate-assertion")[0].to_owned();
    let ticket = browser.ticket(gateway, APPID).await;
    let started = browser.start(gateway, APPID, "https://m.example.com/").await;
    let state = location(&started).split_once("&state=").unwrap().1.trim_end_matches("#wechat_redirect").to_owned();
    let web_cookie = browser.cookies.values().next().unwrap().clone();
    let refresh = tokens["refresh_token"].as_str().unwrap().to_owned();
    vec![
        ("access", access),
        ("refresh", refresh),
        ("assertion", assertion),
        ("ticket", ticket),
        ("state", state),
        ("cookie of a state", web_cookie),
        ("session", tokens["member_id"].as_str().unwrap().to_owned()),
    ]
}

#[tokio::test]
async fn no_token_of_one_kind_is_good_as_another() {
    let gateway = Gateway::with(TABLES).await;
    let kinds = of_each_kind(&gateway).await;
    let before = gateway.upstream.requests().len();
    for (kind, token) in &kinds {
        if *kind != "access" {
            for path in ["/api/x", "/auth/me"] {
                let answer = gateway.get(path, Some(token)).await;
                assert_eq!((answer.status, answer.code().as_str()), (401, "token_invalid"), "{kind} at {path}");
            }
            let cookie = format!("__Host-wxgate-token={token}");
            let request = gateway.client().get(gateway.url("/api/x")).header("cookie", cookie);
            let answer = Answer::of(request.send().await.unwrap()).await;
            assert_eq!(answer.code(), "token_invalid", "{kind} in the cookie");
        }
        if *kind != "refresh" {
            let answer = gateway.post("/auth/refresh", &json!({ "refresh_token": token })).await;
            assert_eq!((answer.status, answer.code().as_str()), (401, "refresh_invalid"), "{kind}");
        }
        if *kind != "ticket" {
            let answer = gateway.post("/auth/login", &json!({ "ticket": token })).await;
            assert_eq!((answer.status, answer.code().as_str()), (401, "code_invalid"), "{kind}");
        }
        if *kind != "state" {
            let path = format!("/auth/web/{APPID}/callback");
            let answer = Browser::default().get(&gateway, &path, &[("state", token), ("code", "x")]).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{kind}");
        }
    }
    assert_eq!(gateway.upstream.requests().len(), before, "nothing was forwarded");
    // None of this used up what is good.
    let ticket = &kinds.iter().find(|(kind, _)| *kind == "ticket").unwrap().1;
    assert_eq!(gateway.post("/auth/login", &json!({ "ticket": ticket })).await.status, 200);
}
