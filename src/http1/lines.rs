//! Header lines that are written before they are needed: what many requests have in common is made once, and then copied.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// Appends a line. The types keep everything out that could end it early.
pub(crate) fn push(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
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
    }
}
