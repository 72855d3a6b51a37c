//! The client's body: limited, watched, broken visibly when it breaks.

use http::HeaderMap;
use tokio::join;

use super::*;

#[tokio::test]
async fn a_body_stated_too_large_is_refused_before_anything_is_sent() {
    let server = Server::start().await;
    let mut gateway = Gateway::before(&[&server]);
    gateway.limits.max_body = 3;
    let answer = gateway.forward(post("four")).await;
    assert!(matches!(answer, Err(Error::RequestBodyTooLarge)), "{answer:?}");
    assert_eq!(gateway.connects(), 0);
}

/// What the upstream sees of an upload, and what the client is told, when `frames` are sent and the body stays open.
async fn failing(limits: impl FnOnce(&mut Limits), frames: Vec<Result<Frame<Bytes>, &'static str>>) -> (String, Error) {
    let server = Server::start().await;
    let mut gateway = Gateway::before(&[&server]);
    limits(&mut gateway.limits);
    let (send, body) = streamed();
    for frame in frames {
        send.send(frame).unwrap();
    }
    let script = async {
        let mut peer = server.accept().await;
        peer.rest().await
    };
    let (seen, answer) = join!(script, gateway.forward(request(Method::POST, body)));
    assert_eq!((gateway.idle(), gateway.in_flight()), (0, 0));
    assert!(!seen.ends_with("0\r\n\r\n"), "the upstream took a broken body for a whole one: {seen}");
    (seen, answer.unwrap_err())
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_broken_off() {
    let (_, error) = failing(|limits| limits.max_body = 6, vec![data("four"), data("more")]).await;
    assert!(matches!(error, Error::RequestBodyTooLarge), "{error:?}");
}

#[tokio::test]
async fn a_body_that_the_client_breaks_off_is_broken_off() {
    let (_, error) = failing(|_| (), vec![data("four"), Err("reset")]).await;
    assert!(matches!(error, Error::RequestBodyAborted(_)), "{error:?}");
}

#[tokio::test]
async fn a_silent_client_is_told_apart_from_a_slow_upstream() {
    let limits = |limits: &mut Limits| {
        limits.idle = Duration::from_millis(80);
        limits.response_head = Duration::from_millis(10);
    };
    let (seen, error) = failing(limits, vec![data("four")]).await;
    assert!(matches!(error, Error::RequestBodyIdle), "{error:?}");
    assert!(seen.ends_with("4\r\nfour\r\n"), "{seen}");
}

#[tokio::test]
async fn a_body_of_unknown_length_is_sent_chunked_and_without_trailers() {
    for method in [Method::POST, Method::GET] {
        let server = Server::start().await;
        let gateway = Gateway::before(&[&server]);
        let (send, body) = streamed();
        send.send(data("four")).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-wx-openid", "evil".parse().unwrap());
        send.send(Ok(Frame::trailers(trailers))).unwrap();
        drop(send);
        let script = async {
            let mut peer = server.accept().await;
            let head = peer.head().await;
            let body = peer.read("4\r\nfour\r\n0\r\n\r\n".len()).await;
            peer.say(OK).await;
            (head, body, peer)
        };
        let ((head, body, _peer), answer) = join!(script, gateway.forward(request(method, body)));
        assert!(head.contains("transfer-encoding: chunked\r\n") && !head.contains("content-length"), "{head}");
        assert_eq!(body, "4\r\nfour\r\n0\r\n\r\n");
        assert_eq!(whole(answer).await.1, "ok");
        assert_eq!(gateway.idle(), 1);
    }
}

#[tokio::test]
async fn an_early_answer_is_relayed_and_ends_the_upload() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]);
    let (send, body) = streamed();
    send.send(data("four")).unwrap();
    let script = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
        peer.rest().await
    };
    let (seen, answer) = join!(script, gateway.forward(request(Method::POST, body)));
    assert_eq!(whole(answer).await, (StatusCode::FORBIDDEN, "no".to_owned()));
    assert_eq!(seen, "4\r\nfour\r\n");
    assert!(send.is_closed());
    assert_eq!(gateway.idle(), 0);
}

#[tokio::test]
async fn an_upload_goes_on_while_its_answer_already_flows() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]);
    let (send, body) = streamed();
    send.send(data("a")).unwrap();
    let script = async {
        let mut peer = server.accept().await;
        peer.serve("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1").await;
        peer.read("1\r\na\r\n1\r\nb\r\n0\r\n\r\n".len()).await;
        peer.say("2").await;
        peer
    };
    let client = async {
        let answer = gateway.forward(request(Method::POST, body)).await;
        send.send(data("b")).unwrap();
        drop(send);
        whole(answer).await.1
    };
    let (_peer, text) = join!(script, client);
    assert_eq!(text, "12");
    assert_eq!(gateway.idle(), 1);
}

#[tokio::test]
async fn an_upload_that_fails_under_its_answer_breaks_the_answer_with_its_own_reason() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]);
    let (send, body) = streamed();
    send.send(data("a")).unwrap();
    let script = async {
        let mut peer = server.accept().await;
        peer.serve("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1").await;
        peer.rest().await
    };
    let client = async {
        let answer = gateway.forward(request(Method::POST, body)).await;
        send.send(Err("reset")).unwrap();
        broken(answer).await
    };
    let (_, error) = join!(script, client);
    assert!(matches!(error, Error::RequestBodyAborted(_)), "{error:?}");
}

#[tokio::test]
async fn the_answer_of_an_upstream_that_closes_on_an_upload_is_not_lost() {
    let server = Server::start().await;
    let mut gateway = Gateway::before(&[&server]);
    gateway.limits.max_body = u64::MAX;
    let (send, body) = streamed();
    let script = async {
        let mut peer = server.accept().await;
        peer.head().await;
        // More than the sockets' buffers hold, and never read: the close resets the connection.
        let megabyte = Bytes::from(vec![b'x'; 1 << 20]);
        for _ in 0..32 {
            send.send(Ok(Frame::data(megabyte.clone()))).unwrap();
        }
        peer.tcp.readable().await.unwrap();
        peer.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno").await;
    };
    let ((), answer) = join!(script, gateway.forward(request(Method::POST, body)));
    assert_eq!(whole(answer).await, (StatusCode::PAYLOAD_TOO_LARGE, "no".to_owned()));
    assert_eq!(gateway.idle(), 0);
}
