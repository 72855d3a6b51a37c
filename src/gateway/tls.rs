//! TLS of the public listener: which versions, which certificate for which name.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::Certificate;

/// TLS with these certificates; `None` when there are none.
///
/// # Errors
/// When the system gives no random numbers.
pub(super) fn config(certificates: &[Certificate], http2: bool) -> Result<Option<Arc<ServerConfig>>, rustls::Error> {
    if certificates.is_empty() {
        return Ok(None);
    }
    let chosen = ByName(certificates.iter().map(|one| Arc::clone(&one.certified)).collect());
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        // 1.2 and 1.3, with forward secrecy in both.
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(chosen));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if http2 {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    // A phone that comes back resumes its session without a new key exchange, on any worker.
    config.ticketer = Ticketer::new()?;
    Ok(Some(Arc::new(config)))
}

/// The first certificate that is for the name the client asks for (SNI), else the first of all: a client that names nothing,
/// or something else, sees for itself that it does not fit.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let fits = |key: &&Arc<CertifiedKey>| {
            let Some(name) = &name else { return false };
            let parsed = key.end_entity_cert().and_then(ParsedCertificate::try_from);
            parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
        };
        self.0.iter().find(fits).or(self.0.first()).map(Arc::clone)
    }
}
