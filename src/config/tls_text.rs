//! The text of `server.tls`, key by key; a part of [`super::file`].

use schemars::JsonSchema;
use serde::Deserialize;

use super::tls::Challenge;

/// TLS to the servers of an upstream.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTls {
    /// PEM file of the authorities that sign the servers' certificates. Default: those that the system trusts.
    #[schemars(example = &"tls/upstream-ca.pem")]
    pub ca: Option<String>,
    /// The name that their certificates are for. Default: the host of each server.
    #[schemars(example = &"orders.internal")]
    pub name: Option<String>,
    /// PEM file of the certificate that the gateway shows, with its chain. Default: none is shown.
    #[schemars(example = &"tls/gateway.pem")]
    pub cert: Option<String>,
    /// PEM file of its key.
    #[schemars(example = &"tls/gateway.key")]
    pub key: Option<String>,
}

/// One certificate, or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Tls {
    /// One for every name.
    One(Certificate),
    /// The first that is for the name that the client asks for, else the first.
    Many(#[schemars(length(min = 1))] Vec<Certificate>),
}

/// A certificate chain and its private key, in PEM files; or an authority that issues them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// File of the whole chain, the server's own certificate first. Required, unless there is `acme`.
    #[schemars(example = &"tls/fullchain.pem")]
    pub cert: Option<String>,
    /// File of its private key. Required, unless there is `acme`.
    #[schemars(example = &"tls/key.pem")]
    pub key: Option<String>,
    /// An authority that issues and renews certificates (RFC 8555), in place of files.
    pub acme: Option<Acme>,
}

/// An authority that issues and renews certificates.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acme {
    /// The names, each a host that leads to this gateway. Required.
    #[schemars(required, length(min = 1), example = ["api.example.com"])]
    pub domains: Option<Vec<String>>,
    /// Whom the authority may write to. Default: nobody.
    #[schemars(example = &"ops@example.com")]
    pub email: Option<String>,
    /// The authority's directory. Default: Let's Encrypt.
    #[schemars(example = &"https://acme-v02.api.letsencrypt.org/directory")]
    pub directory: Option<String>,
    /// PEM file of the certificate authority of the directory itself, where it is no public one.
    #[schemars(example = &"tls/acme-ca.pem")]
    pub ca: Option<String>,
    /// How names are shown to be ours. Default: "tls-alpn-01".
    pub challenge: Option<Challenge>,
}
