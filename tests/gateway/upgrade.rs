//! WebSockets through the gateway: the handshake, the bytes, and how they end.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_hdr_async, connect_async};

use crate::support::DEADLINE;
use crate::support::gateway::{Gateway, Log};
use crate::support::raw::Client;
use crate::support::upstream::{After, Upstream};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A service that accepts WebSockets, says first who it thinks is there, and then echoes.
struct Service {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Service {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut sockets = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sockets.spawn(echo(stream));
            }
        });
        Self { address, _tasks: tasks }
    }
}

#[allow(clippy::result_large_err)] // the library's callback has this type
async fn echo(stream: TcpStream) {
    let mut seen = String::new();
    let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        for (name, value) in request.headers() {
            seen += &format!("{name}: {}\n", value.to_str().unwrap());
        }
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, note).await else { return };
    let _ = socket.send(Message::text(seen)).await;
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// A gateway with a WebSocket service at `/ws/*`.
async fn gateway(service: SocketAddr, top: &str) -> Gateway {
    Gateway::with(&tables(service, top)).await
}

fn tables(service: SocketAddr, top: &str) -> String {
    format!(
        r#"{top}
[[upstream]]
name = "sockets"
servers = ["http://{service}"]

[[route]]
path = "/ws/*"
upstream = "sockets"

[[route]]
path = "/open/*"
upstream = "sockets"
auth = "none"

[[route]]
path = "/plain/*"
upstream = "echo"
auth = "none"
upgrade = []
"#
    )
}

async fn open(gateway: &Gateway, path: &str, token: Option<&str>) -> Result<Socket, Error> {
    let mut request = format!("ws://{}{path}", gateway.address()).into_client_request().unwrap();
    if let Some(token) = token {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request.headers_mut().insert("x-wx-openid", "forged".parse().unwrap());
    Ok(timeout(DEADLINE, connect_async(request)).await.expect("connected in time")?.0)
}

async fn next(socket: &mut Socket) -> Option<Result<Message, Error>> {
    timeout(DEADLINE, socket.next()).await.expect("something in time")
}

/// Waits for the close frame.
async fn closed(socket: &mut Socket) -> CloseFrame {
    loop {
        match next(socket).await {
            Some(Ok(Message::Close(frame))) => return frame.expect("a code"),
            Some(Ok(_)) => {}
            other => panic!("no close frame: {other:?}"),
        }
    }
}

fn status(refused: Result<Socket, Error>) -> (u16, String) {
    match refused {
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            (response.status().as_u16(), problem["code"].as_str().unwrap_or_default().to_owned())
        }
        other => panic!("not refused: {:?}", other.map(drop)),
    }
}

/// Waits for the log line with this text.
async fn logged(log: &Log, text: &str) -> String {
    let wait = async {
        loop {
            if let Some(line) = log.text().lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{text} was never logged: {}", log.text()))
}

const HANDSHAKE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[tokio::test]
async fn a_members_socket_tells_the_service_who_it_is_and_carries_messages_both_ways() {
    let service = Service::start().await;
    let gateway = gateway(service.address, "").await;
    let alice = gateway.login("alice").await;
    let mut socket = open(&gateway, "/ws/chat?room=1", Some(alice.token())).await.unwrap();
    let seen = next(&mut socket).await.unwrap().unwrap().into_text().unwrap();
    assert!(seen.contains(&format!("x-wx-openid: {}\n", alice.openid())), "{seen}");
    assert!(!seen.contains("forged") && !seen.contains("authorization"), "{seen}");
    assert_eq!(seen.matches("upgrade: websocket\n").count(), 1, "{seen}");
    assert!(seen.contains("connection: upgrade\n") && seen.contains("sec-websocket-key: "), "{seen}");
    for message in [Message::text("hi"), Message::binary(vec![7; 300_000]), Message::text("")] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut socket).await.unwrap().unwrap(), message);
    }
    gateway.until_metric("wxgate_open_sockets{route=\"/ws/*\"}", 1).await;
    socket.close(None).await.unwrap();
    while next(&mut socket).await.is_some() {}
    let line = logged(&gateway.log, "\"status\":101").await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(line["bytes"].as_u64().unwrap() > 300_000 && line["bytes_in"].as_u64().unwrap() > 300_000, "{line}");
    assert_eq!((&line["member"], &line["route"]), (&alice.id().into(), &"/ws/*".into()));
    assert!(line.get("complete").is_none(), "{line}");
}

#[tokio::test]
async fn without_a_token_no_handshake_reaches_the_service() {
    let service = Service::start().await;
    let gateway = gateway(service.address, "").await;
    assert_eq!(status(open(&gateway, "/ws/chat", None).await), (401, "token_missing".into()));
    assert!(open(&gateway, "/open/chat", None).await.is_ok());
}

#[tokio::test]
async fn an_upgrade_that_the_route_does_not_allow_is_an_ordinary_request() {
    let service = Service::start().await;
    let gateway = gateway(service.address, "").await;
    let mut client = Client::connect(gateway.address()).await;
    // The second asks for h2c, which is never passed on; both on one connection, with a request behind.
    client.send(format!("GET /plain/a HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n")).await;
    let answer = client.response().await.unwrap();
    assert_eq!(answer.status, 200);
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    client
        .send(format!(
            "GET /plain/b HTTP/1.1\r\nHost: a\r\n{upgrade}\r\nGET /plain/c HTTP/1.1\r\nHost: a\r\n\r\nGET /plain/d HTTP/1.1\r\n"
        ))
        .await;
    assert_eq!((client.response().await.unwrap().status, client.response().await.unwrap().status), (200, 200));
    client.send("Host: a\r\n\r\n").await;
    assert_eq!(client.response().await.unwrap().status, 200);
    let requests = gateway.upstream.requests();
    assert_eq!(requests.len(), 4);
    for request in requests {
        assert!(request.all("upgrade").is_empty() && request.all("http2-settings").is_empty(), "{request:?}");
    }
}

#[tokio::test]
async fn a_refused_handshake_is_an_ordinary_answer_and_what_followed_it_is_judged_as_http() {
    let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nUpgrade: websocket\r\n\r\nno";
    let service = Upstream::scripted([(answer, After::KeepOpen)]).await;
    let gateway = gateway(service.address(), "").await;
    let mut client = Client::connect(gateway.address()).await;
    // Smuggled behind the handshake: a request that would be the service's own business in a tunnel, and garbage.
    client
        .send(format!(
            "GET /open/a HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\nGET /ws/secret HTTP/1.1\r\nHost: a\r\n\r\n\x01\x02\r\n\r\n"
        ))
        .await;
    let refused = client.response().await.unwrap();
    assert_eq!((refused.status, refused.text()), (403, "no"));
    assert_eq!(refused.headers.get("upgrade"), None);
    assert_eq!(client.response().await.unwrap().json()["code"], "token_missing");
    assert_eq!(client.response().await.unwrap().json()["code"], "invalid_request");
    assert_eq!(client.until_closed().await.unwrap(), b"");
    let requests = service.requests();
    assert_eq!((requests.len(), service.connections()), (1, 1));
}

#[tokio::test]
async fn a_101_for_something_else_or_nothing_is_502() {
    let other = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nevil";
    let none = "HTTP/1.1 101 Switching Protocols\r\n\r\nevil";
    let service = Upstream::scripted([other, none, ACCEPTED].map(|answer| (answer, After::KeepOpen))).await;
    let gateway = gateway(service.address(), "").await;
    let mut client = Client::connect(gateway.address()).await;
    for _ in 0..2 {
        client.send(format!("GET /open/a HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n")).await;
        assert_eq!(client.response().await.unwrap().json()["code"], "upstream_failed");
    }
    client.send("GET /open/a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.unwrap().json()["code"], "upstream_failed");
}

#[tokio::test]
async fn early_bytes_of_either_side_arrive_in_order_and_only_behind_the_101() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = gateway(listener.local_addr().unwrap(), "").await;
    let mut client = Client::connect(gateway.address()).await;
    client.send(format!("GET /open/a HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\nfirst ")).await;
    let (mut service, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(service.read_u8().await.unwrap());
    }
    client.send("second ").await;
    // Whatever the gateway has of the client by now, none of it has come here.
    assert!(timeout(Duration::from_millis(50), service.read_u8()).await.is_err(), "bytes before the 101");
    service.write_all(format!("{ACCEPTED}late").as_bytes()).await.unwrap();
    let answer = client.response().await.unwrap();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.headers.get("connection"), Some("upgrade"));
    assert_eq!(answer.headers.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client.send("third").await;
    let mut said = [0; 18];
    timeout(DEADLINE, service.read_exact(&mut said)).await.unwrap().unwrap();
    assert_eq!(&said, b"first second third");
    assert_eq!(client.bytes(4).await.unwrap(), b"late");
    drop(service);
    assert_eq!(client.until_closed().await.unwrap(), b"");
}

#[tokio::test]
async fn a_client_that_leaves_before_the_101_takes_the_handshake_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = gateway(listener.local_addr().unwrap(), "server.max_sockets_per_member = 1").await;
    let alice = gateway.login("alice").await;
    let mut client = Client::connect(gateway.address()).await;
    let token = alice.token();
    client.send(format!("GET /ws/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{HANDSHAKE}\r\n")).await;
    let (mut service, _) = listener.accept().await.unwrap();
    drop(client);
    let mut rest = Vec::new();
    timeout(DEADLINE, service.read_to_end(&mut rest)).await.expect("closed").unwrap();
    // Its place is free again.
    logged(&gateway.log, "\"status\":499").await;
    assert_eq!(gateway.inner().kept().sockets.count(), 0);
}

#[tokio::test]
async fn a_socket_ends_with_its_token() {
    let service = Service::start().await;
    let gateway = gateway(service.address, "").await;
    let alice = gateway.login("alice").await;
    let mut socket = open(&gateway, "/ws/chat", Some(alice.token())).await.unwrap();
    let mut anonymous = open(&gateway, "/open/chat", None).await.unwrap();
    gateway.clock.advance(Duration::from_secs(2 * 3600));
    let close = closed(&mut socket).await;
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4001, "token_expired"));
    logged(&gateway.log, "\"ended\":\"token_expired\"").await;
    gateway.until_metric("wxgate_sockets_total{ended=\"token_expired\"}", 1).await;
    next(&mut anonymous).await.unwrap().unwrap();
    anonymous.send(Message::text("still here")).await.unwrap();
    assert_eq!(next(&mut anonymous).await.unwrap().unwrap(), Message::text("still here"));
}

#[tokio::test]
async fn a_refresh_of_its_session_prolongs_a_socket() {
    let service = Service::start().await;
    let gateway = gateway(service.address, "").await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let mut stays = open(&gateway, "/ws/chat", Some(alice.token())).await.unwrap();
    let mut ends = open(&gateway, "/ws/chat", Some(bob.token())).await.unwrap();
    gateway.clock.advance(Duration::from_secs(3600));
    let refreshed = gateway.post("/auth/refresh", &serde_json::json!({ "refresh_token": alice.refresh() })).await;
    assert_eq!(refreshed.status, 200);
    gateway.clock.advance(Duration::from_secs(3600));
    // Both are looked at in one go.
    assert_eq!(closed(&mut ends).await.reason.as_str(), "token_expired");
    next(&mut stays).await.unwrap().unwrap();
    stays.send(Message::text("x")).await.unwrap();
    assert_eq!(next(&mut stays).await.unwrap().unwrap(), Message::text("x"));
    gateway.clock.advance(Duration::from_secs(3600));
    assert_eq!(closed(&mut stays).await.reason.as_str(), "token_expired");
}

#[tokio::test]
async fn logging_out_ends_the_sockets_of_that_session_within_a_second() {
    let service = Service::start().await;
    let gateway = gateway(service.address, "").await;
    let (phone, tablet) = (gateway.login("alice").await, gateway.login("alice").await);
    let mut ends = open(&gateway, "/ws/chat", Some(phone.token())).await.unwrap();
    let mut stays = open(&gateway, "/ws/chat", Some(tablet.token())).await.unwrap();
    let logout = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(phone.token()).send().await.unwrap();
    assert_eq!(logout.status(), 204);
    let close = timeout(Duration::from_secs(1), closed(&mut ends)).await.expect("within a second");
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4001, "token_revoked"));
    next(&mut stays).await.unwrap().unwrap();
    stays.send(Message::text("x")).await.unwrap();
    assert_eq!(next(&mut stays).await.unwrap().unwrap(), Message::text("x"));
    assert_eq!(status(open(&gateway, "/ws/chat", Some(phone.token())).await), (401, "token_revoked".into()));
}

#[tokio::test]
async fn a_member_has_so_many_sockets_and_no_more() {
    let service = Service::start().await;
    let gateway = gateway(service.address, "server.max_sockets_per_member = 2").await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let mut first = open(&gateway, "/ws/1", Some(alice.token())).await.unwrap();
    let _second = open(&gateway, "/ws/2", Some(alice.token())).await.unwrap();
    assert_eq!(status(open(&gateway, "/ws/3", Some(alice.token())).await), (429, "rate_limited".into()));
    let _other = open(&gateway, "/ws/1", Some(bob.token())).await.unwrap();
    first.close(None).await.unwrap();
    while next(&mut first).await.is_some() {}
    logged(&gateway.log, "\"status\":101").await;
    open(&gateway, "/ws/3", Some(alice.token())).await.unwrap();
}

#[tokio::test]
async fn a_drain_closes_sockets_properly_and_does_not_wait_for_them() {
    let service = Service::start().await;
    let mut gateway = gateway(service.address, "").await;
    let alice = gateway.login("alice").await;
    let mut socket = open(&gateway, "/ws/chat", Some(alice.token())).await.unwrap();
    let client = tokio::spawn(async move { closed(&mut socket).await });
    assert_eq!(gateway.stop().await, wxgate::server::drain::Drained::Complete);
    let close = client.await.unwrap();
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1001, "draining"));
    assert!(gateway.log.text().contains("\"ended\":\"draining\""), "{}", gateway.log.text());
}

#[tokio::test]
async fn a_reload_ends_only_the_sockets_of_routes_that_go_or_close() {
    let service = Service::start().await;
    let gateway = gateway(service.address, "").await;
    let alice = gateway.login("alice").await;
    let mut stays = open(&gateway, "/ws/chat", Some(alice.token())).await.unwrap();
    let mut ends = open(&gateway, "/open/chat", None).await.unwrap();
    let path = gateway.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("path = \"/open/*\"", "path = \"/gone/*\"")).unwrap();
    gateway.inner().reload().await.unwrap();
    let close = closed(&mut ends).await;
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1001, "route_removed"));
    next(&mut stays).await.unwrap().unwrap();
    stays.send(Message::text("x")).await.unwrap();
    assert_eq!(next(&mut stays).await.unwrap().unwrap(), Message::text("x"));
    // The route asks for more than this caller has.
    std::fs::write(&path, text.replace("path = \"/ws/*\"", "path = \"/ws/*\"\nroles = [\"staff\"]")).unwrap();
    gateway.inner().reload().await.unwrap();
    assert_eq!(closed(&mut stays).await.reason.as_str(), "forbidden");
}

#[tokio::test]
async fn a_hundred_sockets_at_once() {
    let service = Service::start().await;
    let gateway = gateway(service.address, "server.max_sockets_per_member = 0").await;
    let alice = gateway.login("alice").await;
    let mut sockets = Vec::new();
    for n in 0..100 {
        sockets.push(open(&gateway, &format!("/ws/{n}"), Some(alice.token())).await.unwrap());
    }
    let talks = sockets.iter_mut().enumerate().map(|(n, socket)| async move {
        next(socket).await.unwrap().unwrap();
        for round in 0..10 {
            let message = Message::text(format!("{n} {round} {}", "x".repeat(round * 500)));
            socket.send(message.clone()).await.unwrap();
            assert_eq!(next(socket).await.unwrap().unwrap(), message);
        }
    });
    futures_util::future::join_all(talks).await;
    gateway.until_metric("wxgate_open_sockets{route=\"/ws/*\"}", 100).await;
    drop(sockets);
    let wait = async {
        while gateway.inner().kept().sockets.count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, wait).await.expect("all places are given back");
}
