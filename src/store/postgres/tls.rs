//! TLS to Postgres: the certificate must be good for the host, always.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Trusts the certificates in this file, or those of the system.
pub(super) fn connector(trust: Option<&Path>) -> Result<MakeRustlsConnect, String> {
    let mut roots = RootCertStore::empty();
    match trust {
        Some(path) => {
            let in_file = |what: String| format!("{}: {what}", path.display());
            let certificates = CertificateDer::pem_file_iter(path).map_err(|e| in_file(e.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|e| in_file(e.to_string()))?;
                roots.add(certificate).map_err(|e| in_file(e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(in_file("holds no certificate".to_owned()));
            }
        }
        None => {
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
            if roots.is_empty() {
                return Err("this system has none that could be read; name a file in sslrootcert".to_owned());
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
