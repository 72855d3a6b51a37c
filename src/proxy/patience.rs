//! A timer that costs next to nothing while nobody is late.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// Ends a wait. The timer is made by the first wait and kept with its connection: a later wait that may last longer leaves
/// it where it is and moves it when it fires, so that in steady traffic no wait touches the runtime's wheel.
#[derive(Debug, Default)]
pub(super) struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// Ready once `due` has passed. Else the task is woken then, or earlier to no effect.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_wait_ends_when_it_is_due() {
        let mut patience = Patience::default();
        let start = Instant::now();
        // The second is due before the timer of the first, the third after it, the fourth when it has long fired.
        for due in [10, 5, 20, 90].map(|secs| start + secs * SECOND) {
            let pending = poll_fn(|cx| Poll::Ready(patience.poll_over(cx, due).is_pending())).await;
            assert!(pending);
            if due == start + 10 * SECOND {
                continue;
            }
            poll_fn(|cx| patience.poll_over(cx, due)).await;
            assert_eq!(Instant::now(), due);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_may_last_longer_leaves_the_timer_alone() {
        let mut patience = Patience::default();
        let start = Instant::now();
        for n in 1..100 {
            let due = start + n * SECOND;
            assert!(poll_fn(|cx| Poll::Ready(patience.poll_over(cx, due).is_pending())).await);
        }
        assert_eq!(patience.0.unwrap().deadline(), start + SECOND);
    }
}
