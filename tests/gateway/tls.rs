//! TLS on the public listener, met by real clients.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use wxgate::config::{self, Environment};

use crate::support::DEADLINE;
use crate::support::authority::{Authority, tls};
use crate::support::gateway::{Answer, Gateway, ROUTES};
use crate::support::http2;

/// A gateway with certificates of `authority` for `a.example.com` and `b.example.com`.
async fn gateway(authority: &Authority) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    for host in ["a.example.com", "b.example.com"] {
        authority.issue(dir.path(), host);
    }
    let tls = r#"server.tls = [{ cert = "a.example.com.pem", key = "a.example.com.key" }, { cert = "b.example.com.pem", key = "b.example.com.key" }]"#;
    Gateway::in_dir(dir, &format!("{tls}\n{ROUTES}")).await
}

fn url(gateway: &Gateway, host: &str, path: &str) -> String {
    format!("https://{host}:{}{path}", gateway.address().port())
}

async fn token(gateway: &Gateway, client: &reqwest::Client) -> String {
    let body = json!({ "code": gateway.wechat.issue_code(None, "alice") });
    let sent = client.post(url(gateway, "a.example.com", "/auth/login")).json(&body).send().await.unwrap();
    Answer::of(sent).await.json()["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_login_and_a_request_by_tls_and_the_service_knows_that_it_was() {
    let authority = Authority::new();
    let gateway = gateway(&authority).await;
    for version in [reqwest::tls::Version::TLS_1_2, reqwest::tls::Version::TLS_1_3] {
        let client = authority.client(&gateway, |b| b.tls_version_min(version).tls_version_max(version));
        let token = token(&gateway, &client).await;
        let sent = client.get(url(&gateway, "a.example.com", "/api/x")).bearer_auth(token).send().await.unwrap();
        assert_eq!(sent.status(), 200);
    }
    let requests = gateway.upstream.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].all("x-forwarded-proto"), ["https"]);
    assert!(requests[0].all("forwarded")[0].ends_with(";proto=https"), "{:?}", requests[0].all("forwarded"));
}

#[tokio::test]
async fn each_name_has_its_own_certificate() {
    let authority = Authority::new();
    let gateway = gateway(&authority).await;
    let client = authority.client(&gateway, |b| b);
    for host in ["a.example.com", "b.example.com"] {
        assert_eq!(client.get(url(&gateway, host, "/healthz")).send().await.unwrap().status(), 200);
    }
    // A name that no certificate is for: the client sees that, and the others are unharmed.
    assert!(client.get(url(&gateway, "c.example.com", "/healthz")).send().await.is_err());
    assert_eq!(client.get(url(&gateway, "a.example.com", "/healthz")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn new_certificates_are_shown_after_a_reload_and_open_connections_go_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let gateway = gateway(&old).await;
    let client = old.client(&gateway, |b| b);
    let get = |client: &reqwest::Client| client.get(url(&gateway, "a.example.com", "/healthz")).send();
    assert_eq!(get(&client).await.unwrap().text().await.unwrap(), "ok\n");
    // The certificate of the new authority with the old key: refused, and nothing changes.
    let key = std::fs::read(gateway.dir.path().join("a.example.com.key")).unwrap();
    new.issue(gateway.dir.path(), "a.example.com");
    let new_key = std::fs::read(gateway.dir.path().join("a.example.com.key")).unwrap();
    std::fs::write(gateway.dir.path().join("a.example.com.key"), key).unwrap();
    let refused = gateway.inner().reload().await.unwrap_err().to_string();
    assert!(refused.contains("server.tls[0].key: is not the key of the certificate"), "{refused}");
    assert!(get(&old.client(&gateway, |b| b)).await.is_ok());
    std::fs::write(gateway.dir.path().join("a.example.com.key"), new_key).unwrap();
    let reloaded = gateway.inner().reload().await.unwrap();
    assert_eq!(reloaded.changes, ["neutral [server] tls changed"]);
    // The same connection: a new one would not be trusted.
    assert_eq!(get(&client).await.unwrap().status(), 200);
    assert!(get(&old.client(&gateway, |b| b)).await.is_err());
    assert_eq!(get(&new.client(&gateway, |b| b)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_is_no_tls_is_closed_and_harms_nobody() {
    let authority = Authority::new();
    let gateway = gateway(&authority).await;
    for said in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01\x7f\x7f garbage garbage garbage"] {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("closed");
        assert!(!answer.starts_with(b"HTTP"), "{}", answer.escape_ascii());
    }
    let client = authority.client(&gateway, |b| b);
    assert_eq!(client.get(url(&gateway, "a.example.com", "/healthz")).send().await.unwrap().status(), 200);
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn the_guard_reads_what_comes_out_of_tls() {
    let authority = Authority::new();
    let gateway = gateway(&authority).await;
    let mut stream = tls(&authority, &gateway, &[b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let smuggling =
        "POST /public/a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    stream.write_all(smuggling.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("closed");
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", answer.escape_ascii());
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn a_client_that_offers_http2_gets_it_unless_it_is_off() {
    let authority = Authority::new();
    let mut gateway = gateway(&authority).await;
    let stream = tls(&authority, &gateway, &[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut client = http2::Client::over(stream).await;
    for _ in 0..3 {
        let answer = client.send(http2::get("https://a.example.com/public/x"), "").await.unwrap();
        assert_eq!(answer.status, 200);
    }
    let seen = gateway.upstream.requests();
    assert_eq!((seen.len(), seen[0].all("x-forwarded-proto")), (3, vec!["https"]));
    assert_eq!(seen[0].all("host"), ["a.example.com"]);
    let path = gateway.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("[admin]", "http2 = false\n[admin]")).unwrap();
    gateway.inner().reload().await.unwrap();
    let stream = tls(&authority, &gateway, &[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    // The open connection goes on.
    assert_eq!(client.send(http2::get("https://a.example.com/healthz"), "").await.unwrap().status, 200);
    drop(client);
    assert_eq!(gateway.stop().await, wxgate::server::drain::Drained::Complete);
}

#[tokio::test]
async fn a_websocket_by_tls_ends_with_a_close_frame() {
    let authority = Authority::new();
    let mut gateway = gateway(&authority).await;
    let stream = tls(&authority, &gateway, &[b"http/1.1"]).await;
    // The echo of the harness does not speak WebSocket: an ordinary answer, and the connection stays one of HTTP.
    let request = "wss://a.example.com/public/chat".into_client_request().unwrap();
    assert!(client_async(request, stream).await.is_err());

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = gateway.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let service = listener.local_addr().unwrap().to_string();
    std::fs::write(&path, text.replace(&gateway.upstream.address().to_string(), &service)).unwrap();
    gateway.inner().reload().await.unwrap();
    let echo = tokio::spawn(async move {
        let mut socket = tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            let _ = socket.send(message).await;
        }
    });
    let stream = tls(&authority, &gateway, &[b"http/1.1"]).await;
    let request = "wss://a.example.com/public/chat".into_client_request().unwrap();
    let (mut socket, _) = timeout(DEADLINE, client_async(request, stream)).await.unwrap().unwrap();
    for message in [Message::text("hi"), Message::binary(vec![3; 200_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap(), message);
    }
    let client = tokio::spawn(async move { socket.next().await });
    assert_eq!(gateway.stop().await, wxgate::server::drain::Drained::Complete);
    match client.await.unwrap() {
        Some(Ok(Message::Close(Some(frame)))) => assert_eq!(frame.reason.as_str(), "draining"),
        other => panic!("no close frame: {other:?}"),
    }
    echo.await.unwrap();
}

#[test]
fn files_that_cannot_be_used_are_faults_that_name_them() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new().issue(dir.path(), "good");
    Authority::new().issue(dir.path(), "other");
    std::fs::write(dir.path().join("garbage.pem"), "-----BEGIN CERTIFICATE-----\nnot base64!\n").unwrap();
    std::fs::write(dir.path().join("empty.pem"), "").unwrap();
    let faults = |cert: &str, key: &str| {
        let text = format!(
            "[server]\ntls = {{ cert = \"{cert}\", key = \"{key}\" }}\n[token]\nissuer = \"https://a.example\"\n\
             [[app]]\nappid = \"wx0123456789abcdef\"\nsecret = \"s\"\n"
        );
        match config::parse(&text, &dir.path().join("gateway.toml"), &Environment::of([])) {
            Ok(config) => format!("{} certificates", config.server.tls.certificates.len()),
            Err(faults) => faults.to_string(),
        }
    };
    assert_eq!(faults("good.pem", "good.key"), "1 certificates");
    for (cert, key, said) in [
        ("missing.pem", "good.key", "2: server.tls.cert: cannot be read"),
        ("garbage.pem", "good.key", "2: server.tls.cert: "),
        ("empty.pem", "good.key", "2: server.tls.cert: holds no certificate"),
        ("good.key", "good.key", "2: server.tls.cert: holds no certificate"),
        ("good.pem", "good.pem", "2: server.tls.key: holds no private key"),
        ("good.pem", "other.key", "2: server.tls.key: is not the key of the certificate"),
        (".", "good.key", "2: server.tls.cert: is not a file"),
    ] {
        let faults = faults(cert, key);
        assert!(faults.contains(said), "{cert} {key}: {faults}");
        assert!(faults.contains(if said.contains(".key") { key } else { cert }), "{faults}");
    }
}
