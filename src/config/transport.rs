//! How the servers of an upstream are spoken to, where it is not plain HTTP/1.1.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustls::ClientConfig;
use schemars::JsonSchema;
use serde::Deserialize;

/// Which HTTP an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
pub enum UpstreamProtocol {
    /// RFC 9112.
    #[default]
    #[serde(rename = "http/1.1")]
    Http1,
    /// RFC 9113; without TLS with prior knowledge.
    #[serde(rename = "h2")]
    H2,
}

/// How a server is spoken to. Two that are equal may share connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Transport {
    /// HTTP/2 in place of HTTP/1.1.
    pub http2: bool,
    /// TLS, for `https`.
    pub tls: Option<UpstreamTls>,
}

/// TLS to a server: whom to believe, and what to show.
#[derive(Clone)]
pub struct UpstreamTls {
    /// Ready for use; the server's certificate is always verified.
    pub config: Arc<ClientConfig>,
    /// The name that its certificate has to be for, and that it is asked for (SNI); the server's host unless said.
    pub name: Option<String>,
    /// SHA-256 over all that `config` was made of.
    pub digest: [u8; 32],
}

/// The key of a client's certificate is in `config`.
impl fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamTls").field("name", &self.name).field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.digest) == (&other.name, other.digest)
    }
}

impl Eq for UpstreamTls {}

impl Hash for UpstreamTls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, self.digest).hash(state);
    }
}
