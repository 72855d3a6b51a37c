//! What a route matches: path patterns and host patterns.
//!
//! A pattern is brought into the form that a request path has when it is matched: unreserved characters decoded, other
//! escapes in upper case (RFC 3986, 6.2.2), so that matching is comparing bytes. What no request can contain, because it
//! is answered `ambiguous_path`, is refused here too.

use std::fmt;
use std::net::Ipv6Addr;

use super::value::Wrong;

/// One segment of a [`PathPattern`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This text, case-sensitive, percent-decoded form of unreserved characters.
    Literal(String),
    /// Any one non-empty segment (`{name}`).
    Any,
}

/// A checked route path: segments, and whether a trailing `/*` takes the rest (which may be empty).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern {
    /// As written.
    pub text: String,
    /// Its segments, without the trailing `*`.
    pub segments: Vec<Segment>,
    /// Ends in `/*`: matches everything below, and the path without it.
    pub rest: bool,
    /// Ends in `/` (and is not `/` itself or `/*`): matches only paths that end so.
    pub slash: bool,
}

/// A checked host pattern of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this host, lower case, without port.
    Exact(String),
    /// `*.example.com`: any one or more labels before this suffix (which starts with a dot).
    Suffix(String),
}

/// As in `gateway.toml`.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// A route path: exact, with `{segment}`, with a trailing `/*`.
///
/// # Errors
/// When it does not start with `/`, or has a part that no request path can have or that has two readings.
pub fn path(text: &str) -> Result<PathPattern, Wrong> {
    let Some(body) = text.strip_prefix('/') else {
        return Err(Wrong::new("does not start with \"/\"", "write the path from its first \"/\" on"));
    };
    let mut parts: Vec<&str> = if body.is_empty() { Vec::new() } else { body.split('/').collect() };
    let rest = parts.last() == Some(&"*");
    let slash = parts.last() == Some(&"");
    if rest || slash {
        parts.pop();
    }
    let segments = parts.into_iter().map(segment).collect::<Result<_, _>>()?;
    Ok(PathPattern { text: text.to_owned(), segments, rest, slash })
}

/// A path without `{segment}` and `/*`, in the form in which requests are matched.
///
/// # Errors
/// As [`path`], and when it is not one exact path.
pub fn exact_path(text: &str) -> Result<String, Wrong> {
    let pattern = path(text)?;
    let mut exact = String::new();
    for segment in &pattern.segments {
        match segment {
            Segment::Literal(text) if !pattern.rest => {
                exact.push('/');
                exact.push_str(text);
            }
            Segment::Literal(_) | Segment::Any => return Err(not_exact()),
        }
    }
    if pattern.rest {
        return Err(not_exact());
    }
    if pattern.slash || exact.is_empty() {
        exact.push('/');
    }
    Ok(exact)
}

fn not_exact() -> Wrong {
    Wrong::new("is a pattern", "write one exact path, without {…} and *")
}

fn segment(text: &str) -> Result<Segment, Wrong> {
    if text.is_empty() {
        return Err(Wrong::new("has \"//\", which is merged in requests before matching", "write a single \"/\""));
    }
    if let Some(inner) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        let named = inner.starts_with(|c: char| c.is_ascii_alphabetic())
            && inner.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        return match named {
            true => Ok(Segment::Any),
            false => Err(Wrong::new("has a {segment} without a plain name", "write for example {id}")),
        };
    }
    let literal = normal(text)?;
    if matches!(literal.as_str(), "." | "..") {
        return Err(Wrong::new("has a dot segment, which is resolved in requests before matching", "remove it"));
    }
    Ok(Segment::Literal(literal))
}

/// One segment with unreserved characters decoded and all others escaped in upper case.
fn normal(text: &str) -> Result<String, Wrong> {
    let mut literal = String::with_capacity(text.len());
    let mut raw = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let digits = [bytes.next().unwrap_or(0), bytes.next().unwrap_or(0)];
                let value = escaped(digits)?;
                raw.push(value);
                push(&mut literal, value, is_unreserved(value));
                continue;
            }
            b'*' => return Err(Wrong::new("has \"*\" elsewhere than as its last segment", "end it in \"/*\"")),
            b'{' | b'}' => {
                return Err(Wrong::new("has a {segment} that is only part of one", "let {name} stand between slashes"));
            }
            b'?' | b'#' => {
                return Err(Wrong::new("has a query or a fragment", "write the path alone; queries pass unchanged"));
            }
            b';' | b'\\' => {
                return Err(Wrong::new(
                    "has \";\" or \"\\\", which upstreams read in different ways",
                    "remove it; such requests are refused",
                ));
            }
            0..=b' ' | 0x7f | b'"' | b'<' | b'>' | b'^' | b'`' | b'|' | b'[' | b']' => {
                return Err(Wrong::new("has a character that no path can have", "escape it, such as %20 for a space"));
            }
            byte => byte,
        };
        raw.push(byte);
        push(&mut literal, byte, byte.is_ascii());
    }
    if ["%252E", "%252F", "%255C"].iter().any(|twice| literal.to_ascii_uppercase().contains(twice)) {
        return Err(Wrong::new("has a dot or slash that is escaped twice", "remove it; such requests are refused"));
    }
    match std::str::from_utf8(&raw) {
        Ok(_) => Ok(literal),
        Err(_) => Err(Wrong::new("has escapes that are not UTF-8", "escape the UTF-8 form")),
    }
}

fn escaped(digits: [u8; 2]) -> Result<u8, Wrong> {
    let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (Some(high), Some(low)) = (digit(digits[0]), digit(digits[1])) else {
        return Err(Wrong::new("has a \"%\" without two hexadecimal digits", "write %25 for the character itself"));
    };
    match high << 4 | low {
        b'/' | b'\\' | 0..=0x1f | 0x7f => Err(Wrong::new(
            "has an escaped slash, backslash or control character",
            "remove it; such requests are refused",
        )),
        value => Ok(value),
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn push(literal: &mut String, byte: u8, plain: bool) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if plain {
        literal.push(char::from(byte));
    } else {
        literal.push('%');
        literal.push(char::from(HEX[usize::from(byte >> 4)]));
        literal.push(char::from(HEX[usize::from(byte & 15)]));
    }
}

/// A host: exact, or `*.example.com` for any name below it. Case does not matter.
///
/// # Errors
/// When it is no host, has a port, or a `*` elsewhere than as its first label.
pub fn host(text: &str) -> Result<HostPattern, Wrong> {
    let lower = text.to_ascii_lowercase();
    if let Some(inner) = lower.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return match inner.parse::<Ipv6Addr>() {
            Ok(address) => Ok(HostPattern::Exact(format!("[{address}]"))),
            Err(_) => Err(not_a_host()),
        };
    }
    if lower.contains("://") || lower.contains('/') {
        return Err(Wrong::new("is a URL", "write the host alone, such as \"api.example.com\""));
    }
    if lower.contains(':') {
        return Err(Wrong::new("has a port", "write the host alone; any port of it matches"));
    }
    match lower.strip_prefix("*.") {
        Some(suffix) if is_host(suffix) => Ok(HostPattern::Suffix(format!(".{suffix}"))),
        None if is_host(&lower) => Ok(HostPattern::Exact(lower)),
        Some(_) | None => Err(not_a_host()),
    }
}

fn not_a_host() -> Wrong {
    Wrong::new(
        "is not a host",
        "write a name such as \"api.example.com\" or \"*.example.com\" (xn--… for other scripts)",
    )
}

/// Whether `text` can be a host name or an IPv4 address: labels of letters, digits, `-` and `_`.
pub(super) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Segment {
        Segment::Literal(text.into())
    }

    #[test]
    fn a_path_is_segments_with_an_optional_rest() {
        let pattern = path("/api/{id}/*").unwrap();
        assert_eq!(pattern.segments, [literal("api"), Segment::Any]);
        assert!(pattern.rest && !pattern.slash);
        for (text, segments, rest, slash) in
            [("/", 0, false, false), ("/*", 0, true, false), ("/a/", 1, false, true), ("/a/b", 2, false, false)]
        {
            let pattern = path(text).unwrap();
            assert_eq!((pattern.segments.len(), pattern.rest, pattern.slash), (segments, rest, slash), "{text}");
        }
    }

    #[test]
    fn a_literal_takes_the_form_of_a_normalised_request() {
        assert_eq!(path("/%41%2d%7e%3a").unwrap().segments, [literal("A-~%3A")]);
        assert_eq!(path("/%e8%ae%a2").unwrap().segments, [literal("%E8%AE%A2")]);
        assert_eq!(path("/订").unwrap().segments, [literal("%E8%AE%A2")]);
    }

    #[test]
    fn a_path_that_no_request_can_have_is_refused() {
        for bad in [
            "",
            "api",
            "//",
            "/a//b",
            "/.",
            "/a/../b",
            "/%2e",
            "/a/%2E%2e/b",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a;b",
            "/a?b",
            "/a#b",
            "/a b",
            "/a\tb",
            "/a%00",
            "/a%",
            "/a%2",
            "/a%zz",
            "/%252e",
            "/a%252fb",
            "/%ff",
            "/%E8",
            "/*/a",
            "/a*",
            "/**",
            "/a{b}",
            "/{}",
            "/{a b}",
            "/{*}",
            "/{a",
            "/a}",
        ] {
            assert!(path(bad).is_err(), "{bad:?} was accepted as {:?}", path(bad));
        }
    }

    /// Nobody's path makes a worker try many ways: there is one way to read a pattern, and it is compared text by text.
    #[test]
    fn a_pattern_is_no_regular_expression() {
        for text in ["/(a+)+$", "/^a", "/a|b", "/[a-z]", "/.+"] {
            let Ok(pattern) = path(text) else { continue };
            assert!(matches!(&*pattern.segments, [Segment::Literal(_)]), "{text}: {pattern:?}");
        }
        assert_eq!(path("/(a+)+$").unwrap().segments, [literal("(a+)+$")]);
        assert!(path("/a{1,9}").is_err() && path("/a.*b").is_err());
    }

    #[test]
    fn an_exact_path_has_no_pattern_in_it() {
        assert_eq!(exact_path("/MP_verify_%61bc.txt").unwrap(), "/MP_verify_abc.txt");
        assert_eq!(exact_path("/a/").unwrap(), "/a/");
        assert_eq!(exact_path("/").unwrap(), "/");
        for bad in ["/*", "/a/*", "/{a}"] {
            assert!(exact_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_is_exact_or_everything_below_a_name() {
        assert_eq!(host("API.Example.com").unwrap(), HostPattern::Exact("api.example.com".into()));
        assert_eq!(host("*.example.com").unwrap(), HostPattern::Suffix(".example.com".into()));
        assert_eq!(host("127.0.0.1").unwrap(), HostPattern::Exact("127.0.0.1".into()));
        assert_eq!(host("[::1]").unwrap(), HostPattern::Exact("[::1]".into()));
        for bad in
            ["", "*", "*.", "a.*.b", "api.example.com:80", "http://a", "a..b", "a.", "中.cn", "a b", "[::1", "a/b"]
        {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
