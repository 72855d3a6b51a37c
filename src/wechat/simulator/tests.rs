//! The simulator over its own sockets: what the other modules' tests do not already show.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::*;
use crate::clock::Timestamp;
use crate::ids::OpenId;
use crate::wechat::open_data;

const START: Timestamp = Timestamp::from_secs(1_700_000_000);

struct Phone {
    wechat: Simulator,
    clock: Clock,
    http: reqwest::Client,
}

impl Phone {
    async fn near_a_simulator() -> Self {
        let clock = Clock::manual(START);
        let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let config = SimulatorConfig { listen, clock: clock.clone(), apps: None };
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        Self { wechat: Simulator::start(config).await.unwrap(), clock, http }
    }

    /// Sends and reads as curl would: no content type, whatever the body.
    async fn send(&self, method: Method, path: &str, body: String) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.wechat.api_base());
        let response = self.http.request(method, url).body(body).send().await.unwrap();
        let status = response.status();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> Value {
        self.send(Method::GET, path, String::new()).await.1
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, body.to_string()).await
    }

    async fn exchange(&self, appid: &str, secret: &str, code: &str) -> Value {
        let grant = "grant_type=authorization_code";
        self.get(&format!("/sns/jscode2session?appid={appid}&secret={secret}&js_code={code}&{grant}")).await
    }

    async fn token(&self) -> String {
        let body = json!({"grant_type": "client_credential", "appid": "wxa", "secret": "s"});
        let (_, answer) = self.post("/cgi-bin/stable_token", body).await;
        answer["access_token"].as_str().unwrap().to_owned()
    }
}

fn wxa() -> AppId {
    AppId::parse("wxa").unwrap()
}

#[tokio::test]
async fn errors_are_json_under_text_plain_and_200_with_a_trace_id() {
    let phone = Phone::near_a_simulator().await;
    let url = format!("{}/sns/jscode2session", phone.wechat.api_base());
    let response = phone.http.get(url).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain");
    let answer: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(answer["errcode"], 41002);
    assert!(answer["errmsg"].as_str().unwrap().contains(" rid: 6"), "{answer}");
}

#[tokio::test]
async fn parameters_are_asked_for_in_wechats_order() {
    let phone = Phone::near_a_simulator().await;
    let cases = [
        ("", 41002),
        ("appid=wxa", 41004),
        ("appid=wxa&secret=s", 41008),
        ("appid=wxa&secret=s&js_code=demo-a", 40002),
        ("appid=notwx&secret=s&js_code=demo-a&grant_type=authorization_code", 40013),
        ("appid=wxa&secret=s&js_code=demo-&grant_type=authorization_code", 40029),
    ];
    for (query, errcode) in cases {
        assert_eq!(phone.get(&format!("/sns/jscode2session?{query}")).await["errcode"], errcode, "{query}");
    }
}

#[tokio::test]
async fn the_first_secret_shown_for_an_app_becomes_its_secret() {
    let phone = Phone::near_a_simulator().await;
    assert!(phone.exchange("wxa", "first", "demo-a").await["openid"].is_string());
    assert_eq!(phone.exchange("wxa", "second", "demo-a").await["errcode"], 40125);
    assert!(phone.exchange("wxb", "second", "demo-a").await["openid"].is_string());
}

#[tokio::test]
async fn an_exchange_gives_a_new_session_key_and_keeps_the_one_before() {
    let phone = Phone::near_a_simulator().await;
    let first = phone.exchange("wxa", "s", "demo-a").await["session_key"].as_str().unwrap().to_owned();
    let second = phone.exchange("wxa", "s", "demo-a").await["session_key"].as_str().unwrap().to_owned();
    let user = phone.wechat.user("a", &wxa());
    assert_ne!(first, second);
    assert_eq!(user.session_key.unwrap().text(), second);
    assert_eq!(user.previous_session_key.unwrap().text(), first);
}

#[tokio::test]
async fn a_code_user_info_and_phone_come_over_http() {
    let phone = Phone::near_a_simulator().await;
    let (status, _) = phone.post("/_sim/user-info", json!({"user": "alice", "appid": "wxa"})).await;
    assert_eq!(status, 409, "no session_key before the first login");
    let code = phone.get("/_sim/code?user=alice&appid=wxa").await["code"].as_str().unwrap().to_owned();
    assert!(phone.exchange("wxa", "s", &code).await["openid"].is_string());

    let user = phone.wechat.user("alice", &wxa());
    let key = user.session_key.unwrap();
    let (_, info) = phone.post("/_sim/user-info", json!({"user": "alice"})).await;
    let text = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    let openid = OpenId::parse(&user.openid).unwrap();
    let owner = open_data::Owner { appid: &wxa(), openid: &openid };
    let open = |sealed: &Value| {
        let encrypted = open_data::Encrypted::parse(&text(sealed, "encryptedData"), &text(sealed, "iv")).unwrap();
        encrypted.open(&key, &owner, START).unwrap()
    };
    assert!(open_data::check_signature(&text(&info, "rawData"), &key, &text(&info, "signature")));
    assert_eq!(open(&info)["openId"], user.openid);
    assert_eq!(open(&info)["nickName"], "alice");

    let (_, button) = phone.post("/_sim/phone", json!({"user": "alice"})).await;
    assert_eq!(open(&button)["phoneNumber"], user.phone_number);
    let (_, steps) = phone.post("/_sim/open-data", json!({"user": "alice", "data": {"steps": 7}})).await;
    assert_eq!(open(&steps)["steps"], 7);
}

#[tokio::test]
async fn a_phone_code_gives_the_number_once_to_its_owner() {
    let phone = Phone::near_a_simulator().await;
    let token = phone.token().await;
    let path = format!("/wxa/business/getuserphonenumber?access_token={token}");
    let (alice, bob) = (phone.wechat.user("alice", &wxa()), phone.wechat.user("bob", &wxa()));
    let code = phone.wechat.phone("alice", &wxa()).code;

    let (_, stolen) = phone.post(&path, json!({"code": code, "openid": bob.openid})).await;
    assert_eq!(stolen["errcode"], 40029);
    let (_, number) = phone.post(&path, json!({"code": code, "openid": alice.openid})).await;
    assert_eq!(number["phone_info"]["purePhoneNumber"], alice.phone_number);
    let (_, again) = phone.post(&path, json!({"code": code})).await;
    assert_eq!(again["errcode"], 40029);
    let login_code = phone.wechat.issue_code(None, "alice");
    let (_, mixed_up) = phone.post(&path, json!({"code": login_code})).await;
    assert_eq!(mixed_up["errcode"], 40029);

    let late = phone.wechat.phone("alice", &wxa()).code;
    phone.clock.advance(Duration::from_secs(300));
    assert_eq!(phone.post(&path, json!({"code": late})).await.1["errcode"], 40029);
    let foreign = phone.wechat.phone("alice", &AppId::parse("wxb").unwrap()).code;
    assert_eq!(phone.post(&path, json!({"code": foreign})).await.1["errcode"], 40013);

    assert_eq!(phone.get(&path).await["errcode"], 43002);
    assert_eq!(phone.send(Method::POST, &path, String::new()).await.1["errcode"], 44002);
    assert_eq!(phone.send(Method::POST, &path, "{".into()).await.1["errcode"], 47001);
    let (_, no_token) = phone.post("/wxa/business/getuserphonenumber", json!({"code": "x"})).await;
    assert_eq!(no_token["errcode"], 41001);
}

#[tokio::test]
async fn checksession_knows_the_current_key_only() {
    let phone = Phone::near_a_simulator().await;
    let token = phone.token().await;
    phone.exchange("wxa", "s", "demo-alice").await;
    let user = phone.wechat.user("alice", &wxa());
    let old = user.session_key.unwrap();
    let query = |key: &SessionKey| {
        let signature = key.sign(b"");
        format!("access_token={token}&openid={}&signature={signature}&sig_method=hmac_sha256", user.openid)
    };
    assert_eq!(phone.get(&format!("/wxa/checksession?{}", query(&old))).await["errcode"], 0);

    let reset = phone.get(&format!("/wxa/resetusersessionkey?{}", query(&old))).await;
    let new = SessionKey::parse(reset["session_key"].as_str().unwrap()).unwrap();
    assert_eq!(phone.get(&format!("/wxa/checksession?{}", query(&old))).await["errcode"], 87009);
    assert_eq!(phone.get(&format!("/wxa/checksession?{}", query(&new))).await["errcode"], 0);
    let md5 = query(&new).replace("hmac_sha256", "md5");
    assert_eq!(phone.get(&format!("/wxa/checksession?{md5}")).await["errcode"], 87008);
}

#[tokio::test]
async fn both_token_calls_check_the_app_and_the_grant_type() {
    let phone = Phone::near_a_simulator().await;
    let ask = async |query: &str| phone.get(&format!("/cgi-bin/token?{query}")).await;
    let good = ask("grant_type=client_credential&appid=wxa&secret=s").await;
    assert_eq!(good["expires_in"], 7200);
    assert_eq!(ask("grant_type=client_credential&appid=wxa&secret=x").await["errcode"], 40125);
    assert_eq!(ask("grant_type=password&appid=wxa&secret=s").await["errcode"], 40002);
    assert_eq!(ask("grant_type=client_credential").await["errcode"], 41002);
    assert_eq!(phone.get("/cgi-bin/stable_token").await["errcode"], 43002);
    assert_eq!(phone.token().await, phone.token().await);
}

#[tokio::test]
async fn faults_are_planned_over_http_and_strike_as_often_as_asked() {
    let phone = Phone::near_a_simulator().await;
    let plan = json!({"path": "/sns/jscode2session", "times": 2, "errcode": 45011});
    assert_eq!(phone.post("/_sim/faults", plan).await.0, 204);
    for expected in [json!(45011), json!(45011), Value::Null] {
        assert_eq!(phone.exchange("wxa", "s", "demo-a").await["errcode"], expected);
    }
    phone.post("/_sim/faults", json!({"path": "*", "status": 502})).await;
    assert_eq!(phone.send(Method::DELETE, "/_sim/faults", String::new()).await.0, 204);
    assert!(phone.exchange("wxa", "s", "demo-a").await["openid"].is_string());
    for bad in [json!({"path": "*"}), json!({"path": "*", "errcode": 1, "status": 2}), json!({"errcode": 1}), json!([])]
    {
        let (status, answer) = phone.post("/_sim/faults", bad).await;
        assert_eq!(status, 400);
        assert!(answer["error"].is_string());
    }
}

#[tokio::test]
async fn the_call_log_counts_and_never_echoes_a_code_or_secret() {
    let phone = Phone::near_a_simulator().await;
    phone.exchange("wxa", "top-secret", "demo-somebody").await;
    phone.exchange("wxa", "top-secret", "no-such-code").await;
    phone.get("/cgi-bin/no-such-call?secret=top-secret").await;
    let log = phone.get("/_sim/calls").await;
    assert_eq!(log["counts"], json!({"/sns/jscode2session": 2, "(unknown)": 1}));
    assert_eq!(log["calls"][0]["appid"], "wxa");
    assert_eq!(log["calls"][1]["errcode"], 40029);
    let shown = log.to_string();
    assert!(!shown.contains("secret") && !shown.contains("somebody") && !shown.contains("no-such"), "{shown}");
}

#[tokio::test]
async fn it_stops_even_while_an_answer_is_held_back() {
    let phone = Phone::near_a_simulator().await;
    phone.wechat.fault("*", 1, Fault::Hang);
    let addr = phone.wechat.addr();
    let url = format!("{}/cgi-bin/token", phone.wechat.api_base());
    let hanging = tokio::spawn(phone.http.get(url).send());
    while phone.wechat.calls().count("/cgi-bin/token") == 0 {
        tokio::task::yield_now().await;
    }
    phone.wechat.stop().await;
    assert!(hanging.await.unwrap().is_err());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}
