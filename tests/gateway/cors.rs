//! What pages of other origins may do, and what they can never get.

use crate::support::gateway::Gateway;
use crate::support::raw::{Response, exchange};
use crate::support::upstream::{After, Upstream};

const PAGE: &str = "https://m.example.com";

/// A route for members, open to pages of [`PAGE`], and one that is not.
const TABLES: &str = r#"
[[route]]
path = "/api/*"
methods = ["GET", "POST"]
upstream = "echo"
cors = { origins = ["https://m.example.com", "http://localhost:8080"], expose = ["X-Total"] }

[[route]]
path = "/closed/*"
upstream = "echo"

[[route]]
path = "/cookies/*"
upstream = "echo"
auth = "none"
cors = { origins = ["https://m.example.com"], credentials = true, methods = ["PUT"], headers = ["X-A"], max_age = "1h" }
"#;

async fn send(gateway: &Gateway, line: &str, fields: &str) -> Response {
    exchange(gateway.address(), format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await.unwrap()
}

async fn preflight(gateway: &Gateway, path: &str, origin: &str, method: &str) -> Response {
    let fields = format!("Origin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n");
    send(gateway, &format!("OPTIONS {path}"), &fields).await
}

fn granted(response: &Response) -> Vec<&str> {
    let fields = &response.headers.0;
    fields
        .iter()
        .filter(|(n, _)| n.to_ascii_lowercase().starts_with("access-control-"))
        .map(|(_, v)| v.as_str())
        .collect()
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_token_and_without_the_service() {
    let gateway = Gateway::with(TABLES).await;
    let answer = preflight(&gateway, "/api/a", PAGE, "POST").await;
    assert_eq!((answer.status, answer.text()), (204, ""));
    for (name, value) in [
        ("access-control-allow-origin", PAGE),
        ("access-control-allow-methods", "GET, POST"),
        ("access-control-allow-headers", "authorization, content-type"),
        ("access-control-max-age", "600"),
        ("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    ] {
        assert_eq!(answer.headers.get(name), Some(value), "{name}");
    }
    assert_eq!(answer.headers.get("access-control-allow-credentials"), None);
    let answer = preflight(&gateway, "/cookies/a", PAGE, "DELETE").await;
    assert_eq!(granted(&answer).len(), 5);
    for (name, value) in [
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "x-a"),
        ("access-control-max-age", "3600"),
    ] {
        assert_eq!(answer.headers.get(name), Some(value), "{name}");
    }
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn other_origins_get_nothing_whatever_they_look_like() {
    let gateway = Gateway::with(TABLES).await;
    for origin in [
        "https://evil.example",
        "https://m.example.com.evil.example",
        "https://x.m.example.com",
        "http://m.example.com",
        "https://M.example.com",
        "https://m.example.com:443",
        "https://m.example.com/",
        "null",
        "*",
        "https://m.example.com https://evil.example",
        "https://m.example.com\r\nOrigin: https://evil.example",
    ] {
        for path in ["/api/a", "/cookies/a"] {
            let answer = preflight(&gateway, path, origin, "POST").await;
            assert_eq!(answer.status, 403, "{origin}");
            assert_eq!(answer.json()["code"], "origin_forbidden", "{origin}");
            assert!(granted(&answer).is_empty(), "{origin}");
        }
        let answer = send(&gateway, "GET /cookies/a", &format!("Origin: {origin}\r\n")).await;
        assert_eq!((answer.status, granted(&answer).len()), (200, 0), "{origin}");
        assert_eq!(answer.headers.get("vary"), Some("Origin"));
    }
}

#[tokio::test]
async fn a_plain_options_is_a_request_like_any_other() {
    let gateway = Gateway::with(TABLES).await;
    for fields in [
        String::new(),
        format!("Origin: {PAGE}\r\n"),
        "Access-Control-Request-Method: POST\r\n".to_owned(),
        format!("Origin: {PAGE}\r\nAccess-Control-Request-Method: a b\r\n"),
    ] {
        assert_eq!(send(&gateway, "OPTIONS /closed/a", &fields).await.status, 401, "{fields}");
        assert_eq!(send(&gateway, "OPTIONS /api/a", &fields).await.status, 405, "{fields}");
    }
    // A whole preflight for a route that says nothing of origins, and for one that is not there.
    assert_eq!(preflight(&gateway, "/closed/a", PAGE, "GET").await.status, 401);
    assert_eq!(preflight(&gateway, "/nowhere", PAGE, "GET").await.status, 404);
    assert_eq!(preflight(&gateway, "/api/a", PAGE, "DELETE").await.status, 405);
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn a_page_may_read_answers_and_refusals() {
    let gateway = Gateway::with(TABLES).await;
    let alice = gateway.login("alice").await;
    let origin = format!("Origin: {PAGE}\r\n");
    let answer = send(&gateway, "GET /api/a", &format!("{origin}Authorization: Bearer {}\r\n", alice.token())).await;
    assert_eq!(answer.status, 200);
    let refusal = send(&gateway, "GET /api/a", &origin).await;
    assert_eq!(refusal.status, 401);
    for answer in [answer, refusal] {
        assert_eq!(answer.headers.get("access-control-allow-origin"), Some(PAGE));
        assert_eq!(answer.headers.get("access-control-expose-headers"), Some("x-total"));
        assert_eq!(answer.headers.get("vary"), Some("Origin"));
    }
    let other = send(&gateway, "GET /api/a", "").await;
    assert_eq!((granted(&other).len(), other.headers.get("vary")), (0, Some("Origin")));
}

#[tokio::test]
async fn what_the_service_says_about_origins_does_not_count() {
    let answer = "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\naccess-control-allow-credentials: true\r\n\
                  Access-Control-Allow-Origin: https://evil.example\r\nVary: Accept\r\nContent-Length: 0\r\n\r\n";
    let service = Upstream::scripted([(answer, After::Close), (answer, After::Close)]).await;
    let gateway = Gateway::with(&format!(
        "[[upstream]]\nname = \"s\"\nservers = [\"{}\"]\n[[route]]\npath = \"/s\"\nupstream = \"s\"\nauth = \"none\"\n\
         cors = {{ origins = [\"{PAGE}\"] }}\n",
        service.url()
    ))
    .await;
    let answer = send(&gateway, "GET /s", "Origin: https://evil.example\r\n").await;
    assert_eq!((answer.status, granted(&answer).len()), (200, 0));
    let answer = send(&gateway, "GET /s", &format!("Origin: {PAGE}\r\n")).await;
    assert_eq!(granted(&answer), [PAGE]);
    let vary: Vec<&str> = answer.headers.0.iter().filter(|(n, _)| n == "vary").map(|(_, v)| v.as_str()).collect();
    assert_eq!(vary, ["Accept", "Origin"]);
}
