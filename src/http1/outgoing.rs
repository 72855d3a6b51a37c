//! A message on its way out: its head, then its body frame by frame, written together where they are there together.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

/// How the body of a message is framed (RFC 9112, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// So many bytes; 0 when there is none.
    Known(u64),
    /// In chunks.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// Frames up to this size are copied behind the head, bytes: one piece is handed to the kernel more cheaply than two.
const COPIED: usize = 1024;

/// As much may wait in one piece before no further frame is taken, bytes.
const GATHERED: usize = 8 * 1024;

/// The body has another length than the head says.
#[derive(Debug)]
pub(crate) struct WrongLength;

/// What is still to be written.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Head, size lines and small frames, and how much of them is written. The bytes of larger frames are not copied.
    front: Vec<u8>,
    written: usize,
    data: Bytes,
    tail: &'static [u8],
    length: Length,
    last: bool,
}

impl Outgoing {
    /// A message that begins with `head`, and has a body of this length.
    pub(crate) const fn new(head: Vec<u8>, length: Length) -> Self {
        let last = matches!(length, Length::Known(0));
        Self { front: head, written: 0, data: Bytes::new(), tail: b"", length, last }
    }

    /// Whether the next frame can be taken; the head may still be there.
    pub(crate) const fn wants_frame(&self) -> bool {
        let waiting = self.front.len() - self.written;
        self.data.is_empty() && self.tail.is_empty() && !self.last && waiting < GATHERED
    }

    /// Whether all that was put in is written.
    pub(crate) const fn is_flushed(&self) -> bool {
        self.written == self.front.len() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Whether the whole message is written.
    pub(crate) const fn is_over(&self) -> bool {
        self.last && self.is_flushed()
    }

    /// The next frame of the body. `last` says that none follows.
    ///
    /// # Errors
    /// [`WrongLength`]: the message cannot be completed.
    pub(crate) fn put(&mut self, data: Bytes, last: bool) -> Result<(), WrongLength> {
        // Also in the middle, so that a client that always takes a little does not make it grow.
        if self.written == self.front.len() || self.written >= GATHERED {
            self.front.drain(..self.written);
            self.written = 0;
        }
        match &mut self.length {
            Length::Known(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?;
                if last && *left > 0 {
                    return Err(WrongLength);
                }
                // What is due is there; that nothing follows need not be waited for.
                self.last = *left == 0;
            }
            Length::Chunked => {
                if !data.is_empty() {
                    // Writing to memory does not fail.
                    let _ = write!(self.front, "{:x}\r\n", data.len());
                }
                self.tail = match (data.is_empty(), last) {
                    (false, false) => b"\r\n",
                    (false, true) => b"\r\n0\r\n\r\n",
                    (true, true) => b"0\r\n\r\n",
                    (true, false) => b"",
                };
                self.last = last;
            }
            Length::Close => self.last = last,
        }
        if data.len() <= COPIED {
            self.front.extend_from_slice(&data);
            self.front.extend_from_slice(std::mem::take(&mut self.tail));
        } else {
            self.data = data;
        }
        Ok(())
    }

    /// Writes all that is there, with as few system calls as there can be.
    ///
    /// # Errors
    /// The stream's.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while !self.is_flushed() {
            let front = &self.front[self.written..];
            let written = if self.data.is_empty() && self.tail.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(cx, front))?
            } else {
                let slices = [IoSlice::new(front), IoSlice::new(&self.data), IoSlice::new(self.tail)];
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        let front = written.min(self.front.len() - self.written);
        self.written += front;
        written -= front;
        let data = written.min(self.data.len());
        self.data.advance(data);
        self.tail = &self.tail[written - data..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes seven bytes at a time.
    #[derive(Default)]
    struct Narrow(Vec<u8>);

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            let taken = data.len().min(7);
            self.0.extend_from_slice(&data[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write_all(outgoing: &mut Outgoing, stream: &mut Narrow) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(outgoing.poll_write(&mut cx, stream), Poll::Ready(Ok(()))));
    }

    #[test]
    fn frames_of_all_sizes_stand_in_their_order() {
        let sizes = [1, COPIED, COPIED + 1, 0, 3, 2 * COPIED, 5];
        let frames: Vec<Bytes> = sizes.iter().zip(b'a'..).map(|(size, b)| Bytes::from(vec![b; *size])).collect();
        let whole: Vec<u8> = frames.concat();
        let mut outgoing = Outgoing::new(b"head ".to_vec(), Length::Known(whole.len() as u64));
        let mut stream = Narrow::default();
        for (n, frame) in frames.iter().enumerate() {
            if !outgoing.wants_frame() {
                write_all(&mut outgoing, &mut stream);
            }
            outgoing.put(frame.clone(), n + 1 == frames.len()).unwrap();
        }
        write_all(&mut outgoing, &mut stream);
        assert!(outgoing.is_over());
        assert_eq!(stream.0, [b"head ", &whole[..]].concat());
    }

    #[test]
    fn what_waits_is_bounded_also_where_the_client_always_takes_a_little() {
        let mut outgoing = Outgoing::new(Vec::new(), Length::Close);
        let mut sent = 0;
        for _ in 0..10_000 {
            while outgoing.wants_frame() {
                outgoing.put(Bytes::from_static(&[b'x'; 100]), false).unwrap();
            }
            outgoing.advance(150);
            sent += 150;
            assert!(outgoing.front.len() <= 3 * GATHERED, "{} after {sent}", outgoing.front.len());
        }
    }
}
