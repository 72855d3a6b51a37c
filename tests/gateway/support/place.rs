//! `wxgate serve` as a process of its own, with WeChat and a service in the test's process: for what only a process can
//! show, such as its death.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use wxgate::clock::Clock;
use wxgate::ids::{AppId, Secret};
use wxgate::wechat::simulator::{Simulator, SimulatorConfig};

use super::gateway::{APPID, Answer, Member, ROUTES, SECRET};
use super::process::Process;
use super::upstream::Upstream;

/// What stands around the process and outlives it: its folder, WeChat, the service.
#[derive(Debug)]
pub(crate) struct Place {
    /// Configuration, keys and database.
    pub(crate) dir: TempDir,
    /// WeChat.
    pub(crate) wechat: Simulator,
    /// The service, `upstream = "echo"`.
    pub(crate) upstream: Upstream,
}

impl Place {
    /// A folder with a `gateway.toml`; these lines go to `[token]`.
    pub(crate) async fn new(token: &str) -> Self {
        Self::with_stores(token, "sqlite:data/wxgate.db", "sqlite:data/wxgate.db").await
    }

    /// As [`Place::new`], with these stores.
    pub(crate) async fn with_stores(token: &str, members: &str, sessions: &str) -> Self {
        let apps = Some(vec![(AppId::parse(APPID).unwrap(), Secret::new(SECRET.to_owned()))]);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let wechat = Simulator::start(SimulatorConfig { listen, clock: Clock::system(), apps }).await.unwrap();
        let upstream = Upstream::echo().await;
        let dir = tempfile::tempdir().unwrap();
        let (api_base, service) = (wechat.api_base(), upstream.url());
        let text = format!(
            r#"[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[token]
issuer = "https://api.example.com"
keys = "data/keys"
{token}
[store]
members = "{members}"
sessions = "{sessions}"
[wechat]
api_base = "{api_base}"
[[app]]
appid = "{APPID}"
secret = "{SECRET}"
[[upstream]]
name = "echo"
servers = ["{service}"]
{ROUTES}"#
        );
        std::fs::write(dir.path().join("gateway.toml"), text).unwrap();
        Self { dir, wechat, upstream }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the gateway and waits until it is ready.
    pub(crate) async fn serve(&self) -> Served {
        self.serve_with(&[]).await
    }

    /// As [`Place::serve`], with these variables in its environment.
    pub(crate) async fn serve_with(&self, environment: &[(&str, &str)]) -> Served {
        self.ready(Process::wxgate_with(self.path(), &["serve"], environment)).await
    }

    /// As [`Place::serve`], where no file can grow beyond `blocks` of 512 bytes: a full disk, as far as a process can tell.
    pub(crate) async fn serve_with_disk_of(&self, blocks: u32) -> Served {
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec '{}' serve", env!("CARGO_BIN_EXE_wxgate"));
        self.ready(Process::shell(self.path(), &script)).await
    }

    async fn ready(&self, mut process: Process) -> Served {
        let ready = process
            .line(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["message"] == "wxgate is ready").then_some(line)
            })
            .await;
        let address = |name: &str| ready[name].as_str().unwrap().trim_matches(['[', ']']).parse().unwrap();
        let (public, admin) = (address("public"), address("admin"));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Served { process, public, admin, client }
    }
}

/// The running process.
#[derive(Debug)]
pub(crate) struct Served {
    /// The process.
    pub(crate) process: Process,
    public: SocketAddr,
    admin: SocketAddr,
    client: reqwest::Client,
}

impl Served {
    /// The public listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.public
    }

    /// A handle for tasks that go on asking when the process is gone.
    pub(crate) fn caller(&self) -> Caller {
        Caller { base: format!("http://{}", self.public), client: self.client.clone() }
    }

    /// A page of the operators' listener.
    pub(crate) async fn admin(&self, path: &str) -> Answer {
        Answer::of(self.client.get(format!("http://{}{path}", self.admin)).send().await.unwrap()).await
    }
}

/// Asks a gateway that may die at any moment: every answer is an `Option`.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    base: String,
    client: reqwest::Client,
}

impl Caller {
    /// Sends a request; the answer, if it came whole.
    pub(crate) async fn ask(
        &self,
        method: http::Method,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Option<Answer> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if !body.is_null() {
            request = request.json(body);
        }
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Some(Answer { status, headers, body: response.text().await.ok()? })
    }

    /// A login with this code.
    pub(crate) async fn login(&self, code: &str) -> Option<Member> {
        let answer = self.ask(http::Method::POST, "/auth/login", None, &json!({ "code": code })).await?;
        assert_eq!(answer.status, 200, "{}", answer.body);
        Some(Member { answer: answer.json() })
    }

    /// A refresh with this token.
    pub(crate) async fn refresh(&self, token: &str) -> Option<Answer> {
        self.ask(http::Method::POST, "/auth/refresh", None, &json!({ "refresh_token": token })).await
    }

    /// A GET with this access token.
    pub(crate) async fn get(&self, path: &str, token: &str) -> Option<Answer> {
        self.ask(http::Method::GET, path, Some(token), &Value::Null).await
    }
}
