//! The end of a server, told to everybody at once.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};

use tokio::sync::watch;

/// Tells the workers to stop.
#[derive(Debug)]
pub struct Drain(watch::Sender<bool>);

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything in flight was answered.
    Complete,
    /// The deadline came first; what was left was cut.
    DeadlinePassed,
}

impl Drain {
    /// Not started.
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Tells everybody.
    pub fn start(&self) {
        self.0.send_replace(true);
    }

    /// One listener's end of it.
    pub fn watch(&self) -> Watch {
        Watch(self.0.subscribe())
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

/// Is told when the drain starts.
#[derive(Debug, Clone)]
pub struct Watch(watch::Receiver<bool>);

impl Watch {
    /// Waits for the drain, or for a server that is gone.
    ///
    /// A connection asks at each of its turns. As long as nothing has changed since it was last told to wait, that is a look at
    /// one number, and not a lock and a list of those who wait.
    pub async fn started(&mut self) {
        let told = self.0.clone();
        // Without the budget of a task: with none left it would wait without being on the list of those who are told.
        let mut started = pin!(tokio::task::unconstrained(self.0.wait_for(|started| *started)));
        let mut waits: Option<Waker> = None;
        poll_fn(|cx| {
            let same = waits.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if same && told.has_changed().is_ok_and(|changed| !changed) {
                return Poll::Pending;
            }
            waits = Some(cx.waker().clone());
            started.as_mut().poll(cx).map(drop)
        })
        .await;
    }
}
