//! The app's credential at WeChat: one call when it is needed, none after a restart, and no login waits for it.

use std::time::Duration;

use serde_json::json;
use wxgate::wechat::simulator::Fault;

use crate::support::gateway::{Answer, Gateway, Member, ROUTES};

const STABLE: &str = "/cgi-bin/stable_token";
const CLASSIC: &str = "/cgi-bin/token";
const CHECK: &str = "/wxa/checksession";
const PHONE: &str = "/wxa/business/getuserphonenumber";

async fn check(gateway: &Gateway, member: &Member) -> Answer {
    gateway.post_as(member, "/auth/check", &json!({})).await
}

#[tokio::test]
async fn many_members_who_need_it_at_once_are_one_call_to_wechat_also_when_it_ends() {
    let gateway = Gateway::with(&format!("token.access_ttl = \"30d\"\n{ROUTES}")).await;
    let members = futures_util::future::join_all((0..50).map(|n| {
        let gateway = &gateway;
        async move { gateway.login(&format!("user{n}")).await }
    }))
    .await;
    for round in 1..=2 {
        let calls = (0..10).flat_map(|_| &members).map(|member| check(&gateway, member));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.json(), json!({"valid": true}));
        }
        assert_eq!(gateway.wechat.calls().count(STABLE), round);
        gateway.clock.advance(Duration::from_secs(7200));
    }
}

#[tokio::test]
async fn after_a_restart_the_token_that_was_kept_is_used_before_wechat_is_asked_for_another() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    assert_eq!(check(&gateway, &alice).await.status, 200);
    let gateway = gateway.restart(ROUTES).await;
    // Another simulator, which does not know the token: it is used, refused, and replaced once.
    let alice = gateway.login("alice").await;
    assert_eq!(check(&gateway, &alice).await.json(), json!({"valid": true}));
    let calls = gateway.wechat.calls();
    let first = calls.calls.iter().position(|call| call.path == STABLE).unwrap();
    assert!(calls.calls.iter().take(first).any(|call| call.path == CHECK && call.errcode == Some(40001)));
    assert_eq!((calls.count(STABLE), calls.count(CHECK)), (1, 2));
}

#[tokio::test]
async fn the_classic_line_is_used_where_the_app_says_so() {
    // The harness writes the first app; a second one would make logins name theirs.
    let second =
        format!("[[app]]\nappid = \"wxffffffffffffffff\"\nsecret = \"other\"\naccess_token = \"classic\"\n{ROUTES}");
    let gateway = Gateway::with(&second).await;
    let other = wxgate::ids::AppId::parse("wxffffffffffffffff").unwrap();
    let snapshot = gateway.inner().current();
    let app = snapshot.config.apps.iter().find(|app| app.appid == other).unwrap();
    let client = wxgate::wechat::Client::new(&snapshot.config.wechat).unwrap();
    let refused = gateway.inner().kept().access_tokens.get(&client, app).await;
    // The simulator lists one app only, so the answer is 40013; what counts is which call was made.
    assert!(refused.is_err());
    assert_eq!((gateway.wechat.calls().count(CLASSIC), gateway.wechat.calls().count(STABLE)), (1, 0));
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_and_the_phone_code_is_not_lost() {
    for errcode in [40001, 40014, 42001] {
        let gateway = Gateway::start().await;
        let alice = gateway.login("alice").await;
        gateway.wechat.fault(PHONE, 1, Fault::Errcode(errcode));
        let body = json!({"code": gateway.phone_button("alice")["code"]});
        let answer = gateway.post_as(&alice, "/auth/phone", &body).await;
        assert_eq!(answer.status, 200, "{errcode} {}", answer.body);
        assert_eq!((gateway.wechat.calls().count(PHONE), gateway.wechat.calls().count(STABLE)), (2, 2));

        gateway.wechat.fault(PHONE, 2, Fault::Errcode(errcode));
        let body = json!({"code": gateway.phone_button("alice")["code"]});
        let answer = gateway.post_as(&alice, "/auth/phone", &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "wechat_failed"));
        assert_eq!(gateway.wechat.calls().count(PHONE), 4, "once more and never again");
    }
}

#[tokio::test]
async fn logins_go_on_while_no_token_can_be_had() {
    let gateway = Gateway::start().await;
    for (fault, status, code) in [
        (Fault::Errcode(40001), 502, "wechat_failed"),
        (Fault::Errcode(40013), 502, "wechat_failed"),
        (Fault::Errcode(40164), 502, "wechat_failed"),
        (Fault::Errcode(45009), 503, "wechat_unavailable"),
        (Fault::Status(503), 502, "wechat_failed"),
        (Fault::Body(b"{}".to_vec()), 502, "wechat_failed"),
    ] {
        gateway.wechat.fault(STABLE, 1, fault.clone());
        let alice = gateway.login("alice").await;
        let answer = check(&gateway, &alice).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{fault:?}");
    }
    let alice = gateway.login("alice").await;
    assert_eq!(check(&gateway, &alice).await.status, 200);
    let fetched = gateway.wechat.calls().count(STABLE);
    assert_eq!(fetched, 7, "the answers of the token call itself are not refusals of a token");
}

#[tokio::test]
async fn neither_token_nor_secret_reaches_the_log_or_the_metrics() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.wechat.fault(CHECK, 1, Fault::Errcode(40001));
    assert_eq!(check(&gateway, &alice).await.status, 200);
    gateway.until_metric("wxgate_access_token_fetches_total", 2).await;
    gateway.until_metric("wxgate_access_token_refused_total", 1).await;
    let snapshot = gateway.inner().current();
    let client = wxgate::wechat::Client::new(&snapshot.config.wechat).unwrap();
    let token = gateway.inner().kept().access_tokens.get(&client, &snapshot.config.apps[0]).await.unwrap();
    let page = gateway.client().get(gateway.admin_url("/metrics")).send().await.unwrap().text().await.unwrap();
    let shown = format!("{} {page} {snapshot:?} {:?}", gateway.log.text(), gateway.inner());
    assert!(!shown.contains(token.expose()) && !shown.contains(crate::support::gateway::SECRET));
    for file in ["wxgate.db", "wxgate.db-wal"] {
        let bytes = std::fs::read(gateway.dir.path().join(file)).unwrap_or_default();
        assert!(!bytes.windows(token.expose().len()).any(|part| part == token.expose().as_bytes()), "{file}");
    }
}
