//! WeChat's message push: verified, decrypted, delivered once, as JSON, to the service.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wxgate::ids::AppId;
use wxgate::wechat::message;
use wxgate::wechat::push::{AesKey, open, seal, signature};

use crate::support::gateway::{APPID, Answer, Gateway, ROUTES, START};
use crate::support::upstream::{After, Upstream};

pub(crate) const TOKEN: &str = "PushToken1";
/// With spare bits that are not zero, as three of four real keys have.
const AES_KEY: &str = "kWxPEV2UEDyxWpmPdKC3F4dgPDmOvfKX1HGnEUDS1aR";

/// A service that answers one push after the other so; beyond them it hangs up.
async fn service(answers: &[(u16, &str)]) -> Upstream {
    let answer = |(status, body): &(u16, &str)| {
        let head = format!("HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
        (format!("{head}\r\nConnection: close\r\n\r\n{body}"), After::Close)
    };
    Upstream::scripted(answers.iter().map(answer)).await
}

/// In plain mode, or with an `aes_key` in safe mode.
async fn gateway(aes_key: Option<&str>, service: &Upstream) -> Gateway {
    let aes_key = aes_key.map_or_else(String::new, |key| format!("aes_key = \"{key}\", "));
    let app = format!(
        "app.push = {{ token = \"{TOKEN}\", {aes_key}upstream = \"push\", path = \"/wechat/push\" }}\n{ROUTES}"
    );
    let upstream = format!("[[upstream]]\nname = \"push\"\nservers = [\"http://{}\"]\n", service.address());
    Gateway::with(&format!("{app}{upstream}")).await
}

/// A query signed as WeChat signs it.
pub(crate) fn signed(timestamp: i64, nonce: &str, encrypted: Option<&str>) -> String {
    let timestamp = timestamp.to_string();
    let plain = signature(&[TOKEN, &timestamp, nonce]);
    let safe = encrypted.map_or_else(String::new, |encrypted| {
        format!("&encrypt_type=aes&msg_signature={}", signature(&[TOKEN, &timestamp, nonce, encrypted]))
    });
    format!("?signature={plain}&timestamp={timestamp}&nonce={nonce}{safe}")
}

async fn push(gateway: &Gateway, query: &str, body: impl Into<String>) -> Answer {
    let url = gateway.url(&format!("/auth/push/{APPID}{query}"));
    Answer::of(gateway.client().post(url).body(body.into()).send().await.unwrap()).await
}

/// A push of the simulator, which plays WeChat's side.
async fn simulate(gateway: &Gateway, wish: Value) -> Value {
    let mut whole =
        json!({ "url": gateway.url(&format!("/auth/push/{APPID}")), "token": TOKEN, "user": "alice", "appid": APPID });
    whole.as_object_mut().unwrap().extend(wish.as_object().unwrap().clone());
    let url = format!("{}/_sim/push", gateway.wechat.api_base());
    Answer::of(gateway.client().post(url).json(&whole).send().await.unwrap()).await.json()
}

fn openid(gateway: &Gateway, user: &str) -> String {
    gateway.wechat.user(user, &AppId::parse(APPID).unwrap()).openid
}

fn text(id: u64) -> String {
    json!({ "FromUserName": "oPerson", "CreateTime": START, "MsgType": "text", "Content": "hi", "MsgId": id })
        .to_string()
}

#[tokio::test]
async fn the_consoles_check_gets_its_echostr_back() {
    for aes_key in [None, Some(AES_KEY)] {
        let service = service(&[]).await;
        let gateway = gateway(aes_key, &service).await;
        let get = async |query: &str| gateway.get(&format!("/auth/push/{APPID}{query}"), None).await;
        let answer = get(&format!("{}&echostr=43%2B75", signed(START, "1", None))).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "43+75"));
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        let wrong = signed(START, "1", None).replace("nonce=1", "nonce=2");
        assert_eq!(get(&format!("{wrong}&echostr=1")).await.code(), "signature_mismatch");
        assert_eq!(get(&signed(START, "1", None)).await.code(), "invalid_request");
        assert_eq!(get("").await.code(), "invalid_request");
    }
}

#[tokio::test]
async fn a_message_in_any_mode_and_format_reaches_the_service_as_json() {
    for (aes_key, xml) in [(None, false), (None, true), (Some(AES_KEY), false), (Some(AES_KEY), true)] {
        let service = service(&[(200, "success")]).await;
        let gateway = gateway(aes_key, &service).await;
        let mut wish = json!({ "xml": xml, "message": { "Event": "demo", "debug_str": "a <b> & ]]> c" } });
        if let Some(key) = aes_key {
            wish["aes_key"] = key.into();
        }
        assert_eq!(simulate(&gateway, wish).await, json!({ "status": 200, "body": "success" }));
        let requests = service.requests();
        let [request] = requests.as_slice() else { panic!("one request") };
        assert_eq!(request.request_line, "POST /wechat/push HTTP/1.1");
        assert_eq!(request.all("content-type"), ["application/json"]);
        assert_eq!(request.all("x-wx-source"), ["wx_push"]);
        assert_eq!(request.all("x-wx-appid"), [APPID]);
        assert_eq!(request.all("x-wx-openid"), [openid(&gateway, "alice")]);
        let message: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!((&message["Event"], &message["debug_str"]), (&json!("demo"), &json!("a <b> & ]]> c")));
    }
}

#[tokio::test]
async fn what_wechat_did_not_sign_lately_is_refused_and_reaches_nobody() {
    let service = service(&[]).await;
    let gateway = gateway(None, &service).await;
    let good = signed(START, "1", None);
    for (query, body, code) in [
        (String::new(), text(1), "invalid_request"),
        (good.replace("signature=", "signature=0"), text(1), "signature_mismatch"),
        (good.replace("nonce=1", "nonce=2"), text(1), "signature_mismatch"),
        (format!("{good}&nonce=1"), text(1), "invalid_request"),
        (signed(START - 301, "1", None), text(1), "invalid_request"),
        (signed(START + 301, "1", None), text(1), "invalid_request"),
        (good.clone(), "x".to_owned(), "invalid_request"),
        (good.clone(), "<!DOCTYPE xml [<!ENTITY a \"b\">]><xml><A>&a;</A></xml>".to_owned(), "invalid_request"),
    ] {
        let answer = push(&gateway, &query, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{query}");
    }
    assert!(service.requests().is_empty());
    let elsewhere = gateway.url(&format!("/auth/push/wxelsewhere{good}"));
    let answer = Answer::of(gateway.client().post(elsewhere).body(text(1)).send().await.unwrap()).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "route_not_found"));
}

#[tokio::test]
async fn an_app_with_a_key_takes_safe_mode_only() {
    let service = service(&[]).await;
    let gateway = gateway(Some(AES_KEY), &service).await;
    let plain = push(&gateway, &signed(START, "1", None), text(1)).await;
    assert_eq!((plain.status, plain.code().as_str()), (400, "invalid_request"));

    let key = AesKey::parse(AES_KEY).unwrap();
    let envelope = |encrypted: &str| json!({ "ToUserName": "gh", "Encrypt": encrypted }).to_string();
    let sealed = seal(&key, &[7; 16], text(1).as_bytes(), APPID).unwrap();
    // Only the query's own signature: it says nothing about the body.
    assert_eq!(push(&gateway, &signed(START, "1", None), envelope(&sealed)).await.code(), "invalid_request");
    let mut bytes = STANDARD.decode(&sealed).unwrap();
    bytes[40] ^= 1;
    let tampered = STANDARD.encode(&bytes);
    let query = signed(START, "1", Some(&sealed));
    assert_eq!(push(&gateway, &query, envelope(&tampered)).await.code(), "signature_mismatch");
    let other_app = seal(&key, &[7; 16], text(1).as_bytes(), "wxelsewhere").unwrap();
    let query = signed(START, "1", Some(&other_app));
    assert_eq!(push(&gateway, &query, envelope(&other_app)).await.code(), "decrypt_failed");
    assert!(service.requests().is_empty());
    assert!(!gateway.log.text().contains(AES_KEY) && !gateway.log.text().contains(TOKEN));
}

#[tokio::test]
async fn a_repeated_message_is_delivered_once_and_a_nonce_serves_one_message() {
    let service = service(&[(200, ""), (200, "")]).await;
    let gateway = gateway(None, &service).await;
    for nonce in ["1", "1", "2", "3"] {
        let answer = push(&gateway, &signed(START, nonce, None), text(77)).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "success"), "{nonce}");
    }
    assert_eq!(service.requests().len(), 1);
    let replayed = push(&gateway, &signed(START, "1", None), text(78)).await;
    assert_eq!((replayed.status, replayed.code().as_str()), (400, "invalid_request"));
    assert_eq!(service.requests().len(), 1);
    assert_eq!(push(&gateway, &signed(START, "4", None), text(78)).await.status, 200);
    assert_eq!(service.requests().len(), 2);
}

#[tokio::test]
async fn of_many_at_once_one_is_delivered() {
    let service = service(&[(200, "")]).await;
    let gateway = gateway(None, &service).await;
    let queries: Vec<String> = (0..20).map(|n| signed(START, &n.to_string(), None)).collect();
    let answers = futures_util::future::join_all(queries.iter().map(|query| push(&gateway, query, text(5)))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(service.requests().len(), 1);
}

#[tokio::test]
async fn a_message_that_the_service_did_not_take_is_delivered_when_wechat_repeats_it() {
    let service = service(&[(500, ""), (200, "")]).await;
    let gateway = gateway(None, &service).await;
    let query = signed(START, "1", None);
    let answer = push(&gateway, &query, text(9)).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_failed"));
    assert_eq!(push(&gateway, &query, text(9)).await.body, "success");
    assert_eq!(service.requests().len(), 2);
}

#[tokio::test]
async fn a_reply_of_the_service_goes_back_and_in_safe_mode_encrypted() {
    let reply = (200, r#"{"reply":1}"#);
    let service = service(&[reply, reply, reply]).await;
    let plain = gateway(None, &service).await;
    assert_eq!(push(&plain, &signed(START, "1", None), text(1)).await.body, r#"{"reply":1}"#);

    let safe = gateway(Some(AES_KEY), &service).await;
    let key = AesKey::parse(AES_KEY).unwrap();
    for xml in [false, true] {
        let encrypted = seal(&key, &[7; 16], text(u64::from(xml)).as_bytes(), APPID).unwrap();
        let body = match xml {
            false => json!({ "Encrypt": encrypted }).to_string(),
            true => format!("<xml><Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>"),
        };
        let nonce = if xml { "2" } else { "1" };
        let answer = push(&safe, &signed(START, nonce, Some(&encrypted)), body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let (reply, _) = message::parse(answer.body.as_bytes()).unwrap();
        let reply = |name: &str| match &reply[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let parts = [TOKEN, &reply("TimeStamp"), &reply("Nonce"), &reply("Encrypt")];
        assert_eq!(reply("MsgSignature"), signature(&parts));
        assert_eq!(open(&key, &reply("Encrypt"), APPID).unwrap(), br#"{"reply":1}"#);
    }
}

#[tokio::test]
async fn after_a_change_of_key_messages_under_the_old_one_are_read_and_answered_with_it() {
    const NEW_KEY: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    let reply = (200, r#"{"reply":1}"#);
    let service = service(&[reply, reply]).await;
    let gateway = gateway(Some(&format!("{NEW_KEY}\", previous_aes_key = \"{AES_KEY}")), &service).await;
    for (id, text_key) in [(1, AES_KEY), (2, NEW_KEY)] {
        let key = AesKey::parse(text_key).unwrap();
        let sealed = seal(&key, &[7; 16], text(id).as_bytes(), APPID).unwrap();
        let query = signed(START, &id.to_string(), Some(&sealed));
        let answer = push(&gateway, &query, json!({ "Encrypt": sealed }).to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(open(&key, answer.json()["Encrypt"].as_str().unwrap(), APPID).unwrap(), reply.1.as_bytes());
    }
    let third = seal(&AesKey::parse(&"c".repeat(43)).unwrap(), &[7; 16], text(3).as_bytes(), APPID).unwrap();
    let query = signed(START, "3", Some(&third));
    let refused = push(&gateway, &query, json!({ "Encrypt": third }).to_string()).await;
    assert_eq!(refused.code(), "decrypt_failed");
    assert_eq!(service.requests().len(), 2);
}

#[tokio::test]
async fn who_withdraws_his_authorisation_is_logged_out_and_forgotten() {
    let service = service(&[(200, "")]).await;
    let gateway = gateway(Some(AES_KEY), &service).await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let name = gateway.client().put(gateway.url("/auth/me")).bearer_auth(alice.token());
    name.json(&json!({ "nickname": "Alice" })).send().await.unwrap();
    let message = json!({ "Event": "user_authorization_revoke", "OpenID": alice.openid(), "RevokeInfo": "1" });
    let said = simulate(&gateway, json!({ "aes_key": AES_KEY, "user": "wechat", "message": message })).await;
    assert_eq!(said, json!({ "status": 200, "body": "success" }));

    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.code(), "token_revoked");
    let refresh = gateway.post("/auth/refresh", &json!({ "refresh_token": alice.refresh() })).await;
    assert_eq!(refresh.status, 401);
    assert_eq!(gateway.get("/auth/me", Some(bob.token())).await.status, 200);
    let requests = service.requests();
    assert_eq!(requests[0].all("x-wx-openid"), [alice.openid()], "the service has something to forget, too");

    let again = gateway.login("alice").await;
    assert_eq!((again.id(), &again.answer["member"]["nickname"]), (alice.id(), &json!("")));
}
