//! An authority that signs certificates, and clients that trust it alone.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::gateway::Gateway;

/// Somebody whom the clients of a test trust.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes `NAME.pem` and `NAME.key`, for this host name.
    pub(crate) fn issue(&self, folder: &Path, host: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        std::fs::write(folder.join(format!("{host}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{host}.key")), key.serialize_pem()).unwrap();
    }

    /// Its own certificate, as others trust it.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }

    /// What a client of TLS needs that trusts nobody else.
    pub(crate) fn trust(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        builder.with_root_certificates(self.roots()).with_no_client_auth()
    }

    /// A client that trusts nobody else and finds every name at the gateway.
    pub(crate) fn client(
        &self,
        gateway: &Gateway,
        with: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> reqwest::Client {
        let root = reqwest::Certificate::from_pem(self.pem.as_bytes()).unwrap();
        let mut builder = reqwest::Client::builder().no_proxy().tls_certs_only([root]);
        for host in ["a.example.com", "b.example.com", "c.example.com"] {
            builder = builder.resolve(host, gateway.address());
        }
        with(builder).build().unwrap()
    }
}

/// A client of `a.example.com` that offers these protocols.
pub(crate) async fn tls(authority: &Authority, gateway: &Gateway, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
    let mut config = authority.trust();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    connect(config, gateway.address(), "a.example.com").await.unwrap()
}

/// A handshake with `to` for the name `host`.
pub(crate) async fn connect(config: ClientConfig, to: SocketAddr, host: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await.unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
