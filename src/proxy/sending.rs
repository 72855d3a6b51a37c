//! One request on its way into a connection: head, then body, as far as the upstream takes them.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::Request;
use http::header::{CONTENT_LENGTH, HOST, TRAILER, TRANSFER_ENCODING};
use http::uri::Authority;
use http_body::Body as _;
use tokio::io::AsyncWrite as _;

use super::connection::Connection;
use super::request_body::{RequestBody, Stated, Upload};
use super::{Error, Witness};
use crate::body::Body;
use crate::http1::lines;

/// Bodies up to this size are copied behind the head, bytes: one piece is handed to the kernel more cheaply than two.
const COPIED: usize = 1024;

/// The body of a request, and how far it is. Head and size lines are written into the connection's buffer, the bytes of
/// the body are not copied.
#[derive(Debug)]
pub(super) struct Sending {
    body: RequestBody,
    /// Its length, if that is known.
    length: Option<u64>,
    /// What is left of the length that the head states; `None` when the body goes in chunks.
    left: Option<u64>,
    /// What the connection has not taken of the present frame, and what follows it.
    data: Bytes,
    tail: &'static [u8],
    /// A small body that stands behind the head as one piece with it; kept for another attempt.
    copied: Bytes,
    /// There is no body.
    bodiless: bool,
    /// The present frame is the last one.
    last: bool,
    /// The connection has taken something of the present attempt.
    touched: bool,
    /// The upstream has closed its ears.
    deaf: bool,
    done: bool,
}

/// Why no more can be sent.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The client's body failed.
    Body(Error),
    /// The connection failed.
    Connection(io::Error),
    /// It failed, and was one that had been used before, and has not taken a byte of this request.
    Untouched(io::Error),
}

impl Sending {
    /// Nothing of `body` is sent yet.
    pub(super) fn new(body: RequestBody) -> Self {
        let last = body.is_end_stream();
        let length = if last { Some(0) } else { body.size_hint().exact() };
        Self {
            body,
            length,
            left: length,
            data: Bytes::new(),
            tail: b"",
            copied: Bytes::new(),
            bodiless: last,
            last,
            touched: false,
            deaf: false,
            done: false,
        }
    }

    /// Whether there is no body.
    pub(super) const fn is_bodiless(&self) -> bool {
        self.bodiless
    }

    /// How far the body is; `None` when the client is not waited for.
    pub(super) fn upload(&self) -> Option<&Upload> {
        self.body.upload()
    }

    /// Whether the connection has all of it.
    pub(super) const fn is_done(&self) -> bool {
        self.done
    }

    /// Begins an attempt on this connection: the first, or another after one that was untouched or has no body. A request
    /// that names no host is one for `host`.
    pub(super) fn begin(
        &mut self,
        connection: &mut Connection,
        head: &Request<Body>,
        host: &Authority,
        witness: Option<&dyn Witness>,
    ) {
        (self.touched, self.deaf, self.done) = (false, false, false);
        connection.sent = 0;
        write_head(&mut connection.unsent, head, Stated::new(self.length, head.method()), host, witness);
        if self.left.is_none() && !self.data.is_empty() {
            write_size(&mut connection.unsent, self.data.len());
        }
        connection.unsent.extend_from_slice(&self.copied);
        if let Some(upload) = self.body.upload() {
            upload.begin();
        }
    }

    /// Sends what can be sent now; ready when the connection has all of it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, connection: &mut Connection) -> Poll<Result<(), Stopped>> {
        if self.deaf {
            return Poll::Pending;
        }
        loop {
            if self.data.is_empty() && self.tail.is_empty() && !self.last {
                if connection.sent == connection.unsent.len() {
                    connection.unsent.clear();
                    connection.sent = 0;
                }
                // With the head still to be sent, that goes first.
                if let Poll::Ready(fetched) = self.poll_fetch(cx, &mut connection.unsent) {
                    fetched.map_err(Stopped::Body)?;
                } else if connection.unsent.is_empty() {
                    return Poll::Pending;
                }
            }
            let front = &connection.unsent[connection.sent..];
            if front.is_empty() && self.data.is_empty() && self.tail.is_empty() {
                if self.last {
                    // TLS may still hold the end of it.
                    match ready!(Pin::new(&mut connection.tcp).poll_flush(cx)) {
                        Ok(()) => {}
                        Err(error) => return Poll::Ready(Err(Stopped::Connection(error))),
                    }
                    self.done = true;
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let slices = [IoSlice::new(front), IoSlice::new(&self.data), IoSlice::new(self.tail)];
            let tcp = Pin::new(&mut connection.tcp);
            // Most requests are a head alone; one piece is handed to the kernel more cheaply than a list of one.
            let written = match self.data.is_empty() && self.tail.is_empty() {
                true => tcp.poll_write(cx, front),
                false => tcp.poll_write_vectored(cx, &slices),
            };
            match ready!(written) {
                Ok(0) => return Poll::Ready(Err(Stopped::Connection(io::ErrorKind::WriteZero.into()))),
                Ok(written) => self.advance(connection, written),
                Err(error) if connection.reused && !self.touched => return Poll::Ready(Err(Stopped::Untouched(error))),
                // An upstream may refuse an upload with an early answer and close (RFC 9112, section 9.3, asks clients to
                // watch for that). The reading side finds the answer, or the end.
                Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    self.deaf = true;
                    return Poll::Pending;
                }
                Err(error) => return Poll::Ready(Err(Stopped::Connection(error))),
            }
        }
    }

    /// Takes the next frame of the body; its size line, if it needs one, goes behind what is in `unsent`.
    fn poll_fetch(&mut self, cx: &mut Context<'_>, unsent: &mut Vec<u8>) -> Poll<Result<(), Error>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.data = frame.into_data().unwrap_or_default();
                self.last = self.body.is_end_stream();
            }
            Some(Err(_)) => return Poll::Ready(Err(self.cause())),
            None => self.last = true,
        }
        match &mut self.left {
            Some(left) => match left.checked_sub(self.data.len() as u64) {
                Some(rest) if rest == 0 || !self.last => {
                    *left = rest;
                    if self.last && self.data.len() <= COPIED {
                        self.copied = std::mem::take(&mut self.data);
                        unsent.extend_from_slice(&self.copied);
                    }
                }
                _ => {
                    return Poll::Ready(Err(Error::RequestBodyAborted(
                        "the body has another length than its head says".into(),
                    )));
                }
            },
            None => {
                if !self.data.is_empty() {
                    write_size(unsent, self.data.len());
                }
                self.tail = match (self.data.is_empty(), self.last) {
                    (false, false) => b"\r\n",
                    (false, true) => b"\r\n0\r\n\r\n",
                    (true, true) => b"0\r\n\r\n",
                    (true, false) => b"",
                };
            }
        }
        Poll::Ready(Ok(()))
    }

    fn cause(&self) -> Error {
        let cause = self.body.upload().and_then(Upload::cause);
        cause.unwrap_or_else(|| Error::RequestBodyAborted("the body failed".into()))
    }

    /// The connection has taken so many bytes.
    fn advance(&mut self, connection: &mut Connection, mut written: usize) {
        self.touched = true;
        let front = written.min(connection.unsent.len() - connection.sent);
        connection.sent += front;
        written -= front;
        let data = written.min(self.data.len());
        self.data.advance(data);
        self.tail = &self.tail[written - data..];
    }
}

/// A request head (RFC 9112, section 3) in place of what is in `out`: in the origin form, of our version, framed by `stated`
/// and nothing else.
fn write_head(
    out: &mut Vec<u8>,
    head: &Request<Body>,
    stated: Stated,
    host: &Authority,
    witness: Option<&dyn Witness>,
) {
    out.clear();
    out.reserve(2048);
    out.extend_from_slice(head.method().as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.uri().path_and_query().map_or("/", |target| target.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut hosted = false;
    for (name, value) in head.headers() {
        // What the client stated of the body. Trailers are not passed on, so none are announced.
        if *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING || *name == TRAILER {
            continue;
        }
        hosted |= *name == HOST;
        lines::push(out, name, value);
    }
    // A client of HTTP/1.0 need not name a host, but we speak 1.1 (RFC 9112 section 3.2).
    if !hosted {
        [&b"host: "[..], host.as_str().as_bytes(), b"\r\n"].iter().for_each(|part| out.extend_from_slice(part));
    }
    match stated {
        Stated::None => {}
        Stated::Length(length) => {
            let mut digits = itoa::Buffer::new();
            let length = digits.format(length).as_bytes();
            [&b"content-length: "[..], length, b"\r\n"].iter().for_each(|part| out.extend_from_slice(part));
        }
        Stated::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    if let Some(witness) = witness {
        witness.push_lines(out);
    }
    out.extend_from_slice(b"\r\n");
}

/// The line before a chunk (RFC 9112, section 7.1).
fn write_size(out: &mut Vec<u8>, size: usize) {
    // Writing to memory does not fail.
    let _ = write!(out, "{size:x}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(target: &str, lines: &[(&str, &str)], stated: Stated) -> String {
        let mut request = Request::builder().method("PUT").uri(target);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let mut out = b"what was here before".to_vec();
        let head = request.body(Body::empty()).unwrap();
        write_head(&mut out, &head, stated, &Authority::from_static("10.0.0.1:80"), None);
        String::from_utf8(out).unwrap().replace("\r\n", "|")
    }

    #[test]
    fn a_head_states_our_framing_and_none_of_the_clients() {
        let lies = [("host", "a.example"), ("content-length", "7"), ("transfer-encoding", "gzip"), ("trailer", "x")];
        assert_eq!(written("/a?b", &lies, Stated::None), "PUT /a?b HTTP/1.1|host: a.example||");
        assert_eq!(written("/", &lies, Stated::Length(5)), "PUT / HTTP/1.1|host: a.example|content-length: 5||");
        let chunked = "PUT / HTTP/1.1|host: a.example|transfer-encoding: chunked||";
        assert_eq!(written("/", &lies, Stated::Chunked), chunked);
    }

    #[test]
    fn a_head_has_a_host_and_the_origin_form() {
        assert_eq!(written("http://elsewhere/a?b", &[], Stated::None), "PUT /a?b HTTP/1.1|host: 10.0.0.1:80||");
    }
}
