//! Account and certificate on disk, readable by their owner only.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use instant_acme::AccountCredentials;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::config::Acme;
use crate::keyfile;

/// A certificate that was issued.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) certified: Arc<CertifiedKey>,
    /// When its life begins and ends, seconds since 1970.
    pub(super) from: i64,
    pub(super) until: i64,
}

/// The folder, and the names of the files in it. They are made of what they are for: another authority has another account,
/// another list of names another certificate.
#[derive(Debug)]
pub(super) struct Shelf {
    account: PathBuf,
    certificate: PathBuf,
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Shelf {
    /// In `folder`, which is made if it is missing.
    pub(super) fn open(folder: &Path, section: &Acme) -> io::Result<Self> {
        keyfile::create_dir(folder)?;
        let account = name(&[&section.directory]);
        let mut of: Vec<&str> = vec![&section.directory];
        of.extend(section.domains.iter().map(String::as_str));
        Ok(Self {
            account: folder.join(format!("account-{account}.json")),
            certificate: folder.join(format!("certificate-{}.pem", name(&of))),
        })
    }

    /// The account, if there is one.
    pub(super) fn account(&self) -> io::Result<Option<AccountCredentials>> {
        match keyfile::read(&self.account) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(invalid),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn keep_account(&self, account: &AccountCredentials) -> io::Result<()> {
        keyfile::write(&self.account, &serde_json::to_vec(account)?)
    }

    /// The certificate, if there is one. One that is over is one, too: showing it says more than showing nothing.
    pub(super) fn certificate(&self) -> io::Result<Option<Kept>> {
        match keyfile::read(&self.certificate) {
            Ok(pem) => certificate(&pem).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Checks and keeps a chain and its key, both PEM.
    pub(super) fn keep_certificate(&self, chain: &str, key: &str) -> io::Result<Kept> {
        let pem = format!("{}\n{}\n", chain.trim_end(), key.trim_end());
        let kept = certificate(pem.as_bytes())?;
        keyfile::write(&self.certificate, pem.as_bytes())?;
        Ok(kept)
    }
}

/// A chain, and the key of its first certificate.
fn certificate(pem: &[u8]) -> io::Result<Kept> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(invalid)?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(invalid)?;
    let first = chain.first().ok_or_else(|| invalid("no certificate"))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(first).map_err(invalid)?;
    let (from, until) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let certified = CertifiedKey::from_der(chain, key, &default_provider()).map_err(invalid)?;
    Ok(Kept { certified: Arc::new(certified), from, until })
}

/// The same for the same texts, and for no others.
fn name(texts: &[&str]) -> String {
    let digest = digest(&SHA256, texts.join("\n").as_bytes());
    digest.as_ref()[..8].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
