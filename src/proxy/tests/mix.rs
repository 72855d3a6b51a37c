//! Many clients at once before an upstream that misbehaves in every way: no byte of one exchange ends in another.

use futures_util::future::join_all;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::join;

use super::*;

/// Answers each request with its own path, HEAD too with a body, and does beside it what the path's number says: extra
/// bytes at once or, where `late`, after the answer; a cut body, no answer, a close; an answer before the request's end.
async fn unruly(server: Server, late: bool) {
    loop {
        let mut peer = server.accept().await;
        tokio::spawn(async move {
            while peer.tcp.readable().await.is_ok() && peer.tcp.peek(&mut [0]).await.is_ok_and(|n| n > 0) {
                let head = peer.head().await;
                let path = head.split(' ').nth(1).unwrap().to_owned();
                let evil = format!("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nevil{:4}", &path[1..]);
                let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
                let n: usize = path[1..].parse().unwrap();
                if head.starts_with("POST") && n % 8 != 6 && peer.tcp.read_exact(&mut [0; 4]).await.is_err() {
                    return;
                }
                let said = match n % 8 {
                    1 => whole + &evil,
                    2 if late => {
                        let _ = peer.tcp.write_all(whole.as_bytes()).await;
                        tokio::task::yield_now().await;
                        evil
                    }
                    3 => whole[..whole.len() - 1].to_owned(),
                    4 => String::new(),
                    _ => whole,
                };
                let _ = peer.tcp.write_all(said.as_bytes()).await;
                if matches!(n % 8, 3..=5) {
                    return;
                }
            }
        });
    }
}

/// The answers that were whole, out of 800.
async fn whole_answers(late: bool) -> usize {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]);
    let upstream = tokio::spawn(unruly(server, late));
    let exchange = |n: usize| {
        let method = [Method::GET, Method::HEAD, Method::POST][n / 8 % 3].clone();
        let body = if method == Method::POST { Body::from("body") } else { Body::empty() };
        let request = Request::builder().method(method.clone()).uri(format!("/{n}")).body(body).unwrap();
        let answer = gateway.forward(request);
        tokio::spawn(async move {
            let Ok(answer) = answer.await else { return 0 };
            let Ok(body) = answer.into_body().collect().await else { return 0 };
            let wanted = if method == Method::HEAD { String::new() } else { format!("/{n}") };
            assert_eq!(body.to_bytes(), wanted);
            1
        })
    };
    let mut whole = 0;
    for round in 0..25 {
        let answers = join_all((round * 32..round * 32 + 32).map(exchange)).await;
        whole += answers.into_iter().map(Result::unwrap).sum::<usize>();
    }
    assert_eq!(gateway.in_flight(), 0);
    upstream.abort();
    whole
}

#[tokio::test]
async fn every_client_gets_its_own_answer_or_an_error() {
    assert!(whole_answers(true).await > 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_gets_its_own_answer_or_an_error_on_several_threads_too() {
    // Not `late`: bytes that come after the next request was sent are its answer as far as HTTP/1.1 can tell.
    assert!(whole_answers(false).await > 400);
}

/// A client's socket, served by hyper with the proxy behind it, which tells what became of the exchange.
async fn served(gateway: &Gateway, said: &str, script: impl Future<Output = ()>) -> (String, Option<Error>) {
    let front = Server::start().await;
    let mut client = TcpStream::connect(front.listener.local_addr().unwrap()).await.unwrap();
    let io = TokioIo::new(front.accept().await.tcp);
    let failed = std::sync::Mutex::new(None);
    let service = service_fn(|request: Request<hyper::body::Incoming>| async {
        match gateway.forward(request.map(Body::from)).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                *failed.lock().unwrap() = Some(error);
                Err("no answer")
            }
        }
    });
    let seen = async {
        client.write_all(said.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut seen = Vec::new();
        let _ = client.read_to_end(&mut seen).await;
        String::from_utf8(seen).unwrap()
    };
    let mut server = hyper::server::conn::http1::Builder::new();
    let connection = server.half_close(true).serve_connection(io, service);
    let (seen, (), _) = join!(seen, script, connection);
    (seen, failed.into_inner().unwrap())
}

#[tokio::test]
async fn a_client_can_tell_that_an_answer_is_not_whole() {
    for (framing, body) in
        [("Content-Length: 10", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n"), ("X-None: 1", "all")]
    {
        let server = Server::start().await;
        let gateway = Gateway::before(&[&server]);
        let script = async {
            server.accept().await.serve(&format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}")).await;
        };
        let (seen, _) = served(&gateway, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", script).await;
        match framing {
            "X-None: 1" => assert!(seen.ends_with("3\r\nall\r\n0\r\n\r\n"), "{seen}"),
            "Content-Length: 10" => assert!(seen.contains("content-length: 10\r\n") && !seen.ends_with("world")),
            _ => assert!(seen.contains("chunked") && !seen.ends_with("0\r\n\r\n"), "{seen}"),
        }
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_its_upload_is_at_fault() {
    for said in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let server = Server::start().await;
        let gateway = Gateway::before(&[&server]);
        let script = async {
            let seen = server.accept().await.rest().await;
            assert!(!seen.ends_with("0\r\n\r\n"), "{seen}");
        };
        let (_, error) = served(&gateway, &format!("POST / HTTP/1.1\r\nHost: a\r\n{said}"), script).await;
        assert_eq!(error.map(|error| error.fault()), Some(Fault::Downstream), "{said}");
    }
}
