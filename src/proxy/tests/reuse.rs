//! Connections: kept, replaced, never poisoned; and the choice of backends.

use futures_util::future::join_all;
use tokio::join;

use super::*;

/// Every request allocates room for this once. What is larger than a kilobyte takes the allocator's slow way, and each line of it
/// pushes another one out of the caches.
#[tokio::test]
async fn what_a_request_holds_while_it_is_under_way_is_small() {
    let server = Server::start().await;
    let size = size_of_val(&Gateway::before(&[&server]).forward(get()));
    assert!(size <= 960, "{size} bytes");
}

#[tokio::test]
async fn a_second_request_takes_the_connection_of_the_first() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]);
    let script = async {
        let mut peer = server.accept().await;
        let head = peer.serve(OK).await;
        peer.serve(OK).await;
        (head, peer)
    };
    let client = async {
        assert_eq!(whole(gateway.forward(get()).await).await, (StatusCode::OK, "ok".to_owned()));
        whole(gateway.forward(get()).await).await;
    };
    let ((head, _peer), ()) = join!(script, client);
    assert_eq!(head, "GET /a?b=c HTTP/1.1\r\nhost: shop\r\n\r\n");
    assert_eq!((gateway.connects(), gateway.idle(), gateway.in_flight()), (1, 1, 0));
}

#[tokio::test]
async fn connections_survive_a_reload_that_keeps_the_address() {
    let server = Server::start().await;
    let mut gateway = Gateway::before(&[&server]);
    let (mut peer, _) = join!(
        async {
            let mut peer = server.accept().await;
            peer.serve(OK).await;
            peer
        },
        async { whole(gateway.forward(get()).await).await }
    );
    gateway.upstream = Upstream::new(&gateway.section, &gateway.backends);
    join!(peer.serve(OK), async { whole(gateway.forward(get()).await).await });
    assert_eq!(gateway.connects(), 1);
}

/// A gateway with one idle connection, and the upstream's end of it.
async fn idle(server: &Server) -> (Gateway, Peer) {
    let gateway = Gateway::before(&[server]);
    let script = async {
        let mut peer = server.accept().await;
        peer.serve(OK).await;
        peer
    };
    let (peer, _) = join!(script, async { whole(gateway.forward(get()).await).await });
    assert_eq!(gateway.idle(), 1);
    (gateway, peer)
}

#[tokio::test]
async fn an_idle_connection_that_the_upstream_closed_is_dropped() {
    let server = Server::start().await;
    let (gateway, peer) = idle(&server).await;
    drop(peer);
    gateway.idle_becomes(0).await;
}

#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_is_closed() {
    let server = Server::start().await;
    let (gateway, mut peer) = idle(&server).await;
    let now = Instant::now();
    gateway.forwarder.pool.sweep(now + Duration::from_secs(59));
    assert_eq!(gateway.idle(), 1);
    gateway.forwarder.pool.sweep(now + Duration::from_secs(61));
    assert_eq!((gateway.idle(), peer.rest().await.as_str()), (0, ""));
}

#[tokio::test]
async fn a_post_is_sent_on_a_fresh_connection_when_the_idle_one_has_just_closed() {
    let server = Server::start().await;
    let (gateway, peer) = idle(&server).await;
    // The bell rings before the close, so this task runs before the connection's task has seen the close.
    let (bell, ring) = std::os::unix::net::UnixStream::pair().unwrap();
    bell.set_nonblocking(true).unwrap();
    let bell = tokio::net::UnixStream::from_std(bell).unwrap();
    let _ = bell.try_read(&mut [0]);
    tokio::task::yield_now().await;
    std::io::Write::write_all(&mut &ring, b"!").unwrap();
    socket2::SockRef::from(&peer.tcp).shutdown(std::net::Shutdown::Both).unwrap();
    let client = async {
        bell.readable().await.unwrap();
        assert_eq!(gateway.idle(), 1);
        whole(gateway.forward(post("body")).await).await
    };
    let script = async {
        let mut peer = server.accept().await;
        let head = peer.head().await;
        assert!(head.contains("content-length: 4\r\n"), "{head}");
        assert_eq!(peer.read(4).await, "body");
        peer.say(OK).await;
        peer
    };
    let (answer, _peer) = join!(client, script);
    assert_eq!(answer.0, StatusCode::OK);
    assert_eq!((gateway.connects(), gateway.upstream.backends()[0].counters().failures), (2, 0));
}

#[tokio::test]
async fn an_idempotent_request_is_repeated_once_when_a_reused_connection_closes_without_an_answer() {
    let server = Server::start().await;
    let (gateway, mut old) = idle(&server).await;
    let script = async {
        let first = old.head().await;
        drop(old);
        let mut fresh = server.accept().await;
        let second = fresh.head().await;
        drop(fresh);
        (first, second)
    };
    let ((first, second), answer) = join!(script, gateway.forward(get()));
    assert_eq!(first, second);
    assert!(matches!(answer, Err(Error::Closed(_))), "{answer:?}");
    assert_eq!(gateway.connects(), 2);
}

#[tokio::test]
async fn a_request_with_an_effect_or_a_body_is_not_repeated() {
    for request in [request(Method::POST, Body::empty()), request(Method::PUT, Body::from("x"))] {
        let server = Server::start().await;
        let (gateway, mut peer) = idle(&server).await;
        let script = async {
            peer.head().await;
            drop(peer);
        };
        let ((), answer) = join!(script, gateway.forward(request));
        assert!(matches!(answer, Err(Error::Closed(_))), "{answer:?}");
        assert_eq!((gateway.connects(), gateway.in_flight()), (1, 0));
    }
}

#[tokio::test]
async fn a_request_whose_answer_has_begun_is_not_repeated() {
    let server = Server::start().await;
    let (gateway, mut peer) = idle(&server).await;
    let script = async {
        peer.serve("HTTP/1.1 2").await;
        drop(peer);
    };
    let ((), answer) = join!(script, gateway.forward(get()));
    assert!(matches!(answer, Err(Error::Protocol(Violation::Malformed(_)))), "{answer:?}");
    assert_eq!(gateway.connects(), 1);
}

#[tokio::test]
async fn bytes_after_an_answer_never_reach_the_next_client() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let after = [
        ("GET", OK.to_owned() + evil),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n".to_owned() + evil),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_owned() + evil),
        ("HEAD", OK.to_owned()),
    ];
    for (method, said) in after {
        let server = Server::start().await;
        let gateway = Gateway::before(&[&server]);
        let script = async {
            let mut liar = server.accept().await;
            liar.serve(&said).await;
            let mut honest = server.accept().await;
            honest.serve(OK).await;
            (liar, honest)
        };
        let client = async {
            let method = method.parse().unwrap();
            let first = whole(gateway.forward(request(method, Body::empty())).await).await;
            let second = whole(gateway.forward(post("x")).await).await;
            (first.1, second.1)
        };
        let (_, (first, second)) = join!(script, client);
        assert!(["ok", ""].contains(&first.as_str()), "{first}");
        assert_eq!(second, "ok", "{said}");
    }
}

#[tokio::test]
async fn bytes_that_arrive_on_an_idle_connection_close_it() {
    let server = Server::start().await;
    let (gateway, mut peer) = idle(&server).await;
    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
    gateway.idle_becomes(0).await;
    assert_eq!(peer.rest().await, "");
}

#[tokio::test]
async fn what_the_runtime_has_not_seen_yet_spoils_no_request() {
    let stray = |peer: &Peer| {
        peer.tcp.try_write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").unwrap();
    };
    let close = |peer: &Peer| socket2::SockRef::from(&peer.tcp).shutdown(std::net::Shutdown::Both).unwrap();
    for spoil in [&stray as &dyn Fn(&Peer), &close] {
        let server = Server::start().await;
        let (gateway, peer) = idle(&server).await;
        // No await between this and the request: only the kernel knows.
        spoil(&peer);
        let script = async {
            server.accept().await.serve(OK).await;
            std::future::pending().await
        };
        let answer = tokio::select! {
            answer = gateway.forward(post("body")) => whole(answer).await,
            answer = script => answer,
        };
        assert_eq!(answer.1, "ok");
    }
}

#[tokio::test]
async fn an_upstream_that_speaks_http_1_0_gets_a_connection_for_each_request() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]);
    let script = async {
        server.accept().await.serve("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok").await;
    };
    let ((), answer) = join!(script, async { gateway.forward(get()).await.unwrap() });
    assert_eq!((answer.version(), gateway.idle()), (http::Version::HTTP_11, 0));
}

/// A server that answers whatever comes on whatever connection.
async fn answering(server: Server) {
    loop {
        let mut peer = server.accept().await;
        tokio::spawn(async move {
            while peer.tcp.readable().await.is_ok() && peer.tcp.peek(&mut [0]).await.is_ok_and(|n| n > 0) {
                peer.serve(OK).await;
            }
        });
    }
}

#[tokio::test]
async fn many_requests_at_once_are_all_answered_and_leave_reusable_connections() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]);
    let task = tokio::spawn(answering(server));
    for _ in 0..2 {
        let answers = join_all((0..64).map(|_| async { whole(gateway.forward(get()).await).await })).await;
        assert!(answers.iter().all(|answer| answer.1 == "ok"));
        assert_eq!((gateway.connects(), gateway.idle(), gateway.in_flight()), (64, 64, 0));
    }
    task.abort();
}

#[tokio::test]
async fn every_backend_gets_its_share() {
    for balance in [section::Balance::RoundRobin, section::Balance::P2c] {
        let servers = [Server::start().await, Server::start().await, Server::start().await];
        let gateway = Gateway::balancing(balance, servers.iter().map(Server::section).collect());
        let tasks = servers.map(|server| tokio::spawn(answering(server)));
        for _ in 0..60 {
            whole(gateway.forward(get()).await).await;
        }
        for backend in gateway.upstream.backends() {
            assert!((10..=30).contains(&backend.counters().requests), "{balance:?} {:?}", backend.counters());
        }
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[tokio::test]
async fn a_refused_connection_is_an_error_at_once_and_another_backend_takes_over() {
    let dead = Server::start().await.section();
    let gateway = Gateway::balancing(section::Balance::RoundRobin, vec![dead.clone()]);
    let answer = gateway.forward(get()).await;
    assert!(matches!(answer, Err(Error::Connect(_))), "{answer:?}");
    assert_eq!(gateway.upstream.backends()[0].counters().failures, 1);

    let alive = Server::start().await;
    let gateway = Gateway::balancing(section::Balance::RoundRobin, vec![dead, alive.section()]);
    let task = tokio::spawn(answering(alive));
    for _ in 0..4 {
        assert_eq!(whole(gateway.forward(post("x")).await).await.1, "ok");
    }
    task.abort();
}
