//! Header lines that are written before they are needed: what many requests have in common is made once, and then copied.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// Appends a line. The types keep everything out that could end it early.
pub(crate) fn push(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// How long the line of a value is, bytes.
pub(crate) fn length(name: &HeaderName, value: &str) -> usize {
    name.as_str().len() + value.len() + 4
}

/// Appends a line and says where in `out` its value stands. Unlike with [`push`], nothing keeps a line's end out of the value: it has
/// to be made a [`HeaderValue`] before the line is sent.
pub(crate) fn push_text(out: &mut Vec<u8>, name: &HeaderName, value: &str) -> Range<usize> {
    for part in [name.as_str(), ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let end = out.len() - 2;
    end - value.len()..end
}

/// All of these as lines.
pub(crate) fn lines(fields: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> Bytes {
    let mut out = Vec::with_capacity(512);
    fields.into_iter().for_each(|(name, value)| push(&mut out, &name, &value));
    // Kept for long, so without the room that it did not need.
    Bytes::copy_from_slice(&out)
}

#[cfg(test)]
pub(crate) mod tests {
    use http::HeaderMap;

    use super::*;

    /// The fields of lines, each of which has to stand once.
    pub(crate) fn read(lines: &[u8]) -> HeaderMap {
        let text = std::str::from_utf8(lines).unwrap();
        let mut headers = HeaderMap::new();
        for line in text.split_terminator("\r\n") {
            let (name, value) = line.split_once(": ").unwrap();
            assert!(headers.insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap()).is_none(), "{name}");
        }
        headers
    }

    #[test]
    fn lines_stand_one_below_the_other() {
        let name = HeaderName::from_static;
        let value = HeaderValue::from_static;
        assert_eq!(lines([(name("x-a"), value("1")), (name("x-b"), value(""))]), "x-a: 1\r\nx-b: \r\n");
        assert!(lines([]).is_empty());
        let mut out = b"before".to_vec();
        let at = push_text(&mut out, &name("x-a"), "one");
        assert_eq!((&out[..], &out[at]), (&b"beforex-a: one\r\n"[..], &b"one"[..]));
        assert_eq!(length(&name("x-a"), "one"), out.len() - 6);
    }
}
