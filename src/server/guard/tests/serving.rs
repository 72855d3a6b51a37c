//! HTTP behind the guard: which requests a service sees, and what a client reads.

use std::future::pending;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Mutex;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::super::*;
use super::mutation::{Reader, bent};
use super::support::{Flag, LIMITS, pass, split_stand_in};
use crate::body::Body;
use crate::http1::verbatim::Verbatim;
use crate::server::http1::{self, End, Service};

/// The requests that a service saw: method, target, and body when it was whole.
type Log = Rc<Mutex<Vec<(String, Option<Vec<u8>>)>>>;

/// Answers 200, or 400 for a broken body and a stand-in, a moment later.
struct Answers {
    flag: Flag,
    log: Log,
}

impl Service for Answers {
    type Body = Body;

    fn call(&self, request: Box<Request<Body>>, _: Verbatim) -> impl Future<Output = Response<Body>> {
        let (flag, log) = (self.flag.clone(), Rc::clone(&self.log));
        Box::pin(async move {
            let target = format!("{} {}", request.method(), request.uri());
            let stand_in = request.uri().scheme_str() == Some("wxgate");
            tokio::task::yield_now().await;
            let body = request.into_body().collect().await.ok().map(|body| body.to_bytes().to_vec());
            let status = if stand_in || body.is_none() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
            log.lock().unwrap().push((target, body));
            flag.answered();
            Response::builder().status(status).body(Body::from("answer")).unwrap()
        })
    }

    fn date(&self) -> [u8; 29] {
        *b"Sun, 06 Nov 1994 08:49:37 GMT"
    }
}

/// Serves until the connection ends.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, log: &Log) {
    let answers = Answers { flag: Flag::default(), log: Rc::clone(log) };
    let mut guard = Guard::new(stream, LIMITS, answers.flag.clone());
    let end = http1::serve(&mut guard, &answers, pin!(pending())).await;
    if matches!(end, End::Close) {
        let _ = guard.shutdown().await;
    }
}

/// Sends `raw` over a real socket and keeps it open. Returns what the service saw and the statuses that came back before
/// the server closed.
async fn over_a_socket(raw: &[u8]) -> (Vec<(String, Option<Vec<u8>>)>, Vec<u16>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let log = Log::default();
    client.write_all(raw).await.unwrap();
    let mut answers = Vec::new();
    let read = async {
        let outcome = timeout(Duration::from_secs(5), client.read_to_end(&mut answers)).await;
        drop(client);
        outcome
    };
    let (closed, ()) = tokio::join!(read, serve(stream, &log));
    closed
        .expect("the connection is closed")
        .expect("gently: what the client sent after the fault does not cost it the answer");
    let log = log.lock().unwrap().clone();
    (log, statuses(&answers))
}

fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answers);
    text.match_indices("HTTP/1.").map(|(at, found)| text[at + found.len() + 2..][..3].parse().unwrap()).collect()
}

fn refused(code: &str) -> (String, Option<Vec<u8>>) {
    (format!("GET wxgate://refused/{code}"), Some(Vec::new()))
}

#[tokio::test]
async fn no_request_is_seen_in_a_refused_head_and_the_connection_closes() {
    let hidden = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    for (head, code) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "invalid_request",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
            "invalid_request",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 33\r\n\r\n", "invalid_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\nContent-Length: 33\r\n\r\n", "invalid_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +33\r\n\r\n", "invalid_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 33\r\n\r\n", "invalid_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "invalid_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "not_implemented"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "not_implemented"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", "not_implemented"),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "invalid_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\nContent-Length: 33\r\n\r\n", "invalid_request"),
        ("GET / HTTP/1.1\nHost: a\n\n", "invalid_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", "invalid_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "invalid_request"),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "invalid_request"),
        ("GET /\r\n\r\n", "invalid_request"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "not_implemented"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "version_not_supported"),
        ("GET wxgate://refused/x HTTP/1.1\r\nHost: refused\r\n\r\n", "invalid_request"),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "invalid_request"),
        ("GET /? HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n", "invalid_request"),
    ] {
        let raw = format!("{head}{hidden}");
        assert_eq!(over_a_socket(raw.as_bytes()).await, (vec![refused(code)], vec![400]), "{head:?}");
        // Behind a request that is right, which keeps its answer.
        let raw = format!("GET /first HTTP/1.1\r\nHost: a\r\n\r\n{head}{hidden}");
        let (seen, statuses) = over_a_socket(raw.as_bytes()).await;
        assert_eq!(seen, [("GET /first".to_owned(), Some(Vec::new())), refused(code)], "{head:?}");
        assert_eq!(statuses, [200, 400], "{head:?}");
    }
}

#[tokio::test]
async fn one_request_is_seen_broken_off_where_its_body_breaks_and_the_connection_closes() {
    let hidden = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    for body in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5;\nx\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "0\r\n\n",
        "0\n\r\n",
        "0\r\nX: y\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
    ] {
        let raw = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}{hidden}");
        assert_eq!(over_a_socket(raw.as_bytes()).await, (vec![("POST /".to_owned(), None)], vec![400]), "{body:?}");
    }
}

#[tokio::test]
async fn what_looks_like_a_request_inside_a_body_is_data() {
    let hidden = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for framed in [
        format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()),
        format!("Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Expect: 100-continue\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
    ] {
        let (seen, statuses) = over_a_socket(format!("POST / HTTP/1.1\r\nHost: a\r\n{framed}{last}").as_bytes()).await;
        let data = Some(hidden.as_bytes().to_vec());
        assert_eq!(seen, [("POST /".to_owned(), data), ("GET /last".to_owned(), Some(Vec::new()))], "{framed:?}");
        assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// hyper sees what an independent reader finds in the bytes that passed, and the stand-in.
    #[test]
    fn hyper_reads_what_the_guard_lets_pass_as_others_do(data in bent()) {
        let seen = pass([data.clone()], 8192);
        let (passed, refusal) = split_stand_in(&seen.bytes);
        let mut expected = Reader { length_wins: false, lenient: false }.read(passed).unwrap();
        let closed = expected.iter().position(|request| request.last);
        expected.truncate(closed.map_or(expected.len(), |at| at + 1));
        let broken = expected.last().is_some_and(|request| request.body.is_none());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let log = Log::default();
        let answers = runtime.block_on(async {
            let (mut client, stream) = duplex(64 * 1024);
            client.write_all(&data).await.unwrap();
            let mut answers = Vec::new();
            let client = async {
                // Time passes only when all is said.
                tokio::time::sleep(Duration::from_millis(1)).await;
                if broken {
                    client.shutdown().await.unwrap();
                }
                client.read_to_end(&mut answers).await.unwrap();
            };
            tokio::join!(client, serve(stream, &log));
            answers
        });
        let mut seen = log.lock().unwrap().clone();
        let statuses: Vec<_> = statuses(&answers).into_iter().filter(|&status| status != 100).collect();
        prop_assert_eq!(statuses.len(), seen.len());
        if let (Some(refusal), None) = (refusal, closed) {
            let target = refusal.stand_in()[4..].split(|&b| b == b' ').next().unwrap();
            let stand_in = seen.pop().unwrap().0;
            prop_assert_eq!(stand_in.as_bytes(), [b"GET ", target].concat());
            prop_assert_eq!(statuses.last(), Some(&400));
        } else if let Some((target, body)) = seen.last()
            && target == "GET wxgate://refused/request_timeout"
        {
            // A head that never ended.
            prop_assert!(body.is_some() && closed.is_none());
            seen.pop();
        }
        let targets: Vec<_> = seen.iter().map(|(target, _)| target.split(' ').next_back().unwrap().trim_end_matches('/')).collect();
        let bodies: Vec<_> = seen.iter().map(|(_, body)| body.clone()).collect();
        prop_assert_eq!(targets, expected.iter().map(|r| r.target.trim_end_matches('/')).collect::<Vec<_>>());
        prop_assert_eq!(bodies, expected.iter().map(|r| r.body.clone()).collect::<Vec<_>>());
    }
}
