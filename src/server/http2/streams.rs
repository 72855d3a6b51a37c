//! The streams of one connection: which of them their client has abandoned or does not read, and when it is too many.
//!
//! A body that nobody polls cannot time out, and hyper does not poll one whose client keeps the window shut. So each stream
//! notes when its body was last asked, in ticks of the connection, and the connection looks through its streams and ends
//! those that wait for their client for too long.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::super::guard::WRITE_STALL;

/// How often a connection looks through its streams.
pub(super) const TICK: Duration = Duration::from_secs(10);

/// So many ticks without being asked for more, and a client has stopped reading.
#[allow(clippy::cast_possible_truncation)] // a handful
const STALL: u32 = (WRITE_STALL.as_secs() / TICK.as_secs()) as u32;

/// How many requests a client may abandon in a row. Each that is answered in full makes up for one, each tick for ten.
const PATIENCE: u32 = 200;
const PER_TICK: u32 = 10;

/// Most data in one step, bytes: hyper asks for more when the client has made room for the step before, so this is also
/// what a client has to read within [`WRITE_STALL`].
const STEP: usize = 16 * 1024;

/// The body is waited for, or there is none yet.
const NOT_HANDED: u32 = 0;

/// The streams of a connection.
#[derive(Debug)]
pub(super) struct Streams {
    live: Mutex<Vec<Weak<Stream>>>,
    /// The stream whose task comes next: hyper calls the service and then the executor.
    opening: Mutex<Option<Arc<Stream>>>,
    patience: AtomicU32,
    opened: AtomicU32,
    tick: AtomicU32,
    abused: Notify,
    most: usize,
}

/// One stream.
#[derive(Debug)]
struct Stream {
    /// The tick at which data was handed over for which the client must make room.
    handed: AtomicU32,
    task: OnceLock<AbortHandle>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Streams {
    /// None yet, and at most `most` at once.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            live: Mutex::default(),
            opening: Mutex::default(),
            patience: AtomicU32::new(PATIENCE),
            opened: AtomicU32::new(0),
            tick: AtomicU32::new(1),
            abused: Notify::new(),
            most,
        })
    }

    /// A request has come.
    pub(super) fn open(self: &Arc<Self>) -> Ticket {
        let stream = Arc::new(Stream { handed: AtomicU32::new(NOT_HANDED), task: OnceLock::new() });
        let mut live = lock(&self.live);
        if live.len() >= 2 * self.most {
            live.retain(|stream| stream.strong_count() > 0);
        }
        live.push(Arc::downgrade(&stream));
        drop(live);
        *lock(&self.opening) = Some(Arc::clone(&stream));
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ticket { streams: Arc::clone(self), stream, done: false }
    }

    /// How many there have been.
    pub(super) fn opened(&self) -> u32 {
        self.opened.load(Ordering::Relaxed)
    }

    /// The client abandons too many requests (CVE-2023-44487).
    pub(super) async fn abused(&self) {
        self.abused.notified().await;
    }

    /// Ends what its client has stopped reading; to be called every [`TICK`]. Says how many there were.
    pub(super) fn sweep(&self) -> usize {
        let now = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
        let patience = self.patience.load(Ordering::Relaxed);
        self.patience.store(PATIENCE.min(patience + PER_TICK), Ordering::Relaxed);
        let mut ended = 0;
        lock(&self.live).retain(|stream| {
            let Some(stream) = stream.upgrade() else { return false };
            let handed = stream.handed.load(Ordering::Relaxed);
            let stalled = handed != NOT_HANDED && now.saturating_sub(handed) > STALL;
            if stalled && let Some(task) = stream.task.get() {
                // hyper lets go of the stream, which resets it.
                task.abort();
                ended += 1;
            }
            !stalled
        });
        ended
    }

    /// Ends all of them: their connection is over.
    pub(super) fn end(&self) {
        for stream in lock(&self.live).drain(..).filter_map(|stream| stream.upgrade()) {
            if let Some(task) = stream.task.get() {
                task.abort();
            }
        }
    }

    fn abandoned(&self) {
        let left = self.patience.load(Ordering::Relaxed);
        if left == 0 {
            self.abused.notify_one();
        }
        self.patience.store(left.saturating_sub(1), Ordering::Relaxed);
    }

    fn answered(&self) {
        let left = self.patience.load(Ordering::Relaxed);
        self.patience.store(PATIENCE.min(left + 1), Ordering::Relaxed);
    }
}

/// Runs what hyper spawns, on this worker.
#[derive(Debug, Clone)]
pub(super) struct Tasks(pub(super) Arc<Streams>);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let task = tokio::spawn(task).abort_handle();
        if let Some(stream) = lock(&self.0.opening).take() {
            let _ = stream.task.set(task);
        }
    }
}

/// One request, until its answer is over. Dropped before that, the client has abandoned it.
#[derive(Debug)]
pub(super) struct Ticket {
    streams: Arc<Streams>,
    stream: Arc<Stream>,
    done: bool,
}

impl Ticket {
    fn finish(&mut self) {
        if !self.done {
            self.done = true;
            self.streams.answered();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.done {
            self.streams.abandoned();
        }
    }
}

/// The body of an answer, in steps, and the watch over who takes it.
#[derive(Debug)]
pub(super) struct Watched<B> {
    body: B,
    rest: Bytes,
    ticket: Ticket,
}

impl<B: HttpBody> Watched<B> {
    /// The body of the answer to the request of `ticket`.
    pub(super) fn new(body: B, mut ticket: Ticket) -> Self {
        if body.is_end_stream() {
            ticket.finish();
        }
        Self { body, rest: Bytes::new(), ticket }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let streams = &this.ticket.streams;
        let handed = &this.ticket.stream.handed;
        if this.rest.is_empty() {
            // From here on the upstream is waited for.
            handed.store(NOT_HANDED, Ordering::Relaxed);
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => {
                        this.ticket.finish();
                        return Poll::Ready(Some(Ok(trailers)));
                    }
                },
                // Broken by the upstream, which is not the client's doing.
                over => {
                    this.ticket.finish();
                    return Poll::Ready(over);
                }
            }
        }
        handed.store(streams.tick.load(Ordering::Relaxed), Ordering::Relaxed);
        let step = this.rest.split_to(this.rest.len().min(STEP));
        if this.is_end_stream() {
            this.ticket.finish();
        }
        Poll::Ready(Some(Ok(Frame::data(step))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let mut hint = self.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::{BodyExt as _, Full};
    use hyper::rt::Executor as _;

    use super::*;

    fn streams() -> Arc<Streams> {
        Streams::new(100)
    }

    fn poll_body<B: HttpBody<Data = Bytes> + Unpin>(body: &mut Watched<B>) -> Option<usize> {
        let frame = body.frame().now_or_never()??;
        Some(frame.ok()?.into_data().ok()?.len())
    }

    #[test]
    fn too_many_abandoned_requests_in_a_row_are_abuse() {
        let streams = streams();
        for _ in 0..PATIENCE {
            drop(streams.open());
        }
        assert!(streams.abused().now_or_never().is_none());
        drop(streams.open());
        assert!(streams.abused().now_or_never().is_some());
    }

    #[test]
    fn a_client_that_takes_half_of_its_answers_may_go_on() {
        let streams = streams();
        for _ in 0..10 * PATIENCE {
            drop(streams.open());
            let mut body = Watched::new(Full::new(Bytes::from("x")), streams.open());
            assert_eq!(poll_body(&mut body), Some(1));
            drop(Watched::new(http_body_util::Empty::<Bytes>::new(), streams.open()));
        }
        assert!(streams.abused().now_or_never().is_none());
    }

    #[test]
    fn an_answer_goes_out_in_steps() {
        let mut body = Watched::new(Full::new(Bytes::from(vec![1; 2 * STEP + 3])), streams().open());
        assert_eq!(body.size_hint().exact(), Some(2 * STEP as u64 + 3));
        assert_eq!(poll_body(&mut body), Some(STEP));
        assert_eq!(body.size_hint().exact(), Some(STEP as u64 + 3));
        assert!(!body.is_end_stream());
        assert_eq!((poll_body(&mut body), poll_body(&mut body)), (Some(STEP), Some(3)));
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn a_stream_that_is_not_read_is_ended_and_one_that_waits_for_its_upstream_is_not() {
        let streams = streams();
        // Handed over, and never asked for more.
        let mut unread = Watched::new(Full::new(Bytes::from(vec![1; 2 * STEP])), streams.open());
        let (dropped, ended) = tokio::sync::oneshot::channel::<()>();
        Tasks(Arc::clone(&streams)).execute(async move {
            assert_eq!(poll_body(&mut unread), Some(STEP));
            std::future::pending::<()>().await;
            drop((unread, dropped));
        });
        // Asked, and the upstream has nothing yet.
        let (_keep, pending) = tokio::sync::mpsc::channel::<()>(1);
        let silent = http_body_util::StreamBody::new(futures_util::stream::unfold(pending, |mut p| async move {
            p.recv().await;
            None::<(Result<Frame<Bytes>, std::convert::Infallible>, _)>
        }));
        let mut silent = Watched::new(Box::pin(silent), streams.open());
        assert_eq!(poll_body(&mut silent), None);
        tokio::task::yield_now().await;
        for n in 0..STALL {
            assert_eq!(streams.sweep(), 0, "tick {n}");
        }
        assert_eq!(streams.sweep(), 1);
        assert!(ended.await.is_err(), "its task is gone");
        assert_eq!(streams.sweep(), 0);
    }
}
