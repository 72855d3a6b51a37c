//! What one client can take from the others: time, memory, connections. Each has its end.

use std::time::Duration;

use crate::support::gateway::{Gateway, ROUTES};
use crate::support::http1::Broken;
use crate::support::process::Process;
use crate::support::raw::{Client, exchange};
use crate::support::served::{PUBLIC, Served};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

async fn with(server: &str, route: &str) -> Gateway {
    let public = "[[route]]\npath = \"/public/*\"\nupstream = \"echo\"\nauth = \"none\"\n";
    Gateway::with(&format!("{server}\n{public}{route}\n")).await
}

#[tokio::test]
async fn a_head_that_never_ends_is_ended() {
    let gateway = with("server.head_timeout = \"300ms\"", "").await;
    for start in ["GET /public/x HTTP/1.1\r\nHost: a\r\n", "G", "GET /public/x HTTP/1.1\r\nX: "] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(start).await;
        let answer = client.response().await.unwrap_or_else(|e| panic!("{start:?}: {e}"));
        assert_eq!((answer.status, &answer.json()["code"]), (408, &"request_timeout".into()), "{start:?}");
        assert_eq!(client.until_closed().await.unwrap(), b"");
    }
    // Who says nothing at all is told nothing.
    assert_eq!(Client::connect(gateway.address()).await.until_closed().await.unwrap(), b"");
    assert!(gateway.upstream.requests().is_empty());
}

/// One byte now and then does not buy more time.
#[tokio::test]
async fn a_head_that_trickles_is_ended_as_well() {
    let gateway = with("server.head_timeout = \"500ms\"", "").await;
    let mut client = Client::connect(gateway.address()).await.within(Duration::from_millis(20));
    client.send("GET /public/x HTTP/1.1\r\nHost: a\r\nX: ").await;
    let answer = loop {
        client.send("x").await;
        match client.response().await {
            Err(Broken::TimedOut) => {}
            ended => break ended,
        }
    };
    assert_eq!(answer.unwrap().status, 408);
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn an_idle_connection_ends_and_a_waiting_one_does_not() {
    let gateway = with("server.keep_alive = \"300ms\"", "").await;
    let mut waiting = Client::connect(gateway.address()).await;
    waiting.send(get("/public/hold")).await;
    gateway.upstream.until_requests(1).await;
    let mut idle = Client::connect(gateway.address()).await;
    idle.send(get("/public/x")).await;
    assert_eq!(idle.response().await.unwrap().status, 200);
    assert_eq!(idle.until_closed().await.unwrap(), b"", "no word is said about it");
    // The other has been silent for as long, but it is owed an answer.
    gateway.upstream.release(1);
    assert_eq!(waiting.response().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_408() {
    let gateway = with("", "idle_timeout = \"300ms\"").await;
    for framing in ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(format!("POST /public/x HTTP/1.1\r\nHost: a\r\n{framing}")).await;
        let answer = client.response().await.unwrap_or_else(|e| panic!("{framing:?}: {e}"));
        assert_eq!((answer.status, &answer.json()["code"]), (408, &"request_timeout".into()), "{framing:?}");
        assert_eq!(client.until_closed().await.unwrap(), b"");
    }
    assert!(gateway.upstream.requests().is_empty());
    assert_eq!(exchange(gateway.address(), get("/public/x")).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_body_that_trickles_ends_with_the_total_time() {
    let gateway = with("", "total_timeout = \"500ms\"").await;
    let mut client = Client::connect(gateway.address()).await.within(Duration::from_millis(20));
    client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
    let answer = loop {
        client.send("x").await;
        match client.response().await {
            Err(Broken::TimedOut) => {}
            ended => break ended,
        }
    };
    let answer = answer.unwrap();
    assert!(matches!(answer.status, 408 | 504), "{answer:?}");
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn a_head_over_its_limit_is_431_and_one_at_it_is_forwarded() {
    let gateway = Gateway::start().await;
    let fields = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let sized = |bytes: usize| format!("X-Big: {}\r\n", "b".repeat(bytes));
    for (lines, status) in [
        (fields(99), 200),
        (fields(100), 431),
        (fields(5000), 431),
        (sized(30 << 10), 200),
        (sized(32 << 10), 431),
        (sized(64 << 10), 431),
        (sized(2 << 20), 431),
        (format!("Authorization: Bearer {}\r\n", "t".repeat(60_000)), 431),
    ] {
        let answer = exchange(gateway.address(), format!("GET /public/x HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await;
        let answer = answer.unwrap_or_else(|e| panic!("{} bytes: {e}", lines.len()));
        assert_eq!(answer.status, status, "{} bytes", lines.len());
        if status == 431 {
            assert_eq!(answer.json()["code"], "headers_too_large");
        }
    }
    // The end need not come: what is over the limit is over it.
    let mut client = Client::connect(gateway.address()).await;
    client.send(format!("GET /public/x HTTP/1.1\r\nHost: a\r\n{}", sized(40 << 10))).await;
    assert_eq!(client.response().await.unwrap().status, 431);
    assert_eq!(gateway.upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let gateway = Gateway::with(&format!("server.max_body = \"100KiB\"\n{ROUTES}")).await;
    let length = |n: usize| format!("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: {n}\r\n\r\n");
    for n in [102_401, 1 << 30, 999_999_999_999_999_999] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(length(n)).await;
        let answer = client.response().await.unwrap();
        assert_eq!((answer.status, &answer.json()["code"]), (413, &"body_too_large".into()), "{n}");
        assert_eq!(client.until_closed().await.unwrap(), b"");
    }
    assert_eq!(gateway.upstream.connections(), 0);
    let whole = format!("{}{}", length(102_400), "x".repeat(102_400));
    assert_eq!(exchange(gateway.address(), whole).await.unwrap().json()["body_length"], 102_400);
    let login =
        "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 20000000\r\n\r\n";
    assert_eq!(exchange(gateway.address(), login).await.unwrap().json()["code"], "body_too_large");
}

#[tokio::test]
async fn a_body_that_grows_over_the_limit_is_refused_on_its_way() {
    let gateway = with("server.max_body = \"100KiB\"", "").await;
    let chunk = format!("{:x}\r\n{}\r\n", 60_000, "x".repeat(60_000));
    let mut client = Client::connect(gateway.address()).await;
    client
        .send(format!("POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}"))
        .await;
    let answer = client.response().await.unwrap();
    assert_eq!((answer.status, &answer.json()["code"]), (413, &"body_too_large".into()));
    assert_eq!(client.until_closed().await.unwrap(), b"");
    assert!(gateway.upstream.requests().is_empty());
    let login = format!(
        "POST /auth/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(5)
    );
    assert_eq!(exchange(gateway.address(), login).await.unwrap().json()["code"], "body_too_large");
}

/// Threat: a gzip bomb. What is compressed goes through as it is.
#[tokio::test]
async fn nothing_is_unpacked() {
    let gateway = Gateway::start().await;
    let packed = "\u{1f}not really gzip";
    let request = format!(
        "POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n{packed}",
        packed.len()
    );
    let echoed = exchange(gateway.address(), request).await.unwrap().json();
    assert_eq!(echoed["body"], packed);
    assert_eq!(gateway.upstream.requests()[0].all("content-encoding"), ["gzip"]);
}

#[tokio::test]
async fn two_thousand_idle_connections_hold_up_nobody() {
    let gateway = Gateway::start().await;
    let mut held = Vec::new();
    for n in 0..2000 {
        let mut client = Client::connect(gateway.address()).await;
        match n % 3 {
            0 => {}
            1 => client.send("GET /public/x HTTP/1.1\r\nHo").await,
            _ => client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhal").await,
        }
        held.push(client);
    }
    gateway.until_metric("wxgate_connections", 2000).await;
    for path in ["/healthz", "/public/x"] {
        assert_eq!(exchange(gateway.address(), get(path)).await.unwrap().status, 200);
    }
    drop(held);
}

/// Clients cannot take the descriptors that upstreams, store and log need.
#[tokio::test]
async fn connections_of_clients_stay_below_the_descriptors() {
    let served = Served::run("workers = 1", PUBLIC, |folder| Process::wxgate_with_files(400, folder, &["serve"])).await;
    let mut held = Vec::new();
    for _ in 0..500 {
        held.push(Client::connect(served.address).await);
    }
    for client in &mut held[..70] {
        client.send(get("/public/x")).await;
    }
    for client in &mut held[..70] {
        assert_eq!(client.response().await.unwrap().status, 200);
    }
    drop(held);
    assert_eq!(exchange(served.address, get("/public/x")).await.unwrap().status, 200);
    let said = served.process.output().stderr;
    assert!(!said.iter().any(|line| line.contains("cannot accept connections")), "{said:?}");
}

/// Threat: no descriptors left (`EMFILE`), however few there are.
#[tokio::test]
async fn a_gateway_without_descriptors_goes_on_when_there_are_some_again() {
    let mut served =
        Served::run("workers = 1", PUBLIC, |folder| Process::wxgate_with_files(36, folder, &["serve"])).await;
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(Client::connect(served.address).await);
    }
    served.logged(&["cannot accept connections"]).await;
    // Those that it has are served, as far as that needs no descriptor more.
    held[0].send(get("/healthz")).await;
    assert_eq!(held[0].response().await.unwrap().status, 200);
    drop(held);
    assert_eq!(exchange(served.address, get("/public/x")).await.unwrap().status, 200);
    let said = served.process.output().stderr.iter().filter(|line| line.contains("cannot accept connections")).count();
    assert!(said < 200, "it pauses between its tries, and does not spin: {said} lines");
}

/// Resident memory of a process, KiB; `VmHWM` for the most that it ever was.
fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[tokio::test]
async fn a_large_body_goes_through_without_being_held() {
    through(128).await;
}

/// As above; the size that is promised.
#[tokio::test]
#[ignore = "takes seconds"]
async fn a_body_of_a_gigabyte_goes_through_without_being_held() {
    through(1024).await;
}

/// A body of so many MiB up, and one down.
async fn through(mebibytes: u64) {
    let served = Served::start("max_body = \"2GiB\"", PUBLIC).await;
    let bytes = mebibytes << 20;
    // Warm: buffers and pools are there.
    for path in ["/public/stream/1000000", "/public/x"] {
        assert_eq!(exchange(served.address, get(path)).await.unwrap().status, 200);
    }
    let before = memory(served.process.id(), "VmRSS");
    let piece = vec![b'x'; 1 << 20];
    let mut client = Client::connect(served.address).await;
    client.send(format!("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n")).await;
    for _ in 0..mebibytes {
        client.send(&piece).await;
    }
    assert_eq!(client.response().await.unwrap().json()["body_length"], bytes);
    let up = memory(served.process.id(), "VmHWM");
    client.send(get(&format!("/public/stream/{bytes}"))).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(client.bytes(1).await.unwrap());
    }
    for _ in 0..mebibytes {
        assert_eq!(client.bytes(1 << 20).await.unwrap().len(), 1 << 20);
    }
    let down = memory(served.process.id(), "VmHWM");
    println!(
        "{} MiB: resident {before} KiB before, at most {up} KiB after the way up, {down} KiB after the way down",
        mebibytes
    );
    // The kernel counts both roughly: the most there was can be less than what was before.
    assert!(down.saturating_sub(before) < 16 << 10, "memory grew from {before} to {down} KiB");
}

/// A reader who does not read stops the service, not the gateway's memory.
#[tokio::test]
async fn an_answer_that_nobody_reads_is_not_gathered() {
    let served = Served::start("", PUBLIC).await;
    assert_eq!(exchange(served.address, get("/public/stream/1000000")).await.unwrap().status, 200);
    let before = memory(served.process.id(), "VmRSS");
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(served.address).await;
        client.send(get("/public/stream/50000000")).await;
        // It has begun to arrive, and no more of it is read.
        client.bytes(1000).await.unwrap();
        clients.push(client);
    }
    served.upstream.until_requests(21).await;
    for path in ["/healthz", "/public/x"] {
        assert_eq!(exchange(served.address, get(path)).await.unwrap().status, 200);
    }
    let most = memory(served.process.id(), "VmHWM");
    assert!(most - before < 40 << 10, "1 GB wants to be read; memory grew from {before} to {most} KiB");
}
