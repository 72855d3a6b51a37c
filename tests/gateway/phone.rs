//! The phone number: by the button's code, or by its older encrypted form.

use std::time::Duration;

use serde_json::{Value, json};
use wxgate::wechat::simulator::Fault;

use crate::support::gateway::{Answer, Gateway, ROUTES};
use crate::support::people::app;

const CALL: &str = "/wxa/business/getuserphonenumber";

fn problem(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

fn code_of(gateway: &Gateway, user: &str) -> Value {
    json!({"code": gateway.phone_button(user)["code"]})
}

fn encrypted_of(gateway: &Gateway, user: &str) -> Value {
    let button = gateway.phone_button(user);
    json!({"encryptedData": button["encryptedData"], "iv": button["iv"]})
}

#[tokio::test]
async fn both_forms_give_the_number_as_text_and_store_it() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let number = gateway.wechat.user("alice", &app()).phone_number;
    for body in [code_of(&gateway, "alice"), encrypted_of(&gateway, "alice")] {
        let answer = gateway.post_as(&alice, "/auth/phone", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let expected = json!({"phoneNumber": number, "purePhoneNumber": number, "countryCode": "86"});
        assert_eq!(answer.json(), expected);
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    let shown = gateway.me(&alice).await["phone"].clone();
    assert_eq!(shown, format!("{}****{}", &number[..3], &number[7..]));
    assert!(!gateway.log.text().contains(&number));
    let login = gateway.login("alice").await;
    assert!(!login.answer.to_string().contains(&number));
}

#[tokio::test]
async fn a_code_of_somebody_else_a_used_one_and_one_of_wx_login_are_invalid() {
    let gateway = Gateway::start().await;
    let (alice, _) = (gateway.login("alice").await, gateway.login("bob").await);
    let used = code_of(&gateway, "alice");
    assert_eq!(gateway.post_as(&alice, "/auth/phone", &used).await.status, 200);
    let login_code = json!({"code": gateway.wechat.issue_code(None, "alice")});
    let foreign = wxgate::ids::AppId::parse("wxffffffffffffffff").unwrap();
    let foreign = json!({"code": gateway.wechat.phone("alice", &foreign).code});
    for body in [used, code_of(&gateway, "bob"), login_code, foreign, json!({"code": "made-up"})] {
        let answer = gateway.post_as(&alice, "/auth/phone", &body).await;
        assert_eq!(problem(&answer), (401, "code_invalid".into()), "{body}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("phone button"));
    }
}

#[tokio::test]
async fn each_errcode_has_its_problem_and_nothing_is_sent_twice() {
    for (errcode, status, code) in [
        (-1, 503, "wechat_unavailable"),
        (40029, 401, "code_invalid"),
        (40013, 401, "code_invalid"),
        (45011, 429, "wechat_rate_limited"),
        (45009, 503, "wechat_unavailable"),
        (48001, 502, "wechat_failed"),
        (50002, 403, "login_blocked"),
        (99999, 502, "wechat_failed"),
    ] {
        let gateway = Gateway::start().await;
        let alice = gateway.login("alice").await;
        gateway.wechat.fault(CALL, 1, Fault::Errcode(errcode));
        let answer = gateway.post_as(&alice, "/auth/phone", &code_of(&gateway, "alice")).await;
        assert_eq!(problem(&answer), (status, code.into()), "{errcode}");
        assert_eq!(gateway.wechat.calls().count(CALL), 1, "{errcode}");
        assert_eq!(gateway.me(&alice).await["phone"], "");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_number_of_this_app_is_not_believed() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let info = |appid: &str, number: Value| {
        json!({"errcode": 0, "phone_info": {"phoneNumber": number, "purePhoneNumber": "1", "countryCode": "86",
            "watermark": {"timestamp": 1, "appid": appid}}})
        .to_string()
    };
    let own = app();
    for body in [
        "{}".to_owned(),
        r#"{"phone_info":null}"#.to_owned(),
        info("wxffffffffffffffff", json!("13812345678")),
        info(own.as_str(), json!(13_812_345_678_u64)),
        info(own.as_str(), json!("")),
    ] {
        gateway.wechat.fault(CALL, 1, Fault::Body(body.clone().into_bytes()));
        let answer = gateway.post_as(&alice, "/auth/phone", &code_of(&gateway, "alice")).await;
        assert_eq!(problem(&answer), (502, "wechat_failed".into()), "{body}");
    }
}

#[tokio::test]
async fn one_form_at_a_time_and_each_of_them_whole() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let button = gateway.phone_button("alice");
    for body in [
        json!({}),
        button.clone(),
        json!({"encryptedData": button["encryptedData"]}),
        json!({"iv": button["iv"]}),
        json!({"code": ""}),
        json!({"code": "c".repeat(513)}),
        json!({"code": 7}),
    ] {
        let answer = gateway.post_as(&alice, "/auth/phone", &body).await;
        assert_eq!(problem(&answer), (400, "invalid_request".into()), "{body}");
    }
    assert_eq!(gateway.wechat.calls().count(CALL), 0);
    assert_eq!(problem(&gateway.post("/auth/phone", &json!({"code": "x"})).await), (401, "token_missing".into()));
}

#[tokio::test]
async fn encrypted_data_that_holds_no_number_or_is_of_another_key_fails_alike() {
    let gateway = Gateway::start().await;
    let (alice, _) = (gateway.login("alice").await, gateway.login("bob").await);
    for body in [gateway.encrypted("alice", json!({"steps": 7})), encrypted_of(&gateway, "bob")] {
        let answer = gateway.post_as(&alice, "/auth/phone", &body).await;
        assert_eq!(problem(&answer), (400, "decrypt_failed".into()));
    }
}

#[tokio::test]
async fn a_login_code_is_exchanged_first() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.clock.advance(Duration::from_secs(1));
    let mut body = encrypted_of(&gateway, "alice");
    body["login_code"] = gateway.wechat.issue_code(None, "alice").into();
    assert_eq!(gateway.post_as(&alice, "/auth/phone", &body).await.status, 200);
    let key = gateway.wechat.user("alice", &app()).session_key.unwrap();
    assert_eq!(gateway.post_as(&alice, "/auth/check", &json!({})).await.json(), json!({"valid": true}), "{key:?}");
}

#[tokio::test]
async fn an_erased_member_leaves_no_number_behind() {
    let gateway = Gateway::with(ROUTES).await;
    let alice = gateway.login("alice").await;
    gateway.post_as(&alice, "/auth/phone", &code_of(&gateway, "alice")).await;
    let request = gateway.client().delete(gateway.url("/auth/me")).bearer_auth(alice.token());
    assert_eq!(request.send().await.unwrap().status(), 204);
    assert_eq!(gateway.login("alice").await.answer["member"]["phone"], "");
}
