//! How the servers of an upstream are spoken to: `protocol` and `tls`.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::super::certificate;
use super::super::file;
use super::super::report::Report;
use super::super::section::Backend;
use super::super::transport::{Transport, UpstreamProtocol, UpstreamTls};
use super::super::value::Wrong;
use super::tls::{authorities, read};

/// The servers, each with the way it is spoken to.
pub(super) fn all(
    servers: Vec<(Backend, bool)>,
    file: &file::Upstream,
    key: &impl Fn(&str) -> String,
    folder: &Path,
    report: &mut Report<'_>,
) -> Vec<Backend> {
    let https = servers.iter().filter(|(_, https)| *https).count();
    if https > 0 && https < servers.len() {
        report.fault(&key("servers"), "mixes http and https; write one of them for all servers");
    }
    if https == 0 && file.tls.is_some() && !report.is_refused_within(&key("servers")) {
        report.fault(
            &key("tls"),
            "is for servers with https://, and there is none; remove it, or write https://HOST:PORT",
        );
    }
    let http2 = file.protocol == Some(UpstreamProtocol::H2);
    let tls =
        if https > 0 { tls(&file.tls.clone().unwrap_or_default(), &key("tls"), http2, folder, report) } else { None };
    let transport = (http2 || tls.is_some()).then(|| Arc::new(Transport { http2, tls }));
    servers.into_iter().map(|(server, _)| Backend { transport: transport.clone(), ..server }).collect()
}

fn tls(file: &file::UpstreamTls, at: &str, http2: bool, folder: &Path, report: &mut Report<'_>) -> Option<UpstreamTls> {
    let key = |name: &str| format!("{at}.{name}");
    let mut digest = Context::new(&SHA256);
    digest.update(&[u8::from(http2)]);
    let roots = match &file.ca {
        Some(text) => {
            let (path, roots) = report.read(&key("ca"), text, |text| authorities(text, folder))?;
            for authority in certificate::chain(&path).unwrap_or_default() {
                digest.update(&authority);
            }
            roots
        }
        None => trusted_by_the_system(at, report)?,
    };
    let name = match &file.name {
        Some(text) => Some(report.read(&key("name"), text, name)?),
        None => None,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().ok()?.with_root_certificates(roots);
    let mut config = match (&file.cert, &file.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(secret)) => {
            let (_, chain) = report.read(&key("cert"), cert, |text| read(text, folder, certificate::chain))?;
            let (_, secret) = report.read(&key("key"), secret, |text| read(text, folder, certificate::key))?;
            chain.iter().for_each(|one| digest.update(one));
            digest.update(secret.secret_der());
            let built = builder.with_client_auth_cert(chain, secret);
            let wrong =
                |_| Wrong::new("is not the key of the certificate", "write the key that the certificate was made for");
            report.read(&key("key"), "", |_| built.map_err(wrong))?
        }
        _ => {
            report.fault(at, "has cert without key, or key without cert; write both, or none");
            return None;
        }
    };
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let digest = digest.finish().as_ref().try_into().ok()?;
    Some(UpstreamTls { config: Arc::new(config), name, digest })
}

fn trusted_by_the_system(at: &str, report: &mut Report<'_>) -> Option<RootCertStore> {
    let found: Vec<CertificateDer<'static>> = rustls_native_certs::load_native_certs().certs;
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(found).0 == 0 {
        report.fault(
            &format!("{at}.ca"),
            "is missing, and this system trusts nobody; write the PEM file of the authorities",
        );
        return None;
    }
    Some(roots)
}

fn name(text: &str) -> Result<String, Wrong> {
    match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Wrong::new("is no name that a certificate can be for", "write a host name")),
    }
}
