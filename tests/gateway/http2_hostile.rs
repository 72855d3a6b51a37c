//! HTTP/2 from clients that mean harm: nothing of it reaches a service, and the next innocent request works.

use crate::support::gateway::{Gateway, ROUTES};
use crate::support::http2::{
    CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    Wire, block, frame, get,
};

/// Fields of a good request.
const GOOD: [(&str, &[u8]); 4] =
    [(":method", b"POST"), (":scheme", b"http"), (":path", b"/public/x"), (":authority", b"a")];

fn with(more: &[(&'static str, &'static [u8])]) -> Vec<u8> {
    block(&[&GOOD, more].concat())
}

/// Sends one request and says how it was refused: its status, 0 for a stream that was reset, and 1 for a connection that was
/// closed. An innocent request must work, on the same connection if it is still there.
async fn refused(gateway: &Gateway, block: &[u8], data: &[u8]) -> u16 {
    let mut wire = Wire::connect(gateway.address()).await;
    let last = if data.is_empty() { END_STREAM } else { 0 };
    let mut bytes = frame(HEADERS, END_HEADERS | last, 1, block);
    bytes.extend_from_slice(data);
    assert!(wire.send(&bytes).await);
    let answer = wire.until(|f| (f.stream == 1 && matches!(f.kind, HEADERS | RST_STREAM)) || f.kind == GOAWAY).await;
    let answer = answer.filter(|f| f.kind != GOAWAY);
    if answer.is_none() {
        wire = Wire::connect(gateway.address()).await;
    }
    let innocent = [(":method", &b"GET"[..]), (":scheme", b"http"), (":path", b"/healthz"), (":authority", b"a")];
    assert!(wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &self::block(&innocent))).await);
    let next = wire.until(|f| f.stream == 3 && f.kind == HEADERS).await.expect("an innocent request works");
    assert_eq!(next.status(), Some(200));
    answer.map_or(1, |answer| answer.status().unwrap_or(0))
}

#[tokio::test]
async fn what_is_malformed_or_has_two_readings_is_refused() {
    let gateway = Gateway::start().await;
    let cases: &[(&str, Vec<u8>)] = &[
        ("transfer-encoding", with(&[("transfer-encoding", b"chunked")])),
        ("connection", with(&[("connection", b"x-a")])),
        ("keep-alive", with(&[("keep-alive", b"timeout=5")])),
        ("proxy-connection", with(&[("proxy-connection", b"close")])),
        ("upgrade", with(&[("upgrade", b"websocket")])),
        ("te: gzip", with(&[("te", b"gzip")])),
        ("capital letters", with(&[("X-WX-OPENID", b"evil")])),
        ("CR LF in a value", with(&[("x-a", b"b\r\nx-wx-openid: evil")])),
        ("LF in a value", with(&[("x-a", b"b\nc")])),
        ("NUL in a value", with(&[("x-a", b"b\0c")])),
        ("CR LF in a name", with(&[("x-a\r\nx-b", b"c")])),
        ("a colon in a name", with(&[("x-a:b", b"c")])),
        ("an empty name", with(&[("", b"c")])),
        ("blanks before a value", with(&[("x-a", b" b")])),
        ("two paths", with(&[(":path", b"/api/x")])),
        ("two authorities", with(&[(":authority", b"b")])),
        ("a pseudo field after others", block(&[&[("x-a", &b"b"[..])], &GOOD[..]].concat())),
        ("an unknown pseudo field", with(&[(":upstream", b"x")])),
        (":status in a request", with(&[(":status", b"200")])),
        ("no path", block(&[GOOD[0], GOOD[1], GOOD[3]])),
        ("an empty path", block(&[GOOD[0], GOOD[1], GOOD[3], (":path", b"")])),
        ("a path without slash", block(&[GOOD[0], GOOD[1], GOOD[3], (":path", b"public/x")])),
        ("an absolute path", block(&[GOOD[0], GOOD[1], GOOD[3], (":path", b"http://b/public/x")])),
        ("a request line in the path", block(&[GOOD[0], GOOD[1], GOOD[3], (":path", b"/public/x HTTP/1.1\r\na: b")])),
        ("a request line in the method", block(&[GOOD[1], GOOD[2], GOOD[3], (":method", b"GET /api HTTP/1.1\r\n")])),
        ("no method", block(&GOOD[1..])),
        ("no scheme", block(&[GOOD[0], GOOD[2], GOOD[3]])),
        ("our own scheme", block(&[GOOD[0], GOOD[2], GOOD[3], (":scheme", b"wxgate")])),
        ("no authority", block(&GOOD[..3])),
        ("host and authority differ", with(&[("host", b"b")])),
        ("two hosts", with(&[("host", b"a"), ("host", b"a")])),
        ("userinfo", block(&[GOOD[0], GOOD[1], GOOD[2], (":authority", b"user@a")])),
        ("a path in the authority", block(&[GOOD[0], GOOD[1], GOOD[2], (":authority", b"a/b")])),
        ("a length that is none", with(&[("content-length", b"+0")])),
        ("two lengths", with(&[("content-length", b"0"), ("content-length", b"0")])),
        ("a length and no data", with(&[("content-length", b"5")])),
        ("a length with an underscore", with(&[("content_length", b"5")])),
        ("an extended CONNECT", with(&[(":protocol", b"websocket")])),
        (
            "a WebSocket over HTTP/2",
            block(&[GOOD[1], GOOD[2], GOOD[3], (":method", b"CONNECT"), (":protocol", b"websocket")]),
        ),
    ];
    for (what, block) in cases {
        let status = refused(&gateway, block, b"").await;
        // What cannot even be decoded as a field ends the connection.
        let refused = matches!(status, 0 | 1 | 400 | 501);
        assert!(refused, "{what}: {status}");
        assert!(gateway.upstream.requests().is_empty(), "{what} reached a service");
    }
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_says_is_never_a_whole_request() {
    let gateway = Gateway::start().await;
    let stated = with(&[("content-length", b"5")]);
    let smuggled = b"GET /api/secret HTTP/1.1\r\nHost: a\r\n\r\n";
    for data in [frame(DATA, END_STREAM, 1, b"abc"), frame(DATA, END_STREAM, 1, smuggled)] {
        assert_eq!(refused(&gateway, &stated, &data).await, 0);
    }
    for request in gateway.upstream.requests() {
        assert!(request.body_length < 5, "a service took {request:?} for whole");
    }
}

/// Sends `one` until the connection is over; the gateway must end it before `most`.
async fn floods(gateway: &Gateway, mut wire: Wire, most: usize, one: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    let mut sent = 0;
    let mut id = 1;
    while sent < most {
        let some: Vec<u8> = (0..100).flat_map(|n| one(id + 2 * n)).collect();
        if !wire.send(&some).await {
            break;
        }
        sent += 100;
        id += 200;
    }
    let goaway = wire.until(|f| f.kind == GOAWAY && f.reason() != Some(0)).await;
    assert!(goaway.is_some() || wire.next().await.is_none(), "still open after {sent}");
    // Whoever means no harm is served.
    let mut client = Client::connect(gateway.address()).await;
    assert_eq!(client.send(get("http://a/healthz"), "").await.unwrap().status, 200);
    goaway.and_then(|goaway| goaway.reason())
}

#[tokio::test]
async fn floods_of_frames_end_their_connection() {
    let gateway = Gateway::start().await;
    let open = || async {
        let mut wire = Wire::connect(gateway.address()).await;
        let post = with(&[("content-length", b"100")]);
        assert!(wire.send(&frame(HEADERS, END_HEADERS, 1, &post)).await);
        wire
    };
    let most = 100_000;
    for (what, one) in [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, b"")),
        ("SETTINGS of a window", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])),
        ("empty DATA", frame(DATA, 0, 1, b"")),
        ("padded DATA", frame(DATA, 8, 1, &[3, 0, 0, 0])),
        ("PRIORITY", frame(2, 0, 1, &[0; 5])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("unknown", frame(0x77, 0, 1, b"x")),
    ] {
        floods(&gateway, open().await, most, |_| one.clone()).await;
        println!("{what}: ended");
    }
    gateway.until_metric("wxgate_http2_floods_total", 5).await;
}

#[tokio::test]
async fn a_flood_of_continuations_ends_its_connection() {
    let gateway = Gateway::start().await;
    let mut wire = Wire::connect(gateway.address()).await;
    assert!(wire.send(&frame(HEADERS, 0, 1, &with(&[]))).await);
    floods(&gateway, wire, 100_000, |_| frame(CONTINUATION, 0, 1, &block(&[("x-a", b"b")]))).await;
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn requests_that_are_reset_at_once_end_their_connection() {
    let gateway = Gateway::start().await;
    let wire = Wire::connect(gateway.address()).await;
    let hold = block(&[GOOD[0], GOOD[1], GOOD[3], (":path", b"/public/hold")]);
    floods(&gateway, wire, 10_000, |id| {
        [frame(HEADERS, END_HEADERS | END_STREAM, id, &hold), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
    })
    .await;
    assert!(gateway.upstream.requests().len() < 500, "{}", gateway.upstream.requests().len());
}

#[tokio::test]
async fn requests_that_are_abandoned_one_after_the_other_end_their_connection() {
    let gateway = Gateway::start().await;
    let mut wire = Wire::connect(gateway.address()).await;
    let hold = block(&[GOOD[0], GOOD[1], GOOD[3], (":path", b"/public/hold")]);
    let mut id = 1;
    let mut sent = 0;
    // Each is under way when it is reset, so that only we can tell; a ping in between tells that it has been looked at.
    let ended = loop {
        let ask = [frame(HEADERS, END_HEADERS | END_STREAM, id, &hold), frame(PING, 0, 0, &[7; 8])].concat();
        if !wire.send(&ask).await || wire.until(|f| f.kind == PING && f.flags == 1).await.is_none() {
            break true;
        }
        if !wire.send(&frame(RST_STREAM, 0, id, &[0, 0, 0, 8])).await || sent > 2000 {
            break sent <= 2000;
        }
        id += 2;
        sent += 1;
    };
    assert!(ended && sent >= 200, "{sent}");
    gateway.until_metric("wxgate_http2_floods_total", 1).await;
    let mut client = Client::connect(gateway.address()).await;
    assert_eq!(client.send(get("http://a/healthz"), "").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_head_that_does_not_come_to_an_end_is_cut_off() {
    let gateway = Gateway::with(&format!("server.head_timeout = \"300ms\"\n{ROUTES}")).await;
    let mut half = Wire::connect(gateway.address()).await;
    assert!(half.send(&frame(HEADERS, 0, 1, &with(&[]))).await);
    assert!(half.until(|_| false).await.is_none(), "closed");
    // Nothing but the preface.
    let mut silent = Wire(tokio::net::TcpStream::connect(gateway.address()).await.unwrap());
    assert!(silent.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await);
    assert!(silent.until(|_| false).await.is_none(), "closed");
    // Not even that.
    let mut nothing = Wire(tokio::net::TcpStream::connect(gateway.address()).await.unwrap());
    assert!(nothing.send(b"PRI * HT").await);
    assert!(nothing.until(|_| false).await.is_none(), "closed");
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn a_table_of_headers_is_no_bomb() {
    let gateway = Gateway::start().await;
    let mut wire = Wire::connect(gateway.address()).await;
    // A field of 4000 bytes goes into the table, and then stands in the head a thousand times by its number: 4 MB of fields
    // out of a few kilobytes.
    let mut bomb = with(&[]);
    bomb.extend_from_slice(&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e]);
    bomb.extend(std::iter::repeat_n(b'x', 4000));
    bomb.extend(std::iter::repeat_n(0xbe, 1000));
    assert!(wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)).await);
    let answer = wire.until(|f| f.stream == 1 || f.kind == GOAWAY).await;
    assert!(answer.is_none_or(|f| f.status() != Some(200)));
    assert!(gateway.upstream.requests().is_empty());
    let mut client = Client::connect(gateway.address()).await;
    assert_eq!(client.send(get("http://a/healthz"), "").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_may_not_open_more_requests_than_it_was_told() {
    let gateway = Gateway::start().await;
    let mut wire = Wire::connect(gateway.address()).await;
    let settings = wire.until(|f| f.kind == SETTINGS && f.flags == 0).await.unwrap();
    let most = settings
        .payload
        .chunks(6)
        .find(|one| one[..2] == [0, 3])
        .map(|one| u32::from_be_bytes(one[2..].try_into().unwrap()));
    assert_eq!(most, Some(128));
    let hold = block(&[GOOD[0], GOOD[1], GOOD[3], (":path", b"/public/hold")]);
    let all: Vec<u8> = (0..129).flat_map(|n| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &hold)).collect();
    // Settings that are not acknowledged do not bind, so they are.
    assert!(wire.send(&frame(SETTINGS, 1, 0, b"")).await && wire.send(&all).await);
    let refused = wire.until(|f| f.kind == RST_STREAM).await.expect("refused");
    assert_eq!((refused.stream, refused.reason()), (257, Some(7)));
    gateway.upstream.until_requests(128).await;
}
