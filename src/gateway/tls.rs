//! TLS of the public listener: which versions, which certificate for which name, which clients.

use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::ServerName;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use crate::acme::{self, Managed};
use crate::config::{Clients, Tls, TlsVersion};

use super::Error;

const NEW: &[&SupportedProtocolVersion] = &[&TLS13];
const ALL: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// TLS as configured, with the certificate that `managed` holds; `None` when there is none.
///
/// # Errors
/// When the system gives no random numbers, or the authorities of clients cannot be used.
pub(super) fn config(
    tls: &Tls,
    managed: Option<Arc<Managed>>,
    http2: bool,
) -> Result<Option<Arc<ServerConfig>>, Error> {
    if !tls.is_on() {
        return Ok(None);
    }
    let alpn_challenge = managed.as_ref().is_some_and(|managed| managed.answers_by_alpn());
    let files = tls.certificates.iter().map(|one| Arc::clone(&one.certified)).collect();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        // With forward secrecy in both.
        .with_protocol_versions(if tls.oldest == TlsVersion::Tls13 { NEW } else { ALL })?
        .with_client_cert_verifier(verifier(tls.clients.as_ref())?)
        .with_cert_resolver(Arc::new(ByName { files, managed }));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if http2 {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    if alpn_challenge {
        config.alpn_protocols.push(acme::ALPN.to_vec());
    }
    // A phone that comes back resumes its session without a new key exchange, on any worker. The ticket keys are new with
    // each snapshot, so that a certificate of a client that was good for an earlier one is not good for ever.
    config.ticketer = Ticketer::new()?;
    Ok(Some(Arc::new(config)))
}

fn verifier(clients: Option<&Clients>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let Some(clients) = clients else { return Ok(Arc::new(NoClientAuth)) };
    let roots = Arc::clone(&clients.roots);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(default_provider()));
    let builder = if clients.optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| Error::Tls(rustls::Error::General(error.to_string())))
}

/// The first certificate that is for the name the client asks for (SNI), else the first of all: a client that names nothing,
/// or something else, sees for itself that it does not fit. Those in files come first.
#[derive(Debug)]
struct ByName {
    files: Vec<Arc<CertifiedKey>>,
    managed: Option<Arc<Managed>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(managed) = &self.managed
            && hello.alpn().is_some_and(|mut offered| offered.any(|name| name == acme::ALPN))
        {
            return managed.challenge(hello.server_name()?);
        }
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let fits = |key: &&Arc<CertifiedKey>| {
            let Some(name) = &name else { return false };
            let parsed = key.end_entity_cert().and_then(ParsedCertificate::try_from);
            parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
        };
        let managed = self.managed.as_ref().and_then(|managed| managed.certificate());
        let all = || self.files.iter().chain(managed.as_ref());
        all().find(fits).or_else(|| all().next()).map(Arc::clone)
    }
}
