//! How much the servers of an upstream take: shares, room, the queue, the circuit breaker; and how much a route takes.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::gateway::{Answer, Gateway};
use crate::support::switch::Switch;
use crate::support::upstream::Upstream;

fn get(gateway: &Gateway, path: &str, token: Option<&str>) -> impl Future<Output = Answer> + Send + 'static {
    let request = gateway.client().get(gateway.url(path));
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    async move { Answer::of(request.send().await.unwrap()).await }
}

/// A public route to an upstream `shop` of these servers.
fn shop(servers: &str, more: &str) -> String {
    format!(
        "[[upstream]]\nname = \"shop\"\nservers = [{servers}]\n{more}\n\
         [[route]]\npath = \"/shop/*\"\nupstream = \"shop\"\nauth = \"none\"\n"
    )
}

#[tokio::test]
async fn a_server_with_a_larger_weight_takes_a_larger_share() {
    let (small, large) = (Switch::start().await, Switch::start().await);
    let servers = format!("\"http://{}\", {{ url = \"http://{}\", weight = 3 }}", small.authority(), large.authority());
    let gateway = Gateway::with(&shop(&servers, "balance = \"round-robin\"")).await;
    for _ in 0..40 {
        assert_eq!(get(&gateway, "/shop/x", None).await.status, 200);
    }
    assert_eq!((small.requests(), large.requests()), (10, 30));
}

#[tokio::test]
async fn a_server_gets_no_more_than_it_may_have_and_the_rest_wait_for_room() {
    let slow = Upstream::echo().await;
    let limits = "max_connections = 2\nqueue = { size = 3, timeout = \"20s\" }";
    let gateway = Gateway::with(&shop(&format!("\"{}\"", slow.url()), limits)).await;
    let mut asked = JoinSet::new();
    for _ in 0..5 {
        asked.spawn(get(&gateway, "/shop/hold", None));
    }
    gateway.until_metric_is("wxgate_upstream_queue{upstream=\"shop\"}", 3.).await;
    assert_eq!(slow.until_requests(2).await.len(), 2);
    let refused = get(&gateway, "/shop/hold", None).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert!(refused.headers.contains_key("retry-after"));
    // Each that is done makes room for one.
    for done in 1..=5 {
        assert!(slow.requests().len() < 2 + done);
        slow.release(1);
        assert_eq!(asked.join_next().await.unwrap().unwrap().status, 200);
    }
    assert_eq!(gateway.metric("wxgate_upstream_queued_total{upstream=\"shop\"}").await, 3.);
    assert_eq!(gateway.metric("wxgate_upstream_queue_full_total{upstream=\"shop\"}").await, 1.);
    gateway.until_metric_is("wxgate_upstream_queue{upstream=\"shop\"}", 0.).await;
}

#[tokio::test]
async fn who_waits_in_vain_is_told_so_and_who_goes_away_waits_no_longer() {
    let slow = Upstream::echo().await;
    let limits = "max_connections = 1\nqueue = { size = 5, timeout = \"200ms\" }";
    let gateway = Gateway::with(&shop(&format!("\"{}\"", slow.url()), limits)).await;
    let held = tokio::spawn(get(&gateway, "/shop/hold", None));
    slow.until_requests(1).await;
    let refused = get(&gateway, "/shop/x", None).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert_eq!(gateway.metric("wxgate_upstream_queue_timeouts_total{upstream=\"shop\"}").await, 1.);
    gateway.rewrite(|text| text.replace("timeout = \"200ms\"", "timeout = \"20s\"")).await;
    let leaving = tokio::spawn(get(&gateway, "/shop/x", None));
    gateway.until_metric_is("wxgate_upstream_queue{upstream=\"shop\"}", 1.).await;
    leaving.abort();
    gateway.until_metric_is("wxgate_upstream_queue{upstream=\"shop\"}", 0.).await;
    slow.release(1);
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(get(&gateway, "/shop/x", None).await.status, 200, "room that nobody waited for is there");
    assert_eq!(slow.requests().len(), 2);
}

#[tokio::test]
async fn a_busy_server_is_passed_over_for_one_with_room() {
    let (slow, other) = (Upstream::echo().await, Switch::start().await);
    let servers = format!("\"{}\", \"http://{}\"", slow.url(), other.authority());
    let gateway = Gateway::with(&shop(&servers, "balance = \"round-robin\"\nmax_connections = 1")).await;
    let held = tokio::spawn(get(&gateway, "/shop/hold", None));
    slow.until_requests(1).await;
    for _ in 0..6 {
        assert_eq!(get(&gateway, "/shop/x", None).await.status, 200);
    }
    assert_eq!((slow.requests().len(), other.requests()), (1, 6));
    slow.release(1);
    held.await.unwrap();
}

#[tokio::test]
async fn an_upstream_that_only_fails_is_left_alone_until_a_probe_succeeds() {
    let only = Switch::start().await;
    only.say(503);
    let breaker = "breaker = { failures = 4, open = \"300ms\" }";
    let gateway = Gateway::with(&shop(&format!("\"http://{}\"", only.authority()), breaker)).await;
    for _ in 0..4 {
        assert_eq!(get(&gateway, "/shop/x", None).await.status, 503);
    }
    assert_eq!(only.requests(), 4);
    let refused = get(&gateway, "/shop/x", None).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "upstream_unavailable"));
    assert_eq!(gateway.metric("wxgate_upstream_circuit_open{upstream=\"shop\"}").await, 1.);
    // Probes go, one each 300 ms, while it fails.
    while only.requests() < 6 {
        get(&gateway, "/shop/x", None).await;
    }
    only.say(200);
    while get(&gateway, "/shop/x", None).await.status != 200 {}
    assert_eq!(gateway.metric("wxgate_upstream_circuit_open{upstream=\"shop\"}").await, 0.);
    assert_eq!(gateway.metric("wxgate_upstream_circuit_opened_total{upstream=\"shop\"}").await, 1.);
    for _ in 0..10 {
        assert_eq!(get(&gateway, "/shop/x", None).await.status, 200);
    }
}

#[tokio::test]
async fn an_upstream_has_no_more_requests_than_its_breaker_says() {
    let slow = Upstream::echo().await;
    let breaker = "breaker = { max_requests = 2 }";
    let gateway = Gateway::with(&shop(&format!("\"{}\"", slow.url()), breaker)).await;
    let mut asked = JoinSet::new();
    for _ in 0..2 {
        asked.spawn(get(&gateway, "/shop/hold", None));
    }
    slow.until_requests(2).await;
    assert_eq!(get(&gateway, "/shop/x", None).await.code(), "overloaded");
    slow.release(2);
    while let Some(answer) = asked.join_next().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(get(&gateway, "/shop/x", None).await.status, 200);
}

#[tokio::test]
async fn a_route_takes_so_many_at_once_and_of_one_member_so_many() {
    let limits = "max_in_flight = 3\nmax_in_flight_per_member = 2";
    let gateway = Gateway::with(&format!(
        "[[route]]\npath = \"/api/*\"\nupstream = \"echo\"\n{limits}\n\
         [[route]]\npath = \"/free/*\"\nupstream = \"echo\"\n"
    ))
    .await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let mut asked = JoinSet::new();
    for n in 1..=2 {
        asked.spawn(get(&gateway, "/api/hold", Some(alice.token())));
        gateway.upstream.until_requests(n).await;
    }
    let refused = get(&gateway, "/api/x", Some(alice.token())).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    asked.spawn(get(&gateway, "/api/hold", Some(bob.token())));
    gateway.upstream.until_requests(3).await;
    let refused = get(&gateway, "/api/x", Some(bob.token())).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert_eq!(get(&gateway, "/free/x", Some(alice.token())).await.status, 200);
    assert_eq!(gateway.metric("wxgate_route_in_flight{route=\"/api/*\"}").await, 3.);
    // What is under way is known after a reload, too.
    gateway.rewrite(|text| text.replace("max_in_flight = 3", "max_in_flight = 3\ntimeout = \"29s\"")).await;
    assert_eq!(get(&gateway, "/api/x", Some(bob.token())).await.status, 503);
    gateway.upstream.release(3);
    while let Some(answer) = asked.join_next().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    gateway.until_metric_is("wxgate_route_in_flight{route=\"/api/*\"}", 0.).await;
    assert_eq!(get(&gateway, "/api/x", Some(alice.token())).await.status, 200);
    assert_eq!(gateway.metric("wxgate_in_flight_refused_total{route=\"/api/*\",by=\"member\"}").await, 1.);
    assert_eq!(gateway.metric("wxgate_in_flight_refused_total{route=\"/api/*\",by=\"route\"}").await, 2.);
}

#[tokio::test]
async fn a_request_that_its_client_gave_up_is_no_longer_under_way() {
    let gateway =
        Gateway::with("[[route]]\npath = \"/public/*\"\nupstream = \"echo\"\nauth = \"none\"\nmax_in_flight = 1\n")
            .await;
    let asked = tokio::spawn(get(&gateway, "/public/hold", None));
    gateway.upstream.until_requests(1).await;
    assert_eq!(get(&gateway, "/public/x", None).await.status, 503);
    asked.abort();
    gateway.until_metric_is("wxgate_route_in_flight{route=\"/public/*\"}", 0.).await;
    assert_eq!(get(&gateway, "/public/x", None).await.status, 200);
}

#[tokio::test]
async fn beyond_the_most_connections_each_gets_one_answer() {
    use crate::support::raw::Client;
    let public = "[[route]]\npath = \"/public/*\"\nupstream = \"echo\"\nauth = \"none\"\n";
    let gateway = Gateway::with(&format!("server.workers = 1\nserver.max_connections = 8\n{public}")).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut client = Client::connect(gateway.address()).await;
        client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.response().await.unwrap();
        assert_eq!((answer.status, answer.headers.get("connection")), (200, None));
        held.push(client);
    }
    for _ in 0..3 {
        let mut health = Client::connect(gateway.address()).await;
        health.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = health.response().await.unwrap();
        assert_eq!((answer.status, answer.headers.get("connection")), (200, Some("close")));
        assert_eq!(health.until_closed().await.unwrap(), b"");
    }
    // Those that are held go on.
    held[0].send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(held[0].response().await.unwrap().status, 200);
}

#[tokio::test]
async fn the_least_rate_of_a_body_can_be_set() {
    use crate::support::http1::Broken;
    use crate::support::raw::Client;
    let route = "[[route]]\npath = \"/public/*\"\nupstream = \"echo\"\nauth = \"none\"\nidle_timeout = \"300ms\"\n";
    let gateway = Gateway::with(&format!("{route}min_body_rate = \"1MiB\"\n")).await;
    let mut client = Client::connect(gateway.address()).await.within(Duration::from_millis(20));
    client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
    // Never silent for as long as 300 ms, and yet far too slow.
    let answer = loop {
        client.send("x").await;
        match client.response().await {
            Err(Broken::TimedOut) => {}
            ended => break ended.unwrap(),
        }
    };
    assert_eq!((answer.status, &answer.json()["code"]), (408, &"request_timeout".into()));
}

#[tokio::test]
async fn what_a_route_and_its_upstream_did_is_counted_exactly_and_by_configured_names_alone() {
    let server = Switch::start().await;
    let tables = shop(&format!("\"http://{}\"", server.authority()), "");
    let gateway = Gateway::with(&format!("{tables}limit = {{ by = \"route\", rate = \"12/h\" }}\n")).await;
    for n in 0..10 {
        assert_eq!(get(&gateway, &format!("/shop/{n}?person=secret"), None).await.status, 200);
    }
    server.say(404);
    assert_eq!(get(&gateway, "/shop/x", None).await.status, 404);
    server.reset();
    assert_eq!(get(&gateway, "/shop/x", None).await.status, 502);
    for _ in 0..3 {
        assert_eq!(get(&gateway, "/shop/x", None).await.status, 429);
    }
    for (line, value) in [
        ("wxgate_route_requests_total{route=\"/shop/*\",class=\"2xx\"}", 10.),
        ("wxgate_route_requests_total{route=\"/shop/*\",class=\"4xx\"}", 4.),
        ("wxgate_route_requests_total{route=\"/shop/*\",class=\"5xx\"}", 1.),
        ("wxgate_route_refused_total{route=\"/shop/*\",code=\"rate_limited\"}", 3.),
        ("wxgate_route_refused_total{route=\"/shop/*\",code=\"upstream_failed\"}", 1.),
        ("wxgate_route_duration_seconds_count{route=\"/shop/*\"}", 15.),
        ("wxgate_upstream_responses_total{upstream=\"shop\",class=\"2xx\"}", 10.),
        ("wxgate_upstream_responses_total{upstream=\"shop\",class=\"4xx\"}", 1.),
        ("wxgate_upstream_responses_total{upstream=\"shop\",class=\"none\"}", 1.),
        ("wxgate_upstream_head_seconds_count{upstream=\"shop\"}", 11.),
    ] {
        gateway.until_metric_is(line, value).await;
    }
    let page = gateway.metrics().await;
    assert!(!page.contains("secret") && !page.contains("/shop/1"), "{page}");
    let line = gateway.log.until_line(|line| line["path"] == "/shop/0").await;
    let (head, took) = (line["upstream_us"].as_u64().unwrap(), line["duration_us"].as_u64().unwrap());
    assert!(head > 0 && head <= took, "{line}");
}
