//! Large bodies: nothing is collected, and whoever stalls is waited for.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::join;

use super::*;

const LARGE: usize = 64 << 20;

/// What the sockets' and hyper's buffers may swallow before a sender blocks.
const BUFFERS: usize = 24 << 20;

#[tokio::test]
async fn large_bodies_stream_in_both_directions() {
    let server = Server::start().await;
    let mut gateway = Gateway::before(&[&server]);
    gateway.limits.max_body = LARGE as u64;
    let (sent, body) = counted();
    let script = async {
        let mut peer = server.accept().await;
        peer.serve(&format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await;
        let (from, mut to) = peer.tcp.into_split();
        tokio::io::copy(&mut from.take(LARGE as u64), &mut to).await.unwrap();
        to
    };
    let client = async {
        let mut body = gateway.forward(request(Method::POST, body)).await.unwrap().into_body();
        let (mut received, mut largest) = (0, 0);
        while let Some(frame) = body.frame().await {
            let n = frame.unwrap().into_data().unwrap().len();
            received += n;
            largest = largest.max(n);
        }
        (received, largest)
    };
    let (_, (received, largest)) = join!(script, client);
    assert_eq!((received, sent.load(Ordering::Relaxed)), (LARGE, LARGE));
    assert!(largest < 1 << 20, "{largest}");
}

#[tokio::test]
async fn a_stalled_reader_stops_the_upstream() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]);
    let written = AtomicUsize::new(0);
    let script = async {
        let mut peer = server.accept().await;
        peer.serve(&format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await;
        while written.load(Ordering::Relaxed) < LARGE {
            peer.tcp.write_all(&[0; 16384]).await.unwrap();
            written.fetch_add(16384, Ordering::Relaxed);
        }
    };
    let stalled = async {
        let (_, answer) = join!(script, gateway.forward(get()));
        answer
    };
    // The script can only end if something takes all it has.
    let over = tokio::time::timeout(Duration::from_millis(300), stalled).await;
    assert!(over.is_err(), "the upstream was never stopped");
    assert!(written.load(Ordering::Relaxed) < BUFFERS, "{written:?}");
}

#[tokio::test]
async fn a_stalled_upstream_stops_the_client_and_is_given_up() {
    let server = Server::start().await;
    let mut gateway = Gateway::before(&[&server]);
    gateway.limits.max_body = LARGE as u64;
    gateway.limits.response_head = Duration::from_millis(200);
    let (sent, body) = counted();
    let (_peer, answer) = join!(server.accept(), gateway.forward(request(Method::POST, body)));
    assert!(matches!(answer, Err(Error::ResponseHeadTimeout)), "{answer:?}");
    assert!(sent.load(Ordering::Relaxed) < BUFFERS, "{sent:?}");
}

/// A large body that counts what is taken from it.
struct Counted(Arc<AtomicUsize>);

fn counted() -> (Arc<AtomicUsize>, Body) {
    let sent = Arc::new(AtomicUsize::new(0));
    (Arc::clone(&sent), Body::boxed(Counted(sent)))
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        static ZEROS: [u8; 16384] = [0; 16384];
        if self.0.load(Ordering::Relaxed) == LARGE {
            return Poll::Ready(None);
        }
        self.0.fetch_add(ZEROS.len(), Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&ZEROS)))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact((LARGE - self.0.load(Ordering::Relaxed)) as u64)
    }
}
