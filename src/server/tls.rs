//! The TLS handshake of a client.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tunnel::Stream;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The stream inside; `None` when the client does not come to an agreement in time. Nothing is counted as a fault of
/// ours: scanners and plain HTTP come here all day.
pub(super) async fn accept<S: Stream>(config: Arc<ServerConfig>, stream: S) -> Option<TlsStream<S>> {
    match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took too long");
            None
        }
    }
}

/// What a client's certificate is known by: its SHA-256, as services configure it.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> HeaderValue {
    let digest = digest(&SHA256, certificate);
    let text = digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::server::ResolvesServerCertUsingSni;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    fn config() -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        Arc::new(builder.with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new())))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_or_half_a_hello_is_left_after_ten_seconds() {
        for said in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"] {
            let (mut client, ours) = duplex(1024);
            client.write_all(said).await.unwrap();
            let started = Instant::now();
            assert!(accept(config(), ours).await.is_none());
            assert_eq!(started.elapsed().as_secs(), 10);
            assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_speak_tls_is_left_at_once() {
        let (mut client, ours) = duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let started = Instant::now();
        assert!(accept(config(), ours).await.is_none());
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
