//! Web login: a browser goes to WeChat and comes back with a ticket; nobody else gets anything.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use wxgate::wechat::simulator::Fault;

use crate::support::gateway::{APPID, Answer, Gateway, Member, OTHER_APPID, ROUTES};

const EXCHANGE: &str = "/sns/oauth2/access_token";
const PAGE: &str = "https://m.example.com/shop?item=7#/top";

/// A second app of the other kind.
const WEBSITE: &str = r#"
[[app]]
appid = "wxfedcba9876543210"
kind = "website"
secret = "planted-other-secret-77aa31"
origins = ["https://www.example.com", "https://m.example.com"]
"#;

pub(crate) async fn gateway(scope: &str) -> Gateway {
    let app =
        format!("app.kind = \"official-account\"\napp.origins = [\"https://m.example.com\"]\napp.scope = {scope:?}");
    Gateway::with(&format!("{app}\n{ROUTES}{WEBSITE}")).await
}

/// A browser: it keeps cookies, also those that are for https alone, and follows no redirect by itself.
#[derive(Debug, Default, Clone)]
struct Browser {
    cookies: BTreeMap<String, String>,
}

impl Browser {
    /// GETs a path of the gateway.
    async fn get(&mut self, gateway: &Gateway, path: &str, query: &[(&str, &str)]) -> Answer {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = gateway.client().get(gateway.url(path)).query(query);
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        let answer = Answer::of(request.send().await.unwrap()).await;
        for cookie in answer.headers.get_all("set-cookie") {
            let (pair, attributes) = cookie.to_str().unwrap().split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            match attributes.contains("Max-Age=0") {
                true => drop(self.cookies.remove(name)),
                false => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
        answer
    }

    async fn start(&mut self, gateway: &Gateway, appid: &str, redirect: &str) -> Answer {
        self.get(gateway, &format!("/auth/web/{appid}/start"), &[("redirect", redirect)]).await
    }

    /// From the start to where WeChat sends the browser: path and query at the gateway.
    async fn consent(&mut self, gateway: &Gateway, appid: &str, redirect: &str) -> String {
        let started = self.start(gateway, appid, redirect).await;
        assert_eq!(started.status, 302, "{}", started.body);
        let page = location(&started).replace("#wechat_redirect", "");
        let back = Answer::of(gateway.client().get(page).send().await.unwrap()).await;
        location(&back).strip_prefix("https://api.example.com").unwrap().to_owned()
    }

    /// The whole way: what stands in the ticket parameter.
    async fn ticket(&mut self, gateway: &Gateway, appid: &str) -> String {
        let callback = self.consent(gateway, appid, "https://m.example.com/").await;
        let answer = self.get(gateway, &callback, &[]).await;
        assert_eq!(answer.status, 302, "{}", answer.body);
        location(&answer).strip_prefix("https://m.example.com/?ticket=").unwrap().to_owned()
    }
}

fn location(answer: &Answer) -> &str {
    answer.headers.get("location").unwrap_or_else(|| panic!("{} {}", answer.status, answer.body)).to_str().unwrap()
}

async fn by_ticket(gateway: &Gateway, ticket: &str) -> Answer {
    gateway.post("/auth/login", &json!({ "ticket": ticket })).await
}

pub(crate) async fn log_in(gateway: &Gateway, appid: &str, user: &str) -> Member {
    gateway.wechat.browse_as(user, false);
    let ticket = Browser::default().ticket(gateway, appid).await;
    let answer = by_ticket(gateway, &ticket).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    Member { answer: answer.json() }
}

/// Neither sent anywhere nor told anything.
fn is_refused(answer: &Answer, code: &str) {
    assert_eq!(answer.code(), code);
    assert!(!answer.headers.contains_key("location"), "{answer:?}");
}

#[tokio::test]
async fn the_browser_is_sent_to_wechat_with_the_parameters_in_its_order() {
    let gateway = gateway("snsapi_userinfo").await;
    for (appid, page, scope) in
        [(APPID, "oauth2/authorize", "snsapi_userinfo"), (OTHER_APPID, "qrconnect", "snsapi_login")]
    {
        let answer = Browser::default().start(&gateway, appid, PAGE).await;
        assert_eq!(answer.status, 302, "{}", answer.body);
        let (url, state) = location(&answer).split_once("&state=").unwrap();
        let callback = format!("https%3A%2F%2Fapi.example.com%2Fauth%2Fweb%2F{appid}%2Fcallback");
        let base = gateway.wechat.api_base();
        assert_eq!(
            url,
            format!("{base}/connect/{page}?appid={appid}&redirect_uri={callback}&response_type=code&scope={scope}")
        );
        let state = state.strip_suffix("#wechat_redirect").unwrap();
        assert!(state.len() <= 128 && state.bytes().all(|b| b.is_ascii_alphanumeric()), "{state}");
        let cookie = answer.headers["set-cookie"].to_str().unwrap();
        assert!(cookie.starts_with("__Host-") && !cookie.contains("Domain"), "{cookie}");
        assert!(cookie.ends_with("; Path=/; Max-Age=600; Secure; HttpOnly; SameSite=Lax"), "{cookie}");
        assert_eq!(
            (&answer.headers["cache-control"], &answer.headers["referrer-policy"]),
            (&"no-store".parse().unwrap(), &"no-referrer".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn a_person_comes_back_with_a_ticket_that_yields_tokens() {
    for (scope, appid) in [("snsapi_base", APPID), ("snsapi_userinfo", APPID), ("snsapi_base", OTHER_APPID)] {
        let gateway = gateway(scope).await;
        let mut browser = Browser::default();
        let callback = browser.consent(&gateway, appid, PAGE).await;
        let answer = browser.get(&gateway, &callback, &[]).await;
        assert_eq!((answer.status, answer.body.as_str()), (302, ""));
        assert_eq!(answer.headers["referrer-policy"], "no-referrer");
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert!(browser.cookies.is_empty(), "{browser:?}");
        let rest = location(&answer).strip_prefix("https://m.example.com/shop?item=7&ticket=").unwrap();
        let ticket = rest.strip_suffix("#/top").unwrap();

        let answer = by_ticket(&gateway, ticket).await;
        assert_eq!((answer.status, &answer.headers["cache-control"]), (200, &"no-store".parse().unwrap()));
        let member = Member { answer: answer.json() };
        assert_eq!((member.answer["appid"].as_str(), &member.answer["is_new"]), (Some(appid), &json!(true)));
        let silent = (scope, appid) == ("snsapi_base", APPID);
        assert_eq!(member.answer["unionid"].is_null(), silent, "{}", member.answer);
        assert_eq!(member.answer["member"]["nickname"], if silent { "" } else { "alice" });
        assert_eq!(member.answer["member"]["avatar_url"] == "", silent);
        assert_eq!(gateway.get("/api/x", Some(member.token())).await.status, 200);
        let refreshed = gateway.post("/auth/refresh", &json!({ "refresh_token": member.refresh() })).await;
        assert_eq!(refreshed.status, 200, "{}", refreshed.body);
        assert_eq!(gateway.wechat.calls().count(EXCHANGE), 1);
        assert_eq!(gateway.wechat.calls().count("/sns/jscode2session"), 0);

        let again = log_in(&gateway, appid, "alice").await;
        assert_eq!((again.id(), &again.answer["is_new"]), (member.id(), &json!(false)));
        let secrets = [ticket, callback.split_once("code=").unwrap().1.split_once('&').unwrap().0];
        let log = gateway.log.text();
        assert!(secrets.iter().all(|secret| !log.contains(secret)), "{log}");
    }
}

#[tokio::test]
async fn placeholders_of_wechat_are_nobodys_name() {
    let gateway = gateway("snsapi_userinfo").await;
    let member = log_in(&gateway, APPID, "微信用户").await;
    assert_eq!(
        (&member.answer["member"]["nickname"], &member.answer["member"]["avatar_url"]),
        (&json!(""), &json!(""))
    );
}

#[tokio::test]
async fn a_browser_is_sent_to_listed_origins_only() {
    let gateway = gateway("snsapi_base").await;
    for bad in [
        "",
        "/",
        "//evil.example",
        "https:evil.example",
        "https:m.example.com/a",
        "/\\evil.example",
        "https:\\\\m.example.com",
        "https://m.example.com\\@evil.example/",
        "javascript:alert(1)",
        "data:text/html,x",
        "https://m.example.com@evil.example/",
        "https://user:pass@m.example.com/",
        "https://m.example.com.evil.example/",
        "https://m.example.com:8443/",
        "https://m.exam\tple.com/",
        "https://m.example.com\n.evil.example/",
        "\thttps://m.example.com/",
        "https://m.example.com/\r\nset-cookie: a=b",
        "http://m.example.com/",
        "https://evil.example/?https://m.example.com/",
        // Listed for the other app.
        "https://www.example.com/",
    ] {
        let answer = Browser::default().start(&gateway, APPID, bad).await;
        is_refused(&answer, "invalid_request");
        assert!(!answer.headers.contains_key("set-cookie"), "{bad:?}");
    }
    let path = format!("/auth/web/{APPID}/start");
    is_refused(&Browser::default().get(&gateway, &path, &[]).await, "invalid_request");
    let twice = [("redirect", "https://m.example.com/"), ("redirect", "https://evil.example/")];
    is_refused(&Browser::default().get(&gateway, &path, &twice).await, "invalid_request");
}

#[tokio::test]
async fn an_app_without_a_web_login_has_none() {
    let gateway = Gateway::start().await;
    is_refused(&Browser::default().start(&gateway, APPID, PAGE).await, "route_not_found");
    is_refused(&Browser::default().start(&gateway, "wxnobody0", PAGE).await, "route_not_found");
    let callback = format!("/auth/web/{APPID}/callback?code=1&state=2");
    is_refused(&Browser::default().get(&gateway, &callback, &[]).await, "route_not_found");
}

#[tokio::test]
async fn a_state_is_good_once_in_its_browser_for_its_app_and_ten_minutes() {
    let gateway = gateway("snsapi_base").await;
    let mut browser = Browser::default();
    let callback = browser.consent(&gateway, APPID, PAGE).await;
    let (code, state) = callback.split_once("&state=").unwrap();
    let refused = async |mut browser: Browser, path: &str| {
        is_refused(&browser.get(&gateway, path, &[]).await, "invalid_request");
    };
    refused(browser.clone(), code).await;
    refused(browser.clone(), &format!("{code}&state=")).await;
    refused(browser.clone(), &format!("{callback}&state={state}")).await;
    refused(browser.clone(), &format!("{callback}&code=another")).await;
    let flipped = if state.ends_with('0') { "1" } else { "0" };
    refused(browser.clone(), &format!("{code}&state={}{flipped}", &state[..state.len() - 1])).await;
    refused(browser.clone(), &callback.replace(APPID, OTHER_APPID)).await;
    refused(Browser::default(), &callback).await;
    let mut another = Browser::default();
    another.start(&gateway, APPID, PAGE).await;
    refused(another, &callback).await;
    // The URL to return to is part of what is signed.
    let mut tampered = browser.clone();
    tampered.cookies.values_mut().for_each(|value| value.truncate(value.len() - 4));
    refused(tampered, &callback).await;
    // A state is no token of any kind, nor is any of them a state.
    assert_eq!(by_ticket(&gateway, state).await.code(), "code_invalid");
    assert_eq!(gateway.get("/api/x", Some(state)).await.code(), "token_invalid");
    let refresh = gateway.post("/auth/refresh", &json!({ "refresh_token": state })).await;
    assert_eq!(refresh.code(), "refresh_invalid");
    assert_eq!(gateway.wechat.calls().count(EXCHANGE), 0, "nothing is asked before the state is known to be good");

    let kept = browser.clone();
    assert_eq!(browser.get(&gateway, &callback, &[]).await.status, 302);
    refused(kept, &callback).await;
    assert_eq!(gateway.wechat.calls().count(EXCHANGE), 1);

    let late = browser.consent(&gateway, APPID, PAGE).await;
    gateway.clock.advance(Duration::from_secs(600));
    refused(browser, &late).await;
}

#[tokio::test]
async fn two_windows_do_not_end_each_others_login() {
    let gateway = gateway("snsapi_base").await;
    let mut browser = Browser::default();
    let first = browser.consent(&gateway, APPID, PAGE).await;
    let second = browser.consent(&gateway, APPID, PAGE).await;
    assert_eq!(browser.get(&gateway, &first, &[]).await.status, 302);
    assert_eq!(browser.get(&gateway, &second, &[]).await.status, 302);
}

#[tokio::test]
async fn one_callback_shown_many_times_at_once_exchanges_one_code() {
    let gateway = gateway("snsapi_base").await;
    let mut browser = Browser::default();
    let callback = browser.consent(&gateway, APPID, PAGE).await;
    let shown = futures_util::future::join_all((0..20).map(|_| {
        let (mut browser, gateway, callback) = (browser.clone(), &gateway, &callback);
        async move { browser.get(gateway, callback, &[]).await.status }
    }));
    let answers = shown.await;
    assert_eq!(answers.iter().filter(|status| **status == 302).count(), 1, "{answers:?}");
    assert_eq!(gateway.wechat.calls().count(EXCHANGE), 1);
}

#[tokio::test]
async fn whoever_refuses_comes_back_without_a_ticket() {
    let gateway = gateway("snsapi_userinfo").await;
    gateway.wechat.browse_as("alice", true);
    let mut browser = Browser::default();
    let callback = browser.consent(&gateway, APPID, "https://m.example.com/a?error=old&ticket=planted").await;
    let answer = browser.get(&gateway, &callback, &[]).await;
    assert_eq!((answer.status, location(&answer)), (302, "https://m.example.com/a?error=access_denied"));
    assert!(browser.cookies.is_empty());
    assert_eq!(gateway.wechat.calls().count(EXCHANGE), 0);
}

#[tokio::test]
async fn a_stand_in_of_snapshot_mode_becomes_nobody() {
    let gateway = gateway("snsapi_userinfo").await;
    gateway.wechat.browse_as("alice-snapshot", false);
    let mut browser = Browser::default();
    let callback = browser.consent(&gateway, APPID, PAGE).await;
    is_refused(&browser.get(&gateway, &callback, &[]).await, "login_refused");
    assert!(browser.cookies.is_empty());
    assert_eq!(gateway.wechat.calls().count("/sns/userinfo"), 0);
}

#[tokio::test]
async fn what_wechat_refuses_is_a_problem_and_is_asked_once() {
    let gateway = gateway("snsapi_userinfo").await;
    for (n, (fault, code)) in [
        (Fault::Errcode(40029), "code_invalid"),
        (Fault::Errcode(40163), "code_used"),
        (Fault::Errcode(-1), "wechat_unavailable"),
        (Fault::Status(502), "wechat_failed"),
        (Fault::Reset, "wechat_failed"),
    ]
    .into_iter()
    .enumerate()
    {
        gateway.wechat.fault(EXCHANGE, 1, fault);
        let mut browser = Browser::default();
        let callback = browser.consent(&gateway, APPID, PAGE).await;
        is_refused(&browser.get(&gateway, &callback, &[]).await, code);
        assert_eq!(gateway.wechat.calls().count(EXCHANGE), n as u64 + 1);
    }
    gateway.wechat.fault("/sns/userinfo", 1, Fault::Body(br#"{"openid":"oSomebodyElse","nickname":"x"}"#.to_vec()));
    let mut browser = Browser::default();
    let callback = browser.consent(&gateway, APPID, PAGE).await;
    is_refused(&browser.get(&gateway, &callback, &[]).await, "wechat_failed");
}

#[tokio::test]
async fn a_ticket_is_good_once_for_a_minute_and_for_its_app() {
    let gateway = gateway("snsapi_base").await;
    let mut browser = Browser::default();
    let login = async |body: Value| gateway.post("/auth/login", &body).await;

    let ticket = browser.ticket(&gateway, APPID).await;
    assert_eq!(login(json!({ "ticket": ticket, "code": "c" })).await.code(), "invalid_request");
    assert_eq!(login(json!({ "ticket": ticket, "appid": "wxnobody0" })).await.code(), "unknown_app");
    gateway.clock.advance(Duration::from_millis(59_999));
    let all = futures_util::future::join_all((0..20).map(|_| by_ticket(&gateway, &ticket))).await;
    assert_eq!(all.iter().filter(|answer| answer.status == 200).count(), 1);
    assert!(all.iter().filter(|answer| answer.status != 200).all(|answer| answer.code() == "code_invalid"));

    let late = browser.ticket(&gateway, APPID).await;
    gateway.clock.advance(Duration::from_secs(60));
    assert_eq!(by_ticket(&gateway, &late).await.code(), "code_invalid");

    let foreign = browser.ticket(&gateway, APPID).await;
    assert_eq!(login(json!({ "ticket": foreign, "appid": OTHER_APPID })).await.code(), "code_invalid");
    let named = browser.ticket(&gateway, APPID).await;
    assert_eq!(login(json!({ "ticket": named, "appid": APPID })).await.status, 200);
    assert_eq!(by_ticket(&gateway, "").await.code(), "code_invalid");
}

#[tokio::test]
async fn tickets_codes_and_tokens_do_not_stand_in_for_each_other() {
    let gateway = gateway("snsapi_base").await;
    let member = log_in(&gateway, APPID, "alice").await;
    let mut browser = Browser::default();
    let callback = browser.consent(&gateway, APPID, "https://m.example.com/").await;
    let code = callback.split_once("code=").unwrap().1.split_once('&').unwrap().0.to_owned();
    let answer = browser.get(&gateway, &callback, &[]).await;
    let ticket = location(&answer).split_once("ticket=").unwrap().1.to_owned();

    assert_eq!(gateway.get("/api/x", Some(&ticket)).await.code(), "token_invalid");
    assert_eq!(gateway.post("/auth/refresh", &json!({ "refresh_token": ticket })).await.code(), "refresh_invalid");
    for not_a_ticket in [member.token(), member.refresh(), &code] {
        assert_eq!(by_ticket(&gateway, not_a_ticket).await.code(), "code_invalid");
    }
    // The code has stood in a URL: whoever reads it there gets nothing for it, and WeChat is not asked.
    for not_a_code in [&code, &ticket] {
        let answer = gateway.post("/auth/login", &json!({ "code": not_a_code, "appid": APPID })).await;
        assert_eq!(answer.code(), "invalid_request");
    }
    assert_eq!(gateway.wechat.calls().count("/sns/jscode2session"), 0);
    assert_eq!(by_ticket(&gateway, &ticket).await.status, 200, "none of that used it up");
}
