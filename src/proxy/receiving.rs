//! What of the bytes behind a response head is its body (RFC 9112, section 6).

use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::SizeHint;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::http1::chunked::{Broken, Scanner};

/// Most of a body that is read at once, bytes: what one stalled reader holds.
const MAX_READ: usize = 64 * 1024;

/// Room for a read of a body that does not tell its length, bytes.
const READ: usize = 16 * 1024;

/// How a response body ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Framing {
    /// After so many bytes; 0 when there is none.
    Length(u64),
    /// With its last chunk.
    Chunked(Scanner),
    /// With the connection.
    Close,
}

/// A body as it comes in.
#[derive(Debug)]
pub(super) struct Receiving {
    framing: Framing,
    /// Read and not yet passed on.
    rest: Bytes,
    /// Room for what is read next.
    room: BytesMut,
    /// How much that may be, where the head does not tell.
    expected: usize,
    over: bool,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    /// Some of the body.
    Data(Bytes),
    /// Nothing until more is read.
    More,
    /// The body is whole.
    Over,
}

impl Receiving {
    /// A body of this framing, of which `rest` came with its head.
    pub(super) fn new(framing: Framing, rest: Bytes) -> Self {
        let over = matches!(framing, Framing::Length(0));
        Self { framing, rest, room: BytesMut::new(), expected: READ, over }
    }

    /// Whether the body is whole, and all of it was given out.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// Whether the upstream has said more than its body.
    pub(super) const fn has_excess(&self) -> bool {
        self.over && !self.rest.is_empty()
    }

    /// What is there already.
    ///
    /// # Errors
    /// Chunks that break the grammar.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        if self.over {
            return Ok(Next::Over);
        }
        if self.rest.is_empty() {
            return Ok(Next::More);
        }
        let data = match &mut self.framing {
            Framing::Close => std::mem::take(&mut self.rest),
            Framing::Length(left) => {
                let take = usize::try_from(*left).map_or(self.rest.len(), |left| left.min(self.rest.len()));
                *left -= take as u64;
                self.over = *left == 0;
                self.rest.split_to(take)
            }
            Framing::Chunked(scanner) => {
                let step = scanner.next(&self.rest).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                let _ = self.rest.split_to(step.skip);
                if step.over {
                    self.over = true;
                    return Ok(Next::Over);
                }
                if step.take == 0 {
                    return Ok(Next::More);
                }
                scanner.taken(step.take);
                let data = self.rest.split_to(step.take);
                // So that the last chunk is known to be the last. A fault behind it is found again by the next call.
                match scanner.next(&self.rest) {
                    Ok(step) => {
                        let _ = self.rest.split_to(step.skip);
                        self.over = step.over;
                    }
                    Err(Broken { after }) => drop(self.rest.split_to(after)),
                }
                data
            }
        };
        Ok(Next::Data(data))
    }

    /// Reads on.
    ///
    /// # Errors
    /// The connection's, or its end where the body has not ended.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<()>> {
        let room = match self.framing {
            // One byte more than is due: a read that fills its room asks the kernel once more.
            Framing::Length(left) => usize::try_from(left).unwrap_or(MAX_READ).saturating_add(1).min(MAX_READ),
            Framing::Chunked(_) | Framing::Close => self.expected,
        };
        if self.room.capacity() < room.min(READ) {
            self.room = BytesMut::with_capacity(room);
        }
        let offered = self.room.capacity();
        let read = match pin!(stream.read_buf(&mut self.room)).poll(cx) {
            Poll::Ready(read) => read?,
            // Nothing is held for a stream that is silent.
            Poll::Pending => {
                self.room = BytesMut::new();
                return Poll::Pending;
            }
        };
        if read > 0 {
            if read == offered {
                self.expected = MAX_READ;
            }
            self.rest = self.room.split().freeze();
            return Poll::Ready(Ok(()));
        }
        if matches!(self.framing, Framing::Close) {
            self.over = true;
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
    }

    /// How much is still to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Chunked(_) | Framing::Close if self.over => SizeHint::with_exact(0),
            Framing::Chunked(_) | Framing::Close => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// The body in `text`, read in pieces of `size`, and what came behind it.
    async fn body(framing: Framing, text: &[u8], size: usize) -> (io::Result<Vec<u8>>, bool) {
        let mut pieces = text.chunks(size);
        let mut receiving = Receiving::new(framing, Bytes::copy_from_slice(pieces.next().unwrap_or_default()));
        let mut whole = Vec::new();
        let outcome = loop {
            match receiving.next() {
                Ok(Next::Data(data)) => whole.extend_from_slice(&data),
                Ok(Next::Over) => break Ok(whole),
                Ok(Next::More) => {
                    let mut piece = pieces.next().unwrap_or_default();
                    if let Err(error) = poll_fn(|cx| receiving.poll_read(cx, &mut piece)).await {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        (outcome, receiving.has_excess())
    }

    #[tokio::test]
    async fn a_body_is_the_same_in_whatever_pieces_it_comes() {
        let chunked = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\na: b\r\n\r\n";
        for size in 1..=chunked.len() {
            assert_eq!(body(Framing::Chunked(Scanner::new()), chunked, size).await.0.unwrap(), b"hello!", "{size}");
            assert_eq!(body(Framing::Length(6), b"hello!", size).await.0.unwrap(), b"hello!", "{size}");
            assert_eq!(body(Framing::Close, b"hello!", size).await.0.unwrap(), b"hello!", "{size}");
        }
    }

    #[tokio::test]
    async fn what_comes_behind_a_body_is_noticed() {
        assert!(body(Framing::Length(2), b"okHTTP/1.1", 10).await.1);
        assert!(body(Framing::Length(0), b"evil", 10).await.1);
        assert!(body(Framing::Chunked(Scanner::new()), b"2\r\nok\r\n0\r\n\r\nevil", 100).await.1);
        assert!(!body(Framing::Chunked(Scanner::new()), b"2\r\nok\r\n0\r\n\r\n", 100).await.1);
    }

    #[tokio::test]
    async fn a_body_that_is_cut_or_breaks_its_chunks_is_an_error() {
        for (framing, text) in [
            (Framing::Length(6), &b"hello"[..]),
            (Framing::Chunked(Scanner::new()), b"5\r\nhello\r\n"),
            (Framing::Chunked(Scanner::new()), b"5\r\nhello\r\n0\r\n"),
            (Framing::Chunked(Scanner::new()), b"5\r\nhello\r\nzz\r\n"),
            (Framing::Chunked(Scanner::new()), b"5\r\nhelloo\r\n0\r\n\r\n"),
            (Framing::Chunked(Scanner::new()), b"5\nhello\n0\n\n"),
        ] {
            for size in 1..=text.len() {
                assert!(body(framing, text, size).await.0.is_err(), "{framing:?} {text:?} {size}");
            }
        }
    }
}
