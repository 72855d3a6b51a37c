//! Logs: where lines go, what they look like, and how people appear in them.
//!
//! All lines, the access log's and those of `tracing`, go to standard error through one [`LogWriter`] thread: a pipe that
//! nobody reads, or a full disk, never holds a request. Text on a terminal, JSON otherwise. A person appears as a
//! [`Pseudonym`], never as an openid. Traces are a way of their own: [`span`] is what is recorded, [`export`] sends it.

pub mod export;
mod otlp;
pub mod span;

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Blocks of lines that may wait for the writer before new ones are dropped.
const QUEUE: usize = 1024;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For eyes: `key=value`.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// The thread that writes lines, and the queue before it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogWriter {
    queue: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
    /// Blocks in the queue or on their way out of it.
    waiting: Arc<AtomicU64>,
    format: Format,
}

impl LogWriter {
    /// Lines go to standard error.
    pub fn stderr() -> Self {
        let format = if io::stderr().is_terminal() { Format::Text } else { Format::Json };
        Self::to(format, Box::new(io::stderr()))
    }

    /// Lines go to `out`.
    pub fn to(format: Format, out: Box<dyn Write + Send>) -> Self {
        let (queue, blocks) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let waiting = Arc::new(AtomicU64::new(0));
        let writer = Self { queue, dropped: Arc::clone(&dropped), waiting: Arc::clone(&waiting), format };
        // If no thread can be had, the queue fills and lines are counted as dropped: the gateway itself goes on.
        let _ = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&blocks, out, &dropped, &waiting));
        writer
    }

    /// How lines shall look.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Queues a block of whole lines; false when it had to be dropped.
    pub fn write(&self, block: Vec<u8>) -> bool {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let queued = self.queue.try_send(block).is_ok();
        if !queued {
            self.waiting.fetch_sub(1, Ordering::Release);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        queued
    }

    /// Waits until everything queued so far is written, at most `within`. For the end of the process, which ends the
    /// writing thread too.
    pub fn written(&self, within: Duration) {
        let end = Instant::now() + within;
        while self.waiting.load(Ordering::Acquire) > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Blocks dropped so far, because the queue was full or the output failed.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn write_all(blocks: &Receiver<Vec<u8>>, mut out: Box<dyn Write + Send>, dropped: &AtomicU64, waiting: &AtomicU64) {
    while let Ok(block) = blocks.recv() {
        if out.write_all(&block).and_then(|()| out.flush()).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
        waiting.fetch_sub(1, Ordering::Release);
    }
}

/// One event on its way to the writer.
#[derive(Debug)]
pub struct Event<'a> {
    to: &'a LogWriter,
    line: Vec<u8>,
}

impl Write for Event<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.to.write(std::mem::take(&mut self.line));
        }
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event { to: self, line: Vec::with_capacity(256) }
    }
}

/// Sends `tracing` events to `writer`. `filter` is in the form of `RUST_LOG`, such as `info` or `wxgate=debug`. A second
/// call in one process changes nothing.
pub fn init(writer: &LogWriter, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer.clone());
    let _ = match writer.format() {
        Format::Text => builder.with_ansi(true).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// A person's name in logs: a keyed hash of appid and openid, the same for the same person while the key lives. Without
/// the key it says nothing, not even to somebody who knows the openid.
#[derive(Clone)]
pub struct Pseudonyms(hmac::Key);

impl Pseudonyms {
    /// With this key (32 random bytes, kept beside the signing keys).
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// 16 hex digits.
    pub fn of(&self, appid: &str, openid: &str) -> Pseudonym {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(appid.as_bytes());
        context.update(b"\0");
        context.update(openid.as_bytes());
        let tag = context.sign();
        let mut hex = [0; 16];
        for (n, byte) in tag.as_ref().iter().take(8).enumerate() {
            hex[2 * n] = b"0123456789abcdef"[usize::from(byte >> 4)];
            hex[2 * n + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        Pseudonym(hex)
    }
}

impl std::fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pseudonyms(…)")
    }
}

/// What [`Pseudonyms::of`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pseudonym([u8; 16]);

impl Pseudonym {
    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pseudonym_is_stable_and_depends_on_key_app_and_person() {
        let names = Pseudonyms::new(&[1; 32]);
        let name = names.of("wxa", "o1");
        assert_eq!(name, names.of("wxa", "o1"));
        assert_ne!(name, names.of("wxa", "o2"));
        assert_ne!(name, names.of("wxao", "1"));
        assert_ne!(name, Pseudonyms::new(&[2; 32]).of("wxa", "o1"));
        assert!(name.as_str().bytes().all(|b| b.is_ascii_hexdigit()));
    }

    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_output_holds_nobody_and_drops_are_counted() {
        let (release, stuck) = sync_channel(0);
        let log = LogWriter::to(Format::Json, Box::new(Stuck(stuck)));
        for _ in 0..QUEUE + 10 {
            log.write(b"line\n".to_vec());
        }
        assert!(log.dropped() >= 9);
        drop(release);
    }
}
