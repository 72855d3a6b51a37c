//! The end of a gateway: what is in flight finishes, nothing new begins, and the process says how it went.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::DEADLINE;
use crate::support::gateway::Gateway;
use crate::support::http1::Broken;
use crate::support::process::Exit;
use crate::support::raw::{Client, exchange};
use crate::support::served::{self, PUBLIC, Served};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// Waits until nobody listens any more.
async fn until_refused(address: std::net::SocketAddr) {
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    timeout(DEADLINE, refused).await.expect("the listener closes");
}

#[tokio::test]
async fn what_is_in_flight_is_answered_and_nothing_new_is_taken() {
    let mut served = Served::start("", PUBLIC).await;
    let mut waiting = Client::connect(served.address).await;
    waiting.send(get("/public/hold")).await;
    let mut reading = Client::connect(served.address).await;
    reading.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nha").await;
    served.upstream.until_requests(1).await;
    served.process.terminate();
    served.logged(&["draining"]).await;
    until_refused(served.address).await;
    served.upstream.release(1);
    reading.send("lf").await;
    for mut client in [waiting, reading] {
        let answer = client.response().await.unwrap();
        assert_eq!((answer.status, answer.headers.get("connection")), (200, Some("close")));
        assert_eq!(client.until_closed().await.unwrap(), b"");
    }
    assert_eq!(served.process.exit().await, Exit::Code(0));
    served.logged(&["drained"]).await;
}

/// The head of the answer went out before the drain, and promised that another request may follow.
#[tokio::test]
async fn a_connection_whose_answer_began_before_the_drain_may_ask_once_more() {
    let mut served = Served::start("", PUBLIC).await;
    let mut client = Client::connect(served.address).await;
    client.send(get("/public/drip")).await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"first\r\n") {
        seen.extend(client.bytes(1).await.unwrap());
    }
    served.process.terminate();
    until_refused(served.address).await;
    served.upstream.release(1);
    client.send(get("/public/x")).await;
    assert_eq!(client.bytes(14).await.unwrap(), b"4\r\nlast\r\n0\r\n\r\n");
    let answer = client.response().await.unwrap();
    assert_eq!((answer.status, answer.headers.get("connection")), (200, Some("close")));
    assert_eq!(served.process.exit().await, Exit::Code(0));
}

#[tokio::test]
async fn a_draining_gateway_says_so_to_those_who_ask_for_its_health() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send(get("/healthz")).await;
    assert_eq!(client.response().await.unwrap().status, 200);
    gateway.inner().start_draining();
    client.send(get("/healthz")).await;
    let answer = client.response().await.unwrap();
    assert_eq!((answer.status, &answer.json()["code"]), (503, &"draining".into()));
    assert_eq!((answer.headers.get("retry-after"), answer.headers.get("connection")), (Some("1"), Some("close")));
    let ready = gateway.client().get(gateway.admin_url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    let ready: serde_json::Value = ready.json().await.unwrap();
    assert_eq!((&ready["ready"], &ready["reason"]), (&false.into(), &"draining".into()));
    assert_eq!(gateway.client().get(gateway.admin_url("/livez")).send().await.unwrap().status(), 200);
    // Who still comes is served.
    assert_eq!(gateway.get("/public/x", None).await.status, 200);
}

#[tokio::test]
async fn for_drain_min_it_says_that_it_goes_and_still_takes_connections() {
    let mut served = Served::start("drain_min = \"1h\"", PUBLIC).await;
    served.process.terminate();
    served.logged(&["leaving: not ready any more"]).await;
    let health = exchange(served.address, get("/healthz")).await.unwrap();
    assert_eq!((health.status, &health.json()["code"]), (503, &"draining".into()));
    let mut client = Client::connect(served.address).await;
    for _ in 0..2 {
        client.send(get("/public/x")).await;
        let answer = client.response().await.unwrap();
        assert_eq!((answer.status, answer.headers.get("connection")), (200, None));
    }
    let ready = format!("GET /readyz HTTP/1.1\r\nHost: {}\r\n\r\n", served.admin);
    assert_eq!(exchange(served.admin, ready).await.unwrap().status, 503);
}

#[tokio::test]
async fn after_drain_min_comes_the_drain() {
    let mut served = Served::start("drain_min = \"1ms\"", PUBLIC).await;
    served.process.terminate();
    assert_eq!(served.process.exit().await, Exit::Code(0));
    let said = served.process.output().stderr.concat();
    let at = |part: &str| said.find(part).unwrap_or_else(|| panic!("{part}: {said}"));
    assert!(at("leaving: not ready any more") < at("\"draining\"") && at("\"draining\"") < at("\"drained\""));
}

/// Clients that ask as fast as they can, each on a connection that it keeps, until they are told that it closes.
#[tokio::test]
async fn no_request_is_cut_by_a_sigterm_under_load() {
    let mut served = Served::start("", PUBLIC).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for n in 0..16 {
        let (address, answered) = (served.address, Arc::clone(&answered));
        clients.push(tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            loop {
                let (request, length) = match n % 4 {
                    0 => (get("/public/stream/200000"), Some(200_000)),
                    1 => (get("/public/chunked/5000"), Some(5000)),
                    2 => ("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(), None),
                    _ => (get("/public/x"), None),
                };
                client.send(request).await;
                let answer = client.response().await.unwrap_or_else(|e| panic!("client {n}: {e}"));
                assert_eq!(answer.status, 200);
                assert!(length.is_none_or(|length| answer.body.len() == length));
                answered.fetch_add(1, Ordering::Relaxed);
                if answer.headers.get("connection") == Some("close") {
                    return;
                }
            }
        }));
    }
    served.upstream.until_requests(200).await;
    served.process.terminate();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(served.process.exit().await, Exit::Code(0));
    assert!(answered.load(Ordering::Relaxed) >= 200);
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut() {
    let mut served = Served::start("drain_timeout = \"300ms\"", PUBLIC).await;
    let mut client = Client::connect(served.address).await;
    client.send(get("/public/hold")).await;
    served.upstream.until_requests(1).await;
    served.process.terminate();
    assert!(matches!(client.response().await, Err(Broken::Closed)));
    assert_eq!(served.process.exit().await, Exit::Code(0));
    served.logged(&["what was left has been cut"]).await;
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let mut served = Served::start("drain_timeout = \"15s\"", PUBLIC).await;
    let mut idle = Client::connect(served.address).await;
    idle.send(get("/healthz")).await;
    assert_eq!(idle.response().await.unwrap().status, 200);
    let mut silent = Client::connect(served.address).await;
    let mut half = Client::connect(served.address).await;
    half.send("GET /public/x HT").await;
    let started = std::time::Instant::now();
    served.process.terminate();
    for client in [&mut idle, &mut silent, &mut half] {
        client.until_closed().await.unwrap();
    }
    assert_eq!(served.process.exit().await, Exit::Code(0));
    assert!(started.elapsed() < std::time::Duration::from_secs(14), "it waited for the deadline");
}

#[tokio::test]
async fn more_signals_during_the_drain_change_nothing() {
    let mut served = Served::start("", PUBLIC).await;
    let mut client = Client::connect(served.address).await;
    client.send(get("/public/hold")).await;
    served.upstream.until_requests(1).await;
    served.process.terminate();
    served.logged(&["draining"]).await;
    served.process.terminate();
    served.process.hang_up();
    served.process.terminate();
    until_refused(served.address).await;
    served.upstream.release(1);
    assert_eq!(client.response().await.unwrap().status, 200);
    assert_eq!(served.process.exit().await, Exit::Code(0));
}

/// Whoever read its output has gone: no signal, no panic, no lost request.
#[tokio::test]
async fn a_closed_standard_output_or_error_harms_nobody() {
    let template = Served::start("", PUBLIC).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("gateway.toml"), template.text("", PUBLIC)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wxgate"));
    command.arg("serve").current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let stderr = child.stderr.take().unwrap();
    let (address, _) = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(stderr).lines();
        // With its end, the pipe is closed.
        lines.find_map(|line| served::ready(&line.unwrap())).unwrap()
    })
    .await
    .unwrap();
    let mut client = Client::connect(address).await;
    for _ in 0..200 {
        client.send(get("/public/x")).await;
        assert_eq!(client.response().await.unwrap().status, 200);
    }
    let pid = child.id();
    let told = Arc::new(AtomicBool::new(false));
    let status = {
        let told = Arc::clone(&told);
        tokio::task::spawn_blocking(move || {
            let sent = Command::new("sh").arg("-c").arg(format!("kill -TERM {pid}")).status().unwrap();
            told.store(sent.success(), Ordering::Relaxed);
            child.wait().unwrap()
        })
    };
    let status = timeout(DEADLINE, status).await.expect("it ends").unwrap();
    assert!(told.load(Ordering::Relaxed));
    assert_eq!(status.code(), Some(0));
}
