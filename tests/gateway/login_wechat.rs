//! Logins on WeChat's bad days: every errcode has its problem, no answer is trusted further than it can be read, and
//! nobody else waits.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use wxgate::clock::Clock;
use wxgate::wechat::simulator::{Fault, Simulator, SimulatorConfig};

use crate::support::DEADLINE;
use crate::support::gateway::{APPID, Answer, Gateway, ROUTES, SECRET};
use crate::support::upstream::{After, Upstream};

const CODE2SESSION: &str = "/sns/jscode2session";
const KEY: &str = "tiihtNczf5v6AKRyjwEUhQ==";

/// One login with a fresh code that meets `fault`.
async fn login_meets(gateway: &Gateway, fault: Fault) -> Answer {
    gateway.wechat.fault(CODE2SESSION, 1, fault);
    let code = gateway.wechat.issue_code(None, "alice");
    let answer = gateway.post("/auth/login", &json!({ "code": code })).await;
    gateway.wechat.clear_faults();
    answer
}

#[tokio::test]
async fn a_refused_login_does_not_tell_whether_anybody_is_a_member() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.change(&alice, json!({ "roles": ["vip"], "nickname": "Alice" })).await;
    for errcode in [40013, 40029, 40163, 40226, 50001] {
        let mut said = Vec::new();
        for user in ["alice", "a-stranger"] {
            gateway.wechat.fault(CODE2SESSION, 1, Fault::Errcode(errcode));
            let code = gateway.wechat.issue_code(None, user);
            let answer = gateway.post("/auth/login", &json!({ "code": code })).await;
            let mut document = answer.json();
            document["instance"] = Value::Null;
            let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
            names.sort();
            said.push((answer.status, document, names, answer.headers["content-length"].clone()));
        }
        assert_eq!(said[0], said[1], "errcode {errcode}");
    }
}

#[tokio::test]
async fn every_errcode_of_wechat_is_the_problem_that_the_contract_says() {
    let gateway = Gateway::start().await;
    let table = [
        (-1, 503, "wechat_unavailable"),
        (40013, 502, "wechat_failed"),
        (40029, 401, "code_invalid"),
        (40125, 502, "wechat_failed"),
        (40163, 401, "code_used"),
        (40164, 502, "wechat_failed"),
        (40226, 403, "login_blocked"),
        (40243, 502, "wechat_failed"),
        (41002, 502, "wechat_failed"),
        (41004, 502, "wechat_failed"),
        (41008, 502, "wechat_failed"),
        (45009, 503, "wechat_unavailable"),
        (45011, 429, "wechat_rate_limited"),
        (50001, 403, "login_blocked"),
        (50002, 403, "login_blocked"),
        (99_999, 502, "wechat_failed"),
    ];
    for (n, (errcode, status, code)) in table.into_iter().enumerate() {
        let answer = login_meets(&gateway, Fault::Errcode(errcode)).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "errcode {errcode}");
        let retry = answer.headers.get("retry-after").and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        assert_eq!(retry.is_some(), matches!(status, 429 | 503), "errcode {errcode}: Retry-After {retry:?}");
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401, "errcode {errcode}");
        assert_eq!(gateway.wechat.calls().count(CODE2SESSION), n as u64 + 1, "nothing is sent twice");
    }
    // The minute's limit is over when the minute is.
    let limited = login_meets(&gateway, Fault::Errcode(45011)).await;
    assert_eq!(limited.headers["retry-after"], "60");
    // Nothing was opened by any of it.
    gateway.until_metric("wxgate_wechat_failures_total", 17).await;
    assert_eq!(gateway.login("alice").await.answer["is_new"], true);
}

#[tokio::test]
async fn our_own_misconfiguration_is_named_in_the_log_and_not_to_the_client() {
    let gateway = Gateway::start().await;
    let answer = login_meets(&gateway, Fault::Errcode(40125)).await;
    assert_eq!(answer.status, 502);
    assert!(!answer.body.contains("40125") && !answer.body.contains(SECRET), "{}", answer.body);
    let line = gateway.log.until_line(|line| line["code"] == "wechat_failed").await;
    assert!(line["cause"].as_str().unwrap().contains("errcode 40125"), "{line}");
    assert!(!line.to_string().contains(SECRET), "{line}");
}

#[tokio::test]
async fn an_answer_that_cannot_be_relied_on_opens_no_session() {
    let gateway = Gateway::start().await;
    let text = |value: Value| Fault::Body(value.to_string().into_bytes());
    let with_openid = |openid: Value| text(json!({ "openid": openid, "session_key": KEY }));
    let with_key = |key: Value| text(json!({ "openid": "o1", "session_key": key }));
    let unusable = [
        ("an HTML page", Fault::Body(b"<html><body>busy</body></html>".to_vec())),
        ("nothing", Fault::Body(Vec::new())),
        ("null", Fault::Body(b"null".to_vec())),
        ("an array", Fault::Body(b"[]".to_vec())),
        ("half an object", Fault::Body(br#"{"openid":"o1","session_key":"#.to_vec())),
        ("bytes behind it", Fault::Body(format!(r#"{{"openid":"o1","session_key":"{KEY}"}}x"#).into_bytes())),
        ("no UTF-8", Fault::Body(b"{\"openid\":\"\xff\"}".to_vec())),
        ("50,000 levels", Fault::Body("[".repeat(50_000).into_bytes())),
        ("a number as openid", with_openid(json!(7))),
        ("null as openid", with_openid(Value::Null)),
        ("an empty openid", with_openid(json!(""))),
        ("an openid with a line end", with_openid(json!("o1\r\nX-Evil: 1"))),
        ("an openid with a comma", with_openid(json!("o1,o2"))),
        ("64 KB of openid", with_openid(json!("o".repeat(60_000)))),
        ("no session_key", text(json!({ "openid": "o1" }))),
        ("a session_key that is no base64", with_key(json!("!!!!"))),
        ("a short session_key", with_key(json!("AAAA"))),
        ("a long session_key", with_key(json!(format!("{KEY}{KEY}")))),
        ("errcode as an object", text(json!({ "errcode": {}, "openid": "o1", "session_key": KEY }))),
        ("200 MB", Fault::HugeBody(200 << 20)),
        ("8 MB of header", Fault::HugeHeader(8 << 20)),
        ("500 with a page", Fault::Status(500)),
        ("404 with a page", Fault::Status(404)),
        ("a redirect", Fault::Redirect(format!("{}/elsewhere", gateway.wechat.api_base()))),
        ("half an answer", Fault::Cut),
        ("a closed connection", Fault::Reset),
    ];
    for (what, fault) in unusable {
        let answer = login_meets(&gateway, fault).await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "wechat_failed"), "{what}");
    }
    assert_eq!(gateway.wechat.calls().count("(unknown)"), 0, "the redirect was not followed");
    assert_eq!(gateway.login("alice").await.answer["is_new"], true);
}

#[tokio::test]
async fn an_errcode_beside_an_openid_is_a_refusal() {
    let gateway = Gateway::start().await;
    let both = json!({ "openid": "o1", "session_key": KEY, "errcode": 40029, "errmsg": "invalid code" });
    let answer = login_meets(&gateway, Fault::Body(both.to_string().into_bytes())).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "code_invalid"));
}

#[tokio::test]
async fn what_wechat_really_sends_is_taken() {
    let gateway = Gateway::start().await;
    let taken = [
        json!({ "openid": "o1", "session_key": KEY, "errcode": 0, "errmsg": "ok" }),
        json!({ "openid": "o2", "session_key": KEY, "errcode": "0", "unionid": "" }),
        json!({ "openid": "o3", "session_key": KEY, "expires_in": 7200, "unionid": null }),
    ];
    for answer in taken {
        let openid = answer["openid"].clone();
        let login = login_meets(&gateway, Fault::Body(answer.to_string().into_bytes())).await;
        assert_eq!(login.status, 200, "{}", login.body);
        assert_eq!(login.json()["openid"], openid);
    }
}

#[tokio::test]
async fn a_bomb_in_gzip_is_not_unpacked() {
    // 64 KiB of zeros as gzip would write them need not be real: the label alone must lead to a refusal, not to a decoder.
    let answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0";
    let wechat = Upstream::scripted([(answer.to_vec(), After::Close)]).await;
    let login = login_at(&wechat.url(), "").await;
    assert_eq!((login.status, login.code().as_str()), (502, "wechat_failed"));
}

/// A login at a gateway whose WeChat is this.
async fn login_at(api_base: &str, top: &str) -> Answer {
    let gateway = Gateway::with_wechat_at(api_base, &format!("{top}{ROUTES}")).await;
    gateway.post("/auth/login", &json!({ "code": "some-code" })).await
}

#[tokio::test]
async fn what_is_not_http_is_a_failure() {
    for garbage in
        ["SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", ""]
    {
        let wechat = Upstream::scripted([(garbage, After::Close)]).await;
        let login = login_at(&wechat.url(), "").await;
        assert_eq!((login.status, login.code().as_str()), (502, "wechat_failed"), "{garbage:?}");
    }
}

#[tokio::test]
async fn a_wechat_that_cannot_be_reached_is_unavailable_and_worth_another_try() {
    let mut gateway = Gateway::start().await;
    let listen = "127.0.0.1:0".parse().unwrap();
    let other = SimulatorConfig { listen, clock: Clock::system(), apps: None };
    let gone = std::mem::replace(&mut gateway.wechat, Simulator::start(other).await.unwrap());
    gone.stop().await;
    let login = gateway.post("/auth/login", &json!({ "code": "some-code" })).await;
    assert_eq!((login.status, login.code().as_str()), (503, "wechat_unavailable"));
    assert!(login.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_tls_handshake_with_what_is_no_tls_is_a_failure_and_nothing_is_sent_in_clear() {
    let wechat = Upstream::scripted([("", After::Close), ("", After::Close)]).await;
    let login = login_at(&wechat.url().replace("http://", "https://"), "").await;
    assert!(matches!(login.code().as_str(), "wechat_failed" | "wechat_unavailable"), "{}", login.body);
    assert!(wechat.requests().is_empty());
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused_and_wechat_hears_no_secret() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let wechat = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let handshake = tokio::spawn(async move { acceptor.accept(listener.accept().await.unwrap().0).await.map(drop) });
    let login = login_at(&wechat, "").await;
    assert!(matches!(login.code().as_str(), "wechat_failed" | "wechat_unavailable"), "{}", login.body);
    let refused = timeout(DEADLINE, handshake).await.unwrap().unwrap().unwrap_err();
    assert!(refused.to_string().to_lowercase().contains("unknown"), "the client ends it: {refused}");
}

#[tokio::test]
async fn slow_answers_end_at_the_total_deadline() {
    let gateway = Gateway::with(&format!("wechat.timeout = \"300ms\"{ROUTES}")).await;
    for slow in [Fault::Hang, Fault::Drip(Duration::from_millis(100)), Fault::Delay(Duration::from_secs(30))] {
        let answer = login_meets(&gateway, slow).await;
        assert_eq!((answer.status, answer.code().as_str()), (504, "wechat_timeout"));
    }
    assert_eq!(gateway.wechat.calls().count(CODE2SESSION), 3, "nothing is sent twice");
    assert_eq!(gateway.login("alice").await.answer["appid"], APPID);
}

#[tokio::test]
async fn a_hundred_logins_that_wait_for_wechat_hold_nobody_else() {
    let gateway = Gateway::with(&format!("wechat.timeout = \"60s\"{ROUTES}")).await;
    let alice = gateway.login("alice").await;
    gateway.wechat.fault(CODE2SESSION, 100, Fault::Hang);
    let stuck: Vec<_> = (0..100)
        .map(|n| {
            let body = json!({ "code": gateway.wechat.issue_code(None, &format!("user{n}")) });
            let request = gateway.client().post(gateway.url("/auth/login")).json(&body);
            tokio::spawn(request.send())
        })
        .collect();
    let all_asked = async {
        while gateway.wechat.calls().count(CODE2SESSION) < 101 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, all_asked).await.expect("all hundred wait for WeChat");
    let served = join_all((0..50).map(|_| gateway.get("/api/orders", Some(alice.token())))).await;
    assert!(served.iter().all(|answer| answer.status == 200));
    assert_eq!(gateway.get("/healthz", None).await.status, 200);
    let refreshed = gateway.post("/auth/refresh", &json!({ "refresh_token": alice.refresh() })).await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.body);
    assert!(stuck.iter().all(|login| !login.is_finished()), "and they do wait");
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
}
