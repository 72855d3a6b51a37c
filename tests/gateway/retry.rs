//! Retries: when, on which server, how often, and what is never repeated.

use serde_json::json;

use crate::support::gateway::{Answer, Gateway};
use crate::support::switch::Switch;

/// A public route to these servers, asked in turn, with this policy.
async fn gateway(servers: &[&Switch], retry: &str) -> Gateway {
    let urls: Vec<String> = servers.iter().map(|server| format!("\"http://{}\"", server.authority())).collect();
    let urls = urls.join(", ");
    Gateway::with(&format!(
        "[[upstream]]\nname = \"shop\"\nservers = [{urls}]\nbalance = \"round-robin\"\n\
         [[route]]\npath = \"/shop/*\"\nupstream = \"shop\"\nauth = \"none\"\n{retry}\n"
    ))
    .await
}

const DEFAULT: &str = "retry = {}";

#[tokio::test]
async fn a_failed_request_goes_to_another_server() {
    let (good, bad) = (Switch::start().await, Switch::start().await);
    let gateway = gateway(&[&bad, &good], DEFAULT).await;
    for (n, status) in [502, 503, 504, 0].into_iter().enumerate() {
        bad.say(status);
        // Both are asked first in turn.
        for _ in 0..2 {
            assert_eq!(gateway.get("/shop/x", None).await.status, 200, "{status}");
        }
        assert_eq!((bad.requests(), good.requests()), (n + 1, 2 * (n + 1)), "{status}");
    }
    assert_eq!(gateway.metric("wxgate_upstream_retries_total{upstream=\"shop\"}").await, 4.);
}

#[tokio::test]
async fn without_a_policy_nothing_that_was_sent_is_sent_again() {
    let (good, bad) = (Switch::start().await, Switch::start().await);
    bad.say(503);
    let gateway = gateway(&[&bad, &good], "").await;
    let statuses = [gateway.get("/shop/x", None).await.status, gateway.get("/shop/x", None).await.status];
    assert_eq!(statuses, [503, 200]);
    assert_eq!((bad.requests(), good.requests()), (1, 1));
}

#[tokio::test]
async fn only_what_the_policy_names_is_tried_again() {
    let (good, bad) = (Switch::start().await, Switch::start().await);
    let gateway = gateway(&[&bad, &good], "retry = { on = [\"503\"] }").await;
    for (status, expected) in [(503, 200), (502, 502), (500, 500), (404, 404), (0, 502)] {
        bad.say(status);
        let first = gateway.get("/shop/x", None).await.status;
        // The second in the turn is the good one, whether or not the first was tried again there.
        let second = gateway.get("/shop/x", None).await.status;
        assert_eq!((first, second), (expected, 200), "{status}");
    }
}

#[tokio::test]
async fn a_post_is_not_repeated_unless_the_route_says_so() {
    for (policy, expected) in [(DEFAULT, 503), ("retry = { methods = [\"POST\"] }", 200)] {
        let (good, bad) = (Switch::start().await, Switch::start().await);
        bad.say(503);
        let gateway = gateway(&[&bad, &good], policy).await;
        let answer = gateway.post("/shop/x", &json!({ "buy": 1 })).await;
        assert_eq!(answer.status, expected, "{policy}");
        assert_eq!(good.requests(), usize::from(expected == 200), "{policy}");
    }
}

async fn put(gateway: &Gateway, body: String) -> Answer {
    Answer::of(gateway.client().put(gateway.url("/shop/x")).body(body).send().await.unwrap()).await
}

#[tokio::test]
async fn a_body_is_sent_again_whole_and_only_when_it_is_small() {
    let bad = Switch::start().await;
    bad.say(503);
    let echo = crate::support::upstream::Upstream::echo().await;
    let text = format!(
        "[[upstream]]\nname = \"shop\"\nservers = [\"http://{}\", \"{}\"]\nbalance = \"round-robin\"\n\
         [[route]]\npath = \"/shop/*\"\nupstream = \"shop\"\nauth = \"none\"\n{DEFAULT}\n",
        bad.authority(),
        echo.url()
    );
    let gateway = Gateway::with(&text).await;
    let small = "x".repeat(64 * 1024);
    assert_eq!(put(&gateway, small.clone()).await.status, 200);
    let requests = echo.requests();
    assert_eq!((requests[0].body_length, &requests[0].body), (64 * 1024, &small));
    assert_eq!(requests[0].all("content-length"), ["65536"]);
    // The turn is the good one's, then the bad one's.
    for status in [200, 503] {
        assert_eq!(put(&gateway, "x".repeat(64 * 1024 + 1)).await.status, status);
    }
    assert_eq!((bad.requests(), echo.requests().len()), (2, 2));
}

#[tokio::test]
async fn the_last_answer_is_passed_on_and_attempts_are_counted() {
    let servers = [Switch::start().await, Switch::start().await, Switch::start().await];
    for server in &servers {
        server.say(503);
    }
    let gateway = gateway(&[&servers[0], &servers[1], &servers[2]], "retry = { attempts = 3 }").await;
    assert_eq!(gateway.get("/shop/x", None).await.status, 503);
    assert_eq!(servers.iter().map(Switch::requests).sum::<usize>(), 3);
    let line = gateway.log.until_line(|line| line["path"] == "/shop/x").await;
    assert_eq!(line["attempts"], 3, "{line}");
}

#[tokio::test]
async fn a_single_server_is_not_asked_again() {
    let only = Switch::start().await;
    only.say(503);
    let gateway = gateway(&[&only], DEFAULT).await;
    assert_eq!(gateway.get("/shop/x", None).await.status, 503);
    assert_eq!(only.requests(), 1);
    let line = gateway.log.until_line(|line| line["path"] == "/shop/x").await;
    assert!(line["attempts"].is_null(), "{line}");
}

#[tokio::test]
async fn a_sick_upstream_is_not_asked_twice_as_much() {
    let (a, b) = (Switch::start().await, Switch::start().await);
    a.say(503);
    b.say(503);
    let gateway = gateway(&[&a, &b], DEFAULT).await;
    let began = std::time::Instant::now();
    for _ in 0..200 {
        assert_eq!(gateway.get("/shop/x", None).await.status, 503);
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    let retries = a.requests() + b.requests() - 200;
    assert!(retries >= 40 && retries <= 40 + 10 * seconds, "{retries} in {seconds} s");
    let refused = gateway.metric("wxgate_upstream_retries_refused_total{upstream=\"shop\"}").await;
    assert_eq!(refused, 200. - retries as f64);
}

#[tokio::test]
async fn a_slow_server_is_left_for_another_after_per_try() {
    let good = Switch::start().await;
    let slow = crate::support::upstream::Upstream::echo().await;
    let text = format!(
        "[[upstream]]\nname = \"shop\"\nservers = [\"{}\", \"http://{}\"]\nbalance = \"round-robin\"\n\
         [[route]]\npath = \"/shop/*\"\nupstream = \"shop\"\nauth = \"none\"\nretry = {{ per_try = \"100ms\" }}\n",
        slow.url(),
        good.authority()
    );
    let gateway = Gateway::with(&text).await;
    assert_eq!(gateway.get("/shop/hold", None).await.status, 200);
    assert_eq!((slow.requests().len(), good.requests()), (1, 1));
}
