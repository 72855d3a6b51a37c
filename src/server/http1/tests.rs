//! One client and a service that does what the path says.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::Notify;

use super::*;

const DATE: &str = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

#[derive(Default)]
struct Answers {
    calls: AtomicUsize,
    finished: AtomicUsize,
    /// Lets `/slow` go on.
    go: Notify,
    /// Sends the frames of `/stream`.
    frames: Mutex<Option<tokio::sync::mpsc::UnboundedReceiver<Result<Bytes, &'static str>>>>,
}

struct Frames(tokio::sync::mpsc::UnboundedReceiver<Result<Bytes, &'static str>>);

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.0.poll_recv(cx).map(|next| next.map(|data| data.map(Frame::data)))
    }
}

impl Service for Answers {
    type Body = Body;

    fn call(&self, request: Box<Request<Body>>, _: Verbatim) -> impl Future<Output = Response<Body>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        async move {
            let path = request.uri().path().to_owned();
            let body = match path.as_str() {
                "/slow" => {
                    self.go.notified().await;
                    Body::from("slow")
                }
                "/ignore" => Body::from("ignored"),
                // Asks for the body, and does not wait for it.
                "/impatient" => {
                    let mut body = request.into_body();
                    for _ in 0..2 {
                        assert!(body.frame().now_or_never().is_none());
                        tokio::task::yield_now().await;
                    }
                    Body::from("impatient")
                }
                "/stream" => Body::boxed(Frames(self.frames.lock().unwrap().take().unwrap())),
                _ => match request.into_body().collect().await {
                    Ok(body) => Body::from(format!("{path} {}", String::from_utf8_lossy(&body.to_bytes()))),
                    Err(_) => Body::from("broken"),
                },
            };
            self.finished.fetch_add(1, Ordering::Relaxed);
            Response::new(body)
        }
    }

    fn date(&self) -> [u8; 29] {
        *b"Sun, 06 Nov 1994 08:49:37 GMT"
    }
}

/// Serves `client` until it ends, while `script` runs; how it ended.
/// A client without a guard: nobody has looked at its heads.
impl Source for DuplexStream {
    fn poll_read_parts(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, _: &mut Parts) -> Poll<io::Result<()>> {
        Pin::new(self).poll_read(cx, buf)
    }
}

async fn served(answers: &Answers, script: impl AsyncFnOnce(DuplexStream)) -> End {
    let (client, mut ours) = duplex(64 * 1024);
    let serve = async {
        let end = serve(&mut ours, answers, pin!(pending())).await;
        drop(ours);
        end
    };
    tokio::join!(serve, script(client)).0
}

/// All that comes, without the dates.
async fn all(client: &mut DuplexStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text.replace(DATE, "")
}

/// What comes up to and including `end`, without the dates.
async fn until(client: &mut DuplexStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.push(client.read_u8().await.expect("more of an answer"));
    }
    String::from_utf8(text).unwrap().replace(DATE, "")
}

#[tokio::test]
async fn requests_are_answered_in_their_order_however_they_arrive() {
    let said = "GET /a HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
                POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n\
                GET /d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for size in [1, 7, said.len()] {
        let answers = Answers::default();
        served(&answers, async |mut client| {
            for piece in said.as_bytes().chunks(size) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut expected = String::new();
            for text in ["/a ", "/b hello", "/c hi!"] {
                expected += &format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
            }
            expected += "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\n/d ";
            assert_eq!(all(&mut client).await, expected, "{size}");
        })
        .await;
        assert_eq!(answers.calls.load(Ordering::Relaxed), 4);
    }
}

#[tokio::test]
async fn nothing_is_answered_behind_an_answer_that_closes() {
    let answers = Answers::default();
    served(&answers, async |mut client| {
        let said = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n";
        client.write_all(said.as_bytes()).await.unwrap();
        assert_eq!(all(&mut client).await.matches("HTTP/1.1 ").count(), 1);
    })
    .await;
    assert_eq!(answers.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn who_waits_for_100_gets_it_when_the_body_is_wanted_and_not_before() {
    let answers = Answers::default();
    let head = |path| format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    served(&answers, async |mut client| {
        client.write_all(head("/a").as_bytes()).await.unwrap();
        assert_eq!(until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"ok").await.unwrap();
        assert!(until(&mut client, "/a ok").await.starts_with("HTTP/1.1 200 OK\r\n"));
        client.write_all(head("/ignore").as_bytes()).await.unwrap();
        // The client still owes a body that nobody wants: the connection cannot stay.
        assert!(all(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"));
    })
    .await;
}

/// The client's window is so small that half of the 100 has to wait, and the answer comes before there is room.
#[tokio::test]
async fn a_100_that_has_begun_is_finished_before_the_answer() {
    let answers = Answers::default();
    let (mut ours, mut client) = duplex(10);
    let serving = async { drop(serve(&mut ours, &answers, pin!(pending::<()>())).await) };
    let asking = async {
        let head = b"POST /impatient HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
        client.write_all(head).await.unwrap();
        while answers.finished.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let seen = until(&mut client, "impatient").await;
        assert!(seen.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{seen}");
    };
    // It ends when the answer is out, since the client still owes a body.
    tokio::join!(serving, asking);
}

#[tokio::test]
async fn a_body_that_nobody_reads_does_not_cost_the_connection_when_it_is_there() {
    let answers = Answers::default();
    served(&answers, async |mut client| {
        let body = "x".repeat(20_000);
        let request = format!("POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        client
            .write_all((request + "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let seen = all(&mut client).await;
        assert!(seen.contains("ignored") && seen.ends_with("/next "), "{seen}");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_ends_what_is_done_for_it() {
    let answers = Answers::default();
    let end = served(&answers, async |mut client| {
        client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        while answers.calls.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(matches!(end, End::Gone), "{end:?}");
    assert_eq!(answers.finished.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_client_that_breaks_off_its_body_is_answered_once_and_not_again() {
    for said in ["Content-Length: 5\r\n\r\nhell", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let answers = Answers::default();
        served(&answers, async |mut client| {
            client.write_all(format!("POST /a HTTP/1.1\r\nHost: a\r\n{said}").as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            assert!(all(&mut client).await.ends_with("\r\n\r\nbroken"), "{said}");
        })
        .await;
    }
}

#[tokio::test]
async fn frames_go_out_as_they_come_and_a_body_that_fails_is_visibly_cut() {
    for version in ["1.1", "1.0"] {
        let answers = Answers::default();
        let (frames, receive) = tokio::sync::mpsc::unbounded_channel();
        *answers.frames.lock().unwrap() = Some(receive);
        served(&answers, async |mut client| {
            client.write_all(format!("GET /stream HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
            frames.send(Ok(Bytes::from_static(b"one"))).unwrap();
            let head = until(&mut client, "\r\n\r\n").await;
            assert_eq!(head.contains("transfer-encoding: chunked"), version == "1.1", "{head}");
            let seen = until(&mut client, if version == "1.1" { "3\r\none\r\n" } else { "one" }).await;
            frames.send(Ok(Bytes::from_static(b"two"))).unwrap();
            frames.send(Err("broken")).unwrap();
            let rest = all(&mut client).await;
            // What came before the break is there, and no end of a body behind it.
            assert_eq!(rest, if version == "1.1" { "3\r\ntwo\r\n" } else { "two" }, "{seen}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_body_of_another_length_than_it_said_ends_the_connection() {
    struct Lying;
    impl Service for Lying {
        type Body = Body;

        fn call(&self, _: Box<Request<Body>>, _: Verbatim) -> impl Future<Output = Response<Body>> {
            struct Short(bool);
            impl HttpBody for Short {
                type Data = Bytes;
                type Error = &'static str;

                fn poll_frame(
                    mut self: Pin<&mut Self>,
                    _: &mut Context<'_>,
                ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
                    let first = !std::mem::replace(&mut self.0, true);
                    Poll::Ready(first.then(|| Ok(Frame::data(Bytes::from_static(b"hello")))))
                }

                fn size_hint(&self) -> http_body::SizeHint {
                    http_body::SizeHint::with_exact(10)
                }
            }
            std::future::ready(Response::new(Body::boxed(Short(false))))
        }

        fn date(&self) -> [u8; 29] {
            *b"Sun, 06 Nov 1994 08:49:37 GMT"
        }
    }
    let (mut client, mut ours) = duplex(1024);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(matches!(serve(&mut ours, &Lying, pin!(pending())).await, End::Close));
    drop(ours);
    assert_eq!(all(&mut client).await, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello");
}

#[tokio::test]
async fn an_answer_goes_on_when_a_client_that_was_slow_reads_again() {
    let answers = Answers::default();
    let (frames, receive) = tokio::sync::mpsc::unbounded_channel();
    *answers.frames.lock().unwrap() = Some(receive);
    served(&answers, async |mut client| {
        client.write_all(b"GET /stream HTTP/1.0\r\n\r\n").await.unwrap();
        // More than the pipe holds, so that the server has to wait in the middle of a frame.
        for _ in 0..10 {
            frames.send(Ok(Bytes::from(vec![b'x'; 100_000]))).unwrap();
        }
        drop(frames);
        assert_eq!(all(&mut client).await.matches('x').count(), 1_000_000);
    })
    .await;
}
