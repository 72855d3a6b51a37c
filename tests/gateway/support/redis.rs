//! Real Redis servers on free ports: one, a cluster of three, or two watched by sentinels. They end with the process that
//! started them.

#![allow(dead_code)] // each test binary uses a part

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::held::{Held, free_port, until};

/// Runs redis-cli against a port; what it prints.
pub(crate) fn cli(port: u16, args: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(args).output();
    let output = output.expect("redis-cli is needed: install Redis (Debian: apt-get install redis-server)");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where it listens, on loopback.
    pub(crate) port: u16,
    held: Option<Held>,
    arguments: String,
    folder: PathBuf,
}

impl Server {
    fn start(folder: &Path, extra: &str) -> Self {
        let port = free_port();
        let folder = folder.join(port.to_string());
        std::fs::create_dir(&folder).unwrap();
        let arguments = format!(
            "redis-server --port {port} --bind 127.0.0.1 --save '' --appendonly yes --appendfsync always {extra}"
        );
        let mut server = Self { port, held: None, arguments, folder };
        server.run();
        server
    }

    /// Starts it (again), with the data that it had.
    pub(crate) fn run(&mut self) {
        self.held = Some(Held::start(&self.arguments, &self.folder, "redis"));
        until("Redis to answer", || cli(self.port, &["ping"]).trim() == "PONG");
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<String> {
        self.held.as_ref().map(Held::pid)
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.held = None;
    }

    /// Ends it, and with it all that it held.
    pub(crate) fn lose(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(self.folder.join("appendonlydir"));
    }

    /// Stops it in its tracks (it takes connections and answers nothing), or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.held.as_ref().unwrap().signal(if frozen { "STOP" } else { "CONT" });
    }
}

/// Servers that belong together.
#[derive(Debug)]
pub(crate) struct RedisServers {
    /// Those that hold data.
    pub(crate) servers: Vec<Server>,
    sentinels: Vec<Server>,
    scheme: &'static str,
    folder: TempDir,
}

impl RedisServers {
    /// One server that syncs each write.
    pub(crate) fn single() -> Self {
        Self::single_with("")
    }

    /// One server with these settings in the end.
    pub(crate) fn single_with(extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let servers = vec![Server::start(folder.path(), extra)];
        Self { servers, sentinels: Vec::new(), scheme: "redis", folder }
    }

    /// Three masters that share the slots.
    pub(crate) fn cluster() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let servers: Vec<_> = (0..3)
            .map(|_| {
                let bus = free_port();
                let extra = format!("--cluster-enabled yes --cluster-config-file nodes.conf --cluster-port {bus} --cluster-node-timeout 2000");
                Server::start(folder.path(), &extra)
            })
            .collect();
        let nodes: Vec<String> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        let mut create = vec!["--cluster", "create"];
        create.extend(nodes.iter().map(String::as_str));
        create.push("--cluster-yes");
        let said = cli(servers[0].port, &create);
        assert!(said.contains("All 16384 slots covered"), "{said}");
        for server in &servers {
            until("the cluster to stand", || cli(server.port, &["cluster", "info"]).contains("cluster_state:ok"));
        }
        Self { servers, sentinels: Vec::new(), scheme: "redis+cluster", folder }
    }

    /// A server, a replica of it, and three sentinels that watch them.
    pub(crate) fn sentinel() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let first = Server::start(folder.path(), "");
        let replica = Server::start(folder.path(), &format!("--replicaof 127.0.0.1 {}", first.port));
        until("the replica to follow", || {
            cli(replica.port, &["info", "replication"]).contains("master_link_status:up")
        });
        let sentinels: Vec<_> = (0..3)
            .map(|n| {
                let config = folder.path().join(format!("sentinel-{n}.conf"));
                let text = format!(
                    "sentinel monitor main 127.0.0.1 {} 2\nsentinel down-after-milliseconds main 500\n\
                     sentinel failover-timeout main 5000\n",
                    first.port
                );
                std::fs::write(&config, text).unwrap();
                let port = free_port();
                let place = folder.path().join(port.to_string());
                std::fs::create_dir(&place).unwrap();
                let arguments =
                    format!("redis-server '{}' --sentinel --port {port} --bind 127.0.0.1", config.display());
                let mut server = Server { port, held: None, arguments, folder: place };
                server.run();
                server
            })
            .collect();
        for sentinel in &sentinels {
            until("the sentinels to know each other", || {
                let info = cli(sentinel.port, &["info", "sentinel"]);
                info.contains("slaves=1,sentinels=3")
            });
        }
        Self { servers: vec![first, replica], sentinels, scheme: "redis+sentinel", folder }
    }

    /// What stands in `gateway.toml`.
    pub(crate) fn url(&self) -> String {
        let shown = if self.sentinels.is_empty() { &self.servers } else { &self.sentinels };
        let nodes: Vec<String> = shown.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        let service = if self.sentinels.is_empty() { "" } else { "/main" };
        format!("{}://{}{service}", self.scheme, nodes.join(","))
    }
}
