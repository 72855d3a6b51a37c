//! What a client may send to log in, and what it may not.

use serde_json::json;

use crate::support::gateway::{Answer, Gateway};
use crate::support::raw::Client;

const CODE2SESSION: &str = "/sns/jscode2session";

async fn login_with(gateway: &Gateway, body: impl Into<reqwest::Body>) -> Answer {
    Answer::of(gateway.client().post(gateway.url("/auth/login")).body(body).send().await.unwrap()).await
}

#[tokio::test]
async fn a_body_that_is_not_what_it_should_be_is_refused_before_wechat_is_asked() {
    let gateway = Gateway::start().await;
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let wrong = [
        String::new(),
        " ".to_owned(),
        "code=abc".to_owned(),
        "null".to_owned(),
        "true".to_owned(),
        "\"abc\"".to_owned(),
        "[]".to_owned(),
        "[\"abc\"]".to_owned(),
        "{}".to_owned(),
        "{\"code\"".to_owned(),
        json!({ "code": "" }).to_string(),
        json!({ "code": null }).to_string(),
        json!({ "code": 7 }).to_string(),
        json!({ "code": ["a"] }).to_string(),
        json!({ "code": {} }).to_string(),
        json!({ "code": "c".repeat(513) }).to_string(),
        json!({ "code": "abc", "appid": 7 }).to_string(),
        json!({ "code": "abc", "appid": ["wx0123456789abcdef"] }).to_string(),
        r#"{"code":"abc"}{"code":"def"}"#.to_owned(),
        r#"{"code":"abc","code":"def"}"#.to_owned(),
        r#"{"code":"abc"} trailing"#.to_owned(),
        deep(50_000),
        format!(r#"{{"code":{}}}"#, deep(50_000)),
    ];
    for body in wrong {
        let shown: String = body.chars().take(40).collect();
        let answer = login_with(&gateway, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{shown}");
    }
    let not_text = login_with(&gateway, b"{\"code\":\"\xff\xfe\"}".to_vec()).await;
    assert_eq!((not_text.status, not_text.code().as_str()), (400, "invalid_request"));
    assert_eq!(gateway.wechat.calls().count(CODE2SESSION), 0);
}

#[tokio::test]
async fn what_is_not_known_is_ignored_however_deep_it_goes() {
    let gateway = Gateway::start().await;
    let code = gateway.wechat.issue_code(None, "alice");
    let extra = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let answer = login_with(&gateway, format!(r#" {{"later":{extra},"code":"{code}","x":null}} "#)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn what_the_client_sent_is_not_quoted_back() {
    let gateway = Gateway::start().await;
    let answer = login_with(&gateway, r#"{"code": 424242424242}"#).await;
    assert_eq!(answer.status, 400);
    assert!(!answer.body.contains("424242424242"), "{}", answer.body);
}

#[tokio::test]
async fn twenty_megabytes_are_refused_whether_announced_or_not() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send("POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n{\"code\":\"").await;
    let announced = client.response().await.unwrap();
    assert_eq!((announced.status, &announced.json()["code"]), (413, &json!("body_too_large")));

    let mut client = Client::connect(gateway.address()).await;
    client.send("POST /auth/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    // One chunk more than is read: the answer does not wait for the other nineteen megabytes.
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..5 {
        client.send(&chunk).await;
    }
    let streamed = client.response().await.unwrap();
    assert_eq!((streamed.status, &streamed.json()["code"]), (413, &json!("body_too_large")));
    assert_eq!(gateway.wechat.calls().count(CODE2SESSION), 0);
}

#[tokio::test]
async fn a_code_stays_one_parameter_whatever_it_holds() {
    let gateway = Gateway::start().await;
    let hostile = [
        "demo-eve&secret=other&appid=wx1",
        "demo-eve#fragment",
        "demo-eve?x=1",
        "demo-eve\r\nX-Evil: 1",
        "demo-eve%26secret%3Dother",
        "demo-eve+plus and space",
        "demo-eve\u{0}",
        "demo-\u{5fae}\u{4fe1}",
    ];
    for code in hostile {
        // Codes of this form are good for whoever they name, so that the openid tells whether the whole of it arrived.
        let answer = gateway.post("/auth/login", &json!({ "code": code })).await;
        assert_eq!(answer.status, 200, "{code:?}: {}", answer.body);
        let name = code.strip_prefix("demo-").unwrap();
        let appid = wxgate::ids::AppId::parse(crate::support::gateway::APPID).unwrap();
        assert_eq!(answer.json()["openid"], gateway.wechat.user(name, &appid).openid, "{code:?}");
    }
    let calls = gateway.wechat.calls();
    assert_eq!(calls.count(CODE2SESSION), hostile.len() as u64);
    assert!(calls.calls.iter().all(|call| call.appid.as_deref() == Some(crate::support::gateway::APPID)));
}
