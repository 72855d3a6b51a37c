//! One line per request: formatted here, gathered per worker, written by the log thread.
//!
//! A line costs no lock that anybody else holds and no system call: it is appended to the worker's own buffer, which goes
//! to the [`LogWriter`] when it is large or when the worker's tick comes. No query, no token, no openid stands in it.

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::http1::marks::{WIDTH, are_plain};
use crate::metrics::Shard;
use crate::telemetry::{Format, LogWriter};
use crate::tunnel::Totals;

/// A buffer of this size is handed over at once, bytes. Each hand-over may wake the log thread, which costs more than the
/// lines themselves; the worker's tick bounds how late a line is.
const BLOCK: usize = 64 * 1024;
/// Longest text field in a line, bytes; the rest is cut.
const MAX_FIELD: usize = 512;

/// What is said about one request.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Request id.
    pub id: &'a str,
    /// The client's address.
    pub client: Client<'a>,
    /// As sent.
    pub method: &'a str,
    /// As sent, without query.
    pub path: &'a str,
    /// What the client speaks.
    pub protocol: &'static str,
    /// The route's pattern, or what else answered.
    pub route: &'a str,
    /// Upstream, when one was asked.
    pub upstream: Option<&'a str>,
    /// Status sent.
    pub status: u16,
    /// Problem code, for refusals.
    pub code: Option<&'a str>,
    /// What caused it, when that is not for the client.
    pub cause: Option<&'a str>,
    /// Bytes of the answer's body that were sent.
    pub bytes: u64,
    /// From head to end of the answer.
    pub took: Duration,
    /// Member id.
    pub member: Option<&'a str>,
    /// The person's pseudonym.
    pub person: Option<&'a str>,
    /// Whether the answer was sent to its end.
    pub complete: bool,
    /// What went through, when the connection left HTTP with this answer.
    pub tunnel: Option<&'a Totals>,
    /// Why the gateway ended the answer before its end.
    pub ended: Option<&'a str>,
    /// How often it was sent to an upstream; told when it was more than once.
    pub attempts: u32,
    /// Until the upstream's response head, microseconds.
    pub head_us: Option<u64>,
}

/// A client's address: mostly that of the connection, whose text is made once.
#[derive(Debug, Clone, Copy)]
pub enum Client<'a> {
    /// The peer, as text.
    Peer(&'a str),
    /// Whom a trusted proxy named.
    Named(IpAddr),
}

impl Client<'_> {
    fn write(self, line: &mut Vec<u8>) {
        match self {
            Self::Peer(text) => line.extend_from_slice(text.as_bytes()),
            Self::Named(ip) => {
                let _ = write!(line, "{ip}");
            }
        }
    }
}

/// One worker's lines.
#[derive(Debug)]
pub struct AccessLog {
    out: LogWriter,
    clock: Clock,
    shard: Arc<Shard>,
    buffer: Mutex<Buffer>,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    count: u64,
    /// The text of the second of the newest line: formatting a date costs more than the rest of the line.
    second: i64,
    second_text: String,
}

impl AccessLog {
    /// Lines go to `out`; dropped ones are counted in `shard`.
    pub fn new(out: LogWriter, clock: Clock, shard: Arc<Shard>) -> Self {
        Self { out, clock, shard, buffer: Mutex::default() }
    }

    /// The clock of its lines.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Adds a line.
    pub fn add(&self, entry: &Entry<'_>) {
        let now = self.clock.now();
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let Buffer { lines, count, second, second_text } = &mut *buffer;
        if *second != now.secs() || second_text.is_empty() {
            *second = now.secs();
            *second_text = Timestamp::from_secs(*second).to_string();
            second_text.pop();
        }
        let ms = now.millis().rem_euclid(1000);
        *count += 1;
        let _ = match self.out.format() {
            Format::Json => json(lines, second_text, ms, entry),
            Format::Text => text(lines, second_text, ms, entry),
        };
        if lines.len() >= BLOCK {
            self.hand_over(&mut buffer);
        }
    }

    /// Hands over what has gathered. The worker calls it on its tick and at its end.
    pub fn flush(&self) {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        if !buffer.lines.is_empty() {
            self.hand_over(&mut buffer);
        }
    }

    fn hand_over(&self, buffer: &mut Buffer) {
        let capacity = buffer.lines.capacity().min(2 * BLOCK);
        let lines = std::mem::replace(&mut buffer.lines, Vec::with_capacity(capacity));
        let count = std::mem::take(&mut buffer.count);
        if !self.out.write(lines) {
            self.shard.log_dropped.add(count);
        }
    }
}

fn json(line: &mut Vec<u8>, second: &str, ms: i64, e: &Entry<'_>) -> std::io::Result<()> {
    line.extend_from_slice(b"{\"timestamp\":\"");
    timestamp(line, second, ms);
    line.extend_from_slice(b"\",\"level\":\"INFO\",\"message\":\"request\",\"id\":\"");
    escape(line, e.id);
    line.extend_from_slice(b"\",\"client\":\"");
    e.client.write(line);
    line.extend_from_slice(b"\",\"method\":\"");
    escape(line, e.method);
    line.extend_from_slice(b"\",\"path\":\"");
    escape(line, e.path);
    line.extend_from_slice(b"\",\"protocol\":\"");
    line.extend_from_slice(e.protocol.as_bytes());
    line.extend_from_slice(b"\",\"route\":\"");
    escape(line, e.route);
    line.extend_from_slice(b"\",\"status\":");
    line.extend_from_slice(itoa::Buffer::new().format(e.status).as_bytes());
    line.extend_from_slice(b",\"bytes\":");
    line.extend_from_slice(itoa::Buffer::new().format(e.bytes).as_bytes());
    line.extend_from_slice(b",\"duration_us\":");
    line.extend_from_slice(itoa::Buffer::new().format(micros(e.took)).as_bytes());
    if let Some(us) = e.head_us {
        line.extend_from_slice(b",\"upstream_us\":");
        line.extend_from_slice(itoa::Buffer::new().format(us).as_bytes());
    }
    for (name, value) in optional(e) {
        if let Some(value) = value {
            line.extend_from_slice(b",\"");
            line.extend_from_slice(name);
            line.extend_from_slice(b"\":\"");
            escape(line, value);
            line.push(b'"');
        }
    }
    if let Some(tunnel) = e.tunnel {
        write!(line, ",\"bytes_in\":{},\"ended\":\"{}\"", tunnel.from_client, tunnel.ended)?;
    }
    if e.attempts > 1 {
        write!(line, ",\"attempts\":{}", e.attempts)?;
    }
    if !e.complete {
        line.extend_from_slice(b",\"complete\":false");
    }
    line.extend_from_slice(b"}\n");
    Ok(())
}

fn text(line: &mut Vec<u8>, second: &str, ms: i64, e: &Entry<'_>) -> std::io::Result<()> {
    timestamp(line, second, ms);
    write!(line, " {} ", e.status)?;
    escape(line, e.method);
    line.push(b' ');
    escape(line, e.path);
    line.push(b' ');
    line.extend_from_slice(e.protocol.as_bytes());
    write!(line, " duration_us={} bytes={} client=", micros(e.took), e.bytes)?;
    e.client.write(line);
    line.extend_from_slice(b" route=");
    escape(line, e.route);
    line.extend_from_slice(b" id=");
    escape(line, e.id);
    for (name, value) in optional(e) {
        if let Some(value) = value {
            line.push(b' ');
            line.extend_from_slice(name);
            line.extend_from_slice(b"=\"");
            escape(line, value);
            line.push(b'"');
        }
    }
    if let Some(tunnel) = e.tunnel {
        write!(line, " bytes_in={} ended={}", tunnel.from_client, tunnel.ended)?;
    }
    if let Some(us) = e.head_us {
        write!(line, " upstream_us={us}")?;
    }
    if e.attempts > 1 {
        write!(line, " attempts={}", e.attempts)?;
    }
    if !e.complete {
        line.extend_from_slice(b" complete=false");
    }
    line.push(b'\n');
    Ok(())
}

/// `2026-11-21T01:20:00.042Z`, without the machinery of formatting, which would cost as much as the rest of the line.
fn timestamp(line: &mut Vec<u8>, second: &str, ms: i64) {
    line.extend_from_slice(second.as_bytes());
    let digit = |n: i64| b'0' + u8::try_from(n % 10).unwrap_or(0);
    line.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
}

fn optional<'a>(e: &Entry<'a>) -> [(&'static [u8], Option<&'a str>); 6] {
    [
        (b"upstream", e.upstream),
        (b"member", e.member),
        (b"person", e.person),
        (b"code", e.code),
        (b"cause", e.cause),
        (b"ended", e.ended),
    ]
}

/// Numbers of 64 bits are written for much less than those of 128.
fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// Writes text so that it cannot end a line, a string or a terminal's good mood: control bytes, quotes, backslashes and
/// everything outside ASCII are escaped (log injection).
fn escape(line: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let (blocks, _) = bytes.as_chunks();
    let is_plain = match bytes.last_chunk::<WIDTH>() {
        Some(last) => are_plain(last) && blocks.iter().all(are_plain),
        None => {
            let mut short = [b' '; WIDTH];
            short[..bytes.len()].copy_from_slice(bytes);
            are_plain(&short)
        }
    };
    if bytes.len() <= MAX_FIELD && is_plain {
        line.extend_from_slice(bytes);
        return;
    }
    for c in text.chars().take(MAX_FIELD) {
        match c {
            '"' => line.extend_from_slice(b"\\\""),
            '\\' => line.extend_from_slice(b"\\\\"),
            ' '..='~' => line.push(c as u8),
            c => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(line, "\\u{unit:04x}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    struct Out(Sender<Vec<u8>>);

    impl std::io::Write for Out {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.send(data.to_vec());
            Ok(data.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn log(format: Format) -> (AccessLog, Receiver<Vec<u8>>) {
        let (out, lines) = channel();
        let clock = Clock::manual(Timestamp::from_millis(1_763_688_000_042));
        (AccessLog::new(LogWriter::to(format, Box::new(Out(out))), clock, Arc::default()), lines)
    }

    fn entry<'a>(path: &'a str, cause: Option<&'a str>) -> Entry<'a> {
        Entry {
            id: "abc",
            client: Client::Peer("1.2.3.4"),
            method: "GET",
            path,
            protocol: "HTTP/2.0",
            route: "/api/*",
            upstream: Some("orders"),
            status: 502,
            code: Some("upstream_failed"),
            cause,
            bytes: 17,
            took: Duration::from_micros(1234),
            member: None,
            person: None,
            complete: true,
            tunnel: None,
            ended: None,
            attempts: 1,
            head_us: Some(1100),
        }
    }

    #[test]
    fn a_json_line_is_one_object_whatever_stands_in_it() {
        let (log, lines) = log(Format::Json);
        let nasty = "/a\"},{\"x\":\"\r\n\u{1b}[31m\u{2028}\u{1f600}";
        log.add(&entry(nasty, Some("line\nbreak")));
        log.flush();
        let line = String::from_utf8(lines.recv().unwrap()).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.is_ascii());
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["path"], nasty);
        assert_eq!(value["cause"], "line\nbreak");
        assert_eq!(value["timestamp"], "2025-11-21T01:20:00.042Z");
        assert_eq!((&value["status"], &value["upstream_us"]), (&502.into(), &1100.into()));
        assert_eq!(value["protocol"], "HTTP/2.0");
    }

    #[test]
    fn a_text_line_cannot_be_broken_out_of() {
        let (log, lines) = log(Format::Text);
        log.add(&entry("/a\r\nINFO forged \u{1b}[2J", None));
        log.flush();
        let line = String::from_utf8(lines.recv().unwrap()).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains('\u{1b}') && !line.contains('\r'), "{line:?}");
    }

    #[test]
    fn a_long_field_is_cut() {
        let (log, lines) = log(Format::Json);
        log.add(&entry(&"/a".repeat(5000), None));
        log.flush();
        assert!(lines.recv().unwrap().len() < 2 * MAX_FIELD);
    }
}
