//! The head of an answer, as bytes.

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{Method, Request, StatusCode, Version, response};

use crate::body::Body;
use crate::http1::outgoing::Length;

/// What of a request its answer depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    head: bool,
    http11: bool,
    /// Whether the connection may stay.
    pub(super) keep_alive: bool,
}

impl Asked {
    pub(super) fn new(head: &Request<Body>, keep_alive: bool) -> Self {
        Self { head: head.method() == Method::HEAD, http11: head.version() == Version::HTTP_11, keep_alive }
    }

    /// How the body of an answer is framed whose length is `exact`, if that is known.
    fn length(self, status: StatusCode, exact: Option<u64>) -> Length {
        // Whatever their head says (RFC 9112, section 6.3).
        let bodiless = self.head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        match exact {
            _ if bodiless => Length::Known(0),
            Some(exact) => Length::Known(exact),
            None if self.http11 => Length::Chunked,
            None => Length::Close,
        }
    }

    /// Writes the head. Afterwards `keep_alive` says whether the connection stays.
    ///
    /// The framing is ours: it follows the body, and what the head says of it only where there is none (the length that a
    /// GET would have had, RFC 9110, section 8.6).
    pub(super) fn write(&mut self, head: &response::Parts, exact: Option<u64>, date: &[u8]) -> (Vec<u8>, Length) {
        let status = head.status;
        let length = self.length(status, exact);
        let switching = status == StatusCode::SWITCHING_PROTOCOLS;
        let framed = length != Length::Known(0) || exact == Some(0) && !self.is_bodiless(status);
        let mut out = Vec::with_capacity(768);
        if self.http11 && status == StatusCode::OK {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        } else {
            out.extend_from_slice(if self.http11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " });
            out.extend_from_slice(status.as_str().as_bytes());
            out.push(b' ');
            out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        let mut dated = false;
        for (name, value) in &head.headers {
            if name == TRANSFER_ENCODING || (framed && name == CONTENT_LENGTH) {
                continue;
            }
            if name == CONNECTION && !switching {
                let mut options = value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
                self.keep_alive &= !options.any(|option| option.eq_ignore_ascii_case(b"close"));
                continue;
            }
            dated |= name == DATE;
            line(&mut out, name.as_str().as_bytes(), value.as_bytes());
        }
        match length {
            Length::Known(n) if framed => line(&mut out, b"content-length", itoa::Buffer::new().format(n).as_bytes()),
            Length::Known(_) => {}
            Length::Chunked => line(&mut out, b"transfer-encoding", b"chunked"),
            Length::Close => self.keep_alive = false,
        }
        if !switching {
            match (self.keep_alive, self.http11) {
                (false, _) => line(&mut out, b"connection", b"close"),
                (true, false) => line(&mut out, b"connection", b"keep-alive"),
                (true, true) => {}
            }
        }
        if !dated {
            line(&mut out, b"date", date);
        }
        out.extend_from_slice(b"\r\n");
        (out, length)
    }

    fn is_bodiless(self, status: StatusCode) -> bool {
        self.length(status, None) == Length::Known(0)
    }
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    fn written(asked: &str, answer: &[(&str, &str)], status: u16, exact: Option<u64>) -> (String, Length, bool) {
        let mut words = asked.split(' ');
        let mut request = Request::builder().method(words.next().unwrap());
        let old = words.next() == Some("1.0");
        request = request.version(if old { Version::HTTP_10 } else { Version::HTTP_11 });
        let mut asked = Asked::new(&request.body(Body::empty()).unwrap(), words.next() != Some("close"));
        let mut response = http::Response::builder().status(status);
        for (name, value) in answer {
            response = response.header(*name, *value);
        }
        let (out, length) = asked.write(&response.body(()).unwrap().into_parts().0, exact, DAY);
        let text = String::from_utf8(out).unwrap().replace("date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "D ");
        (text.replace("\r\n", "|"), length, asked.keep_alive)
    }

    #[test]
    fn the_framing_follows_the_body() {
        let of = |asked, answer: &[_], status, exact| written(asked, answer, status, exact);
        let known = of("GET 1.1", &[("x-a", "1"), ("content-length", "9")], 200, Some(5));
        assert_eq!(known, ("HTTP/1.1 200 OK|x-a: 1|content-length: 5|D |".to_owned(), Length::Known(5), true));
        let none = of("GET 1.1", &[], 404, Some(0));
        assert_eq!(none, ("HTTP/1.1 404 Not Found|content-length: 0|D |".to_owned(), Length::Known(0), true));
        let unknown = of("GET 1.1", &[("content-length", "9"), ("transfer-encoding", "gzip")], 200, None);
        assert_eq!(unknown, ("HTTP/1.1 200 OK|transfer-encoding: chunked|D |".to_owned(), Length::Chunked, true));
        let old = of("GET 1.0", &[], 200, None);
        assert_eq!(old, ("HTTP/1.0 200 OK|connection: close|D |".to_owned(), Length::Close, false));
    }

    #[test]
    fn an_answer_without_a_body_keeps_the_length_that_it_would_have_had() {
        let lines = [("content-length", "9")];
        for (asked, status, phrase) in [("HEAD 1.1", 200, "OK"), ("GET 1.1", 304, "Not Modified")] {
            for exact in [Some(0), None] {
                let answer = written(asked, &lines, status, exact);
                let text = format!("HTTP/1.1 {status} {phrase}|content-length: 9|D |");
                assert_eq!(answer, (text, Length::Known(0), true));
            }
        }
        assert_eq!(written("HEAD 1.1", &[], 200, Some(0)).0, "HTTP/1.1 200 OK|D |");
        assert_eq!(written("GET 1.1", &[], 204, Some(0)).0, "HTTP/1.1 204 No Content|D |");
    }

    #[test]
    fn the_client_is_told_whether_the_connection_stays() {
        assert_eq!(written("GET 1.1 close", &[], 204, Some(0)).0, "HTTP/1.1 204 No Content|connection: close|D |");
        assert_eq!(written("GET 1.0", &[], 204, Some(0)).0, "HTTP/1.0 204 No Content|connection: keep-alive|D |");
        let closing = written("GET 1.1", &[("connection", "x, Close")], 204, Some(0));
        assert_eq!((closing.0.as_str(), closing.2), ("HTTP/1.1 204 No Content|connection: close|D |", false));
        let switching = written("GET 1.1", &[("connection", "upgrade"), ("upgrade", "websocket")], 101, Some(0)).0;
        assert_eq!(switching, "HTTP/1.1 101 Switching Protocols|connection: upgrade|upgrade: websocket|D |");
    }

    #[test]
    fn an_answer_has_one_date() {
        assert_eq!(written("GET 1.1", &[("date", "x")], 204, Some(0)).0, "HTTP/1.1 204 No Content|date: x||");
    }
}
