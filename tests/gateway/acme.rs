//! Certificates by ACME, from an authority that looks at every answer itself.

use std::os::unix::fs::PermissionsExt as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wxgate::config::{self, Environment};

use crate::support::DEADLINE;
use crate::support::acme::AcmeServer;
use crate::support::authority::connect;
use crate::support::gateway::{Gateway, ROUTES};

const NAMES: [&str; 2] = ["api.example.com", "shop.example.com"];

fn tables(acme: &AcmeServer, more: &str) -> String {
    format!(
        "server.tls = {{ acme = {{ domains = {NAMES:?}, email = \"ops@example.com\", directory = \"{}\", ca = \"acme-ca.pem\"{more} }} }}\n\
         server.http_redirect = [\"127.0.0.1:0\"]\n{ROUTES}",
        acme.directory
    )
}

/// The certificate that a client of `name` gets, once there is one that it trusts.
async fn certificate(acme: &AcmeServer, gateway: &Gateway, name: &str) -> Vec<u8> {
    let get = async {
        loop {
            // A handshake that fails is what tells that there is none yet.
            let Ok(mut stream) = connect(acme.issued_by.trust(), gateway.address(), name).await else { continue };
            let ask = format!("GET /healthz HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
            stream.write_all(ask.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            return stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        }
    };
    tokio::time::timeout(DEADLINE, get).await.expect("a certificate")
}

#[tokio::test]
async fn a_certificate_is_ordered_kept_for_its_owner_alone_and_not_ordered_again() {
    for challenge in ["", ", challenge = \"http-01\""] {
        let dir = tempfile::tempdir().unwrap();
        let acme = AcmeServer::start(dir.path()).await;
        let gateway = Gateway::in_dir(dir, &tables(&acme, challenge)).await;
        // Before it has one, nobody gets in; and nobody is shown what is for the authority.
        assert!(connect(acme.issued_by.trust(), gateway.address(), NAMES[0]).await.is_err());
        acme.names_lead_to((gateway.address(), Some(gateway.redirect_address())));
        let shown = certificate(&acme, &gateway, NAMES[0]).await;
        assert_eq!(certificate(&acme, &gateway, NAMES[1]).await, shown);
        let folder = gateway.dir.path().join("keys/acme");
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 2, "account and certificate: {files:?}");
        for file in files {
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
        // A reload and a restart find it.
        let path = gateway.dir.path().join("gateway.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("[admin]", "max_uri = \"4KiB\"\n[admin]")).unwrap();
        gateway.inner().reload().await.unwrap();
        assert_eq!(certificate(&acme, &gateway, NAMES[0]).await, shown);
        let gateway = gateway.restart(&tables(&acme, challenge)).await;
        assert_eq!(certificate(&acme, &gateway, NAMES[0]).await, shown);
        assert_eq!(acme.counts(), (1, 1));
        // The answers for the authority are gone.
        let left = format!("http://{}/.well-known/acme-challenge/x", gateway.redirect_address());
        assert_eq!(gateway.client().get(left).send().await.unwrap().status(), 404);
    }
}

#[tokio::test]
async fn a_certificate_near_its_end_is_renewed_and_shown_until_then() {
    let dir = tempfile::tempdir().unwrap();
    let acme = AcmeServer::start(dir.path()).await;
    acme.issue_stale(true);
    let gateway = Gateway::in_dir(dir, &tables(&acme, "")).await;
    acme.names_lead_to((gateway.address(), None));
    let old = certificate(&acme, &gateway, NAMES[0]).await;
    acme.issue_stale(false);
    let gateway = gateway.restart(&tables(&acme, "")).await;
    acme.names_lead_to((gateway.address(), None));
    let renewed = async {
        loop {
            let shown = certificate(&acme, &gateway, NAMES[0]).await;
            if shown != old {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, renewed).await.expect("renewed");
    assert_eq!(acme.counts(), (1, 2), "with the account that was there");
}

#[tokio::test]
async fn an_authority_that_does_not_find_us_leaves_us_without_and_the_log_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let acme = AcmeServer::start(dir.path()).await;
    let gateway = Gateway::in_dir(dir, &tables(&acme, "")).await;
    // The names lead to somebody else.
    acme.names_lead_to((gateway.upstream.address(), None));
    tokio::task::yield_now().await;
    let failed = async {
        while acme.counts() != (1, 1) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, failed).await.expect("an order");
    assert!(connect(acme.issued_by.trust(), gateway.address(), NAMES[0]).await.is_err());
    let folder = gateway.dir.path().join("keys/acme");
    let names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with("certificate")), "{names:?}");
}

#[test]
fn what_cannot_work_is_a_fault() {
    let faults = |server: &str| {
        let text = format!(
            "[server]\n{server}\n[token]\nissuer = \"https://a.example\"\n[[app]]\nappid = \"wx0123456789abcdef\"\nsecret = \"s\"\n"
        );
        let dir = tempfile::tempdir().unwrap();
        match config::parse(&text, &dir.path().join("gateway.toml"), &Environment::of([])) {
            Ok(_) => String::new(),
            Err(faults) => faults.to_string(),
        }
    };
    assert_eq!(faults("tls = { acme = { domains = [\"a.example.com\"] } }"), "");
    for (server, said) in [
        ("tls = { acme = { domains = [] } }", "server.tls.acme.domains: is empty"),
        ("tls = { acme = { email = \"a@b.c\" } }", "server.tls.acme.domains: is missing"),
        ("tls = { acme = { domains = [\"*.example.com\"] } }", "is a wildcard"),
        ("tls = { acme = { domains = [\"10.0.0.1\"] } }", "is no host name"),
        ("tls = { acme = { domains = [\"a.example.com\"], email = \"nobody\" } }", "is no mail address"),
        ("tls = { acme = { domains = [\"a.example.com\"], directory = \"http://a/\" } }", "is not https"),
        ("tls = { acme = { domains = [\"a.example.com\"], challenge = \"http-01\" } }", "http_redirect"),
        ("tls = { acme = { domains = [\"a.example.com\"] }, cert = \"x\" }", "has files and acme"),
        ("tls = [{ acme = { domains = [\"a.b\"] } }, { acme = { domains = [\"c.d\"] } }]", "is a second acme"),
        ("tls = { cert = \"x.pem\" }", "server.tls.key: is missing"),
        ("tls = {}", "server.tls.cert: is missing"),
        ("min_tls = \"1.3\"", "there is no server.tls"),
        ("hsts = \"1h\"", "there is no server.tls"),
        ("http_redirect = [\"0.0.0.0:80\"]", "there is no server.tls"),
        ("http_redirect = [\"0.0.0.0:8080\"]\ntls = { acme = { domains = [\"a.b\"] } }", "is taken by"),
        ("client_auth = \"optional\"", "both or none"),
        ("min_tls = \"1.1\"", "is none of \"1.2\", \"1.3\""),
    ] {
        let faults = faults(server);
        assert!(faults.contains(said), "{server}: {faults}");
    }
}
