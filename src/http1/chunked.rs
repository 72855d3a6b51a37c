//! A chunked body, byte for byte (RFC 9112, section 7.1): where does it end, and can it be read in only one way?
//!
//! The scanner changes nothing. In front of hyper it only follows a body ([`Scanner::feed`]), so that whatever hyper might
//! read more leniently (bare LF, odd sizes, long extensions) never reaches it; an upstream's body is taken apart with it
//! ([`Scanner::next`]).

use super::MAX_FIELDS;
use super::grammar::{is_token, is_value};

/// Bytes of chunk extensions in one body that are too many, for us as for hyper.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Most bytes of trailers in one body, line ends included; hyper gives up at the double.
const MAX_TRAILERS: usize = 8 * 1024;

/// Not the grammar, or over a limit: the connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken {
    /// So many bytes of what was fed were still right.
    pub(crate) after: usize,
}

/// What comes next in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Bytes of framing, to be passed over.
    pub(crate) skip: usize,
    /// Bytes of the body behind them.
    pub(crate) take: usize,
    /// The body has ended behind `skip`.
    pub(crate) over: bool,
}

/// Where in a chunked body the stream stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scanner {
    at: At,
    size: u64,
    digits: u8,
    extensions: usize,
    trailers: usize,
    trailer_lines: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// Start of a trailer line or of the last empty line.
    Line,
    Name,
    Value,
    ValueLf,
    EndLf,
}

impl Scanner {
    pub(crate) const fn new() -> Self {
        Self { at: At::Size, size: 0, digits: 0, extensions: 0, trailers: 0, trailer_lines: 0 }
    }

    /// Reads on, up to the next bytes of the body itself. Afterwards the caller takes [`Step::take`] bytes of data, all or
    /// nothing of them.
    ///
    /// # Errors
    /// The first byte that no strict reader would take. Asked again from there, it errs again.
    pub(crate) fn next(&mut self, data: &[u8]) -> Result<Step, Broken> {
        let mut p = 0;
        while p < data.len() {
            if self.at == At::Data {
                let left = data.len() - p;
                let take = usize::try_from(self.size).map_or(left, |size| size.min(left));
                return Ok(Step { skip: p, take, over: false });
            }
            let over = self.step(data[p]).ok_or(Broken { after: p })?;
            p += 1;
            if over {
                return Ok(Step { skip: p, take: 0, over: true });
            }
        }
        Ok(Step { skip: p, take: 0, over: false })
    }

    /// The caller has taken what a [`Step`] gave.
    pub(crate) const fn taken(&mut self, take: usize) {
        self.size = self.size.saturating_sub(take as u64);
        if self.size == 0 {
            self.at = At::DataCr;
        }
    }

    /// Reads on. Returns how many bytes of `data` belong to this body, and whether it ended with them.
    ///
    /// # Errors
    /// The first byte that no strict reader would take.
    pub(crate) fn feed(&mut self, data: &[u8]) -> Result<(usize, bool), Broken> {
        let mut p = 0;
        while p < data.len() {
            if self.at == At::Data {
                let left = data.len() - p;
                let take = usize::try_from(self.size).map_or(left, |size| size.min(left));
                self.taken(take);
                p += take;
                continue;
            }
            let over = self.step(data[p]).ok_or(Broken { after: p })?;
            p += 1;
            if over {
                return Ok((p, true));
            }
        }
        Ok((p, false))
    }

    /// One byte outside chunk data: whether it was the last of the body, or `None` when it may not stand there.
    fn step(&mut self, b: u8) -> Option<bool> {
        self.at = match (self.at, b) {
            (At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.digits = self.digits.saturating_add(1);
                if self.digits > 15 {
                    return None;
                }
                self.size = self.size * 16 + u64::from((b as char).to_digit(16)?);
                At::Size
            }
            (At::Size, b';') if self.digits > 0 => At::Extension,
            (At::Size | At::Extension, b'\r') if self.digits > 0 => At::SizeLf,
            (At::Extension, b) if is_value(b) => {
                self.extensions += 1;
                if self.extensions >= MAX_EXTENSIONS {
                    return None;
                }
                At::Extension
            }
            (At::SizeLf, b'\n') => {
                self.digits = 0;
                if self.size == 0 { At::Line } else { At::Data }
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size,
            (At::Line, b'\r') => At::EndLf,
            (At::Line, b) if is_token(b) => {
                self.trailer_lines += 1;
                if self.trailer_lines > MAX_FIELDS {
                    return None;
                }
                self.trailer(At::Name)?
            }
            (At::Name, b) if is_token(b) => self.trailer(At::Name)?,
            (At::Name, b':') => self.trailer(At::Value)?,
            (At::Value, b'\r') => self.trailer(At::ValueLf)?,
            (At::Value, b) if is_value(b) => self.trailer(At::Value)?,
            (At::ValueLf, b'\n') => self.trailer(At::Line)?,
            (At::EndLf, b'\n') => return Some(true),
            _ => return None,
        };
        Some(false)
    }

    fn trailer(&mut self, next: At) -> Option<At> {
        self.trailers += 1;
        (self.trailers <= MAX_TRAILERS).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(data: &[u8]) -> Result<(usize, bool), Broken> {
        Scanner::new().feed(data)
    }

    #[test]
    fn a_body_ends_with_its_last_chunk_and_not_a_byte_later() {
        let body = b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1";
        assert_eq!(scan(body), Ok((15, true)));
        let body = b"a;x=y\r\n0123456789\r\n000\r\nX-T: v\r\nY: \r\n\r\n";
        assert_eq!(scan(body), Ok((body.len(), true)));
    }

    #[test]
    fn taken_apart_in_whatever_pieces_it_is_the_same_body() {
        let body = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\na: b\r\n\r\n";
        for size in 1..=body.len() {
            let (mut scanner, mut whole, mut over) = (Scanner::new(), Vec::new(), false);
            for piece in body.chunks(size) {
                let mut rest = piece;
                while !rest.is_empty() && !over {
                    let step = scanner.next(rest).unwrap();
                    rest = &rest[step.skip..];
                    whole.extend_from_slice(&rest[..step.take]);
                    rest = &rest[step.take..];
                    if step.take > 0 {
                        scanner.taken(step.take);
                    }
                    over = step.over;
                }
            }
            assert!(over && whole == b"hello!", "{size}: {whole:?}");
        }
    }

    #[test]
    fn a_fault_is_found_again_when_it_is_asked_for_again() {
        let mut scanner = Scanner::new();
        assert_eq!(scanner.next(b"1\r\nxzz"), Ok(Step { skip: 3, take: 1, over: false }));
        scanner.taken(1);
        assert_eq!(scanner.next(b"zz"), Err(Broken { after: 0 }));
        assert_eq!(scanner.next(b"zz"), Err(Broken { after: 0 }));
    }

    #[test]
    fn it_may_arrive_byte_by_byte() {
        let body = b"5\r\nhello\r\n1;e\r\n!\r\n0\r\na: b\r\n\r\n";
        let mut scanner = Scanner::new();
        for (n, byte) in body.iter().enumerate() {
            assert_eq!(scanner.feed(&[*byte]), Ok((1, n == body.len() - 1)), "byte {n}");
        }
    }

    #[test]
    fn what_parsers_read_differently_is_broken() {
        for bad in [
            &b"0x5\r\nhello\r\n"[..],
            b"+5\r\n",
            b" 5\r\n",
            b"5 \r\n",
            b"\r\n",
            b"g\r\n",
            b"5\nhello",
            b"5\rhello",
            b"5\r\nhello\n",
            b"5\r\nhelloo\r\n",
            b"5\r\nhell\r\n0",
            b"0000000000000005\r\n",
            b"10000000000000000\r\n",
            b"5;a\nb\r\n",
            b"5;a\0\r\n",
            b";a\r\n",
            b"0\r\n\n",
            b"0\r\n : x\r\n",
            b"0\r\nx y: z\r\n",
            b"0\r\nx: a\nb: c\r\n\r\n",
            b"0\r\n folded\r\n",
            b"0\r\nnocolon\r\n",
        ] {
            assert!(scan(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn what_stands_before_the_fault_is_counted() {
        assert_eq!(scan(b"5\r\nhelloX"), Err(Broken { after: 8 }));
        assert_eq!(scan(b"5\r\nhello\r\n0\r\nx y"), Err(Broken { after: 14 }));
        assert_eq!(scan(b" 5"), Err(Broken { after: 0 }));
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        // One chunk with `n` bytes of extensions.
        let extended = |n| [b"1;".as_slice(), &vec![b'e'; n], b"\r\nx\r\n0\r\n\r\n"].concat();
        assert!(scan(&extended(MAX_EXTENSIONS - 1)).is_ok());
        assert!(scan(&extended(MAX_EXTENSIONS)).is_err());
        // The same in many chunks.
        let mut scanner = Scanner::new();
        let chunk = [b"1;".as_slice(), &[b'e'; 1000], b"\r\nx\r\n"].concat();
        assert!((0..17).any(|_| scanner.feed(&chunk).is_err()));
        // Bytes of trailers: `x:`, the value and CRLF.
        let trailing = |n| [b"0\r\nx:".as_slice(), &vec![b'e'; n - 4], b"\r\n\r\n"].concat();
        assert!(scan(&trailing(MAX_TRAILERS)).is_ok());
        assert!(scan(&trailing(MAX_TRAILERS + 1)).is_err());
        // Lines of trailers.
        let lines = |n| [b"0\r\n".as_slice(), &b"a:\r\n".repeat(n), b"\r\n"].concat();
        assert!(scan(&lines(MAX_FIELDS)).is_ok());
        assert!(scan(&lines(MAX_FIELDS + 1)).is_err());
    }
}
