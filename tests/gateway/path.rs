//! One reading of the request line, the host and the path: what was authorised is what is forwarded.

use proptest::prelude::*;

use crate::support::gateway::Gateway;
use crate::support::raw::{Client, exchange};

/// `GET` of this target, without a token.
fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
}

async fn refused(gateway: &Gateway, bytes: impl AsRef<[u8]>, status: u16, code: &str) {
    let shown = bytes.as_ref()[..bytes.as_ref().len().min(100)].escape_ascii().to_string();
    let mut client = Client::connect(gateway.address()).await;
    client.send(bytes).await;
    let answer = client.response().await.unwrap_or_else(|e| panic!("{shown}: {e}"));
    assert_eq!(answer.status, status, "{shown}: {}", answer.text());
    assert_eq!(answer.json()["code"], code, "{shown}");
    assert!(gateway.upstream.requests().is_empty(), "{shown}");
}

#[tokio::test]
async fn a_request_for_no_one_host_is_refused() {
    let gateway = Gateway::start().await;
    for lines in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host:\r\n",
        "Host: user@a\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: a:b\r\n",
        "Host: a:\r\n",
        "Host: a:123456\r\n",
        "Host: a,b\r\n",
        "Host: [::1\r\n",
        "Host: a?b\r\n",
        "Host: a#b\r\n",
        "Host: %61\r\n",
        "Host: a\\b\r\n",
        "Host : a\r\n",
    ] {
        refused(&gateway, format!("GET /public/x HTTP/1.1\r\n{lines}\r\n"), 400, "invalid_request").await;
    }
    for (target, host) in
        [("http://evil.example/public/x", "a"), ("http://a@b/public/x", "b"), ("https://a:81/public/x", "a")]
    {
        refused(&gateway, format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn an_absolute_target_of_the_same_host_is_forwarded_as_a_path() {
    let gateway = Gateway::start().await;
    let request = "GET http://A.example:80/public/../public//x?q HTTP/1.1\r\nHost: a.example:80\r\n\r\n";
    let echoed = exchange(gateway.address(), request).await.unwrap().json();
    assert_eq!(echoed["request_line"], "GET /public/x?q HTTP/1.1");
    assert_eq!(gateway.upstream.requests()[0].all("host"), ["a.example:80"]);
}

#[tokio::test]
async fn a_request_line_that_is_not_the_grammar_is_refused() {
    let gateway = Gateway::start().await;
    for (line, status, code) in [
        ("GET /public/x", 400, "invalid_request"),
        ("GET /public/x HTTP/2.0", 505, "version_not_supported"),
        ("GET /public/x HTTP/0.9", 505, "version_not_supported"),
        ("GET /public/x HTTP/1.2", 505, "version_not_supported"),
        ("GET /public/x http/1.1", 400, "invalid_request"),
        ("GET /public/x HTTP/1.1 x", 400, "invalid_request"),
        ("GET /public/x  HTTP/1.1", 400, "invalid_request"),
        ("GET  /public/x HTTP/1.1", 400, "invalid_request"),
        ("GET\t/public/x HTTP/1.1", 400, "invalid_request"),
        (" GET /public/x HTTP/1.1", 400, "invalid_request"),
        ("GET /public/x HTTP/1.1 ", 400, "invalid_request"),
        ("G(T /public/x HTTP/1.1", 400, "invalid_request"),
        ("GET public/x HTTP/1.1", 400, "invalid_request"),
        ("GET /public/x#fragment HTTP/1.1", 400, "invalid_request"),
        ("GET ftp://a/public/x HTTP/1.1", 400, "invalid_request"),
        ("GET wxgate://refused/internal HTTP/1.1", 400, "invalid_request"),
        ("CONNECT a:443 HTTP/1.1", 501, "not_implemented"),
        ("TRACE /public/x HTTP/1.1", 501, "not_implemented"),
        ("OPTIONS * HTTP/1.1", 501, "not_implemented"),
        ("PRI * HTTP/2.0", 505, "version_not_supported"),
    ] {
        refused(&gateway, format!("{line}\r\nHost: a\r\n\r\n"), status, code).await;
    }
}

#[tokio::test]
async fn a_path_that_servers_read_in_different_ways_is_refused() {
    let gateway = Gateway::start().await;
    for path in [
        "/public/%2fapi/x",
        "/public/..%2fapi/x",
        "/public%2Fx",
        "/public/%5c..%5capi",
        "/public/..;/api/x",
        "/public/x;y=1/z",
        "/public/%252e%252e/api/x",
        "/public/%252fapi",
        "/public/%25252e%25252e/api",
        "/public/%255capi",
        "/public/%00",
        "/public/%0d%0aX:y",
        "/public/%09",
        "/public/%7f",
        "/public/%c0%af..",
        "/public/%c0%ae%c0%ae/api",
        "/public/%e0%80%af",
        "/public/%ff",
        "/public/%ef%bc%8fapi",
        "/public/%ef%bc%8e%ef%bc%8e/api",
        "/public/%",
        "/public/%2",
        "/public/%zz",
        "/public/%u002e",
    ] {
        refused(&gateway, get(path), 400, "ambiguous_path").await;
    }
    // A backslash does not get so far: hyper's own grammar has no such target.
    for path in ["/public\\..\\api/x", "/public/\\x"] {
        let answer = exchange(gateway.address(), get(path)).await.unwrap();
        assert_eq!(answer.status, 400, "{path}");
    }
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn dots_and_slashes_are_resolved_before_the_route_is_chosen() {
    let gateway = Gateway::start().await;
    for path in [
        "/public/../api/x",
        "/public/%2e%2e/api/x",
        "/public/.%2E/api/x",
        "/public/%2e./api/x",
        "/public/./../api/x",
        "//api/x",
        "/./api/x",
        "/api//x",
        "/public//..//api//x",
        "/public/a/../../api/x",
        "/../../api/x",
        "/%61pi/x",
    ] {
        let answer = exchange(gateway.address(), get(path)).await.unwrap();
        assert_eq!((answer.status, &answer.json()["code"]), (401, &"token_missing".into()), "{path}");
    }
    assert!(gateway.upstream.requests().is_empty());
    for (path, forwarded) in [
        ("/api/../public/x", "/public/x"),
        ("/public//x", "/public/x"),
        ("/public/./x/", "/public/x/"),
        ("/public/%7Ex/%41", "/public/~x/A"),
        ("/public/%e4%b8%ad", "/public/%E4%B8%AD"),
        ("/public/x?a=/../api;%2f%00", "/public/x?a=/../api;%2f%00"),
        ("/public?", "/public?"),
        ("/public/a/..", "/public/"),
        ("/public/...", "/public/..."),
        ("/public/.x", "/public/.x"),
        ("/public/a:b@c,d=e!$&'()*+", "/public/a:b@c,d=e!$&'()*+"),
    ] {
        let echoed = exchange(gateway.address(), get(path)).await.unwrap();
        assert_eq!(echoed.status, 200, "{path}: {}", echoed.text());
        assert_eq!(echoed.json()["request_line"], format!("GET {forwarded} HTTP/1.1"), "{path}");
    }
}

#[tokio::test]
async fn another_case_is_another_path_and_what_no_route_names_is_refused() {
    let gateway = Gateway::start().await;
    for path in ["/API/x", "/Public/x", "/PUBLIC/x", "/publi", "/publicx", "/", "/public.", "/nothing"] {
        refused(&gateway, get(path), 404, "route_not_found").await;
    }
}

#[tokio::test]
async fn a_target_over_its_limit_is_414_and_one_at_it_is_forwarded() {
    let gateway = Gateway::with(&format!("server.max_uri = \"1KiB\"\n{}", crate::support::gateway::ROUTES)).await;
    let target = |length: usize| format!("/public/{}", "x".repeat(length - 8));
    refused(&gateway, get(&target(1025)), 414, "uri_too_long").await;
    refused(&gateway, get(&format!("/public/x?{}", "q".repeat(64 << 10))), 414, "uri_too_long").await;
    assert_eq!(exchange(gateway.address(), get(&target(1024))).await.unwrap().status, 200);
}

/// One piece of a path and what it stands for.
#[derive(Debug, Clone, Copy)]
enum Piece {
    /// Itself, spelled so when forwarded.
    Name(&'static str),
    /// This directory.
    Same,
    /// The one above.
    Up,
    /// More than one reading.
    Ambiguous,
}

const PIECES: &[(&str, Piece)] = &[
    ("api", Piece::Name("api")),
    ("%61pi", Piece::Name("api")),
    ("ap%69", Piece::Name("api")),
    ("public", Piece::Name("public")),
    ("PUBLIC", Piece::Name("PUBLIC")),
    ("public%2e", Piece::Name("public.")),
    ("x", Piece::Name("x")),
    ("%78", Piece::Name("x")),
    ("a%20b", Piece::Name("a%20b")),
    ("%e4%b8%ad", Piece::Name("%E4%B8%AD")),
    ("%E4%b8%AD", Piece::Name("%E4%B8%AD")),
    ("~", Piece::Name("~")),
    ("%7e", Piece::Name("~")),
    ("...", Piece::Name("...")),
    (".a", Piece::Name(".a")),
    ("%25", Piece::Name("%25")),
    ("%3b", Piece::Name("%3B")),
    ("a+b", Piece::Name("a+b")),
    ("a%2Bb", Piece::Name("a%2Bb")),
    ("", Piece::Same),
    (".", Piece::Same),
    ("%2e", Piece::Same),
    ("%2E", Piece::Same),
    ("..", Piece::Up),
    ("%2e%2e", Piece::Up),
    (".%2E", Piece::Up),
    ("%2e.", Piece::Up),
    ("%2f", Piece::Ambiguous),
    ("..%2F", Piece::Ambiguous),
    ("%5C", Piece::Ambiguous),
    ("a;b", Piece::Ambiguous),
    ("..;", Piece::Ambiguous),
    ("%252e%252e", Piece::Ambiguous),
    ("%252F", Piece::Ambiguous),
    ("%00", Piece::Ambiguous),
    ("%0A", Piece::Ambiguous),
    ("%c0%af", Piece::Ambiguous),
    ("%80", Piece::Ambiguous),
    ("%zz", Piece::Ambiguous),
    ("%2", Piece::Ambiguous),
];

/// What should become of such a path, worked out piece by piece and in no way like the gateway does it: the segments, and
/// whether a slash ends them. `None` when it must be refused.
fn model(pieces: &[Piece]) -> Option<(Vec<&'static str>, bool)> {
    let mut stack = Vec::new();
    let mut open = false;
    for piece in pieces {
        open = !matches!(piece, Piece::Name(_));
        match piece {
            Piece::Name(name) => stack.push(*name),
            Piece::Same => {}
            Piece::Up => drop(stack.pop()),
            Piece::Ambiguous => return None,
        }
    }
    Some((stack, open))
}

/// Promise 2.
#[test]
fn the_path_that_was_authorised_is_after_the_routes_own_rewrite_the_path_that_is_forwarded() {
    let routes = "
        [[route]]
        path = \"/api/*\"
        upstream = \"echo\"
        strip_prefix = \"/api\"
        [[route]]
        path = \"/public/*\"
        upstream = \"echo\"
        strip_prefix = \"/public\"
        auth = \"none\"
        ";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gateway = runtime.block_on(Gateway::with(routes));
    let token = runtime.block_on(gateway.login("alice")).token().to_owned();
    let first = prop_oneof![
        Just(("api", Piece::Name("api"))),
        Just(("public", Piece::Name("public"))),
        prop::sample::select(PIECES)
    ];
    let ordinary: Vec<_> = PIECES.iter().copied().filter(|(_, p)| !matches!(p, Piece::Ambiguous)).collect();
    let rest = prop_oneof![
        3 => prop::collection::vec(prop::sample::select(ordinary), 0..7),
        1 => prop::collection::vec(prop::sample::select(PIECES), 0..7),
    ];
    let query = prop_oneof![Just(""), Just("?"), Just("?a=b"), Just("?next=/../api/%2f;x//y"), Just("?%00%zz")];
    proptest!(ProptestConfig::with_cases(400), |(first in first, rest in rest, query in query, logged_in in any::<bool>())| {
        let (texts, pieces): (Vec<_>, Vec<_>) = std::iter::once(first).chain(rest).unzip();
        let target = format!("/{}{query}", texts.join("/"));
        let authorization = if logged_in { format!("Authorization: Bearer {token}\r\n") } else { String::new() };
        let before = gateway.upstream.requests().len();
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{authorization}\r\n");
        let answer = runtime.block_on(exchange(gateway.address(), request)).unwrap();
        let arrived: Vec<String> = gateway.upstream.requests()[before..].iter().map(|r| r.request_line.clone()).collect();
        let Some((segments, open)) = model(&pieces) else {
            prop_assert_eq!((answer.status, arrived.len()), (400, 0), "{}", target);
            return Ok(());
        };
        let (status, forwarded) = match segments.split_first() {
            Some((&"api", _)) if !logged_in => (401, None),
            Some((&("api" | "public"), below)) => {
                let slash = if open || below.is_empty() { "/" } else { "" };
                let path = format!("/{}{}", below.join("/"), if below.is_empty() { "" } else { slash });
                (200, Some(format!("GET {path}{query} HTTP/1.1")))
            }
            _ => (404, None),
        };
        prop_assert_eq!(answer.status, status, "{}", target);
        prop_assert_eq!(arrived.first(), forwarded.as_ref(), "{}", target);
        prop_assert_eq!(arrived.len(), usize::from(forwarded.is_some()));
    });
}
