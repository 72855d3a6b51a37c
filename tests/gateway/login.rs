//! The main job: a code becomes a session, a token opens the service, the service reads who asks.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use wxgate::ids::{AppId, OpenId};
use wxgate::wechat::simulator::{Fault, Simulator, SimulatorConfig};

use crate::support::DEADLINE;
use crate::support::gateway::{APPID, Gateway, Member, OTHER_APP, OTHER_APPID, ROUTES};
use crate::support::raw::Client;

/// WeChat's path of the login call.
const CODE2SESSION: &str = "/sns/jscode2session";

#[tokio::test]
async fn a_member_logs_in_and_the_service_reads_the_openid() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let answer = gateway.get("/api/orders?x=1", Some(alice.token())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let requests = gateway.upstream.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].request_line, "GET /api/orders?x=1 HTTP/1.1");
    assert_eq!(requests[0].all("x-wx-openid"), [alice.openid()]);
    assert_eq!(requests[0].all("x-wx-appid"), [APPID]);
    assert_eq!(requests[0].all("x-wx-source"), ["wx_client"]);
    assert_eq!(requests[0].all("x-wxgate-member"), [alice.id()]);
    assert!(requests[0].all("authorization").is_empty());
}

#[tokio::test]
async fn without_a_token_the_service_is_never_asked() {
    let gateway = Gateway::start().await;
    let answer = gateway.get("/api/orders", None).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "token_missing"));
    assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn thirty_racing_logins_with_one_code_are_one_call_to_wechat_and_one_session() {
    let gateway = Gateway::start().await;
    let code = gateway.wechat.issue_code(None, "alice");
    let body = json!({ "code": code });
    let answers = futures_util::future::join_all((0..30).map(|_| gateway.post("/auth/login", &body))).await;
    let first = answers[0].json();
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer = answer.json();
        assert_eq!(answer["refresh_token"], first["refresh_token"]);
        assert_eq!(answer["member_id"], first["member_id"]);
    }
    assert_eq!(gateway.wechat.calls().count(CODE2SESSION), 1);
}

#[tokio::test]
async fn the_token_answer_has_every_member_and_nobody_may_store_it() {
    let gateway = Gateway::start().await;
    let code = gateway.wechat.issue_code(None, "alice");
    let answer = gateway.post("/auth/login", &json!({ "code": code })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["content-type"], "application/json");
    let alice = gateway.wechat.user("alice", &AppId::parse(APPID).unwrap());
    let token = answer.json();
    let mut names: Vec<&str> = token.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = [
        "access_token",
        "appid",
        "expires_in",
        "is_new",
        "member",
        "member_id",
        "openid",
        "refresh_expires_in",
        "refresh_token",
        "token_type",
        "unionid",
    ];
    assert_eq!(names, expected);
    assert_eq!((&token["token_type"], &token["expires_in"]), (&json!("Bearer"), &json!(7200)));
    assert_eq!((&token["refresh_expires_in"], &token["is_new"]), (&json!(30 * 86_400), &json!(true)));
    assert_eq!((&token["appid"], &token["openid"]), (&json!(APPID), &json!(alice.openid)));
    assert_eq!(token["unionid"], json!(alice.unionid));
    let member = json!({
        "member_id": token["member_id"], "appid": APPID, "openid": alice.openid, "unionid": alice.unionid,
        "nickname": "", "avatar_url": "", "phone": "", "roles": [],
        "created_at": "2026-11-21T00:00:00Z", "last_login_at": "2026-11-21T00:00:00Z",
    });
    assert_eq!(token["member"], member);
}

#[tokio::test]
async fn session_key_is_in_no_answer() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let key = gateway.wechat.user("alice", &AppId::parse(APPID).unwrap()).session_key.unwrap();
    let refreshed = gateway.post("/auth/refresh", &json!({ "refresh_token": alice.refresh() })).await;
    let me = gateway.get("/auth/me", Some(alice.token())).await;
    let echoed = gateway.get("/api/x", Some(alice.token())).await;
    for text in [alice.answer.to_string(), refreshed.body, me.body, echoed.body] {
        assert!(!text.contains(key.text()) && !text.contains("session_key"), "{text}");
    }
}

#[tokio::test]
async fn a_member_is_registered_once_and_is_new_once() {
    let gateway = Gateway::start().await;
    let first = gateway.login("alice").await;
    gateway.clock.advance(Duration::from_secs(3600));
    let second = gateway.login("alice").await;
    assert_eq!((&first.answer["is_new"], &second.answer["is_new"]), (&json!(true), &json!(false)));
    assert_eq!(first.id(), second.id());
    assert_eq!(second.answer["member"]["created_at"], "2026-11-21T00:00:00Z");
    assert_eq!(second.answer["member"]["last_login_at"], "2026-11-21T01:00:00Z");
    assert_ne!(first.id(), gateway.login("bob").await.id());
}

#[tokio::test]
async fn two_devices_of_one_member_are_two_sessions_that_live_side_by_side() {
    let gateway = Gateway::start().await;
    let (phone, tablet) = tokio::join!(gateway.login("alice"), gateway.login("alice"));
    assert_eq!(phone.id(), tablet.id());
    assert_ne!(phone.refresh(), tablet.refresh());
    let new = [&phone, &tablet].iter().filter(|device| device.answer["is_new"] == true).count();
    assert_eq!(new, 1, "of two first logins at once one is the first");
    for device in [&phone, &tablet] {
        assert_eq!(gateway.get("/auth/me", Some(device.token())).await.status, 200);
    }
    assert_ne!(session(&gateway, &phone).await, session(&gateway, &tablet).await);
}

#[tokio::test]
async fn a_known_unionid_is_not_lost_when_wechat_does_not_tell_it() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let silent = json!({ "openid": alice.openid(), "session_key": "tiihtNczf5v6AKRyjwEUhQ==" }).to_string();
    gateway.wechat.fault(CODE2SESSION, 1, Fault::Body(silent.into_bytes()));
    let again = gateway.login("alice").await;
    assert_eq!(again.answer["unionid"], alice.answer["unionid"]);
    gateway.get("/api/x", Some(again.token())).await;
    assert_eq!(gateway.upstream.requests()[0].all("x-wx-unionid"), [alice.answer["unionid"].as_str().unwrap()]);
}

#[tokio::test]
async fn where_no_unionid_is_known_none_is_told_and_none_is_sent() {
    let gateway = Gateway::start().await;
    let carol = gateway.login("carol-nounion").await;
    assert!(carol.answer.get("unionid").is_none() && carol.answer["member"].get("unionid").is_none());
    gateway.get("/api/x", Some(carol.token())).await;
    assert!(gateway.upstream.requests()[0].all("x-wx-unionid").is_empty());
}

#[tokio::test]
async fn of_several_apps_the_one_must_be_named_and_must_be_ours() {
    let gateway = Gateway::with(&format!("{ROUTES}{OTHER_APP}")).await;
    let code = |app: Option<&str>| gateway.wechat.issue_code(app.map(|a| AppId::parse(a).unwrap()).as_ref(), "alice");
    let unnamed = gateway.post("/auth/login", &json!({ "code": code(None) })).await;
    assert_eq!((unnamed.status, unnamed.code().as_str()), (400, "invalid_request"));
    let foreign = gateway.post("/auth/login", &json!({ "code": code(None), "appid": "wx0000000000000000" })).await;
    assert_eq!((foreign.status, foreign.code().as_str()), (400, "unknown_app"));
    assert_eq!(gateway.wechat.calls().count(CODE2SESSION), 0);

    let mut openids = Vec::new();
    for appid in [APPID, OTHER_APPID] {
        let answer = gateway.post("/auth/login", &json!({ "code": code(Some(appid)), "appid": appid })).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let token = answer.json();
        assert_eq!(token["appid"], appid);
        gateway.get("/api/x", token["access_token"].as_str()).await;
        openids.push(token["openid"].clone());
    }
    assert_ne!(openids[0], openids[1]);
    let seen: Vec<String> = gateway.upstream.requests().iter().map(|r| r.all("x-wx-appid").join(";")).collect();
    assert_eq!(seen, [APPID, OTHER_APPID]);
}

#[tokio::test]
async fn a_code_of_another_app_is_refused_and_does_not_spoil_that_apps_login() {
    let gateway = Gateway::with(&format!("{ROUTES}{OTHER_APP}")).await;
    let code = gateway.wechat.issue_code(Some(&AppId::parse(OTHER_APPID).unwrap()), "alice");
    let wrong = gateway.post("/auth/login", &json!({ "code": code, "appid": APPID })).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (401, "code_invalid"));
    let right = gateway.post("/auth/login", &json!({ "code": code, "appid": OTHER_APPID })).await;
    assert_eq!(right.status, 200, "{}", right.body);
}

#[tokio::test]
async fn the_same_code_within_a_minute_yields_the_same_session_also_after_a_restart() {
    let gateway = Gateway::start().await;
    let code = gateway.wechat.issue_code(None, "alice");
    let body = json!({ "code": code });
    let first = gateway.post("/auth/login", &body).await.json();
    gateway.clock.advance(Duration::from_millis(59_999));
    let again = gateway.post("/auth/login", &body).await;
    assert_eq!(again.status, 200, "{}", again.body);
    same_session(&first, &again.json());
    assert_eq!(gateway.wechat.calls().count(CODE2SESSION), 1);

    let gateway = gateway.restart(ROUTES).await;
    let after = gateway.post("/auth/login", &body).await;
    assert_eq!(after.status, 200, "{}", after.body);
    same_session(&first, &after.json());
    assert_eq!(gateway.wechat.calls().count(CODE2SESSION), 0, "WeChat is not asked by the one that was started anew");
    let member = Member { answer: after.json() };
    assert_eq!(gateway.get("/auth/me", Some(member.token())).await.status, 200);
}

fn same_session(a: &Value, b: &Value) {
    for name in ["refresh_token", "member_id", "openid", "is_new"] {
        assert_eq!(a[name], b[name], "{name}");
    }
}

#[tokio::test]
async fn after_a_minute_a_code_is_used_up_and_wechat_is_not_asked() {
    let gateway = Gateway::start().await;
    let body = json!({ "code": gateway.wechat.issue_code(None, "alice") });
    assert_eq!(gateway.post("/auth/login", &body).await.status, 200);
    for seconds in [60, 240] {
        gateway.clock.advance(Duration::from_secs(seconds));
        let late = gateway.post("/auth/login", &body).await;
        assert_eq!((late.status, late.code().as_str()), (401, "code_used"));
    }
    assert_eq!(gateway.wechat.calls().count(CODE2SESSION), 1);
}

#[tokio::test]
async fn a_clock_that_is_set_back_gives_no_code_a_longer_life() {
    let gateway = Gateway::start().await;
    let hour = Duration::from_secs(3600);
    let code = |user: &str| json!({ "code": gateway.wechat.issue_code(None, user) });
    let repeated = async |body: &Value| gateway.post("/auth/login", body).await.code();
    let (alice, bob) = (code("alice"), code("bob"));
    for body in [&alice, &bob] {
        assert_eq!(gateway.post("/auth/login", body).await.status, 200);
    }
    // Nobody looks until it is, by the clock, a second later.
    gateway.clock.set_back(hour);
    gateway.clock.advance(hour + Duration::from_secs(1));
    assert_eq!(repeated(&alice).await, "code_used");
    gateway.clock.set_back(hour);
    assert_eq!(repeated(&bob).await, "code_used", "nor is it one of the future");
    assert_eq!(repeated(&alice).await, "code_used");

    // Later logins are what they were.
    gateway.clock.advance(hour + Duration::from_secs(1));
    let carol = code("carol");
    let first = gateway.post("/auth/login", &carol).await.json();
    gateway.clock.advance(Duration::from_secs(59));
    same_session(&first, &gateway.post("/auth/login", &carol).await.json());
    assert_eq!(gateway.wechat.calls().count(CODE2SESSION), 3);
}

#[tokio::test]
async fn a_code_whose_session_was_logged_out_is_used_up_at_once() {
    let gateway = Gateway::start().await;
    let body = json!({ "code": gateway.wechat.issue_code(None, "alice") });
    let alice = Member { answer: gateway.post("/auth/login", &body).await.json() };
    assert_eq!(gateway.post("/auth/logout", &json!({ "refresh_token": alice.refresh() })).await.status, 204);
    let again = gateway.post("/auth/login", &body).await;
    assert_eq!((again.status, again.code().as_str()), (401, "code_used"));
    assert_eq!(gateway.wechat.calls().count(CODE2SESSION), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_finds_its_login_done() {
    let gateway = Gateway::start().await;
    gateway.wechat.fault(CODE2SESSION, 1, Fault::Delay(Duration::from_millis(300)));
    let body = json!({ "code": gateway.wechat.issue_code(None, "alice") });
    let text = body.to_string();
    let mut client = Client::connect(gateway.address()).await;
    client.send(format!("POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{text}", text.len())).await;
    let asked = async {
        while gateway.wechat.calls().count(CODE2SESSION) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, asked).await.expect("WeChat was asked");
    drop(client);
    gateway.until_metric("wxgate_logins_total", 1).await;
    let again = gateway.post("/auth/login", &body).await;
    assert_eq!(again.status, 200, "{}", again.body);
    assert_eq!(gateway.wechat.calls().count(CODE2SESSION), 1);
}

async fn session(gateway: &Gateway, member: &Member) -> String {
    gateway.get("/auth/me", Some(member.token())).await.json()["session"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn racing_logins_that_fail_are_told_the_same_after_one_call() {
    let mut gateway = Gateway::with(&format!("wechat.timeout = \"60s\"\n{ROUTES}")).await;
    gateway.wechat.fault(CODE2SESSION, 1, Fault::Hang);
    let body = json!({ "code": gateway.wechat.issue_code(None, "alice") });
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let other = SimulatorConfig { listen, clock: gateway.clock.clone(), apps: None };
    let wechat = std::mem::replace(&mut gateway.wechat, Simulator::start(other).await.unwrap());
    let permits = gateway.inner().kept().endpoint_room.working();
    let free = permits.available_permits();
    let all_wait_and_then_wechat_goes_away = async {
        while permits.available_permits() + 30 > free || wechat.calls().count(CODE2SESSION) == 0 {
            tokio::task::yield_now().await;
        }
        let calls = wechat.calls().count(CODE2SESSION);
        wechat.stop().await;
        calls
    };
    let logins = futures_util::future::join_all((0..30).map(|_| gateway.post("/auth/login", &body)));
    let (calls, answers) = tokio::join!(all_wait_and_then_wechat_goes_away, logins);
    assert_eq!(calls, 1);
    for answer in answers {
        assert_eq!((answer.status, answer.code().as_str()), (502, "wechat_failed"));
    }
    gateway.until_metric("wxgate_wechat_calls_total", 1).await;
}

#[tokio::test]
async fn the_newest_session_key_and_the_one_before_it_are_kept_and_sealed() {
    let gateway = Gateway::start().await;
    let appid = AppId::parse(APPID).unwrap();
    for _ in 0..3 {
        gateway.login("alice").await;
        gateway.clock.advance(Duration::from_secs(1));
    }
    let user = gateway.wechat.user("alice", &appid);
    let openid = OpenId::parse(&user.openid).unwrap();
    let kept = gateway.inner().kept();
    let sealed = kept.sessions.session_keys(&appid, &openid).await.unwrap();
    let opened: Vec<String> = sealed
        .iter()
        .map(|key| String::from_utf8(kept.vault.unseal(&key.sealed, &appid, &openid).unwrap().to_vec()).unwrap())
        .collect();
    assert_eq!(opened, [user.session_key.unwrap().text(), user.previous_session_key.unwrap().text()]);
    let other = OpenId::parse("somebody-else").unwrap();
    assert!(kept.vault.unseal(&sealed[0].sealed, &appid, &other).is_err(), "it is bound to the person");
}
