//! Clients that speak HTTP/2: [`Client`] is a well-behaved one, over any stream; [`Wire`] sends frames as a test writes
//! them, right or wrong.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::DEADLINE;

/// A client that knows that it will meet HTTP/2.
#[derive(Debug)]
pub(crate) struct Client {
    send: SendRequest<Bytes>,
    /// Ends when the connection does.
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Response {
    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body.escape_ascii()))
    }
}

/// A request for this URL.
pub(crate) fn get(url: &str) -> Request<()> {
    Request::builder().uri(url).body(()).unwrap()
}

impl Client {
    /// On clear text, with prior knowledge.
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).await.unwrap()).await
    }

    /// Over a stream that is there.
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        Self { send, connection: tokio::spawn(connection) }
    }

    /// Sends a request and reads the answer to its end.
    pub(crate) async fn send(&mut self, request: Request<()>, body: impl Into<Bytes>) -> Result<Response, h2::Error> {
        let open = self.open(request, body.into(), None).await?;
        timeout(DEADLINE, read(open)).await.expect("an answer")
    }

    /// As [`Client::send`], with trailers.
    pub(crate) async fn send_with_trailers(
        &mut self,
        request: Request<()>,
        body: impl Into<Bytes>,
        trailers: HeaderMap,
    ) -> Result<Response, h2::Error> {
        let open = self.open(request, body.into(), Some(trailers)).await?;
        timeout(DEADLINE, read(open)).await.expect("an answer")
    }

    /// Sends a request; the answer is to come.
    pub(crate) async fn open(
        &mut self,
        request: Request<()>,
        body: Bytes,
        trailers: Option<HeaderMap>,
    ) -> Result<h2::client::ResponseFuture, h2::Error> {
        let (answer, mut sending) = self.begin(request, body.is_empty() && trailers.is_none()).await?;
        if !body.is_empty() {
            sending.send_data(body, trailers.is_none())?;
        }
        if let Some(trailers) = trailers {
            sending.send_trailers(trailers)?;
        }
        Ok(answer)
    }

    /// Sends the head of a request.
    pub(crate) async fn begin(
        &mut self,
        request: Request<()>,
        last: bool,
    ) -> Result<(h2::client::ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
        self.send = timeout(DEADLINE, self.send.clone().ready()).await.expect("room for a request")?;
        self.send.send_request(request, last)
    }
}

/// Reads an answer to its end.
pub(crate) async fn read(answer: h2::client::ResponseFuture) -> Result<Response, h2::Error> {
    let (head, mut stream) = answer.await?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        let _ = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?;
    Ok(Response { status: head.status.as_u16(), headers: head.headers, body, trailers })
}

// Types of frames, and flags (RFC 9113, section 6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The status of an answer's head, as far as the static table of RFC 7541 has it.
    pub(crate) fn status(&self) -> Option<u16> {
        let first = self.payload.iter().find(|byte| **byte >> 5 != 1)?;
        match (self.kind, first) {
            (HEADERS, 0x88..=0x8e) => Some([200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)]),
            (HEADERS, _) => Some(0),
            _ => None,
        }
    }

    /// The reason in a GOAWAY or RST_STREAM.
    pub(crate) fn reason(&self) -> Option<u32> {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let four = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(four.try_into().unwrap()))
    }
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A block of fields, each a literal that is not indexed and not compressed (RFC 7541, section 6.2.2).
pub(crate) fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_bytes(), value] {
            assert!(text.len() < 127, "a longer one needs more than one byte of length");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text);
        }
    }
    block
}

/// A connection on which frames are written by hand.
#[derive(Debug)]
pub(crate) struct Wire(pub(crate) TcpStream);

impl Wire {
    /// Preface and empty SETTINGS are sent.
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        let mut wire = Self(TcpStream::connect(to).await.unwrap());
        assert!(wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await);
        assert!(wire.send(&frame(SETTINGS, 0, 0, b"")).await);
        wire
    }

    /// Sends bytes; false when the gateway has closed the connection.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        timeout(DEADLINE, self.0.write_all(bytes)).await.expect("sent").is_ok()
    }

    /// The next frame; `None` when the connection is over.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        timeout(DEADLINE, self.read()).await.expect("a frame, or the end")
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, s, t, u, v] = head;
        let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes([s, t, u, v]), payload })
    }

    /// The next frame that is wanted; `None` when the connection ends before.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }
}
