//! Where a message ends: whatever two parsers could read in two ways is refused, and the connection with it; nothing that
//! hides in a body is ever a request.

use crate::support::gateway::Gateway;
use crate::support::http1::Broken;
use crate::support::raw::{Client, exchange};

/// What an attacker would like to have read as a request of its own.
const HIDDEN: &str = "GET /public/hidden HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends these bytes on a route that needs no token; they are refused in this way, the connection is closed, and nothing
/// of it reaches the upstream.
async fn refused(gateway: &Gateway, bytes: &[u8], status: u16, code: &str) {
    let shown = bytes[..bytes.len().min(300)].escape_ascii();
    let mut client = Client::connect(gateway.address()).await;
    client.send(bytes).await;
    let answer = client.response().await.unwrap_or_else(|e| panic!("{shown}: {e}"));
    assert_eq!(answer.status, status, "{shown}: {}", answer.text());
    assert_eq!(answer.json()["code"], code, "{shown}");
    assert_eq!(client.until_closed().await.unwrap(), b"", "{shown}");
    let arrived = gateway.upstream.requests();
    assert!(arrived.is_empty(), "{shown}: {arrived:?}");
}

/// The next innocent request works.
async fn unharmed(gateway: &Gateway) {
    let answer = exchange(gateway.address(), "GET /public/next HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(answer.json()["request_line"], "GET /public/next HTTP/1.1");
    let lines: Vec<String> = gateway.upstream.requests().into_iter().map(|r| r.request_line).collect();
    assert_eq!(lines, ["GET /public/next HTTP/1.1"]);
}

/// A POST with these header lines and this body.
fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /public/x HTTP/1.1\r\nHost: a\r\n{lines}\r\n{body}").into_bytes()
}

#[tokio::test]
async fn two_statements_of_the_length_are_refused() {
    let gateway = Gateway::start().await;
    for (lines, body) in [
        ("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", "0\r\n\r\nG"),
        (
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            "2a\r\nGET /public/hidden HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n",
        ),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "12345G"),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", "12345"),
        ("Content-Length: 5, 6\r\n", "12345"),
        ("Content-Length: 5, 5\r\n", "12345"),
        ("Content-Length: 5\r\nContent_Length: 6\r\n", "12345"),
        ("Content-Length: 5\r\nTransfer_Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ] {
        for hidden in ["", HIDDEN] {
            refused(&gateway, &post(lines, &format!("{body}{hidden}")), 400, "invalid_request").await;
        }
    }
    unharmed(&gateway).await;
}

#[tokio::test]
async fn a_length_that_is_no_plain_number_is_refused() {
    let gateway = Gateway::start().await;
    for value in
        ["+5", "-5", "0x5", "5_0", "5.0", "", "5 5", "5;q", "\"5\"", "18446744073709551616", "99999999999999999999"]
    {
        refused(&gateway, &post(&format!("Content-Length: {value}\r\n"), "12345"), 400, "invalid_request").await;
    }
    for name in ["Content-Length ", "Content-Length\t", " Content-Length"] {
        refused(&gateway, &post(&format!("{name}: 5\r\n"), "12345"), 400, "invalid_request").await;
    }
    unharmed(&gateway).await;
}

#[tokio::test]
async fn a_transfer_coding_other_than_one_plain_chunked_is_refused() {
    let gateway = Gateway::start().await;
    for value in [
        "xchunked",
        "chunked, identity",
        "chunked, chunked",
        "identity, chunked",
        "\"chunked\"",
        "chunked;q=1",
        ", chunked",
        "chunked,",
        "gzip",
        "identity",
        "",
        "chun ked",
    ] {
        refused(&gateway, &post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n"), 501, "not_implemented").await;
    }
    for (bytes, status, code) in [
        (&b"Transfer-Encoding: \x0bchunked"[..], 400, "invalid_request"),
        (b"Transfer-Encoding: chunked\x0c", 400, "invalid_request"),
        (b"Transfer-Encoding: chunked\0", 400, "invalid_request"),
        (b"Transfer-Encoding: \x85chunked", 501, "not_implemented"),
        (b"Transfer-Encoding: chunked\xa0", 501, "not_implemented"),
        (b"Transfer-Encoding\t: chunked", 400, "invalid_request"),
        (b"Transfer-Encoding:\r\n chunked", 501, "not_implemented"),
        (b"X: y\r\n Transfer-Encoding: chunked", 400, "invalid_request"),
    ] {
        let request = [b"POST /public/x HTTP/1.1\r\nHost: a\r\n", bytes, b"\r\n\r\n0\r\n\r\n"].concat();
        refused(&gateway, &request, status, code).await;
    }
    refused(
        &gateway,
        b"POST /public/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "invalid_request",
    )
    .await;
    unharmed(&gateway).await;
}

#[tokio::test]
async fn lines_that_end_or_begin_strangely_are_refused() {
    let gateway = Gateway::start().await;
    for head in [
        &b"GET /public/x HTTP/1.1\nHost: a\r\n\r\n"[..],
        b"GET /public/x HTTP/1.1\r\nHost: a\n\r\n",
        b"GET /public/x HTTP/1.1\r\nHost: a\r\n\n",
        b"GET /public/x HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        b"GET /public/x HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n",
        b"GET /public/x HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET /public/x HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET /public/x HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n",
        b"GET /public/x HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n",
        b"GET /public/x HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
        b"GET /public/x HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n",
        b"GET /public/x HTTP/1.1\r\nHost: a\r\nX\x80: y\r\n\r\n",
    ] {
        refused(&gateway, head, 400, "invalid_request").await;
    }
    unharmed(&gateway).await;
}

/// The head is good and may have gone out; the broken body never becomes a whole request, nor a second one.
#[tokio::test]
async fn a_chunked_body_that_breaks_its_framing_is_no_request() {
    let gateway = Gateway::start().await;
    let long = "x".repeat(17 * 1024);
    for body in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\n5\r\nhello\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "0\r\nX-A: b\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\n folded: x\r\n\r\n",
        &format!("5;{long}\r\nhello\r\n0\r\n\r\n"),
        &format!("{}5\r\nhello\r\n0\r\n\r\n", format!("1;{}\r\nx\r\n", "y".repeat(100)).repeat(200)),
    ] {
        let shown = &body[..body.len().min(60)];
        for hidden in ["", HIDDEN] {
            let mut client = Client::connect(gateway.address()).await;
            client.send(post("Transfer-Encoding: chunked\r\n", &format!("{body}{hidden}"))).await;
            match client.response().await {
                Ok(answer) => assert_eq!(answer.status, 400, "{shown:?}: {}", answer.text()),
                Err(Broken::Closed | Broken::CutOff) => {}
                Err(other) => panic!("{shown:?}: {other}"),
            }
            assert_eq!(client.until_closed().await.unwrap(), b"", "{shown:?}");
            assert!(gateway.upstream.requests().is_empty(), "{shown:?}: {:?}", gateway.upstream.requests());
        }
    }
    unharmed(&gateway).await;
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_no_request() {
    let gateway = Gateway::start().await;
    for bytes in [post("Content-Length: 10\r\n", "short"), post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n")] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(bytes).await;
        client.finish().await;
        if let Ok(answer) = client.response().await {
            assert_eq!(answer.status, 400, "{}", answer.text());
        }
        assert!(gateway.upstream.requests().is_empty());
    }
    unharmed(&gateway).await;
}

#[tokio::test]
async fn a_body_ends_where_its_length_says_and_the_rest_is_the_next_request() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send(post("Content-Length: 5\r\n", &format!("hello{HIDDEN}"))).await;
    assert_eq!(client.response().await.unwrap().json()["body"], "hello");
    assert_eq!(client.response().await.unwrap().json()["request_line"], "GET /public/hidden HTTP/1.1");
    client.send("POST /public/y HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(
        client.response().await.unwrap().json()["body_length"],
        0,
        "no length means no body, never until the end"
    );
}

/// Threat: a request that we answer ourselves has a body that nobody reads.
#[tokio::test]
async fn a_body_that_nobody_reads_is_never_a_request() {
    let gateway = Gateway::with(&format!(
        "{}\n[[static]]\npath = \"/proof.txt\"\nbody = \"p\"\n",
        crate::support::gateway::ROUTES
    ))
    .await;
    for (line, status) in [
        ("POST /api/x", 401),
        ("POST /nothing", 404),
        ("POST /healthz", 405),
        ("GET /healthz", 200),
        ("GET /proof.txt", 200),
        ("GET /public/%2f", 400),
        ("GET /auth/me", 401),
    ] {
        for repeat in [1, 30, 5000] {
            let body = HIDDEN.repeat(repeat);
            let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
            let plain = format!("Content-Length: {}\r\n\r\n{body}", body.len());
            for rest in [plain, chunked] {
                let mut client = Client::connect(gateway.address()).await;
                client.send(format!("{line} HTTP/1.1\r\nHost: a\r\n{rest}")).await;
                let answer = client.response().await.unwrap_or_else(|e| panic!("{line} {repeat}: {e}"));
                assert_eq!(answer.status, status, "{line} {repeat}");
                client.send("GET /public/next HTTP/1.1\r\nHost: a\r\n\r\n").await;
                // Drained and answered, or closed.
                if let Ok(next) = client.response().await {
                    assert_eq!(next.json()["request_line"], "GET /public/next HTTP/1.1", "{line} {repeat}");
                }
            }
        }
    }
    let hidden = gateway.upstream.requests().into_iter().filter(|r| r.request_line.contains("hidden")).count();
    assert_eq!(hidden, 0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    client
        .send(
            "GET /public/hold HTTP/1.1\r\nHost: a\r\n\r\nPOST /public/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\
             GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /api/x HTTP/1.1\r\nHost: a\r\n\r\n\
             POST /public/5 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\r\n\
             GET /public/6 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
    gateway.upstream.until_requests(1).await;
    gateway.upstream.release(1);
    assert_eq!(client.response().await.unwrap().json()["request_line"], "GET /public/hold HTTP/1.1");
    assert_eq!(client.response().await.unwrap().json()["body"], "hi");
    assert_eq!(client.response().await.unwrap().text(), "ok\n");
    assert_eq!(client.response().await.unwrap().status, 401);
    assert_eq!(client.response().await.unwrap().json()["body"], "ho");
    assert_eq!(client.response().await.unwrap().json()["request_line"], "GET /public/6 HTTP/1.1");
    assert_eq!(client.until_closed().await.unwrap(), b"");
}

#[tokio::test]
async fn a_refusal_comes_after_the_answers_of_the_good_requests_before_it() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    client
        .send(format!(
            "GET /public/hold HTTP/1.1\r\nHost: a\r\n\r\nPOST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"
        ))
        .await;
    gateway.upstream.until_requests(1).await;
    gateway.upstream.release(1);
    assert_eq!(client.response().await.unwrap().status, 200);
    assert_eq!(client.response().await.unwrap().json()["code"], "invalid_request");
    assert_eq!(client.until_closed().await.unwrap(), b"");
    assert_eq!(gateway.upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_client_that_waits_is_told_to_continue_once_its_body_is_wanted() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send(post("Expect: 100-continue\r\nContent-Length: 2\r\n", "")).await;
    assert_eq!(client.response().await.unwrap().status, 100);
    client.send("hi").await;
    let echoed = client.response().await.unwrap().json();
    assert_eq!(echoed["body"], "hi");
    assert!(gateway.upstream.requests()[0].all("expect").is_empty(), "the gateway has answered it");

    for (lines, status) in [("POST /api/x", 401), ("POST /nothing", 404)] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(format!("{lines} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 50\r\n\r\n")).await;
        assert_eq!(client.response().await.unwrap().status, status, "no body is asked for that nobody reads");
    }
}

#[tokio::test]
async fn what_follows_an_upgrade_that_nobody_granted_is_no_tunnel() {
    let gateway = Gateway::start().await;
    let upgrades = [
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade\r\nUpgrade: wxgate\r\n",
    ];
    for (n, lines) in upgrades.into_iter().enumerate() {
        let mut client = Client::connect(gateway.address()).await;
        let head = format!("GET /public/x HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        client.send([head.as_bytes(), b"\x81\x85\x01\x02\x03\x04raw\r\n\r\n"].concat()).await;
        assert_eq!(client.response().await.unwrap().status, 200);
        assert_eq!(client.response().await.unwrap().json()["code"], "invalid_request");
        assert_eq!(client.until_closed().await.unwrap(), b"");
        let arrived = gateway.upstream.requests();
        assert_eq!(arrived.len(), n + 1);
        // The route allows WebSocket; the rest is as if it had not been asked for.
        let asked: &[&str] = if lines.contains("websocket") { &["websocket"] } else { &[] };
        assert_eq!(arrived[n].all("upgrade"), asked);
        assert_eq!(arrived[n].all("connection").len(), asked.len(), "{lines}");
        assert!(arrived[n].all("http2-settings").is_empty(), "{lines}");
    }
    let arrived = gateway.upstream.requests();
    assert!(arrived.iter().all(|r| !String::from_utf8_lossy(&r.raw_head).contains("raw")));
}

#[tokio::test]
async fn an_empty_line_before_a_request_is_passed_over() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send(post("Content-Length: 2\r\n", "hi\r\nGET /public/y HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert_eq!(client.response().await.unwrap().json()["body"], "hi");
    assert_eq!(client.response().await.unwrap().json()["request_line"], "GET /public/y HTTP/1.1");
}
