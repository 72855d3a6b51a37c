//! The way to the upstreams: balancing, connections, one exchange of request and answer.
//!
//! It does not know who the user is, and decides nothing about access: what arrives here as [`Outbound`] is sent. What
//! it guarantees is framing. An upstream gets one request with one length; a client gets an answer that is complete, or
//! broken in a way it can see; and no byte of one exchange is ever read as part of another.
//!
//! ```text
//! retry                                how often
//!    │
//! forward ── upstream ── balance        which backend (weight, slow_start: where shares differ)
//!    │          └── health             and which not (roster: of many, known without asking each)
//!    ├────── admission ── circuit      whether at all
//!    │          └── queue              or later
//!    ├────── pool ────── connection     over which connection
//!    ├────── sending ─── request_body   what is sent
//!    ├────── exchange                   and what is waited for meanwhile
//!    └────── response_body             what comes back (response_head, headers: its head)
//! ```
//!
//! An exchange has no task of its own: whoever polls the answer sends the request and reads the answer, straight from the
//! socket, and no other thread or task is woken for it.
//!
//! Each worker thread has a [`Forwarder`] of its own, so that nothing here waits for another thread. [`Backends`] is one
//! for the process and outlives reloads; [`Upstream`] belongs to one configuration.
//!
//! A stalled reader is not noticed here, because a body that nobody polls cannot time out: the server limits how long its
//! writes may stall.

mod admission;
mod backend;
mod balance;
mod circuit;
mod connection;
mod error;
mod exchange;
mod forward;
mod headers;
mod health;
mod http2;
mod patience;
mod pool;
mod queue;
mod request_body;
mod response_body;
mod response_head;
mod retry;
mod roster;
mod sending;
mod silence;
mod slow_start;
mod switch;
#[cfg(test)]
mod tests;
mod tls;
mod upstream;
mod weight;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::time::Instant;

pub use self::backend::{Backend, Backends, Counters};
pub use self::error::{Error, Fault, Malformed, Retry, Violation};
pub use self::queue::QueueFigures;
pub use self::upstream::Upstream;
use crate::body::Body;
use crate::config::section;

/// A request as the pipeline prepared it: final path-and-query in its URI, the client's hop-by-hop, identity and
/// forwarding headers (and `Expect`) gone, ours set, `Host` set. Its framing headers are set here, from its body.
pub struct Outbound {
    /// When this is: the caller has looked at the clock just now, and it is not looked at again.
    pub now: Instant,
    /// The request.
    pub request: Box<Request<Body>>,
    /// Where it goes.
    pub upstream: Arc<Upstream>,
    /// What it may take.
    pub limits: Limits,
    /// A hash of what a `hash:*` balance goes by; 0 when there is nothing to go by.
    pub affinity: u64,
    /// The protocol that the connection shall leave HTTP for, if the upstream agrees; a 101 then has a
    /// [`crate::tunnel::Switched`] among its extensions.
    pub upgrade: Option<HeaderValue>,
    /// Whether and when it is tried again.
    pub retry: Option<Arc<section::Retry>>,
    /// Is told of each attempt.
    pub witness: Option<Arc<dyn Witness>>,
}

/// Who knows more of a request, and wants to know what is done about it.
pub trait Witness: Send + Sync {
    /// Appends further lines to its head, each with its end, where the upstream speaks HTTP/1.1: they are written straight to
    /// where they are sent from. The request has no field of these names.
    fn push_lines(&self, out: &mut Vec<u8>);

    /// It is about to be sent to this server, or a connection for it opened, once more; with these headers, which may be
    /// told which attempt it is.
    fn attempt(&self, server: &Authority, headers: &mut HeaderMap);
}

/// Without headers and path: they tell who the caller is.
impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, upstream) = (self.request.method(), self.upstream.name());
        f.debug_struct("Outbound").field("method", method).field("upstream", &upstream).finish_non_exhaustive()
    }
}

/// The limits of one exchange.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the last byte handed to the upstream to the response head; does not run while the client is waited for.
    pub response_head: Duration,
    /// Longest silence in either body.
    pub idle: Duration,
    /// From [`Outbound::now`] to the last byte of the answer.
    pub total: Option<Duration>,
    /// Largest request body, bytes.
    pub max_body: u64,
    /// Bytes a second that a client must send of a body, over the time that it is waited for beyond one `idle`; 0: any.
    pub min_body_rate: u64,
}

/// Sends requests to upstreams over the connections of one worker. Cloning it is cheap and shares them.
#[derive(Debug, Clone, Default)]
pub struct Forwarder {
    pool: Arc<pool::Pool>,
}

impl Forwarder {
    /// With no connections yet. Those it opens run on the runtime of the first request that needs them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends a request and returns the answer, whose body may still be on its way. Dropping the future, or the body before
    /// its end, closes the connection.
    ///
    /// # Errors
    /// When there is no answer that can be passed on. One that breaks off after that is an error of its body, of the same
    /// type.
    pub fn forward(&self, outbound: Outbound) -> impl Future<Output = Result<Response<Body>, Error>> + Send + use<> {
        forward::forward(Arc::clone(&self.pool), outbound)
    }

    /// Closes connections that have been idle for too long. A worker calls it now and then; without it, those of a backend
    /// that gets no more requests stay until the backend closes them.
    pub fn sweep(&self) {
        self.pool.sweep(Instant::now());
    }

    /// How many connections to `backend` are idle here.
    pub fn idle(&self, backend: &Backend) -> usize {
        self.pool.idle(backend)
    }
}
