//! An upstream's response head, from bytes to a header map (RFC 9112, section 4).
//!
//! The map holds every line that was sent, so that `headers` sees whatever contradiction there is. Its values are slices
//! of the bytes that were read: one head is one allocation, and nothing of it is copied twice.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;
use http::{Response, StatusCode, Version};
use httparse::{ParserConfig, Status};
use memchr::memchr_iter;

use super::error::Malformed;
use crate::http1::MAX_FIELDS;

/// Largest response head, bytes. As much is also read at once of what follows it.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// The head at the start of `block`, and its length; `None` when it is not complete.
///
/// # Errors
/// [`Malformed`].
pub(super) fn parse(block: &Bytes) -> Result<Option<(Parts, usize)>, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut head, block, &mut fields);
    let len = match parsed.map_err(Malformed::Grammar)? {
        Status::Complete(len) => len,
        Status::Partial if block.len() >= MAX_HEAD => return Err(Malformed::TooLarge),
        Status::Partial => return Ok(None),
    };
    // httparse takes a bare LF for the end of a line, and empty lines in front of a head for nothing.
    if block[0] != b'H' || memchr_iter(b'\n', &block[..len]).any(|at| at == 0 || block[at - 1] != b'\r') {
        return Err(Malformed::BareLf);
    }
    let grammar = |_| Malformed::Grammar(httparse::Error::HeaderName);
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(grammar)?;
        let value = HeaderValue::from_maybe_shared(block.slice_ref(field.value));
        headers.append(name, value.map_err(|_| Malformed::Grammar(httparse::Error::HeaderValue))?);
    }
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(head.code.unwrap_or(0)).map_err(|_| Malformed::Status)?;
    parts.version = if head.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    parts.headers = headers;
    Ok(Some((parts, len)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Result<Option<(Parts, usize)>, Malformed> {
        parse(&Bytes::copy_from_slice(text))
    }

    #[test]
    fn every_line_is_in_the_map_in_its_order() {
        let text = b"HTTP/1.1 404 Not Found\r\nX-A: 1\r\nx-a:2  \r\nX-Empty:\r\nX-B: \xe4\xbd\xa0 b\r\n\r\nbody";
        let (head, len) = read(text).unwrap().unwrap();
        assert_eq!((head.status.as_u16(), head.version, len), (404, Version::HTTP_11, text.len() - 4));
        let lines: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(lines, [("x-a", &b"1"[..]), ("x-a", b"2"), ("x-empty", b""), ("x-b", b"\xe4\xbd\xa0 b")]);
        assert_eq!(read(b"HTTP/1.0 200\r\n\r\n").unwrap().unwrap().0.version, Version::HTTP_10);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_malformed() {
        for text in [
            &b"HTTP/1.1 200 OK\nX: 1\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nX: 1\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: 1\r\n\n",
            b"HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n X: 1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n: nameless\r\n\r\n",
            b"\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
            b"HTTP/1.1  200 OK\r\n\r\n",
            b"http/1.1 200 OK\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        ] {
            assert!(read(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_head_has_an_end_and_a_limit() {
        let with = |n: usize| [b"HTTP/1.1 200 OK\r\n".as_slice(), &b"X: 1\r\n".repeat(n), b"\r\n"].concat();
        assert!(read(&with(MAX_FIELDS)).unwrap().is_some());
        assert!(read(&with(MAX_FIELDS + 1)).is_err());
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &vec![b'x'; MAX_HEAD]].concat();
        assert!(read(&endless[..MAX_HEAD - 1]).unwrap().is_none());
        assert!(matches!(read(&endless), Err(Malformed::TooLarge)));
    }

    proptest! {
        /// However a head arrives: until it is whole it is nothing, and then always the same.
        #[test]
        fn a_head_that_is_not_whole_is_waited_for(cut in 0usize..52) {
            let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Other: a\r\n\r\nok";
            let read = read(&text[..cut.min(text.len() - 2)]).unwrap();
            prop_assert_eq!(read.is_some(), cut >= text.len() - 2);
        }

        #[test]
        fn nothing_that_comes_makes_it_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&text);
            let _ = read(&[b"HTTP/1.1 200 OK\r\n".as_slice(), &text].concat());
        }
    }
}
