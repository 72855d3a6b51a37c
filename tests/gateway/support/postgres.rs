//! A real Postgres on a free port. It ends with the process that started it, also when that is killed.

#![allow(dead_code)] // each test binary uses a part

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::held::{Held, free_port, until};

/// A server. Databases in it are a test's own business.
#[derive(Debug)]
pub(crate) struct PostgresServer {
    port: u16,
    held: Option<Held>,
    programs: PathBuf,
    folder: TempDir,
}

impl PostgresServer {
    /// A new server with an empty database `wxgate` and a user of that name. As root it runs as another user, since
    /// Postgres refuses to run as root.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = programs();
        if let Some((user, group)) = other_user() {
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let data = folder.path().join("data");
        let made = Command::new("sh")
            .args([
                "-c",
                &as_other_user(&format!(
                    "'{}/initdb' -D '{}' -U wxgate -A trust -E UTF8 --no-sync",
                    programs.display(),
                    data.display()
                )),
            ])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut server = Self { port: free_port(), held: None, programs, folder };
        server.run();
        let made = server.sql("postgres", "CREATE DATABASE wxgate");
        assert!(made.contains("CREATE DATABASE"), "{made}");
        server
    }

    /// Starts it (again), with the data that it had.
    pub(crate) fn run(&mut self) {
        let command = as_other_user(&format!(
            "'{}/postgres' -D '{}' -p {} -k '{}' -c listen_addresses=127.0.0.1 -c max_connections=200",
            self.programs.display(),
            self.folder.path().join("data").display(),
            self.port,
            self.folder.path().display(),
        ));
        let _ = std::fs::remove_file(self.folder.path().join("data/postmaster.pid"));
        // Again when it ends at once: after a crash it waits for the processes of the one before it to be gone.
        until("Postgres to answer", || {
            if self.held.as_ref().is_none_or(|held| !held.is_running()) {
                self.held = None;
                self.held = Some(Held::start(&format!("exec {command}"), self.folder.path(), "postgres"));
            }
            // By its exit code: what psql says of a port that nobody listens on may hold any number.
            self.psql("postgres", "SELECT 1").status.success()
        });
    }

    /// Its process id, while it runs: the parent of those of its connections.
    pub(crate) fn pid(&self) -> Option<String> {
        self.held.as_ref().map(Held::pid)
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.held = None;
        // The processes of its connections notice within moments that their parent is gone.
        until("Postgres to be gone", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err());
    }

    /// Runs SQL in a database; what psql prints.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let output = self.psql(database, sql);
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    fn psql(&self, database: &str, sql: &str) -> Output {
        Command::new(self.programs.join("psql"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "wxgate", "-d", database, "-c", sql])
            .output()
            .unwrap()
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What stands in `gateway.toml`.
    pub(crate) fn url(&self) -> String {
        format!("postgres://wxgate@127.0.0.1:{}/wxgate", self.port)
    }

    /// As [`PostgresServer::url`], for tables in a new schema of this name.
    pub(crate) fn url_of_new_schema(&self, name: &str) -> String {
        let made = self.sql("wxgate", &format!("CREATE SCHEMA {name}"));
        assert!(made.contains("CREATE SCHEMA"), "{made}");
        format!("{}?options=-csearch_path%3D{name}", self.url())
    }
}

/// Where initdb and postgres are: in the search path, or where Debian puts them.
fn programs() -> PathBuf {
    let found = Command::new("sh").args(["-c", "command -v initdb"]).output().unwrap();
    let found = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let known = found.parent().map(Path::to_owned).into_iter().chain(debian.map(|entry| entry.path().join("bin")));
    let has_all = |folder: &PathBuf| ["initdb", "postgres", "psql"].iter().all(|name| folder.join(name).exists());
    let mut all: Vec<PathBuf> = known.filter(has_all).collect();
    all.pop().expect("Postgres is needed: install it (Debian: apt-get install postgresql)")
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

/// User and group to run as, when this process is root's.
fn other_user() -> Option<(u32, u32)> {
    if !is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let numbers = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    numbers("postgres").or_else(|| numbers("nobody"))
}

fn as_other_user(command: &str) -> String {
    match other_user() {
        Some((user, group)) => format!("setpriv --reuid={user} --regid={group} --clear-groups {command}"),
        None => command.to_owned(),
    }
}
