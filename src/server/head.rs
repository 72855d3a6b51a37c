//! One request head, byte for byte: may it be read in only one way?
//!
//! HTTP libraries quietly repair heads that RFC 9112 calls errors (they drop `Content-Length` beside `Transfer-Encoding`,
//! accept bare LF, and more). A gateway may not: where a strict parser and a lenient one disagree on an end, one of
//! them can be made to see a request that the other did not (request smuggling). So [`check`] refuses, before anybody sees
//! a byte, whatever is not exactly the grammar. What it accepts, every parser reads alike. The stream that uses it is
//! `guard.rs`.

use std::net::Ipv6Addr;

use memchr::memchr;

use crate::http1::MAX_FIELDS;
use crate::http1::grammar::{is_host_name, is_path, is_query, is_token, trimmed};
use crate::http1::marks::{Marks, WIDE, marks};
use crate::http1::names::{self, Name, Role};
use crate::http1::verbatim::is_passing_custom;

pub(crate) use self::parts::{Field, Parts};

mod parts;

/// Longest request target that the `http` crate holds, bytes; no setting goes over it.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// Why a head, or the framing of a body, is refused. The names are codes of the problem catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not the grammar, or two readings.
    InvalidRequest,
    /// The request target is over the limit.
    UriTooLong,
    /// The head is over the limit, in bytes or in fields.
    HeadersTooLarge,
    /// The head took too long.
    RequestTimeout,
    /// A method or coding that the gateway does not do.
    NotImplemented,
    /// Not HTTP/1.0 or HTTP/1.1.
    VersionNotSupported,
}

impl Refusal {
    /// The target of the stand-in, for those who hold a request that is parsed.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::InvalidRequest => "wxgate://refused/invalid_request",
            Self::UriTooLong => "wxgate://refused/uri_too_long",
            Self::HeadersTooLarge => "wxgate://refused/headers_too_large",
            Self::RequestTimeout => "wxgate://refused/request_timeout",
            Self::NotImplemented => "wxgate://refused/not_implemented",
            Self::VersionNotSupported => "wxgate://refused/version_not_supported",
        }
    }

    /// The refusal whose stand-in this is.
    pub(crate) fn standing_in(head: &[u8]) -> Option<Self> {
        [
            Self::InvalidRequest,
            Self::UriTooLong,
            Self::HeadersTooLarge,
            Self::RequestTimeout,
            Self::NotImplemented,
            Self::VersionNotSupported,
        ]
        .into_iter()
        .find(|refusal| refusal.stand_in() == head)
    }

    /// What the reader is given in place of the refused head: a request for a target that no client can send, because the
    /// scheme is not `http` or `https` and [`check`] refuses it. The pipeline answers it with the problem of that name;
    /// so a refusal has the same document, log line and order among pipelined answers as any other answer.
    pub(crate) const fn stand_in(self) -> &'static [u8] {
        match self {
            Self::InvalidRequest => {
                b"GET wxgate://refused/invalid_request HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n"
            }
            Self::UriTooLong => {
                b"GET wxgate://refused/uri_too_long HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n"
            }
            Self::HeadersTooLarge => {
                b"GET wxgate://refused/headers_too_large HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n"
            }
            Self::RequestTimeout => {
                b"GET wxgate://refused/request_timeout HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n"
            }
            Self::NotImplemented => {
                b"GET wxgate://refused/not_implemented HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n"
            }
            Self::VersionNotSupported => {
                b"GET wxgate://refused/version_not_supported HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n"
            }
        }
    }
}

/// How the body of an accepted head ends (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many bytes; 0 when there is no body.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// No body, and the client asks to leave HTTP: what follows is HTTP only if the answer says no.
    Upgrade,
}

/// Looks for the end of a head in `data`, whose lines before `*scanned` were seen before. Returns its length, or `None`
/// when more bytes are needed. The ends of the lines that it sees are added to `parts`, and whether there are bytes that no
/// line may have.
///
/// # Errors
/// A line that ends in a bare LF.
pub(crate) fn end(data: &[u8], scanned: &mut usize, parts: &mut Parts) -> Result<Option<usize>, Refusal> {
    let mut at = *scanned;
    // The last byte of the bytes before was a control, which only a CR before an LF may be.
    let mut waiting = false;
    while at < data.len() {
        let block = match data[at..].first_chunk::<WIDE>() {
            Some(block) => marks(block),
            None => {
                let mut block = [b' '; WIDE];
                block[..data.len() - at].copy_from_slice(&data[at..]);
                marks(&block)
            }
        };
        // Most of a head is values.
        if block.is_none() && !waiting {
            at += WIDE;
            continue;
        }
        let block = block.unwrap_or_default();
        let mut line_feeds = block.line_feeds;
        while line_feeds != 0 {
            let bit = line_feeds.trailing_zeros();
            line_feeds &= line_feeds - 1;
            let lf = at + bit as usize;
            if lf == 0 || data[lf - 1] != b'\r' {
                return Err(Refusal::InvalidRequest);
            }
            let empty = lf - *scanned == 1;
            *scanned = lf + 1;
            // The request line, the most fields, one more and the empty line: whatever is behind them is not looked at.
            if parts.lines.len() < MAX_FIELDS + 3 {
                parts.lines.push(u32::try_from(lf).map_err(|_| Refusal::HeadersTooLarge)?);
            }
            if empty {
                // What is behind is not of this head.
                parts.stray |= strays(block, waiting) << (u64::BITS - 1 - bit) != 0;
                return Ok(Some(lf + 1));
            }
        }
        let stray = strays(block, waiting);
        let last = 1 << (WIDE - 1);
        parts.stray |= stray & !last != 0;
        waiting = stray & last != 0;
        at += WIDE;
    }
    Ok(None)
}

/// Controls that are no CR before an LF; the last byte may be one whose LF is still to come. The LFs have been found to follow
/// a CR. `waiting`: the byte before was one without its LF.
fn strays(block: Marks, waiting: bool) -> u64 {
    let unmatched = waiting && block.line_feeds & 1 == 0;
    (block.controls & !block.line_feeds & !(block.line_feeds >> 1)) | u64::from(unmatched)
}

/// Finds a complete head at the start of `data`, and checks it: its length, and its parts. `None` when it is incomplete.
/// One empty line before it is skipped (RFC 9112, section 2.2). `scanned` is how far the lines of an incomplete head were seen
/// before, behind that empty line.
///
/// # Errors
/// What [`end`] and [`check`] refuse.
pub(crate) fn find(
    data: &[u8],
    scanned: &mut usize,
    max_uri: usize,
    parts: &mut Parts,
) -> Result<Option<usize>, Refusal> {
    parts.clear();
    parts.skip = if data.starts_with(b"\r\n") { 2 } else { 0 };
    let data = &data[parts.skip..];
    let before = *scanned;
    let Some(len) = end(data, scanned, parts)? else { return Ok(None) };
    if before > 0 {
        // The lines that were seen before are not remembered.
        parts.clear();
        end(data, &mut 0, parts)?;
    }
    *scanned = 0;
    check(&data[..len], max_uri, parts)?;
    parts.len = parts.skip + len;
    Ok(Some(parts.len))
}

/// Checks a complete head (request line to empty line), whose lines are in `parts`. Its other parts are put there, among them
/// how its body ends.
///
/// # Errors
/// Whatever could be read in more than one way, and what is over a limit.
fn check(head: &[u8], max_uri: usize, parts: &mut Parts) -> Result<(), Refusal> {
    let [first, between @ .., _] = parts.lines.as_slice() else { return Err(Refusal::InvalidRequest) };
    let first = *first as usize;
    let request_line = RequestLine::parse(&head[..first - 1], max_uri)?;
    if between.len() > MAX_FIELDS {
        return Err(Refusal::HeadersTooLarge);
    }
    if parts.stray {
        return Err(Refusal::InvalidRequest);
    }
    let mut fields = Fields::default();
    let mut start = first + 1;
    for lf in between {
        let lf = *lf as usize;
        // The CR before the LF was seen by `end`.
        parts.fields.push(fields.take(head, start, lf - 1)?);
        start = lf + 1;
    }
    parts.framing = fields.framing(&request_line)?;
    if fields.unusual {
        // It is written anew; and fields of one name keep their order only if all of them go the same way.
        parts.fields.iter_mut().for_each(|field| field.passes = false);
    }
    parts.method = request_line.method;
    parts.target = request_line.target;
    parts.http11 = request_line.http11;
    Ok(())
}

struct RequestLine<'a> {
    /// Where the method and the target end.
    method: usize,
    target: usize,
    /// Authority of an absolute-form target.
    authority: Option<&'a [u8]>,
    http11: bool,
}

impl<'a> RequestLine<'a> {
    /// `method SP request-target SP HTTP-version`, single spaces, nothing else (RFC 9112, section 3).
    fn parse(line: &'a [u8], max_uri: usize) -> Result<Self, Refusal> {
        let space = memchr(b' ', line).ok_or(Refusal::InvalidRequest)?;
        let (method, rest) = (&line[..space], &line[space + 1..]);
        if method.is_empty() || !method.iter().all(|&b| is_token(b)) {
            return Err(Refusal::InvalidRequest);
        }
        let space = memchr(b' ', rest).ok_or(Refusal::InvalidRequest)?;
        let (target, version) = (&rest[..space], &rest[space + 1..]);
        if target.len() > max_uri.min(MAX_TARGET) {
            return Err(Refusal::UriTooLong);
        }
        if target.is_empty() || !is_target(target) {
            return Err(Refusal::InvalidRequest);
        }
        let http11 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
                return Err(Refusal::VersionNotSupported);
            }
            _ => return Err(Refusal::InvalidRequest),
        };
        if method == b"CONNECT" || method == b"TRACE" || target == b"*" {
            return Err(Refusal::NotImplemented);
        }
        let authority = if target[0] == b'/' { None } else { Some(absolute_authority(target)?) };
        Ok(Self { method: method.len(), target: method.len() + 1 + target.len(), authority, http11 })
    }
}

/// Bytes that a path or query may have: those of RFC 3986, what browsers and clients leave unescaped beside them, and
/// UTF-8. It is the set that `http::Uri` takes, so that a refusal is always ours. No control bytes, space or fragment.
pub(super) fn is_target(target: &[u8]) -> bool {
    let path_end = memchr(b'?', target).unwrap_or(target.len());
    target[..path_end].iter().all(|&b| is_path(b))
        && target[path_end..].iter().all(|&b| is_query(b))
        && (target.is_ascii() || std::str::from_utf8(target).is_ok())
}

/// The authority of `http://authority/path`; other schemes and forms are refused.
fn absolute_authority(target: &[u8]) -> Result<&[u8], Refusal> {
    let rest = strip_prefix_ignore_case(target, b"http://")
        .or_else(|| strip_prefix_ignore_case(target, b"https://"))
        .ok_or(Refusal::InvalidRequest)?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let authority = &rest[..end];
    if is_host(authority) { Ok(authority) } else { Err(Refusal::InvalidRequest) }
}

fn strip_prefix_ignore_case<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The fields that decide framing and target.
#[derive(Default)]
struct Fields<'a> {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    host: Option<&'a [u8]>,
    /// A line that could pass has other blanks than one before its value.
    unusual: bool,
}

impl<'a> Fields<'a> {
    /// One `name: value` line of `head`. No folding, no space before the colon (RFC 9112, section 5); the caller has seen that
    /// there are no control bytes.
    fn take(&mut self, head: &'a [u8], start: usize, end: usize) -> Result<Field, Refusal> {
        let line = &head[start..end];
        let Name { known, role, len } = names::read(&head[start..]).ok_or(Refusal::InvalidRequest)?;
        let place = trimmed(head, start + len + 1..end);
        let value = &head[place.clone()];
        match role {
            Role::Host => {
                if self.host.is_some() || !is_host(value) {
                    return Err(Refusal::InvalidRequest);
                }
                self.host = Some(value);
            }
            Role::Upgrade => self.upgrade = true,
            Role::ContentLength => {
                if self.length.is_some() {
                    return Err(Refusal::InvalidRequest);
                }
                self.length = Some(decimal(value).ok_or(Refusal::InvalidRequest)?);
            }
            Role::TransferEncoding => {
                if self.chunked {
                    return Err(Refusal::InvalidRequest);
                }
                // Only the one coding: a list, a parameter or another name is a place where parsers differ.
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::NotImplemented);
                }
                self.chunked = true;
            }
            Role::Unknown if folds_to_framing(&line[..len]) => return Err(Refusal::InvalidRequest),
            Role::Unknown | Role::Passing | Role::Answer | Role::None => {}
            Role::Authorization | Role::Connection | Role::Expect => {}
        }
        let passing = role == Role::Passing || (role == Role::Unknown && is_passing_custom(&line[..len]));
        let usual = place.start == start + len + 2 && line[len + 1] == b' ' && place.end == end;
        self.unusual |= passing && !usual;
        let at = |at| u32::try_from(at).map_err(|_| Refusal::HeadersTooLarge);
        let (line, colon) = (at(start)?, at(start + len)?);
        Ok(Field { known, role, passes: passing, line, colon, start: at(place.start)?, end: at(place.end)? })
    }

    fn framing(&self, line: &RequestLine<'_>) -> Result<Framing, Refusal> {
        match (line.authority, self.host) {
            (None, None) if line.http11 => return Err(Refusal::InvalidRequest),
            // RFC 9112, 3.2.2 would let the target win; two hosts in one request are a reason to refuse.
            (Some(target), Some(host)) if !target.eq_ignore_ascii_case(host) => return Err(Refusal::InvalidRequest),
            (Some(_), None) if line.http11 => return Err(Refusal::InvalidRequest),
            _ => {}
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Refusal::InvalidRequest),
            (true, None) if !line.http11 => Err(Refusal::InvalidRequest),
            (true, None) => Ok(Framing::Chunked),
            // HTTP/1.0 knows no upgrade (RFC 9110, section 7.8).
            (false, None | Some(0)) if self.upgrade && line.http11 => Ok(Framing::Upgrade),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// `Content_Length` and the like: a CGI-like service behind us would read them as the real ones.
pub(super) fn folds_to_framing(name: &[u8]) -> bool {
    let folds = |to: &[u8]| {
        name.len() == to.len()
            && name
                .iter()
                .zip(to)
                .all(|(&a, &b)| a.eq_ignore_ascii_case(&b) || (b == b'-' && !a.is_ascii_alphanumeric()))
    };
    folds(b"content-length") || folds(b"transfer-encoding")
}

/// `1*DIGIT` that fits 63 bits.
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
}

/// `uri-host [ ":" port ]` (RFC 9110, section 7.2) without userinfo and without empty host.
pub(super) fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value.first() {
        Some(b'[') => {
            let Some(end) = memchr(b']', value) else { return false };
            let inside = &value[1..end];
            if !std::str::from_utf8(inside).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok()) {
                return false;
            }
            (inside, &value[end + 1..])
        }
        Some(_) => {
            let end = memchr(b':', value).unwrap_or(value.len());
            (&value[..end], &value[end..])
        }
        None => return false,
    };
    let port_ok = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && decimal(digits).is_some_and(|port| port <= u64::from(u16::MAX)),
        _ => false,
    };
    let name_ok = value[0] == b'[' || host.iter().all(|&b| is_host_name(b));
    !host.is_empty() && host.len() <= 255 && port_ok && name_ok
}

#[cfg(test)]
mod tests;
