//! What of an upstream's response head reaches the client, and what makes the head one that cannot be passed on.
//!
//! `response_head` repairs nothing, so the map shows whatever contradiction the upstream sent.

use http::header::{CONNECTION, CONTENT_LENGTH, Entry, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::response::Parts;
use http::{Method, StatusCode, Version};
use smallvec::SmallVec;

use super::error::Violation;
use crate::http1::chunked::Scanner;
use crate::http1::receiving::Framing;

/// Whether a connection may carry another request after this answer, as far as its head tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    Yes,
    No,
}

/// Makes an upstream's response head ours: checks its framing, removes what belongs to the connection or to the gateway's
/// namespace, and states our own version. Says how the body ends.
///
/// # Errors
/// A [`Violation`] of the framing rules; the connection must then be closed (RFC 9112 section 6.3).
pub(super) fn relay(head: &mut Parts, method: &Method) -> Result<(Framing, Reuse), Violation> {
    // Not for us to pass on: the bytes after it are not HTTP. The one that was asked for has gone to `switch`.
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Violation::UnaskedSwitch);
    }
    let announced = framing(&mut head.headers)?;
    let has_body = !matches!(announced, Framing::Length(0));
    // These have no body whatever their head says (RFC 9112 section 6.3 rule 1). An upstream that sends one all the same
    // would have it read as the answer to the next request, possibly another person's; so a head that announces a body
    // ends the connection.
    let bodiless = method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    // An upstream of HTTP/1.0 would not understand a body of unknown length.
    let once = head.version != Version::HTTP_11 || ends_here(&head.headers);
    clean(head);
    Ok(match announced {
        // Nobody says that a body follows, and nobody says that none does: what follows is one.
        Framing::Close if bodiless => (Framing::Length(0), if once { Reuse::No } else { Reuse::Yes }),
        Framing::Close => (Framing::Close, Reuse::No),
        _ if bodiless => (Framing::Length(0), if once || has_body { Reuse::No } else { Reuse::Yes }),
        announced => (announced, if once { Reuse::No } else { Reuse::Yes }),
    })
}

/// Whether the upstream says that it closes the connection (RFC 9112, section 9.6).
fn ends_here(headers: &HeaderMap) -> bool {
    let options = headers.get_all(CONNECTION).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    options.map(<[u8]>::trim_ascii).any(|option| option.eq_ignore_ascii_case(b"close"))
}

/// Removes what does not concern the client, and states our version.
pub(super) fn clean(head: &mut Parts) {
    strip(&mut head.headers);
    if head.status == StatusCode::NO_CONTENT {
        // Not allowed there (RFC 9110 section 8.6), though common with the value 0.
        head.headers.remove(CONTENT_LENGTH);
    }
    // An intermediary states its own version (RFC 9110 section 2.5).
    head.version = Version::HTTP_11;
}

/// Checks Content-Length and Transfer-Encoding, collapses equal lengths into one, and says which body is announced.
fn framing(headers: &mut HeaderMap) -> Result<Framing, Violation> {
    let chunked = {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        match codings.next() {
            None => false,
            Some(only) if codings.next().is_none() && only.as_bytes().eq_ignore_ascii_case(b"chunked") => true,
            Some(_) => return Err(Violation::Encoding),
        }
    };
    let Entry::Occupied(mut lengths) = headers.entry(CONTENT_LENGTH) else {
        return Ok(if chunked { Framing::Chunked(Scanner::new()) } else { Framing::Close });
    };
    if chunked {
        return Err(Violation::LengthAndEncoding);
    }
    let mut length = None;
    let mut repeated = false;
    for value in lengths.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b',')) {
        let value = digits(value.trim_ascii()).ok_or(Violation::Length)?;
        repeated |= length.is_some();
        if *length.get_or_insert(value) != value {
            return Err(Violation::Length);
        }
    }
    let length = length.ok_or(Violation::Length)?;
    if repeated {
        // RFC 9110 section 8.6: equal repetitions are replaced by one before they are forwarded.
        lengths.insert(HeaderValue::from(length));
    }
    Ok(Framing::Length(length))
}

/// `1*DIGIT` (RFC 9110 section 8.6); the standard parser would also take a sign.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |n, byte| match byte {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// Removes what concerns only the connection to the upstream (RFC 9110 section 7.6.1, with what Connection nominates), and
/// the headers that only the gateway may set. Most answers have none: then nothing is allocated.
pub(super) fn strip(headers: &mut HeaderMap) {
    let mut doomed = SmallVec::<[HeaderName; 4]>::new();
    let mut nominates = false;
    for name in headers.keys() {
        nominates |= *name == CONNECTION;
        if is_hop_by_hop(name) || is_ours(name) {
            doomed.push(name.clone());
        }
    }
    if nominates {
        let lines = headers.get_all(CONNECTION).iter();
        let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        doomed.extend(names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()));
    }
    for name in doomed {
        headers.remove(name);
    }
}

/// Trailer is among them because trailers are not passed on; the two Proxy-* because they speak to the next hop only
/// (RFC 9110 sections 11.7.1 and 11.7.3).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authentication-info"
    )
}

/// `X-Wxgate-*`, with any character that CGI folds to `_` in the places of the hyphens. Names are lower case in the map.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let folds = |at: usize| name.get(at).is_none_or(|byte| !byte.is_ascii_alphanumeric());
    name.len() >= 8 && name[0] == b'x' && folds(1) && name[2..8] == *b"wxgate" && folds(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, lines: &[(&str, &str)]) -> Parts {
        let mut response = http::Response::builder().status(status);
        for (name, value) in lines {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap().into_parts().0
    }

    fn relayed(lines: &[(&str, &str)]) -> Vec<String> {
        let mut head = head(200, lines);
        relay(&mut head, &Method::GET).unwrap();
        head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn hop_by_hop_headers_and_what_connection_nominates_end_at_the_gateway() {
        let kept = relayed(&[
            ("connection", "close, X-Private"),
            ("connection", "x-other ,, "),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "digest"),
            ("upgrade", "h2c"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authentication-info", "x"),
            ("x-private", "1"),
            ("x-other", "1"),
            ("x-other", "2"),
            ("transfer-encoding", "Chunked"),
            ("content-type", "text/plain"),
        ]);
        assert_eq!(kept, ["content-type: text/plain"]);
    }

    #[test]
    fn no_spelling_of_the_gateways_own_headers_comes_from_an_upstream() {
        for name in ["X-Wxgate-Token", "x_wxgate_token", "X.Wxgate~Token", "x-wxgate_", "X-WXGATE"] {
            assert!(relayed(&[(name, "forged"), ("etag", "1")]).len() == 1, "{name}");
        }
        assert_eq!(relayed(&[("x-wxgateway", "1"), ("x-wx", "2")]).len(), 2);
    }

    #[test]
    fn contradictory_framing_is_refused() {
        let refused: [(&[(&str, &str)], &str); 9] = [
            (&[("content-length", "5"), ("transfer-encoding", "chunked")], "LengthAndEncoding"),
            (&[("content-length", "5"), ("content-length", "6")], "Length"),
            (&[("content-length", "5, 6")], "Length"),
            (&[("content-length", "+5")], "Length"),
            (&[("content-length", "")], "Length"),
            (&[("content-length", "18446744073709551616")], "Length"),
            (&[("transfer-encoding", "gzip, chunked")], "Encoding"),
            (&[("transfer-encoding", "identity")], "Encoding"),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], "Encoding"),
        ];
        for (lines, wanted) in refused {
            // Bodiless answers too: who contradicts himself there will do so elsewhere.
            for status in [200, 204, 304] {
                let violation = relay(&mut head(status, lines), &Method::GET).unwrap_err();
                assert_eq!(format!("{violation:?}"), wanted, "{status} {lines:?}");
            }
        }
    }

    #[test]
    fn equal_lengths_become_one() {
        assert_eq!(relayed(&[("content-length", "5, 5"), ("content-length", "5")]), ["content-length: 5"]);
    }

    #[test]
    fn an_answer_that_announces_a_body_it_must_not_have_ends_the_connection() {
        let reuse =
            |method: Method, status, lines: &[(&str, &str)]| relay(&mut head(status, lines), &method).unwrap().1;
        assert_eq!(reuse(Method::HEAD, 200, &[("content-length", "5")]), Reuse::No);
        assert_eq!(reuse(Method::HEAD, 200, &[("transfer-encoding", "chunked")]), Reuse::No);
        assert_eq!(reuse(Method::GET, 204, &[("content-length", "5")]), Reuse::No);
        assert_eq!(reuse(Method::GET, 304, &[("content-length", "5")]), Reuse::No);
        assert_eq!(reuse(Method::HEAD, 200, &[("content-length", "0")]), Reuse::Yes);
        assert_eq!(reuse(Method::GET, 204, &[("content-length", "0")]), Reuse::Yes);
        assert_eq!(reuse(Method::GET, 304, &[]), Reuse::Yes);
        assert_eq!(reuse(Method::GET, 200, &[("content-length", "5")]), Reuse::Yes);
    }

    #[test]
    fn the_head_says_how_its_body_ends() {
        let ends = |method: Method, status, lines: &[(&str, &str)]| {
            let (framing, reuse) = relay(&mut head(status, lines), &method).unwrap();
            let framing = match framing {
                Framing::Length(length) => length.to_string(),
                Framing::Chunked(_) => "chunked".to_owned(),
                Framing::Close => "close".to_owned(),
            };
            (framing, reuse)
        };
        let length = [("content-length", "5")];
        let chunked = [("transfer-encoding", "Chunked")];
        let closes = [length[0], ("connection", "x-a , Close")];
        assert_eq!(ends(Method::GET, 200, &length), ("5".to_owned(), Reuse::Yes));
        assert_eq!(ends(Method::GET, 200, &chunked), ("chunked".to_owned(), Reuse::Yes));
        assert_eq!(ends(Method::GET, 200, &closes), ("5".to_owned(), Reuse::No));
        assert_eq!(ends(Method::GET, 200, &[]), ("close".to_owned(), Reuse::No));
        assert_eq!(ends(Method::HEAD, 200, &[]), ("0".to_owned(), Reuse::Yes));
        for (method, status) in [(Method::HEAD, 200), (Method::GET, 204), (Method::GET, 304)] {
            assert_eq!(ends(method.clone(), status, &length), ("0".to_owned(), Reuse::No));
            assert_eq!(ends(method, status, &chunked), ("0".to_owned(), Reuse::No));
        }
    }

    #[test]
    fn the_length_of_a_head_answer_is_kept_and_that_of_a_204_is_not() {
        let mut kept = head(200, &[("content-length", "5")]);
        relay(&mut kept, &Method::HEAD).unwrap();
        assert_eq!(kept.headers[CONTENT_LENGTH], "5");
        let mut removed = head(204, &[("content-length", "0")]);
        relay(&mut removed, &Method::GET).unwrap();
        assert!(removed.headers.is_empty());
    }

    #[test]
    fn an_old_upstreams_answer_is_relayed_as_ours_and_its_connection_not_reused() {
        let mut old = head(200, &[]);
        old.version = Version::HTTP_10;
        assert_eq!(relay(&mut old, &Method::GET).unwrap().1, Reuse::No);
        assert_eq!(old.version, Version::HTTP_11);
    }
}
