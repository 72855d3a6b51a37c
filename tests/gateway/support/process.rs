//! The real binary as a process of its own: started in an empty folder, watched by its lines, ended by signals.

use std::io::{BufRead as _, BufReader, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::DEADLINE;

/// Lines that the process has written so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Output {
    /// To standard output.
    pub(crate) stdout: Vec<String>,
    /// To standard error.
    pub(crate) stderr: Vec<String>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// A running process; killed when this goes.
#[derive(Debug)]
pub(crate) struct Process {
    child: Option<Child>,
    pid: u32,
    output: watch::Receiver<Output>,
    folder: PathBuf,
    _own_folder: Option<TempDir>,
}

impl Process {
    /// `wxgate` with these arguments, in a new folder that goes with the process.
    pub(crate) fn wxgate(args: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let mut process = Self::wxgate_in(folder.path(), args);
        process._own_folder = Some(folder);
        process
    }

    /// `wxgate` with these arguments, in a folder of the test's own, which outlives the process.
    pub(crate) fn wxgate_in(folder: &Path, args: &[&str]) -> Self {
        Self::wxgate_with(folder, args, &[])
    }

    /// As [`Process::wxgate_in`], with these variables in its environment.
    pub(crate) fn wxgate_with(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wxgate"));
        command.args(args).current_dir(folder).env_remove("WXGATE_LOG").envs(environment.iter().copied());
        Self::start(command, folder)
    }

    /// A shell script in this folder.
    pub(crate) fn shell(folder: &Path, script: &str) -> Self {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).current_dir(folder);
        Self::start(command, folder)
    }

    /// As [`Process::wxgate_in`], with room for so many open files.
    pub(crate) fn wxgate_with_files(files: usize, folder: &Path, args: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_wxgate")).args(args).current_dir(folder);
        Self::start(command, folder)
    }

    /// As [`Process::wxgate_in`], with this listening socket passed to it as systemd does (sd_listen_fds(3)).
    pub(crate) fn wxgate_on(listener: &TcpListener, folder: &Path, args: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 </dev/null";
        command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_wxgate")).args(args).current_dir(folder);
        command.stdin(OwnedFd::from(listener.try_clone().unwrap()));
        Self::spawn(command, folder)
    }

    fn start(mut command: Command, folder: &Path) -> Self {
        command.stdin(Stdio::null());
        Self::spawn(command, folder)
    }

    fn spawn(mut command: Command, folder: &Path) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let (lines, output) = watch::channel(Output::default());
        collect(child.stdout.take().unwrap(), lines.clone(), |output| &mut output.stdout);
        collect(child.stderr.take().unwrap(), lines, |output| &mut output.stderr);
        Self { pid: child.id(), child: Some(child), output, folder: folder.to_owned(), _own_folder: None }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.pid
    }

    /// Its working folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it has written so far.
    pub(crate) fn output(&self) -> Output {
        self.output.borrow().clone()
    }

    /// The first line, on either stream, that `wanted` finds something in; waits for it to be written.
    pub(crate) async fn line<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> T {
        let find = |output: &Output| output.stdout.iter().chain(&output.stderr).find_map(|line| wanted(line));
        let found = timeout(DEADLINE, self.output.wait_for(|output| find(output).is_some())).await;
        let found = found.map(|output| output.ok().and_then(|output| find(&output)));
        found.ok().flatten().unwrap_or_else(|| panic!("the line never came; it wrote {:#?}", self.output()))
    }

    /// Sends SIGTERM: drain and end.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends SIGHUP: reload.
    pub(crate) fn hang_up(&self) {
        self.signal("HUP");
    }

    /// Sends SIGKILL: what a power cut does to a process.
    pub(crate) fn kill(&self) {
        self.signal("KILL");
    }

    /// Sends SIGSTOP: it is there and does nothing any more.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// By id, and only while the process is unreaped, so that the id cannot have passed to another.
    fn signal(&self, name: &str) {
        assert!(self.child.is_some(), "the process has ended");
        send(name, self.pid);
    }

    /// Waits until it ends; every line that it wrote is in [`Process::output`] then.
    pub(crate) async fn exit(&mut self) -> Exit {
        let mut child = self.child.take().expect("a process ends once");
        let waited = timeout(DEADLINE, spawn_blocking(move || child.wait())).await;
        let Ok(status) = waited else {
            send("KILL", self.pid);
            panic!("it did not end; it wrote {:#?}", self.output());
        };
        // Both readers are done when the sender's halves are gone.
        let _ = timeout(DEADLINE, async { while self.output.changed().await.is_ok() {} }).await;
        Exit::from(status.unwrap().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        status.code().map_or_else(|| Self::Signal(status.signal().unwrap_or(0)), Self::Code)
    }
}

/// `kill` is a builtin of every shell, and needs no unsafe code here.
fn send(signal: &str, pid: u32) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} {pid}")).status().unwrap();
    assert!(sent.success(), "kill -{signal} {pid}: {sent}");
}

/// Reads lines on a thread of its own until the stream ends.
fn collect(
    stream: impl Read + Send + 'static,
    lines: watch::Sender<Output>,
    part: impl Fn(&mut Output) -> &mut Vec<String> + Send + 'static,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            lines.send_modify(|output| part(output).push(line));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell_in_own_folder(script: &str) -> Process {
        let folder = TempDir::new().unwrap();
        let mut process = Process::shell(folder.path(), script);
        process._own_folder = Some(folder);
        process
    }

    #[tokio::test]
    async fn lines_of_both_streams_arrive_as_they_are_written() {
        let mut process = shell_in_own_folder("echo port=81; echo warning >&2; exec tail -f /dev/null");
        assert_eq!(process.line(|line| line.strip_prefix("port=").map(str::to_owned)).await, "81");
        process.line(|line| (line == "warning").then_some(())).await;
        process.kill();
        assert_eq!(process.exit().await, Exit::Signal(9));
    }

    #[tokio::test]
    async fn signals_reach_the_process_and_its_code_comes_back() {
        // Not by `trap` and `wait` of a shell: a signal that comes just before it waits is not heard.
        let mut process = shell_in_own_folder(
            "exec python3 -c '
import signal, sys
both = {signal.SIGHUP, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, both)
print(\"ready\", flush=True)
while signal.sigwait(both) == signal.SIGHUP:
    print(\"reloaded\", flush=True)
print(\"drained\", flush=True)
sys.exit(7)
'",
        );
        process.line(|line| (line == "ready").then_some(())).await;
        process.hang_up();
        process.line(|line| (line == "reloaded").then_some(())).await;
        process.terminate();
        assert_eq!(process.exit().await, Exit::Code(7));
        assert_eq!(process.output().stdout, ["ready", "reloaded", "drained"]);
    }

    #[tokio::test]
    async fn the_binary_runs_in_a_folder_of_its_own() {
        let mut wxgate = Process::wxgate(&["--help"]);
        assert_eq!(std::fs::read_dir(wxgate.folder()).unwrap().count(), 0);
        assert_eq!(wxgate.exit().await, Exit::Code(0));
    }
}
