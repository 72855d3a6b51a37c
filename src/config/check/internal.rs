//! `[internal]`: the services' listener, and who may use it.

use std::path::Path;

use subtle::ConstantTimeEq as _;

use super::super::file;
use super::super::pattern::path;
use super::super::report::Report;
use super::super::section::{Internal, PathPattern, Proof, Segment, Service};
use super::super::value::{Wrong, name, service_network};
use super::server::address;
use super::shared::{list, secret};
use crate::ids::Secret;

/// Shortest token, bytes: what a person could think up is too short.
const MIN_TOKEN: usize = 16;

/// `[internal]`.
pub(super) fn internal(file: file::Internal, folder: &Path, report: &mut Report<'_>) -> Internal {
    let listen = address(report, "internal.listen", file.listen.as_deref(), "127.0.0.1:9080");
    let mut services: Vec<Service> = Vec::new();
    let mut names: Vec<Option<String>> = Vec::new();
    for (n, file) in file.service.unwrap_or_default().into_iter().enumerate() {
        let at = |member: &str| format!("internal.service[{n}].{member}");
        let name = file.name.and_then(|text| report.read(&at("name"), &text, service_name));
        if let (Some(_), Some(m)) = (&name, names.iter().position(|earlier| *earlier == name)) {
            let other = report.refer(&format!("internal.service[{m}].name"));
            report.fault(&at("name"), format!("is the same as {other}; give each service its own name"));
        }
        names.push(name.clone());
        let wechat = list(report, &at("wechat"), file.wechat.as_ref(), api_path);
        let proof = match (file.token, file.from) {
            (Some(_), Some(_)) => {
                report
                    .fault(&at("from"), "stands beside a token, and one of them would be enough to get in; write one");
                None
            }
            (Some(token), None) => service_token(report, &at("token"), token, folder).map(Proof::Token),
            (None, Some(from)) => {
                Some(list(report, &at("from"), Some(&from), service_network)).filter(|l| !l.is_empty()).map(Proof::From)
            }
            (None, None) => {
                if !report.is_refused_within(&at("token")) && !report.is_refused_within(&at("from")) {
                    let key = format!("internal.service[{n}]");
                    report.fault(&key, "has neither token nor from; write token = \"${ORDERS_TOKEN}\"");
                }
                None
            }
        };
        if let Some(Proof::Token(token)) = &proof
            && services.iter().any(|earlier| is_token(&earlier.proof, token))
        {
            report.fault(&at("token"), "is that of another service; give each its own");
        }
        if let (Some(name), Some(proof)) = (name, proof) {
            services.push(Service { name, proof, wechat });
        }
    }
    Internal { listen, services }
}

fn is_token(proof: &Proof, token: &Secret<String>) -> bool {
    match proof {
        Proof::Token(other) => other.expose().as_bytes().ct_eq(token.expose().as_bytes()).into(),
        Proof::From(_) => false,
    }
}

/// It stands before the colon of `http://NAME:TOKEN@HOST`.
fn service_name(text: &str) -> Result<String, Wrong> {
    let name = name(text)?;
    if name.contains(':') {
        return Err(Wrong::new("has a colon", "write letters, digits, \".\", \"_\" and \"-\""));
    }
    Ok(name)
}

/// A path of WeChat's API, or everything below one.
fn api_path(text: &str) -> Result<PathPattern, Wrong> {
    let pattern = path(text)?;
    let plain = |segment: &Segment| match segment {
        Segment::Literal(text) => text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')),
        Segment::Any => false,
    };
    if pattern.slash || !pattern.segments.iter().all(plain) {
        return Err(Wrong::new(
            "is no path of WeChat's API",
            "write one such as \"/wxa/getwxacode\", or \"/cgi-bin/message/*\" for everything below",
        ));
    }
    Ok(pattern)
}

fn service_token(report: &mut Report<'_>, key: &str, from: file::Secret, folder: &Path) -> Option<Secret<String>> {
    let token = secret(report, key, from, folder)?;
    if token.expose().len() < MIN_TOKEN || !token.expose().bytes().all(|b| b.is_ascii_graphic()) {
        report
            .fault(key, "must be at least 16 visible ASCII characters without space; `openssl rand -hex 32` makes one");
        return None;
    }
    Some(token)
}
