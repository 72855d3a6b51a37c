//! Which route a request takes: host, path and method; what the gateway keeps for itself.

use crate::support::gateway::Gateway;
use crate::support::raw::{Client, exchange};
use crate::support::upstream::Upstream;

/// A route table in which the prefix that is stripped tells which route was taken.
async fn gateway_of(routes: &str) -> Gateway {
    let full: String = routes.replace("[[route]]", "[[route]]\nupstream = \"echo\"\nauth = \"none\"");
    Gateway::with(&full).await
}

async fn ask(gateway: &Gateway, method: &str, host: &str, path: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
    let answer = exchange(gateway.address(), request).await.unwrap();
    let line = answer.json()["request_line"].as_str().unwrap_or_default().to_owned();
    (answer.status, line.split(' ').nth(1).unwrap_or_default().to_owned())
}

#[tokio::test]
async fn the_most_specific_route_wins_whatever_the_order_in_the_file() {
    let routes = [
        "[[route]]\npath = \"/a/*\"\nstrip_prefix = \"/a\"\n",
        "[[route]]\npath = \"/a/b/c\"\nstrip_prefix = \"/a/b\"\n",
        "[[route]]\npath = \"/a/{x}/c\"\n",
        "[[route]]\npath = \"/*\"\nauth = \"required\"\n",
    ];
    let backwards: Vec<_> = routes.iter().rev().copied().collect();
    for tables in [routes.concat(), backwards.concat()] {
        let tables = tables.replace("[[route]]", "[[route]]\nupstream = \"echo\"");
        let tables: Vec<String> = tables
            .split_inclusive("[[route]]")
            .map(|part| {
                if part.contains("auth") || part.trim() == "[[route]]" {
                    part.to_owned()
                } else {
                    part.replacen("upstream", "auth = \"none\"\nupstream", 1)
                }
            })
            .collect();
        let gateway = Gateway::with(&tables.concat()).await;
        for (path, expected) in [
            ("/a/b/c", (200, "/c")),
            ("/a/x/c", (200, "/a/x/c")),
            ("/a/x/d", (200, "/x/d")),
            ("/a", (200, "/")),
            ("/ab", (401, "")),
            ("/a//c", (200, "/c")),
        ] {
            let (status, line) = ask(&gateway, "GET", "h", path).await;
            assert_eq!((status, line.as_str()), expected, "{path}");
        }
    }
}

#[tokio::test]
async fn the_host_chooses_the_route_before_the_path_does() {
    let gateway = gateway_of(
        "[[route]]\npath = \"/x/*\"\nstrip_prefix = \"/x\"\n\
         [[route]]\npath = \"/*\"\nhost = [\"shop.example.com\"]\n\
         [[route]]\npath = \"/x/deep/*\"\nhost = [\"*.example.com\"]\nstrip_prefix = \"/x/deep\"\n",
    )
    .await;
    for (host, path, expected) in [
        ("other.test", "/x/deep/y", (200, "/deep/y")),
        ("shop.example.com", "/x/deep/y", (200, "/x/deep/y")),
        ("SHOP.Example.com:8080", "/x/deep/y", (200, "/x/deep/y")),
        ("shop.example.com.", "/x/deep/y", (200, "/x/deep/y")),
        ("a.example.com", "/x/deep/y", (200, "/y")),
        ("example.com", "/x/deep/y", (200, "/deep/y")),
        ("evilexample.com", "/x/deep/y", (200, "/deep/y")),
        ("a.example.com", "/nothing", (404, "")),
    ] {
        let (status, line) = ask(&gateway, "GET", host, path).await;
        assert_eq!((status, line.as_str()), expected, "{host}{path}");
    }
}

#[tokio::test]
async fn a_request_of_an_old_client_without_a_host_takes_a_route_for_any_host() {
    let gateway =
        gateway_of("[[route]]\npath = \"/*\"\n[[route]]\npath = \"/x\"\nhost = [\"a.test\"]\nstrip_prefix = \"/x\"\n")
            .await;
    for (request, line) in [
        ("GET /x HTTP/1.0\r\n\r\n", "GET /x HTTP/1.1"),
        ("GET /x HTTP/1.0\r\nHost: a.test\r\n\r\n", "GET / HTTP/1.1"),
        ("GET http://a.test/x HTTP/1.0\r\n\r\n", "GET / HTTP/1.1"),
    ] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(request).await;
        let text = String::from_utf8(client.until_closed().await.unwrap()).unwrap();
        assert!(text.contains(&format!("{line:?}")), "{request}: {text}");
        let arrived = gateway.upstream.requests();
        assert_eq!(arrived.last().unwrap().all("host").len(), 1, "an HTTP/1.1 request has a Host: {request}");
    }
}

#[tokio::test]
async fn another_method_is_405_and_says_which_would_do() {
    let gateway = gateway_of(
        "[[route]]\npath = \"/items\"\nmethods = [\"GET\", \"POST\"]\n\
         [[route]]\npath = \"/items\"\nmethods = [\"PUT\"]\nstrip_prefix = \"/items\"\n\
         [[static]]\npath = \"/MP_verify_abc.txt\"\nbody = \"abc\"\n",
    )
    .await;
    assert_eq!(ask(&gateway, "GET", "h", "/items").await, (200, "/items".into()));
    assert_eq!(ask(&gateway, "PUT", "h", "/items").await, (200, "/".into()));
    for (method, path, allow) in [
        ("DELETE", "/items", "GET, POST, PUT"),
        ("get", "/items", "GET, POST, PUT"),
        ("POST", "/MP_verify_abc.txt", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let answer = exchange(gateway.address(), request).await.unwrap();
        assert_eq!((answer.status, answer.headers.get("allow")), (405, Some(allow)), "{method} {path}");
        assert_eq!(answer.json()["code"], "method_not_allowed");
    }
    assert_eq!(gateway.upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_domain_proof_file_is_served_as_it_stands() {
    let gateway =
        gateway_of("[[route]]\npath = \"/*\"\n[[static]]\npath = \"/MP_verify_abc.txt\"\nbody = \"abc\"\n").await;
    let answer = gateway.get("/MP_verify_abc.txt", None).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "abc"));
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    let mut client = Client::connect(gateway.address()).await;
    client.send("HEAD /MP_verify_abc.txt HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.response_to_head().await.unwrap();
    assert_eq!((answer.status, answer.headers.get("content-length")), (200, Some("3")));
    assert_eq!(client.response().await.unwrap().status, 200);
    assert_eq!(gateway.upstream.requests().len(), 1);
}

#[tokio::test]
async fn the_gateways_own_paths_are_not_hidden_by_a_route_for_everything() {
    let gateway = gateway_of("[[route]]\npath = \"/*\"\n[[route]]\npath = \"/*\"\nhost = [\"a\"]\n").await;
    for (path, status) in [
        ("/healthz", 200),
        ("/auth/me", 401),
        ("/auth", 404),
        ("/auth/nothing", 404),
        ("/auth/../auth//me", 401),
        ("/.well-known/jwks.json", 200),
        ("/.well-known/nothing", 404),
        ("/%2Ewell-known/nothing", 404),
    ] {
        let answer = exchange(gateway.address(), format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await.unwrap();
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    exchange(gateway.address(), "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(gateway.upstream.requests().is_empty());
    // Names that only look alike are routes.
    for path in ["/authx", "/healthz/", "/healthz/x", "/.well-knownx", "/openapi.json/", "/AUTH/me", "/x/auth/me"] {
        assert_eq!(ask(&gateway, "GET", "a", path).await, (200, path.into()));
    }
}

#[tokio::test]
async fn health_is_told_where_the_configuration_says_or_nowhere() {
    let moved = Gateway::with(
        "server.health_path = \"/up\"\n[[route]]\npath = \"/healthz\"\nupstream = \"echo\"\nauth = \"none\"\n",
    )
    .await;
    assert_eq!(moved.get("/up", None).await.body, "ok\n");
    assert_eq!(moved.get("/healthz", None).await.json()["request_line"], "GET /healthz HTTP/1.1");
    let mut client = Client::connect(moved.address()).await;
    client.send("HEAD /up HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response_to_head().await.unwrap().status, 200);
    let off = Gateway::with("server.health_path = \"\"\n[[route]]\npath = \"/api/*\"\nupstream = \"echo\"\n").await;
    assert_eq!(off.get("/healthz", None).await.code(), "route_not_found");
}

#[tokio::test]
async fn operators_paths_are_not_on_the_public_listener() {
    let gateway = Gateway::start().await;
    let token = std::fs::read_to_string(gateway.dir.path().join("keys/admin.token")).unwrap();
    for path in ["/metrics", "/livez", "/readyz", "/api2/reload", "/debug", "/introspect", "/verify", "/wechat/x/y"] {
        let answer = gateway.get(path, Some(token.trim())).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "route_not_found"), "{path}");
    }
}

/// Threat: an upstream chosen by what a client sends.
#[tokio::test]
async fn no_header_host_or_target_leads_to_another_server() {
    let gateway = Gateway::start().await;
    let elsewhere = Upstream::echo().await;
    let there = elsewhere.address();
    for request in [
        format!("GET http://{there}/public/x HTTP/1.1\r\nHost: {there}\r\n\r\n"),
        format!("GET /public/x HTTP/1.1\r\nHost: {there}\r\n\r\n"),
        format!(
            "GET /public/http://{there}/x HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: {there}\r\nForwarded: host={there}\r\n\r\n"
        ),
        format!("GET /public/x HTTP/1.1\r\nHost: a\r\nX-Original-URL: http://{there}/\r\nX-Upstream: {there}\r\n\r\n"),
    ] {
        assert_eq!(exchange(gateway.address(), request).await.unwrap().status, 200);
    }
    assert_eq!((elsewhere.connections(), gateway.upstream.requests().len()), (0, 4));
}

/// Patterns that a backtracking engine takes for ever over: each step can be taken in two ways, and only the last one tells. The
/// table is a tree, so a request can cost no more than the tree has nodes, however long and however often it nearly matches.
#[tokio::test]
async fn paths_that_nearly_match_in_many_ways_are_answered_all_the_same() {
    const DEPTH: usize = 7;
    let ways = (0..1_usize << DEPTH).map(|way| {
        let steps: String =
            (0..DEPTH).map(|n| if way >> n & 1 == 1 { format!("/{{x{n}}}") } else { "/a".into() }).collect();
        format!("[[route]]\npath = \"/w{steps}/end\"\n")
    });
    let gateway = gateway_of(&ways.chain(["[[route]]\npath = \"/long/*\"\n".to_owned()]).collect::<String>()).await;
    let steps = "/a".repeat(DEPTH);
    assert_eq!(ask(&gateway, "GET", "a", &format!("/w{steps}/end")).await.0, 200);
    // All of the ways are looked at, and none is one; also when the path goes on for as long as it may.
    let near = [format!("/w{steps}/en"), format!("/w{steps}/end/x"), format!("/w{}", "/a".repeat(4000))];
    let mut client = Client::connect(gateway.address()).await;
    for n in 0..300 {
        client.send(format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", near[n % near.len()])).await;
        let answer = client.response().await.unwrap();
        assert_eq!((answer.status, answer.json()["code"].as_str().unwrap()), (404, "route_not_found"));
    }
    // What is a repetition in other languages is a letter here, and dots, slashes and escapes without end are read once.
    for path in [
        format!("/long/{}!", "a".repeat(8000)),
        format!("/long/{}", "%61".repeat(2600)),
        format!("/long{}", "/x/..".repeat(1600)),
    ] {
        assert_eq!(ask(&gateway, "GET", "a", &path).await.0, 200, "{}", &path[..40]);
    }
    for pattern in ["/(a+)+$", "/a*b*c", "/**", "/{x*}"] {
        let tables = format!("[[route]]\nupstream = \"echo\"\npath = \"{pattern}\"\n");
        let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap() + &tables;
        let path = gateway.dir.path().join("gateway.toml");
        let parsed = wxgate::config::parse(&text, &path, &wxgate::config::Environment::of([]));
        match pattern {
            // Letters, as RFC 3986 has them.
            "/(a+)+$" => assert!(parsed.is_ok(), "{pattern}"),
            _ => assert!(parsed.is_err(), "{pattern}"),
        }
    }
}
