//! One request of HTTP/2: may it be read in only one way, also by an upstream that is told it in HTTP/1.1?
//!
//! The library under hyper has refused what RFC 9113 calls malformed and can be seen field by field: capital letters,
//! control bytes, pseudo-header fields twice or out of place, fields of the connection (section 8.2.2), and data that does
//! not add up to `content-length`. Here is refused what is left: what only the fields together tell, and what HTTP/1.1
//! would read differently.

use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use crate::http1::MAX_FIELDS;
use crate::http1::grammar::is_all_value;

use super::super::head::{self, Refusal};

/// Checks a request and makes of it what one of HTTP/1.1 would be: the host in `host`, one `cookie`.
///
/// # Errors
/// Whatever could be read in more than one way, and what is over a limit.
pub(super) fn check<B>(request: &mut Request<B>, max_uri: usize) -> Result<(), Refusal> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Refusal::NotImplemented);
    }
    target(request.uri(), max_uri)?;
    fields(request.headers())?;
    host(request)?;
    join_cookies(request.headers_mut());
    Ok(())
}

fn target(uri: &Uri, max_uri: usize) -> Result<(), Refusal> {
    // `*` and a target without a path are for OPTIONS and CONNECT.
    let target = uri.path_and_query().ok_or(Refusal::NotImplemented)?.as_str();
    if target.len() > max_uri {
        return Err(Refusal::UriTooLong);
    }
    if target == "*" {
        return Err(Refusal::NotImplemented);
    }
    // Other schemes are for gateways to other protocols, and one of them is our own for refusals.
    let http = matches!(uri.scheme_str(), Some("http" | "https"));
    if !http || !target.starts_with('/') || !head::is_target(target.as_bytes()) {
        return Err(Refusal::InvalidRequest);
    }
    Ok(())
}

fn fields(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.len() > MAX_FIELDS {
        return Err(Refusal::HeadersTooLarge);
    }
    let mut lengths = 0;
    for (name, value) in headers {
        // RFC 9113, section 8.2.1: no blanks around a value. A reader of HTTP/1.1 would take them away.
        let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
        let value = value.as_bytes();
        if blank(value.first()) || blank(value.last()) || !is_all_value(value) {
            return Err(Refusal::InvalidRequest);
        }
        if name == CONTENT_LENGTH {
            lengths += 1;
            if head::decimal(value).is_none() {
                return Err(Refusal::InvalidRequest);
            }
        } else if head::folds_to_framing(name.as_str().as_bytes()) {
            return Err(Refusal::InvalidRequest);
        }
    }
    if lengths > 1 { Err(Refusal::InvalidRequest) } else { Ok(()) }
}

/// RFC 9113, section 8.3.1: `:authority` and `host` say the same, and one of them is there.
fn host<B>(request: &mut Request<B>) -> Result<(), Refusal> {
    let mut named = request.headers().get_all(HOST).iter();
    let host = named.next();
    if named.next().is_some() {
        return Err(Refusal::InvalidRequest);
    }
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let one = match (authority, host) {
        (Some(authority), Some(host)) if !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) => None,
        (Some(authority), _) => Some(authority.as_bytes()),
        (None, host) => host.map(HeaderValue::as_bytes),
    };
    let one = one.filter(|host| head::is_host(host)).ok_or(Refusal::InvalidRequest)?;
    if host.is_none() {
        let host = HeaderValue::from_bytes(one).map_err(|_| Refusal::InvalidRequest)?;
        request.headers_mut().insert(HOST, host);
    }
    Ok(())
}

/// RFC 9113, section 8.2.3: crumbs of a cookie are one field again for whoever reads HTTP/1.1.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(uri: &str, fields: &[(&str, &str)]) -> Result<Request<()>, Refusal> {
        let mut request = Request::builder().uri(uri).body(()).unwrap();
        for (name, value) in fields {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        check(&mut request, 100).map(|()| request)
    }

    #[test]
    fn an_ordinary_request_passes_and_has_a_host() {
        let request = checked("https://a.example.com:443/x?y", &[("accept", "*/*")]).unwrap();
        assert_eq!(request.headers()[HOST], "a.example.com:443");
        let request = checked("https://A.example.com/x", &[("host", "a.Example.com")]).unwrap();
        assert_eq!(request.headers()[HOST], "a.Example.com");
    }

    #[test]
    fn two_hosts_or_none_or_a_strange_one_are_refused() {
        for (uri, fields) in [
            ("https://a.example.com/", &[("host", "b.example.com")][..]),
            ("https://a.example.com/", &[("host", "a.example.com"), ("host", "a.example.com")]),
            ("https://user@a.example.com/", &[]),
            ("https://a.example.com/", &[("host", "")]),
            ("/", &[]),
            ("https://a.example.com:99999/", &[]),
        ] {
            assert_eq!(checked(uri, fields).unwrap_err(), Refusal::InvalidRequest, "{uri} {fields:?}");
        }
    }

    #[test]
    fn what_http1_reads_differently_is_refused() {
        for field in [
            ("content-length", "1, 2"),
            ("content-length", "+5"),
            ("content-length", "5 "),
            ("content_length", "5"),
            ("transfer_encoding", "chunked"),
            ("transfer-encoding", "chunked"),
            ("x-a", " leading"),
            ("x-a", "trailing\t"),
        ] {
            assert_eq!(checked("http://a/", &[field]).unwrap_err(), Refusal::InvalidRequest, "{field:?}");
        }
        let twice = [("content-length", "5"), ("content-length", "5")];
        assert_eq!(checked("http://a/", &twice).unwrap_err(), Refusal::InvalidRequest);
    }

    #[test]
    fn targets_are_those_of_http1() {
        let long = format!("http://a/{}", "x".repeat(100));
        let many: Vec<(String, &str)> = (0..=MAX_FIELDS).map(|n| (format!("x-{n}"), "v")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(checked(&long, &[]).unwrap_err(), Refusal::UriTooLong);
        assert_eq!(checked("http://a/", &many).unwrap_err(), Refusal::HeadersTooLarge);
        assert_eq!(checked("wxgate://a/", &[]).unwrap_err(), Refusal::InvalidRequest);
        let mut connect = Request::builder().method(Method::CONNECT).uri("a:443").body(()).unwrap();
        assert_eq!(check(&mut connect, 100).unwrap_err(), Refusal::NotImplemented);
        let mut options = Request::builder().method(Method::OPTIONS).uri("*").body(()).unwrap();
        assert_eq!(check(&mut options, 100).unwrap_err(), Refusal::NotImplemented);
    }

    #[test]
    fn the_crumbs_of_a_cookie_are_joined() {
        let request = checked("http://a/", &[("cookie", "a=b"), ("x-y", "z"), ("cookie", "c=d")]).unwrap();
        let cookies: Vec<_> = request.headers().get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=b; c=d"]);
    }
}
