//! A client that says exactly the bytes it is told to say, and reads answers strictly.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::DEADLINE;
use super::http1::{self, Broken, Fields, Framing, Reader};

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    /// Its status code.
    pub(crate) status: u16,
    /// Its fields.
    pub(crate) headers: Fields,
    /// Its body.
    pub(crate) body: Vec<u8>,
    /// The fields after a chunked body.
    pub(crate) trailers: Fields,
}

impl Response {
    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in: {}", self.body.escape_ascii()))
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    reader: Reader<TcpStream>,
    deadline: Duration,
}

impl Client {
    /// Connects.
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        let stream = timeout(DEADLINE, TcpStream::connect(to)).await.expect("connected in time").expect("connected");
        stream.set_nodelay(true).unwrap();
        Self { reader: Reader::new(stream), deadline: DEADLINE }
    }

    /// How long one read may take from now on.
    pub(crate) fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The client's own address, as the gateway sees it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.reader.stream.local_addr().unwrap()
    }

    /// Sends these bytes. A peer that has already closed is no fault here: the answer tells.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(DEADLINE, self.reader.stream.write_all(bytes.as_ref())).await.expect("sent in time");
    }

    /// Says that nothing more will be sent; answers can still be read.
    pub(crate) async fn finish(&mut self) {
        let _ = self.reader.stream.shutdown().await;
    }

    /// The next answer to anything but HEAD. A 1xx is an answer of its own, without a body.
    pub(crate) async fn response(&mut self) -> Result<Response, Broken> {
        self.answer(false).await
    }

    /// The next answer, to a HEAD request: its fields speak of a body that does not come.
    pub(crate) async fn response_to_head(&mut self) -> Result<Response, Broken> {
        self.answer(true).await
    }

    /// The bytes that still come until the gateway closes. Fails when it does not close.
    pub(crate) async fn until_closed(&mut self) -> Result<Vec<u8>, Broken> {
        timeout(self.deadline, self.reader.rest()).await.map_err(|_| Broken::TimedOut)
    }

    /// The next `n` bytes, as in a tunnel.
    pub(crate) async fn bytes(&mut self, n: usize) -> Result<Vec<u8>, Broken> {
        timeout(self.deadline, self.reader.exactly(n)).await.map_err(|_| Broken::TimedOut)?
    }

    async fn answer(&mut self, to_head: bool) -> Result<Response, Broken> {
        let reader = &mut self.reader;
        let read = async {
            let head = reader.head().await?;
            let status = status(&head.first_line)?;
            let said = http1::framing(&head.fields)?;
            let framing = match (to_head, status) {
                (true, _) | (_, 100..=199 | 204 | 304) => Framing::Length(0),
                _ => said.unwrap_or(Framing::UntilClose),
            };
            let body = reader.body(framing, usize::MAX).await?;
            Ok(Response { status, headers: head.fields, body: body.kept, trailers: body.trailers })
        };
        timeout(self.deadline, read).await.map_err(|_| Broken::TimedOut)?
    }
}

/// One connection, these bytes, one answer.
pub(crate) async fn exchange(to: SocketAddr, bytes: impl AsRef<[u8]>) -> Result<Response, Broken> {
    let mut client = Client::connect(to).await;
    client.send(bytes).await;
    client.response().await
}

/// `HTTP/1.1 200 OK`, and nothing looser (RFC 9112, section 4).
fn status(line: &str) -> Result<u16, Broken> {
    let digits = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split_once(' ')).map(|(digits, _)| digits);
    match digits {
        Some(d) if d.len() == 3 && d.bytes().all(|b| b.is_ascii_digit()) => Ok(d.parse().unwrap_or(0)),
        _ => Err(Broken::Malformed(format!("a status line: {line:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::upstream::{After, Upstream};
    use super::*;

    #[tokio::test]
    async fn answers_on_one_connection_are_told_apart() {
        let two = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
                   HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\nrest";
        let upstream = Upstream::scripted([(two, After::Close)]).await;
        let mut client = Client::connect(upstream.address()).await;
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!(client.response().await.unwrap().status, 100);
        assert_eq!(client.response().await.unwrap().text(), "ok");
        let last = client.response().await.unwrap();
        assert_eq!((last.text(), last.trailers.get("x-sum")), ("hi", Some("1")));
        assert_eq!(client.bytes(2).await.unwrap(), b"re");
        assert_eq!(client.until_closed().await.unwrap(), b"st");
    }

    #[tokio::test]
    async fn a_body_that_is_cut_off_is_not_an_answer() {
        let short = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort";
        let upstream = Upstream::scripted([(short, After::Close)]).await;
        let got = exchange(upstream.address(), "GET / HTTP/1.1\r\n\r\n").await;
        assert!(matches!(got, Err(Broken::CutOff)), "{got:?}");
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let upstream = Upstream::scripted([("", After::KeepOpen)]).await;
        let mut client = Client::connect(upstream.address()).await.within(Duration::from_millis(1));
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        assert!(matches!(client.response().await, Err(Broken::TimedOut)));
        assert!(matches!(client.until_closed().await, Err(Broken::TimedOut)));
    }

    #[tokio::test]
    async fn an_answer_to_head_has_no_body() {
        let upstream = Upstream::echo().await;
        let mut client = Client::connect(upstream.address()).await;
        client.send("HEAD /stream/9 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.response_to_head().await.unwrap().headers.get("content-length"), Some("9"));
        client.finish().await;
        let echoed = client.response().await.unwrap().json();
        assert_eq!(echoed["client"], client.address().to_string());
    }
}
