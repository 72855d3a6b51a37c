//! What of an upstream's response head reaches the client, and what makes the head one that cannot be passed on.
//!
//! Most of it is decided while `response_head` reads the lines, which shows each of them to [`Notes`]: whatever contradiction
//! the upstream sent is there, and an ordinary head need not be looked through again.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
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

/// What the lines of a head say about the connection and the body.
#[derive(Debug, Default)]
pub(super) struct Notes {
    length: Option<u64>,
    chunked: bool,
    closes: bool,
    /// A length stands more than once.
    repeated: bool,
    /// Something is in the map that is not for the client.
    foreign: bool,
    odd_length: bool,
    odd_encoding: bool,
}

impl Notes {
    /// Notes a line. False when nobody needs it any more.
    pub(super) fn heed(&mut self, name: &HeaderName, value: &HeaderValue) -> bool {
        match name.as_str() {
            "content-length" => {
                self.heed_length(value.as_bytes());
                return true;
            }
            "transfer-encoding" => {
                // Once, and nothing else.
                self.odd_encoding |= self.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked");
                self.chunked = true;
                return false;
            }
            "connection" => {
                let mut nominates = false;
                for option in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    // RFC 9112, section 9.6.
                    self.closes |= option.eq_ignore_ascii_case(b"close");
                    nominates |= !option.eq_ignore_ascii_case(b"close") && !option.eq_ignore_ascii_case(b"keep-alive");
                }
                self.foreign |= nominates;
                return nominates;
            }
            "keep-alive" => return false,
            _ => {}
        }
        self.foreign |= is_hop_by_hop(name) || is_ours(name);
        true
    }

    fn heed_length(&mut self, value: &[u8]) {
        for value in value.split(|byte| *byte == b',') {
            let Some(length) = digits(value.trim_ascii()) else {
                self.odd_length = true;
                return;
            };
            self.repeated |= self.length.is_some();
            self.odd_length |= *self.length.get_or_insert(length) != length;
        }
    }

    /// Which body is announced.
    fn framing(&self) -> Result<Framing, Violation> {
        if self.odd_encoding {
            return Err(Violation::Encoding);
        }
        match (self.chunked, self.length) {
            (true, None) if !self.odd_length => Ok(Framing::Chunked(Scanner::new())),
            (true, _) => Err(Violation::LengthAndEncoding),
            (false, _) if self.odd_length => Err(Violation::Length),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::Close),
        }
    }
}

/// Makes an upstream's response head ours: checks its framing, removes what belongs to the connection or to the gateway's
/// namespace, and states our own version. Says how the body ends.
///
/// # Errors
/// A [`Violation`] of the framing rules; the connection must then be closed (RFC 9112 section 6.3).
pub(super) fn relay(head: &mut Parts, notes: &Notes, method: &Method) -> Result<(Framing, Reuse), Violation> {
    // Not for us to pass on: the bytes after it are not HTTP. The one that was asked for has gone to `switch`.
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Violation::UnaskedSwitch);
    }
    let announced = notes.framing()?;
    let has_body = !matches!(announced, Framing::Length(0));
    // These have no body whatever their head says (RFC 9112 section 6.3 rule 1). An upstream that sends one all the same
    // would have it read as the answer to the next request, possibly another person's; so a head that announces a body
    // ends the connection.
    let bodiless = method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    // An upstream of HTTP/1.0 would not understand a body of unknown length.
    let once = head.version != Version::HTTP_11 || notes.closes;
    if let (true, Some(length)) = (notes.repeated, notes.length) {
        // RFC 9110 section 8.6: equal repetitions are replaced by one before they are forwarded.
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if notes.foreign {
        strip(&mut head.headers);
    }
    state_ours(head);
    Ok(match announced {
        // Nobody says that a body follows, and nobody says that none does: what follows is one.
        Framing::Close if bodiless => (Framing::Length(0), if once { Reuse::No } else { Reuse::Yes }),
        Framing::Close => (Framing::Close, Reuse::No),
        _ if bodiless => (Framing::Length(0), if once || has_body { Reuse::No } else { Reuse::Yes }),
        announced => (announced, if once { Reuse::No } else { Reuse::Yes }),
    })
}

/// Removes what does not concern the client, and states our version.
pub(super) fn clean(head: &mut Parts) {
    strip(&mut head.headers);
    state_ours(head);
}

/// States our version, and no length where none is allowed.
fn state_ours(head: &mut Parts) {
    if head.status == StatusCode::NO_CONTENT {
        // Not allowed there (RFC 9110 section 8.6), though common with the value 0.
        head.headers.remove(CONTENT_LENGTH);
    }
    // An intermediary states its own version (RFC 9110 section 2.5).
    head.version = Version::HTTP_11;
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

    fn head(status: u16, lines: &[(&str, &str)]) -> (Parts, Notes) {
        let (mut head, ()) = http::Response::builder().status(status).body(()).unwrap().into_parts();
        let mut notes = Notes::default();
        for (name, value) in lines {
            let (name, value) = (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
            if notes.heed(&name, &value) {
                head.headers.append(name, value);
            }
        }
        (head, notes)
    }

    fn passed_on((head, notes): &mut (Parts, Notes), method: &Method) -> Result<(Framing, Reuse), Violation> {
        relay(head, notes, method)
    }

    fn relayed(lines: &[(&str, &str)]) -> Vec<String> {
        let mut head = head(200, lines);
        passed_on(&mut head, &Method::GET).unwrap();
        head.0.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
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
                let violation = passed_on(&mut head(status, lines), &Method::GET).unwrap_err();
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
            |method: Method, status, lines: &[(&str, &str)]| passed_on(&mut head(status, lines), &method).unwrap().1;
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
            let (framing, reuse) = passed_on(&mut head(status, lines), &method).unwrap();
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
        passed_on(&mut kept, &Method::HEAD).unwrap();
        assert_eq!(kept.0.headers[CONTENT_LENGTH], "5");
        let mut removed = head(204, &[("content-length", "0")]);
        passed_on(&mut removed, &Method::GET).unwrap();
        assert!(removed.0.headers.is_empty());
    }

    #[test]
    fn an_old_upstreams_answer_is_relayed_as_ours_and_its_connection_not_reused() {
        let mut old = head(200, &[]);
        old.0.version = Version::HTTP_10;
        assert_eq!(passed_on(&mut old, &Method::GET).unwrap().1, Reuse::No);
        assert_eq!(old.0.version, Version::HTTP_11);
    }
}
