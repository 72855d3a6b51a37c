//! Upstreams by https: whom the gateway believes, what it shows, and what it speaks.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use wxgate::config::{self, Environment};

use crate::support::authority::Authority;
use crate::support::gateway::Gateway;
use crate::support::grpc::Service;

/// TLS of a server with the certificate of `host` out of `folder`; with `clients`, it asks for theirs.
fn server(folder: &Path, host: &str, clients: Option<&Authority>, alpn: &[u8]) -> ServerConfig {
    let chain = CertificateDer::from_pem_file(folder.join(format!("{host}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{host}.key"))).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let roots = Arc::new(authority.roots());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(default_provider()));
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = builder.with_single_cert(vec![chain], key).unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

/// A service of HTTP/1.1 by TLS; counts nothing, and answers each request on a connection with its target.
async fn http1(config: ServerConfig) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                loop {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let length = head
                        .lines()
                        .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    let mut body = vec![0; length.unwrap_or(0)];
                    stream.read_exact(&mut body).await.unwrap();
                    let target = head.split(' ').nth(1).unwrap();
                    let answer = format!("{target} {}", body.len());
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });
    port
}

fn tables(port: u16, tls: &str) -> String {
    format!(
        "[[upstream]]\nname = \"secure\"\nservers = [\"https://localhost:{port}\"]\n{tls}\n\
         [[route]]\npath = \"/secure/*\"\nupstream = \"secure\"\nauth = \"none\"\n"
    )
}

async fn status(dir: tempfile::TempDir, tables: &str) -> (u16, tempfile::TempDir) {
    let gateway = Gateway::in_dir(dir, tables).await;
    let answer = gateway.get("/secure/x", None).await;
    (answer.status, gateway.end().await)
}

#[tokio::test]
async fn bodies_go_both_ways_and_connections_are_used_again() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    authority.issue(dir.path(), "localhost");
    std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    let port = http1(server(dir.path(), "localhost", None, b"http/1.1")).await;
    let gateway = Gateway::in_dir(dir, &tables(port, "tls = { ca = \"ca.pem\" }")).await;
    for n in [0, 1, 300_000] {
        let sent = gateway.client().post(gateway.url("/secure/x")).body(vec![1; n]).send().await.unwrap();
        assert_eq!(sent.text().await.unwrap(), format!("/secure/x {n}"));
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_good_is_no_upstream() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut dir = tempfile::tempdir().unwrap();
    authority.issue(dir.path(), "localhost");
    authority.issue(dir.path(), "orders.internal");
    std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    std::fs::write(dir.path().join("stranger.pem"), &stranger.pem).unwrap();
    let good = http1(server(dir.path(), "localhost", None, b"http/1.1")).await;
    let named = http1(server(dir.path(), "orders.internal", None, b"http/1.1")).await;
    for (port, tls, expected) in [
        (good, "tls = { ca = \"ca.pem\" }", 200),
        (good, "tls = { ca = \"stranger.pem\" }", 502),
        (named, "tls = { ca = \"ca.pem\" }", 502),
        (named, "tls = { ca = \"ca.pem\", name = \"orders.internal\" }", 200),
        (good, "tls = { ca = \"ca.pem\", name = \"orders.internal\" }", 502),
        // It does not speak what is wanted.
        (good, "protocol = \"h2\"\ntls = { ca = \"ca.pem\" }", 502),
    ] {
        let (found, again) = status(dir, &tables(port, tls)).await;
        assert_eq!(found, expected, "{tls}");
        dir = again;
    }
}

#[tokio::test]
async fn a_service_that_asks_who_we_are_is_shown_a_certificate() {
    let authority = Authority::new();
    let mut dir = tempfile::tempdir().unwrap();
    authority.issue(dir.path(), "localhost");
    authority.issue(dir.path(), "gateway");
    std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    let port = http1(server(dir.path(), "localhost", Some(&authority), b"http/1.1")).await;
    for (tls, good) in [
        ("tls = { ca = \"ca.pem\" }", false),
        ("tls = { ca = \"ca.pem\", cert = \"gateway.pem\", key = \"gateway.key\" }", true),
    ] {
        let (found, again) = status(dir, &tables(port, tls)).await;
        assert_eq!(found == 200, good, "{tls}: {found}");
        dir = again;
    }
}

#[tokio::test]
async fn http2_is_agreed_on_by_tls() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    authority.issue(dir.path(), "localhost");
    std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    let service = Service::start(Some(server(dir.path(), "localhost", None, b"h2"))).await;
    let tls = "protocol = \"h2\"\ntls = { ca = \"ca.pem\" }";
    let gateway = Gateway::in_dir(dir, &tables(service.address.port(), tls)).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/secure/x", None).await.body, "/secure/x");
    }
    assert_eq!(service.seen.lock().unwrap().requests[0].uri().scheme_str(), Some("https"));
}

#[test]
fn what_cannot_work_is_a_fault() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(dir.path(), "a");
    authority.issue(dir.path(), "b");
    let faults = |upstream: &str| {
        let text = format!(
            "[token]\nissuer = \"https://a.example\"\n[[app]]\nappid = \"wx0123456789abcdef\"\nsecret = \"s\"\n\
             [[upstream]]\nname = \"x\"\n{upstream}\n"
        );
        match config::parse(&text, &dir.path().join("gateway.toml"), &Environment::of([])) {
            Ok(_) => String::new(),
            Err(faults) => faults.to_string(),
        }
    };
    let https = "servers = [\"https://a\"]\n";
    assert_eq!(faults(&format!("{https}tls = {{ ca = \"a.pem\" }}")), "");
    for (upstream, said) in [
        ("servers = [\"https://a\", \"http://b\"]\ntls = { ca = \"a.pem\" }".to_owned(), "mixes http and https"),
        ("servers = [\"http://a\"]\ntls = { ca = \"a.pem\" }".to_owned(), "there is none"),
        (format!("{https}tls = {{ ca = \"missing.pem\" }}"), "upstream[0].tls.ca: cannot be read"),
        (format!("{https}tls = {{ ca = \"a.pem\", cert = \"a.pem\" }}"), "cert without key"),
        (format!("{https}tls = {{ ca = \"a.pem\", cert = \"a.pem\", key = \"b.key\" }}"), "is not the key"),
        (format!("{https}tls = {{ ca = \"a.pem\", name = \"a b\" }}"), "is no name"),
        ("servers = [\"http://a\"]\nprotocol = \"h3\"".to_owned(), "is none of \"http/1.1\", \"h2\""),
    ] {
        let faults = faults(&upstream);
        assert!(faults.contains(said), "{upstream}: {faults}");
    }
}
