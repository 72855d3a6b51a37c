//! The client against the simulator, over sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::ids::{AppId, Secret};
use crate::wechat::errcode::{Configuration, Meaning};
use crate::wechat::simulator::{Fault, Simulator, SimulatorConfig};

const LOGIN: &str = "/sns/jscode2session";
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct World {
    wechat: Simulator,
    client: Client,
    clock: Clock,
    appid: AppId,
    secret: Secret<String>,
}

impl World {
    async fn start() -> Self {
        Self::with_timeout(Duration::from_secs(20)).await
    }

    async fn with_timeout(timeout: Duration) -> Self {
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        let secret = Secret::new("app-secret".to_owned());
        let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
        let apps = Some(vec![(appid.clone(), secret.clone())]);
        let config = SimulatorConfig { listen: LOCAL, clock: clock.clone(), apps };
        let wechat = Simulator::start(config).await.unwrap();
        let client = client(&wechat.api_base(), timeout);
        Self { wechat, client, clock, appid, secret }
    }

    async fn exchange(&self, code: &str) -> Result<crate::wechat::Code2Session, Error> {
        self.client.code2session(&self.appid, &self.secret, code).await
    }

    async fn exchange_meeting(&self, fault: Fault) -> Error {
        self.wechat.fault(LOGIN, 1, fault);
        let error = self.exchange("demo-alice").await.unwrap_err();
        let shown = format!("{error} {error:?} {:?}", error.source());
        assert!(!shown.contains("app-secret") && !shown.contains("demo-alice") && !shown.contains("://"), "{shown}");
        assert_eq!(self.wechat.calls().count(LOGIN), 1, "nothing is sent twice");
        error
    }
}

fn client(base: &str, timeout: Duration) -> Client {
    let (api_base, open_base) = (base.to_owned(), String::new());
    Client::new(&section::WeChat { api_base, open_base, timeout }).unwrap()
}

fn meaning(error: Error) -> Meaning {
    match error {
        Error::Errcode(errcode) => errcode.meaning,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_code_becomes_openid_unionid_and_session_key() {
    let world = World::start().await;
    let code = world.wechat.issue_code(Some(&world.appid), "alice");
    let session = world.exchange(&code).await.unwrap();
    let alice = world.wechat.user("alice", &world.appid);
    assert_eq!(session.openid.as_str(), alice.openid);
    assert_eq!(session.unionid.as_ref().map(|u| u.as_str()), alice.unionid.as_deref());
    assert_eq!(Some(session.session_key), alice.session_key);
    assert!(world.exchange("demo-bob-nounion").await.unwrap().unionid.is_none());
}

#[tokio::test]
async fn a_code_works_once_for_five_minutes_in_its_own_app() {
    let world = World::start().await;
    let code = world.wechat.issue_code(None, "alice");
    assert!(world.exchange(&code).await.is_ok());
    assert_eq!(meaning(world.exchange(&code).await.unwrap_err()), Meaning::UsedCode);

    let late = world.wechat.issue_code(None, "alice");
    world.clock.advance(Duration::from_secs(300));
    assert_eq!(meaning(world.exchange(&late).await.unwrap_err()), Meaning::BadCode);

    let foreign = world.wechat.issue_code(Some(&AppId::parse("wxother").unwrap()), "alice");
    assert_eq!(meaning(world.exchange(&foreign).await.unwrap_err()), Meaning::BadCode);
    assert_eq!(meaning(world.exchange("made-up").await.unwrap_err()), Meaning::BadCode);
}

#[tokio::test]
async fn our_own_mistakes_have_a_meaning_of_their_own() {
    let world = World::start().await;
    let call = async |appid: &str, secret: &str, code: &str| {
        let (appid, secret) = (AppId::parse(appid).unwrap(), Secret::new(secret.to_owned()));
        meaning(world.client.code2session(&appid, &secret, code).await.unwrap_err())
    };
    let app = world.appid.as_str();
    assert_eq!(call("wxunknown", "app-secret", "demo-a").await, Meaning::Configuration(Configuration::AppId));
    assert_eq!(call(app, "wrong", "demo-a").await, Meaning::Configuration(Configuration::AppSecret));
    assert_eq!(call(app, "", "demo-a").await, Meaning::Configuration(Configuration::AppSecret));
    assert_eq!(call(app, "app-secret", "").await, Meaning::OurFault);
    let posted = world.client.post_json(LOGIN, &[], &json!({"appid": app})).await.unwrap_err();
    assert_eq!(meaning(posted), Meaning::Configuration(Configuration::AppId), "parameters in a body are not read");
}

#[tokio::test]
async fn every_errcode_arrives_with_its_meaning_and_trace_id() {
    for code in [-1, 40029, 40163, 40226, 45011, 45009, 50002, 40013, 40125, 40164, 40243, 40001, 99999] {
        let world = World::start().await;
        match world.exchange_meeting(Fault::Errcode(code)).await {
            Error::Errcode(errcode) => {
                assert_eq!((errcode.code, errcode.meaning), (code, Meaning::of(code)));
                assert_eq!(errcode.rid.unwrap().len(), 26);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_no_login_answer_is_refused() {
    let bodies: [&[u8]; 10] = [
        b"",
        b"null",
        b"[]",
        b"<html></html>",
        b"{\"openid\":\"o1\"",
        b"{\"openid\":\"o1\",\"session_key\":\"tiihtNczf5v6AKRyjwEUhQ==\"}{}",
        b"{\"openid\":\"\xff\",\"session_key\":\"tiihtNczf5v6AKRyjwEUhQ==\"}",
        b"{\"openid\":7,\"session_key\":\"tiihtNczf5v6AKRyjwEUhQ==\"}",
        b"{\"openid\":\"o\\r\\n\",\"session_key\":\"tiihtNczf5v6AKRyjwEUhQ==\"}",
        b"{\"openid\":\"o1\",\"session_key\":\"AAAA\"}",
    ];
    for body in bodies {
        let error = World::start().await.exchange_meeting(Fault::Body(body.to_vec())).await;
        assert!(matches!(error, Error::Answer(_)), "{error:?}");
    }
}

#[tokio::test]
async fn an_errcode_beside_an_openid_is_a_failure() {
    let body = br#"{"openid":"o1","session_key":"tiihtNczf5v6AKRyjwEUhQ==","errcode":"40029"}"#;
    let error = World::start().await.exchange_meeting(Fault::Body(body.to_vec())).await;
    assert_eq!(meaning(error), Meaning::BadCode);
}

#[tokio::test]
async fn a_body_of_200_megabytes_is_cut_off() {
    let started = Instant::now();
    let error = World::start().await.exchange_meeting(Fault::HugeBody(200_000_000)).await;
    assert!(matches!(error, Error::Answer("it is too large")), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(10), "the body was not read to its end");
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_not_read() {
    let error = World::start().await.exchange_meeting(Fault::Body(vec![b' '; MAX_ANSWER + 1])).await;
    assert!(matches!(error, Error::Answer("it is too large")), "{error:?}");
    let error = World::start().await.exchange_meeting(Fault::Body(vec![b' '; MAX_ANSWER])).await;
    assert!(matches!(error, Error::Answer("it is empty")), "{error:?}");
}

#[tokio::test]
async fn a_header_of_8_megabytes_is_cut_off() {
    let error = World::start().await.exchange_meeting(Fault::HugeHeader(8_000_000)).await;
    assert!(matches!(error, Error::Transport(_)), "{error:?}");
}

#[tokio::test]
async fn a_status_other_than_2xx_is_a_broken_exchange() {
    for status in [400, 403, 404, 429, 500, 502, 503] {
        let error = World::start().await.exchange_meeting(Fault::Status(status)).await;
        assert!(matches!(error, Error::Transport(_)), "{status} {error:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = World::start().await;
    let world = World::start().await;
    let error = world.exchange_meeting(Fault::Redirect(format!("{}/elsewhere", elsewhere.wechat.api_base()))).await;
    assert!(matches!(error, Error::Transport("a redirect")), "{error:?}");
    assert!(elsewhere.wechat.calls().calls.is_empty());
}

#[tokio::test]
async fn a_slow_first_byte_a_slow_drip_and_silence_all_end_at_the_deadline() {
    let slow = Duration::from_secs(60);
    for fault in [Fault::Delay(slow), Fault::Drip(Duration::from_millis(20)), Fault::Hang] {
        let world = World::with_timeout(Duration::from_millis(300)).await;
        let started = Instant::now();
        let error = world.exchange_meeting(fault.clone()).await;
        assert!(matches!(error, Error::Timeout), "{fault:?} {error:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "{fault:?}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_broken_exchange_and_the_code_is_gone() {
    for fault in [Fault::Reset, Fault::Cut] {
        let world = World::start().await;
        let code = world.wechat.issue_code(None, "alice");
        world.wechat.fault(LOGIN, 1, fault.clone());
        assert!(matches!(world.exchange(&code).await, Err(Error::Transport(_))), "{fault:?}");
        assert_eq!(world.wechat.calls().count(LOGIN), 1, "nothing is sent twice");
        assert_eq!(meaning(world.exchange(&code).await.unwrap_err()), Meaning::UsedCode);
    }
}

#[tokio::test]
async fn a_fault_leaves_the_next_call_unharmed() {
    let world = World::start().await;
    assert!(world.exchange("demo-alice").await.is_ok(), "a kept connection is there");
    world.wechat.fault(LOGIN, 1, Fault::Reset);
    assert!(world.exchange("demo-alice").await.is_err());
    assert!(world.exchange("demo-alice").await.is_ok());
}

#[tokio::test]
async fn nobody_listening_is_no_connection() {
    let listener = TcpListener::bind(LOCAL).await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let appid = AppId::parse("wx1").unwrap();
    let error = client(&format!("http://{nobody}"), Duration::from_secs(5))
        .code2session(&appid, &Secret::new("hush".to_owned()), "code-hush")
        .await
        .unwrap_err();
    let shown = format!("{error} {error:?} {:?}", error.source());
    assert!(matches!(error, Error::Connect(Some(_))), "{shown}");
    assert!(!shown.contains("hush"), "{shown}");
}

#[tokio::test]
async fn a_peer_that_does_not_speak_tls_is_a_failed_handshake() {
    let world = World::start().await;
    // `https` needs root certificates; a machine without any refuses earlier, which is no less safe.
    let config = section::WeChat {
        api_base: world.wechat.api_base().replace("http:", "https:"),
        open_base: String::new(),
        timeout: Duration::from_secs(5),
    };
    let Ok(client) = Client::new(&config) else { return };
    let error = client.code2session(&world.appid, &world.secret, "demo-alice").await.unwrap_err();
    assert!(matches!(error, Error::Transport("the TLS handshake failed")), "{error:?}");
}

#[test]
fn a_base_that_is_no_url_is_refused() {
    let config = section::WeChat { api_base: "nowhere".into(), open_base: String::new(), timeout: Duration::ZERO };
    assert!(matches!(Client::new(&config), Err(Error::Connect(Some(_)))));
}

#[tokio::test]
async fn a_code_stays_one_parameter_whatever_it_holds() {
    let world = World::start().await;
    for user in ["a&secret=evil", "a#b", "a\r\nHost: evil", "a%26b", "a b+c", "a?b=/c\\", "ö\u{0}"] {
        let session = world.exchange(&format!("demo-{user}")).await.unwrap();
        assert_eq!(session.openid.as_str(), world.wechat.user(user, &world.appid).openid, "{user:?}");
    }
}
