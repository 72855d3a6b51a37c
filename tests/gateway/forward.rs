//! What goes to an upstream and what comes back: headers, bodies as they flow, upstreams that are late, lie or die.

use crate::support::gateway::{Gateway, ROUTES};
use crate::support::http1::Broken;
use crate::support::raw::{Client, exchange};
use crate::support::upstream::{After, Request, Upstream};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
}

/// A gateway whose public routes lead to this service, with these lines in the route.
async fn in_front_of(service: &str, lines: &str) -> Gateway {
    Gateway::with(&format!(
        "[[upstream]]\nname = \"service\"\nservers = [\"{service}\"]\nconnect_timeout = \"1s\"\n\
         [[route]]\npath = \"/*\"\nupstream = \"service\"\nauth = \"none\"\n{lines}\n\
         [[route]]\npath = \"/echo/*\"\nupstream = \"echo\"\nauth = \"none\"\n"
    ))
    .await
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_about_the_client() {
    let gateway = Gateway::with(&format!("server.trusted_proxies = [\"127.0.0.0/8\"]\n{ROUTES}")).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = format!(
        "GET /public/x HTTP/1.1\r\nHost: inner\r\nX-Forwarded-For: 6.6.6.6, 203.0.113.7, 127.0.0.9\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: api.example.com\r\nX-Request-Id: edge-1\r\ntraceparent: {trace}\r\ntracestate: a=b\r\n\
         Forwarded: for=6.6.6.6\r\nVia: 1.1 edge\r\nX-Real-IP: 6.6.6.6\r\n\r\n"
    );
    let answer = exchange(gateway.address(), request).await.unwrap();
    assert_eq!(answer.status, 200);
    let arrived = &gateway.upstream.requests()[0];
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.7, 127.0.0.9, 127.0.0.1"),
        ("x-original-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "api.example.com"),
        ("forwarded", "for=203.0.113.7;host=\"api.example.com\";proto=https"),
        ("x-request-id", "edge-1"),
        ("traceparent", trace),
        ("tracestate", "a=b"),
        ("via", "1.1 wxgate"),
        ("host", "inner"),
    ] {
        assert_eq!(arrived.all(name), [value], "{name}");
    }
    assert!(arrived.all("x-real-ip").is_empty());
}

#[tokio::test]
async fn a_peer_outside_the_trusted_networks_is_a_stranger() {
    let gateway = Gateway::with(&format!("server.trusted_proxies = [\"10.0.0.0/8\"]\n{ROUTES}")).await;
    let request = "GET /public/x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Request-Id: mine\r\n\
                   traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";
    exchange(gateway.address(), request).await.unwrap();
    let arrived = &gateway.upstream.requests()[0];
    assert_eq!((arrived.all("x-forwarded-for"), arrived.all("x-forwarded-proto")), (vec!["127.0.0.1"], vec!["http"]));
    let id = arrived.all("x-request-id")[0];
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert_eq!(arrived.all("traceparent"), [format!("00-{id}-{}-00", &id[16..])]);
}

#[tokio::test]
async fn each_request_has_an_id_that_its_problem_and_the_log_share() {
    let gateway = Gateway::start().await;
    let problem = exchange(gateway.address(), get("/api/x")).await.unwrap().json();
    let id = problem["instance"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 32);
    exchange(gateway.address(), get("/public/x")).await.unwrap();
    assert_ne!(gateway.upstream.requests()[0].all("x-request-id"), [id.as_str()]);
    gateway.log.until_line(|line| line["id"] == id.as_str()).await;
}

#[tokio::test]
async fn headers_of_one_connection_do_not_cross_the_gateway() {
    let answer = "HTTP/1.1 200 Fine\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n\
                  Upgrade: h2c\r\nTrailer: X-Sum\r\nX-Kept: a\r\nX-Kept: b\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nTransfer-Encoding: chunked\r\n\r\n\
                  2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n";
    let service = Upstream::scripted([(answer, After::KeepOpen)]).await;
    let gateway = in_front_of(&service.url(), "").await;
    let request = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: Basic eA==\r\n\
                   Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Other: 1\r\nAccept: */*\r\n\r\n";
    let answer = exchange(gateway.address(), request).await.unwrap();
    assert_eq!(
        (answer.text(), answer.headers.all("x-kept"), answer.headers.all("set-cookie")),
        ("ok", vec!["a", "b"], vec!["a=1", "b=2"])
    );
    for name in ["connection", "x-private", "keep-alive", "proxy-authenticate", "upgrade", "trailer"] {
        assert_eq!(answer.headers.get(name), None, "{name}");
    }
    assert!(answer.trailers.0.is_empty());
    let arrived = &service.requests()[0];
    for name in ["connection", "x-mine", "keep-alive", "te", "proxy-authorization", "proxy-connection", "upgrade"] {
        assert!(arrived.all(name).is_empty(), "{name}");
    }
    assert_eq!((arrived.all("x-other"), arrived.all("accept")), (vec!["1"], vec!["*/*"]));
}

#[tokio::test]
async fn a_token_is_forwarded_only_where_the_route_says_so() {
    let routes = "[[route]]\npath = \"/kept/*\"\nupstream = \"echo\"\nforward_token = true\n\
                  [[route]]\npath = \"/open/*\"\nupstream = \"echo\"\nauth = \"none\"\nforward_token = true\n";
    let gateway = Gateway::with(&format!("{ROUTES}{routes}")).await;
    let alice = gateway.login("alice").await;
    let bearer = format!("Bearer {}", alice.token());
    for (path, authorization, arrives) in [
        ("/api/x", bearer.as_str(), vec![]),
        ("/optional/x", &bearer, vec![]),
        ("/optional/x", "Basic eDp5", vec![]),
        ("/public/x", &bearer, vec![]),
        ("/public/x", "Basic eDp5", vec![]),
        ("/kept/x", &bearer, vec![bearer.as_str()]),
        ("/open/x", "Basic eDp5", vec!["Basic eDp5"]),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n");
        assert_eq!(exchange(gateway.address(), request).await.unwrap().status, 200, "{path}");
        assert_eq!(gateway.upstream.requests().last().unwrap().all("authorization"), arrives, "{path} {authorization}");
    }
}

#[tokio::test]
async fn an_answer_flows_as_it_comes() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send(get("/public/drip")).await;
    // Before the service has said its last word.
    let mut seen = Vec::new();
    while !seen.ends_with(b"first\r\n") {
        seen.extend(client.bytes(1).await.unwrap());
    }
    gateway.upstream.release(1);
    assert_eq!(client.bytes(14).await.unwrap(), b"4\r\nlast\r\n0\r\n\r\n");
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_in_order() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send(get("/public/stream/100000").replace("GET", "HEAD")).await;
    let head = client.response_to_head().await.unwrap();
    assert_eq!((head.status, head.headers.get("content-length")), (200, Some("100000")));
    client.send(get("/public/chunked/10").replace("GET", "HEAD")).await;
    assert_eq!(client.response_to_head().await.unwrap().status, 200);
    for status in [204, 304] {
        client.send(get(&format!("/public/status/{status}"))).await;
        let answer = client.response().await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
    client.send(get("/public/status/418")).await;
    assert_eq!(client.response().await.unwrap().status, 418);
    client.send(get("/public/stream/0")).await;
    assert_eq!(client.response().await.unwrap().headers.get("content-length"), Some("0"));
    client.send(get("/public/chunked/3000000")).await;
    assert_eq!(client.response().await.unwrap().body.len(), 3_000_000);
}

#[tokio::test]
async fn every_method_and_body_arrives_as_it_was_sent() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "X-OWN"] {
        for body in ["", "hi", &"x".repeat(100_000)] {
            client
                .send(format!("{method} /public/a HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
                .await;
            let echoed = client.response().await.unwrap().json();
            assert_eq!(echoed["request_line"], format!("{method} /public/a HTTP/1.1"));
            assert_eq!(echoed["body_length"], body.len(), "{method}");
        }
        client
            .send(format!(
                "{method} /public/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            ))
            .await;
        assert_eq!(client.response().await.unwrap().json()["body"], "hello", "{method}");
    }
}

#[tokio::test]
async fn a_service_that_is_down_is_503_and_nothing_of_the_inside_is_told() {
    let closed = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap()
    };
    let gateway = in_front_of(&format!("http://{closed}"), "").await;
    let answer = exchange(gateway.address(), get("/x")).await.unwrap();
    assert_eq!((answer.status, &answer.json()["code"]), (503, &"upstream_unavailable".into()));
    assert_eq!(answer.headers.get("retry-after"), Some("1"));
    let said = format!("{:?} {}", answer.headers, answer.text());
    for inside in [closed.to_string().as_str(), "service", "refused", "os error", "hyper", "/x"] {
        assert!(!answer.text().contains(inside) || inside == "service", "{inside}: {said}");
    }
    assert!(!said.contains(&closed.port().to_string()), "{said}");
}

#[tokio::test]
async fn own_answers_name_no_product_and_allow_no_foreign_page() {
    let gateway = Gateway::start().await;
    for request in [
        get("/healthz"),
        get("/api/x"),
        get("/nothing"),
        get("/auth/me"),
        get("/.well-known/jwks.json"),
        "BAD\r\n\r\n".into(),
    ] {
        let request = request.replace("\r\n\r\n", "\r\nOrigin: https://evil.example\r\nCookie: a=b\r\n\r\n");
        let answer = exchange(gateway.address(), request).await.unwrap();
        for name in ["server", "x-powered-by", "via", "access-control-allow-origin", "access-control-allow-credentials"]
        {
            assert_eq!(answer.headers.get(name), None);
        }
    }
}

#[tokio::test]
async fn a_service_that_does_not_answer_in_time_is_504() {
    for lines in ["timeout = \"300ms\"", "total_timeout = \"300ms\""] {
        let service = Upstream::echo().await;
        let gateway = in_front_of(&service.url(), lines).await;
        let mut client = Client::connect(gateway.address()).await;
        client.send(get("/hold")).await;
        assert_eq!(client.response().await.unwrap().json()["code"], "upstream_timeout", "{lines}");
        client.send(get("/echo/x")).await;
        assert_eq!(client.response().await.unwrap().status, 200, "the client's connection lives on");
        client.send(get("/next")).await;
        let next = client.response().await.unwrap().json();
        assert_eq!(next["request_line"], "GET /next HTTP/1.1");
        assert_eq!(service.connections(), 2, "the late answer's connection is not used again");
    }
}

#[tokio::test]
async fn an_answer_that_falls_silent_or_takes_too_long_is_broken_off() {
    for lines in ["idle_timeout = \"300ms\"", "total_timeout = \"300ms\""] {
        let service = Upstream::echo().await;
        let gateway = in_front_of(&service.url(), lines).await;
        let answer = exchange(gateway.address(), get("/drip")).await;
        assert!(matches!(answer, Err(Broken::CutOff)), "{lines}: {answer:?}");
        assert_eq!(exchange(gateway.address(), get("/next")).await.unwrap().status, 200);
    }
}

/// Threat: an upstream killed in the middle of its answer.
#[tokio::test]
async fn an_answer_that_breaks_off_is_never_taken_for_a_whole_one() {
    let gateway = Gateway::start().await;
    for path in ["/public/cut/5", "/public/cut/5000000"] {
        for _ in 0..20 {
            let answer = exchange(gateway.address(), get(path)).await;
            assert!(!answer.as_ref().is_ok_and(|a| a.status == 200), "{path}: {answer:?}");
        }
    }
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let until_close = "HTTP/1.1 200 OK\r\n\r\nhello";
    let service = Upstream::scripted([
        (chunked, After::Close),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhell", After::Close),
        (until_close, After::Close),
    ])
    .await;
    let gateway = in_front_of(&service.url(), "").await;
    for _ in 0..2 {
        let answer = exchange(gateway.address(), get("/x")).await;
        assert!(!answer.as_ref().is_ok_and(|a| a.status == 200), "{answer:?}");
    }
    // Without a length the end of the connection is the end of the answer.
    assert_eq!(exchange(gateway.address(), get("/x")).await.unwrap().text(), "hello");
}

/// Threat: an upstream that lies about where its answer ends, or answers what nobody asked.
#[tokio::test]
async fn a_lying_service_is_502_and_the_next_client_is_unharmed() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw",
        "HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/9.9 200 OK\r\n\r\n",
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: cut",
        "",
    ] {
        let service = Upstream::scripted([(answer, After::Close), (evil, After::Close)]).await;
        let gateway = in_front_of(&service.url(), "").await;
        let got =
            exchange(gateway.address(), "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        assert_eq!((got.status, &got.json()["code"]), (502, &"upstream_failed".into()), "{answer:?}: {}", got.text());
        assert!(!got.text().contains("evil"));
        assert_eq!(service.connections(), 1, "a POST is sent once: {answer:?}");
        assert_eq!(exchange(gateway.address(), get("/echo/x")).await.unwrap().status, 200);
    }
}

/// Threat: bytes behind an answer are the answer to nobody.
#[tokio::test]
async fn bytes_beyond_an_answer_are_never_given_to_the_next_client() {
    for extra in ["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "evil"] {
        for status in ["200 OK", "204 No Content", "304 Not Modified"] {
            let length = if status.starts_with("200") { "Content-Length: 2\r\n\r\nok" } else { "\r\n" };
            let first = format!("HTTP/1.1 {status}\r\n{length}{extra}");
            let second = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond";
            let service = Upstream::scripted([(first.as_str(), After::KeepOpen), (second, After::KeepOpen)]).await;
            let gateway = in_front_of(&service.url(), "").await;
            // One connection, so that one worker and its pool see both.
            let mut client = Client::connect(gateway.address()).await;
            client.send(get("/x")).await;
            assert_eq!(client.response().await.unwrap().status.to_string(), status[..3]);
            client.send(get("/y")).await;
            let next = client.response().await.unwrap();
            assert_eq!((next.status, next.text()), (200, "second"), "{first:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_ends_the_upload() {
    let early = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        let n = stream.read(&mut head).await.unwrap();
        stream.write_all(early.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        // The connection must not carry another request.
        [&head[..n], &rest].concat()
    });
    let gateway = in_front_of(&format!("http://{address}"), "").await;
    let mut client = Client::connect(gateway.address()).await;
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nstart").await;
    assert_eq!(client.response().await.unwrap().text(), "early");
    drop(client);
    let seen = String::from_utf8_lossy(&service.await.unwrap()).into_owned();
    assert_eq!(seen.matches("HTTP/1.1").count(), 1, "{seen}");
    assert_eq!(exchange(gateway.address(), get("/echo/x")).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_goes_away_frees_the_service() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send(get("/public/hold")).await;
    gateway.upstream.until_requests(1).await;
    drop(client);
    gateway.until_metric("wxgate_requests_total{status=\"499\"}", 1).await;
}

#[tokio::test]
async fn another_server_of_the_upstream_takes_over_from_one_that_is_down() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let service = Upstream::echo().await;
    let tables = format!(
        "[[upstream]]\nname = \"pair\"\nservers = [\"http://{closed}\", \"{}\"]\nbalance = \"round-robin\"\n\
         [[route]]\npath = \"/*\"\nupstream = \"pair\"\nauth = \"none\"\n",
        service.url()
    );
    let gateway = Gateway::with(&tables).await;
    for _ in 0..10 {
        let answer =
            exchange(gateway.address(), "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
        assert_eq!(answer.json()["body"], "hi");
    }
    let bodies = |r: &Request| r.body.clone();
    assert_eq!(service.requests().iter().map(bodies).collect::<Vec<_>>(), vec!["hi"; 10]);
}
