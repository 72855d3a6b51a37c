//! How clients are told to come by https: the redirect of plain HTTP, and Strict-Transport-Security.

use http::uri::Authority;
use http::{HeaderValue, Uri};

use crate::config::{Config, HostPattern};

/// What follows from a configuration.
#[derive(Debug)]
pub(super) struct Secure {
    /// Strict-Transport-Security (RFC 6797, section 6.1).
    pub(super) hsts: Option<HeaderValue>,
    /// Host and port of the issuer, which is our public address.
    issuer: Option<Authority>,
    /// The other hosts that we know by name.
    hosts: Vec<HostPattern>,
}

impl Secure {
    pub(super) fn new(config: &Config) -> Self {
        let tls = &config.server.tls;
        let hsts = tls.hsts.and_then(|age| HeaderValue::try_from(format!("max-age={}", age.as_secs())).ok());
        let issuer = config.token.issuer.parse::<Uri>().ok().and_then(|uri| uri.authority().cloned());
        let mut hosts: Vec<HostPattern> = config.routes.iter().flat_map(|route| &route.hosts).cloned().collect();
        hosts.extend(tls.acme.iter().flat_map(|acme| &acme.domains).cloned().map(HostPattern::Exact));
        Self { hsts, issuer, hosts }
    }

    /// Where `host`, as a client writes it on plain HTTP, is by https: at the issuer's port if it is the issuer's host, else at
    /// the usual one.
    pub(super) fn authority(&self, host: &str) -> Option<String> {
        let asked = host.parse::<Authority>().ok()?;
        let name = asked.host().trim_end_matches('.').to_ascii_lowercase();
        if let Some(issuer) = self.issuer.as_ref().filter(|issuer| issuer.host().eq_ignore_ascii_case(&name)) {
            return Some(issuer.as_str().to_ascii_lowercase());
        }
        let knows = |known: &HostPattern| match known {
            HostPattern::Exact(exact) => *exact == name,
            HostPattern::Suffix(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
        };
        self.hosts.iter().any(knows).then_some(name)
    }
}
