//! A new process in the place of a running one: sockets that are handed over, by the running gateway or by a supervisor;
//! what begun in the old one ends there; and no client notices.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::{SinkExt as _, StreamExt as _};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;
use wxgate::clock::Clock;
use wxgate::ids::{AppId, Secret};
use wxgate::wechat::simulator::{Simulator, SimulatorConfig};

use crate::support::DEADLINE;
use crate::support::held::free_port;
use crate::support::http2;
use crate::support::postgres::PostgresServer;
use crate::support::process::{Exit, Process};
use crate::support::raw::{Client, exchange};
use crate::support::redis::RedisServers;
use crate::support::served::{self, PUBLIC, Served};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A folder with the file of `served`, with these tables and listeners.
fn folder(served: &Served, public: SocketAddr, admin: SocketAddr, server: &str, tables: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let text = served.text(server, tables);
    let text = text.replacen("127.0.0.1:0", &public.to_string(), 1).replacen("127.0.0.1:0", &admin.to_string(), 1);
    std::fs::write(dir.path().join("gateway.toml"), text).unwrap();
    dir
}

async fn ready(process: &mut Process) -> SocketAddr {
    process.line(served::ready).await.0
}

async fn logged(process: &mut Process, part: &str) {
    process.line(|line| line.contains(part).then_some(())).await;
}

async fn status_of(admin: SocketAddr, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    exchange(admin, request).await.unwrap().status
}

/// What clients of all kinds saw.
#[derive(Debug, Default)]
struct Load {
    over: AtomicBool,
    answered: AtomicUsize,
}

/// A client that asks as fast as it can, on one connection until it is told that this ends, and then on another. Any other
/// end than that, and any answer but the right one, fails the test.
async fn client(address: SocketAddr, load: Arc<Load>, n: usize) {
    while !load.over.load(Ordering::Relaxed) {
        let mut client = Client::connect(address).await;
        loop {
            let (request, status) = match n % 4 {
                0 => (get("/public/stream/70000"), 200),
                1 => ("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(), 200),
                // An endpoint, which the store's owner alone can answer.
                2 => ("POST /auth/refresh HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{\"refresh_token\":\"x\"}".to_owned(), 401),
                _ => (get("/public/x"), 200),
            };
            client.send(request).await;
            let answer = client.response().await.unwrap_or_else(|e| panic!("client {n}: {e}"));
            assert_eq!(answer.status, status, "client {n}: {}", answer.text());
            load.answered.fetch_add(1, Ordering::Relaxed);
            // Some come anew each time, as phones do.
            if n >= 8 || answer.headers.get("connection") == Some("close") || load.over.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}

impl Load {
    fn start(address: SocketAddr) -> (Arc<Self>, Vec<tokio::task::JoinHandle<()>>) {
        let load = Arc::new(Self::default());
        let clients = (0..12).map(|n| tokio::spawn(client(address, Arc::clone(&load), n))).collect();
        (load, clients)
    }

    async fn until_answered(&self, more: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + more;
        let wait = async {
            while self.answered.load(Ordering::Relaxed) < wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("the load goes on");
    }

    async fn end(&self, clients: Vec<tokio::task::JoinHandle<()>>) {
        self.over.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_new_process_takes_over_under_load_and_no_request_or_connection_is_lost() {
    let template = Served::start("", PUBLIC).await;
    let (address, admin) = (loopback(free_port()), loopback(free_port()));
    let dir = folder(&template, address, admin, "workers = 2", PUBLIC);
    let mut running = Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
    logged(&mut running, "no running gateway offers its sockets").await;
    assert_eq!(ready(&mut running).await, address);
    let (load, clients) = Load::start(address);
    load.until_answered(200).await;
    for _ in 0..3 {
        let mut next = Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
        assert_eq!(ready(&mut next).await, address);
        assert_eq!(running.exit().await, Exit::Code(0));
        assert!(running.output().stderr.concat().contains("another gateway takes over"));
        assert_eq!((status_of(admin, "/readyz").await, status_of(admin, "/livez").await), (200, 200));
        load.until_answered(200).await;
        running = next;
    }
    load.end(clients).await;
    running.terminate();
    assert_eq!(running.exit().await, Exit::Code(0));
    let left = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = left.filter(|name| name.starts_with("handover-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn on_a_supervisors_socket_too() {
    let template = Served::start("", PUBLIC).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let dir = folder(&template, address, loopback(0), "workers = 2", PUBLIC);
    let serve = |args: &[&str]| Process::wxgate_on(&listener, dir.path(), args);
    let mut running = serve(&["serve"]);
    assert_eq!(ready(&mut running).await, address);
    let (load, clients) = Load::start(address);
    load.until_answered(200).await;
    for _ in 0..3 {
        let mut next = serve(&["serve", "--takeover"]);
        logged(&mut next, "waiting for the gateway that has the database").await;
        load.until_answered(50).await;
        running.terminate();
        assert_eq!(running.exit().await, Exit::Code(0));
        assert_eq!(ready(&mut next).await, address);
        load.until_answered(200).await;
        running = next;
    }
    load.end(clients).await;
    running.terminate();
    assert_eq!(running.exit().await, Exit::Code(0));
}

/// A service that answers each WebSocket message with the same.
async fn socket_service() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn what_has_begun_ends_in_the_old_process_while_the_new_one_serves_already() {
    let template = Served::start("", PUBLIC).await;
    let (address, admin) = (loopback(free_port()), loopback(free_port()));
    let tables = format!(
        "[[upstream]]\nname = \"sockets\"\nservers = [\"http://{}\"]\n\
         [[route]]\npath = \"/ws/*\"\nupstream = \"sockets\"\nauth = \"none\"\nupgrade = [\"websocket\"]\n{PUBLIC}",
        socket_service().await
    );
    let dir = folder(&template, address, admin, "", &tables);
    let mut old = Process::wxgate_in(dir.path(), &["serve"]);
    ready(&mut old).await;
    let mut http1 = Client::connect(address).await;
    http1.send(get("/public/hold")).await;
    let mut http2 = http2::Client::connect(address).await;
    let held = http2.open(http2::get("http://a/public/hold"), "".into(), None).await.unwrap();
    template.upstream.until_requests(2).await;
    let url = format!("ws://{address}/ws/chat");
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));

    let mut new = Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
    // Before the new one is there: it waits in the queue, and is answered by the new one.
    logged(&mut old, "draining").await;
    ready(&mut new).await;
    let refresh = "POST /auth/refresh HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{\"refresh_token\":\"x\"}";
    assert_eq!(exchange(address, refresh).await.unwrap().status, 401);
    assert_eq!(status_of(admin, "/readyz").await, 200);
    let Message::Close(Some(close)) = socket.next().await.unwrap().unwrap() else { panic!("a close frame") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1001, "draining"));
    let (mut again, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    again.send(Message::text("there")).await.unwrap();
    assert_eq!(again.next().await.unwrap().unwrap(), Message::text("there"));

    template.upstream.release(2);
    let answer = http1.response().await.unwrap();
    assert_eq!((answer.status, answer.headers.get("connection")), (200, Some("close")));
    let held = tokio::time::timeout(DEADLINE, held).await.unwrap().unwrap();
    assert_eq!(held.status(), 200);
    drop((held, http2));
    assert_eq!(old.exit().await, Exit::Code(0));
    assert!(old.output().stderr.concat().contains("\"drained\""), "{:#?}", old.output().stderr);
}

#[tokio::test]
async fn with_a_shared_store_the_new_one_serves_before_the_old_one_is_told() {
    let (members, sessions) = (PostgresServer::start(), RedisServers::single());
    let template = Served::start("", PUBLIC).await;
    let address = loopback(free_port());
    let dir = folder(&template, address, loopback(0), "", PUBLIC);
    let file = dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text
        .replace("members = \"sqlite:wxgate.db\"", &format!("members = \"{}\"", members.url()))
        .replace("sessions = \"sqlite:wxgate.db\"", &format!("sessions = \"{}\"", sessions.url()));
    std::fs::write(&file, text).unwrap();
    let mut running = Process::wxgate_in(dir.path(), &["serve"]);
    ready(&mut running).await;
    let (load, clients) = Load::start(address);
    load.until_answered(200).await;
    for _ in 0..3 {
        let mut next = Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
        ready(&mut next).await;
        assert_eq!(running.exit().await, Exit::Code(0));
        load.until_answered(200).await;
        running = next;
    }
    load.end(clients).await;
}

#[tokio::test]
async fn one_that_cannot_start_leaves_the_running_one_alone() {
    let template = Served::start("", PUBLIC).await;
    let port = free_port();
    let dir = folder(&template, loopback(port), loopback(0), "", PUBLIC);
    let mut running = Process::wxgate_in(dir.path(), &["serve"]);
    ready(&mut running).await;
    let text = std::fs::read_to_string(dir.path().join("gateway.toml")).unwrap();
    for (n, (from, to, code, said)) in [
        ("[server]", "[server]\nnonsense = 1", 64, "nonsense"),
        ("\"127.0.0.1:", "\"127.0.0.2:", 1, "listens elsewhere"),
        (&format!("127.0.0.1:{port}"), "127.0.0.1:0", 1, "--takeover needs a port"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("new{n}.toml");
        std::fs::write(dir.path().join(&name), text.replacen(from, to, 1)).unwrap();
        let mut new = Process::wxgate_in(dir.path(), &["serve", "--takeover", "--config", &name]);
        assert_eq!(new.exit().await, Exit::Code(code), "{said}");
        assert!(new.output().stderr.concat().contains(said), "{said}: {:?}", new.output().stderr);
        assert_eq!(exchange(loopback(port), get("/healthz")).await.unwrap().status, 200);
    }
    // Without the flag nothing is taken over.
    let mut second = Process::wxgate_in(dir.path(), &["serve"]);
    assert_eq!(second.exit().await, Exit::Code(1));
    assert!(second.output().stderr.concat().contains("is in use by another gateway"));
    assert_eq!(exchange(loopback(port), get("/healthz")).await.unwrap().status, 200);
}

/// Who comes second is broken off when the first one has it all, and takes over from that one.
#[tokio::test]
async fn of_two_that_take_over_at_once_both_do_one_after_the_other() {
    let template = Served::start("", PUBLIC).await;
    let address = loopback(free_port());
    let dir = folder(&template, address, loopback(0), "", PUBLIC);
    let mut running = Process::wxgate_in(dir.path(), &["serve"]);
    ready(&mut running).await;
    let (load, clients) = Load::start(address);
    load.until_answered(50).await;
    let start = || Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
    let (mut one, mut other) = (start(), start());
    tokio::join!(ready(&mut one), ready(&mut other));
    assert_eq!(running.exit().await, Exit::Code(0));
    let first = tokio::select! {
        () = logged(&mut one, "another gateway takes over") => &mut one,
        () = logged(&mut other, "another gateway takes over") => &mut other,
    };
    assert_eq!(first.exit().await, Exit::Code(0));
    load.until_answered(50).await;
    load.end(clients).await;
}

/// The second of two upgrades, one right behind the other, may come before the first has put its offer there.
#[tokio::test]
async fn who_listens_and_offers_no_sockets_is_looked_at_again() {
    let template = Served::start("", PUBLIC).await;
    let listener = TcpListener::bind(loopback(free_port())).unwrap();
    let address = listener.local_addr().unwrap();
    let dir = folder(&template, address, loopback(0), "", PUBLIC);
    let mut new = Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
    logged(&mut new, "offers no sockets yet").await;
    drop(listener);
    assert_eq!(ready(&mut new).await, address);

    let listener = TcpListener::bind(loopback(free_port())).unwrap();
    let address = listener.local_addr().unwrap();
    let dir = folder(&template, address, loopback(0), "", PUBLIC);
    let start = || Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
    let (mut stopped, mut refused) = (start(), start());
    logged(&mut stopped, "offers no sockets yet").await;
    stopped.terminate();
    assert_eq!(stopped.exit().await, Exit::Code(0));
    assert_eq!(refused.exit().await, Exit::Code(1), "a stranger's port");
    assert!(refused.output().stderr.concat().contains("cannot listen on"), "{:?}", refused.output().stderr);
}

#[tokio::test]
async fn one_that_waits_can_be_told_to_stop() {
    let template = Served::start("", PUBLIC).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let dir = folder(&template, address, loopback(0), "", PUBLIC);
    let mut first = Process::wxgate_on(&listener, dir.path(), &["serve"]);
    ready(&mut first).await;
    let mut waiting = Process::wxgate_on(&listener, dir.path(), &["serve", "--takeover"]);
    logged(&mut waiting, "waiting for the gateway").await;
    waiting.terminate();
    assert_eq!(waiting.exit().await, Exit::Code(0));
    assert_eq!(exchange(address, get("/healthz")).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_passed_socket_that_no_listener_wants_is_refused() {
    let template = Served::start("", PUBLIC).await;
    let dir = folder(&template, loopback(0), loopback(0), "", PUBLIC);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut process = Process::wxgate_on(&listener, dir.path(), &["serve"]);
    assert_eq!(process.exit().await, Exit::Code(1));
    let said = process.output().stderr.concat();
    assert!(said.contains(&format!("a listening socket was passed for {}", listener.local_addr().unwrap())), "{said}");
}

/// What the old process can no longer know, it refuses: a token that its successor may have revoked.
#[tokio::test]
async fn after_its_successor_has_the_database_the_old_process_believes_no_token() {
    let template = Served::start("", PUBLIC).await;
    let address = loopback(free_port());
    let apps = vec![(AppId::parse("wx0123456789abcdef").unwrap(), Secret::new("a-secret-of-an-app".to_owned()))];
    let wechat = SimulatorConfig { listen: loopback(0), clock: Clock::system(), apps: Some(apps) };
    let wechat = Simulator::start(wechat).await.unwrap();
    let tables = format!(
        "[wechat]\napi_base = \"{}\"\n[[route]]\npath = \"/api/*\"\nupstream = \"echo\"\n{PUBLIC}",
        wechat.api_base()
    );
    let dir = folder(&template, address, loopback(0), "", &tables);
    let mut old = Process::wxgate_in(dir.path(), &["serve"]);
    ready(&mut old).await;
    let code = format!("{{\"code\":\"{}\"}}", wechat.issue_code(None, "alice"));
    let login = format!(
        "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{code}",
        code.len()
    );
    let token = exchange(address, login).await.unwrap().json()["access_token"].as_str().unwrap().to_owned();
    let api = get("/api/x").replace("Host: a", &format!("Host: a\r\nAuthorization: Bearer {token}"));
    assert_eq!(exchange(address, &api).await.unwrap().status, 200);
    // Its head goes out before the drain, and so its connection may be used once more.
    let mut client = Client::connect(address).await;
    client.send(get("/public/drip")).await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"first\r\n") {
        seen.extend(client.bytes(1).await.unwrap());
    }
    let mut new = Process::wxgate_in(dir.path(), &["serve", "--takeover"]);
    ready(&mut new).await;
    template.upstream.release(1);
    client.send(&api).await;
    assert_eq!(client.bytes(14).await.unwrap(), b"4\r\nlast\r\n0\r\n\r\n");
    let answer = client.response().await.unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_str().unwrap()), (503, "store_unavailable"));
    assert_eq!(exchange(address, &api).await.unwrap().status, 200, "the new one knows it");
    assert_eq!(old.exit().await, Exit::Code(0));
}
