//! Clients that cost little: one request, one answer, over a connection that stays.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One of them, and the refresh token that it got last.
#[derive(Debug)]
pub(crate) struct Caller {
    stream: TcpStream,
    come: Vec<u8>,
    refresh: String,
}

impl Caller {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, come: Vec::with_capacity(4096), refresh: String::new() }
    }

    pub(crate) async fn get(&mut self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
        self.call(&request).await
    }

    pub(crate) async fn log_in(&mut self, code: &str) {
        let body = format!("{{\"code\":\"{code}\"}}");
        self.tokens("login", &body).await;
    }

    pub(crate) async fn refresh(&mut self) {
        let body = format!("{{\"refresh_token\":\"{}\"}}", self.refresh);
        self.tokens("refresh", &body).await;
    }

    pub(crate) fn has_session(&self) -> bool {
        !self.refresh.is_empty()
    }

    async fn tokens(&mut self, endpoint: &str, body: &str) {
        let request = format!(
            "POST /auth/{endpoint} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let text = self.call(&request).await;
        let (_, after) = text.split_once("\"refresh_token\":\"").unwrap_or_else(|| panic!("{endpoint}: {text}"));
        after.split('"').next().unwrap().clone_into(&mut self.refresh);
    }

    /// The body of the answer, which must be 200.
    async fn call(&mut self, request: &str) -> String {
        self.stream.write_all(request.as_bytes()).await.unwrap();
        self.come.clear();
        loop {
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.come)).await;
            let n = read.expect("the gateway answers within a minute").unwrap();
            assert!(n > 0, "the gateway hung up");
            let Some(end) = self.come.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.come[..end]).unwrap();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
            });
            let body = &self.come[end + 4..];
            if body.len() >= length.expect("a length") {
                assert!(head.starts_with("HTTP/1.1 200"), "{head}\n{}", String::from_utf8_lossy(body));
                return String::from_utf8(body.to_vec()).unwrap();
            }
        }
    }
}

/// So many, connected.
pub(crate) async fn connect(address: SocketAddr, callers: u64) -> Vec<Caller> {
    let mut connected = Vec::new();
    for _ in 0..callers {
        connected.push(Caller::connect(address).await);
    }
    connected
}

/// Has all of them do it, `operations` times together.
pub(crate) async fn all<F: Future<Output = Caller> + Send>(
    callers: Vec<Caller>,
    operations: u64,
    one: impl Fn(u64, Caller) -> F + Send + Sync + Clone + 'static,
) -> Vec<Caller> {
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|mut caller| {
            let (next, one) = (Arc::clone(&next), one.clone());
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= operations {
                        return caller;
                    }
                    caller = one(n, caller).await;
                }
            })
        })
        .collect();
    let mut left = Vec::new();
    for task in tasks {
        left.push(task.await.unwrap());
    }
    left
}
