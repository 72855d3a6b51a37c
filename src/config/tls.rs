//! TLS of the public listener, as checked: its certificates, who may come in, and how strict it is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use schemars::JsonSchema;
use serde::Deserialize;

use super::certificate::Certificate;

/// What `[server]` says about TLS.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Certificates in files.
    pub certificates: Vec<Certificate>,
    /// Certificates that an authority issues and renews (RFC 8555).
    pub acme: Option<Arc<Acme>>,
    /// The oldest version.
    pub oldest: TlsVersion,
    /// Who signs the certificates of clients, when they are asked for one.
    pub clients: Option<Clients>,
    /// `max-age` of Strict-Transport-Security (RFC 6797); `None` sends none.
    pub hsts: Option<Duration>,
    /// Where plain HTTP is redirected.
    pub redirect: Vec<SocketAddr>,
}

impl Tls {
    /// Whether the public listener speaks TLS.
    pub const fn is_on(&self) -> bool {
        !self.certificates.is_empty() || self.acme.is_some()
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// RFC 5246, with forward secrecy and authenticated encryption only.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    Tls13,
}

/// Certificates of clients.
#[derive(Debug, Clone)]
pub struct Clients {
    /// File of the authorities.
    pub ca: PathBuf,
    /// What is in it.
    pub roots: Arc<RootCertStore>,
    /// Whether a client may show none.
    pub optional: bool,
}

/// Whether a client has to show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// Without one there is no connection.
    #[default]
    Required,
    /// It may; a bad one is refused all the same.
    Optional,
}

/// How one shows an authority that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
pub enum Challenge {
    /// By a certificate on the TLS port (RFC 8737).
    #[default]
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// By an answer on port 80 (RFC 8555, section 8.3).
    #[serde(rename = "http-01")]
    Http01,
}

/// `acme` of `server.tls`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Acme {
    /// For these names: lower case, at least one.
    pub domains: Vec<String>,
    /// Whom the authority may write to.
    pub email: Option<String>,
    /// The authority's directory.
    pub directory: String,
    /// Who signs the certificate of the directory itself, where it is no public authority: DER, at least one.
    pub ca: Option<Vec<Vec<u8>>>,
    /// How names are shown to be ours.
    pub challenge: Challenge,
}
