//! Services behind the gateway, over plain sockets so that what arrived can be told byte for byte.
//!
//! [`Upstream::echo`] answers every request; the end of the path says how, whatever prefix a route left in front of it:
//!
//! | path ends in | answer |
//! | --- | --- |
//! | `/status/404` | this status, with the echo |
//! | `/stream/N` | `N` bytes with Content-Length |
//! | `/chunked/N` | `N` bytes in chunks |
//! | `/cut/N` | announces `N` bytes more than it sends, and closes |
//! | `/hold` | nothing until [`Upstream::release`], then the echo |
//! | `/drip` | head and `first`, then nothing until [`Upstream::release`], then `last` |
//! | anything else | 200 and the echo: [`Request`] as JSON |
//!
//! [`Upstream::scripted`] answers with given bytes, right or wrong.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::DEADLINE;
use super::http1::{self, Framing, Reader};

/// As much of a body as is kept of each request.
const KEPT_BODY: usize = 64 * 1024;

/// One request as it arrived. Its JSON is the echo.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Request {
    /// The peer's address.
    pub(crate) client: String,
    /// Method, target and version, as received.
    pub(crate) request_line: String,
    /// Names and values in the order and spelling received.
    pub(crate) headers: Vec<(String, String)>,
    /// Length of the body.
    pub(crate) body_length: u64,
    /// The body's first 64 KiB.
    pub(crate) body: String,
    /// Trailer fields.
    pub(crate) trailers: Vec<(String, String)>,
    /// The head's bytes.
    #[serde(skip)]
    pub(crate) raw_head: Vec<u8>,
}

impl Request {
    /// Every value of this header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }
}

/// What a scripted upstream does once it has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Closes.
    Close,
    /// Leaves the connection open and silent.
    KeepOpen,
}

/// Answers to come, one a connection.
type Script = VecDeque<(Vec<u8>, After)>;

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    requests: Vec<Request>,
}

#[derive(Debug)]
struct Shared {
    seen: watch::Sender<Seen>,
    held: Semaphore,
    script: Option<Mutex<Script>>,
}

/// A running service; it ends, with all its connections, when this goes.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    /// Answers everything; see the table of this module.
    pub(crate) async fn echo() -> Self {
        Self::start(None).await
    }

    /// The n-th connection gets the n-th answer to its first request, whatever that is; connections beyond are closed.
    pub(crate) async fn scripted<B: Into<Vec<u8>>>(answers: impl IntoIterator<Item = (B, After)>) -> Self {
        Self::start(Some(answers.into_iter().map(|(bytes, after)| (bytes.into(), after)).collect())).await
    }

    async fn start(script: Option<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, _) = watch::channel(Seen::default());
        let shared = Arc::new(Shared { seen, held: Semaphore::new(0), script: script.map(Mutex::new) });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, _tasks: tasks }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// As `gateway.toml` wants it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.seen.borrow().connections
    }

    /// Requests that arrived whole, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.seen.borrow().requests.clone()
    }

    /// Waits until `n` requests have arrived; returns them all.
    pub(crate) async fn until_requests(&self, n: usize) -> Vec<Request> {
        let mut seen = self.shared.seen.subscribe();
        let waited = timeout(DEADLINE, seen.wait_for(|seen| seen.requests.len() >= n)).await;
        waited.unwrap_or_else(|_| panic!("fewer than {n} requests arrived")).unwrap().requests.clone()
    }

    /// Lets `n` answers go that `/hold` or `/drip` hold back, now or later.
    pub(crate) fn release(&self, n: usize) {
        self.shared.held.add_permits(n);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, peer)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        shared.seen.send_modify(|seen| seen.connections += 1);
        let connection = Connection { reader: Reader::new(stream), peer, shared: Arc::clone(&shared) };
        connections.spawn(async move {
            // A peer that goes away ends the connection; the test looks at its own end.
            let _ = connection.serve().await;
        });
    }
}

struct Connection {
    reader: Reader<TcpStream>,
    peer: SocketAddr,
    shared: Arc<Shared>,
}

type Ended = Box<dyn std::error::Error + Send + Sync>;

impl Connection {
    async fn serve(mut self) -> Result<(), Ended> {
        let scripted = match &self.shared.script {
            Some(script) => Some(script.lock().unwrap().pop_front().ok_or("the script is over")?),
            None => None,
        };
        if let Some((bytes, after)) = scripted {
            self.request().await?;
            self.write(&bytes).await?;
            if after == After::KeepOpen {
                self.reader.rest().await;
            }
            return Ok(());
        }
        while self.answer().await? {}
        Ok(())
    }

    /// Reads one request and takes note of it.
    async fn request(&mut self) -> Result<Request, Ended> {
        let head = self.reader.head().await?;
        if head.fields.get("expect").is_some_and(|v| v.eq_ignore_ascii_case("100-continue")) {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let framing = http1::framing(&head.fields)?.unwrap_or(Framing::Length(0));
        let body = self.reader.body(framing, KEPT_BODY).await?;
        let request = Request {
            client: self.peer.to_string(),
            request_line: head.first_line,
            headers: head.fields.0,
            body_length: body.length,
            body: String::from_utf8_lossy(&body.kept).into_owned(),
            trailers: body.trailers.0,
            raw_head: head.raw,
        };
        self.shared.seen.send_modify(|seen| seen.requests.push(request.clone()));
        Ok(request)
    }

    /// Answers one request; false when the connection ends with it.
    async fn answer(&mut self) -> Result<bool, Ended> {
        let request = self.request().await?;
        let mut words = request.request_line.split(' ');
        let to_head = words.next() == Some("HEAD");
        let path = words.next().unwrap_or("/").split('?').next().unwrap_or("/");
        let segments: Vec<&str> = path.rsplit('/').take(2).collect();
        match (segments.get(1).copied().unwrap_or(""), segments[0]) {
            ("status", status) => self.echo(status.parse()?, &request, to_head).await?,
            ("stream", n) => self.stream(n.parse()?, 0, to_head).await?,
            ("cut", n) => {
                self.stream(0, n.parse()?, to_head).await?;
                return Ok(false);
            }
            ("chunked", n) => self.chunked(n.parse()?, to_head).await?,
            (_, "hold") => {
                self.released().await?;
                self.echo(200, &request, to_head).await?;
            }
            (_, "drip") => {
                self.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await?;
                self.released().await?;
                self.write(b"4\r\nlast\r\n0\r\n\r\n").await?;
            }
            _ => self.echo(200, &request, to_head).await?,
        }
        Ok(!request.all("connection").iter().any(|v| v.eq_ignore_ascii_case("close")))
    }

    async fn released(&self) -> Result<(), Ended> {
        self.shared.held.acquire().await?.forget();
        Ok(())
    }

    async fn echo(&mut self, status: u16, request: &Request, to_head: bool) -> Result<(), Ended> {
        let body = serde_json::to_vec(request)?;
        let head = format!(
            "HTTP/1.1 {status} Echo\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.write(head.as_bytes()).await?;
        if !to_head && status != 204 && status != 304 {
            self.write(&body).await?;
        }
        Ok(())
    }

    /// Sends `n` bytes and announces `missing` more.
    async fn stream(&mut self, n: u64, missing: u64, to_head: bool) -> Result<(), Ended> {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", n + missing);
        self.write(head.as_bytes()).await?;
        for part in parts(if to_head { 0 } else { n }) {
            self.write(&part).await?;
        }
        Ok(())
    }

    async fn chunked(&mut self, n: u64, to_head: bool) -> Result<(), Ended> {
        self.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
        if to_head {
            return Ok(());
        }
        for part in parts(n) {
            let mut chunk = format!("{:x}\r\n", part.len()).into_bytes();
            chunk.extend_from_slice(&part);
            chunk.extend_from_slice(b"\r\n");
            self.write(&chunk).await?;
        }
        self.write(b"0\r\n\r\n").await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.reader.stream.write_all(bytes).await?;
        Ok(())
    }
}

/// `n` bytes in pieces of at most 64 KiB.
fn parts(n: u64) -> impl Iterator<Item = Vec<u8>> {
    const PIECE: u64 = 64 * 1024;
    (0..n.div_ceil(PIECE)).map(move |i| {
        let length = PIECE.min(n - i * PIECE);
        vec![b'x'; usize::try_from(length).unwrap_or(0)]
    })
}

#[cfg(test)]
mod tests {
    use super::super::http1::Broken;
    use super::super::raw::{Client, exchange};
    use super::*;

    #[tokio::test]
    async fn the_echo_tells_what_arrived() {
        let upstream = Upstream::echo().await;
        let request = "POST /api/a?q=%20 HTTP/1.1\r\nhOsT: a\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 2\r\n\r\nhi";
        let echoed = exchange(upstream.address(), request).await.unwrap().json();
        assert_eq!(echoed["request_line"], "POST /api/a?q=%20 HTTP/1.1");
        assert_eq!(
            echoed["headers"],
            serde_json::json!([["hOsT", "a"], ["X-A", "1"], ["x-a", "2"], ["Content-Length", "2"]])
        );
        assert_eq!((&echoed["body_length"], &echoed["body"]), (&2.into(), &"hi".into()));
        let seen = upstream.requests();
        assert_eq!(seen[0].all("x-A"), ["1", "2"]);
        assert_eq!(seen[0].raw_head, request.as_bytes()[..request.len() - 2]);
        assert!(upstream.url().ends_with(&upstream.address().port().to_string()));
    }

    #[tokio::test]
    async fn connections_and_requests_are_counted_apart() {
        let upstream = Upstream::echo().await;
        let mut client = Client::connect(upstream.address()).await;
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /status/404 HTTP/1.1\r\nConnection: close\r\n\r\n").await;
        assert_eq!(client.response().await.unwrap().status, 200);
        assert_eq!(client.response().await.unwrap().status, 404);
        assert_eq!(client.until_closed().await.unwrap(), b"");
        exchange(upstream.address(), "GET /b HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!((upstream.connections(), upstream.requests().len()), (2, 3));
    }

    #[tokio::test]
    async fn large_bodies_come_with_a_length_in_chunks_or_cut() {
        let upstream = Upstream::echo().await;
        let get = |path: &str| format!("GET /api{path} HTTP/1.1\r\nHost: a\r\n\r\n");
        for path in ["/stream/200000", "/chunked/200000"] {
            assert_eq!(exchange(upstream.address(), get(path)).await.unwrap().body.len(), 200_000, "{path}");
        }
        let cut = exchange(upstream.address(), get("/cut/3")).await;
        assert!(matches!(cut, Err(Broken::CutOff)), "{cut:?}");
    }

    #[tokio::test]
    async fn a_held_answer_comes_when_it_is_released() {
        let upstream = Upstream::echo().await;
        let mut client = Client::connect(upstream.address()).await;
        client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(upstream.until_requests(1).await[0].request_line, "GET /hold HTTP/1.1");
        upstream.release(2);
        assert_eq!(client.response().await.unwrap().status, 200);
        client.send("GET /drip HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.response().await.unwrap().text(), "firstlast");
    }

    #[tokio::test]
    async fn a_script_serves_one_connection_a_line_and_then_none() {
        let upstream = Upstream::scripted([("garbage", After::Close)]).await;
        let got = exchange(upstream.address(), "GET / HTTP/1.1\r\n\r\n").await;
        assert!(matches!(got, Err(Broken::CutOff)), "{got:?}");
        let got = exchange(upstream.address(), "GET / HTTP/1.1\r\n\r\n").await;
        assert!(matches!(got, Err(Broken::Closed)), "{got:?}");
        assert_eq!(upstream.requests().len(), 1);
    }
}
