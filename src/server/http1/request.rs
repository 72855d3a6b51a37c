//! From a head that the guard has let through to a request.
//!
//! The guard has checked it byte for byte and knows where its parts stand. Where it could not say (a head behind another one,
//! or one that came in pieces), the same check is made again.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};

use crate::body::Body;
use crate::http1::chunked::Scanner;
use crate::http1::names::Role;
use crate::http1::receiving::Framing;
use crate::http1::verbatim::Verbatim;
use crate::server::head::{self, Field, Parts, Refusal};

/// A head, read.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: Box<Request<Body>>,
    pub(super) framing: Framing,
    /// Whether the client lets the connection stay (RFC 9112, section 9.3).
    pub(super) keep_alive: bool,
    /// Whether it waits for 100 (RFC 9110, section 10.1.1).
    pub(super) expects: bool,
    /// The lines that are not among the request's headers.
    pub(super) verbatim: Verbatim,
}

/// Not what the guard lets through.
#[derive(Debug)]
pub(super) struct Unreadable;

/// The head at the start of `block` and its length; `None` when it is not complete. `parts` are its parts, if the guard has said
/// where they are.
///
/// # Errors
/// [`Unreadable`], which only a fault of ours can bring about.
pub(super) fn read(block: &Bytes, parts: &mut Parts) -> Result<Option<(Head, usize)>, Unreadable> {
    if parts.len == 0 {
        match head::find(block, &mut 0, usize::MAX, parts) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            // A head that no client can send.
            Err(_) => {
                let refusal = Refusal::standing_in(block).ok_or(Unreadable)?;
                return Ok(Some((Head::refused(refusal), block.len())));
            }
        }
    }
    let skip = parts.skip;
    let slice = |start: usize, end: usize| block.slice(skip + start..skip + end);
    let mut request = Box::new(Request::new(Body::empty()));
    *request.method_mut() = Method::from_bytes(&block[skip..skip + parts.method]).map_err(|_| Unreadable)?;
    *request.uri_mut() = Uri::from_maybe_shared(slice(parts.method + 1, parts.target)).map_err(|_| Unreadable)?;
    *request.version_mut() = if parts.http11 { Version::HTTP_11 } else { Version::HTTP_10 };
    let framing = match parts.framing {
        head::Framing::Length(length) => Framing::Length(length),
        head::Framing::Chunked => Framing::Chunked(Scanner::new()),
        head::Framing::Upgrade => Framing::Length(0),
    };
    let mut head = Head { request, framing, keep_alive: parts.http11, expects: false, verbatim: Verbatim::default() };
    let looked_at = parts.fields.iter().filter(|field| !field.passes).count();
    let mut fields = HeaderMap::with_capacity(looked_at);
    head.verbatim = Verbatim::of(block.slice(skip..));
    // Two of them are among the headers, where it is seen that they are two.
    let credentials = parts.fields.iter().filter(|field| field.role == Role::Authorization).count();
    for field in parts.fields.drain(..) {
        let Field { known, role, passes, line, colon, start, end } = field;
        if passes {
            // With its CR LF.
            head.verbatim.add(line, end + 2);
            continue;
        }
        if role == Role::Authorization && credentials == 1 {
            head.verbatim.authorize(start, end);
            continue;
        }
        let value = HeaderValue::from_maybe_shared(slice(start as usize, end as usize)).map_err(|_| Unreadable)?;
        match role {
            Role::Connection => head.heed(value.as_bytes(), parts.http11),
            Role::Expect => head.expects = parts.http11 && value.as_bytes().eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
        let name = match known {
            Some(name) => name.clone(),
            None => {
                let name = &block[skip + line as usize..skip + colon as usize];
                HeaderName::from_bytes(name).map_err(|_| Unreadable)?
            }
        };
        fields.append(name, value);
    }
    *head.request.headers_mut() = fields;
    Ok(Some((head, parts.len)))
}

impl Head {
    /// What stands for a head that was refused.
    fn refused(refusal: Refusal) -> Self {
        let mut request = Box::new(Request::new(Body::empty()));
        *request.uri_mut() = Uri::from_static(refusal.target());
        let (framing, verbatim) = (Framing::Length(0), Verbatim::default());
        Self { request, framing, keep_alive: false, expects: false, verbatim }
    }

    /// What `Connection` says about the connection.
    fn heed(&mut self, options: &[u8], http11: bool) {
        for option in options.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"close") {
                self.keep_alive = false;
            } else if !http11 && option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        read(&Bytes::copy_from_slice(text.as_bytes()), &mut Parts::default()).unwrap().unwrap().0
    }

    #[test]
    fn a_head_is_taken_apart() {
        let text = "\r\nPOST /a?b=c HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\nx-a: 2\r\nuser-agent: me\r\nContent-Length: 5\r\n\r\nhello";
        let block = Bytes::copy_from_slice(text.as_bytes());
        let (head, len) = read(&block, &mut Parts::default()).unwrap().unwrap();
        assert_eq!(&block[len..], b"hello");
        assert_eq!((head.request.method().as_str(), head.request.uri().to_string()), ("POST", "/a?b=c".to_owned()));
        let lines: Vec<_> = head.request.headers().iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(lines, [("host", "a.example"), ("content-length", "5")]);
        let mut verbatim = Vec::new();
        head.verbatim.push_lines(&mut verbatim);
        assert_eq!(verbatim, b"X-A: 1\r\nx-a: 2\r\nuser-agent: me\r\n");
        assert!(matches!(head.framing, Framing::Length(5)) && head.keep_alive && !head.expects);
        for cut in 0..len {
            assert!(read(&block.slice(..cut), &mut Parts::default()).unwrap().is_none(), "{cut}");
        }
    }

    #[test]
    fn where_one_line_has_to_be_written_anew_all_are() {
        let head = head("GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a:\t2 \r\nX-A: 3\r\nX-Empty:\r\n\r\n");
        let lines: Vec<_> = head.request.headers().iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(lines, [("host", "a"), ("x-a", "1"), ("x-a", "2"), ("x-a", "3"), ("x-empty", "")]);
        assert!(head.verbatim.is_empty());
    }

    #[test]
    fn what_a_client_says_about_its_connection_is_heeded() {
        let keeps = |line: &str| head(&format!("GET / {line}\r\nHost: a\r\n\r\n")).keep_alive;
        assert!(keeps("HTTP/1.1"));
        assert!(keeps("HTTP/1.1\r\nConnection: keep-alive, x-close"));
        assert!(!keeps("HTTP/1.1\r\nConnection: x, Close"));
        assert!(!keeps("HTTP/1.0"));
        assert!(keeps("HTTP/1.0\r\nConnection: Keep-Alive"));
        assert!(!keeps("HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close"));
        assert!(head("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n\r\n").expects);
        assert!(!head("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expects);
    }

    #[test]
    fn a_refusal_stands_for_a_head_that_no_client_can_send() {
        let head = head(std::str::from_utf8(Refusal::UriTooLong.stand_in()).unwrap());
        assert_eq!(*head.request.uri(), Refusal::UriTooLong.target());
        assert!(!head.keep_alive);
    }

    #[test]
    fn what_the_guard_would_not_let_through_is_unreadable() {
        for text in [
            "GET\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\na b: c\r\n\r\n",
        ] {
            assert!(read(&Bytes::copy_from_slice(text.as_bytes()), &mut Parts::default()).is_err(), "{text:?}");
        }
    }
}
