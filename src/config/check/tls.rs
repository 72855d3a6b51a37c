//! TLS of `[server]`: certificates and their keys, read from their files, and what else concerns it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::super::certificate::{self, Certificate};
use super::super::file;
use super::super::pattern::is_host;
use super::super::report::Report;
use super::super::tls::{Acme, Challenge, ClientAuth, Clients, Tls, TlsVersion};
use super::super::url;
use super::super::value::{Wrong, duration_or_zero, listen};
use super::shared::{list, time};

/// Let's Encrypt.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// What `[server]` says about TLS.
pub(super) fn tls(file: &file::Server, folder: &Path, report: &mut Report<'_>) -> Tls {
    let mut tls = Tls { oldest: file.min_tls.unwrap_or_default(), ..Tls::default() };
    match &file.tls {
        None => {}
        Some(file::Tls::One(one)) => certificate(one, "server.tls", folder, &mut tls, report),
        Some(file::Tls::Many(many)) => {
            for (n, one) in many.iter().enumerate() {
                certificate(one, &format!("server.tls[{n}]"), folder, &mut tls, report);
            }
        }
    }
    tls.clients = clients(file, folder, report);
    let hsts = time(report, "server.hsts", file.hsts.as_ref(), "0s", duration_or_zero);
    tls.hsts = Some(hsts).filter(|age| !age.is_zero());
    tls.redirect = list(report, "server.http_redirect", file.http_redirect.as_ref(), listen);
    let by_http = tls.acme.as_ref().is_some_and(|acme| acme.challenge == Challenge::Http01);
    if by_http && file.http_redirect.is_none() && !report.is_refused_within("server.http_redirect") {
        let what = "has an acme with \"http-01\", which is answered by server.http_redirect; write http_redirect = \
                    [\"0.0.0.0:80\"]";
        report.fault("server.tls", what);
    }
    if file.tls.is_none() && !report.is_refused_within("server.tls") {
        for (key, there) in [
            ("server.min_tls", tls.oldest == TlsVersion::Tls13),
            ("server.client_ca", file.client_ca.is_some()),
            ("server.hsts", tls.hsts.is_some()),
            ("server.http_redirect", !tls.redirect.is_empty()),
        ] {
            if there {
                report.fault(key, "is for https, and there is no server.tls; write it, or remove this");
            }
        }
    }
    tls
}

fn certificate(file: &file::Certificate, at: &str, folder: &Path, tls: &mut Tls, report: &mut Report<'_>) {
    let Some(acme) = &file.acme else {
        return tls.certificates.extend(from_files(file, at, folder, report));
    };
    if file.cert.is_some() || file.key.is_some() {
        report.fault(at, "has files and acme; write one of them, or a list with both");
    }
    if tls.acme.is_some() {
        return report.fault(at, "is a second acme; write all domains into one");
    }
    tls.acme = Some(Arc::new(self::acme(acme, &format!("{at}.acme"), folder, report)));
}

fn from_files(file: &file::Certificate, at: &str, folder: &Path, report: &mut Report<'_>) -> Option<Certificate> {
    let key_name = format!("{at}.key");
    for (name, example, there) in [("cert", "tls/fullchain.pem", &file.cert), ("key", "tls/key.pem", &file.key)] {
        let key = format!("{at}.{name}");
        if there.is_none() && !report.is_refused_within(at) {
            report.fault(&key, format!("is missing; write for example {name} = \"{example}\""));
        }
    }
    let chain = file
        .cert
        .as_deref()
        .and_then(|text| report.read(&format!("{at}.cert"), text, |text| read(text, folder, certificate::chain)));
    let key =
        file.key.as_deref().and_then(|text| report.read(&key_name, text, |text| read(text, folder, certificate::key)));
    let ((cert, chain), (key, secret)) = (chain?, key?);
    let certified = report.read(&key_name, "", |_| certificate::certified(chain, secret))?;
    Some(Certificate { cert, key, certified: Arc::new(certified) })
}

pub(super) fn read<T>(text: &str, folder: &Path, of: fn(&Path) -> Result<T, Wrong>) -> Result<(PathBuf, T), Wrong> {
    let path = url::file(text, folder)?;
    let content = of(&path)?;
    Ok((path, content))
}

fn clients(file: &file::Server, folder: &Path, report: &mut Report<'_>) -> Option<Clients> {
    let Some(text) = &file.client_ca else {
        if file.client_auth.is_some() && !report.is_refused("server.client_ca") {
            report.fault("server.client_auth", "is about server.client_ca, which is not there; write both or none");
        }
        return None;
    };
    let (ca, roots) = report.read("server.client_ca", text, |text| authorities(text, folder))?;
    let optional = file.client_auth.unwrap_or_default() == ClientAuth::Optional;
    Some(Clients { ca, roots: Arc::new(roots), optional })
}

/// The authorities in a PEM file, whose signatures are to be believed.
pub(super) fn authorities(text: &str, folder: &Path) -> Result<(PathBuf, RootCertStore), Wrong> {
    let (path, chain): (PathBuf, Vec<CertificateDer<'static>>) = read(text, folder, certificate::chain)?;
    let mut roots = RootCertStore::empty();
    for authority in chain {
        let wrong = |_| Wrong::new("holds a certificate that cannot be used", "write those of the authorities alone");
        roots.add(authority).map_err(wrong)?;
    }
    Ok((path, roots))
}

fn acme(file: &file::Acme, at: &str, folder: &Path, report: &mut Report<'_>) -> Acme {
    let key = |name: &str| format!("{at}.{name}");
    let directory = file.directory.as_deref().unwrap_or(DIRECTORY);
    let ca = file.ca.as_deref().and_then(|text| {
        report.read(&key("ca"), text, |text| {
            let (_, chain) = read(text, folder, certificate::chain)?;
            Ok(chain.iter().map(|one| one.to_vec()).collect())
        })
    });
    Acme {
        domains: list(report, &key("domains"), file.domains.as_ref(), domain),
        email: file.email.as_deref().and_then(|text| report.read(&key("email"), text, email)),
        directory: report.read(&key("directory"), directory, https).unwrap_or_default(),
        ca,
        challenge: file.challenge.unwrap_or_default(),
    }
}

/// A host name; neither challenge is for a wildcard or an address.
fn domain(text: &str) -> Result<String, Wrong> {
    let name = text.to_ascii_lowercase();
    if name.starts_with("*.") {
        return Err(Wrong::new("is a wildcard, which only DNS could prove", "write each name"));
    }
    if !is_host(&name) || !name.contains('.') || name.parse::<IpAddr>().is_ok() {
        return Err(Wrong::new("is no host name", "write one such as \"api.example.com\""));
    }
    Ok(name)
}

fn email(text: &str) -> Result<String, Wrong> {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b',' && b != b'?');
    match text.split_once('@') {
        Some((name, host)) if plain && !name.is_empty() && is_host(host) => Ok(text.to_owned()),
        _ => Err(Wrong::new("is no mail address", "write one such as \"ops@example.com\"")),
    }
}

fn https(text: &str) -> Result<String, Wrong> {
    if !text.starts_with("https://") {
        return Err(Wrong::silent("is not https", "write the URL of the authority's directory"));
    }
    url::issuer(text)
}
