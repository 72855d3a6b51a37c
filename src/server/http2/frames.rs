//! The stream between a client's socket and hyper's HTTP/2: follows where frames begin and end, and ends a connection that
//! talks too much without asking for anything, or too slowly.
//!
//! What frames say is for the library; here counts only how many there are and when they are complete. Each frame that
//! makes work and asks for nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, CONTINUATION, unknown types, DATA
//! without data) is paid out of a credit; requests, data, what the client is sent, and time fill it again. A client that
//! uses its connection never sees the bottom of it.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::super::guard::WRITE_STALL;
use super::super::protocol::PREFACE;

/// Frames that ask for nothing which a client may send in a row.
const CREDIT: u32 = 1000;
/// How many of them a second it may send for ever.
const PER_SECOND: u64 = 100;
/// What the beginning of a request, or its trailers, is worth.
const PER_HEADERS: u32 = 8;
/// So many bytes sent to the client are worth one: clients open the window again in steps above this.
const BYTES_SENT: usize = 1024;

// Types of frames (RFC 9113, section 6), and the flags that matter here.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// The client sends too much that asks for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a flood of HTTP/2 frames")]
pub(super) struct Flood;

/// Where in a client's frames the stream stands, and what it may still send.
#[derive(Debug)]
struct Follower {
    /// Of the preface.
    preface: usize,
    /// The beginning of a frame's head.
    head: [u8; 9],
    have: usize,
    /// Payload of the frame that is still to come.
    left: usize,
    kind: u8,
    /// HEADERS without its end.
    in_block: bool,
    /// Whether a whole frame has come at all: the first is SETTINGS.
    begun: bool,
    credit: u32,
    filled: Instant,
}

impl Follower {
    fn new(now: Instant) -> Self {
        Self {
            preface: PREFACE.len(),
            head: [0; 9],
            have: 0,
            left: 0,
            kind: DATA,
            in_block: false,
            begun: false,
            credit: CREDIT,
            filled: now,
        }
    }

    /// Reads on.
    ///
    /// # Errors
    /// [`Flood`].
    fn feed(&mut self, mut data: &[u8]) -> Result<(), Flood> {
        let skip = self.preface.min(data.len());
        self.preface -= skip;
        data = &data[skip..];
        while !data.is_empty() {
            if self.left > 0 {
                let take = self.left.min(data.len());
                self.left -= take;
                data = &data[take..];
            } else {
                let take = (self.head.len() - self.have).min(data.len());
                self.head[self.have..self.have + take].copy_from_slice(&data[..take]);
                self.have += take;
                data = &data[take..];
                if self.have < self.head.len() {
                    break;
                }
                self.have = 0;
                self.begin()?;
            }
            self.begun |= self.left == 0;
        }
        Ok(())
    }

    /// A frame's head is there.
    fn begin(&mut self) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = self.head;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.kind = kind;
        match kind {
            // Padding is no data.
            DATA if self.left > 0 && flags & PADDED == 0 => self.earn(1),
            DATA if flags & END_STREAM != 0 => {}
            HEADERS => {
                self.earn(PER_HEADERS);
                self.in_block = flags & END_HEADERS == 0;
            }
            CONTINUATION => {
                self.in_block &= flags & END_HEADERS == 0;
                self.spend()?;
            }
            _ => self.spend()?,
        }
        Ok(())
    }

    fn earn(&mut self, n: u32) {
        self.credit = CREDIT.min(self.credit.saturating_add(n));
    }

    fn spend(&mut self) -> Result<(), Flood> {
        if self.credit == 0 {
            let now = Instant::now();
            let passed = u64::try_from((now - self.filled).as_millis()).unwrap_or(u64::MAX);
            self.filled = now;
            self.earn(u32::try_from(passed.saturating_mul(PER_SECOND) / 1000).unwrap_or(CREDIT));
        }
        self.credit = self.credit.checked_sub(1).ok_or(Flood)?;
        Ok(())
    }

    /// Whether the client has begun something that it has to bring to an end soon. Silence in a body is judged where the
    /// body is read, and silence between requests by the connection.
    fn owes(&self) -> bool {
        self.in_block || !self.begun || self.have > 0 || (self.left > 0 && self.kind != DATA)
    }
}

/// The followed stream.
#[derive(Debug)]
pub(super) struct Frames<S> {
    stream: S,
    follower: Follower,
    /// How long what is begun may take.
    patience: Duration,
    /// When that is over.
    due: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    /// What was read before, and how much of it was taken.
    early: Vec<u8>,
    taken: usize,
    flooded: Arc<AtomicBool>,
}

impl<S> Frames<S> {
    /// Follows `stream`, accepted at `since`, of which `early` has been read.
    pub(super) fn new(stream: S, early: Vec<u8>, since: Instant, head_timeout: Duration) -> Self {
        let flooded = Arc::default();
        Self {
            stream,
            follower: Follower::new(since),
            patience: head_timeout,
            due: Some(since + head_timeout),
            timer: None,
            write_timer: None,
            early,
            taken: 0,
            flooded,
        }
    }

    /// Becomes true when the connection is ended for a [`Flood`]; hyper's error does not tell.
    pub(super) fn flooded(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flooded)
    }

    /// Nothing has come: is something overdue?
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.follower.owes() {
            self.due = None;
            return Poll::Pending;
        }
        let due = *self.due.get_or_insert_with(|| Instant::now() + self.patience);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }

    /// Has the client left what it is sent unread for too long?
    fn stalled<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.write_timer = None;
            return outcome;
        }
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_STALL)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn sent(&mut self, outcome: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(n)) = outcome {
            self.follower.earn(u32::try_from(n / BYTES_SENT).unwrap_or(CREDIT));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.taken < this.early.len() {
            let take = buf.remaining().min(this.early.len() - this.taken);
            buf.put_slice(&this.early[this.taken..this.taken + take]);
            this.taken += take;
        } else {
            match Pin::new(&mut this.stream).poll_read(cx, buf) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    ready!(this.poll_late(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        if let Err(flood) = this.follower.feed(&buf.filled()[before..]) {
            buf.set_filled(before);
            this.flooded.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, flood)));
        }
        if !this.follower.owes() {
            this.due = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(cx, data);
        this.sent(&outcome);
        this.stalled(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, data);
        this.sent(&outcome);
        this.stalled(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(cx);
        this.stalled(cx, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn started() -> Follower {
        let mut follower = Follower::new(Instant::now());
        follower.feed(PREFACE).unwrap();
        follower
    }

    const SETTINGS: u8 = 4;
    const PING: u8 = 6;

    #[tokio::test(start_paused = true)]
    async fn frames_are_followed_however_they_are_cut() {
        let all = [frame(SETTINGS, 0, b"123456"), frame(HEADERS, 0, b"abc"), frame(CONTINUATION, END_HEADERS, b"d")];
        let all = [PREFACE.as_slice(), &all.concat()].concat();
        for size in 1..all.len() {
            let mut follower = Follower::new(Instant::now());
            assert!(follower.owes());
            let mut owed = Vec::new();
            for piece in all.chunks(size) {
                follower.feed(piece).unwrap();
                owed.push(follower.owes());
            }
            assert!(!follower.owes(), "{size}");
            // Something is owed until SETTINGS is whole, and from the first byte of HEADERS to the end of the block.
            assert!(owed.iter().filter(|owes| !**owes).count() <= 2, "{size}: {owed:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_ask_for_nothing_are_a_flood() {
        for flood in [
            frame(PING, 0, &[0; 8]),
            frame(SETTINGS, 0, b""),
            frame(2, 0, &[0; 5]),
            frame(3, 0, &[0; 4]),
            frame(8, 0, &[0; 4]),
            frame(0xbe, 0, b"what"),
            frame(DATA, 0, b""),
            frame(DATA, PADDED, &[9; 10]),
            frame(CONTINUATION, 0, b""),
        ] {
            let mut follower = started();
            for n in 0..CREDIT {
                assert_eq!(follower.feed(&flood), Ok(()), "{n} of type {}", flood[3]);
            }
            assert_eq!(follower.feed(&flood), Err(Flood), "type {}", flood[3]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_data_answers_and_time_are_worth_some() {
        let ping = frame(PING, 0, &[0; 8]);
        let spent = || {
            let mut follower = started();
            (0..CREDIT).for_each(|_| follower.feed(&ping).unwrap());
            follower
        };
        let mut follower = spent();
        follower.feed(&frame(HEADERS, END_HEADERS, b"x")).unwrap();
        (0..PER_HEADERS).for_each(|_| follower.feed(&ping).unwrap());
        assert_eq!(follower.feed(&ping), Err(Flood));

        let mut follower = spent();
        follower.feed(&frame(DATA, 0, b"x")).unwrap();
        assert_eq!((follower.feed(&ping), follower.feed(&ping)), (Ok(()), Err(Flood)));

        let mut follower = spent();
        tokio::time::advance(Duration::from_secs(1)).await;
        (0..PER_SECOND).for_each(|_| follower.feed(&ping).unwrap());
        assert_eq!(follower.feed(&ping), Err(Flood));

        let (client, ours) = duplex(1 << 20);
        let mut frames = Frames::new(ours, Vec::new(), Instant::now(), Duration::from_secs(10));
        frames.follower = spent();
        frames.write_all(&[0; 3 * BYTES_SENT]).await.unwrap();
        (0..3).for_each(|_| frames.follower.feed(&ping).unwrap());
        assert_eq!(frames.follower.feed(&ping), Err(Flood));
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_connection_of_requests_and_window_updates_is_none() {
        let mut follower = started();
        let one = [frame(HEADERS, END_HEADERS | END_STREAM, b"x"), frame(8, 0, &[0; 4]), frame(8, 0, &[0; 4])].concat();
        (0..100_000).for_each(|_| follower.feed(&one).unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_begun_has_to_be_finished_in_time() {
        let settings = [PREFACE.as_slice(), &frame(SETTINGS, 0, b"")].concat();
        let block = [settings.clone(), frame(HEADERS, 0, b"abc")].concat();
        let half = [settings.clone(), frame(PING, 0, &[0; 8])[..12].to_vec()].concat();
        for (said, late) in
            [(&PREFACE[..10], true), (&PREFACE[..], true), (&block, true), (&half, true), (&settings[..], false)]
        {
            let (mut client, ours) = duplex(1024);
            let mut frames = Frames::new(ours, Vec::new(), Instant::now(), Duration::from_secs(10));
            client.write_all(said).await.unwrap();
            let started = Instant::now();
            let mut all = Vec::new();
            let read = frames.read_to_end(&mut all);
            let outcome = tokio::time::timeout(Duration::from_secs(1000), read).await;
            assert_eq!(outcome.is_ok(), late, "{said:?}");
            if late {
                assert_eq!(outcome.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
                assert_eq!(started.elapsed(), Duration::from_secs(10));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_that_trickles_is_not_given_more_time() {
        let (mut client, ours) = duplex(1024);
        let mut frames = Frames::new(ours, Vec::new(), Instant::now(), Duration::from_secs(10));
        let start = [PREFACE.as_slice(), &frame(SETTINGS, 0, b""), &frame(HEADERS, 0, b"a")].concat();
        client.write_all(&start).await.unwrap();
        let trickle = tokio::spawn(async move {
            while client.write_all(&frame(CONTINUATION, 0, b"a")).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        });
        let started = Instant::now();
        assert!(frames.read_to_end(&mut Vec::new()).await.is_err());
        assert_eq!(started.elapsed(), Duration::from_secs(10));
        trickle.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_left() {
        let (_client, ours) = duplex(16);
        let mut frames = Frames::new(ours, Vec::new(), Instant::now(), Duration::from_secs(10));
        let started = Instant::now();
        let written = frames.write_all(&[0; 1000]).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed(), WRITE_STALL);
    }
}
