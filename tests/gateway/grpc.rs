//! Upstreams that speak HTTP/2: gRPC from end to end, trailers both ways, one connection for many requests.

use bytes::Bytes;
use http::{HeaderMap, Request};

use crate::support::gateway::Gateway;
use crate::support::grpc::Service;
use crate::support::http2::{Client, get};
use crate::support::upstream::Upstream;

/// A gateway in front of `service`, whose upstream speaks HTTP/2.
async fn gateway(service: &Service, more: &str) -> Gateway {
    let tables = format!(
        "[[upstream]]\nname = \"grpc\"\nservers = [\"http://{}\"]\nprotocol = \"h2\"\n{more}\n\
         [[route]]\npath = \"/grpc.Echo/*\"\nupstream = \"grpc\"\n\
         [[route]]\npath = \"/open/*\"\nupstream = \"grpc\"\nauth = \"none\"\nstrip_prefix = \"/open\"\n",
        service.address
    );
    Gateway::with(&tables).await
}

fn call(path: &str, token: &str) -> Request<()> {
    Request::post(format!("http://api.example.com{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .header("x-wx-openid", "evil")
        .body(())
        .unwrap()
}

#[tokio::test]
async fn a_call_goes_through_with_its_trailers_and_the_true_caller() {
    let service = Service::start(None).await;
    let gateway = gateway(&service, "").await;
    let alice = gateway.login("alice").await;
    let mut client = Client::connect(gateway.address()).await;
    let mut trailers = HeaderMap::new();
    for (name, value) in
        [("x-checksum", "1"), ("x-wx-openid", "evil"), ("x_wxgate_member", "evil"), ("authorization", "x")]
    {
        trailers.insert(name, value.parse().unwrap());
    }
    let message = Bytes::from(vec![7; 300_000]);
    let answer =
        client.send_with_trailers(call("/grpc.Echo/Unary", alice.token()), message.clone(), trailers).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, message.len()));
    assert_eq!(answer.headers["content-type"], "application/grpc");
    let came = answer.trailers.unwrap();
    assert_eq!((came["grpc-status"].to_str().unwrap(), came["grpc-message"].to_str().unwrap()), ("0", "fine"));
    assert!(!came.contains_key("x-wxgate-member"), "a service cannot speak for the gateway");
    let seen = service.seen.lock().unwrap();
    let request = &seen.requests[0];
    assert_eq!(request.uri(), "http://api.example.com/grpc.Echo/Unary");
    assert!(!request.headers().contains_key("host") && !request.headers().contains_key("authorization"));
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(request.headers().get_all("x-wx-openid").iter().collect::<Vec<_>>(), [alice.openid()]);
    let names: Vec<&str> = seen.trailers[0].keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-checksum"]);
}

#[tokio::test]
async fn messages_of_a_stream_come_as_they_are_sent() {
    let service = Service::start(None).await;
    let gateway = gateway(&service, "").await;
    let alice = gateway.login("alice").await;
    let mut client = Client::connect(gateway.address()).await;
    let (answer, mut sending) = client.begin(call("/grpc.Echo/Stream", alice.token()), false).await.unwrap();
    let mut answer = answer.await.unwrap().into_body();
    for message in ["one", "two", "three"] {
        sending.send_data(Bytes::from(message), false).unwrap();
        assert_eq!(answer.data().await.unwrap().unwrap(), message);
    }
    sending.send_data(Bytes::new(), true).unwrap();
    assert!(answer.data().await.is_none());
    assert_eq!(answer.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_refusal_without_a_body_and_a_broken_answer_stay_what_they_are() {
    let service = Service::start(None).await;
    let gateway = gateway(&service, "").await;
    let alice = gateway.login("alice").await;
    let mut client = Client::connect(gateway.address()).await;
    let refused = client.send(call("/grpc.Echo/Refuse", alice.token()), "x").await.unwrap();
    assert_eq!((refused.status, &refused.headers["grpc-status"]), (200, &"7".parse().unwrap()));
    assert!(client.send(get("http://a/open/reset"), "").await.is_err(), "never a whole answer");
    let unauthorised = client.send(call("/grpc.Echo/Unary", "bad"), "x").await.unwrap();
    assert_eq!(unauthorised.status, 401);
    // And from HTTP/1.1.
    let answer = gateway.get("/open/hello", None).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "/hello"));
    assert!(!answer.headers.contains_key("x-wxgate-session"));
}

#[tokio::test]
async fn many_requests_share_few_connections_and_a_closed_one_is_replaced() {
    let service = Service::start(None).await;
    let gateway = gateway(&service, "").await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..50 {
        let (client, url) = (gateway.client().clone(), gateway.url(&format!("/open/{n}")));
        tasks.spawn(async move { client.get(url).send().await.unwrap().text().await.unwrap() });
    }
    let mut answers = tasks.join_all().await;
    answers.sort();
    assert_eq!(answers.len(), 50);
    answers.dedup();
    assert_eq!(answers.len(), 50, "each its own");
    // One for each worker, at most.
    let workers = std::thread::available_parallelism().unwrap().get();
    assert!(service.seen.lock().unwrap().connections <= workers);
}

#[tokio::test]
async fn its_health_is_asked_in_http2_and_one_that_speaks_http1_is_down() {
    let service = Service::start(None).await;
    let gateway = gateway(&service, "health = { path = \"/healthz\", interval = \"50ms\" }").await;
    while service.requests() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(service.seen.lock().unwrap().requests[0].uri().path(), "/healthz");
    assert_eq!(gateway.get("/open/x", None).await.status, 200);
    let http1 = Upstream::echo().await;
    let other = format!(
        "[[upstream]]\nname = \"wrong\"\nservers = [\"{}\"]\nprotocol = \"h2\"\n\
         [[route]]\npath = \"/wrong\"\nupstream = \"wrong\"\nauth = \"none\"\n",
        http1.url()
    );
    let gateway = Gateway::with(&other).await;
    let answer = gateway.get("/wrong", None).await;
    assert!(matches!(answer.status, 502 | 503), "{}", answer.status);
}

/// What speaks of a length where no body may be (RFC 9110, section 8.6) would have a client of HTTP/1.1 wait for it.
#[tokio::test]
async fn a_204_has_no_length_and_the_connection_goes_on() {
    let service = Service::start(None).await;
    let gateway = gateway(&service, "").await;
    let mut client = crate::support::raw::Client::connect(gateway.address()).await;
    // 304 may say which length the answer would have had.
    for (status, length) in [(204, None), (304, Some("5")), (204, None)] {
        client.send(format!("GET /open/empty/{status} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.response().await.unwrap();
        assert_eq!((answer.status, answer.headers.get("content-length")), (status, length));
        assert_eq!(answer.headers.get("connection"), None);
    }
    let mut client = Client::connect(gateway.address()).await;
    let answer = client.send(get("http://a/open/empty/204"), "").await.unwrap();
    assert_eq!((answer.status, answer.headers.get("content-length")), (204, None));
    let seen = service.seen.lock().unwrap();
    let via: Vec<_> = seen.requests.iter().map(|request| request.headers()["via"].to_str().unwrap()).collect();
    assert_eq!(via, ["1.1 wxgate", "1.1 wxgate", "1.1 wxgate", "2 wxgate"], "what the client spoke");
}
