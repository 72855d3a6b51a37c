//! Who follows the official account: on `/auth/me`, and as `X-Wxgate-Subscribed` for upstreams.

use std::time::Duration;

use serde_json::{Value, json};
use wxgate::wechat::simulator::Fault;

use crate::push::{self, TOKEN};
use crate::support::gateway::{APPID, Answer, Gateway, Member, OTHER_APPID, ROUTES, START};
use crate::web::{gateway, log_in};

const FOLLOWER: &str = "/cgi-bin/user/info";

#[tokio::test]
async fn a_follower_of_the_official_account_is_known_for_ten_minutes() {
    let gateway = gateway("snsapi_base").await;
    let me = async |member: &Member| {
        let answer = gateway.get("/auth/me", Some(member.token())).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["subscribed"].clone()
    };
    let asked = || gateway.wechat.calls().count(FOLLOWER);
    let (alice, bob) = (log_in(&gateway, APPID, "alice").await, log_in(&gateway, APPID, "bob-stranger").await);
    assert_eq!((me(&alice).await, me(&bob).await), (json!(true), json!(false)));
    assert_eq!((me(&alice).await, me(&bob).await, asked()), (json!(true), json!(false), 2));
    gateway.clock.advance(Duration::from_secs(600));
    assert_eq!((me(&alice).await, asked()), (json!(true), 3));

    let carol = log_in(&gateway, APPID, "carol").await;
    gateway.wechat.fault(FOLLOWER, 1, Fault::Errcode(48001));
    assert_eq!((me(&carol).await, me(&carol).await, asked()), (Value::Null, Value::Null, 4));
    gateway.clock.advance(Duration::from_secs(60));
    assert_eq!((me(&carol).await, asked()), (json!(true), 5));

    let visitor = log_in(&gateway, OTHER_APPID, "alice").await;
    assert_eq!((me(&visitor).await, asked()), (Value::Null, 5), "a website has no followers");
}

/// What the upstream reads of one request; `None` when there is no such header.
async fn header(gateway: &Gateway, member: &Member) -> Option<String> {
    let before = gateway.upstream.requests().len();
    assert_eq!(gateway.get("/api/x", Some(member.token())).await.status, 200);
    let requests = gateway.upstream.requests();
    match requests[before].all("x-wxgate-subscribed").as_slice() {
        [] => None,
        [one] => Some((*one).to_owned()),
        more => panic!("{more:?}"),
    }
}

#[tokio::test]
async fn an_upstream_is_told_what_is_known_and_no_request_waits_for_it() {
    let gateway = gateway("snsapi_base").await;
    let (alice, bob) = (log_in(&gateway, APPID, "alice").await, log_in(&gateway, APPID, "bob-stranger").await);
    let asked = || gateway.wechat.calls().count(FOLLOWER);
    for (member, expected) in [(&alice, "true"), (&bob, "false")] {
        assert_eq!(header(&gateway, member).await, None, "nobody was asked yet");
        // The answer comes while other requests are served.
        let known = loop {
            if let Some(known) = header(&gateway, member).await {
                break known;
            }
        };
        assert_eq!(known, expected);
    }
    assert_eq!(asked(), 2, "once each, however many requests");
    // What is old is told until the new answer is there.
    gateway.clock.advance(Duration::from_secs(600));
    assert_eq!(header(&gateway, &alice).await.as_deref(), Some("true"));
    while asked() < 3 {
        tokio::task::yield_now().await;
    }
    let visitor = log_in(&gateway, OTHER_APPID, "alice").await;
    assert_eq!((header(&gateway, &visitor).await, asked()), (None, 3), "a website has no followers");
}

#[tokio::test]
async fn forward_auth_tells_it_too() {
    let service = "\n[[internal.service]]\nname = \"front\"\nfrom = [\"127.0.0.1/32\"]\n";
    let app = "app.kind = \"official-account\"\napp.origins = [\"https://m.example.com\"]";
    let gateway = Gateway::with(&format!("{app}\n{ROUTES}{service}")).await;
    let alice = log_in(&gateway, APPID, "alice").await;
    assert_eq!(gateway.get("/auth/me", Some(alice.token())).await.json()["subscribed"], json!(true));
    let request = gateway.client().get(gateway.internal_url("/verify")).bearer_auth(alice.token());
    let answer = Answer::of(request.send().await.unwrap()).await;
    assert_eq!((answer.status, &answer.headers["x-wxgate-subscribed"]), (200, &"true".parse().unwrap()));
}

#[tokio::test]
async fn a_pushed_subscription_is_known_at_once() {
    let push = format!("app.push = {{ token = \"{TOKEN}\", upstream = \"echo\", path = \"/push\" }}");
    let app = "app.kind = \"official-account\"\napp.origins = [\"https://m.example.com\"]";
    let gateway = Gateway::with(&format!("{app}\n{push}\n{ROUTES}")).await;
    let alice = log_in(&gateway, APPID, "alice").await;
    for (nonce, event, expected) in [("1", "unsubscribe", "false"), ("2", "subscribe", "true")] {
        let message = json!({
            "FromUserName": alice.openid(), "CreateTime": START, "MsgType": "event", "Event": event,
        });
        let url = gateway.url(&format!("/auth/push/{APPID}{}", push::signed(START, nonce, None)));
        let answer = Answer::of(gateway.client().post(url).body(message.to_string()).send().await.unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(header(&gateway, &alice).await.as_deref(), Some(expected));
    }
    assert_eq!(gateway.wechat.calls().count(FOLLOWER), 0);
}
