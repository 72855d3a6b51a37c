//! The gateway: a process of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::callers::Caller;
use crate::cpu;
use crate::stores::Stores;

pub(crate) struct Gateway {
    child: Child,
    pub(crate) public: SocketAddr,
    admin: SocketAddr,
    pub(crate) ready_after: Duration,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes `gateway.toml` with default settings but for the stores.
pub(crate) fn configure(folder: &Path, api_base: &str, stores: &Stores) {
    let (members, sessions) = (stores.members(), stores.sessions());
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
pub(crate) fn start(binary: &Path, folder: &Path) -> Gateway {
    let log = folder.join("log");
    let begun = Instant::now();
    let child = Command::new(binary)
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
    fn status(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap()
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Duration {
        cpu::of(&self.child.id().to_string())
    }

    /// That part of it that the embedded store took.
    pub(crate) fn cpu_of_store(&self) -> Duration {
        cpu::of_threads(&self.child.id().to_string(), "store-")
    }

    /// Resident memory, bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = self.status("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// Transactions of SQLite so far; with Postgres, statements by which people signed in. `None` where the binary counts neither.
    pub(crate) async fn commits(&self) -> Option<f64> {
        let text = Caller::connect(self.admin).await.get("/metrics").await;
        let names = ["wxgate_store_commits_total ", "wxgate_store_sign_in_statements_total "];
        let line = text.lines().find(|line| names.iter().any(|name| line.starts_with(name)))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }
}
