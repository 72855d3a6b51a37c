//! The proxy against scripted upstreams over real sockets.

mod answer;
mod mix;
mod reuse;
mod upload;
mod volume;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::config::section;

/// An upstream that says what the test tells it to.
struct Server {
    listener: TcpListener,
}

impl Server {
    async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn section(&self) -> section::Backend {
        let address = self.listener.local_addr().unwrap();
        let authority = address.to_string().parse().unwrap();
        section::Backend { authority, host: address.ip().to_string(), port: address.port(), transport: None }
    }

    async fn accept(&self) -> Peer {
        let tcp = self.listener.accept().await.unwrap().0;
        // Else the kernel would hold back the second of two writes.
        tcp.set_nodelay(true).unwrap();
        Peer { tcp }
    }
}

/// The upstream's end of one connection.
struct Peer {
    tcp: TcpStream,
}

impl Peer {
    /// Reads up to and including the end of a request head, not a byte more.
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.tcp.read_u8().await.expect("a request head"));
        }
        String::from_utf8(head).unwrap()
    }

    async fn read(&mut self, n: usize) -> String {
        let mut bytes = vec![0; n];
        self.tcp.read_exact(&mut bytes).await.expect("a request body");
        String::from_utf8(bytes).unwrap()
    }

    async fn say(&mut self, text: &str) {
        self.tcp.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads a request head and answers with `text`.
    async fn serve(&mut self, text: &str) -> String {
        let head = self.head().await;
        self.say(text).await;
        head
    }

    /// What comes until the gateway closes; a reset counts as an end.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self.tcp.read_to_end(&mut bytes).await;
        String::from_utf8(bytes).unwrap()
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A worker with one upstream.
struct Gateway {
    forwarder: Forwarder,
    backends: Backends,
    section: section::Upstream,
    upstream: Arc<Upstream>,
    limits: Limits,
}

impl Gateway {
    fn before(servers: &[&Server]) -> Self {
        Self::balancing(section::Balance::P2c, servers.iter().map(|server| server.section()).collect())
    }

    fn balancing(balance: section::Balance, servers: Vec<section::Backend>) -> Self {
        let connect_timeout = Duration::from_secs(5);
        let section = section::Upstream {
            name: "shop".to_owned(),
            servers,
            balance,
            connect_timeout,
            health: None,
            capacity: section::Capacity::default(),
        };
        let backends = Backends::new();
        let upstream = Upstream::new(&section, &backends);
        let five = Duration::from_secs(5);
        let limits = Limits { response_head: five, idle: five, total: None, max_body: 1024, min_body_rate: 1024 };
        Self { forwarder: Forwarder::new(), backends, section, upstream, limits }
    }

    fn forward(&self, request: Request<Body>) -> impl Future<Output = Result<Response<Body>, Error>> + Send + use<> {
        let upstream = Arc::clone(&self.upstream);
        self.forwarder.forward(Outbound {
            now: Instant::now(),
            request: Box::new(request),
            upstream,
            limits: self.limits,
            affinity: 0,
            upgrade: None,
            retry: None,
            witness: None,
        })
    }

    fn connects(&self) -> u64 {
        self.upstream.backends().iter().map(|backend| backend.counters().connects).sum()
    }

    fn in_flight(&self) -> usize {
        self.upstream.backends().iter().map(|backend| backend.counters().in_flight).sum()
    }

    fn idle(&self) -> usize {
        self.upstream.backends().iter().map(|backend| self.forwarder.idle(backend)).sum()
    }

    /// Waits until the closed idle connections have been noticed.
    async fn idle_becomes(&self, wanted: usize) {
        while self.idle() != wanted {
            tokio::task::yield_now().await;
            self.forwarder.sweep();
        }
    }
}

fn request(method: Method, body: Body) -> Request<Body> {
    Request::builder().method(method).uri("/a?b=c").header("host", "shop").body(body).unwrap()
}

fn get() -> Request<Body> {
    request(Method::GET, Body::empty())
}

fn post(text: &'static str) -> Request<Body> {
    request(Method::POST, Body::from(text))
}

/// The whole answer: status and text.
async fn whole(answer: Result<Response<Body>, Error>) -> (StatusCode, String) {
    let answer = answer.expect("an answer");
    let status = answer.status();
    let bytes = answer.into_body().collect().await.expect("a complete body").to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

/// Reads the body of an answer until it breaks, and returns what broke it.
async fn broken(answer: Result<Response<Body>, Error>) -> Error {
    let mut body = answer.expect("an answer").into_body();
    loop {
        match body.frame().await.expect("a broken body, not a complete one") {
            Ok(_) => {}
            Err(error) => return *error.downcast::<Error>().expect("the proxy's error"),
        }
    }
}

/// A client's body that is sent frame by frame. It ends when the sender is dropped.
struct Streamed(mpsc::UnboundedReceiver<Result<Frame<Bytes>, &'static str>>);

type Sender = mpsc::UnboundedSender<Result<Frame<Bytes>, &'static str>>;

fn streamed() -> (Sender, Body) {
    let (send, receive) = mpsc::unbounded_channel();
    (send, Body::boxed(Streamed(receive)))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, &'static str> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.get_mut().0.poll_recv(cx)
    }
}
