//! What routes do to requests and answers on their way: headers, paths, redirects, compression, addresses, pages.

use std::io::Read as _;

use crate::support::gateway::{Answer, Gateway};
use crate::support::raw::{Response, exchange};
use crate::support::upstream::{After, Upstream};

const TABLES: &str = r#"
server.trusted_proxies = ["127.0.0.1"]
[[route]]
path = "/old/{shop}/items/*"
upstream = "echo"
rewrite = { path = "/v2/{shop}/*", host = "shop.internal:8080" }

[[route]]
path = "/headers/*"
upstream = "echo"
auth = "none"
[route.headers]
request = { remove = ["X-Debug", "cookie"], set = ["X-Env: production", "Authorization: Basic eDp5"], add = ["X-Tag: two"] }
response = { remove = ["x-content"], set = ["Cache-Control: public, max-age=60"], add = ["Strict-Transport-Security: max-age=1"] }

[[route]]
path = "/headers/members/*"
upstream = "echo"
headers = { response = { set = ["Cache-Control: public"] } }

[[route]]
path = "/gone/*"
auth = "none"
redirect = { to = "https://www.example.com/new/*", status = 308 }
headers = { response = { set = ["Cache-Control: max-age=60"] } }

[[route]]
path = "/moved/{id}"
auth = "none"
redirect = { to = "/api/{id}/" }

[[route]]
path = "/away/*"
auth = "none"
redirect = { to = "/*" }

[[route]]
path = "/members-only/*"
redirect = { to = "/x/*" }

[[route]]
path = "/office/*"
upstream = "echo"
auth = "none"
allow = ["10.0.0.0/8", "2001:db8::/32"]
deny = ["10.9.0.0/16"]
"#;

async fn send(gateway: &Gateway, target: &str, fields: &str) -> Response {
    exchange(gateway.address(), format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await.unwrap()
}

async fn location(gateway: &Gateway, target: &str) -> (u16, String) {
    let answer = send(gateway, target, "").await;
    (answer.status, answer.headers.get("location").unwrap_or("-").to_owned())
}

#[tokio::test]
async fn the_path_and_host_that_a_route_says_are_forwarded_and_the_true_host_is_told() {
    let gateway = Gateway::with(TABLES).await;
    let alice = gateway.login("alice").await;
    let answer = gateway.get("/old/7/items//a/./b/?x=%2F", Some(alice.token())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let [request] = gateway.upstream.requests().try_into().unwrap();
    assert_eq!(request.request_line, "GET /v2/7/a/b/?x=%2F HTTP/1.1");
    assert_eq!(request.all("host"), ["shop.internal:8080"]);
    assert_eq!(request.all("x-forwarded-host"), [gateway.address().to_string()]);
    // What was asked for is refused or authorised, never what it becomes.
    assert_eq!(gateway.get("/old/7/items/a", None).await.code(), "token_missing");
    for ambiguous in ["/old/7/items/..%2Fx", "/old/%2e%2e%2fx/items/a", "/old/7/items/a;b"] {
        assert_eq!(send(&gateway, ambiguous, "").await.json()["code"], "ambiguous_path", "{ambiguous}");
    }
    assert_eq!(gateway.upstream.requests().len(), 1);
}

#[tokio::test]
async fn headers_are_removed_set_and_added_both_ways() {
    let gateway = Gateway::with(TABLES).await;
    let fields =
        "X-Debug: 1\r\nCookie: a=b\r\nX-Env: evil\r\nX-Env: worse\r\nX-Tag: one\r\nAuthorization: Bearer x\r\n";
    let answer = send(&gateway, "/headers/x", fields).await;
    assert_eq!(answer.headers.get("cache-control"), Some("public, max-age=60"));
    assert_eq!(answer.headers.get("strict-transport-security"), Some("max-age=1"));
    let [request] = gateway.upstream.requests().try_into().unwrap();
    assert_eq!((request.all("x-debug"), request.all("cookie")), (vec![], vec![]));
    assert_eq!((request.all("x-env"), request.all("x-tag")), (vec!["production"], vec!["one", "two"]));
    assert_eq!(request.all("authorization"), ["Basic eDp5"], "the route's own, and not the caller's");
}

#[tokio::test]
async fn a_rule_about_caching_never_reaches_a_refusal() {
    let gateway = Gateway::with(TABLES).await;
    let refused = gateway.get("/headers/members/x", None).await;
    assert_eq!(
        (refused.code().as_str(), refused.headers["cache-control"].to_str().unwrap()),
        ("token_missing", "no-store")
    );
    let alice = gateway.login("alice").await;
    let answer = gateway.get("/headers/members/x", Some(alice.token())).await;
    assert_eq!(answer.headers["cache-control"], "public");
}

#[tokio::test]
async fn a_redirect_keeps_segments_and_query_and_never_lets_a_link_choose_the_site() {
    let gateway = Gateway::with(TABLES).await;
    for (target, status, to) in [
        ("/gone/a/b?c=d", 308, "https://www.example.com/new/a/b?c=d"),
        ("/gone", 308, "https://www.example.com/new"),
        ("/moved/7?x", 307, "/api/7/?x"),
        ("/away//evil.example/x", 307, "/evil.example/x"),
        ("/away/", 307, "/"),
        ("/away/.//evil.example", 307, "/evil.example"),
        ("/away/%2e/%2E%2e/away/x", 307, "/x"),
        ("/away/https:/evil.example", 307, "/https:/evil.example"),
        ("/away/@evil.example", 307, "/@evil.example"),
    ] {
        assert_eq!(location(&gateway, target).await, (status, to.to_owned()), "{target}");
    }
    for ambiguous in
        ["/away/%2Fevil.example", "/away/%5Cevil.example", "/away/\\evil.example", "/moved/%2F%2Fevil.example"]
    {
        assert_eq!(send(&gateway, ambiguous, "").await.status, 400, "{ambiguous}");
    }
    assert_eq!(send(&gateway, "/gone/a", "").await.headers.get("cache-control"), Some("max-age=60"));
    assert_eq!(send(&gateway, "/members-only/a", "").await.status, 401, "a redirect asks for a token like any route");
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn an_address_is_the_true_clients_and_nobody_elses_word() {
    let gateway = Gateway::with(TABLES).await;
    let ask = async |from: &str| {
        let fields = format!("X-Forwarded-For: {from}\r\n");
        let answer = send(&gateway, "/office/x", &fields).await;
        (answer.status, answer.json()["code"].as_str().map(str::to_owned))
    };
    let refused = (403, Some("forbidden".to_owned()));
    for inside in ["10.1.2.3", "192.0.2.1, 10.1.2.3", "2001:db8::7", "::ffff:10.1.2.3"] {
        assert_eq!(ask(inside).await.0, 200, "{inside}");
    }
    for outside in ["10.9.1.1", "192.0.2.1", "10.1.2.3, 192.0.2.1", "nonsense", "fd00::1"] {
        assert_eq!(ask(outside).await, refused, "{outside}");
    }
    assert_eq!(send(&gateway, "/office/x", "X-Real-IP: 10.1.2.3\r\nForwarded: for=10.1.2.3\r\n").await.status, 403);
    // Without a trusted proxy, nobody can say that he is somebody else.
    let untrusting = Gateway::with(&TABLES.replace("server.trusted_proxies = [\"127.0.0.1\"]", "")).await;
    assert_eq!(send(&untrusting, "/office/x", "X-Forwarded-For: 10.1.2.3\r\n").await.status, 403);
    assert!(untrusting.upstream.requests().is_empty());
}

const COMPRESSING: &str = r#"
[[route]]
path = "/api/*"
upstream = "echo"
auth = "none"
compress = { min_size = "100B" }
[[route]]
path = "/plain/*"
upstream = "echo"
auth = "none"
"#;

#[tokio::test]
async fn answers_are_compressed_where_the_route_asks_for_it_and_the_client_takes_it() {
    let gateway = Gateway::with(COMPRESSING).await;
    let plain = send(&gateway, "/plain/x", "Accept-Encoding: gzip, br, zstd\r\n").await;
    assert_eq!((plain.headers.get("content-encoding"), plain.headers.get("vary")), (None, None));
    for coding in ["gzip", "br", "zstd"] {
        let answer = send(&gateway, "/api/x", &format!("Accept-Encoding: {coding}\r\n")).await;
        assert_eq!((answer.status, answer.headers.get("content-encoding")), (200, Some(coding)));
        assert_eq!(answer.headers.get("vary").map(str::to_ascii_lowercase).as_deref(), Some("accept-encoding"));
        assert!(!answer.body.starts_with(b"{"), "{coding}");
    }
    let answer = send(&gateway, "/api/x", "Accept-Encoding: gzip\r\n").await;
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*answer.body).read_to_string(&mut text).unwrap();
    assert!(text.contains("GET /api/x HTTP/1.1"), "{text}");
    // A client that says nothing gets it as it is, and a cache is told that there are two.
    let answer = send(&gateway, "/api/x", "").await;
    assert_eq!((answer.headers.get("content-encoding"), answer.headers.get("vary")), (None, Some("accept-encoding")));
}

#[tokio::test]
async fn a_stream_that_is_compressed_stays_a_stream() {
    let gateway = Gateway::with(COMPRESSING).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let first = format!("{head}5\r\nfirst\r\n");
    let upstream = Upstream::scripted([(first, After::KeepOpen)]).await;
    let tables = COMPRESSING.replace("\"echo\"", "\"held\"");
    let tables = format!("[[upstream]]\nname = \"held\"\nservers = [\"http://{}\"]\n{tables}", upstream.address());
    let streaming = Gateway::with(&tables).await;
    let request = streaming.client().get(streaming.url("/api/x")).header("accept-encoding", "gzip");
    let mut answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    // The upstream has not ended, and what it has sent can be read all the same.
    let mut seen = Vec::new();
    let wait = async {
        loop {
            seen.extend_from_slice(&answer.chunk().await.unwrap().unwrap());
            let mut text = [0; 5];
            if flate2::read::GzDecoder::new(&*seen).read_exact(&mut text).is_ok() {
                return text;
            }
        }
    };
    let text = tokio::time::timeout(crate::support::DEADLINE, wait).await.expect("it was held back");
    assert_eq!(&text, b"first");
    drop(gateway);
}

#[tokio::test]
async fn browsers_get_pages_in_place_of_problems_and_everybody_else_the_problem() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("404.html"), "<h1>{{status}}: {{title}}</h1><p>{{request_id}} {{other}}").unwrap();
    std::fs::write(dir.path().join("any.html"), "<h1>Sorry</h1>").unwrap();
    let tables = "[[error_page]]\nstatus = [404]\nfile = \"404.html\"\n[[error_page]]\nfile = \"any.html\"\n\
                  [[route]]\npath = \"/api/*\"\nupstream = \"echo\"\n\
                  [[route]]\npath = \"/public/*\"\nupstream = \"echo\"\nauth = \"none\"\n";
    let gateway = Gateway::in_dir(dir, tables).await;
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let ask = async |path: &str, accept: &str| {
        let request = gateway.client().get(gateway.url(path)).header("accept", accept);
        Answer::of(request.send().await.unwrap()).await
    };
    let page = ask("/nowhere/<script>alert(1)</script>?<b>", browser).await;
    assert_eq!((page.status, page.headers["content-type"].to_str().unwrap()), (404, "text/html; charset=utf-8"));
    let id = page.body.strip_prefix("<h1>404: Nothing is here</h1><p>").unwrap().strip_suffix(" {{other}}").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert!(page.headers.get_all("vary").iter().any(|value| value == "Accept"));
    let refused = ask("/api/x", browser).await;
    assert_eq!((refused.status, refused.body.as_str()), (401, "<h1>Sorry</h1>"));
    assert!(refused.headers.contains_key("www-authenticate"));
    let problem = ask("/nowhere", "*/*").await;
    assert_eq!((problem.code().as_str(), problem.headers["vary"].to_str().unwrap()), ("route_not_found", "Accept"));
    assert_eq!(ask("/nowhere", "application/json, text/html").await.code(), "route_not_found");
    // An upstream's own error is its own.
    let own = ask("/public/status/404", browser).await;
    assert_eq!((own.status, own.json()["request_line"].as_str()), (404, Some("GET /public/status/404 HTTP/1.1")));
}

#[tokio::test]
async fn a_fixed_answer_may_come_from_a_file_and_have_a_type() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("apple.json"), "{}").unwrap();
    let tables = "[[static]]\npath = \"/apple-app-site-association\"\nfile = \"apple.json\"\ncontent_type = \"application/json\"\n";
    let gateway = Gateway::in_dir(dir, tables).await;
    let answer = gateway.get("/apple-app-site-association", None).await;
    assert_eq!((answer.body.as_str(), answer.headers["content-type"].to_str().unwrap()), ("{}", "application/json"));
}
