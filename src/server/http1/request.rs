//! From the bytes of a head that the guard has let through to a request.
//!
//! The guard has checked the grammar and the framing, byte for byte. So nothing is checked again here that would not be
//! seen by taking the head apart; whatever does not fit all the same ends the connection.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Uri, Version};
use memchr::memchr;

use crate::body::Body;
use crate::http1::chunked::Scanner;
use crate::http1::receiving::Framing;

/// Room in the header map: for the fields of an ordinary head, and for the few that the stack adds to them. Growing costs
/// more than all of it, and so does room beyond what the allocator has at hand.
const ROOM: usize = 24;

/// A head, read.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: Box<Request<Body>>,
    pub(super) framing: Framing,
    /// Whether the client lets the connection stay (RFC 9112, section 9.3).
    pub(super) keep_alive: bool,
    /// Whether it waits for 100 (RFC 9110, section 10.1.1).
    pub(super) expects: bool,
}

/// Not what the guard lets through.
#[derive(Debug)]
pub(super) struct Unreadable;

/// The head at the start of `block` and its length; `None` when it is not complete.
///
/// # Errors
/// [`Unreadable`], which only a fault of ours can bring about.
pub(super) fn read(block: &Bytes) -> Result<Option<(Head, usize)>, Unreadable> {
    // One empty line before the request line is to be ignored (RFC 9112, section 2.2); the guard lets no second one pass.
    let mut at = if block.starts_with(b"\r\n") { 2 } else { 0 };
    let Some(line) = line(block, &mut at) else { return Ok(None) };
    let (method, target, version) = request_line(block, line)?;
    let mut request = Box::new(Request::new(Body::empty()));
    *request.method_mut() = method;
    *request.uri_mut() = target;
    *request.version_mut() = version;
    *request.headers_mut() = HeaderMap::with_capacity(ROOM);
    let http11 = version == Version::HTTP_11;
    let mut head = Head { request, framing: Framing::Length(0), keep_alive: http11, expects: false };
    loop {
        let Some((start, end)) = self::line(block, &mut at) else { return Ok(None) };
        if start == end {
            return Ok(Some((head, at)));
        }
        let colon = start + memchr(b':', &block[start..end]).ok_or(Unreadable)?;
        let name = HeaderName::from_bytes(&block[start..colon]).map_err(|_| Unreadable)?;
        let (start, end) = trimmed(block, colon + 1, end);
        let value = HeaderValue::from_maybe_shared(block.slice(start..end)).map_err(|_| Unreadable)?;
        // By length first: nearly all names are none of these.
        if matches!(name.as_str().len(), 6 | 10 | 14 | 17) {
            head.heed(&name, &value, http11)?;
        }
        head.request.headers_mut().append(name, value);
    }
}

impl Head {
    /// What a field says about the connection and the body.
    fn heed(&mut self, name: &HeaderName, value: &HeaderValue, http11: bool) -> Result<(), Unreadable> {
        let value = value.as_bytes();
        if name == CONTENT_LENGTH {
            let text = std::str::from_utf8(value).map_err(|_| Unreadable)?;
            self.framing = Framing::Length(text.parse().map_err(|_| Unreadable)?);
        } else if name == TRANSFER_ENCODING {
            self.framing = Framing::Chunked(Scanner::new());
        } else if name == CONNECTION {
            for option in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    self.keep_alive = false;
                } else if !http11 && option.eq_ignore_ascii_case(b"keep-alive") {
                    self.keep_alive = true;
                }
            }
        } else if name == EXPECT {
            self.expects = http11 && value.eq_ignore_ascii_case(b"100-continue");
        }
        Ok(())
    }
}

/// Where the line at `at` stands, without its end; `at` is then behind it.
fn line(block: &[u8], at: &mut usize) -> Option<(usize, usize)> {
    let start = *at;
    let lf = start + memchr(b'\n', &block[start..])?;
    *at = lf + 1;
    Some((start, lf.checked_sub(1).filter(|end| *end >= start)?))
}

fn request_line(block: &Bytes, (start, end): (usize, usize)) -> Result<(Method, Uri, Version), Unreadable> {
    let space = start + memchr(b' ', &block[start..end]).ok_or(Unreadable)?;
    let method = Method::from_bytes(&block[start..space]).map_err(|_| Unreadable)?;
    let start = space + 1;
    let space = start + memchr(b' ', &block[start..end]).ok_or(Unreadable)?;
    let target = Uri::from_maybe_shared(block.slice(start..space)).map_err(|_| Unreadable)?;
    let version = match &block[space + 1..end] {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        _ => return Err(Unreadable),
    };
    Ok((method, target, version))
}

fn trimmed(block: &[u8], mut start: usize, mut end: usize) -> (usize, usize) {
    while start < end && matches!(block[start], b' ' | b'\t') {
        start += 1;
    }
    while start < end && matches!(block[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        read(&Bytes::copy_from_slice(text.as_bytes())).unwrap().unwrap().0
    }

    #[test]
    fn a_head_is_taken_apart() {
        let text = "\r\nPOST /a?b=c HTTP/1.1\r\nHost: a.example\r\nX-A:1 \r\nx-a:\t2\r\nX-Empty:\r\nContent-Length: 5\r\n\r\nhello";
        let block = Bytes::copy_from_slice(text.as_bytes());
        let (head, len) = read(&block).unwrap().unwrap();
        assert_eq!(&block[len..], b"hello");
        assert_eq!((head.request.method().as_str(), head.request.uri().to_string()), ("POST", "/a?b=c".to_owned()));
        let lines: Vec<_> = head.request.headers().iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(
            lines,
            [("host", "a.example"), ("x-a", "1"), ("x-a", "2"), ("x-empty", ""), ("content-length", "5")]
        );
        assert!(matches!(head.framing, Framing::Length(5)) && head.keep_alive && !head.expects);
        for cut in 0..len {
            assert!(read(&block.slice(..cut)).unwrap().is_none(), "{cut}");
        }
    }

    #[test]
    fn what_a_client_says_about_its_connection_is_heeded() {
        let keeps = |line: &str| head(&format!("GET / {line}\r\n\r\n")).keep_alive;
        assert!(keeps("HTTP/1.1"));
        assert!(keeps("HTTP/1.1\r\nConnection: keep-alive, x-close"));
        assert!(!keeps("HTTP/1.1\r\nConnection: x, Close"));
        assert!(!keeps("HTTP/1.0"));
        assert!(keeps("HTTP/1.0\r\nConnection: Keep-Alive"));
        assert!(!keeps("HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close"));
        assert!(head("POST / HTTP/1.1\r\nExpect: 100-Continue\r\n\r\n").expects);
        assert!(!head("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expects);
    }

    #[test]
    fn what_the_guard_would_not_let_through_is_unreadable() {
        for text in [
            "GET\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.1\r\nnocolon\r\n\r\n",
            "GET / HTTP/1.1\r\na b: c\r\n\r\n",
        ] {
            assert!(read(&Bytes::copy_from_slice(text.as_bytes())).is_err(), "{text:?}");
        }
    }
}
