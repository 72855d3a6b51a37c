//! Every metric: name, unit, labels, in one list; and the page that Prometheus reads.
//!
//! Request counters are exact and cost one uncontended addition: each worker has a [`Shard`] of its own, on its own
//! cache lines, and the shards are summed when somebody asks. No label can grow without bound: status codes, problem
//! codes and configured names only. Figures of single routes and upstreams are in [`named`], durations in [`histogram`].

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

mod histogram;
mod named;

pub use self::histogram::Histogram;
pub use self::named::{RouteFigures, UpstreamFigures};

use self::named::Named;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// It is `n` now.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One worker's request counters.
#[derive(Debug)]
#[repr(align(128))]
pub struct Shard {
    status: [Counter; 500],
    duration: Histogram,
    routes: Named<RouteFigures>,
    upstreams: Named<UpstreamFigures>,
    /// Requests whose answer is under way.
    pub in_flight: Gauge,
    /// Bytes of answer bodies.
    pub bytes_out: Counter,
    /// Open connections.
    pub connections: Gauge,
    /// TLS handshakes under way.
    pub handshakes: Gauge,
    /// Accepted connections.
    pub accepted: Counter,
    /// Tokens found in the cache of verified tokens.
    pub token_hits: Counter,
    /// Tokens that had to be verified.
    pub token_misses: Counter,
    /// Access log lines that were dropped because the log could not keep up.
    pub log_dropped: Counter,
    /// Requests refused because the worker had too much to do.
    pub shed: Counter,
    /// How long a request waits for the worker at present, microseconds.
    pub wait_us: Gauge,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            status: [const { Counter(AtomicU64::new(0)) }; 500],
            duration: Histogram::default(),
            routes: Named::default(),
            upstreams: Named::default(),
            in_flight: Gauge::default(),
            bytes_out: Counter::default(),
            connections: Gauge::default(),
            handshakes: Gauge::default(),
            accepted: Counter::default(),
            token_hits: Counter::default(),
            token_misses: Counter::default(),
            log_dropped: Counter::default(),
            shed: Counter::default(),
            wait_us: Gauge::default(),
        }
    }
}

impl Shard {
    /// Counts one finished request.
    pub fn request(&self, status: u16, took: Duration, bytes: u64) {
        if let Some(counter) = self.status.get(usize::from(status).wrapping_sub(100)) {
            counter.inc();
        }
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.duration.observe(us);
        self.bytes_out.add(bytes);
    }
}

/// All metrics of one gateway.
#[derive(Debug, Default)]
pub struct Metrics {
    shards: Mutex<Vec<Arc<Shard>>>,
    problems: Mutex<Vec<(&'static str, Arc<Counter>)>>,
    extra: Mutex<Vec<Extra>>,
    /// Panics that were caught and answered with 500.
    pub panics: Counter,
    /// Successful logins.
    pub logins: Counter,
    /// Login answers that repeated an earlier one for the same code.
    pub login_repeats: Counter,
    /// Successful refreshes.
    pub refreshes: Counter,
    /// Refresh tokens that were shown again after their time.
    pub refresh_reuses: Counter,
    /// Sessions ended by logout.
    pub logouts: Counter,
    /// Calls to WeChat.
    pub wechat_calls: Counter,
    /// Calls to WeChat that failed.
    pub wechat_failures: Counter,
    /// Connections of HTTP/2 that were ended because their clients flooded them.
    pub http2_floods: Counter,
    /// Answers on HTTP/2 that were ended because their clients did not read them.
    pub http2_stalls: Counter,
    /// Configurations that were put in force after the start.
    pub reloads: Counter,
    /// Configurations that were refused.
    pub reload_faults: Counter,
}

/// A line that another part computes when asked.
struct Extra {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    lines: Box<dyn Fn() -> Vec<(String, f64)> + Send + Sync>,
}

impl std::fmt::Debug for Extra {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    /// A new worker's shard.
    pub fn shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::default());
        lock(&self.shards).push(Arc::clone(&shard));
        shard
    }

    /// Counts a refusal; `code` is a name of the problem catalogue.
    pub fn problem(&self, code: &'static str) {
        let mut problems = lock(&self.problems);
        match problems.iter().find(|(name, _)| *name == code) {
            Some((_, counter)) => counter.inc(),
            None => {
                let counter = Arc::new(Counter::default());
                counter.inc();
                problems.push((code, counter));
            }
        }
    }

    /// How many refusals of this code there were.
    pub fn problems(&self, code: &str) -> u64 {
        lock(&self.problems).iter().find(|(name, _)| *name == code).map_or(0, |(_, counter)| counter.get())
    }

    /// Adds a metric that is computed when asked; `kind` is `counter` or `gauge`, a line is labels (may be empty) and value.
    pub fn register(
        &self,
        name: &'static str,
        kind: &'static str,
        help: &'static str,
        lines: impl Fn() -> Vec<(String, f64)> + Send + Sync + 'static,
    ) {
        let mut extra = lock(&self.extra);
        extra.retain(|e| e.name != name);
        extra.push(Extra { name, help, kind, lines: Box::new(lines) });
    }

    /// The sum of one figure over all workers.
    pub fn sum(&self, figure: impl Fn(&Shard) -> u64) -> u64 {
        lock(&self.shards).iter().map(|s| figure(s)).sum()
    }

    /// Requests whose answer is under way, on all workers.
    pub fn in_flight(&self) -> i64 {
        lock(&self.shards).iter().map(|s| s.in_flight.get()).sum()
    }

    /// TLS handshakes under way.
    pub fn handshakes(&self) -> i64 {
        lock(&self.shards).iter().map(|s| s.handshakes.get()).sum()
    }

    /// Requests answered with this status so far.
    pub fn answered(&self, status: u16) -> u64 {
        self.sum(|s| s.status.get(usize::from(status).wrapping_sub(100)).map_or(0, Counter::get))
    }

    /// The page in Prometheus' text format 0.0.4.
    pub fn page(&self) -> String {
        let mut page = String::with_capacity(8 * 1024);
        let shards: Vec<Arc<Shard>> = lock(&self.shards).clone();
        let sum = |figure: &dyn Fn(&Shard) -> u64| shards.iter().map(|s| figure(s)).sum::<u64>();
        head(&mut page, "wxgate_requests_total", "counter", "Requests answered, by status.");
        for n in 0..500 {
            let count = sum(&|s| s.status[n].get());
            if count > 0 {
                let _ = writeln!(page, "wxgate_requests_total{{status=\"{}\"}} {count}", n + 100);
            }
        }
        head(&mut page, "wxgate_request_duration_seconds", "histogram", "From request head to the end of the answer.");
        let durations: Vec<_> = shards.iter().map(|s| &s.duration).collect();
        histogram::write(&mut page, "wxgate_request_duration_seconds", "", &durations);
        named::write(&mut page, &shards);
        head(&mut page, "wxgate_problems_total", "counter", "Refusals, by problem code.");
        for (code, counter) in lock(&self.problems).iter() {
            let _ = writeln!(page, "wxgate_problems_total{{code=\"{code}\"}} {}", counter.get());
        }
        let gauges: [(&str, &str, i64); 2] = [
            (
                "wxgate_requests_in_flight",
                "Requests whose answer is under way.",
                shards.iter().map(|s| s.in_flight.get()).sum(),
            ),
            ("wxgate_connections", "Open connections of clients.", shards.iter().map(|s| s.connections.get()).sum()),
        ];
        for (name, help, value) in gauges {
            head(&mut page, name, "gauge", help);
            let _ = writeln!(page, "{name} {value}");
        }
        let most = shards.iter().map(|s| s.connections.get()).max().unwrap_or(0);
        let name = "wxgate_worker_connections_max";
        head(&mut page, name, "gauge", "Open connections of the worker that has most of them.");
        let _ = writeln!(page, "{name} {most}");
        let wait = shards.iter().map(|s| s.wait_us.get()).max().unwrap_or(0);
        head(&mut page, "wxgate_worker_wait_seconds", "gauge", "How long a request waits for the busiest worker.");
        let _ = writeln!(page, "wxgate_worker_wait_seconds {}.{:06}", wait / 1_000_000, wait % 1_000_000);
        let counters: [(&str, &str, u64); 18] = [
            ("wxgate_shed_total", "Requests refused because a worker had too much to do.", sum(&|s| s.shed.get())),
            ("wxgate_connections_accepted_total", "Connections of clients.", sum(&|s| s.accepted.get())),
            ("wxgate_response_bytes_total", "Bytes of answer bodies.", sum(&|s| s.bytes_out.get())),
            ("wxgate_token_cache_hits_total", "Tokens found verified.", sum(&|s| s.token_hits.get())),
            ("wxgate_token_cache_misses_total", "Tokens that had to be verified.", sum(&|s| s.token_misses.get())),
            ("wxgate_log_dropped_total", "Log lines dropped.", sum(&|s| s.log_dropped.get())),
            ("wxgate_panics_total", "Panics answered with 500.", self.panics.get()),
            ("wxgate_logins_total", "Logins.", self.logins.get()),
            ("wxgate_login_repeats_total", "Login answers repeated for the same code.", self.login_repeats.get()),
            ("wxgate_refreshes_total", "Refreshes.", self.refreshes.get()),
            ("wxgate_refresh_reuses_total", "Refresh tokens shown after their time.", self.refresh_reuses.get()),
            ("wxgate_logouts_total", "Sessions ended by logout.", self.logouts.get()),
            ("wxgate_wechat_calls_total", "Calls to WeChat.", self.wechat_calls.get()),
            ("wxgate_wechat_failures_total", "Calls to WeChat that failed.", self.wechat_failures.get()),
            ("wxgate_http2_floods_total", "HTTP/2 connections ended for flooding.", self.http2_floods.get()),
            ("wxgate_http2_stalls_total", "HTTP/2 answers ended because nobody read them.", self.http2_stalls.get()),
            ("wxgate_reloads_total", "Configurations put in force after the start.", self.reloads.get()),
            ("wxgate_reload_faults_total", "Configurations refused.", self.reload_faults.get()),
        ];
        for (name, help, value) in counters {
            head(&mut page, name, "counter", help);
            let _ = writeln!(page, "{name} {value}");
        }
        for extra in lock(&self.extra).iter() {
            head(&mut page, extra.name, extra.kind, extra.help);
            for (labels, value) in (extra.lines)() {
                let _ = writeln!(page, "{}{labels} {value}", extra.name);
            }
        }
        page
    }
}

/// A text as the value of a label, in quotes.
pub fn label(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_sums_the_workers() {
        let metrics = Metrics::default();
        let (a, b) = (metrics.shard(), metrics.shard());
        a.request(200, Duration::from_micros(300), 10);
        b.request(200, Duration::from_micros(700), 5);
        b.request(401, Duration::from_secs(60), 0);
        metrics.problem("token_missing");
        metrics.problem("token_missing");
        metrics.register("wxgate_answer", "gauge", "Asked.", || vec![(String::new(), 42.0)]);
        let page = metrics.page();
        for line in [
            "wxgate_requests_total{status=\"200\"} 2",
            "wxgate_requests_total{status=\"401\"} 1",
            "wxgate_request_duration_seconds_bucket{le=\"0.0005\"} 1",
            "wxgate_request_duration_seconds_bucket{le=\"0.001\"} 2",
            "wxgate_request_duration_seconds_bucket{le=\"+Inf\"} 3",
            "wxgate_request_duration_seconds_count 3",
            "wxgate_response_bytes_total 15",
            "wxgate_problems_total{code=\"token_missing\"} 2",
            "wxgate_answer 42",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
        assert_eq!(metrics.answered(200), 2);
    }

    #[test]
    fn a_status_outside_the_range_is_not_counted_and_does_no_harm() {
        let shard = Shard::default();
        shard.request(99, Duration::ZERO, 0);
        shard.request(600, Duration::ZERO, 0);
        assert_eq!(shard.status.iter().map(Counter::get).sum::<u64>(), 0);
    }
}
