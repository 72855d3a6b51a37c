//! What a login and a refresh cost: the real binary in front of a simulated WeChat, durable as in production.
//!
//! `cargo bench --bench logins -- --help` says what can be asked. Callers, the simulator and the gateway share the machine's
//! cores, so requests per second are a lower bound; CPU per operation is the gateway's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use wxgate::clock::{Clock, Timestamp};
use wxgate::ids::{AppId, MemberId, OpenId, SessionId};
use wxgate::store::sqlite::Sqlite;
use wxgate::store::{CodeHash, NewSession, RefreshHash, Session, Sessions as _};
use wxgate::wechat::simulator::{Fault, Simulator, SimulatorConfig};

#[derive(Debug, Clone, Parser)]
struct Wish {
    /// Logins, and then refreshes, of each round.
    #[arg(long, default_value_t = 20_000)]
    operations: u64,
    /// Callers at once, each with a connection of its own.
    #[arg(long, default_value_t = 64)]
    callers: u64,
    /// Rounds; the table shows each.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long WeChat takes for each code, ms.
    #[arg(long, default_value_t = 0)]
    wechat_ms: u64,
    /// `[store] members`; by default an SQLite file in a new folder.
    #[arg(long)]
    members: Option<String>,
    /// `[store] sessions`; as above.
    #[arg(long)]
    sessions: Option<String>,
    /// Instead: how long a start takes with so many sessions in SQLite, of which every hundredth is revoked.
    #[arg(long)]
    restart_with: Option<u64>,
    /// `cargo bench` says this.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() {
    let wish = Wish::parse();
    let folder = tempfile::tempdir().unwrap();
    match wish.restart_with {
        Some(sessions) => restart(folder.path(), sessions).await,
        None => measure(folder.path(), &wish).await,
    }
}

// --- the gateway --------------------------------------------------------------------------------------------------

struct Gateway {
    child: Child,
    public: SocketAddr,
    admin: SocketAddr,
    ready_after: Duration,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_file(folder: &Path, api_base: &str, wish: Option<&Wish>) {
    let store = |chosen: Option<&String>| chosen.cloned().unwrap_or_else(|| "sqlite:wxgate.db".to_owned());
    let (members, sessions) =
        (store(wish.and_then(|w| w.members.as_ref())), store(wish.and_then(|w| w.sessions.as_ref())));
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [token]\nissuer = \"https://api.example.com\"\nkeys = \"keys\"\n\
         [store]\nmembers = \"{members}\"\nsessions = \"{sessions}\"\n\
         [wechat]\napi_base = \"{api_base}\"\n\
         [[app]]\nappid = \"wx0123456789abcdef\"\nsecret = \"a-secret-of-an-app\"\n"
    );
    std::fs::write(folder.join("gateway.toml"), text).unwrap();
}

#[expect(clippy::zombie_processes, reason = "a Gateway waits for its process when it goes")]
fn start(folder: &Path) -> Gateway {
    let log = folder.join("log");
    let begun = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_wxgate"))
        .arg("serve")
        .current_dir(folder)
        .stdout(std::fs::File::create(&log).unwrap())
        .stderr(std::fs::File::create(folder.join("errors")).unwrap())
        .spawn()
        .unwrap();
    let ready = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        let address = |name: &str| line[name].as_str()?.trim_matches(['[', ']']).parse().ok();
        (line["message"] == "wxgate is ready").then(|| Some((address("public")?, address("admin")?)))?
    };
    loop {
        let written = ["log", "errors"].map(|name| std::fs::read_to_string(folder.join(name)).unwrap_or_default());
        if let Some((public, admin)) = written.iter().flat_map(|text| text.lines()).find_map(ready) {
            return Gateway { child, public, admin, ready_after: begun.elapsed() };
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the gateway never got ready: {written:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Gateway {
    /// User and system time so far, and resident memory in bytes.
    fn used(&self) -> (Duration, u64) {
        let read =
            |name: &str| std::fs::read_to_string(PathBuf::from(format!("/proc/{}/{name}", self.child.id()))).unwrap();
        let stat = read("stat");
        // After the name, which stands in brackets: utime and stime are the 12th and 13th, in ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        let status = read("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        (Duration::from_millis(10 * ticks), kib * 1024)
    }

    /// A counter of `/metrics`; `None` where the store has none.
    async fn counter(&self, name: &str) -> Option<f64> {
        let mut caller = Caller::connect(self.admin).await;
        let text = caller.call(Request::get("/metrics").body(Full::default()).unwrap()).await.1;
        let line = text.lines().find(|line| line.starts_with(name))?.to_owned();
        line.rsplit_once(' ')?.1.parse().ok()
    }
}

// --- the callers --------------------------------------------------------------------------------------------------

struct Caller(http1::SendRequest<Full<Bytes>>);

impl Caller {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn call(&mut self, mut request: Request<Full<Bytes>>) -> (u16, String) {
        request.headers_mut().insert("host", "127.0.0.1".parse().unwrap());
        self.0.ready().await.unwrap();
        let response = self.0.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post(&mut self, path: &str, body: &Value) -> Value {
        let request = Request::post(path).header("content-type", "application/json");
        let (status, text) = self.call(request.body(Full::from(body.to_string())).unwrap()).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

/// Has all callers do it, `operations` times in all; what each is left with goes on to the next measurement.
async fn all<T: Send + 'static, F: Future<Output = (Caller, T)> + Send>(
    callers: Vec<(Caller, T)>,
    operations: u64,
    one: impl Fn(u64, Caller, T) -> F + Send + Sync + Clone + 'static,
) -> Vec<(Caller, T)> {
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|(mut caller, mut state)| {
            let (next, one) = (Arc::clone(&next), one.clone());
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= operations {
                        return (caller, state);
                    }
                    (caller, state) = one(n, caller, state).await;
                }
            })
        })
        .collect();
    let mut left = Vec::new();
    for task in tasks {
        left.push(task.await.unwrap());
    }
    left
}

async fn measure(folder: &Path, wish: &Wish) {
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = SimulatorConfig { listen, clock: Clock::system(), apps: None };
    let wechat = Arc::new(Simulator::start(config).await.unwrap());
    if wish.wechat_ms > 0 {
        wechat.fault("/sns/jscode2session", u32::MAX, Fault::Delay(Duration::from_millis(wish.wechat_ms)));
    }
    write_file(folder, &wechat.api_base(), Some(wish));
    let gateway = start(folder);
    println!(
        "members {}, sessions {}, WeChat {} ms, {} callers, {} operations a row",
        wish.members.as_deref().unwrap_or("sqlite"),
        wish.sessions.as_deref().unwrap_or("sqlite"),
        wish.wechat_ms,
        wish.callers,
        wish.operations
    );
    println!("| operation | per second | gateway CPU, µs each | commits each | RSS, MiB |");
    println!("| --- | --- | --- | --- | --- |");
    // The names differ between rounds and runs: every login is of somebody new, the costly case.
    let run = std::process::id();
    for round in 0..wish.rounds {
        let mut callers = Vec::new();
        for _ in 0..wish.callers {
            callers.push((Caller::connect(gateway.public).await, String::new()));
        }
        let before = Figures::of(&gateway).await;
        let simulator = Arc::clone(&wechat);
        let callers = all(callers, wish.operations, move |n, mut caller, _| {
            let code = simulator.issue_code(None, &format!("u{run}-{round}-{n}"));
            async move {
                let answer = caller.post("/auth/login", &json!({ "code": code })).await;
                let refresh = answer["refresh_token"].as_str().unwrap().to_owned();
                (caller, refresh)
            }
        })
        .await;
        before.print("login", &gateway, wish.operations).await;
        let before = Figures::of(&gateway).await;
        let with_session = callers.into_iter().filter(|(_, refresh)| !refresh.is_empty()).collect();
        all(with_session, wish.operations, |_, mut caller: Caller, refresh: String| async move {
            let answer = caller.post("/auth/refresh", &json!({ "refresh_token": refresh })).await;
            let refresh = answer["refresh_token"].as_str().unwrap().to_owned();
            (caller, refresh)
        })
        .await;
        before.print("refresh", &gateway, wish.operations).await;
    }
}

struct Figures {
    at: Instant,
    cpu: Duration,
    commits: Option<f64>,
}

impl Figures {
    async fn of(gateway: &Gateway) -> Self {
        let commits = gateway.counter("wxgate_store_commits_total").await;
        Self { at: Instant::now(), cpu: gateway.used().0, commits }
    }

    async fn print(&self, what: &str, gateway: &Gateway, operations: u64) {
        let (elapsed, (cpu, rss)) = (self.at.elapsed(), gateway.used());
        let commits = gateway.counter("wxgate_store_commits_total").await;
        let commits = self.commits.zip(commits).map(|(before, after)| (after - before) / operations as f64);
        println!(
            "| {what} | {:.0} | {:.0} | {} | {:.1} |",
            operations as f64 / elapsed.as_secs_f64(),
            (cpu - self.cpu).as_micros() as f64 / operations as f64,
            commits.map_or_else(|| "–".to_owned(), |each| format!("{each:.3}")),
            rss as f64 / f64::from(1 << 20)
        );
    }
}

// --- a start with many sessions -------------------------------------------------------------------------------------

async fn restart(folder: &Path, sessions: u64) {
    write_file(folder, "http://127.0.0.1:9", None);
    // Once empty: keys and tables are made then.
    println!("empty: ready after {:?}", start(folder).ready_after);
    let now = Clock::system().now();
    let store = Sqlite::open(&folder.join("wxgate.db")).unwrap();
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for n in 0..sessions {
        let store = Arc::clone(&store);
        tasks.push(tokio::spawn(async move {
            store.open(session(n, now)).await.unwrap();
            if n % 100 == 0 {
                store.end(&SessionId::parse(&format!("s{n}")).unwrap(), now, now.plus(DAY)).await.unwrap();
            }
        }));
        if tasks.len() == 512 {
            for task in tasks.drain(..) {
                task.await.unwrap();
            }
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    println!("{sessions} sessions written in {:?}", begun.elapsed());
    drop(store);
    for _ in 0..5 {
        let gateway = start(folder);
        println!(
            "{sessions} sessions, {} revoked: ready after {:?}, RSS {:.1} MiB",
            sessions.div_ceil(100),
            gateway.ready_after,
            gateway.used().1 as f64 / f64::from(1 << 20)
        );
    }
}

const DAY: Duration = Duration::from_secs(86_400);

fn session(n: u64, now: Timestamp) -> NewSession {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&n.to_be_bytes());
    NewSession {
        session: Session {
            session_id: SessionId::parse(&format!("s{n}")).unwrap(),
            member_id: MemberId::parse(&format!("m{n}")).unwrap(),
            appid: AppId::parse("wx0123456789abcdef").unwrap(),
            openid: OpenId::parse(&format!("o{n}")).unwrap(),
            created_at: now,
            expires_at: now.plus(180 * DAY),
        },
        refresh: RefreshHash(hash),
        refresh_expires_at: now.plus(30 * DAY),
        code: CodeHash(hash),
        code_expires_at: now.plus(Duration::from_secs(600)),
        is_new: true,
        session_key: None,
        access_until: now.plus(Duration::from_secs(7200)),
        max_sessions: None,
    }
}
