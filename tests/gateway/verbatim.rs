//! Fields that nobody but the service looks at pass the gateway as they came, and on every kind of route the same ones do.

use proptest::prelude::*;

use crate::support::gateway::{Gateway, Member};
use crate::support::raw::exchange;
use crate::support::upstream::Request;

/// The same service by a route without rules, whose fields pass as lines, and by one with a rule, for which all of them are
/// made into headers.
const TABLES: &str = r#"
[[route]]
path = "/lines/*"
upstream = "echo"

[[route]]
path = "/headers/*"
upstream = "echo"
headers = { request = { remove = ["X-Nobody-Sends-This"] } }

[[route]]
path = "/public/*"
upstream = "echo"
auth = "none"

[[route]]
path = "/optional/*"
upstream = "echo"
auth = "optional"

[[route]]
path = "/told/*"
upstream = "echo"
forward_token = true
"#;

/// What reaches the service of a request with these lines.
async fn arrived(gateway: &Gateway, member: &Member, path: &str, lines: &str) -> Request {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a.example.com\r\n{lines}Authorization: Bearer {}\r\nContent-Length: 2\r\n\r\nhi",
        member.token()
    );
    let answer = exchange(gateway.address(), head).await.unwrap();
    assert_eq!(answer.status, 200, "{lines:?}: {}", answer.text());
    let request = gateway.upstream.requests().pop().unwrap();
    assert_eq!(request.body, "hi");
    request
}

/// Its fields in any order, but for those that are another request's own.
fn fields(request: &Request) -> Vec<(String, String)> {
    let own = |name: &str| matches!(name, "x-request-id" | "traceparent");
    let fields = request.headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone()));
    let mut fields: Vec<_> = fields.filter(|(name, _)| !own(name)).collect();
    // Stable, because fields of one name keep their order.
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

#[tokio::test]
async fn what_a_client_says_to_the_service_alone_arrives_in_its_own_words() {
    let gateway = Gateway::with(TABLES).await;
    let alice = gateway.login("alice").await;
    let lines = "User-Agent: MicroMessenger/8.0\r\nX-App-VERSION: 1.2\r\nContent-Type: application/json\r\n\
                 x-tag: one\r\nX-Tag: two\r\nReferer: https://servicewechat.com/\u{e4}\r\nX-Empty: \r\n";
    let head = arrived(&gateway, &alice, "/lines/x", lines).await.raw_head;
    let head = String::from_utf8_lossy(&head);
    assert!(head.contains(lines), "{head}");
}

#[tokio::test]
async fn a_token_goes_no_further_unless_the_route_says_so() {
    let gateway = Gateway::with(TABLES).await;
    let alice = gateway.login("alice").await;
    for path in ["/lines/x", "/headers/x", "/public/x", "/optional/x"] {
        let request = arrived(&gateway, &alice, path, "X-A: b\r\n").await;
        let head = String::from_utf8_lossy(&request.raw_head).to_ascii_lowercase();
        assert!(!head.contains("authorization") && !head.contains("bearer"), "{path}: {head}");
    }
    let request = arrived(&gateway, &alice, "/told/x", "X-A: b\r\n").await;
    assert_eq!(request.all("authorization"), [format!("Bearer {}", alice.token())]);
}

#[tokio::test]
async fn two_tokens_are_refused_wherever_they_stand() {
    let gateway = Gateway::with(TABLES).await;
    let alice = gateway.login("alice").await;
    for path in ["/lines/x", "/headers/x", "/told/x"] {
        for second in [alice.token(), "other"] {
            let head = format!(
                "GET {path} HTTP/1.1\r\nauthorization: Bearer {}\r\nHost: a\r\nX-A: b\r\nAUTHORIZATION: Bearer {second}\r\n\r\n",
                alice.token()
            );
            let answer = exchange(gateway.address(), head).await.unwrap();
            assert_eq!((answer.status, &answer.json()["code"]), (400, &"ambiguous_token".into()), "{path} {second}");
        }
    }
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn what_connection_names_is_not_passed_on() {
    let gateway = Gateway::with(TABLES).await;
    let alice = gateway.login("alice").await;
    let lines = "Connection: keep-alive, X-Hop, user-agent\r\nX-Hop: 1\r\nUser-Agent: me\r\nX-Kept: 2\r\n";
    for path in ["/lines/x", "/headers/x"] {
        let request = arrived(&gateway, &alice, path, lines).await;
        assert!(request.all("x-hop").is_empty() && request.all("user-agent").is_empty(), "{path}");
        assert_eq!(request.all("x-kept"), ["2"], "{path}");
    }
}

/// The values that a client sent under this name.
fn sent<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let lines = text.split_terminator("\r\n").filter_map(|line| line.split_once(':'));
    lines.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim_matches([' ', '\t'])).collect()
}

/// Names that pass, names that do not, and names that look like either.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "User-Agent",
            "accept",
            "Content-Type",
            "REFERER",
            "X-App-Version",
            "x-a",
            "X-Requested-With",
            "Range",
            "App-Version",
            "X-WX-OPENID",
            "x_wx_openid",
            "X-Forwarded-For",
            "X_Forwarded_Host",
            "Via",
            "TE",
            "X-Real-IP",
            "X-Request-Id",
            "Cookie",
            "Origin",
            "Keep-Alive",
            "Proxy",
            "X-Wxgate-Roles",
            "X.Wxgate.Member",
            "Sec-Fetch-Site",
            "X-Accel-Redirect",
            "Upgrade",
        ])
        .prop_map(str::to_owned),
        "[xX][-_][a-zA-Z0-9_.-]{0,12}",
        "[a-wA-W][a-zA-Z-]{10,40}",
    ]
}

/// Whether a field is passed on does not depend on whether it travels as a line or as a header.
#[test]
fn lines_and_headers_carry_the_same_fields() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (gateway, alice) = runtime.block_on(async {
        let gateway = Gateway::with(TABLES).await;
        let alice = gateway.login("alice").await;
        (gateway, alice)
    });
    let blanks = || prop::sample::select(vec!["", " ", "  ", "\t"]);
    let line = (name(), blanks(), "[!-~]([ -~]{0,20}[!-~])?", blanks(), prop::bool::weighted(0.1));
    proptest!(ProptestConfig::with_cases(256), |(lines in prop::collection::vec(line, 0..12))| {
        let mut text = String::new();
        for (name, before, value, after, nominated) in &lines {
            text.push_str(&format!("{name}:{before}{value}{after}\r\n"));
            if *nominated {
                text.push_str(&format!("Connection: {name}\r\n"));
            }
        }
        let [lines, headers] = ["/lines/x", "/headers/x"].map(|path| runtime.block_on(arrived(&gateway, &alice, path, &text)));
        prop_assert_eq!(fields(&lines), fields(&headers));
        // And fields of one name keep their order.
        let ours = ["x-forwarded-", "x-original-", "x-request-id", "x-wx", "forwarded", "via", "traceparent", "host", "content-length"];
        for (name, _) in lines.headers.iter().filter(|(name, _)| !ours.iter().any(|ours| name.to_lowercase().starts_with(ours))) {
            prop_assert_eq!(lines.all(name), sent(&text, name), "{}", name);
        }
    });
    drop(runtime.enter());
}
