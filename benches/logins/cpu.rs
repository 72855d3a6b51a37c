//! User and system time, as the kernel counts it: of processes with their children, and of threads by their names.

use std::path::Path;
use std::time::Duration;

/// A tick of the kernel's count.
const TICK: Duration = Duration::from_millis(10);

/// Of this process: callers and WeChat.
pub(crate) fn own() -> Duration {
    stat(Path::new("/proc/self")).map_or(Duration::ZERO, |stat| stat.cpu)
}

/// Of a process, all its threads.
pub(crate) fn of(pid: &str) -> Duration {
    stat(&Path::new("/proc").join(pid)).map_or(Duration::ZERO, |stat| stat.cpu)
}

/// Of a process and its children, those that have ended too.
pub(crate) fn with_children(pid: &str) -> Duration {
    let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| stat(&entry.path()));
    let children = all.filter(|stat| stat.parent == pid).map(|stat| stat.cpu);
    children.sum::<Duration>()
        + stat(&Path::new("/proc").join(pid)).map_or(Duration::ZERO, |stat| stat.cpu + stat.ended)
}

/// Of the threads of a process whose names begin so.
pub(crate) fn of_threads(pid: &str, name: &str) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    threads
        .filter_map(|entry| stat(&entry.path()))
        .filter(|stat| stat.name.starts_with(name))
        .map(|stat| stat.cpu)
        .sum()
}

struct Stat {
    name: String,
    parent: String,
    cpu: Duration,
    /// Of its children that have ended.
    ended: Duration,
}

/// See proc_pid_stat(5). `None` for what has ended meanwhile, and what is no process.
fn stat(of: &Path) -> Option<Stat> {
    let text = std::fs::read_to_string(of.join("stat")).ok()?;
    let (name, rest) = text.split_once('(')?.1.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |from: usize| {
        let n = |at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok());
        Some(TICK * (n(from)? + n(from + 1)?))
    };
    Some(Stat { name: name.to_owned(), parent: (*fields.get(1)?).to_owned(), cpu: ticks(11)?, ended: ticks(13)? })
}
