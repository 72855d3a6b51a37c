//! Whether WeChat still holds the session_key that the gateway has; and a WeChat that fails.

use std::time::Duration;

use serde_json::{Value, json};
use wxgate::wechat::simulator::Fault;

use crate::support::gateway::{Answer, Gateway, Member, ROUTES};
use crate::support::people::app;

const CHECK: &str = "/wxa/checksession";
const LOGIN: &str = "/sns/jscode2session";
/// Outages in a row that open a circuit, and how long it stays open.
const LIMIT: u32 = wxgate::wechat::circuit::LIMIT;
const REST: Duration = wxgate::wechat::circuit::REST;

fn problem(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

async fn check(gateway: &Gateway, member: &Member) -> Value {
    let answer = gateway.post_as(member, "/auth/check", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

async fn metric(gateway: &Gateway, name: &str) -> Option<String> {
    let page = gateway.client().get(gateway.admin_url("/metrics")).send().await.unwrap().text().await.unwrap();
    page.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}

#[tokio::test]
async fn the_key_is_valid_until_wechat_has_another() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    assert_eq!(check(&gateway, &alice).await, json!({"valid": true}));
    gateway.wechat.rotate_session_key("alice", &app());
    assert_eq!(check(&gateway, &alice).await, json!({"valid": false}));
    gateway.clock.advance(Duration::from_secs(1));
    gateway.login("alice").await;
    assert_eq!(check(&gateway, &alice).await, json!({"valid": true}));
    assert_eq!(problem(&gateway.post("/auth/check", &json!({})).await), (401, "token_missing".into()));
}

#[tokio::test]
async fn no_key_at_all_is_no_valid_one() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let openid = wxgate::ids::OpenId::parse(alice.openid()).unwrap();
    gateway.inner().kept().sessions.erase_keys(&app(), &openid).await.unwrap();
    assert_eq!(check(&gateway, &alice).await, json!({"valid": false}));
    assert_eq!(gateway.wechat.calls().count(CHECK), 0);
}

#[tokio::test]
async fn each_errcode_has_its_answer() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    for errcode in [87007, 87009] {
        gateway.wechat.fault(CHECK, 1, Fault::Errcode(errcode));
        assert_eq!(check(&gateway, &alice).await, json!({"valid": false}), "{errcode}");
    }
    gateway.wechat.fault(CHECK, 1, Fault::Errcode(-1));
    assert_eq!(
        check(&gateway, &alice).await,
        json!({"valid": true}),
        "a busy WeChat is asked again: nothing is used up"
    );
    for (fault, status, code) in [
        (Fault::Errcode(45011), 429, "wechat_rate_limited"),
        (Fault::Errcode(87008), 502, "wechat_failed"),
        (Fault::Status(500), 502, "wechat_failed"),
        (Fault::Body(b"<html>".to_vec()), 502, "wechat_failed"),
    ] {
        gateway.wechat.fault(CHECK, 1, fault);
        let answer = gateway.post_as(&alice, "/auth/check", &json!({})).await;
        assert_eq!(problem(&answer), (status, code.into()));
    }
    gateway.wechat.fault(CHECK, 3, Fault::Errcode(-1));
    let answer = gateway.post_as(&alice, "/auth/check", &json!({})).await;
    assert_eq!(problem(&answer), (503, "wechat_unavailable".into()));
}

#[tokio::test]
async fn a_wechat_that_fails_again_and_again_is_left_alone_and_asked_again_later() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.wechat.fault(LOGIN, LIMIT + 1, Fault::Status(502));
    let login = async || {
        let code = gateway.wechat.issue_code(None, "alice");
        gateway.post("/auth/login", &json!({ "code": code })).await
    };
    for _ in 0..LIMIT {
        assert_eq!(problem(&login().await), (502, "wechat_failed".into()));
    }
    let asked = gateway.wechat.calls().count(LOGIN);
    for _ in 0..20 {
        let answer = login().await;
        assert_eq!(problem(&answer), (503, "wechat_unavailable".into()));
        assert_eq!(answer.headers["retry-after"], "5");
    }
    assert_eq!(gateway.wechat.calls().count(LOGIN), asked, "nothing was sent");
    let open = format!("wxgate_wechat_circuit_open{{app=\"{}\",call=\"{LOGIN}\"}}", app().as_str());
    assert_eq!(metric(&gateway, &open).await.as_deref(), Some("1"));
    assert_eq!(metric(&gateway, "wxgate_wechat_circuit_refused_total").await.as_deref(), Some("20"));
    // Other calls and proxied requests do not notice.
    assert_eq!(check(&gateway, &alice).await, json!({"valid": true}));
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200);

    gateway.clock.advance(REST);
    assert_eq!(problem(&login().await), (502, "wechat_failed".into()), "the probe meets the last fault");
    assert_eq!(problem(&login().await).0, 503);
    gateway.clock.advance(REST);
    assert_eq!(login().await.status, 200);
    assert_eq!(login().await.status, 200);
    assert_eq!(metric(&gateway, &open).await.as_deref(), Some("0"));
    assert_eq!(metric(&gateway, "wxgate_wechat_circuit_opened_total").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn bad_codes_of_users_never_open_a_circuit() {
    let gateway = Gateway::start().await;
    for n in 0..3 * LIMIT {
        let answer = gateway.post("/auth/login", &json!({"code": format!("made-up-{n}")})).await;
        assert_eq!(problem(&answer), (401, "code_invalid".into()));
    }
    gateway.login("alice").await;
}

#[tokio::test]
async fn logins_that_hang_on_a_slow_wechat_slow_no_proxied_request() {
    let gateway = Gateway::with(&format!("wechat.timeout = \"3s\"\n{ROUTES}")).await;
    let alice = gateway.login("alice").await;
    gateway.wechat.fault(LOGIN, 100, Fault::Hang);
    let hanging = futures_util::future::join_all((0..100).map(|n| {
        let gateway = &gateway;
        async move { gateway.post("/auth/login", &json!({"code": format!("demo-user{n}")})).await }
    }));
    let proxied = async {
        while gateway.wechat.calls().count(LOGIN) < 2 {
            tokio::task::yield_now().await;
        }
        let mut slowest = Duration::ZERO;
        for _ in 0..100 {
            let start = std::time::Instant::now();
            assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200);
            slowest = slowest.max(start.elapsed());
        }
        slowest
    };
    let (hung, slowest) = tokio::join!(hanging, proxied);
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    for answer in hung {
        let expected = [(504, "wechat_timeout".to_owned()), (503, "wechat_unavailable".to_owned())];
        assert!(expected.contains(&problem(&answer)), "{}", answer.body);
    }
    gateway.wechat.clear_faults();
    gateway.clock.advance(REST);
    gateway.login("bob").await;
}
