//! A time limit that costs nothing while bytes flow.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::Error;
use super::patience::Patience;

/// Watches a body for silence, and an exchange for its end.
#[derive(Debug)]
pub(super) struct Silence {
    limit: Duration,
    total: Option<Instant>,
    /// When the present silence began; `None` while bytes flow.
    since: Option<Instant>,
}

impl Silence {
    /// At most `limit` between two frames, and none after `total`.
    pub(super) const fn new(limit: Duration, total: Option<Instant>) -> Self {
        Self { limit, total, since: None }
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
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>, patience: &mut Patience) -> Poll<Error> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let (due, error) = match self.total {
            Some(total) if total < since + self.limit => (total, Error::TotalTimeout),
            _ => (since + self.limit, Error::ResponseBodyIdle),
        };
        patience.poll_over(cx, due).map(|()| error)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test(start_paused = true)]
    async fn each_silence_is_measured_from_its_own_beginning() {
        let (mut silence, mut patience) = (Silence::new(SHORT, None), Patience::default());
        let start = Instant::now();
        assert!(poll_fn(|cx| Poll::Ready(silence.poll_over(cx, &mut patience).is_pending())).await);
        tokio::time::sleep(SHORT / 2).await;
        assert!(silence.flows().is_ok());
        let error = poll_fn(|cx| silence.poll_over(cx, &mut patience)).await;
        assert!(matches!(error, Error::ResponseBodyIdle), "{error:?}");
        assert_eq!(Instant::now(), start + SHORT / 2 + SHORT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_after_the_total_limit_is_too_late() {
        let mut silence = Silence::new(Duration::from_secs(60), Some(Instant::now() + SHORT));
        let mut patience = Patience::default();
        assert!(silence.flows().is_ok());
        assert!(matches!(poll_fn(|cx| silence.poll_over(cx, &mut patience)).await, Error::TotalTimeout));
        assert!(matches!(silence.flows(), Err(Error::TotalTimeout)));
    }
}
