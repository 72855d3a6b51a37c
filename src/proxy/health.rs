//! Whether a backend is worth asking: what its answers say ([`Standing`]), and what a probe says ([`Probe`]).
//!
//! The two are independent. A standing needs no configuration: a backend that fails several times in a row is ejected, and
//! comes back after a while, alone and on trial; one more failure sends it away for longer. A probe asks a path of the
//! backend at intervals, on the control runtime. Neither decides who is asked: [`super::upstream`] does, and when half of
//! an upstream's servers or more are out it asks all of them, because then the fault is more likely elsewhere.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use http::header::{CONNECTION, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, StatusCode};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Limits;
use super::backend::Backend;
use super::connection::Connection;
use super::exchange::exchange;
use super::http2;
use super::pool::Pool;
use super::request_body::RequestBody;
use super::sending::Sending;
use crate::body::Body;
use crate::config::section;

/// Failures in a row after which a backend is ejected.
const FAILURES: u32 = 5;

/// The first ejection; each further one takes twice as long.
const FIRST: Duration = Duration::from_secs(5);

/// The longest.
const LONGEST: Duration = Duration::from_secs(300);

/// Milliseconds of this process, at least 1.
pub(super) fn now() -> u64 {
    static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGINNING.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// What a backend's answers say of it. Written on change alone, so that reading it costs no cache line that somebody else
/// writes while all is well.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Standing {
    /// In a row.
    failures: AtomicU32,
    /// When the last ejection ends; 0 when there was none, or it is forgotten.
    out_until: AtomicU64,
    /// Ejections that are not forgotten.
    level: AtomicU32,
    /// All of them.
    pub(super) ejections: AtomicU64,
    /// When the last one ends; never forgotten.
    returns: AtomicU64,
}

/// What a success or a failure has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing to speak of.
    None,
    /// Ejected, for so long.
    Ejected(Duration),
    /// Answers again after an ejection.
    Back,
}

impl Standing {
    /// Whether it is ejected at `now`; asks for the time only when there is something to compare it with.
    pub(super) fn is_out(&self, now: impl FnOnce() -> u64) -> bool {
        let until = self.out_until.load(Ordering::Relaxed);
        until != 0 && until > now()
    }

    /// When its present ejection ends; 0 when it is not ejected at `now`.
    pub(super) fn out_until(&self, now: u64) -> u64 {
        let until = self.out_until.load(Ordering::Relaxed);
        if until > now { until } else { 0 }
    }

    /// When it came back from its last ejection; 0 when there was none.
    pub(super) fn returned(&self) -> u64 {
        self.returns.load(Ordering::Relaxed)
    }

    /// A good answer came. An ejection is forgotten once the backend has been good for as long as it was out.
    pub(super) fn good(&self, now: impl FnOnce() -> u64) -> Change {
        if self.failures.load(Ordering::Relaxed) != 0 {
            let failures = self.failures.swap(0, Ordering::Relaxed);
            return if failures >= FAILURES { Change::Back } else { Change::None };
        }
        let until = self.out_until.load(Ordering::Relaxed);
        if until != 0 && now() > until.saturating_add(millis(span(self.level.load(Ordering::Relaxed)))) {
            self.out_until.store(0, Ordering::Relaxed);
            self.level.store(0, Ordering::Relaxed);
        }
        Change::None
    }

    /// It failed.
    pub(super) fn bad(&self, now: u64) -> Change {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let until = self.out_until.load(Ordering::Relaxed);
        // What was sent before the ejection fails after it; that is no new failure.
        if failures < FAILURES || until > now {
            return Change::None;
        }
        let level = self.level.load(Ordering::Relaxed).saturating_add(1);
        let span = span(level);
        let ends = now.saturating_add(millis(span));
        // One of several that fail at once ejects.
        if self.out_until.compare_exchange(until, ends, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return Change::None;
        }
        self.level.store(level, Ordering::Relaxed);
        self.returns.store(ends, Ordering::Relaxed);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        Change::Ejected(span)
    }
}

/// How long the `level`-th ejection in a row takes.
fn span(level: u32) -> Duration {
    FIRST.saturating_mul(1 << level.saturating_sub(1).min(16)).min(LONGEST)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What probes say of a backend. The task that asks ends when the last upstream that uses this one goes.
#[derive(Debug)]
pub(super) struct Probe {
    up: AtomicBool,
    /// When it came up again; 0 when it was never down.
    since: AtomicU64,
    task: std::sync::OnceLock<AbortHandle>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Probe {
    /// Begins to ask. Needs a runtime; a backend counts as up until it has failed `unhealthy` times.
    pub(super) fn start(backend: &Arc<Backend>, section: &section::Health) -> Arc<Self> {
        let probe =
            Arc::new(Self { up: AtomicBool::new(true), since: AtomicU64::new(0), task: std::sync::OnceLock::new() });
        let watching = watch(Arc::downgrade(&probe), Arc::clone(backend), section.clone());
        let _ = probe.task.set(tokio::spawn(watching).abort_handle());
        probe
    }

    /// When it came up again; 0 when it was never down.
    pub(super) fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// Whether the last probes say so.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }
}

async fn watch(probe: Weak<Probe>, backend: Arc<Backend>, section: section::Health) {
    let mut ticks = interval(section.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = Count::new(section.healthy, section.unhealthy);
    loop {
        ticks.tick().await;
        let outcome = match timeout(section.timeout, ask(&backend, &section)).await {
            Ok(outcome) => outcome,
            Err(_) => Err("no answer in time".to_owned()),
        };
        let Some(probe) = probe.upgrade() else { return };
        let (verdicts, backend) = (backend.verdicts(), backend.authority());
        match (count.add(outcome.is_ok()), outcome) {
            (Some(false), Err(why)) => {
                probe.up.store(false, Ordering::Relaxed);
                verdicts.changed();
                tracing::warn!(%backend, path = section.path, why, "backend is down: its health checks fail");
            }
            (Some(true), _) => {
                probe.since.store(now(), Ordering::Relaxed);
                probe.up.store(true, Ordering::Relaxed);
                verdicts.changed();
                tracing::info!(%backend, path = section.path, "backend is up: its health checks pass");
            }
            _ => {}
        }
    }
}

/// One probe, on a connection of its own; 2xx and 3xx are good.
async fn ask(backend: &Backend, section: &section::Health) -> Result<(), String> {
    let target: PathAndQuery = section.path.parse().map_err(|_| "the path is no target".to_owned())?;
    if backend.speaks_http2() {
        let status = http2::probe(backend, target, section.timeout).await.map_err(|error| error.to_string())?;
        return judge(status);
    }
    let mut connection = Connection::open(backend, section.timeout, None).await.map_err(|error| error.to_string())?;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = target.into();
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static("wxgate-health"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let mut sending = Sending::new(RequestBody::empty());
    sending.begin(&mut connection, &request, backend.authority(), None);
    let (response_head, idle) = (section.timeout, section.timeout);
    let limits = Limits { response_head, idle, total: None, max_body: 0, min_body_rate: 0 };
    let answer = exchange(&Pool::default(), &mut connection, &mut sending, &limits, (Instant::now(), None)).await;
    judge(answer.map_err(|unanswered| unanswered.error.to_string())?.0.parts.status)
}

fn judge(status: StatusCode) -> Result<(), String> {
    match status {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(format!("status {}", status.as_u16())),
    }
}

/// Counts probes of one kind in a row.
#[derive(Debug)]
struct Count {
    up: bool,
    /// In a row that speak against `up`.
    against: u32,
    healthy: u32,
    unhealthy: u32,
}

impl Count {
    const fn new(healthy: u32, unhealthy: u32) -> Self {
        Self { up: true, against: 0, healthy, unhealthy }
    }

    /// One more probe; the new verdict when it changes.
    fn add(&mut self, good: bool) -> Option<bool> {
        if good == self.up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < if good { self.healthy } else { self.unhealthy } {
            return None;
        }
        (self.up, self.against) = (good, 0);
        Some(good)
    }
}

/// Whether an answer speaks against the backend: it failed, or stands before something that did. Other answers of the
/// class speak of the request.
pub(super) fn is_bad(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_fails_in_a_row_is_out_and_for_longer_each_time() {
        let standing = Standing::default();
        for _ in 1..FAILURES {
            assert_eq!(standing.bad(1000), Change::None);
        }
        assert_eq!(standing.bad(1000), Change::Ejected(FIRST));
        assert!(standing.is_out(|| 5999) && !standing.is_out(|| 6000));
        // What was under way does not prolong it.
        assert_eq!(standing.bad(2000), Change::None);
        // On trial: one failure is enough.
        assert_eq!(standing.bad(6000), Change::Ejected(FIRST * 2));
        assert!(standing.is_out(|| 15_999) && !standing.is_out(|| 16_000));
        let mut now = 16_000;
        for _ in 0..40 {
            let Change::Ejected(span) = standing.bad(now) else { panic!("not ejected") };
            assert!(span <= LONGEST);
            now += millis(span);
        }
        assert_eq!(span(40), LONGEST);
        assert_eq!(standing.ejections.load(Ordering::Relaxed), 42);
    }

    #[test]
    fn a_good_answer_ends_a_row_and_good_behaviour_is_rewarded() {
        let standing = Standing::default();
        for _ in 0..100 {
            for _ in 1..FAILURES {
                assert_eq!(standing.bad(1), Change::None);
            }
            assert_eq!(standing.good(|| 1), Change::None);
        }
        for _ in 1..FAILURES {
            standing.bad(1);
        }
        assert_eq!(standing.bad(1), Change::Ejected(FIRST));
        assert_eq!(standing.good(|| 6000), Change::Back);
        // Not good for long enough yet: the next ejection is longer.
        standing.good(|| 7000);
        for _ in 1..FAILURES {
            standing.bad(8000);
        }
        assert_eq!(standing.bad(8000), Change::Ejected(FIRST * 2));
        standing.good(|| 18_000);
        standing.good(|| 28_001);
        for _ in 1..FAILURES {
            standing.bad(28_002);
        }
        assert_eq!(standing.bad(28_002), Change::Ejected(FIRST), "forgotten");
    }

    #[test]
    fn probes_must_agree_several_times_in_a_row() {
        let mut count = Count::new(2, 3);
        let verdicts: Vec<Option<bool>> = [false, false, true, false, false, false, false, true, false, true, true]
            .map(|good| count.add(good))
            .into();
        let mut expected = vec![None; 11];
        expected[5] = Some(false);
        expected[10] = Some(true);
        assert_eq!(verdicts, expected);
    }
}
