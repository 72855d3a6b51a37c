//! A service that is well or not, as the test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What a connection does in place of answering.
const RESET: u16 = 0;

#[derive(Debug)]
struct Shared {
    /// Of every answer.
    status: AtomicU16,
    probes: AtomicUsize,
    requests: AtomicUsize,
}

/// One server. Each connection carries one request.
#[derive(Debug)]
pub(crate) struct Switch {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Switch {
    /// One that answers 200.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = (AtomicUsize::default(), AtomicUsize::default());
        let shared = Arc::new(Shared { status: AtomicU16::new(200), probes: counts.0, requests: counts.1 });
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                connections.spawn(serve(tcp, Arc::clone(&serving)));
            }
        });
        Self { address, shared, _tasks: tasks }
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// From now on it answers with this status.
    pub(crate) fn say(&self, status: u16) {
        self.shared.status.store(status, Ordering::SeqCst);
    }

    /// From now on it reads each request and closes without an answer.
    pub(crate) fn reset(&self) {
        self.say(RESET);
    }

    /// Requests for `/healthz` so far.
    pub(crate) fn probes(&self) -> usize {
        self.shared.probes.load(Ordering::SeqCst)
    }

    /// Other requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

async fn serve(mut tcp: TcpStream, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match tcp.read_buf(&mut head).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
    let probe = head.starts_with(b"GET /healthz ");
    if probe { &shared.probes } else { &shared.requests }.fetch_add(1, Ordering::SeqCst);
    let status = shared.status.load(Ordering::SeqCst);
    if status != RESET {
        let body = "ok";
        let answer =
            format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        let _ = tcp.write_all(answer.as_bytes()).await;
    }
}
