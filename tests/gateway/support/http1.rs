//! A strict HTTP/1.1 reader (RFC 9112), the same for both ends of the gateway: what is sloppy is an error here, so that
//! a test cannot pass on bytes that a strict peer would refuse.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Largest head that is read.
const MAX_HEAD: usize = 256 * 1024;

/// Why there is no whole message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The peer closed between two messages.
    #[error("closed")]
    Closed,
    /// The peer closed (or reset) within a message.
    #[error("cut off within a message")]
    CutOff,
    /// It breaks the grammar.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Nothing came in time.
    #[error("nothing came in time")]
    TimedOut,
}

fn malformed(what: &str, line: &[u8]) -> Broken {
    Broken::Malformed(format!("{what}: {}", line.escape_ascii()))
}

/// Header or trailer fields in the order and spelling received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    /// Every value of this name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The value of this name; `None` when it is missing. Panics when it stands there twice.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} stands there {} times: {all:?}", all.len());
        all.first().copied()
    }
}

/// First line and fields of a message.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Request line or status line.
    pub(crate) first_line: String,
    /// The fields.
    pub(crate) fields: Fields,
    /// The bytes, with the empty line.
    pub(crate) raw: Vec<u8>,
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// What is left of a body once it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct BodyRead {
    /// Its first bytes, as many as the caller wanted to keep.
    pub(crate) kept: Vec<u8>,
    /// Its length.
    pub(crate) length: u64,
    /// The trailer fields of a chunked body.
    pub(crate) trailers: Fields,
}

/// Bytes that were read and not yet used, in front of a stream.
#[derive(Debug)]
pub(crate) struct Reader<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Reads once; false at the end. A reset counts as an end.
    async fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        let n = self.stream.read(&mut chunk).await.unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..n]);
        n > 0
    }

    /// Everything up to the end.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Exactly `n` bytes.
    pub(crate) async fn exactly(&mut self, n: usize) -> Result<Vec<u8>, Broken> {
        while self.buffer.len() < n {
            if !self.fill().await {
                return Err(Broken::CutOff);
            }
        }
        Ok(self.buffer.drain(..n).collect())
    }

    /// A head: every line ends in CRLF, every field is `name: value` with a token for a name.
    pub(crate) async fn head(&mut self) -> Result<Head, Broken> {
        let mut seen = 0;
        let end = loop {
            if let Some(at) = self.buffer[seen..].windows(4).position(|w| w == b"\r\n\r\n") {
                break seen + at + 4;
            }
            seen = self.buffer.len().saturating_sub(3);
            if self.buffer.len() > MAX_HEAD {
                return Err(Broken::Malformed("a head without end".into()));
            }
            if !self.fill().await {
                return Err(if self.buffer.is_empty() { Broken::Closed } else { Broken::CutOff });
            }
        };
        let raw: Vec<u8> = self.buffer.drain(..end).collect();
        let mut lines = Vec::new();
        let mut from = 0;
        while let Some(at) = raw[from..].windows(2).position(|w| w == b"\r\n") {
            lines.push(&raw[from..from + at]);
            from += at + 2;
        }
        let first_line = text(lines[0])?;
        let fields = lines[1..lines.len() - 1].iter().map(|line| field(line)).collect::<Result<_, _>>()?;
        Ok(Head { first_line, fields: Fields(fields), raw })
    }

    /// A body; its first `keep` bytes are kept, the rest is counted.
    pub(crate) async fn body(&mut self, framing: Framing, keep: usize) -> Result<BodyRead, Broken> {
        let mut body = BodyRead::default();
        match framing {
            Framing::Length(n) => self.take(n, keep, &mut body).await?,
            Framing::Chunked => {
                loop {
                    let size = self.line().await?;
                    let size = hex(&size).ok_or_else(|| malformed("a chunk size", &size))?;
                    if size == 0 {
                        break;
                    }
                    self.take(size, keep, &mut body).await?;
                    let end = self.exactly(2).await?;
                    if end != b"\r\n" {
                        return Err(malformed("no CRLF after a chunk", &end));
                    }
                }
                loop {
                    let line = self.line().await?;
                    if line.is_empty() {
                        break;
                    }
                    body.trailers.0.push(field(&line)?);
                }
            }
            Framing::UntilClose => {
                let rest = self.rest().await;
                body.length = rest.len() as u64;
                body.kept = rest;
                body.kept.truncate(keep);
            }
        }
        Ok(body)
    }

    async fn take(&mut self, n: u64, keep: usize, body: &mut BodyRead) -> Result<(), Broken> {
        let mut left = n;
        while left > 0 {
            if self.buffer.is_empty() && !self.fill().await {
                return Err(Broken::CutOff);
            }
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let room = keep.saturating_sub(body.kept.len()).min(now);
            body.kept.extend_from_slice(&self.buffer[..room]);
            self.buffer.drain(..now);
            body.length += now as u64;
            left -= now as u64;
        }
        Ok(())
    }

    async fn line(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=at).collect();
                if !line.ends_with(b"\r\n") {
                    return Err(malformed("a bare LF", &line));
                }
                line.truncate(line.len() - 2);
                return Ok(line);
            }
            if !self.fill().await {
                return Err(Broken::CutOff);
            }
        }
    }
}

/// What the fields say about the body; `None` when they say nothing (RFC 9112, section 6.3).
pub(crate) fn framing(fields: &Fields) -> Result<Option<Framing>, Broken> {
    let refuse = |what: &str| Err(Broken::Malformed(what.into()));
    match (fields.all("content-length")[..].len(), fields.all("transfer-encoding").as_slice()) {
        (0, []) => Ok(None),
        (0, [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
        (0, _) => refuse("a transfer encoding other than one plain chunked"),
        (1, []) => {
            let length = fields.all("content-length")[0];
            match length.parse() {
                Ok(n) if length.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(Framing::Length(n))),
                _ => refuse("a Content-Length that is no number"),
            }
        }
        (_, []) => refuse("several Content-Length"),
        (_, _) => refuse("Content-Length beside Transfer-Encoding"),
    }
}

fn hex(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

fn text(line: &[u8]) -> Result<String, Broken> {
    if line.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        return Err(malformed("a control byte", line));
    }
    Ok(String::from_utf8_lossy(line).into_owned())
}

fn field(line: &[u8]) -> Result<(String, String), Broken> {
    let colon = line.iter().position(|b| *b == b':').ok_or_else(|| malformed("a field without a colon", line))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    if name.is_empty() || !name.iter().all(token) {
        return Err(malformed("a field name", line));
    }
    Ok((text(name)?, text(value)?.trim_matches([' ', '\t']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(message: &'static [u8]) -> Result<(Head, BodyRead), Broken> {
        let mut reader = Reader::new(message);
        let head = reader.head().await?;
        let framing = framing(&head.fields)?.unwrap_or(Framing::Length(0));
        let body = reader.body(framing, 1024).await?;
        Ok((head, body))
    }

    #[tokio::test]
    async fn a_message_is_read_to_its_end_and_no_further() {
        let mut reader = Reader::new(&b"A\r\nContent-Length: 2\r\n\r\nokB\r\n\r\n"[..]);
        assert_eq!(reader.head().await.unwrap().fields.get("CONTENT-LENGTH"), Some("2"));
        assert_eq!(reader.body(Framing::Length(2), 9).await.unwrap().kept, b"ok");
        assert_eq!(reader.head().await.unwrap().raw, b"B\r\n\r\n");
        assert!(matches!(reader.head().await, Err(Broken::Closed)));
    }

    #[tokio::test]
    async fn chunks_and_trailers_are_read() {
        let message = b"A\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n";
        let (_, body) = read(message).await.unwrap();
        assert_eq!((body.length, body.kept.as_slice()), (13, &b"abc0123456789"[..]));
        assert_eq!(body.trailers.get("x-sum"), Some("1"));
    }

    #[tokio::test]
    async fn what_a_strict_peer_refuses_is_an_error() {
        for bad in [
            &b"A\r\nno colon\r\n\r\n"[..],
            b"A\r\n: no name\r\n\r\n",
            b"A\r\nX : y\r\n\r\n",
            b"A\r\nX: y\r\n folded\r\n\r\n",
            b"A\r\nX: y\nZ: q\r\n\r\n",
            b"A\r\nContent-Length: +5\r\n\r\n12345",
            b"A\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1",
            b"A\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"A\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            b"A\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n1\r\n0\r\n\r\n",
            b"A\r\nTransfer-Encoding: chunked\r\n\r\n1\n1\r\n0\r\n\r\n",
            b"A\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n12\r\n0\r\n\r\n",
        ] {
            let got = read(bad).await;
            assert!(matches!(got, Err(Broken::Malformed(_))), "{}: {got:?}", bad.escape_ascii());
        }
        for short in [&b"A\r\nX: y\r\n"[..], b"A\r\nContent-Length: 5\r\n\r\n1234"] {
            assert!(matches!(read(short).await, Err(Broken::CutOff)), "{}", short.escape_ascii());
        }
    }
}
