//! More than can be done: what is answered stays as much, and in time. These take seconds and measure, so they are run by
//! hand: `cargo test --test gateway overload -- --ignored --nocapture`. And a thousand streams at once, which is quick.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::DEADLINE;
use crate::support::gateway::Gateway;
use crate::support::raw::Client;
use crate::support::served::{PUBLIC, Served};

/// How many requests the service works on at a time, and for how long on each: it can do 200 a second.
const SLOTS: usize = 4;
const WORK: Duration = Duration::from_millis(20);
const CAPACITY: u32 = 200;

/// A service with so many slots; what comes beyond waits in it without end, as in most servers.
async fn service() -> (std::net::SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slots = Arc::new(Semaphore::new(SLOTS));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut tcp, _)) = listener.accept().await {
            let slots = Arc::clone(&slots);
            connections.spawn(async move {
                while read_head(&mut tcp).await {
                    let slot = slots.acquire().await;
                    tokio::time::sleep(WORK).await;
                    drop(slot);
                    let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    (address, tasks)
}

/// Reads one head; false when there is none.
async fn read_head(tcp: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tcp.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

/// What became of the requests that were offered.
struct Outcome {
    good: usize,
    refused: usize,
    /// Neither in time.
    late: usize,
    seconds: f64,
    /// Of good answers, sorted.
    times: Vec<Duration>,
}

impl Outcome {
    fn goodput(&self) -> f64 {
        self.good as f64 / self.seconds
    }

    fn p99(&self) -> Duration {
        self.times.get(self.times.len() * 99 / 100).copied().unwrap_or_default()
    }

    fn say(&self, what: &str) {
        println!(
            "{what}: {:.0} good answers a second, {} refused, {} late; p50 {:?}, p99 {:?}",
            self.goodput(),
            self.refused,
            self.late,
            self.times.get(self.times.len() / 2).copied().unwrap_or_default(),
            self.p99()
        );
    }
}

/// Sends `rate` requests a second for so long, whether or not the earlier ones were answered (an open loop). A client waits
/// a second for its answer.
async fn offer(gateway: &Gateway, rate: u32, seconds: u32) -> Outcome {
    let began = Instant::now();
    let mut asked = JoinSet::new();
    for n in 0..rate * seconds {
        tokio::time::sleep_until((began + Duration::from_secs(1) * n / rate).into()).await;
        let request = gateway.client().get(gateway.url("/shop/x")).timeout(Duration::from_secs(1));
        asked.spawn(async move {
            let sent = Instant::now();
            (request.send().await.map(|answer| answer.status().as_u16()), sent.elapsed())
        });
    }
    let mut outcome =
        Outcome { good: 0, refused: 0, late: 0, seconds: began.elapsed().as_secs_f64(), times: Vec::new() };
    while let Some(asked) = asked.join_next().await {
        match asked.unwrap() {
            (Ok(200), took) => {
                outcome.good += 1;
                outcome.times.push(took);
            }
            (Ok(503), _) => outcome.refused += 1,
            (Ok(other), _) => panic!("{other}"),
            (Err(_), _) => outcome.late += 1,
        }
    }
    outcome.times.sort();
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute and measures"]
async fn with_twice_the_load_a_service_with_limits_answers_as_much_as_ever_and_in_time() {
    let (address, _service) = service().await;
    let limits = format!("max_connections = {SLOTS}\nqueue = {{ size = 20, timeout = \"100ms\" }}");
    let tables = |limits: &str| {
        format!(
            "[[upstream]]\nname = \"shop\"\nservers = [\"http://{address}\"]\n{limits}\n\
             [[route]]\npath = \"/shop/*\"\nupstream = \"shop\"\nauth = \"none\"\n"
        )
    };
    let gateway = Gateway::with(&tables(&limits)).await;
    offer(&gateway, CAPACITY / 2, 2).await;
    let peak = offer(&gateway, CAPACITY, 6).await;
    peak.say("all that it can do");
    let twice = offer(&gateway, 2 * CAPACITY, 6).await;
    twice.say("twice as much offered");
    let without = Gateway::with(&tables("")).await;
    offer(&without, 2 * CAPACITY, 6).await.say("twice as much offered, without limits");
    assert!(twice.goodput() >= 0.9 * peak.goodput(), "{} of {}", twice.goodput(), peak.goodput());
    assert!(twice.p99() < Duration::from_millis(400), "{:?}", twice.p99());
    assert_eq!(twice.late, 0, "whoever is not served is told so");
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs 10,000 descriptors on either side, and measures"]
async fn nine_thousand_idle_connections_cost_little_and_hinder_nobody() {
    const IDLE: usize = 9_000;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let served = Served::start("keep_alive = \"10m\"", PUBLIC).await;
    let ask = "GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut client = Client::connect(served.address).await;
        client.send(ask).await;
        assert_eq!(client.response().await.unwrap().status, 200);
        held.push(client);
    }
    let before = resident(served.process.id());
    for _ in held.len()..IDLE {
        let mut client = Client::connect(served.address).await;
        client.send(ask).await;
        let answer = client.response().await.unwrap();
        assert_eq!((answer.status, answer.headers.get("connection")), (200, None));
        held.push(client);
    }
    let after = resident(served.process.id());
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        let mut client = Client::connect(served.address).await;
        client.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.response().await.unwrap().status, 200);
        times.push(began.elapsed());
    }
    times.sort();
    let each = (after - before) as f64 / (IDLE - 100) as f64;
    println!(
        "{IDLE} idle connections, one request each before: {each:.1} KiB of the process for each ({before} -> {after} \
         KiB); health p99 {:?}",
        times[197]
    );
    assert!(times[197] < Duration::from_millis(100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_event_streams_and_the_right_half_of_them_ends() {
    const STREAMS: usize = 1000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut service = JoinSet::new();
    service.spawn(async move {
        let mut streams = JoinSet::new();
        while let Ok((mut tcp, _)) = listener.accept().await {
            streams.spawn(async move {
                if read_head(&mut tcp).await {
                    let head =
                        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                    let _ = tcp.write_all(format!("{head}9\r\ndata: 1\n\n\r\n").as_bytes()).await;
                    let _ = tcp.read_u8().await;
                }
            });
        }
    });
    let gateway = Gateway::with(&format!(
        "[[upstream]]\nname = \"news\"\nservers = [\"http://{address}\"]\n\
         [[route]]\npath = \"/news/*\"\nupstream = \"news\"\n"
    ))
    .await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let (mut ends, mut stays) = (Vec::new(), Vec::new());
    for n in 0..STREAMS {
        let (reader, readers) = if n % 2 == 0 { (&alice, &mut ends) } else { (&bob, &mut stays) };
        let mut client = Client::connect(gateway.address()).await;
        client
            .send(format!("GET /news/{n} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", reader.token()))
            .await;
        readers.push(client);
    }
    gateway.until_metric_is("wxgate_open_streams{route=\"/news/*\"}", STREAMS as f64).await;
    let logout = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(alice.token()).send().await.unwrap();
    assert_eq!(logout.status(), 204);
    for client in &mut ends {
        assert_eq!(client.response().await.unwrap().text(), "data: 1\n\n");
    }
    gateway.until_metric_is("wxgate_open_streams{route=\"/news/*\"}", (STREAMS / 2) as f64).await;
    assert_eq!(gateway.metric("wxgate_streams_ended_total{ended=\"token_revoked\"}").await, (STREAMS / 2) as f64);
    drop(stays);
    let gone = gateway.until_metric_is("wxgate_open_streams{route=\"/news/*\"}", 0.);
    timeout(DEADLINE, gone).await.expect("with its reader goes the stream");
}
