//! One request and the head of its answer on one connection: both directions at once, and a limit to the waiting.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

use super::connection::Connection;
use super::error::{Malformed, Violation};
use super::pool::Pool;
use super::response_head::{self, Head};
use super::sending::{Sending, Stopped};
use super::tls::Socket;
use super::{Error, Limits};

/// An answer's head, and what came with it of its body.
pub(super) type Answer = (Head, Bytes);

/// A request without an answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) error: Error,
    /// The upstream has not had a byte of it, because the connection had been closed since its last use.
    pub(super) untouched: bool,
}

impl From<Error> for Unanswered {
    fn from(error: Error) -> Self {
        Self { error, untouched: false }
    }
}

/// Sends the request that `sending` has begun on this connection at `start`, and waits for the head of the final answer. The
/// body may still be under way then: see [`Sending::is_done`].
pub(super) async fn exchange(
    pool: &Pool,
    connection: &mut Connection,
    sending: &mut Sending,
    limits: &Limits,
    (start, total): (Instant, Option<Instant>),
) -> Result<Answer, Unanswered> {
    let mut listening = Listening { held: Bytes::new(), heard: false };
    poll_fn(|cx| {
        if !sending.is_done()
            && let Poll::Ready(Err(stopped)) = sending.poll(cx, connection)
        {
            return Poll::Ready(Err(match stopped {
                Stopped::Body(error) => error.into(),
                Stopped::Connection(error) => Error::Closed(error).into(),
                Stopped::Untouched(error) => Unanswered { error: Error::Closed(error), untouched: true },
            }));
        }
        if let Poll::Ready(answer) = listening.poll(cx, pool, &mut connection.tcp) {
            return Poll::Ready(answer.map_err(Into::into));
        }
        // Asked anew each time: whom an upload waits for changes with it.
        let (due, error) = match sending.upload() {
            Some(upload) => upload.due(limits),
            None => (start + limits.response_head, Error::ResponseHeadTimeout),
        };
        let (due, error) = match total {
            Some(total) if total < due => (total, Error::TotalTimeout),
            _ => (due, error),
        };
        connection.patience.poll_over(cx, due).map(|()| Err(error.into()))
    })
    .await
}

/// What has come of the answer.
struct Listening {
    /// The beginning of a head.
    held: Bytes,
    /// Any byte was read. An upstream that closed without one has most likely not seen the request.
    heard: bool,
}

impl Listening {
    fn poll(&mut self, cx: &mut Context<'_>, pool: &Pool, tcp: &mut Socket) -> Poll<Result<Answer, Error>> {
        loop {
            let read = ready!(self.poll_read(cx, pool, tcp));
            let mut block = read.map_err(|error| match self.heard {
                true => Error::Protocol(Violation::Malformed(Malformed::Truncated(error))),
                false => Error::Closed(error),
            })?;
            self.heard = true;
            loop {
                let parsed = response_head::parse(&block);
                let Some(head) = parsed.map_err(|error| Error::Protocol(Violation::Malformed(error)))? else {
                    self.held = block;
                    break;
                };
                let rest = block.split_off(head.len);
                // Interim answers (RFC 9110, section 15.2) are for us; 101 is a final one.
                let status = head.parts.status;
                if !status.is_informational() || status.as_u16() == 101 {
                    return Poll::Ready(Ok((head, rest)));
                }
                if rest.is_empty() {
                    break;
                }
                block = rest;
            }
        }
    }

    /// Reads on: all that there is and was not used yet.
    fn poll_read(&mut self, cx: &mut Context<'_>, pool: &Pool, tcp: &mut Socket) -> Poll<io::Result<Bytes>> {
        let mut room = pool.room();
        if ready!(pin!(tcp.read_buf(&mut *room)).poll(cx))? == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let held = std::mem::take(&mut self.held);
        Poll::Ready(Ok(match held.is_empty() {
            true => room.take(),
            false => Bytes::from([&held[..], &room[..]].concat()),
        }))
    }
}
