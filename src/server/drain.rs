//! The end of a server, told to everybody at once.

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
    pub async fn started(&mut self) {
        let _ = self.0.wait_for(|started| *started).await;
    }
}
