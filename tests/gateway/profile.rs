//! User data: what the client hands over signed and encrypted is verified, decrypted and stored, or refused in one way.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};
use wxgate::wechat::simulator::Fault;

use crate::support::gateway::{APPID, Answer, Gateway, ROUTES, START};
use crate::support::people::app;

const LOGIN: &str = "/sns/jscode2session";

fn problem(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

fn with(mut value: Value, name: &str, other: impl Into<Value>) -> Value {
    value[name] = other.into();
    value
}

fn without(mut value: Value, names: &[&str]) -> Value {
    for name in names {
        value.as_object_mut().unwrap().remove(*name);
    }
    value
}

/// The same text in another's bytes: the last block is garbled, and with it the padding.
fn garbled(data: &Value, from_end: usize) -> String {
    let mut bytes = STANDARD.decode(data["encryptedData"].as_str().unwrap()).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    STANDARD.encode(bytes)
}

#[tokio::test]
async fn a_profile_is_verified_decrypted_and_stored() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let answer = gateway.post_as(&alice, "/auth/profile", &gateway.user_info("alice")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let member = answer.json();
    assert_eq!((&member["nickname"], &member["member_id"]), (&json!("alice"), &json!(alice.id())));
    assert!(member["avatar_url"].as_str().unwrap().starts_with("https://thirdwx.qlogo.cn/"));
    assert_eq!(gateway.me(&alice).await, member);
    assert!(!answer.body.contains("zh_CN"), "what the gateway has no use for is not kept: {}", answer.body);
}

#[tokio::test]
async fn a_placeholder_never_takes_the_place_of_a_name_that_the_member_set() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("微信用户").await;
    let set = json!({"nickname": "Alice", "avatar_url": "https://img.example.com/a.png"});
    let request = gateway.client().put(gateway.url("/auth/me")).bearer_auth(alice.token()).json(&set);
    assert_eq!(request.send().await.unwrap().status(), 200);
    let answer = gateway.post_as(&alice, "/auth/profile", &gateway.user_info("微信用户")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["nickname"], "Alice");
    assert_eq!(answer.json()["avatar_url"], "https://img.example.com/a.png");
}

#[tokio::test]
async fn a_signature_that_does_not_fit_is_a_mismatch() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let info = gateway.user_info("alice");
    let raw = info["rawData"].as_str().unwrap();
    for bad in [
        with(info.clone(), "rawData", raw.replace("alice", "mallory")),
        with(info.clone(), "rawData", format!("{raw} ")),
        with(info.clone(), "signature", "0".repeat(40)),
        with(info.clone(), "signature", ""),
    ] {
        let answer = gateway.post_as(&alice, "/auth/profile", &bad).await;
        assert_eq!(problem(&answer), (400, "signature_mismatch".into()));
    }
    assert_eq!(gateway.me(&alice).await["nickname"], "");
}

#[tokio::test]
async fn half_a_pair_and_bad_shapes_are_refused_before_any_key_is_used() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let info = gateway.user_info("alice");
    let short = STANDARD.encode([0; 15]);
    let mut bad: Vec<Value> =
        ["rawData", "signature", "encryptedData", "iv"].map(|name| without(info.clone(), &[name])).into();
    bad.push(without(info.clone(), &["rawData", "signature"]));
    bad.push(without(info.clone(), &["encryptedData", "iv"]));
    for text in ["", "%", "a b", "====", "AAAA", short.as_str()] {
        bad.push(with(info.clone(), "encryptedData", text));
        bad.push(with(info.clone(), "iv", text));
    }
    bad.push(with(info.clone(), "iv", 7));
    bad.push(json!({}));
    // With a code that would be exchanged first: it is not.
    let code = gateway.wechat.issue_code(None, "alice");
    for body in bad {
        let body = with(body, "login_code", code.as_str());
        let answer = gateway.post_as(&alice, "/auth/profile", &body).await;
        assert_eq!(problem(&answer), (400, "invalid_request".into()), "{body}");
    }
    assert_eq!(gateway.wechat.calls().count(LOGIN), 1, "the login's own");
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_key_is_one_and_the_same_answer() {
    let gateway = Gateway::start().await;
    let (alice, _bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let bob = gateway.wechat.user("bob", &app());
    let good = gateway.encrypted("alice", json!({"steps": 7}));
    let watermark = |appid: &str, at: i64| json!({"appid": appid, "timestamp": at});
    let key = gateway.wechat.user("alice", &app()).session_key.unwrap();
    let sealed = |text: &str| {
        let iv = [7; 16];
        json!({"encryptedData": wxgate::wechat::open_data::encrypt(&key, text, &iv), "iv": STANDARD.encode(iv)})
    };
    let data = |value: Value| sealed(&value.to_string());
    let bad = [
        with(good.clone(), "encryptedData", garbled(&good, 17)),
        with(good.clone(), "encryptedData", garbled(&good, 1)),
        with(good.clone(), "iv", STANDARD.encode([0; 16])),
        gateway.encrypted("bob", json!({"steps": 7})),
        gateway.encrypted("alice", json!({"steps": 7, "openId": bob.openid})),
        sealed("not json"),
        sealed("[]"),
        data(json!({"steps": 7})),
        data(json!({"steps": 7, "watermark": watermark("wxffffffffffffffff", START)})),
        data(json!({"steps": 7, "watermark": watermark(APPID, START - 8 * 86_400)})),
        data(json!({"steps": 7, "watermark": watermark(APPID, START + 3600)})),
    ];
    let mut answers = std::collections::HashSet::new();
    for body in bad {
        let answer = gateway.post_as(&alice, "/auth/open-data", &body).await;
        assert_eq!(problem(&answer), (400, "decrypt_failed".into()), "{body}");
        let mut document = answer.json();
        document["instance"] = Value::Null;
        let mut headers: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
        headers.sort();
        answers.insert(format!("{document} {headers:?} {}", answer.headers["content-length"].to_str().unwrap()));
    }
    assert_eq!(answers.len(), 1, "{answers:#?}");
    let answer = gateway.post_as(&alice, "/auth/open-data", &data(json!({"watermark": watermark(APPID, START)}))).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn open_data_of_any_kind_is_decrypted_for_its_owner() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let steps = json!({"stepInfoList": [{"timestamp": 1_445_866_601, "step": 100}]});
    let body = gateway.encrypted("alice", steps.clone());
    let answer = gateway.post_as(&alice, "/auth/open-data", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["stepInfoList"], steps["stepInfoList"]);
    assert_eq!(answer.json()["watermark"]["appid"], APPID);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let no_token = gateway.post("/auth/open-data", &body).await;
    assert_eq!(problem(&no_token), (401, "token_missing".into()));
}

#[tokio::test]
async fn percent_encoded_data_is_decoded_once() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let data = gateway.encrypted("alice", json!({"steps": 7}));
    let encode = |name: &str| {
        let text = data[name].as_str().unwrap();
        text.replace('%', "%25").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
    };
    let body = json!({"encryptedData": encode("encryptedData"), "iv": encode("iv")});
    assert_eq!(gateway.post_as(&alice, "/auth/open-data", &body).await.status, 200);
}

#[tokio::test]
async fn data_made_before_the_newest_login_still_opens_and_older_data_does_not() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let first = gateway.encrypted("alice", json!({"n": 1}));
    gateway.clock.advance(Duration::from_secs(1));
    gateway.login("alice").await;
    let second = gateway.encrypted("alice", json!({"n": 2}));
    assert_eq!(gateway.post_as(&alice, "/auth/open-data", &first).await.json()["n"], 1);
    assert_eq!(gateway.post_as(&alice, "/auth/open-data", &second).await.json()["n"], 2);
    gateway.clock.advance(Duration::from_secs(1));
    gateway.login("alice").await;
    assert_eq!(gateway.post_as(&alice, "/auth/open-data", &second).await.json()["n"], 2);
    let answer = gateway.post_as(&alice, "/auth/open-data", &first).await;
    assert_eq!(problem(&answer), (400, "decrypt_failed".into()));
}

#[tokio::test]
async fn a_key_that_the_gateway_never_saw_is_a_failure_until_a_login_code_brings_it() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.wechat.rotate_session_key("alice", &app());
    let answer = gateway.post_as(&alice, "/auth/profile", &gateway.user_info("alice")).await;
    assert_eq!(problem(&answer), (400, "decrypt_failed".into()));

    let code = gateway.wechat.issue_code(None, "alice");
    let body = with(gateway.user_info("alice"), "login_code", code.as_str());
    gateway.clock.advance(Duration::from_secs(1));
    // In the simulator the exchange itself makes a new key, so this data is of the one before, which was never seen.
    let answer = gateway.post_as(&alice, "/auth/profile", &body).await;
    assert_eq!(problem(&answer), (400, "decrypt_failed".into()));
    let answer = gateway.post_as(&alice, "/auth/profile", &gateway.user_info("alice")).await;
    assert_eq!(answer.status, 200, "the exchanged key was kept: {}", answer.body);
}

#[tokio::test]
async fn a_login_code_opens_no_session_and_must_be_of_the_same_person() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let info = gateway.user_info("alice");
    let code = gateway.wechat.issue_code(None, "bob");
    let answer = gateway.post_as(&alice, "/auth/profile", &with(info.clone(), "login_code", code)).await;
    assert_eq!(problem(&answer), (401, "code_invalid".into()));
    let answer = gateway.post_as(&alice, "/auth/profile", &with(info.clone(), "login_code", "made-up")).await;
    assert_eq!(problem(&answer), (401, "code_invalid".into()));
    let answer = gateway.post_as(&alice, "/auth/profile", &with(info.clone(), "login_code", "")).await;
    assert_eq!(problem(&answer), (400, "invalid_request".into()));

    let code = gateway.wechat.issue_code(None, "alice");
    let body = with(info, "login_code", code.as_str());
    gateway.clock.advance(Duration::from_secs(1));
    let answer = gateway.post_as(&alice, "/auth/profile", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.json().get("access_token").is_none());
    let asked = gateway.wechat.calls().count("/sns/jscode2session");
    let again = gateway.post_as(&alice, "/auth/profile", &body).await;
    assert_eq!(again.status, 200, "a client that lost the answer asks again: {}", again.body);
    assert_eq!(gateway.wechat.calls().count("/sns/jscode2session"), asked, "WeChat is not");
    gateway.clock.advance(Duration::from_secs(60));
    let late = gateway.post_as(&alice, "/auth/profile", &body).await;
    assert_eq!(problem(&late), (401, "code_used".into()));
    let login = gateway.post("/auth/login", &json!({ "code": code })).await;
    assert_eq!(problem(&login), (401, "code_used".into()));
}

#[tokio::test]
async fn the_code_of_the_login_itself_is_not_exchanged_again() {
    let gateway = Gateway::start().await;
    let code = gateway.wechat.issue_code(None, "alice");
    let answer = gateway.post("/auth/login", &json!({ "code": code })).await;
    let alice = crate::support::gateway::Member { answer: answer.json() };
    let body = with(gateway.user_info("alice"), "login_code", code.as_str());
    assert_eq!(gateway.post_as(&alice, "/auth/profile", &body).await.status, 200);
    assert_eq!(gateway.wechat.calls().count(LOGIN), 1);
    gateway.clock.advance(Duration::from_secs(60));
    assert_eq!(problem(&gateway.post_as(&alice, "/auth/profile", &body).await), (401, "code_used".into()));
}

#[tokio::test]
async fn one_login_code_in_many_requests_is_one_exchange() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.clock.advance(Duration::from_secs(1));
    let body = with(gateway.user_info("alice"), "login_code", gateway.wechat.issue_code(None, "alice"));
    gateway.wechat.fault(LOGIN, 1, Fault::Delay(Duration::from_millis(300)));
    let all = futures_util::future::join_all((0..20).map(|_| gateway.post_as(&alice, "/auth/profile", &body))).await;
    assert!(all.iter().all(|answer| answer.status == 200), "{}", all[0].body);
    assert_eq!(gateway.wechat.calls().count(LOGIN), 2);
}

#[tokio::test]
async fn without_any_key_the_session_key_is_stale() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let body = gateway.encrypted("alice", json!({}));
    let openid = wxgate::ids::OpenId::parse(alice.openid()).unwrap();
    gateway.inner().kept().sessions.erase_keys(&app(), &openid).await.unwrap();
    let answer = gateway.post_as(&alice, "/auth/open-data", &body).await;
    assert_eq!(problem(&answer), (401, "session_key_stale".into()));
}

#[tokio::test]
async fn a_sealed_key_in_another_persons_row_does_not_open_there() {
    let gateway = Gateway::start().await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let [alice_id, bob_id] = [&alice, &bob].map(|m| wxgate::ids::OpenId::parse(m.openid()).unwrap());
    let sessions = &gateway.inner().kept().sessions;
    let stolen = sessions.session_keys(&app(), &bob_id).await.unwrap().remove(0);
    sessions.erase_keys(&app(), &alice_id).await.unwrap();
    sessions.keep_key(&app(), &alice_id, stolen).await.unwrap();
    let body = gateway.encrypted("bob", json!({"steps": 7}));
    let answer = gateway.post_as(&alice, "/auth/open-data", &body).await;
    assert_eq!(problem(&answer), (401, "session_key_stale".into()));
}

#[tokio::test]
async fn a_login_takes_the_profile_along() {
    let gateway = Gateway::start().await;
    gateway.login("alice").await;
    for left_out in [&[][..], &["rawData", "signature"], &["encryptedData", "iv"]] {
        gateway.clock.advance(Duration::from_secs(1));
        let code = gateway.wechat.issue_code(None, "alice");
        let body = with(without(gateway.user_info("alice"), left_out), "code", code);
        let answer = gateway.post("/auth/login", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json()["member"]["nickname"], "alice");
    }
}

#[tokio::test]
async fn a_first_login_takes_the_profile_along_too() {
    let gateway = Gateway::start().await;
    // As on the phone: wx.login, then the profile, then both are sent.
    let code = gateway.wechat.issue_code(Some(&app()), "alice-nounion");
    let answer = gateway.post("/auth/login", &with(gateway.user_info("alice-nounion"), "code", code)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["member"]["nickname"], "alice-nounion");
    assert_eq!(answer.json()["is_new"], true);
}

#[tokio::test]
async fn half_a_pair_at_login_is_refused_before_the_exchange() {
    let gateway = Gateway::start().await;
    gateway.login("alice").await;
    let info = gateway.user_info("alice");
    let code = gateway.wechat.issue_code(None, "alice");
    for name in ["rawData", "signature", "encryptedData", "iv"] {
        let body = with(without(info.clone(), &[name]), "code", code.as_str());
        assert_eq!(problem(&gateway.post("/auth/login", &body).await), (400, "invalid_request".into()), "{name}");
    }
    let body = with(with(info, "iv", "AAAA"), "code", code.as_str());
    assert_eq!(problem(&gateway.post("/auth/login", &body).await), (400, "invalid_request".into()));
    assert_eq!(gateway.wechat.calls().count(LOGIN), 1, "the first login's");
    assert_eq!(gateway.post("/auth/login", &json!({ "code": code })).await.status, 200, "the code is still good");
}

#[tokio::test]
async fn when_the_data_of_a_login_is_bad_only_the_key_is_kept() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.clock.advance(Duration::from_secs(1));
    let info = gateway.user_info("alice");
    let bad = [
        (with(info.clone(), "signature", "0".repeat(40)), "signature_mismatch"),
        (with(info.clone(), "encryptedData", garbled(&info, 17)), "decrypt_failed"),
    ];
    for (body, code) in bad {
        let sessions = gateway.me(&alice).await["last_login_at"].clone();
        let body = with(body, "code", gateway.wechat.issue_code(None, "alice"));
        assert_eq!(problem(&gateway.post("/auth/login", &body).await), (400, code.into()));
        assert_eq!(gateway.me(&alice).await["last_login_at"], sessions, "nobody was logged in");
        let fresh = gateway.encrypted("alice", json!({"n": 1}));
        assert_eq!(gateway.post_as(&alice, "/auth/open-data", &fresh).await.status, 200, "the new key is there");
        gateway.clock.advance(Duration::from_secs(1));
    }
    let code = gateway.wechat.issue_code(Some(&app()), "carol");
    let body = with(with(gateway.user_info("carol"), "signature", "x"), "code", code);
    assert_eq!(problem(&gateway.post("/auth/login", &body).await), (400, "signature_mismatch".into()));
    assert_eq!(gateway.login("carol").await.answer["is_new"], true, "no member was made");
}

#[tokio::test]
async fn an_exchange_that_ends_late_never_replaces_a_newer_key() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.clock.advance(Duration::from_secs(1));
    let slow = gateway.wechat.issue_code(None, "alice");
    gateway.wechat.fault(LOGIN, 1, Fault::Delay(Duration::from_millis(500)));
    let body = json!({ "code": slow });
    let late = gateway.post("/auth/login", &body);
    let newer = async {
        while gateway.wechat.calls().count(LOGIN) < 2 {
            tokio::task::yield_now().await;
        }
        gateway.clock.advance(Duration::from_secs(1));
        gateway.login("alice").await;
        gateway.encrypted("alice", json!({"n": 1}))
    };
    let (late, data) = tokio::join!(late, newer);
    assert_eq!(late.status, 200);
    assert_eq!(gateway.post("/auth/check", &json!({})).await.status, 401);
    let answer = gateway.post_as(&alice, "/auth/check", &json!({})).await;
    assert_eq!(answer.json(), json!({"valid": true}), "the newest key is still the first choice");
    assert_eq!(gateway.post_as(&alice, "/auth/open-data", &data).await.status, 200);
}

#[tokio::test]
async fn data_is_decrypted_while_a_login_is_under_way() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let data = gateway.encrypted("alice", json!({"n": 1}));
    gateway.clock.advance(Duration::from_secs(1));
    gateway.wechat.fault(LOGIN, 1, Fault::Delay(Duration::from_millis(300)));
    let body = json!({"code": gateway.wechat.issue_code(None, "alice")});
    let decrypted = async {
        while gateway.wechat.calls().count(LOGIN) < 2 {
            tokio::task::yield_now().await;
        }
        // WeChat has exchanged already, the gateway does not know it yet: the key is still the one from before.
        gateway.post_as(&alice, "/auth/open-data", &data).await
    };
    let (login, during) = tokio::join!(gateway.post("/auth/login", &body), decrypted);
    assert_eq!((login.status, during.status), (200, 200), "{}", during.body);
    assert_eq!(gateway.post_as(&alice, "/auth/open-data", &data).await.status, 200, "and from before that, now");
}

#[tokio::test]
async fn two_logins_of_one_person_at_once_leave_both_tokens_good_and_the_newest_key() {
    let gateway = Gateway::start().await;
    let both = tokio::join!(gateway.login("alice"), gateway.login("alice"));
    for member in [&both.0, &both.1] {
        assert_eq!(gateway.get("/api/x", Some(member.token())).await.status, 200);
        let data = gateway.encrypted("alice", json!({"n": 1}));
        assert_eq!(gateway.post_as(member, "/auth/open-data", &data).await.status, 200);
    }
}

#[tokio::test]
async fn decryption_is_limited_for_each_member() {
    let limit = r#"[login]
decrypt_limit = { by = "member", rate = "1/s", burst = 2 }
"#;
    let gateway = Gateway::with(&format!("{limit}{ROUTES}")).await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    for path in ["/auth/open-data", "/auth/profile"] {
        assert_eq!(gateway.post_as(&alice, path, &json!({})).await.status, 400);
    }
    let refused = gateway.post_as(&alice, "/auth/open-data", &json!({})).await;
    assert_eq!(problem(&refused), (429, "rate_limited".into()));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(problem(&gateway.post_as(&alice, "/auth/phone", &json!({})).await).0, 429);
    assert_eq!(gateway.post_as(&bob, "/auth/open-data", &json!({})).await.status, 400);
    gateway.clock.advance(Duration::from_secs(1));
    assert_eq!(gateway.post_as(&alice, "/auth/open-data", &json!({})).await.status, 400);
}

#[tokio::test]
async fn nothing_of_the_data_and_no_key_reaches_the_log() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice-in-the-log").await;
    let info = gateway.user_info("alice-in-the-log");
    let key = gateway.wechat.user("alice-in-the-log", &app()).session_key.unwrap();
    gateway.post_as(&alice, "/auth/profile", &info).await;
    gateway.post_as(&alice, "/auth/profile", &with(info.clone(), "encryptedData", garbled(&info, 17))).await;
    let log = gateway.log.text();
    for secret in [key.text(), "alice-in-the-log", alice.openid(), info["iv"].as_str().unwrap()] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_of_any_length_give_one_of_two_answers(
        cases in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..100), proptest::collection::vec(any::<u8>(), 12..20)),
            20,
        ),
    ) {
        static SHARED: std::sync::OnceLock<(tokio::runtime::Runtime, Gateway, crate::support::gateway::Member)> =
            std::sync::OnceLock::new();
        let (runtime, gateway, alice) = SHARED.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let (gateway, alice) = runtime.block_on(async {
                let gateway = Gateway::start().await;
                let alice = gateway.login("alice").await;
                (gateway, alice)
            });
            (runtime, gateway, alice)
        });
        gateway.clock.advance(Duration::from_secs(10));
        for (data, iv) in cases {
            let malformed = iv.len() != 16 || data.is_empty() || !data.len().is_multiple_of(16);
            let body = json!({"encryptedData": STANDARD.encode(&data), "iv": STANDARD.encode(&iv)});
            let answer = runtime.block_on(gateway.post_as(alice, "/auth/open-data", &body));
            let expected = if malformed { "invalid_request" } else { "decrypt_failed" };
            prop_assert_eq!((answer.status, answer.code()), (400, expected.to_owned()));
        }
    }
}
