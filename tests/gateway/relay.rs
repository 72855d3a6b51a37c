//! Services call WeChat's API through the gateway, without a token of WeChat's.

use serde_json::{Value, json};
use wxgate::ids::AppId;
use wxgate::wechat::simulator::Fault;

use crate::support::gateway::{APPID, Answer, Gateway, OTHER_APP, OTHER_APPID, ROUTES};

const TOKEN: &str = "planted-service-token-78";
const PHONE: &str = "/wxa/business/getuserphonenumber";

async fn with_a_service() -> Gateway {
    let service = format!(
        "[[internal.service]]\nname = \"orders\"\ntoken = \"{TOKEN}\"\nwechat = [\"/wxa/business/*\", \"/cgi-bin/one\"]\n"
    );
    Gateway::with(&format!("{service}{ROUTES}")).await
}

fn phone_code(gateway: &Gateway) -> String {
    gateway.wechat.phone("alice", &AppId::parse(APPID).unwrap()).code
}

async fn post(gateway: &Gateway, path: &str, body: &Value) -> Answer {
    let request = gateway.client().post(gateway.internal_url(path)).bearer_auth(TOKEN).json(body);
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn a_service_calls_wechat_without_a_token() {
    let gateway = with_a_service().await;
    let code = phone_code(&gateway);
    let answer = post(&gateway, &format!("/wechat/{APPID}{PHONE}"), &json!({ "code": code })).await;
    assert_eq!((answer.status, &answer.json()["errcode"]), (200, &json!(0)), "{}", answer.body);
    assert_eq!(answer.json()["phone_info"]["watermark"]["appid"], APPID);
    assert!(answer.headers.contains_key("x-openapi-seqid"));
    // An errcode is an answer like any other.
    let again = post(&gateway, &format!("/wechat/{APPID}{PHONE}"), &json!({ "code": code })).await;
    assert_eq!((again.status, &again.json()["errcode"]), (200, &json!(40029)), "{}", again.body);
    assert_eq!(gateway.wechat.calls().count("/cgi-bin/stable_token"), 1);
    assert!(!gateway.log.text().contains("access_token="));
}

#[tokio::test]
async fn a_service_written_for_cloudrun_needs_a_proxy_setting_and_nothing_else() {
    let gateway = with_a_service().await;
    let proxy = gateway.internal_url("").replace("http://", &format!("http://orders:{TOKEN}@"));
    let proxied = reqwest::Client::builder().proxy(reqwest::Proxy::http(proxy).unwrap()).build().unwrap();
    let ask = async |url: String| {
        let request = proxied.post(url).json(&json!({ "code": phone_code(&gateway) }));
        Answer::of(request.send().await.unwrap()).await
    };
    let answer = ask(format!("http://api.weixin.qq.com{PHONE}")).await;
    assert_eq!((answer.status, &answer.json()["errcode"]), (200, &json!(0)), "{}", answer.body);
    // Whatever the path: under this host everything is WeChat's.
    let answer = ask("http://api.weixin.qq.com/introspect".to_owned()).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"));
    for host in ["http://example.com", "http://169.254.169.254", "http://api.weixin.qq.com.example.com"] {
        let answer = ask(format!("{host}{PHONE}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{host}");
    }

    let url = gateway.internal_url(PHONE);
    let hosted = gateway.client().post(url).header("host", "api.weixin.qq.com").bearer_auth(TOKEN);
    let answer = Answer::of(hosted.json(&json!({ "code": phone_code(&gateway) })).send().await.unwrap()).await;
    assert_eq!(answer.json()["errcode"], 0, "{}", answer.body);
}

#[tokio::test]
async fn only_the_listed_paths_of_known_apps_and_no_tokens_of_ones_own() {
    let gateway = with_a_service().await;
    for (path, status, code) in [
        ("/wechat/wxelsewhere/wxa/business/x".to_owned(), 400, "unknown_app"),
        (format!("/wechat/{APPID}/cgi-bin/token"), 403, "forbidden"),
        (format!("/wechat/{APPID}/cgi-bin/one/two"), 403, "forbidden"),
        (format!("/wechat/{APPID}/wxa/businessx"), 403, "forbidden"),
        (format!("/wechat/{APPID}/wxa/business/%2e%2e/x"), 403, "forbidden"),
        (format!("/wechat/{APPID}/wxa/business//x"), 403, "forbidden"),
        (format!("/wechat/{APPID}/wxa/business/%2fx"), 403, "forbidden"),
        (format!("/wechat/{APPID}{PHONE}?access_token=x"), 400, "invalid_request"),
        (format!("/wechat/{APPID}{PHONE}?access%5Ftoken=x"), 400, "invalid_request"),
    ] {
        let answer = post(&gateway, &path, &json!({})).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}");
    }
    let stranger = gateway.client().post(gateway.internal_url(&format!("/wechat/{APPID}{PHONE}")));
    assert_eq!(stranger.send().await.unwrap().status(), 401);
    assert_eq!(gateway.wechat.calls().count(PHONE), 0);
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let gateway = with_a_service().await;
    gateway.wechat.fault(PHONE, 1, Fault::Errcode(40001));
    let path = format!("/wechat/{APPID}{PHONE}");
    let answer = post(&gateway, &path, &json!({ "code": phone_code(&gateway) })).await;
    assert_eq!(answer.json()["errcode"], 0, "{}", answer.body);
    assert_eq!(gateway.wechat.calls().count(PHONE), 2);

    gateway.wechat.fault(PHONE, 2, Fault::Errcode(42001));
    let answer = post(&gateway, &path, &json!({ "code": phone_code(&gateway) })).await;
    assert_eq!((answer.status, &answer.json()["errcode"]), (200, &json!(42001)));
    assert_eq!(gateway.wechat.calls().count(PHONE), 4);
}

#[tokio::test]
async fn bodies_of_any_size_pass_both_ways() {
    let gateway = with_a_service().await;
    let path = format!("/wechat/{APPID}{PHONE}");
    let large = json!({ "code": phone_code(&gateway), "padding": "x".repeat(300_000) });
    let answer = post(&gateway, &path, &large).await;
    assert_eq!(answer.json()["errcode"], 0, "{}", answer.body);
    gateway.wechat.fault(PHONE, 1, Fault::HugeBody(3_000_000));
    let answer = post(&gateway, &path, &json!({ "code": phone_code(&gateway) })).await;
    assert_eq!((answer.status, answer.body.len()), (200, 3_000_000));
}

#[tokio::test]
async fn a_wechat_that_is_away_is_a_problem_without_a_url() {
    let gateway = with_a_service().await;
    gateway.wechat.fault(PHONE, 1, Fault::Reset);
    let answer = post(&gateway, &format!("/wechat/{APPID}{PHONE}"), &json!({ "code": "x" })).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "wechat_failed"));
    assert!(!answer.body.contains("access_token=") && !gateway.log.text().contains("access_token="));
}

#[tokio::test]
async fn with_several_apps_a_call_to_wechats_host_says_which() {
    let service = format!("[[internal.service]]\nname = \"orders\"\ntoken = \"{TOKEN}\"\nwechat = [\"/wxa/*\"]\n");
    let gateway = Gateway::with(&format!("{service}{OTHER_APP}{ROUTES}")).await;
    let ask = async |apps: &[&str]| {
        let code = gateway.wechat.phone("alice", &AppId::parse(OTHER_APPID).unwrap()).code;
        let mut request = gateway.client().post(gateway.internal_url(PHONE)).header("host", "api.weixin.qq.com");
        for app in apps {
            request = request.header("X-Wxgate-App", *app);
        }
        Answer::of(request.bearer_auth(TOKEN).json(&json!({ "code": code })).send().await.unwrap()).await
    };
    let answer = ask(&[OTHER_APPID]).await;
    assert_eq!(answer.json()["phone_info"]["watermark"]["appid"], OTHER_APPID, "{}", answer.body);
    for (apps, code) in [
        (&[][..], "invalid_request"),
        (&[OTHER_APPID, OTHER_APPID], "invalid_request"),
        (&["wxelsewhere"], "unknown_app"),
        (&[""], "unknown_app"),
    ] {
        assert_eq!(ask(apps).await.code(), code, "{apps:?}");
    }
}

#[tokio::test]
async fn what_wechat_finds_too_much_is_counted_by_app_and_errcode() {
    let gateway = with_a_service().await;
    let path = format!("/wechat/{APPID}{PHONE}");
    for (errcode, times) in [(45009, 1), (45011, 2), (40029, 1)] {
        for _ in 0..times {
            gateway.wechat.fault(PHONE, 1, Fault::Errcode(errcode));
            assert_eq!(post(&gateway, &path, &json!({ "code": "x" })).await.json()["errcode"], errcode);
        }
    }
    gateway.until_metric(&format!("wxgate_wechat_quota_total{{app=\"{APPID}\",errcode=\"45009\"}}"), 1).await;
    gateway.until_metric(&format!("wxgate_wechat_quota_total{{app=\"{APPID}\",errcode=\"45011\"}}"), 2).await;
    let page = gateway.client().get(gateway.admin_url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(!page.contains("errcode=\"40029\""), "{page}");
}

#[tokio::test]
async fn a_failing_wechat_is_left_alone_for_this_entry_of_the_list_only() {
    let gateway = with_a_service().await;
    let path = format!("/wechat/{APPID}{PHONE}");
    gateway.wechat.fault(PHONE, 10, Fault::Status(500));
    for _ in 0..10 {
        assert_eq!(post(&gateway, &path, &json!({ "code": "x" })).await.status, 500, "passed on as it is");
    }
    let refused = post(&gateway, &path, &json!({ "code": "x" })).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "wechat_unavailable"));
    assert_eq!(refused.headers["retry-after"], "5");
    assert_eq!(gateway.wechat.calls().count(PHONE), 10);
    // Another entry, and what members ask, have circuits of their own.
    assert_eq!(post(&gateway, &format!("/wechat/{APPID}/cgi-bin/one"), &json!({})).await.status, 404);
    let alice = gateway.login("alice").await;
    assert_eq!(gateway.post_as(&alice, "/auth/check", &json!({})).await.status, 200);
    gateway.clock.advance(std::time::Duration::from_secs(5));
    let answer = post(&gateway, &path, &json!({ "code": phone_code(&gateway) })).await;
    assert_eq!(answer.json()["errcode"], 0, "{}", answer.body);
}
