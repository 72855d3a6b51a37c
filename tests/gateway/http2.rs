//! HTTP/2 on the public listener: everything that holds for HTTP/1.1 holds there.

use std::process::Command;

use bytes::Bytes;
use http::{HeaderMap, Request};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use wxgate::server::drain::Drained;

use crate::support::DEADLINE;
use crate::support::gateway::{Gateway, ROUTES};
use crate::support::http2::{Client, GOAWAY, Wire, get, read};
use crate::support::raw;
use crate::support::upstream::Upstream;

#[tokio::test]
async fn a_login_and_a_request_and_the_service_sees_http1_with_the_true_caller() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    let login = Request::post("http://api.example.com/auth/login").header("content-type", "application/json");
    let code = json!({ "code": gateway.wechat.issue_code(None, "alice") }).to_string();
    let answer = client.send(login.body(()).unwrap(), code).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body.escape_ascii());
    let login = answer.json();

    let request = Request::get("http://api.example.com/api//a/../b?q=1")
        .header("authorization", format!("Bearer {}", login["access_token"].as_str().unwrap()))
        .header("x-wx-openid", "evil")
        .header("x_wx_openid", "evil")
        .header("x-forwarded-for", "1.2.3.4")
        .header("cookie", "a=b")
        .header("cookie", "c=d")
        .header("te", "trailers");
    let answer = client.send(request.body(()).unwrap(), "").await.unwrap();
    assert_eq!(answer.status, 200);
    let seen = gateway.upstream.requests().pop().unwrap();
    assert_eq!(seen.request_line, "GET /api/b?q=1 HTTP/1.1");
    assert_eq!(seen.all("host"), ["api.example.com"]);
    assert_eq!(seen.all("x-wx-openid"), [login["openid"].as_str().unwrap()]);
    assert!(seen.all("x_wx_openid").is_empty() && seen.all("te").is_empty());
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("cookie"), ["a=b; c=d"]);
    assert_eq!(seen.all("via"), ["2 wxgate"]);
    let line = gateway.log.until_line(|line| line["route"] == "/api/*").await;
    assert_eq!(line["protocol"], "HTTP/2.0");
    // And without a token, on the same connection.
    let refused = client.send(get("http://api.example.com/api/b"), "").await.unwrap();
    assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("token_missing")));
    assert!(refused.headers.contains_key("www-authenticate"));
    assert_eq!(gateway.upstream.requests().len(), 1);
}

#[tokio::test]
async fn bodies_go_both_ways_and_keep_their_limits() {
    let gateway = Gateway::with(&format!("server.max_body = \"2MiB\"\n{ROUTES}")).await;
    let mut client = Client::connect(gateway.address()).await;
    let post = |path: &str| Request::post(format!("http://a{path}"));
    let long = Bytes::from(vec![b'x'; 1_500_000]);
    // Without a stated length, and with one.
    let answer = client.send(post("/public/x").body(()).unwrap(), long.clone()).await.unwrap();
    assert_eq!(answer.json()["body_length"], 1_500_000);
    let stated = post("/public/x").header("content-length", long.len()).body(()).unwrap();
    let answer = client.send(stated, long.clone()).await.unwrap();
    assert_eq!(answer.json()["body_length"], 1_500_000);
    let requests = gateway.upstream.requests();
    assert_eq!(requests[0].all("transfer-encoding"), ["chunked"]);
    assert_eq!(requests[1].all("content-length"), ["1500000"]);
    for path in ["/public/stream/3000000", "/public/chunked/3000000"] {
        let answer = client.send(get(&format!("http://a{path}")), "").await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 3_000_000), "{path}");
        assert!(!answer.headers.contains_key("transfer-encoding") && !answer.headers.contains_key("connection"));
    }
    let stated = post("/public/x").header("content-length", 3_000_000).body(()).unwrap();
    let (answer, _sending) = client.begin(stated, false).await.unwrap();
    assert_eq!(answer.await.unwrap().status(), 413);
    // A broken answer is broken here, too: never a whole one.
    let cut = client.send(get("http://a/public/cut/100"), "").await;
    let broken = match &cut {
        Err(error) => error.is_reset(),
        // The service had closed before the head was passed on.
        Ok(answer) => answer.status == 502,
    };
    assert!(broken, "{cut:?}");
    assert_eq!(client.send(get("http://a/healthz"), "").await.unwrap().body, b"ok\n");
}

#[tokio::test]
async fn a_head_answer_has_a_length_and_no_bytes() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    for (path, length) in [("/healthz", "3"), ("/public/stream/5", "5")] {
        let head = Request::head(format!("http://a{path}")).body(()).unwrap();
        let answer = client.send(head, "").await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
        assert_eq!(answer.headers["content-length"], length, "{path}");
    }
}

#[tokio::test]
async fn refusals_are_problems_and_the_connection_goes_on() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    let long = format!("http://a/{}", "x".repeat(9000));
    let cases = [
        (get("http://a/nowhere"), 404, "route_not_found"),
        (get("http://a/public/%2e%2e%2fapi"), 400, "ambiguous_path"),
        (get(&long), 414, "uri_too_long"),
        (Request::builder().method("TRACE").uri("http://a/public/x").body(()).unwrap(), 501, "not_implemented"),
        (Request::get("http://a/public/x").header("host", "b").body(()).unwrap(), 400, "invalid_request"),
        (Request::get("http://u@a/public/x").body(()).unwrap(), 400, "invalid_request"),
        (Request::get("http://a/public/x").header("content_length", "5").body(()).unwrap(), 400, "invalid_request"),
        (Request::get("wxgate://refused/internal").body(()).unwrap(), 400, "invalid_request"),
    ];
    for (request, status, code) in cases {
        let what = format!("{request:?}");
        let answer = client.send(request, "").await.unwrap();
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{what}");
    }
    let large = Request::get("http://a/public/x").header("x-large", "x".repeat(40_000)).body(()).unwrap();
    assert_eq!(client.send(large, "").await.unwrap().status, 431);
    assert!(gateway.upstream.requests().is_empty());
    assert_eq!(client.send(get("http://a/public/x"), "").await.unwrap().status, 200);
}

#[tokio::test]
async fn trailers_of_a_client_reach_no_service_of_http1() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-wx-openid", "evil".parse().unwrap());
    let post = Request::post("http://a/public/x").body(()).unwrap();
    let answer = client.send_with_trailers(post, "body", trailers).await.unwrap();
    assert_eq!((answer.status, answer.json()["body"].as_str()), (200, Some("body")));
    assert!(answer.trailers.is_none());
    assert!(gateway.upstream.requests()[0].trailers.is_empty());
}

#[tokio::test]
async fn what_a_client_abandons_is_abandoned_upstream_and_the_others_go_on() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    let (held, _) = client.begin(get("http://a/public/hold"), true).await.unwrap();
    gateway.upstream.until_requests(1).await;
    let mut other = client.open(get("http://a/public/drip"), Bytes::new(), None).await.unwrap();
    gateway.upstream.until_requests(2).await;
    drop(held);
    // The log tells that it went away.
    gateway.log.until_line(|line| line["status"] == 499 && line["path"] == "/public/hold").await;
    gateway.upstream.release(2);
    let answer = timeout(DEADLINE, &mut other).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_drain_says_goaway_and_finishes_what_has_begun() {
    let upstream = Upstream::echo().await;
    let mine = format!("[[upstream]]\nname = \"mine\"\nservers = [\"{}\"]\n", upstream.url());
    let route = "[[route]]\npath = \"/mine/*\"\nupstream = \"mine\"\nauth = \"none\"\n";
    let mut gateway = Gateway::with(&format!("{mine}{route}")).await;
    let mut client = Client::connect(gateway.address()).await;
    let mut idle = Wire::connect(gateway.address()).await;
    let held = client.open(get("http://a/mine/hold"), Bytes::new(), None).await.unwrap();
    upstream.until_requests(1).await;
    let (drained, answer) = tokio::join!(gateway.stop(), async {
        let goaway = idle.until(|frame| frame.kind == GOAWAY).await.expect("GOAWAY");
        assert_eq!(goaway.reason(), Some(0));
        // A well-behaved client would have answered the ping.
        drop(idle);
        upstream.release(1);
        read(held).await
    });
    assert_eq!(drained, Drained::Complete);
    assert_eq!(answer.unwrap().status, 200);
    assert!(timeout(DEADLINE, client.connection).await.unwrap().unwrap().is_ok(), "no error: it was told");
}

#[tokio::test]
async fn without_http2_the_preface_is_a_bad_request() {
    let gateway = Gateway::with(&format!("server.http2 = false\n{ROUTES}")).await;
    let answer = raw::exchange(gateway.address(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    assert_eq!(answer.status, 505);
}

#[tokio::test]
async fn a_connection_that_only_begins_like_http2_is_http1() {
    let gateway = Gateway::start().await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in ["P", "OS", "T /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    timeout(DEADLINE, tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn curl_speaks_it_with_prior_knowledge() {
    let gateway = Gateway::start().await;
    let file = gateway.dir.path().join("body");
    std::fs::write(&file, "x".repeat(300_000)).unwrap();
    for (flag, version) in [("--http2-prior-knowledge", "2"), ("--http2", "1.1"), ("--http1.1", "1.1")] {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--noproxy", "*", flag, "-w", "\n%{http_version} %{http_code}", "--data-binary"])
            .args([format!("@{}", file.display()), gateway.url("/public/x")]);
        let Ok(output) = tokio::task::spawn_blocking(move || curl.output()).await.unwrap() else {
            println!("skipped: no curl here");
            return;
        };
        let text = String::from_utf8(output.stdout).unwrap();
        // With --http2 it asks for an upgrade to h2c, which is not done (RFC 9113, section 3.1), and goes on in HTTP/1.1.
        assert!(text.ends_with(&format!("\n{version} 200")), "{flag}: {text}");
        assert!(text.contains("\"body_length\":300000"), "{flag}");
    }
}
