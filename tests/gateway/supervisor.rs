//! What systemd hears from the gateway (sd_notify(3)).

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tempfile::TempDir;

use crate::support::DEADLINE;
use crate::support::process::{Exit, Process};
use crate::support::served::{PUBLIC, Served};

/// Waits for the next thing that the supervisor is told that has all of these lines.
fn told(socket: &UnixDatagram, lines: &[&str]) {
    let mut buffer = [0; 1024];
    loop {
        let n = socket.recv(&mut buffer).expect("the supervisor is told");
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        if lines.iter().all(|line| text.lines().any(|own| own.starts_with(line))) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_hears_of_readiness_reloads_the_end_and_that_it_lives() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "100000")];
    let run = |folder: &Path| Process::wxgate_with(folder, &["serve"], &environment);
    let mut served = Served::run("", PUBLIC, run).await;
    told(&socket, &["READY=1"]);
    told(&socket, &["WATCHDOG=1"]);
    served.process.hang_up();
    told(&socket, &["RELOADING=1", "MONOTONIC_USEC="]);
    told(&socket, &["READY=1"]);
    served.process.terminate();
    told(&socket, &["STOPPING=1"]);
    assert_eq!(served.process.exit().await, Exit::Code(0));
}
