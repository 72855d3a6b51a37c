//! A WeChat that costs next to nothing: it believes every code, and names the person after it. Unlike the simulator it keeps
//! nothing, so that what is measured is the gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// It runs until the process ends.
#[derive(Debug)]
pub(crate) struct WeChat {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
}

impl WeChat {
    /// Answers each code after `delay`.
    pub(crate) async fn start(delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::<AtomicU64>::default());
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, delay));
            }
        });
        Self { address, connections }
    }

    pub(crate) fn api_base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many the gateway has made so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, delay: Duration) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut come = Vec::with_capacity(2048);
    loop {
        while !come.ends_with(b"\r\n\r\n") {
            (stream.read_buf(&mut come).await.ok()? > 0).then_some(())?;
        }
        let head = std::str::from_utf8(&come).ok()?;
        let code = head.split_once("js_code=")?.1.split(['&', ' ']).next()?;
        let body = format!("{{\"openid\":\"o-{code}\",\"session_key\":\"AAECAwQFBgcICQoLDA0ODw==\"}}");
        let answer =
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        stream.write_all(answer.as_bytes()).await.ok()?;
        come.clear();
    }
}
