//! A successor that cannot start, or dies on the way: somebody goes on serving, and no client notices.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::DEADLINE;
use crate::support::authority::{Authority, connect};
use crate::support::held::free_port;
use crate::support::http2;
use crate::support::process::{Exit, Process};
use crate::support::raw::{Client, exchange};
use crate::support::served::{self, PUBLIC, Served};

const REFRESH: &str = "POST /auth/refresh HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{\"refresh_token\":\"x\"}";
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A folder with the file of `served` on this port, with these lines and tables.
fn folder(served: &Served, public: SocketAddr, server: &str, tables: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let text = served.text(server, tables).replacen("127.0.0.1:0", &public.to_string(), 1);
    std::fs::write(dir.path().join("gateway.toml"), text).unwrap();
    dir
}

async fn ready(process: &mut Process) -> SocketAddr {
    process.line(served::ready).await.0
}

/// Ready for so many times.
async fn ready_again(process: &mut Process, times: usize) {
    let wait = async {
        while process.output().stderr.iter().filter(|line| served::ready(line).is_some()).count() < times {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{:#?}", process.output()));
}

async fn logged(process: &mut Process, part: &str) {
    process.line(|line| line.contains(part).then_some(())).await;
}

async fn serves(address: SocketAddr) {
    assert_eq!(exchange(address, HEALTH).await.unwrap().status, 200);
    // Only whoever has the store can tell.
    assert_eq!(exchange(address, REFRESH).await.unwrap().status, 401);
}

fn write(path: &Path, content: &[u8]) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn one_that_could_not_start_finds_out_before_the_running_one_leaves() {
    let template = Served::start("", PUBLIC).await;
    let address = loopback(free_port());
    let dir = folder(&template, address, "", PUBLIC);
    let mut running = Process::wxgate_in(dir.path(), &["serve"]);
    ready(&mut running).await;
    let config = dir.path().join("gateway.toml");
    let refused = async |said: &str| {
        let mut new = Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
        assert_eq!(new.exit().await, Exit::Code(1), "{said}");
        assert!(new.output().stderr.concat().contains(said), "{said}: {:?}", new.output().stderr);
        serves(address).await;
    };
    // Keys and the like: damaged, and back again.
    for (file, said) in [
        ("keys/sealing.key", "keys: "),
        ("keys/refresh.key", "keys: "),
        ("keys/admin.token", "admin.token in the key directory"),
    ] {
        let path = dir.path().join(file);
        let good = std::fs::read(&path).unwrap();
        write(&path, b"nonsense");
        refused(said).await;
        write(&path, &good);
    }
    let audit = dir.path().join("audit.log");
    std::fs::set_permissions(&audit, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused("audit.log has mode 0644").await;
    std::fs::set_permissions(&audit, std::fs::Permissions::from_mode(0o600)).unwrap();
    // An address that somebody has.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let good = std::fs::read_to_string(&config).unwrap();
    let admin = format!("[admin]\nlisten = \"{}\"", taken.local_addr().unwrap());
    std::fs::write(&config, good.replace("[admin]\nlisten = \"127.0.0.1:0\"", &admin)).unwrap();
    refused("cannot listen on 127.0.0.1:").await;
    std::fs::write(&config, &good).unwrap();
    // A database that a newer build has changed.
    let database = rusqlite::Connection::open(dir.path().join("wxgate.db")).unwrap();
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    database.pragma_update(None, "user_version", 4711).unwrap();
    refused("has schema version 4711").await;
    database.pragma_update(None, "user_version", version).unwrap();
    drop(database);
    let said = running.output().stderr.concat();
    assert!(!said.contains("another gateway takes over"), "it was never asked to leave: {said}");
    // With all of it mended the same takeover works.
    let mut new = Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
    ready(&mut new).await;
    assert_eq!(running.exit().await, Exit::Code(0));
    serves(address).await;
}

/// Somebody who stands in for WeChat and does not answer.
async fn silent_wechat() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    (listener, base)
}

/// Asks as fast as it can, on one connection until it is told that this ends, and then on another.
async fn asks(address: SocketAddr, n: usize, over: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    while !over.load(Ordering::Relaxed) {
        let mut client = Client::connect(address).await;
        loop {
            let (request, status) = match n % 3 {
                0 => (REFRESH, 401),
                1 => ("GET /public/stream/70000 HTTP/1.1\r\nHost: a\r\n\r\n", 200),
                _ => ("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            };
            client.send(request).await;
            let answer = client.response().await.unwrap_or_else(|e| panic!("client {n}: {e}"));
            assert_eq!(answer.status, status, "client {n}: {}", answer.text());
            answered.fetch_add(1, Ordering::Relaxed);
            if answer.headers.get("connection") == Some("close") || over.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}

/// Clients who ask all the time, and none of whom may get a wrong answer.
#[derive(Default)]
struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<()>,
}

impl Load {
    /// Six of them, in clear text.
    fn on(address: SocketAddr) -> Self {
        let mut load = Self::default();
        (0..6).for_each(|n| load.add(|over, answered| asks(address, n, over, answered)));
        load
    }

    fn add<C: Future<Output = ()> + Send + 'static>(
        &mut self,
        client: impl FnOnce(Arc<AtomicBool>, Arc<AtomicUsize>) -> C,
    ) {
        self.clients.spawn(client(Arc::clone(&self.over), Arc::clone(&self.answered)));
    }

    /// Waits for more answers.
    async fn goes_on(&self) {
        let wanted = self.answered.load(Ordering::Relaxed) + 100;
        let wait = async {
            while self.answered.load(Ordering::Relaxed) < wanted {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, wait).await.expect("the load goes on");
    }

    async fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client.unwrap();
        }
    }
}

/// A gateway whose logins hang at WeChat.
struct Busy {
    template: Served,
    address: SocketAddr,
    wechat: TcpListener,
    dir: TempDir,
    old: Process,
}

impl Busy {
    async fn start(server: &str) -> Self {
        let template = Served::start("", PUBLIC).await;
        let address = loopback(free_port());
        let (wechat, base) = silent_wechat().await;
        let tables = format!("[wechat]\napi_base = \"{base}\"\ntimeout = \"60s\"\n{PUBLIC}");
        let dir = folder(&template, address, server, &tables);
        let mut old = Process::wxgate_in(dir.path(), &["serve"]);
        ready(&mut old).await;
        Self { template, address, wechat, dir, old }
    }
}

/// In spite of what has failed, the next one takes the place of the old one, and nothing is lost.
async fn can_be_taken_over_from(dir: &TempDir, mut old: Process, load: Load) {
    let mut new = Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
    ready(&mut new).await;
    assert_eq!(old.exit().await, Exit::Code(0));
    load.goes_on().await;
    load.end().await;
    new.terminate();
    assert_eq!(new.exit().await, Exit::Code(0));
}

/// A login that WeChat has got and does not answer.
async fn held_login(to: SocketAddr, wechat: &TcpListener, code: &str) -> (Client, TcpStream) {
    let body = format!("{{\"code\":\"{code}\"}}");
    let length = body.len();
    let mut login = Client::connect(to).await;
    let head = "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length:";
    login.send(format!("{head} {length}\r\n\r\n{body}")).await;
    (login, timeout(DEADLINE, wechat.accept()).await.unwrap().unwrap().0)
}

#[tokio::test]
async fn when_the_new_one_dies_before_it_serves_the_old_one_goes_on_and_nothing_is_lost() {
    let Busy { template: _template, address, wechat, dir, mut old } = Busy::start("workers = 2").await;
    let load = Load::on(address);
    for deaths in 1..3 {
        load.goes_on().await;
        // A login that WeChat does not answer keeps the old one from letting go of the database.
        let (mut login, held) = held_login(address, &wechat, &format!("code-{deaths}")).await;
        let mut new = Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
        logged(&mut new, "waiting for the gateway that has the database").await;
        new.kill();
        assert_eq!(new.exit().await, Exit::Signal(9));
        logged(&mut old, "this one goes on").await;
        drop(held);
        assert_eq!(login.response().await.unwrap().status, 502);
        ready_again(&mut old, deaths + 1).await;
        load.goes_on().await;
        serves(address).await;
    }
    can_be_taken_over_from(&dir, old, load).await;
}

#[tokio::test]
async fn one_that_hangs_is_ended_in_time_and_the_old_one_goes_on_and_nothing_is_lost() {
    let Busy { template: _template, address, wechat, dir, mut old } =
        Busy::start("workers = 2\ntakeover_timeout = \"1s\"").await;
    let load = Load::on(address);
    load.goes_on().await;
    let (mut login, held) = held_login(address, &wechat, "c").await;
    let mut new = Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
    logged(&mut new, "waiting for the gateway that has the database").await;
    new.freeze();
    drop(held);
    assert_eq!(login.response().await.unwrap().status, 502);
    assert_eq!(new.exit().await, Exit::Signal(9));
    logged(&mut old, "does not serve in time and has been ended: this one goes on").await;
    ready_again(&mut old, 2).await;
    load.goes_on().await;
    serves(address).await;
    can_be_taken_over_from(&dir, old, load).await;
}

#[tokio::test]
async fn one_whose_successor_has_died_can_be_told_to_stop() {
    let Busy { template: _template, address, wechat, dir, mut old } = Busy::start("").await;
    let (_login, held) = held_login(address, &wechat, "c").await;
    let mut new = Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
    logged(&mut new, "waiting for the gateway that has the database").await;
    new.kill();
    logged(&mut old, "this one goes on").await;
    old.terminate();
    drop(held);
    assert_eq!(old.exit().await, Exit::Code(0));
}

#[tokio::test]
async fn a_body_that_trickles_in_keeps_nobody_waiting() {
    let template = Served::start("", PUBLIC).await;
    let address = loopback(free_port());
    let dir = folder(&template, address, "", PUBLIC);
    let mut old = Process::wxgate_in(dir.path(), &["serve"]);
    ready(&mut old).await;
    let mut slow = Client::connect(address).await;
    slow.send(
        "POST /auth/refresh HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{\"ref",
    )
    .await;
    // It has come to the endpoint when one that was sent later has.
    assert_eq!(exchange(address, REFRESH).await.unwrap().status, 401);
    let mut new = Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
    ready(&mut new).await;
    // Left alone it would have had ten seconds, and then 408.
    let answer = slow.response().await.unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_str().unwrap()), (503, "draining"));
    assert!(answer.headers.get("retry-after").is_some());
    assert_eq!(old.exit().await, Exit::Code(0));
    serves(address).await;
}

/// By TLS, on one connection until it is told that this ends, and then on another.
async fn asks_by_tls(trust: rustls::ClientConfig, to: SocketAddr, over: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    while !over.load(Ordering::Relaxed) {
        let stream = connect(trust.clone(), to, "a.example.com").await.expect("a handshake");
        let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        loop {
            let request = Request::get("/public/stream/70000").header("host", "a.example.com");
            let answer = send.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.expect("an answer");
            assert_eq!(answer.status(), 200);
            let last = answer.headers().contains_key("connection");
            let body = answer.into_body().collect().await.expect("all of it").to_bytes();
            assert_eq!(body.len(), 70_000);
            answered.fetch_add(1, Ordering::Relaxed);
            if last || over.load(Ordering::Relaxed) {
                break;
            }
        }
        drop(send);
        connection.await.unwrap().unwrap();
    }
}

/// By TLS and HTTP/2, until GOAWAY, and then on another connection.
async fn asks_by_http2(trust: rustls::ClientConfig, to: SocketAddr, over: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    while !over.load(Ordering::Relaxed) {
        let stream = connect(trust.clone(), to, "a.example.com").await.expect("a handshake");
        let mut client = http2::Client::over(stream).await;
        while !over.load(Ordering::Relaxed) {
            match client.send(http2::get("https://a.example.com/public/x"), "").await {
                Ok(answer) => assert_eq!(answer.status, 200),
                // Not sent, because the connection takes no more: what was sent is answered.
                Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => break,
                Err(error) => panic!("{error}"),
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn by_tls_no_connection_is_refused_or_lost_either() {
    let template = Served::start("", PUBLIC).await;
    let address = loopback(free_port());
    let authority = Authority::new();
    let tls = "workers = 2\ntls = { cert = \"a.example.com.pem\", key = \"a.example.com.key\" }";
    let dir = folder(&template, address, tls, PUBLIC);
    authority.issue(dir.path(), "a.example.com");
    let mut running = Process::wxgate_in(dir.path(), &["serve"]);
    ready(&mut running).await;
    let mut load = Load::default();
    let mut by_http2 = authority.trust();
    by_http2.alpn_protocols = vec![b"h2".to_vec()];
    for _ in 0..4 {
        load.add(|over, answered| asks_by_tls(authority.trust(), address, over, answered));
        load.add(|over, answered| asks_by_http2(by_http2.clone(), address, over, answered));
    }
    for _ in 0..3 {
        load.goes_on().await;
        let mut next = Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
        assert_eq!(ready(&mut next).await, address);
        assert_eq!(running.exit().await, Exit::Code(0));
        running = next;
    }
    load.goes_on().await;
    load.end().await;
    running.terminate();
    assert_eq!(running.exit().await, Exit::Code(0));
}
