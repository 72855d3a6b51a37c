//! What comes back: relayed whole, broken visibly, or refused.

use tokio::join;

use super::*;

/// The answer to `request` from an upstream that says `said` and then closes.
async fn answer_to(request: Request<Body>, said: &str) -> Result<Response<Body>, Error> {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]);
    let script = async { server.accept().await.serve(said).await };
    join!(script, gateway.forward(request)).1
}

#[tokio::test]
async fn an_answer_cut_short_is_a_broken_body_not_a_complete_one() {
    for said in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nwor",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ] {
        let error = broken(answer_to(get(), said).await).await;
        assert!(matches!(error, Error::ResponseBodyBroken(_)), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_framing_is_refused_and_its_connection_closed() {
    for said in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ] {
        let server = Server::start().await;
        let gateway = Gateway::before(&[&server]);
        let script = async {
            let mut peer = server.accept().await;
            peer.serve(said).await;
            peer.rest().await
        };
        let (rest, answer) = join!(script, gateway.forward(get()));
        assert!(matches!(answer, Err(Error::Protocol(_))), "{said}: {answer:?}");
        assert_eq!((rest.as_str(), gateway.idle(), gateway.in_flight()), ("", 0, 0));
    }
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let (head, _) = answer_to(request(Method::HEAD, Body::empty()), OK).await.unwrap().into_parts();
    assert_eq!(head.headers["content-length"], "2");
    for status in ["204 No Content", "304 Not Modified"] {
        let answer = answer_to(get(), &format!("HTTP/1.1 {status}\r\nETag: \"1\"\r\n\r\n")).await.unwrap();
        assert!(http_body::Body::is_end_stream(answer.body()), "{status}");
    }
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let said = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{OK}");
    assert_eq!(whole(answer_to(get(), &said).await).await, (StatusCode::OK, "ok".to_owned()));
}

#[tokio::test]
async fn an_answer_without_a_length_ends_with_its_connection() {
    assert_eq!(whole(answer_to(get(), "HTTP/1.1 200 OK\r\n\r\nall of it").await).await.1, "all of it");
}

#[tokio::test]
async fn a_small_answer_is_whole_at_once_and_headers_of_the_connection_stay_behind() {
    let said = "HTTP/1.1 200 OK\r\nConnection: x-private\r\nX-Private: 1\r\nX_Wxgate_Token: forged\r\nKeep-Alive: timeout=5\r\n\
                Content-Length: 2\r\n\r\nok";
    let answer = answer_to(get(), said).await.unwrap();
    assert_eq!(format!("{:?}", answer.body()), "Body(full)");
    let names: Vec<_> = answer.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["content-length"]);
}

#[tokio::test]
async fn trailers_of_an_answer_are_dropped() {
    let said = "HTTP/1.1 200 OK\r\nTrailer: x-a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-a: 1\r\n\r\n";
    let collected = answer_to(get(), said).await.unwrap().into_body().collect().await.unwrap();
    assert!(collected.trailers().is_none());
    assert_eq!(collected.to_bytes(), "ok");
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_is_given_up() {
    let server = Server::start().await;
    let mut gateway = Gateway::before(&[&server]);
    gateway.limits.response_head = Duration::from_millis(30);
    for request in [get(), post("x")] {
        let script = async {
            let mut peer = server.accept().await;
            peer.head().await;
            peer.rest().await
        };
        let (_, answer) = join!(script, gateway.forward(request));
        assert!(matches!(answer, Err(Error::ResponseHeadTimeout)), "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_that_falls_silent_is_given_up() {
    let server = Server::start().await;
    let mut gateway = Gateway::before(&[&server]);
    gateway.limits.idle = Duration::from_millis(30);
    let script = async {
        let mut peer = server.accept().await;
        peer.serve("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await;
        peer.rest().await
    };
    let (_, error) = join!(script, async { broken(gateway.forward(get()).await).await });
    assert!(matches!(error, Error::ResponseBodyIdle), "{error:?}");
}

#[tokio::test]
async fn the_total_limit_ends_an_exchange_before_or_after_the_head() {
    for said in ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"] {
        let server = Server::start().await;
        let mut gateway = Gateway::before(&[&server]);
        gateway.limits.total = Some(Duration::from_millis(50));
        let script = async {
            let mut peer = server.accept().await;
            peer.serve(said).await;
            peer.rest().await
        };
        let client = async {
            match gateway.forward(get()).await {
                Err(error) => error,
                answer => broken(answer).await,
            }
        };
        let (_, error) = join!(script, client);
        assert!(matches!(error, Error::TotalTimeout), "{error:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_closes_the_upstreams_connection() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]);
    let script = async {
        let mut peer = server.accept().await;
        peer.serve("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await;
        peer.rest().await
    };
    let client = async { drop(gateway.forward(get()).await) };
    join!(script, client);
    assert_eq!((gateway.idle(), gateway.in_flight()), (0, 0));
}
