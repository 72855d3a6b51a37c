//! What the steps learn about one request, in one place.
//!
//! One value instead of one request extension per step: it is allocated once, and the outermost layer keeps a second handle,
//! so that the log can say what the inner ones found. Each field is set once, by the one layer that its doc names. A step
//! that finds a field empty which an outer layer should have set answers `internal`: a request is never let through
//! because a step is missing.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response, Version};
use tokio::time::Instant;

use crate::body::Body;
use crate::http1::verbatim::Verbatim;
use crate::problem::{Code, Problem};
use crate::telemetry::span::{Recording, Sampler};

use super::client_addr::Forwarded;
use super::connection::Connection;
use super::in_flight::Held;
use super::principal::Principal;
use super::route::Matched;
use super::via;

/// Our id of a request: 32 hex digits.
pub type OwnId = [u8; 32];

/// What was asked.
pub struct Asked {
    /// As sent.
    pub method: Method,
    /// As sent.
    pub target: Option<PathAndQuery>,
    /// What the client speaks.
    pub version: Version,
}

/// Without the target: it may tell who the caller is.
impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("method", &self.method).finish_non_exhaustive()
    }
}

/// Lines that tell which way a request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Those that its connection keeps.
    Kept,
    /// Others.
    Own(Bytes),
}

/// One request and its answer (RFC 9110, section 3.4), as far as they are known.
#[derive(Debug)]
pub struct Exchange {
    /// Its connection. Set by `trace`, as are the next three.
    pub connection: Arc<Connection>,
    /// When the head was read.
    pub started: Instant,
    /// When it came to the first step: behind its wait at the turnstile, which is nobody's fault but ours. Set by `trace`.
    pub entered: Instant,
    /// When it went on, where it had to wait on its way. Set by `authenticate`.
    pub resumed: OnceLock<Instant>,
    /// Whether it has waited for too long at the turnstile. Set by `trace`.
    pub overdue: bool,
    /// Our id of the request, until `client_addr` finds one of a trusted proxy.
    pub own_id: OwnId,
    /// What was asked, as it came. Set by `trace`.
    pub asked: Option<Asked>,
    /// Lines of the client's head that are not among the request's headers, unless [`Exchange::gather`] has put them there, and
    /// its credential, for which there is [`Exchange::gather_authorization`]. Set by `trace`.
    pub passing: Verbatim,
    /// They are among the headers.
    gathered: AtomicBool,
    /// The credential is.
    authorization_gathered: AtomicBool,
    /// Which requests are recorded; `None`: none. Set by `trace`.
    pub sampler: Option<Sampler>,
    /// What is recorded of this one; see [`Exchange::recording`].
    recording: OnceLock<Option<Box<Recording>>>,
    /// What a trusted proxy says about the client, or what we see ourselves. Set by `client_addr`.
    pub forwarded: OnceLock<Forwarded>,
    /// The value of `Upgrade`, when the request may leave HTTP if its route allows it. Set by `hygiene`.
    pub upgrade: OnceLock<HeaderValue>,
    /// Where the request goes. Set by `route`.
    pub matched: OnceLock<Matched>,
    /// Who asks. Set by `authenticate`, when somebody showed a valid token.
    pub principal: OnceLock<Arc<Principal>>,
    /// Whether the caller is told in lines, because the route takes them so. Set by `identity`.
    pub identified: AtomicBool,
    /// Where the way that the request came stands as lines, but for what is its own: [`Way`]. Set by `dispatch`.
    way_kept: AtomicBool,
    way: OnceLock<Bytes>,
    /// Whether the caller's token came in a cookie. Set by `authenticate`.
    pub by_cookie: AtomicBool,
    /// Its place among the requests under way, where its route counts them. Set by `limit`.
    pub held: OnceLock<Held>,
    /// Which server answered. Set by the proxy's caller.
    pub upstream: OnceLock<Arc<str>>,
    /// How often it was sent to an upstream, or tried to be. Counted by the proxy's caller.
    pub attempts: AtomicU32,
    /// Microseconds until the upstream's response head, 0 without one. Set by the proxy's caller.
    head_us: AtomicU64,
}

impl Exchange {
    /// Nothing known but the connection.
    pub fn new(connection: Arc<Connection>, own_id: OwnId, started: Instant) -> Self {
        Self {
            connection,
            started,
            entered: started,
            resumed: OnceLock::new(),
            overdue: false,
            own_id,
            asked: None,
            passing: Verbatim::default(),
            gathered: AtomicBool::new(false),
            authorization_gathered: AtomicBool::new(false),
            sampler: None,
            recording: OnceLock::new(),
            forwarded: OnceLock::new(),
            upgrade: OnceLock::new(),
            matched: OnceLock::new(),
            principal: OnceLock::new(),
            identified: AtomicBool::new(false),
            way_kept: AtomicBool::new(false),
            way: OnceLock::new(),
            by_cookie: AtomicBool::new(false),
            held: OnceLock::new(),
            upstream: OnceLock::new(),
            attempts: AtomicU32::new(0),
            head_us: AtomicU64::new(0),
        }
    }

    /// The request id that everybody shall use: visible ASCII.
    pub fn id(&self) -> &str {
        let told = self.forwarded.get().and_then(|f| f.request_id.as_ref());
        std::str::from_utf8(told.map_or(&self.own_id[..], HeaderValue::as_bytes)).unwrap_or_default()
    }

    /// When it came to the end of the steps: at once, but for a wait. Saves a look at the clock.
    pub fn went_on(&self) -> Instant {
        self.resumed.get().copied().unwrap_or(self.entered)
    }

    /// What is recorded of this request, if it is one that is. Decided at the first call, by what `client_addr` has found.
    pub fn recording(&self) -> Option<&Recording> {
        let sampler = self.sampler?;
        let decide = || {
            let parent = self.forwarded.get().and_then(|known| known.traceparent.as_ref());
            sampler.decide(&self.own_id, parent.map(HeaderValue::as_bytes)).map(Recording::new).map(Box::new)
        };
        self.recording.get_or_init(decide).as_deref()
    }

    /// The client's address: behind trusted proxies the one they name.
    pub fn client(&self) -> IpAddr {
        self.forwarded.get().map_or_else(|| self.connection.peer(), |f| f.client)
    }

    /// The upstream's response head came after this time.
    pub fn answered_after(&self, took: Duration) {
        self.head_us.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// How long the upstream's response head took, microseconds.
    pub fn head_us(&self) -> Option<u64> {
        Some(self.head_us.load(Ordering::Relaxed)).filter(|us| *us != 0)
    }

    /// Its way is told in lines, these. Called once, by `dispatch`.
    pub fn tell_way(&self, way: Way) {
        match way {
            Way::Kept => self.way_kept.store(true, Ordering::Relaxed),
            Way::Own(lines) => drop(self.way.set(lines)),
        }
    }

    /// The lines that tell its way, where its route takes it in lines.
    fn way(&self) -> Option<&Bytes> {
        if self.way_kept.load(Ordering::Relaxed) { self.connection.kept_way() } else { self.way.get() }
    }

    /// Whether what the gateway adds stands in lines.
    pub fn has_lines(&self) -> bool {
        self.way().is_some()
    }

    /// Appends what of the request stands in lines: those of the client, and what the gateway adds, unless the route takes it
    /// among the headers.
    pub fn push_lines(&self, out: &mut Vec<u8>) {
        if !self.gathered.load(Ordering::Relaxed) {
            self.passing.push_lines(out);
        }
        if let Some(way) = self.way() {
            if let Some(caller) = self.principal.get().filter(|_| self.identified.load(Ordering::Relaxed)) {
                out.extend_from_slice(caller.lines());
            }
            out.extend_from_slice(way);
            via::push_own(out, self);
        }
    }

    /// Puts the lines that are not among the headers of the request there, for those who look at them.
    pub fn gather(&self, headers: &mut HeaderMap) {
        if !self.passing.is_empty() && !self.gathered.swap(true, Ordering::Relaxed) {
            self.passing.fields().for_each(|(name, value)| {
                headers.append(name, value);
            });
        }
    }

    /// The value of the one `Authorization`, as long as it stands beside the headers.
    pub fn authorization(&self) -> Option<&[u8]> {
        self.passing.authorization().filter(|_| !self.authorization_gathered.load(Ordering::Relaxed))
    }

    /// Puts it among the headers: for those who read credentials themselves, and for a service that gets it.
    pub fn gather_authorization(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.passing.authorization_header()
            && !self.authorization_gathered.swap(true, Ordering::Relaxed)
        {
            headers.append(AUTHORIZATION, value);
        }
    }

    /// Where the request goes.
    ///
    /// # Errors
    /// `internal`, when it was not routed.
    pub fn matched(&self) -> Result<&Matched, Problem> {
        let missing = || Problem::new(Code::Internal, "").caused_by("the step `route` has not run");
        self.matched.get().ok_or_else(missing)
    }

    /// Answers with a problem.
    pub fn refuse(&self, problem: Problem) -> Response<Body> {
        problem.into_response(self.id())
    }
}
