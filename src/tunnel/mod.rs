//! A connection that has left HTTP (RFC 9110, section 7.8): bytes both ways between a client and an upstream, and how
//! that ends.
//!
//! The proxy makes a [`Tunnel`] when an upstream has switched protocols, the steps above it add what shall happen at its
//! end ([`Tunnel::at_end`]), and the server runs it on the client's stream once the client has its own 101. It knows
//! nothing of routes and people: who may end it, and why, arrives as an [`Ending`].
//!
//! A tunnel at rest holds no buffer: bytes are read only when there are some, and kept only while the other side does not
//! take them, which also stops the reading (back-pressure).

mod close;
mod frames;
mod relay;
#[cfg(test)]
mod tests;
mod way;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Either end of a tunnel.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Why a tunnel is ended from outside. A WebSocket is told so in a close frame (RFC 6455, section 5.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Close code: 1001, or one of 4000 to 4999.
    pub code: u16,
    /// Short text for the client and the log; ASCII, at most 123 bytes.
    pub reason: &'static str,
}

/// Neither side sent anything for too long.
pub const IDLE: Ending = Ending { code: 1001, reason: "idle_timeout" };
/// The route's total time is over.
pub const TOTAL: Ending = Ending { code: 1001, reason: "total_timeout" };

/// What went through a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Bytes that the upstream took.
    pub from_client: u64,
    /// Bytes that the client took.
    pub to_client: u64,
    /// Who or what ended it: `client`, `upstream`, `client_broken`, or the reason of an [`Ending`].
    pub ended: &'static str,
}

/// What a tunnel may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest silence in both directions together; also how long one side may leave unread what the other sent.
    pub idle: Duration,
    /// When it ends at the latest.
    pub total: Option<Instant>,
}

type AtEnd = Box<dyn FnOnce(&Totals) + Send>;

/// The upstream's side of a tunnel, before it runs.
pub struct Tunnel {
    upstream: Box<dyn Stream>,
    /// What the upstream sent behind its 101.
    early: Bytes,
    websocket: bool,
    limits: Limits,
    ended: Option<oneshot::Receiver<Ending>>,
    at_end: Vec<AtEnd>,
}

impl Tunnel {
    /// To `upstream`, whose first bytes were `early`. `websocket` tells that the bytes are WebSocket frames.
    pub fn new(upstream: impl Stream + 'static, early: Bytes, websocket: bool, limits: Limits) -> Self {
        Self { upstream: Box::new(upstream), early, websocket, limits, ended: None, at_end: Vec::new() }
    }

    /// Who sends there ends it.
    pub fn ended_by(&mut self, ended: oneshot::Receiver<Ending>) {
        self.ended = Some(ended);
    }

    /// Is called when it has run to its end. What it holds is dropped in any case, also when the tunnel never runs.
    pub fn at_end(&mut self, call: impl FnOnce(&Totals) + Send + 'static) {
        self.at_end.push(Box::new(call));
    }

    /// Runs it to its end. `early` is what the client sent before it had its 101.
    pub async fn run(self, client: impl Stream, early: Vec<u8>) {
        let Self { upstream, early: late, websocket, limits, ended, at_end } = self;
        let totals = relay::run(upstream, late, client, early, websocket, limits, ended).await;
        for call in at_end {
            call(&totals);
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Response extension of a 101: the tunnel behind it, for whoever takes it.
#[derive(Debug, Clone)]
pub struct Switched(Arc<Mutex<Option<Tunnel>>>);

impl Switched {
    /// Holds `tunnel`.
    pub fn new(tunnel: Tunnel) -> Self {
        Self(Arc::new(Mutex::new(Some(tunnel))))
    }

    /// Adds to the tunnel, while nobody has taken it.
    pub fn with(&self, add: impl FnOnce(&mut Tunnel)) {
        if let Some(tunnel) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            add(tunnel);
        }
    }

    /// The tunnel; once.
    pub fn take(&self) -> Option<Tunnel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
