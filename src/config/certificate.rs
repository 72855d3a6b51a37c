//! A certificate chain and its private key, from two PEM files: what TLS on the public listener shows.
//!
//! They are read and put together when the configuration is checked, so that a file that cannot be used is a fault of the
//! configuration like any other, and a reload with one changes nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::value::Wrong;

/// Largest file, bytes.
const MAX_FILE: u64 = 1 << 20;

/// One certificate of the public listener.
#[derive(Clone)]
pub struct Certificate {
    /// File of the chain, the server's own certificate first.
    pub cert: PathBuf,
    /// File of its private key.
    pub key: PathBuf,
    /// Both, ready for use.
    pub certified: Arc<CertifiedKey>,
}

/// Tells one chain from another; the key is not shown.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("cert", &self.cert).field("chain", &self.certified.cert).finish()
    }
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
/// When it cannot be read or holds none.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let bytes = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(Wrong::new("holds no certificate", "write a PEM file that begins with BEGIN CERTIFICATE")),
        Err(_) => Err(Wrong::new("is not whole PEM", "write the chain again")),
    }
}

/// The private key in a PEM file: PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// When it cannot be read or holds none.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Wrong> {
    let remedy = "write a PEM file that begins with BEGIN PRIVATE KEY";
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| Wrong::new("holds no private key", remedy))
}

/// A chain and its key.
///
/// # Errors
/// When the two do not belong together, or are of a kind that cannot be used.
pub(super) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, Wrong> {
    CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            Wrong::new("is not the key of the certificate", "write the key that the certificate was made for")
        }
        _ => Wrong::new(
            "cannot be used with the certificate",
            "use a certificate of version 3 and an RSA, ECDSA or Ed25519 key",
        ),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Wrong> {
    let cannot =
        |why: std::io::Error| Wrong::new(format!("cannot be read ({why})"), "write the path of a readable file");
    // Asked before it is opened: opening a pipe waits for its writer.
    let about = std::fs::metadata(path).map_err(cannot)?;
    if !about.is_file() || about.len() > MAX_FILE {
        return Err(Wrong::new("is not a file of at most 1MiB", "write the path of a PEM file"));
    }
    std::fs::read(path).map_err(cannot)
}
