//! `wxgate explain` and `wxgate diff`: what the gateway would do, said without doing it.

use tempfile::TempDir;

use crate::support::gateway::Gateway;
use crate::support::process::{Exit, Process};
use crate::support::raw::exchange;

/// The tables of a file that stands alone; `ports` of upstreams that nobody listens on.
const CONFIG: &str = r#"
[server]
trusted_proxies = ["127.0.0.1"]
[token]
issuer = "https://api.example.com"
[[app]]
appid = "wx0123456789abcdef"
secret = "${NOT_SET_HERE}"
[[upstream]]
name = "orders"
servers = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
health = { path = "/healthz" }
"#;

const ROUTES: &str = r#"
[[route]]
path = "/api/*"
upstream = "orders"

[[route]]
path = "/api/{shop}/items/*"
upstream = "orders"
methods = ["GET"]
roles = ["staff"]
rewrite = { path = "/v2/{shop}/*", host = "orders.internal" }
headers = { request = { remove = ["X-Debug"], set = ["X-Key: planted-key"] }, response = { add = ["X-Frame-Options: DENY"] } }

[[route]]
path = "/api/{shop}/items/*"
host = ["shop.example.com"]
upstream = "orders"

[[route]]
path = "/open"
upstream = "orders"
auth = "none"
allow = ["10.0.0.0/8"]

[[route]]
path = "/gone/*"
auth = "none"
redirect = { to = "https://www.example.com/*" }
"#;

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("gateway.toml"), format!("{CONFIG}{ROUTES}")).unwrap();
    folder
}

async fn wxgate(folder: &TempDir, args: &[&str]) -> (Exit, Vec<String>, Vec<String>) {
    let mut process = Process::wxgate_in(folder.path(), args);
    let exit = process.exit().await;
    let output = process.output();
    (exit, output.stdout, output.stderr)
}

async fn explain(folder: &TempDir, args: &[&str]) -> Vec<String> {
    let (exit, lines, errors) = wxgate(folder, &[&["explain"], args].concat()).await;
    assert_eq!(exit, Exit::Code(0), "{errors:?}");
    lines
}

#[tokio::test]
async fn a_request_is_explained_from_route_to_server() {
    let folder = folder();
    let question =
        ["GET", "https://api.example.com/api/7//items/./a?x=1", "--openid", "alice", "--roles", "staff,boss"];
    let lines = explain(&folder, &[&question[..], &["-H", "X-Debug: 1", "-H", "X-WX-OPENID: evil"]].concat()).await;
    for expected in [
        "request    GET https://api.example.com/api/7//items/./a?x=1 from 192.0.2.1",
        "path       /api/7/items/a once it is canonical",
        "route      /api/{shop}/items/* [GET]",
        "because    host, path and method fit, and none that fit is more specific",
        "not        /api/*: fits too, and is less specific",
        "not        /api/{shop}/items/* [shop.example.com]: is for other hosts",
        "not        /open: has another path",
        "let in     yes, as openid alice of wx0123456789abcdef (staff, boss)",
        "removed    authorization",
        "removed    x-debug",
        "changed    host: orders.internal",
        "changed    x-wx-openid: alice",
        "added      x-wxgate-roles: staff,boss",
        "added      x-key: (not shown)",
        "goes to    orders: GET /v2/7/a?x=1 (Host: orders.internal)",
        "server     127.0.0.1:1, 127.0.0.1:2: the less loaded of two at random, of those that are well",
        "answer     gets x-frame-options: (not shown)",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
    }
    assert!(!lines.concat().contains("planted-key") && !lines.concat().contains("evil"), "{lines:#?}");
    // Nothing was made or opened: no keys, no database.
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["gateway.toml"]);
}

#[tokio::test]
async fn a_refusal_is_explained_with_its_reason() {
    let folder = folder();
    for (question, expected) in [
        (&["GET", "/api/x"][..], "let in     no: 401 Unauthorized token_missing: A token is needed."),
        (&["GET", "/api/7/items/a", "--openid", "a"], "let in     no: 403 Forbidden forbidden: Not allowed."),
        (&["GET", "/api/7/items/a", "--openid", "a"], "route      /api/{shop}/items/* [GET]"),
        (&["POST", "/api/7/items/a"], "route      /api/*"),
        (&["GET", "/nowhere"], "let in     no: 404 Not Found route_not_found: Nothing is here."),
        (&["GET", "/a%2Fb"], "let in     no: 400 Bad Request ambiguous_path:"),
        (&["GET", "/a%2Fb"], "path       has more than one reading"),
        (
            &["GET", "/open"],
            "let in     no: 403 Forbidden forbidden: Not allowed. This route is not open to clients of this",
        ),
        (&["GET", "/open"], "route      /open"),
        (&["GET", "/open", "--from", "10.1.2.3"], "let in     yes: auth = \"none\""),
        (&["GET", "/open", "--from", "127.0.0.1", "-H", "X-Forwarded-For: 10.1.2.3"], "let in     yes"),
        (&["GET", "/gone/a?b"], "answer     307 Temporary Redirect to https://www.example.com/a?b"),
        (&["GET", "/auth/me"], "route      none: it is one of the gateway's own endpoints"),
        (&["GET", "/healthz"], "route      none: it is the health answer"),
        (&["GET", "/api/x", "--openid", "a", "-H", "Host: shop.example.com"], "route      /api/*"),
    ] {
        let lines = explain(&folder, question).await;
        assert!(lines.iter().any(|line| line.starts_with(expected)), "{question:?}: {expected} in {lines:#?}");
    }
    for wrong in [
        &["GET", "example.com/x"][..],
        &["G T", "/x"],
        &["GET", "/x", "-H", "no header"],
        &["GET", "/x", "--appid", ""],
    ] {
        let (exit, _, errors) = wxgate(&folder, &[&["explain"], wrong].concat()).await;
        assert_eq!((exit, errors.is_empty()), (Exit::Code(1), false), "{wrong:?}");
    }
}

/// What is said and what is done are the same, because it is the same code.
#[tokio::test]
async fn what_is_explained_is_what_a_running_gateway_does() {
    let gateway = Gateway::with(&ROUTES.replace("\"orders\"", "\"echo\"")).await;
    let folder = folder();
    let alice = gateway.login("alice").await;
    for (target, token) in [
        ("/api/a/b", true),
        ("/api/a/b", false),
        ("/api/7/items/x", true),
        ("/nowhere", false),
        ("/a%5cb", false),
        ("/open", false),
        ("/gone/x", false),
        ("/api/../open", true),
    ] {
        let mut question = vec!["GET", target];
        if token {
            question.extend(["--openid", "alice"]);
        }
        let said = explain(&folder, &question).await;
        let bearer = if token { format!("Authorization: Bearer {}\r\n", alice.token()) } else { String::new() };
        let before = gateway.upstream.requests().len();
        let request = format!("GET {target} HTTP/1.1\r\nHost: api.example.com\r\n{bearer}\r\n");
        let done = exchange(gateway.address(), request).await.unwrap();
        let forwarded = gateway.upstream.requests().split_off(before);
        let goes = said.iter().find_map(|line| line.strip_prefix("goes to    orders: "));
        assert_eq!(goes.is_some(), !forwarded.is_empty(), "{target}: {said:#?}");
        if let (Some(goes), [request]) = (goes, &forwarded[..]) {
            assert_eq!(format!("{} HTTP/1.1", goes.split(" (").next().unwrap()), request.request_line);
        }
        if done.status >= 400 {
            let no = format!("let in     no: {} ", done.status);
            assert!(said.iter().any(|line| line.starts_with(&no)), "{target}: {no} in {said:#?}");
        }
    }
}

#[tokio::test]
async fn wxgate_diff_tells_each_change_and_its_direction() {
    let folder = folder();
    let new = format!("{CONFIG}{ROUTES}").replace("roles = [\"staff\"]", "auth = \"optional\"");
    std::fs::write(folder.path().join("new.toml"), new).unwrap();
    let (exit, lines, _) = wxgate(&folder, &["diff", "gateway.toml", "new.toml"]).await;
    assert_eq!(exit, Exit::Code(0));
    assert_eq!(
        lines,
        [
            "looser  [[route]] /api/{shop}/items/* [GET]: auth required -> optional",
            "looser  [[route]] /api/{shop}/items/* [GET]: roles -\"staff\""
        ]
    );
    let (exit, lines, _) = wxgate(&folder, &["diff", "new.toml", "new.toml"]).await;
    assert_eq!((exit, lines), (Exit::Code(0), vec!["nothing changes".to_owned()]));
    std::fs::write(folder.path().join("bad.toml"), "x = 1\n").unwrap();
    let (exit, lines, errors) = wxgate(&folder, &["diff", "bad.toml", "missing.toml"]).await;
    assert_eq!((exit, lines.len()), (Exit::Code(64), 0));
    assert!(errors.iter().any(|line| line.contains("bad.toml:1: x: unknown key")), "{errors:?}");
    assert!(errors.iter().any(|line| line.contains("missing.toml: cannot be read")), "{errors:?}");
}
