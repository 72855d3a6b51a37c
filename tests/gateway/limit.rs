//! Rate limits: who is counted, what a refusal says, what a reload keeps.

use std::time::Duration;

use serde_json::json;

use crate::support::gateway::{APPID, Gateway, SECRET};
use crate::support::raw;

/// A route with this limit and this `auth`.
fn route(auth: &str, limit: &str) -> String {
    format!("[[route]]\npath = \"/api/*\"\nupstream = \"echo\"\nauth = \"{auth}\"\nlimit = {limit}\n")
}

/// The status of `n` requests, one after the other.
async fn statuses(gateway: &Gateway, n: usize, token: Option<&str>) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..n {
        statuses.push(gateway.get("/api/a", token).await.status);
    }
    statuses
}

#[tokio::test]
async fn beyond_its_burst_a_person_is_refused_until_the_rate_allows_more() {
    let gateway = Gateway::with(&route("required", r#"{ by = "openid", rate = "2/min", burst = 3 }"#)).await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    assert_eq!(statuses(&gateway, 3, Some(alice.token())).await, [200; 3]);

    let refused = gateway.get("/api/a", Some(alice.token())).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    assert_eq!(refused.headers["retry-after"], "30");
    assert_eq!(refused.headers["ratelimit"], r#""openid";r=0;t=30"#);
    assert_eq!(refused.headers["ratelimit-policy"], r#""openid";q=3;w=90"#);
    assert_eq!(gateway.upstream.requests().len(), 3, "the service was not asked");

    assert_eq!(statuses(&gateway, 1, Some(bob.token())).await, [200], "another person is not concerned");
    gateway.clock.advance(Duration::from_secs(29));
    assert_eq!(statuses(&gateway, 1, Some(alice.token())).await, [429]);
    gateway.clock.advance(Duration::from_secs(1));
    assert_eq!(statuses(&gateway, 2, Some(alice.token())).await, [200, 429]);
}

#[tokio::test]
async fn two_devices_of_one_person_share_her_limit() {
    for by in ["openid", "member", "app"] {
        let limit = format!("{{ by = \"{by}\", rate = \"1/h\", burst = 2 }}");
        let gateway = Gateway::with(&route("required", &limit)).await;
        let (phone, tablet) = (gateway.login("alice").await, gateway.login("alice").await);
        assert_eq!(statuses(&gateway, 2, Some(phone.token())).await, [200; 2], "{by}");
        assert_eq!(statuses(&gateway, 1, Some(tablet.token())).await, [429], "{by}");
        // All members of an app share its limit; another person has her own.
        let bob = gateway.login("bob").await;
        let expected = if by == "app" { 429 } else { 200 };
        assert_eq!(statuses(&gateway, 1, Some(bob.token())).await, [expected], "{by}");
    }
}

#[tokio::test]
async fn a_flood_by_address_is_refused_before_its_tokens_are_looked_at() {
    for by in ["ip", "route"] {
        let limit = format!("{{ by = \"{by}\", rate = \"1/h\", burst = 2 }}");
        let gateway = Gateway::with(&route("required", &limit)).await;
        assert_eq!(statuses(&gateway, 4, Some("forged")).await, [401, 401, 429, 429], "{by}");
        let alice = gateway.login("alice").await;
        assert_eq!(statuses(&gateway, 1, Some(alice.token())).await, [429], "{by}");
    }
}

#[tokio::test]
async fn a_forged_token_uses_up_nobodys_limit() {
    let gateway = Gateway::with(&route("required", r#"{ by = "openid", rate = "1/h", burst = 1 }"#)).await;
    assert_eq!(statuses(&gateway, 3, Some("forged")).await, [401; 3]);
    let alice = gateway.login("alice").await;
    assert_eq!(statuses(&gateway, 2, Some(alice.token())).await, [200, 429]);
}

#[tokio::test]
async fn anonymous_callers_are_counted_by_address_and_members_by_themselves() {
    let gateway = Gateway::with(&route("optional", r#"{ by = "openid", rate = "1/h", burst = 1 }"#)).await;
    let alice = gateway.login("alice").await;
    assert_eq!(statuses(&gateway, 2, None).await, [200, 429]);
    assert_eq!(statuses(&gateway, 2, Some(alice.token())).await, [200, 429]);
}

#[tokio::test]
async fn addresses_are_those_that_trusted_proxies_name_and_of_version_6_whole_networks() {
    let gateway = Gateway::with(&route("none", r#"{ by = "ip", rate = "1/h", burst = 1 }"#)).await;
    gateway.rewrite(|text| text.replace("[server]\n", "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n")).await;
    for (address, status) in [
        ("198.51.100.1", 200),
        ("198.51.100.1", 429),
        ("6.6.6.6, 198.51.100.1", 429),
        ("198.51.100.2", 200),
        ("2001:db8:0:1::1", 200),
        ("2001:db8:0:1:ffff::2", 429),
        ("2001:db8:0:2::1", 200),
    ] {
        let request = format!("GET /api/a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {address}\r\n\r\n");
        let answer = raw::exchange(gateway.address(), request).await.unwrap();
        assert_eq!(answer.status, status, "{address}");
    }
}

#[tokio::test]
async fn a_client_cannot_choose_its_address() {
    let gateway = Gateway::with(&route("none", r#"{ by = "ip", rate = "1/h", burst = 1 }"#)).await;
    for (n, status) in [(1, 200), (2, 429), (3, 429)] {
        let request = format!("GET /api/a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.{n}\r\n\r\n");
        assert_eq!(raw::exchange(gateway.address(), request).await.unwrap().status, status);
    }
}

#[tokio::test]
async fn a_clock_set_back_locks_nobody_out() {
    let gateway = Gateway::with(&route("none", r#"{ by = "ip", rate = "1/s", burst = 1 }"#)).await;
    assert_eq!(statuses(&gateway, 1, None).await, [200]);
    gateway.clock.set_back(Duration::from_secs(3600));
    gateway.clock.advance(Duration::from_secs(1));
    assert_eq!(statuses(&gateway, 2, None).await, [200, 429]);
}

#[tokio::test]
async fn a_reload_keeps_who_is_at_the_limit_and_applies_a_new_rate() {
    let gateway = Gateway::with(&route("none", r#"{ by = "ip", rate = "1/h", burst = 2 }"#)).await;
    assert_eq!(statuses(&gateway, 3, None).await, [200, 200, 429]);
    gateway.rewrite(|text| text.replace("auth = \"none\"\n", "auth = \"none\"\ntimeout = \"7s\"\n")).await;
    assert_eq!(statuses(&gateway, 1, None).await, [429], "the same rule goes on");
    gateway.rewrite(|text| text.replace("1/h", "1/s")).await;
    assert_eq!(statuses(&gateway, 1, None).await, [429], "another rate does not forget");
    gateway.clock.advance(Duration::from_secs(1));
    assert_eq!(statuses(&gateway, 2, None).await, [200, 429], "but nobody waits by the old one");
    gateway.rewrite(|text| text.replace("limit = ", "# limit = ")).await;
    assert_eq!(statuses(&gateway, 9, None).await, [200; 9]);
}

#[tokio::test]
async fn logins_are_limited_by_address_and_nothing_else_is() {
    let tables =
        format!("[login]\nlimit = {{ by = \"ip\", rate = \"1/min\", burst = 2 }}\n{}", route("required", NONE));
    let gateway = Gateway::with(&tables).await;
    let alice = gateway.login("alice").await;
    gateway.login("bob").await;
    let calls = gateway.wechat.calls().count("/sns/jscode2session");
    let refused = gateway.post("/auth/login", &json!({ "code": gateway.wechat.issue_code(None, "carol") })).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    assert_eq!(refused.headers["retry-after"], "60");
    assert_eq!(gateway.wechat.calls().count("/sns/jscode2session"), calls, "WeChat was not asked");
    let refreshed = gateway.post("/auth/refresh", &json!({ "refresh_token": alice.refresh() })).await;
    assert_eq!(refreshed.status, 200);
    assert_eq!(gateway.get("/auth/me", Some(alice.token())).await.status, 200);
    gateway.clock.advance(Duration::from_secs(60));
    gateway.login("carol").await;
}

/// High enough to say nothing.
const NONE: &str = r#"{ by = "route", rate = "1000000/s" }"#;

#[tokio::test]
async fn logins_of_one_app_leave_the_others_room() {
    let other = format!("[[app]]\nappid = \"wxdemo123\"\nsecret = \"{SECRET}\"\n");
    let tables = format!("[login]\nlimit = {{ by = \"app\", rate = \"1/min\", burst = 1 }}\n{other}");
    let gateway = Gateway::with(&tables).await;
    let login = |appid: &'static str| {
        let body = json!({ "appid": appid, "code": gateway.wechat.issue_code(None, "alice") });
        let gateway = &gateway;
        async move { gateway.post("/auth/login", &body).await.status }
    };
    assert_eq!((login(APPID).await, login(APPID).await), (200, 429));
    assert_ne!(login("wxdemo123").await, 429);
    assert_eq!(login("wxdemo123").await, 429);
}

#[tokio::test]
async fn decisions_are_counted_by_rule() {
    let gateway = Gateway::with(&route("none", r#"{ by = "ip", rate = "1/h", burst = 2 }"#)).await;
    statuses(&gateway, 5, None).await;
    let page = gateway.metrics().await;
    for line in [
        r#"wxgate_limit_decisions_total{rule="/api/*",by="ip",decision="allowed"} 2"#,
        r#"wxgate_limit_decisions_total{rule="/api/*",by="ip",decision="refused"} 3"#,
        r#"wxgate_limit_evictions_total{rule="/api/*",by="ip"} 0"#,
        r#"wxgate_problems_total{code="rate_limited"} 3"#,
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
}
