//! One connection: at most one request at a time.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    request: Option<u64>,
    come: Vec<u8>,
}

/// What reading brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Not yet a whole answer.
    Part,
    /// The answer to this request, and whether it is a 200.
    Answer { request: u64, ok: bool },
    /// The other side has closed, with this request open.
    End { request: Option<u64> },
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: None, come: Vec::with_capacity(4096) })
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The request that has no answer yet.
    pub(crate) fn waits_for(&self) -> Option<u64> {
        self.request
    }

    /// Sends it. The socket blocks: a kilobyte always fits, since nothing is on its way. A connection that has just been closed
    /// by the other side says so when it is read.
    pub(crate) fn send(&mut self, bytes: &[u8], request: u64) -> io::Result<()> {
        self.request = Some(request);
        match self.stream.write_all(bytes) {
            Err(fault) if !is_end(&fault) => Err(fault),
            _ => Ok(()),
        }
    }

    /// Reads once; something, or the end, is there.
    pub(crate) fn hear(&mut self) -> io::Result<Heard> {
        let mut part = [0; 16 << 10];
        let n = match self.stream.read(&mut part) {
            Err(fault) if is_end(&fault) => 0,
            read => read?,
        };
        if n == 0 {
            return Ok(Heard::End { request: self.request.take() });
        }
        self.come.extend_from_slice(&part[..n]);
        let Some(ok) = whole(&self.come) else { return Ok(Heard::Part) };
        self.come.clear();
        match self.request.take() {
            Some(request) => Ok(Heard::Answer { request, ok }),
            None => Err(io::Error::other("an answer that nobody asked for")),
        }
    }
}

fn is_end(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Whether these bytes are a whole answer (with a stated length), and then whether it is a 200.
fn whole(bytes: &[u8]) -> Option<bool> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = &bytes[..end];
    let length = head.split(|byte| *byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = line[..colon].eq_ignore_ascii_case(b"content-length").then(|| line[colon + 1..].trim_ascii())?;
        std::str::from_utf8(value).ok()?.parse::<usize>().ok()
    });
    (bytes.len() >= end + 4 + length.unwrap_or(0)).then(|| head.starts_with(b"HTTP/1.1 200 "))
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\r\n\r\nok";
        for n in 0..answer.len() {
            assert_eq!(whole(&answer[..n]), None, "{n}");
        }
        assert_eq!(whole(answer), Some(true));
        assert_eq!(whole(b"HTTP/1.1 401 Unauthorized\r\ncontent-length:0\r\n\r\n"), Some(false));
    }
}
