//! A time limit that costs nothing while bytes flow.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::Error;

/// Watches a body for silence, and an exchange for its end. The timer is made when a poll pends for the first time, and
/// moved only when it fires too early: a body that keeps flowing touches it at most once per limit.
#[derive(Debug)]
pub(super) struct Silence {
    limit: Duration,
    total: Option<Instant>,
    /// When the present silence began; `None` while bytes flow.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    /// At most `limit` between two frames, and none after `total`.
    pub(super) const fn new(limit: Duration, total: Option<Instant>) -> Self {
        Self { limit, total, since: None, timer: None }
    }

    /// A frame came.
    ///
    /// # Errors
    /// [`Error::TotalTimeout`] when it came too late.
    pub(super) fn flows(&mut self) -> Result<(), Error> {
        self.since = None;
        // A body that never pends never looks at its timer.
        match self.total {
            Some(total) if Instant::now() >= total => Err(Error::TotalTimeout),
            _ => Ok(()),
        }
    }

    /// Nothing came: the error once it has lasted too long.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let (due, error) = match self.total {
            Some(total) if total < since + self.limit => (total, Error::TotalTimeout),
            _ => (since + self.limit, Error::ResponseBodyIdle),
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= due {
                return Poll::Ready(error);
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn a_body_that_flows_makes_no_timer() {
        let mut silence = Silence::new(SHORT, None);
        for _ in 0..100 {
            assert!(silence.flows().is_ok());
        }
        assert!(silence.timer.is_none());
    }

    #[tokio::test]
    async fn each_silence_is_measured_from_its_own_beginning() {
        let mut silence = Silence::new(SHORT, None);
        poll_fn(|cx| Poll::Ready(silence.poll_over(cx).is_pending())).await;
        let first = silence.timer.as_ref().unwrap().deadline();
        silence.timer.as_mut().unwrap().await;
        // The timer has fired, but bytes came meanwhile: it is moved, not believed.
        assert!(silence.flows().is_ok());
        let error = poll_fn(|cx| silence.poll_over(cx)).await;
        assert!(matches!(error, Error::ResponseBodyIdle), "{error:?}");
        assert!(Instant::now() >= first + SHORT);
    }

    #[tokio::test]
    async fn a_frame_after_the_total_limit_is_too_late() {
        let mut silence = Silence::new(Duration::from_secs(60), Some(Instant::now() + SHORT));
        assert!(silence.flows().is_ok());
        assert!(matches!(poll_fn(|cx| silence.poll_over(cx)).await, Error::TotalTimeout));
        assert!(matches!(silence.flows(), Err(Error::TotalTimeout)));
    }
}
