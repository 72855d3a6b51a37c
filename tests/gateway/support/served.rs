//! `wxgate serve` as a process of its own, in front of a service of the test's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::process::Process;
use super::upstream::Upstream;

/// A served gateway; its process is killed when this goes.
#[derive(Debug)]
pub(crate) struct Served {
    /// The process.
    pub(crate) process: Process,
    /// The public listener.
    pub(crate) address: SocketAddr,
    /// The operators' listener.
    pub(crate) admin: SocketAddr,
    /// The service behind it, `upstream = "echo"`.
    pub(crate) upstream: Upstream,
    dir: TempDir,
}

/// A route to the service that needs no token.
pub(crate) const PUBLIC: &str = "[[route]]\npath = \"/public/*\"\nupstream = \"echo\"\nauth = \"none\"\n";

impl Served {
    /// With these lines in `[server]` and these tables.
    pub(crate) async fn start(server: &str, tables: &str) -> Self {
        Self::run(server, tables, |folder| Process::wxgate_in(folder, &["serve"])).await
    }

    /// As [`Served::start`], run by `run` in the folder of its file.
    pub(crate) async fn run(server: &str, tables: &str, run: impl Fn(&Path) -> Process) -> Self {
        let upstream = Upstream::echo().await;
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("gateway.toml"), text(&upstream, server, tables)).unwrap();
        let mut process = run(dir.path());
        let (address, admin) = process.line(ready).await;
        Self { process, address, admin, upstream, dir }
    }

    /// Its configuration file.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("gateway.toml")
    }

    /// What the file would say with these lines and tables.
    pub(crate) fn text(&self, server: &str, tables: &str) -> String {
        text(&self.upstream, server, tables)
    }

    /// Saves the file with these lines and tables.
    pub(crate) fn save(&self, server: &str, tables: &str) {
        std::fs::write(self.file(), self.text(server, tables)).unwrap();
    }

    /// Waits for a log line that holds all of these.
    pub(crate) async fn logged(&mut self, parts: &[&str]) {
        self.process.line(|line| parts.iter().all(|part| line.contains(part)).then_some(())).await;
    }
}

fn text(upstream: &Upstream, server: &str, tables: &str) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n{server}\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [token]\nissuer = \"https://api.example.com\"\nkeys = \"keys\"\n\
         [store]\nmembers = \"sqlite:wxgate.db\"\nsessions = \"sqlite:wxgate.db\"\n\
         [[app]]\nappid = \"wx0123456789abcdef\"\nsecret = \"a-secret-of-an-app\"\n\
         [[upstream]]\nname = \"echo\"\nservers = [\"{}\"]\n{tables}",
        upstream.url()
    )
}

/// Both addresses in the line that says that the gateway is ready.
pub(crate) fn ready(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    if line["message"] != "wxgate is ready" {
        return None;
    }
    let address = |name: &str| line[name].as_str()?.trim_matches(['[', ']']).parse().ok();
    Some((address("public")?, address("admin")?))
}
