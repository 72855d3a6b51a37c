//! The whole gateway in the test's process: real sockets on free ports, a WeChat simulator, a service behind it, a clock
//! that moves only when told, and a log that can be read.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tempfile::TempDir;
use wxgate::cli::serve::Running;
use wxgate::clock::{Clock, Timestamp};
use wxgate::config::{self, Environment};
use wxgate::ids::{AppId, Secret};
use wxgate::server::drain::Drained;
use wxgate::telemetry::{Format, LogWriter};
use wxgate::wechat::simulator::{Simulator, SimulatorConfig};

use super::upstream::Upstream;

/// The app that every test gateway serves.
pub(crate) const APPID: &str = "wx0123456789abcdef";
/// Its secret; must never be seen anywhere.
pub(crate) const SECRET: &str = "planted-app-secret-5e0c1d";
/// An app that WeChat knows too; a test that wants the gateway to serve it adds [`OTHER_APP`] to its tables.
pub(crate) const OTHER_APPID: &str = "wxfedcba9876543210";
/// Its table.
pub(crate) const OTHER_APP: &str = r#"
[[app]]
appid = "wxfedcba9876543210"
secret = "planted-other-secret-77aa31"
"#;
/// When a test's clock starts: 2026-11-21T00:00:00Z.
pub(crate) const START: i64 = 1_795_219_200;

/// Where a test's log lines end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Everything so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// The first line that `wanted` is true of; waits for it to be written. Every line must be a JSON object.
    pub(crate) async fn until_line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let find = async {
            loop {
                let text = self.text();
                // The last line may be half written.
                let whole = text.rfind('\n').map_or("", |end| &text[..end]);
                let mut lines =
                    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")));
                if let Some(line) = lines.find(|line| wanted(line)) {
                    return line;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(super::DEADLINE, find).await.unwrap_or_else(|_| panic!("no such line in {}", self.text()))
    }
}

impl Write for Log {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A running gateway and what stands around it.
#[derive(Debug)]
pub(crate) struct Gateway {
    running: Option<Running>,
    /// WeChat.
    pub(crate) wechat: Simulator,
    /// The service behind it, `upstream = "echo"`.
    pub(crate) upstream: Upstream,
    /// Its clock.
    pub(crate) clock: Clock,
    /// Its log.
    pub(crate) log: Log,
    /// Its folder.
    pub(crate) dir: TempDir,
    client: reqwest::Client,
}

/// The routes that a gateway has unless a test says otherwise.
pub(crate) const ROUTES: &str = r#"
[[route]]
path = "/api/*"
upstream = "echo"

[[route]]
path = "/optional/*"
upstream = "echo"
auth = "optional"

[[route]]
path = "/public/*"
upstream = "echo"
auth = "none"
"#;

impl Gateway {
    /// With [`ROUTES`] and defaults.
    pub(crate) async fn start() -> Self {
        Self::with(ROUTES).await
    }

    /// With these tables in place of [`ROUTES`]. A table that the harness writes itself (`server`, `admin`, `token`,
    /// `store`, `wechat`, `app`) is extended by lines of the form `server.max_uri = "1KiB"` at the very top.
    pub(crate) async fn with(tables: &str) -> Self {
        Self::in_dir(tempfile::tempdir().unwrap(), tables).await
    }

    /// As [`Gateway::with`], in a folder that may hold the data of an earlier one.
    pub(crate) async fn in_dir(dir: TempDir, tables: &str) -> Self {
        Self::assemble(dir, None, tables).await
    }

    /// As [`Gateway::with`], where this address stands in for WeChat.
    pub(crate) async fn with_wechat_at(api_base: &str, tables: &str) -> Self {
        Self::assemble(tempfile::tempdir().unwrap(), Some(api_base), tables).await
    }

    /// Another instance: with the keys of this one, and its WeChat.
    pub(crate) async fn beside(&self, tables: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (self.dir.path().join("keys"), dir.path().join("keys"));
        // There are none where the keys are in the store.
        for file in std::fs::read_dir(from).into_iter().flatten() {
            wxgate::keyfile::create_dir(&to).unwrap();
            let file = file.unwrap();
            // Copied with its mode.
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        Self::assemble(dir, Some(&self.wechat.api_base()), tables).await
    }

    async fn assemble(dir: TempDir, api_base: Option<&str>, tables: &str) -> Self {
        let clock = Clock::manual(Timestamp::from_secs(START));
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let app = |appid: &str, secret: &str| (AppId::parse(appid).unwrap(), Secret::new(secret.to_owned()));
        let apps = vec![app(APPID, SECRET), app(OTHER_APPID, "planted-other-secret-77aa31")];
        let simulator = SimulatorConfig { listen: loopback, clock: clock.clone(), apps: Some(apps) };
        let wechat = Simulator::start(simulator).await.unwrap();
        let upstream = Upstream::echo().await;
        let log = Log::default();
        let path = dir.path().join("gateway.toml");
        let text = configuration(api_base.unwrap_or(&wechat.api_base()), upstream.address(), tables);
        std::fs::write(&path, &text).unwrap();
        let config = config::parse(&text, &path, &Environment::of([])).unwrap_or_else(|faults| panic!("{faults}"));
        let writer = LogWriter::to(Format::Json, Box::new(log.clone()));
        let running = Running::start(config, clock.clone(), writer).await.unwrap_or_else(|error| panic!("{error:#}"));
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { running: Some(running), wechat, upstream, clock, log, dir, client }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the gateway was stopped")
    }

    /// The gateway itself.
    pub(crate) fn inner(&self) -> &Arc<wxgate::gateway::Gateway> {
        &self.running().gateway
    }

    /// The public listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.running().server.addresses()[0]
    }

    /// The listener that redirects.
    pub(crate) fn redirect_address(&self) -> SocketAddr {
        self.running().server.redirect_addresses()[0]
    }

    /// A URL on the public listener.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// A URL on the operators' listener.
    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running().server.admin_address())
    }

    /// A URL on the services' listener.
    pub(crate) fn internal_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running().server.internal_address().unwrap())
    }

    /// An HTTP client for requests that need nothing special.
    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// POSTs JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.client.post(self.url(path)).json(body).send().await.unwrap()).await
    }

    /// GETs with an access token, or without.
    pub(crate) async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        let mut request = self.client.get(self.url(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        Answer::of(request.send().await.unwrap()).await
    }

    /// Logs `user` in with a fresh code.
    pub(crate) async fn login(&self, user: &str) -> Member {
        let code = self.wechat.issue_code(None, user);
        let answer = self.post("/auth/login", &serde_json::json!({ "code": code })).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        Member { answer: answer.json() }
    }

    /// Drains it as SIGTERM would.
    pub(crate) async fn stop(&mut self) -> Drained {
        self.running.take().expect("stopped twice").stop().await
    }

    /// Stops it and waits until its database is closed; gives back its folder.
    pub(crate) async fn end(mut self) -> TempDir {
        self.stop().await;
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        drop(self);
        let lock = dir.path().join("wxgate.db.lock");
        if lock.exists() {
            until_free(&lock).await;
        }
        dir
    }

    /// Stops it and starts another in the same folder.
    pub(crate) async fn restart(self, tables: &str) -> Self {
        Self::in_dir(self.end().await, tables).await
    }

    /// Runs SQL on the gateway's database, from outside and beside it: what a fault or another actor would do there.
    pub(crate) fn meddle(&self, sql: &str) {
        let db = rusqlite::Connection::open(self.dir.path().join("wxgate.db")).unwrap();
        db.busy_timeout(super::DEADLINE).unwrap();
        db.execute_batch(sql).unwrap();
    }

    /// Waits until a figure of the metrics page is at least `n`; the name with its labels.
    pub(crate) async fn until_metric(&self, name: &str, n: u64) {
        let wait = async {
            loop {
                let page = self.client.get(self.admin_url("/metrics")).send().await.unwrap().text().await.unwrap();
                let value = page.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok());
                if value.is_some_and(|value| value >= n as f64) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(super::DEADLINE, wait).await.unwrap_or_else(|_| panic!("{name} never reached {n}"));
    }
}

/// Waits until nobody holds this lock: what was left of a stopped gateway's tasks has gone.
async fn until_free(lock: &std::path::Path) {
    let lock = std::fs::File::open(lock).unwrap();
    let wait = async {
        while lock.try_lock().is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::DEADLINE, wait).await.expect("the stopped gateway never let go of its database");
}

fn configuration(api_base: &str, upstream: SocketAddr, tables: &str) -> String {
    // Lines such as `server.max_uri = …` stand before the first table.
    let starts = |line: &&str| line.trim_start().starts_with('[');
    let at = tables.split_inclusive('\n').take_while(|line| !starts(line)).map(str::len).sum();
    let (top, tables) = tables.split_at(at);
    let own = |section: &str| -> String {
        let prefix = format!("{section}.");
        top.lines().filter_map(|l| l.trim().strip_prefix(&prefix)).map(|l| format!("{l}\n")).collect()
    };
    let (server, token, wechat, app) = (own("server"), own("token"), own("wechat"), own("app"));
    let store = own("store");
    let keys = if token.contains("keys = ") { "" } else { "keys = \"keys\"\n" };
    let embedded = |key: &str| match store.contains(&format!("{key} = ")) {
        true => String::new(),
        false => format!("{key} = \"sqlite:wxgate.db\"\n"),
    };
    let store = format!("{}{}{store}", embedded("members"), embedded("sessions"));
    format!(
        r#"[server]
listen = ["127.0.0.1:0"]
{server}
[admin]
listen = "127.0.0.1:0"
[internal]
listen = "127.0.0.1:0"
[token]
issuer = "https://api.example.com"
{keys}{token}
[store]
{store}
[wechat]
api_base = "{api_base}"
open_base = "{api_base}"
{wechat}
[[app]]
appid = "{APPID}"
secret = "{SECRET}"
{app}
[[upstream]]
name = "echo"
servers = ["http://{upstream}"]
{tables}"#
    )
}

/// Somebody who is logged in.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// The token answer.
    pub(crate) answer: Value,
}

impl Member {
    fn text(&self, name: &str) -> &str {
        self.answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.answer))
    }

    /// The access token.
    pub(crate) fn token(&self) -> &str {
        self.text("access_token")
    }

    /// The refresh token.
    pub(crate) fn refresh(&self) -> &str {
        self.text("refresh_token")
    }

    /// The openid.
    pub(crate) fn openid(&self) -> &str {
        self.text("openid")
    }

    /// The id of the session.
    pub(crate) fn session(&self) -> String {
        claims(self.token())["sid"].as_str().unwrap().to_owned()
    }

    /// The member id.
    pub(crate) fn id(&self) -> &str {
        self.text("member_id")
    }
}

/// What a JWT says.
pub(crate) fn claims(token: &str) -> Value {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Status.
    pub(crate) status: u16,
    /// Headers.
    pub(crate) headers: http::HeaderMap,
    /// Body.
    pub(crate) body: String,
}

impl Answer {
    /// Reads it.
    pub(crate) async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, body: response.text().await.unwrap() }
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The problem's code; checks that it is a problem.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.body);
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        problem["code"].as_str().unwrap().to_owned()
    }
}
