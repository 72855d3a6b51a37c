//! One path, one reading: the canonical form, made before anything matches, or 400 `ambiguous_path`.
//!
//! The route that was authorised must be the route that the upstream serves (contract, promise 2). So `//` is merged, dot
//! segments are resolved and unreserved characters decoded once, here; and what servers are known to read in different
//! ways is refused: encoded slashes and backslashes, `;` parameters, double encoding, control bytes, bad UTF-8.

use std::borrow::Cow;

use bytes::Bytes;
use http::uri::PathAndQuery;

/// The path can be read in more than one way; the text says what to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ambiguous(pub &'static str);

/// The canonical form of `path` (RFC 3986, section 6.2.2, and stricter). Borrowed when it is canonical already, which is
/// the common case and costs one pass over the bytes.
///
/// # Errors
/// When servers could differ on what it means.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, Ambiguous> {
    if is_plain(path.as_bytes()) { Ok(Cow::Borrowed(path)) } else { rewrite(path.as_bytes()).map(Cow::Owned) }
}

/// `target` with its path in canonical form; the query passes unchanged. `None` when it is canonical already.
///
/// # Errors
/// As [`canonical`].
pub fn canonical_target(target: &PathAndQuery) -> Result<Option<PathAndQuery>, Ambiguous> {
    match canonical(target.path())? {
        // `http://host?query`: an empty path means `/` (RFC 9110, section 4.2.3), and upstreams are told so.
        Cow::Borrowed(path) if !target.as_str().starts_with('/') => with_path(path, target.query()).map(Some),
        Cow::Borrowed(_) => Ok(None),
        Cow::Owned(path) => with_path(&path, target.query()).map(Some),
    }
}

/// A target of this path and query.
///
/// # Errors
/// When they do not make a valid one.
pub fn with_path(path: &str, query: Option<&str>) -> Result<PathAndQuery, Ambiguous> {
    let mut text = String::with_capacity(path.len() + query.map_or(0, |q| q.len() + 1));
    text.push_str(path);
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|_| Ambiguous("is not a valid path"))
}

/// Only ordinary characters, no empty segment, no segment that starts with a dot: nothing to do.
fn is_plain(path: &[u8]) -> bool {
    let [b'/', rest @ ..] = path else { return false };
    let mut begins = true;
    rest.iter().all(|&b| {
        let plain = PLAIN[usize::from(b)] && !(begins && matches!(b, b'/' | b'.'));
        begins = b == b'/';
        plain
    })
}

/// Bytes of a path that is canonical as it stands.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut b = 0;
    while b < 256 {
        plain[b] = b as u8 == b'/' || is_path_char(b as u8);
        b += 1;
    }
    plain
};

/// `pchar` without `%` and `;` (RFC 3986, section 3.3).
const fn is_path_char(b: u8) -> bool {
    is_unreserved(b) || matches!(b, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

const fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

fn rewrite(path: &[u8]) -> Result<String, Ambiguous> {
    if path.first() != Some(&b'/') {
        return Err(Ambiguous("must start with a slash"));
    }
    let mut text = String::with_capacity(path.len() + 16);
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.iter();
    while let Some(&b) = rest.next() {
        match b {
            b'%' => {
                let (high, low) = (rest.next().and_then(hex), rest.next().and_then(hex));
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(Ambiguous("has a percent sign without two hex digits; write %25 for a percent sign"));
                };
                let value = high * 16 + low;
                decoded.push(value);
                match value {
                    b'/' | b'\\' => return Err(Ambiguous("has an encoded slash or backslash (%2F, %5C)")),
                    0..=0x1f | 0x7f => return Err(Ambiguous("has an encoded control byte")),
                    v if is_unreserved(v) => text.push(v as char),
                    v => push_encoded(&mut text, v),
                }
            }
            b'/' => {
                decoded.push(b);
                text.push('/');
            }
            b';' => return Err(Ambiguous("has a semicolon; write %3B if it is meant literally")),
            b'\\' => return Err(Ambiguous("has a backslash")),
            0..=0x20 | 0x7f => return Err(Ambiguous("has a control byte or space")),
            b if is_path_char(b) => {
                decoded.push(b);
                text.push(b as char);
            }
            b => {
                decoded.push(b);
                push_encoded(&mut text, b);
            }
        }
    }
    let decoded = std::str::from_utf8(&decoded).map_err(|_| Ambiguous("is not UTF-8 when decoded"))?;
    // Characters that some servers fold to `/`, `\` or `.` (full width forms, division slash and kin).
    if decoded.contains(['\u{ff0f}', '\u{ff3c}', '\u{ff0e}', '\u{2044}', '\u{2215}', '\u{2024}', '\u{29f8}']) {
        return Err(Ambiguous("has a character that some servers read as a slash or dot"));
    }
    if decodes_again(decoded.as_bytes()) {
        return Err(Ambiguous("is encoded twice"));
    }
    Ok(resolve(&text))
}

/// Whether what was decoded once still holds an encoded dot, slash, backslash, percent sign or control byte.
fn decodes_again(decoded: &[u8]) -> bool {
    decoded.windows(3).any(|w| {
        let [b'%', high, low] = w else { return false };
        let (Some(high), Some(low)) = (hex(high), hex(low)) else { return false };
        matches!(high * 16 + low, b'.' | b'/' | b'\\' | b'%' | b';' | 0..=0x1f | 0x7f)
    })
}

fn hex(b: &u8) -> Option<u8> {
    (*b as char).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

fn push_encoded(text: &mut String, b: u8) {
    text.push('%');
    text.push(b"0123456789ABCDEF"[usize::from(b >> 4)] as char);
    text.push(b"0123456789ABCDEF"[usize::from(b & 15)] as char);
}

/// Merges slashes and resolves dot segments (RFC 3986, section 5.2.4); `..` at the root stays at the root.
fn resolve(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in path.split('/').skip(1) {
        ends_open = false;
        match segment {
            "" | "." => ends_open = true,
            ".." => {
                kept.pop();
                ends_open = true;
            }
            segment => kept.push(segment),
        }
    }
    let mut text = String::with_capacity(path.len());
    for segment in &kept {
        text.push('/');
        text.push_str(segment);
    }
    if ends_open || text.is_empty() {
        text.push('/');
    }
    text
}

#[cfg(test)]
mod tests;
