//! What systemd is told (sd_notify(3)): ready, reloading, stopping, still alive. Without `NOTIFY_SOCKET` nothing happens.

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

/// Sends; a supervisor that does not listen is no reason to stop.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// The listeners are open.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The drain has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says now and then that the control runtime is alive, for as long as it is held; `WatchdogSec=` in the unit asks for it.
#[derive(Debug)]
pub struct Watchdog(Option<JoinHandle<()>>);

impl Watchdog {
    /// Starts, if it is asked for. Must be called on the control runtime.
    pub fn start() -> Self {
        let task = sd_notify::watchdog_enabled().map(|within| {
            tokio::spawn(async move {
                // Twice as often as asked, as sd_watchdog_enabled(3) says.
                let mut tick = tokio::time::interval(within / 2);
                loop {
                    tick.tick().await;
                    tell(&[NotifyState::Watchdog]);
                }
            })
        });
        Self(task)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
