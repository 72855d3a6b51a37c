//! An upstream's response head, from bytes to a header map (RFC 9112, section 4).
//!
//! Each line is read once: its end, its name, its value, and what it says about the connection ([`Notes`]). Values are slices
//! of the bytes that were read: one head is one allocation, and nothing of it is copied twice. It is stricter than parsers
//! of heads are by custom: a line ends with CR LF and nothing else, and nothing stands before the status line. Names and
//! values are held to their grammar by the types that they become.

use std::ops::Range;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;
use http::{Response, StatusCode, Version};
use memchr::{Memchr, memchr_iter};

use super::error::Malformed;
use super::headers::Notes;
use crate::http1::MAX_FIELDS;
use crate::http1::grammar::{is_all_value, trimmed};
use crate::http1::names::{self, Role};

/// Largest response head, bytes. As much is also read at once of what follows it.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// How every head begins.
const BEGINNING: &[u8] = b"HTTP/1.";

/// Blocks up to this size have room for few fields, bytes; growing the map costs more than all lines of a small head.
const SMALL: usize = 512;

/// A head, read.
#[derive(Debug)]
pub(super) struct Head {
    /// Without the lines that [`Notes`] has no more need of.
    pub(super) parts: Parts,
    pub(super) notes: Notes,
    /// Bytes.
    pub(super) len: usize,
}

/// The head at the start of `block`; `None` when it is not complete.
///
/// # Errors
/// [`Malformed`].
pub(super) fn parse(block: &Bytes) -> Result<Option<Head>, Malformed> {
    let beginning = block.len().min(BEGINNING.len());
    if block[..beginning] != BEGINNING[..beginning] {
        return Err(Malformed::Grammar("no status line"));
    }
    let partial = || if block.len() >= MAX_HEAD { Err(Malformed::TooLarge) } else { Ok(None) };
    let mut lines = Lines { block, ends: memchr_iter(b'\n', block), at: 0 };
    let Some(line) = lines.next()? else { return partial() };
    let (version, status) = status_line(&block[line])?;
    let mut headers = HeaderMap::with_capacity(if block.len() <= SMALL { 6 } else { 12 });
    let mut notes = Notes::default();
    for fields in 0.. {
        let Some(line) = lines.next()? else { return partial() };
        if line.is_empty() {
            break;
        }
        if fields == MAX_FIELDS {
            return Err(Malformed::Grammar("too many fields"));
        }
        // A blank that begins a line (folding), or that stands before the colon, is none of a name.
        let named = names::read(&block[line.start..]).ok_or(Malformed::Grammar("a field name"))?;
        let colon = line.start + named.len;
        let value = HeaderValue::from_maybe_shared(block.slice(trimmed(block, colon + 1..line.end)));
        let value = value.map_err(|_| Malformed::Grammar("a field value"))?;
        let name = match named.known {
            Some(name) => name.clone(),
            None => {
                HeaderName::from_bytes(&block[line.start..colon]).map_err(|_| Malformed::Grammar("a field name"))?
            }
        };
        // Of an ordinary field there is nothing to heed.
        if matches!(named.role, Role::Passing | Role::Answer) || notes.heed(&name, &value) {
            headers.append(name, value);
        }
    }
    let (mut parts, ()) = Response::new(()).into_parts();
    (parts.status, parts.version, parts.headers) = (status, version, headers);
    Ok(Some(Head { parts, notes, len: lines.at }))
}

/// The lines of a head, without their ends.
struct Lines<'a> {
    block: &'a [u8],
    ends: Memchr<'a>,
    /// Behind the last one.
    at: usize,
}

impl Lines<'_> {
    /// The next one, if all of it is there.
    fn next(&mut self) -> Result<Option<Range<usize>>, Malformed> {
        let Some(lf) = self.ends.next() else { return Ok(None) };
        let start = std::mem::replace(&mut self.at, lf + 1);
        match lf.checked_sub(1).filter(|cr| *cr >= start && self.block[*cr] == b'\r') {
            Some(cr) => Ok(Some(start..cr)),
            None => Err(Malformed::BareLf),
        }
    }
}

/// Version and status; the phrase behind them is for nobody.
fn status_line(line: &[u8]) -> Result<(Version, StatusCode), Malformed> {
    let odd = || Malformed::Grammar("the status line");
    let (head, phrase) = line.split_at_checked(12).ok_or_else(odd)?;
    let version = match &head[..9] {
        b"HTTP/1.1 " => Version::HTTP_11,
        b"HTTP/1.0 " => Version::HTTP_10,
        _ => return Err(odd()),
    };
    if !head[9..].iter().all(u8::is_ascii_digit) || !(phrase.is_empty() || phrase[0] == b' ') || !is_all_value(phrase) {
        return Err(odd());
    }
    Ok((version, StatusCode::from_bytes(&head[9..]).map_err(|_| Malformed::Status)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Result<Option<(Parts, usize)>, Malformed> {
        Ok(parse(&Bytes::copy_from_slice(text))?.map(|head| (head.parts, head.len)))
    }

    /// Names and values.
    type Fields = Vec<(String, Vec<u8>)>;

    /// The same by a parser that many use, which repairs what we do not: bare LF, and empty lines in front.
    fn by_library(text: &[u8]) -> Option<(u16, Fields)> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(len) = head.parse(text).ok()? else { return None };
        let bare = text[..len].iter().enumerate().any(|(at, b)| *b == b'\n' && (at == 0 || text[at - 1] != b'\r'));
        let fields = head.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()));
        (text[0] == b'H' && !bare && head.code? >= 100).then(|| (head.code.unwrap(), fields.collect()))
    }

    fn by_us(text: &[u8]) -> Option<(u16, Fields)> {
        let (head, _) = read(text).ok()??;
        let fields = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
        Some((head.status.as_u16(), fields.collect()))
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
        /// Whatever is changed in a head: we and the library take and refuse the same, and read the same.
        #[test]
        fn a_head_is_read_as_others_read_it(changes in proptest::collection::vec((0usize..200, any::<u8>()), 0..3)) {
            let mut text = b"HTTP/1.1 404 Not Found\r\nServer: a/1 \r\nX-A:\t\xe4\xbd\xa0 b\r\nETag: \"x\"\r\nX_B:\r\nDate: now, or so\r\n\r\n".to_vec();
            let length = text.len();
            changes.into_iter().for_each(|(at, with)| text[at % length] = with);
            let mut ours = by_us(&text);
            let mut theirs = by_library(&text);
            // The map keeps fields of one name together.
            ours.iter_mut().chain(&mut theirs).for_each(|(_, fields)| fields.sort());
            prop_assert_eq!(ours, theirs);
        }

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
