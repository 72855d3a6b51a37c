//! Both directions together: who ends it, and when it has been silent for too long.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::frames::Frames;
use super::way::{Broken, Way};
use super::{Ending, IDLE, Limits, Stream, TOTAL, Totals, close};

/// How long the other direction may still take after the first has ended, when nothing moves.
const HALF_CLOSED: Duration = Duration::from_secs(10);

/// How a relay stopped.
enum Stop {
    /// By itself; who began.
    Over(&'static str),
    /// From outside, or by a limit.
    Ending(Ending),
}

/// Moves bytes both ways until both directions have ended, one side is gone, or it is ended.
pub(super) async fn run(
    mut upstream: Box<dyn Stream>,
    late: Bytes,
    mut client: impl Stream,
    early: Vec<u8>,
    websocket: bool,
    limits: Limits,
    ended: Option<oneshot::Receiver<Ending>>,
) -> Totals {
    let mut relay = Relay {
        up: Way::new(early, None),
        down: Way::new(late.to_vec(), websocket.then(Frames::default)),
        limits,
        moved: 0,
        active: Instant::now(),
        first: None,
    };
    drop(late);
    let mut ending = pin!(async move {
        match ended {
            // Whoever could have ended it is gone: then nobody does.
            Some(ended) => match ended.await {
                Ok(ending) => ending,
                Err(_) => pending().await,
            },
            None => pending().await,
        }
    });
    let mut timer = pin!(sleep_until(relay.due().0));
    let stop = poll_fn(|cx| {
        if let Poll::Ready(ending) = ending.as_mut().poll(cx) {
            return Poll::Ready(Stop::Ending(ending));
        }
        let half_closed = relay.is_half_closed();
        if let Some(who) = relay.poll_both(cx, &mut client, &mut *upstream) {
            return Poll::Ready(Stop::Over(who));
        }
        if relay.is_half_closed() != half_closed {
            timer.as_mut().reset(relay.due().0);
        }
        while timer.as_mut().poll(cx).is_ready() {
            // Bytes may have moved since the timer was set.
            let (due, ending) = relay.due();
            if due <= Instant::now() {
                return Poll::Ready(Stop::Ending(ending));
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    })
    .await;
    let ended = match stop {
        Stop::Over(who) => who,
        Stop::Ending(ending) => {
            close::gently(&mut relay.down, &mut *upstream, &mut client, ending).await;
            ending.reason
        }
    };
    Totals { from_client: relay.up.moved, to_client: relay.down.moved, ended }
}

struct Relay {
    up: Way,
    down: Way,
    limits: Limits,
    /// Bytes of both directions at the last look, and when that changed.
    moved: u64,
    active: Instant,
    /// Who ended its direction first.
    first: Option<&'static str>,
}

impl Relay {
    fn is_half_closed(&self) -> bool {
        self.up.over || self.down.over
    }

    /// When it ends if nothing more moves, and why.
    fn due(&self) -> (Instant, Ending) {
        let idle = if self.is_half_closed() { self.limits.idle.min(HALF_CLOSED) } else { self.limits.idle };
        let stalled = [self.up.stalled, self.down.stalled];
        let since = stalled.into_iter().flatten().fold(self.active, Instant::min);
        match self.limits.total {
            Some(total) if total < since + idle => (total, TOTAL),
            _ => (since + idle, IDLE),
        }
    }

    /// Moves what can be moved; who ended it, when it is over.
    fn poll_both(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut impl Stream,
        upstream: &mut dyn Stream,
    ) -> Option<&'static str> {
        let up = self.up.poll_move(cx, client, upstream);
        let down = self.down.poll_move(cx, upstream, client);
        if self.first.is_none() {
            self.first = match (self.up.over, self.down.over) {
                (true, _) => Some("client"),
                (_, true) => Some("upstream"),
                _ => None,
            };
        }
        match (up, down) {
            (Poll::Ready(Err(Broken::Source)), _) | (_, Poll::Ready(Err(Broken::Sink))) => {
                return Some(if self.down.over { "upstream" } else { "client_broken" });
            }
            (Poll::Ready(Err(Broken::Sink)), _) => {
                // It may have said something before it went, and closed: that is still passed on.
                self.up.abandon();
                self.first.get_or_insert("upstream");
                cx.waker().wake_by_ref();
            }
            (_, Poll::Ready(Err(Broken::Source))) => return Some("upstream"),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return self.first,
            _ => {}
        }
        let moved = self.up.moved + self.down.moved;
        if moved != self.moved {
            (self.moved, self.active) = (moved, Instant::now());
        }
        None
    }
}

/// The outcome of `poll`, unless it takes longer than `limit`.
pub(super) async fn at_most<T>(limit: Duration, poll: impl FnMut(&mut Context<'_>) -> Poll<T> + Unpin) -> Option<T> {
    tokio::time::timeout(limit, poll_fn(poll)).await.ok()
}
