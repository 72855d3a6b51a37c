//! Servers that tests start beside the gateway, and that end with the process that started them, also when it is killed: a
//! shell holds each and waits for the end of its input.

#![allow(dead_code)] // each test binary uses a part

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port that nobody uses and that nobody else is told of. Below those that the system gives to clients and to port 0: a
/// server that is started again finds it still free.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    let port = |n: u32| 12_000 + u16::try_from(start.wrapping_add(n) % 20_000).unwrap();
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| port(NEXT.fetch_add(1, Ordering::Relaxed))).take(20_000).find(free).expect("a free port")
}

/// Runs `command` until it is told to stop, or this process is gone.
#[derive(Debug)]
pub(crate) struct Held {
    shell: Child,
    pid_file: PathBuf,
}

impl Held {
    /// Starts it; what it prints goes to `log`.
    pub(crate) fn start(command: &str, folder: &Path, name: &str) -> Self {
        let pid_file = folder.join(format!("{name}.held"));
        let log = folder.join(format!("{name}.log"));
        let script = format!(
            "{command} </dev/null >>'{log}' 2>&1 & echo $! >'{pid}.new'; mv '{pid}.new' '{pid}'; read -r _; kill -9 $!; wait",
            log = log.display(),
            pid = pid_file.display(),
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).current_dir(folder).stdin(Stdio::piped());
        let shell = shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the shell to start", || pid_file.exists());
        Self { shell, pid_file }
    }

    /// The process id of the command.
    pub(crate) fn pid(&self) -> String {
        std::fs::read_to_string(&self.pid_file).unwrap().trim().to_owned()
    }

    /// Whether it has not ended by itself.
    pub(crate) fn is_running(&self) -> bool {
        let asked = Command::new("kill").args(["-0", &self.pid()]).stderr(Stdio::null()).status().unwrap();
        asked.success()
    }

    /// Sends it a signal, such as `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut input) = self.shell.stdin.take() {
            let _ = input.write_all(b"\n");
        }
        let _ = self.shell.wait();
        let _ = std::fs::remove_file(&self.pid_file);
    }
}

/// Waits for something to become true.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
