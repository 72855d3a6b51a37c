//! What services and operators ask about somebody who is not there: his data, the keys of his encrypted channel, a new
//! session_key.

use serde_json::{Value, json};
use wxgate::wechat::simulator::Fault;

use crate::support::gateway::{APPID, Answer, Gateway, Member, OTHER_APP, OTHER_APPID, ROUTES};
use crate::support::people::app;

const TOKEN: &str = "planted-service-token-79";
const PLAIN: &str = "planted-service-token-80";
const KEYS: &str = "/wxa/business/getuserencryptkey";
const RESET: &str = "/wxa/resetusersessionkey";

/// Two services; the first may ask for keys.
async fn with_services(top: &str) -> Gateway {
    Gateway::with(&format!(
        "{top}{ROUTES}\n[[internal.service]]\nname = \"orders\"\ntoken = \"{TOKEN}\"\nwechat = [\"{KEYS}\"]\n\
         [[internal.service]]\nname = \"plain\"\ntoken = \"{PLAIN}\"\n"
    ))
    .await
}

async fn ask(gateway: &Gateway, path: &str, body: &Value) -> Answer {
    let request = gateway.client().post(gateway.internal_url(path)).bearer_auth(TOKEN).json(body);
    Answer::of(request.send().await.unwrap()).await
}

async fn reset(gateway: &Gateway, body: &Value) -> Answer {
    let token = std::fs::read_to_string(gateway.dir.path().join("keys/admin.token")).unwrap();
    let request = gateway.client().post(gateway.admin_url("/api/sessions/reset-key")).bearer_auth(token).json(body);
    Answer::of(request.send().await.unwrap()).await
}

fn of(member: &Member, mut data: Value) -> Value {
    data["openid"] = member.openid().into();
    data
}

/// Every line of the audit log: action and outcome.
fn audited(gateway: &Gateway) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(gateway.dir.path().join("audit.log")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|l| (l["action"].as_str().unwrap().to_owned(), l["outcome"].as_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn a_service_gets_decrypted_what_a_phone_sent_it() {
    let gateway = with_services("").await;
    let alice = gateway.login("alice").await;
    let data = gateway.encrypted("alice", json!({"stepInfoList": [{"timestamp": 1_445_866_601, "step": 100}]}));
    for appid in [None, Some(APPID)] {
        let mut body = of(&alice, data.clone());
        if let Some(appid) = appid {
            body["appid"] = appid.into();
        }
        let answer = ask(&gateway, "/open-data", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json()["stepInfoList"][0]["step"], 100);
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    // With the key before, too.
    gateway.login("alice").await;
    assert_eq!(ask(&gateway, "/open-data", &of(&alice, data)).await.status, 200);
    let key = gateway.wechat.user("alice", &app()).session_key.unwrap();
    assert!(!gateway.log.text().contains(key.text()));
}

#[tokio::test]
async fn a_service_is_refused_as_the_member_would_be() {
    let gateway = with_services("").await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let data = gateway.encrypted("alice", json!({"step": 1}));
    let mut elsewhere = of(&alice, data.clone());
    elsewhere["appid"] = OTHER_APPID.into();
    let mut short = of(&alice, data.clone());
    short["iv"] = "AAAA".into();
    let mut nobody = data.clone();
    nobody["openid"] = "oNobodyAtAll".into();
    for (body, status, code) in [
        (data.clone(), 400, "invalid_request"),
        (json!({"openid": "a b", "encryptedData": "", "iv": ""}), 400, "invalid_request"),
        (json!({"openid": alice.openid()}), 400, "invalid_request"),
        (json!([]), 400, "invalid_request"),
        (elsewhere, 400, "unknown_app"),
        (short, 400, "invalid_request"),
        (of(&bob, data.clone()), 400, "decrypt_failed"),
        (nobody, 401, "session_key_stale"),
    ] {
        let answer = ask(&gateway, "/open-data", &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}");
    }
    let large = json!({"openid": "x".repeat(300_000)});
    assert_eq!(ask(&gateway, "/open-data", &large).await.code(), "body_too_large");
    let stranger = gateway.client().post(gateway.internal_url("/open-data")).bearer_auth(alice.token());
    assert_eq!(stranger.json(&of(&alice, data)).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn what_services_ask_counts_for_the_member() {
    let limit = "[login]\ndecrypt_limit = { rate = \"1/h\", burst = 2 }\n";
    let gateway = with_services(limit).await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let data = gateway.encrypted("alice", json!({"step": 1}));
    assert_eq!(gateway.post_as(&alice, "/auth/open-data", &data).await.status, 200);
    assert_eq!(ask(&gateway, "/encrypt-keys", &json!({"openid": alice.openid()})).await.status, 200);
    let answer = ask(&gateway, "/open-data", &of(&alice, data)).await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"));
    let other = of(&bob, gateway.encrypted("bob", json!({"step": 1})));
    assert_eq!(ask(&gateway, "/open-data", &other).await.status, 200);
}

#[tokio::test]
async fn a_service_that_lists_the_call_gets_the_keys_of_the_encrypted_channel() {
    let gateway = with_services("").await;
    let alice = gateway.login("alice").await;
    let body = json!({"openid": alice.openid()});
    let answer = ask(&gateway, "/encrypt-keys", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let keys = answer.json()["key_info_list"].clone();
    assert_eq!(keys.as_array().unwrap().len(), 3);
    assert_eq!(keys[0]["iv"].as_str().unwrap().len(), 16);
    assert_eq!(keys[1]["expire_in"], 0);
    assert!(!gateway.log.text().contains(keys[0]["encrypt_key"].as_str().unwrap()));

    let plain = gateway.client().post(gateway.internal_url("/encrypt-keys")).bearer_auth(PLAIN).json(&body);
    let refused = Answer::of(plain.send().await.unwrap()).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"));

    gateway.wechat.fault(KEYS, 1, Fault::Errcode(40001));
    assert_eq!(ask(&gateway, "/encrypt-keys", &body).await.status, 200, "another token, once");
    gateway.wechat.fault(KEYS, 1, Fault::Errcode(87009));
    assert_eq!(ask(&gateway, "/encrypt-keys", &body).await.code(), "session_key_stale");
    let nobody = json!({"openid": "oNobodyAtAll"});
    assert_eq!(ask(&gateway, "/encrypt-keys", &nobody).await.code(), "session_key_stale");
    for bad in [r#"{"errcode":0}"#, r#"{"key_info_list":[7]}"#] {
        gateway.wechat.fault(KEYS, 1, Fault::Body(bad.into()));
        assert_eq!(ask(&gateway, "/encrypt-keys", &body).await.code(), "wechat_failed", "{bad}");
    }
}

#[tokio::test]
async fn an_operator_has_a_session_key_made_anew() {
    let gateway = Gateway::with(&format!("{ROUTES}{OTHER_APP}")).await;
    let code = gateway.wechat.issue_code(Some(&app()), "alice");
    let login = gateway.post("/auth/login", &json!({"appid": APPID, "code": code})).await;
    let alice = Member { answer: login.json() };
    let before = gateway.encrypted("alice", json!({"step": 1}));
    let old = gateway.wechat.user("alice", &app()).session_key.unwrap();

    let answer = reset(&gateway, &json!({"appid": APPID, "openid": alice.openid()})).await;
    assert_eq!((answer.status, &answer.json()["reset"]), (200, &json!(true)), "{}", answer.body);
    let new = gateway.wechat.user("alice", &app()).session_key.unwrap();
    assert!(new != old && !answer.body.contains(new.text()));
    // The gateway holds the new one, and the one before for what is under way.
    assert_eq!(gateway.post_as(&alice, "/auth/check", &json!({})).await.json()["valid"], true);
    for data in [before, gateway.encrypted("alice", json!({"step": 2}))] {
        assert_eq!(gateway.post_as(&alice, "/auth/open-data", &data).await.status, 200);
    }
    assert_eq!(reset(&gateway, &json!({"member": alice.id()})).await.status, 200);
    assert_eq!(gateway.wechat.calls().count(RESET), 2);

    gateway.wechat.fault(RESET, 1, Fault::Errcode(87009));
    for (body, status, code) in [
        (json!({"member": alice.id()}), 401, "session_key_stale"),
        (json!({"member": "nobody"}), 400, "invalid_request"),
        (json!({"member": alice.id(), "openid": alice.openid()}), 400, "invalid_request"),
        (json!({"openid": alice.openid()}), 400, "invalid_request"),
        (json!({"appid": OTHER_APPID, "openid": alice.openid()}), 401, "session_key_stale"),
    ] {
        let answer = reset(&gateway, &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}");
    }
    let log = std::fs::read_to_string(gateway.dir.path().join("audit.log")).unwrap();
    assert!(!log.contains(alice.openid()) && !log.contains(new.text()), "{log}");
    let ends: Vec<_> = audited(&gateway).into_iter().map(|(_, outcome)| outcome).filter(|o| o != "begun").collect();
    assert_eq!(ends, ["done", "done", "refused: session_key_stale", "refused: session_key_stale"]);
}

#[tokio::test]
async fn a_reset_is_the_operators_alone_and_is_sent_once() {
    let gateway = with_services("").await;
    let alice = gateway.login("alice").await;
    let body = json!({"openid": alice.openid()});
    for token in [TOKEN, alice.token()] {
        let url = gateway.admin_url("/api/sessions/reset-key");
        let answer = gateway.client().post(url).bearer_auth(token).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 401);
    }
    gateway.wechat.fault(RESET, 1, Fault::Errcode(-1));
    assert_eq!(reset(&gateway, &body).await.code(), "wechat_unavailable");
    assert_eq!(gateway.wechat.calls().count(RESET), 1);
}

#[tokio::test]
async fn a_reload_by_an_operator_is_written_down_and_without_the_log_it_is_refused() {
    let gateway = Gateway::start().await;
    let reload = async || {
        let token = std::fs::read_to_string(gateway.dir.path().join("keys/admin.token")).unwrap();
        let request = gateway.client().post(gateway.admin_url("/api/reload")).bearer_auth(token);
        Answer::of(request.send().await.unwrap()).await
    };
    assert_eq!(reload().await.status, 200);
    let path = gateway.dir.path().join("gateway.toml");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, "nonsense").unwrap();
    assert_eq!(reload().await.status, 422);
    std::fs::write(&path, good).unwrap();
    let outcomes: Vec<_> = audited(&gateway).into_iter().map(|(_, outcome)| outcome).collect();
    let wanted = ["begun", "done: generation 2", "begun", "refused: the new configuration has faults"];
    assert_eq!(outcomes, wanted);

    std::fs::remove_file(gateway.dir.path().join("audit.log")).unwrap();
    std::fs::create_dir(gateway.dir.path().join("audit.log")).unwrap();
    let refused = reload().await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "store_unavailable"));
    assert_eq!(gateway.inner().current().generation, 2);
}
