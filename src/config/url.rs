//! Addresses of servers: the issuer, the bases of WeChat, the servers of an upstream. Stores have [`super::database`].
//!
//! None of these refusals quotes its value: addresses are where people put passwords.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use http::Uri;
use http::uri::Scheme;

use super::pattern::is_host;
use super::section::Backend;
use super::value::Wrong;

/// The issuer: an `http` or `https` URL, compared byte by byte by whoever verifies a token, so it is kept as written.
///
/// # Errors
/// When it is no such URL, or has userinfo, a query or a fragment (RFC 8414, section 2).
pub fn issuer(text: &str) -> Result<String, Wrong> {
    http_url(text, "write the public URL of this gateway, such as \"https://api.example.com\"")?;
    Ok(text.to_owned())
}

/// A base under which paths are put: an `http` or `https` URL; a slash at its end is dropped.
///
/// # Errors
/// As [`issuer`].
pub fn base(text: &str) -> Result<String, Wrong> {
    http_url(text, "write a URL such as \"https://api.weixin.qq.com\"")?;
    Ok(text.trim_end_matches('/').to_owned())
}

/// Where the login hook is: an `http` or `https` URL.
///
/// # Errors
/// As [`issuer`].
pub fn hook(text: &str) -> Result<String, Wrong> {
    http_url(text, "write a URL such as \"http://127.0.0.1:3001/wxgate/login\"")?;
    Ok(text.to_owned())
}

/// A collector of OpenTelemetry: an `http` or `https` URL, under which `/v1/traces` is put unless it is written out, as the
/// OTLP exporter specification has it.
///
/// # Errors
/// As [`issuer`].
pub fn otlp(text: &str) -> Result<String, Wrong> {
    http_url(text, "write a URL such as \"http://127.0.0.1:4318\"")?;
    let base = text.trim_end_matches('/');
    Ok(if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") })
}

/// An origin as a browser writes it (RFC 6454): `https://HOST[:PORT]`, and plain `http` for a loopback host alone.
///
/// # Errors
/// When it is no such origin.
pub fn origin(text: &str) -> Result<String, Wrong> {
    const WRITE: &str = "write https://HOST, such as \"https://m.example.com\"";
    let uri = http_url(text, WRITE)?;
    let host = uri.host().unwrap_or_default();
    if uri.path() != "/" || text.ends_with('/') {
        return Err(Wrong::silent("has a path", WRITE));
    }
    if uri.scheme() == Some(&Scheme::HTTP) && !is_loopback(host) {
        return Err(Wrong::silent("is plain http, which is for loopback hosts alone", WRITE));
    }
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Wrong::silent("has a capital letter, and browsers write none", WRITE));
    }
    let default_port = if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    if uri.port_u16() == Some(default_port) {
        return Err(Wrong::silent("names the default port, and browsers leave it out", WRITE));
    }
    Ok(text.to_owned())
}

/// Whether this is a plain `http` URL of this machine.
pub fn is_loopback_http(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| uri.scheme() == Some(&Scheme::HTTP) && uri.host().is_some_and(is_loopback))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// One server of an upstream, `http://HOST:PORT` or `https://HOST:PORT`, and whether it is https.
///
/// # Errors
/// When it is no such URL, or has more than scheme, host and port.
pub fn backend(text: &str) -> Result<(Backend, bool), Wrong> {
    const WRITE: &str = "write http://HOST:PORT, such as \"http://127.0.0.1:3001\"";
    let uri = http_url(text, WRITE)?;
    let https = uri.scheme() == Some(&Scheme::HTTPS);
    if uri.path() != "/" {
        return Err(Wrong::silent("has a path", "write http://HOST:PORT alone; the path comes from the request"));
    }
    let authority = uri.authority().ok_or_else(|| Wrong::silent("has no host", WRITE))?.clone();
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    match authority.port_u16().unwrap_or(if https { 443 } else { 80 }) {
        0 => Err(Wrong::silent("has port 0, on which nothing listens", WRITE)),
        port => Ok((Backend { authority, host, port, transport: None }, https)),
    }
}

fn http_url(text: &str, write: &str) -> Result<Uri, Wrong> {
    let wrong = |what: &str| Wrong::silent(what, write);
    // `Uri` drops a fragment silently.
    if text.contains('#') {
        return Err(wrong("has a fragment"));
    }
    let uri: Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
    if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
        return Err(wrong("is not an http or https URL"));
    }
    if uri.query().is_some() {
        return Err(wrong("has a query"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("has a user name or password"));
    }
    let host = authority.host();
    let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let known = ipv6.map_or_else(|| is_host(host), |host| host.parse::<Ipv6Addr>().is_ok());
    if !known {
        return Err(wrong("has no valid host"));
    }
    // `Uri` accepts a port that is empty or above 65535 and then answers that there is none.
    if authority.as_str().len() > host.len() && authority.port_u16().is_none() {
        return Err(wrong("has no valid port"));
    }
    Ok(uri)
}

/// A path of this machine; a relative one starts at `folder`.
///
/// # Errors
/// When it is empty or has a NUL byte.
pub fn file(text: &str, folder: &Path) -> Result<PathBuf, Wrong> {
    if text.is_empty() || text.contains('\0') {
        return Err(Wrong::new("is not a path", "write a path; a relative one starts at the folder of this file"));
    }
    Ok(folder.join(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_scheme_host_and_port() {
        let (server, _) = backend("http://127.0.0.1:3001").unwrap();
        assert_eq!(
            (server.authority.as_str(), server.host.as_str(), server.port),
            ("127.0.0.1:3001", "127.0.0.1", 3001)
        );
        assert_eq!(backend("http://orders/").unwrap().0.port, 80);
        assert_eq!(backend("http://[::1]:8080").unwrap().0.host, "::1");
        for bad in [
            "",
            "127.0.0.1:3001",
            "http://",
            "http://a:0",
            "http://a:",
            "http://a:70000",
            "http://a/b",
            "http://a?b",
            "http://a#b",
            "http://u:p@a",
            "ftp://a",
            "http://a b",
            "http://-a",
            "http://[::1",
            "/a",
            "http://:80",
        ] {
            assert!(backend(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_address_is_never_quoted() {
        for bad in ["http://user:hunter2@host", "http://host?key=hunter2", "hunter2"] {
            let wrong = issuer(bad).unwrap_err();
            assert!(!wrong.quote && !wrong.to_string().contains("hunter2"), "{wrong}");
        }
    }

    #[test]
    fn an_issuer_is_kept_as_written_and_a_base_loses_its_slash() {
        assert_eq!(issuer("https://api.example.com/").unwrap(), "https://api.example.com/");
        assert_eq!(base("http://127.0.0.1:9100/").unwrap(), "http://127.0.0.1:9100");
    }

    #[test]
    fn an_origin_is_what_a_browser_writes() {
        for good in ["https://m.example.com", "https://m.example.com:8443", "http://127.0.0.1:3000", "http://localhost"]
        {
            assert_eq!(origin(good).unwrap(), good);
        }
        for bad in [
            "",
            "*",
            "null",
            "m.example.com",
            "//m.example.com",
            "https://",
            "https://m.example.com/",
            "https://m.example.com/a",
            "https://m.example.com?a",
            "https://m.example.com#a",
            "https://u@m.example.com",
            "https://M.example.com",
            "HTTPS://m.example.com",
            "https://m.example.com:443",
            "https://*.example.com",
            "http://m.example.com",
            "http://127.0.0.1:80",
            "http://localhost.example.com",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
