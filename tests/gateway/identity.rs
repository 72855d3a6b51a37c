//! No byte of an identity header at an upstream comes from the client: in no spelling, on no kind of route.

use proptest::prelude::*;

use crate::support::gateway::{APPID, Gateway, Member};
use crate::support::raw::{Client, exchange};
use crate::support::upstream::{After, Request, Upstream};

/// A kind of route, with or without a caller.
#[derive(Debug, Clone, Copy)]
struct Kind {
    path: &'static str,
    /// Whether the request carries a token.
    token: bool,
    /// Whether the upstream may learn of a caller.
    caller: bool,
}

const KINDS: [Kind; 5] = [
    Kind { path: "/api/x", token: true, caller: true },
    Kind { path: "/optional/x", token: true, caller: true },
    Kind { path: "/optional/x", token: false, caller: false },
    Kind { path: "/public/x", token: true, caller: false },
    Kind { path: "/public/x", token: false, caller: false },
];

impl Kind {
    /// A request with these header lines before and after the ordinary ones.
    fn request(self, member: &Member, before: &str, after: &str) -> String {
        let token = if self.token { format!("Authorization: Bearer {}\r\n", member.token()) } else { String::new() };
        format!(
            "POST {} HTTP/1.1\r\n{before}Host: api.example.com\r\n{token}{after}Content-Length: 0\r\n\r\n",
            self.path
        )
    }
}

/// What a service behind CGI, WSGI, PHP or nginx sees of a name.
fn folded(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// The identity headers are those of the caller, once each and under their own names, and there are no others.
fn assert_identity(request: &Request, caller: Option<&Member>) {
    let one = |value| caller.map(|_| value).into_iter().collect::<Vec<_>>();
    assert_eq!(request.all("x-wx-openid"), one(caller.map_or("", Member::openid)));
    assert_eq!(request.all("x-wx-appid"), one(APPID));
    assert_eq!(request.all("x-wx-source"), one("wx_client"));
    assert_eq!(request.all("x-wxgate-member"), one(caller.map_or("", Member::id)));
    assert_eq!(request.all("x-wxgate-session").len(), usize::from(caller.is_some()));
    let known = ["x-wx-openid", "x-wx-appid", "x-wx-unionid", "x-wx-source"];
    let ours = ["x-wxgate-member", "x-wxgate-roles", "x-wxgate-session"];
    for (name, _) in request.headers.iter().chain(&request.trailers) {
        let as_read = folded(name);
        if as_read.starts_with("x-wx") {
            assert!(known.iter().chain(&ours).any(|k| name.eq_ignore_ascii_case(k)), "{name} reached the upstream");
        }
    }
    let head = String::from_utf8_lossy(&request.raw_head).to_ascii_lowercase();
    assert!(!head.contains("evil"), "{head}");
}

/// Sends these lines on every kind of route; the upstream sees nothing of them.
async fn never_arrives(gateway: &Gateway, member: &Member, lines: &str) {
    let mut client = Client::connect(gateway.address()).await;
    for kind in KINDS {
        let before = gateway.upstream.requests().len();
        client.send(kind.request(member, "", lines)).await;
        let answer = client.response().await.unwrap_or_else(|e| panic!("{kind:?} {lines:?}: {e}"));
        assert_eq!(answer.status, 200, "{kind:?} {lines:?}: {}", answer.text());
        let requests = gateway.upstream.requests();
        assert_eq!(requests.len(), before + 1, "{kind:?} {lines:?}");
        assert_identity(&requests[before], kind.caller.then_some(member));
    }
}

#[tokio::test]
async fn identity_that_a_client_claims_is_replaced_by_the_true_one_or_removed() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    for lines in [
        "X-WX-OPENID: evil\r\n",
        "x-wx-openid: evil\r\n",
        "X-wX-oPeNiD: evil\r\n",
        "X-WX-APPID: evil\r\nX-WX-UNIONID: evil\r\nX-WX-SOURCE: evil\r\nX-WX-FROM-OPENID: evil\r\n",
        "X-Wxgate-Member: evil\r\nX-Wxgate-Roles: evil\r\nX-Wxgate-Session: evil\r\nX-Wxgate-Assertion: evil\r\n",
        "X-WX-OPENID: evil\r\nX-WX-OPENID: evil2\r\n",
        "X-WX-OPENID: evil, evil2\r\n",
        "X-WX-OPENID:\r\n",
        "X-WX-ANYTHING-ELSE: evil\r\nX-Wxgate-: evil\r\nX-WX-: evil\r\nX-WX: evil\r\nX-Wxgate: evil\r\n",
    ] {
        never_arrives(&gateway, &alice, lines).await;
    }
}

#[tokio::test]
async fn names_that_a_service_would_fold_to_ours_are_removed() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    for name in [
        "X_WX_OPENID",
        "X-WX_OPENID",
        "x_wx-openid",
        "X.WX.OPENID",
        "X~WX~OPENID",
        "X!WX#OPENID",
        "X$WX%OPENID",
        "X&WX'OPENID",
        "X*WX+OPENID",
        "X^WX`OPENID",
        "X|WX|OPENID",
        "X_WXGATE_ROLES",
        "x.wxgate.member",
        "X_Wxgate-Session",
    ] {
        never_arrives(&gateway, &alice, &format!("{name}: evil\r\n")).await;
    }
}

#[tokio::test]
async fn identities_that_other_gateways_inject_are_removed() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    for name in [
        "Remote-User",
        "REMOTE_USER",
        "Remote-Groups",
        "X-Remote-User",
        "X-Forwarded-User",
        "X-Forwarded-Email",
        "X-Auth-Request-User",
        "X-Auth-Request-Email",
        "X_Auth_Request_Groups",
        "X-Authenticated-User",
        "X-Real-IP",
        "X-Original-URL",
        "X_ORIGINAL_URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-Forwarded-Prefix",
        "True-Client-IP",
    ] {
        never_arrives(&gateway, &alice, &format!("{name}: evil\r\n")).await;
    }
}

#[tokio::test]
async fn forwarding_headers_of_a_stranger_are_replaced_by_what_the_gateway_saw() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let lines = "X-Forwarded-For: evil\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n\
                 X_Forwarded_For: evil\r\nForwarded: for=evil\r\nVia: 1.1 evil\r\nX-Original-Forwarded-For: evil\r\n\
                 X-Request-Id: evil\r\nX-Forwarded-Port: evil\r\n";
    never_arrives(&gateway, &alice, lines).await;
    for request in gateway.upstream.requests() {
        assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(request.all("x-original-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(request.all("x-forwarded-proto"), ["http"]);
        assert_eq!(request.all("x-forwarded-host"), ["api.example.com"]);
        assert!(!String::from_utf8_lossy(&request.raw_head).contains("6.6.6.6"));
    }
}

#[tokio::test]
async fn a_header_named_in_connection_is_still_injected() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    for nominated in [
        "X-WX-OPENID",
        "x-wx-openid, X-WX-APPID, x-wxgate-member, x-wxgate-session, x-wx-source",
        "keep-alive, X-WX-OPENID",
        "X-Forwarded-For",
        "X_WX_OPENID",
        ",, ,X-WX-OPENID,",
        "X-Wxgate-Session;q=1",
    ] {
        never_arrives(&gateway, &alice, &format!("Connection: {nominated}\r\nX-WX-OPENID: evil\r\n")).await;
    }
    for request in gateway.upstream.requests() {
        assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"]);
    }
}

#[tokio::test]
async fn connection_cannot_take_away_what_the_decision_rests_on() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let lines = "Connection: Authorization, Host, Cookie, Content-Length\r\nCookie: a=b\r\n";
    let answer = exchange(gateway.address(), KINDS[0].request(&alice, "", lines)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let requests = gateway.upstream.requests();
    assert_identity(&requests[0], Some(&alice));
    assert_eq!((requests[0].all("host"), requests[0].all("cookie")), (vec!["api.example.com"], vec!["a=b"]));
    // A bad token stays a bad token on a route where none is needed.
    let bad = "POST /optional/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer bad\r\nConnection: Authorization\r\n\
               Content-Length: 0\r\n\r\n";
    assert_eq!(exchange(gateway.address(), bad).await.unwrap().status, 401);
    assert_eq!(gateway.upstream.requests().len(), 1);
}

#[tokio::test]
async fn trailers_end_at_the_gateway() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    for kind in KINDS {
        let head = kind.request(&alice, "Trailer: X-WX-OPENID, X-Sum\r\n", "Transfer-Encoding: chunked\r\n");
        let head = head.replace("Content-Length: 0\r\n", "");
        let body = "2\r\nhi\r\n0\r\nX-WX-OPENID: evil\r\nX-Wxgate-Roles: evil\r\nX-Sum: evil\r\n\r\n";
        let answer = exchange(gateway.address(), format!("{head}{body}")).await.unwrap();
        assert_eq!(answer.status, 200, "{kind:?}: {}", answer.text());
        let requests = gateway.upstream.requests();
        let request = requests.last().unwrap();
        assert_identity(request, kind.caller.then_some(&alice));
        assert_eq!((request.body.as_str(), &request.trailers), ("hi", &Vec::new()), "{kind:?}");
        assert!(request.all("trailer").is_empty());
    }
}

#[tokio::test]
async fn names_that_cannot_be_read_in_one_way_are_refused() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let lines: [&[u8]; 10] = [
        b"X-WX-OPENID : evil\r\n",
        b"X-WX-OPENID\t: evil\r\n",
        b"X-WX-OPENID\0: evil\r\n",
        b"X-WX-OPENID\xa0: evil\r\n",
        b" X-WX-OPENID: evil\r\n",
        b"X-A: b\r\n X-WX-OPENID: evil\r\n",
        b"X-A: b\nX-WX-OPENID: evil\r\n",
        b"X-A: b\rX-WX-OPENID: evil\r\n",
        b"X-A: b\r\r\nX-WX-OPENID: evil\r\n",
        b"X-WX-OPENID\r\n",
    ];
    for kind in KINDS {
        for line in lines {
            let request = kind.request(&alice, "", "@");
            let (before, after) = request.split_once('@').unwrap();
            let mut client = Client::connect(gateway.address()).await;
            client.send([before.as_bytes(), line, after.as_bytes()].concat()).await;
            let answer = client.response().await.unwrap_or_else(|e| panic!("{kind:?} {}: {e}", line.escape_ascii()));
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (400, &"invalid_request".into()),
                "{}",
                line.escape_ascii()
            );
            assert_eq!(client.until_closed().await.unwrap(), b"");
        }
    }
    assert!(gateway.upstream.requests().is_empty());
    never_arrives(&gateway, &alice, "").await;
}

#[tokio::test]
async fn an_upstream_cannot_speak_in_the_gateways_name() {
    let answer = "HTTP/1.1 200 OK\r\nX-Wxgate-Token: evil\r\nx_wxgate_token: evil\r\nX-WXGATE: evil\r\nX-Wxgate-Member: evil\r\n\
                  X-Kept: yes\r\nContent-Length: 2\r\n\r\nok";
    let service = Upstream::scripted([(answer, After::Close)]).await;
    let tables = format!(
        "[[upstream]]\nname = \"other\"\nservers = [\"{}\"]\n[[route]]\npath = \"/*\"\nupstream = \"other\"\nauth = \"none\"\n",
        service.url()
    );
    let gateway = Gateway::with(&tables).await;
    let answer = gateway.get("/x", None).await;
    assert_eq!((answer.status, answer.body.as_str(), answer.headers["x-kept"].to_str().unwrap()), (200, "ok", "yes"));
    assert!(!format!("{:?}", answer.headers).contains("evil"), "{:?}", answer.headers);
}

/// Names that fold into our namespaces, in any case and with any separator.
fn spelling() -> impl Strategy<Value = String> {
    "[xX][-_.~!#$%&'*+^`|][wW][xX]([gG][aA][tT][eE])?[-_.~!#$%&'*+^`|]([oO][pP][eE][nN][iI][dD]|[mM]ember|[rR]oles|[a-zA-Z0-9_.-]{0,60})"
}

/// Promise 1, over the whole gateway.
#[test]
fn whatever_a_client_spells_wherever_and_however_often_none_of_it_arrives() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (gateway, alice) = runtime.block_on(async {
        let gateway = Gateway::start().await;
        let alice = gateway.login("alice").await;
        (gateway, alice)
    });
    let line = (spelling(), "evil[ -~]{0,20}", any::<bool>(), any::<bool>());
    let cases = (prop::collection::vec(line, 1..8), 0..KINDS.len());
    proptest!(ProptestConfig::with_cases(256), |((lines, kind) in cases)| {
        let (mut before, mut after, mut nominated) = (String::new(), String::new(), String::new());
        for (name, value, first, nominate) in &lines {
            let at = if *first { &mut before } else { &mut after };
            at.push_str(&format!("{name}: {value}\r\n"));
            if *nominate {
                nominated.push_str(&format!("Connection: {name}\r\n"));
            }
        }
        after.push_str(&nominated);
        let request = KINDS[kind].request(&alice, &before, &after);
        let answer = runtime.block_on(exchange(gateway.address(), request)).unwrap();
        prop_assert_eq!(answer.status, 200);
        let requests = gateway.upstream.requests();
        assert_identity(requests.last().unwrap(), KINDS[kind].caller.then_some(&alice));
    });
    drop(runtime.enter());
}
