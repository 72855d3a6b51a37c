//! What beside certificates can be said about TLS: versions, certificates of clients, resumption, and the way from HTTP to it.

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::authority::{Authority, connect};
use crate::support::gateway::{Gateway, ROUTES};
use crate::support::{http2, raw};

/// A gateway with a certificate for `a.example.com` and these lines in `[server]`.
async fn gateway(authority: &Authority, lines: &str) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    authority.issue(dir.path(), "a.example.com");
    std::fs::write(dir.path().join("clients.pem"), &authority.pem).unwrap();
    let lines: String = lines.lines().map(|line| format!("server.{}\n", line.trim())).collect();
    let tls = "server.tls = { cert = \"a.example.com.pem\", key = \"a.example.com.key\" }";
    Gateway::in_dir(dir, &format!("{tls}\n{lines}{ROUTES}")).await
}

/// What is answered to a request of HTTP/1.1 by TLS; an error when there is no connection.
async fn get(config: ClientConfig, gateway: &Gateway, head: &str) -> std::io::Result<String> {
    let mut stream = connect(config, gateway.address(), "a.example.com").await?;
    stream.write_all(format!("{head}Host: a.example.com\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
}

const HEALTH: &str = "GET /healthz HTTP/1.1\r\n";

#[tokio::test]
async fn the_oldest_version_can_be_raised() {
    let authority = Authority::new();
    let old = |authority: &Authority| {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS12]);
        builder.unwrap().with_root_certificates(authority.roots()).with_no_client_auth()
    };
    let plain = gateway(&authority, "").await;
    assert!(get(old(&authority), &plain, HEALTH).await.unwrap().starts_with("HTTP/1.1 200"));
    let strict = gateway(&authority, "min_tls = \"1.3\"").await;
    assert!(get(old(&authority), &strict, HEALTH).await.is_err());
    assert!(get(authority.trust(), &strict, HEALTH).await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_comes_back_resumes() {
    let authority = Authority::new();
    let gateway = gateway(&authority, "").await;
    // Clones share what they remember.
    let config = authority.trust();
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut stream = connect(config.clone(), gateway.address(), "a.example.com").await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected));
    }
}

/// A client with a certificate of this authority, and its fingerprint.
fn showing(trusted: &Authority, signed_by: &Authority) -> (ClientConfig, String) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["client".to_owned()]).unwrap().signed_by(&key, &signed_by.issuer).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()];
    let secret = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.der());
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(trusted.roots()).with_client_auth_cert(chain, secret).unwrap();
    (config, digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[tokio::test]
async fn clients_show_a_certificate_and_services_learn_which() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let request = "GET /public/x HTTP/1.1\r\nX-Wxgate-Client-Cert: evil\r\n";
    for (line, without) in [("client_auth = \"required\"", false), ("client_auth = \"optional\"", true)] {
        let gateway = gateway(&authority, &format!("client_ca = \"clients.pem\"\n{line}")).await;
        assert_eq!(get(authority.trust(), &gateway, request).await.is_ok(), without, "{line}");
        assert!(get(showing(&authority, &stranger).0, &gateway, request).await.is_err(), "{line}");
        let (config, fingerprint) = showing(&authority, &authority);
        assert!(get(config, &gateway, request).await.unwrap().starts_with("HTTP/1.1 200"));
        let seen = gateway.upstream.requests();
        assert_eq!(seen.last().unwrap().all("x-wxgate-client-cert"), [fingerprint.as_str()]);
        if without {
            assert!(seen[0].all("x-wxgate-client-cert").is_empty(), "{line}");
        }
    }
}

#[tokio::test]
async fn browsers_are_told_to_come_by_https() {
    let authority = Authority::new();
    let gateway = gateway(&authority, "hsts = \"30d\"").await;
    let header = "strict-transport-security: max-age=2592000\r\n";
    for head in [HEALTH, "GET /nowhere HTTP/1.1\r\n", "GET /public/x HTTP/1.1\r\n"] {
        let answer = get(authority.trust(), &gateway, head).await.unwrap();
        assert!(answer.contains(header), "{answer}");
    }
    let mut config = authority.trust();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = connect(config, gateway.address(), "a.example.com").await.unwrap();
    let answer = http2::Client::over(stream).await.send(http2::get("https://a.example.com/healthz"), "").await.unwrap();
    assert_eq!(answer.headers["strict-transport-security"], "max-age=2592000");
}

#[tokio::test]
async fn plain_http_is_redirected_for_hosts_that_are_ours() {
    let authority = Authority::new();
    let route =
        "[[route]]\npath = \"/shop/*\"\nhost = [\"shop.example.com\", \"*.cdn.example.com\"]\nupstream = \"echo\"\n";
    let dir = tempfile::tempdir().unwrap();
    authority.issue(dir.path(), "a.example.com");
    let lines = "server.tls = { cert = \"a.example.com.pem\", key = \"a.example.com.key\" }\n\
                 server.http_redirect = [\"127.0.0.1:0\"]\n";
    let gateway = Gateway::in_dir(dir, &format!("{lines}{ROUTES}{route}")).await;
    let ask =
        |host: &str, target: &str| format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nabc");
    for (host, target, location) in [
        ("api.example.com", "/a//b?c=d", Some("https://api.example.com/a//b?c=d")),
        ("API.example.com:80", "/", Some("https://api.example.com/")),
        ("shop.example.com", "/x", Some("https://shop.example.com/x")),
        ("x.cdn.example.com", "/x", Some("https://x.cdn.example.com/x")),
        ("evil.example.org", "/x", None),
        ("cdn.example.com.evil.org", "/x", None),
        ("127.0.0.1", "/.well-known/acme-challenge/x", None),
    ] {
        let answer = raw::exchange(gateway.redirect_address(), ask(host, target)).await.unwrap();
        match location {
            Some(location) => {
                assert_eq!(answer.status, 308, "{host}");
                let found = answer.headers.0.iter().find(|(name, _)| name.eq_ignore_ascii_case("location"));
                assert_eq!(found.unwrap().1, location);
            }
            None => assert_eq!(answer.status, 404, "{host}"),
        }
    }
    for bad in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "nonsense\r\n\r\n"] {
        assert_eq!(raw::exchange(gateway.redirect_address(), bad).await.unwrap().status, 400, "{bad}");
    }
    assert!(gateway.upstream.requests().is_empty());
}
