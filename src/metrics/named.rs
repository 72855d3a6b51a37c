//! Figures of single routes and upstreams. Each worker counts in parts of its own, which are summed when somebody asks.
//!
//! The labels are names that the configuration gives, so there are as many as somebody has written down; what a client sends
//! is never one. A route or upstream that a reload removes keeps its figures, as a counter must not go back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Counter, Shard, head, histogram, label};

/// Classes of a status code, and one for no answer at all.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn class(status: Option<u16>) -> usize {
    status.and_then(|status| usize::from(status / 100).checked_sub(1)).filter(|n| *n < 5).unwrap_or(5)
}

/// What one worker has seen of one route.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RouteFigures {
    classes: [Counter; CLASSES.len()],
    duration: histogram::Histogram,
    /// By problem code. Locked by this worker and by who asks for the page.
    refused: Mutex<Vec<(&'static str, u64)>>,
}

impl RouteFigures {
    /// Counts one finished request; `refused` is the problem's code when the gateway answered itself.
    pub fn request(&self, status: u16, took: Duration, refused: Option<&'static str>) {
        self.classes[class(Some(status))].inc();
        self.duration.observe(micros(took));
        let Some(code) = refused else { return };
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match refused.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => refused.push((code, 1)),
        }
    }
}

/// What one worker has seen of one upstream.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct UpstreamFigures {
    classes: [Counter; CLASSES.len()],
    head: histogram::Histogram,
}

impl UpstreamFigures {
    /// Counts one exchange: the status of the answer, if there was one, and how long its head took.
    pub fn exchange(&self, status: Option<u16>, took: Duration) {
        self.classes[class(status)].inc();
        if status.is_some() {
            self.head.observe(micros(took));
        }
    }
}

/// One worker's figures, by name.
#[derive(Debug)]
pub(super) struct Named<T>(Mutex<BTreeMap<String, Arc<T>>>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Named<T> {
    fn get(&self, name: &str) -> Arc<T> {
        let mut named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(figures) = named.get(name) {
            return Arc::clone(figures);
        }
        let figures = Arc::<T>::default();
        named.insert(name.to_owned(), Arc::clone(&figures));
        figures
    }
}

impl Shard {
    /// What this worker has seen of the route of this label; for the life of the process, whatever is reloaded.
    pub fn route(&self, label: &str) -> Arc<RouteFigures> {
        self.routes.get(label)
    }

    /// What this worker has seen of the upstream of this name; as [`Self::route`].
    pub fn upstream(&self, name: &str) -> Arc<UpstreamFigures> {
        self.upstreams.get(name)
    }
}

/// The parts of all workers, by name.
fn by_name<T>(shards: &[Arc<Shard>], named: impl Fn(&Shard) -> &Named<T>) -> BTreeMap<String, Vec<Arc<T>>> {
    let mut all: BTreeMap<String, Vec<Arc<T>>> = BTreeMap::new();
    for shard in shards {
        for (name, part) in &*named(shard).0.lock().unwrap_or_else(PoisonError::into_inner) {
            all.entry(name.clone()).or_default().push(Arc::clone(part));
        }
    }
    all
}

fn write_classes(page: &mut String, name: &str, labels: &str, counters: &[&[Counter; CLASSES.len()]]) {
    for (n, class) in CLASSES.iter().enumerate() {
        let count: u64 = counters.iter().map(|counters| counters[n].get()).sum();
        if count > 0 {
            let _ = writeln!(page, "{name}{{{labels},class=\"{class}\"}} {count}");
        }
    }
}

/// Writes all of it.
pub(super) fn write(page: &mut String, shards: &[Arc<Shard>]) {
    let routes = by_name(shards, |shard| &shard.routes);
    let labelled = |name: &str| format!("route={}", label(name));
    head(page, "wxgate_route_requests_total", "counter", "Requests answered, by route and class of status.");
    for (name, parts) in &routes {
        let classes: Vec<_> = parts.iter().map(|part| &part.classes).collect();
        write_classes(page, "wxgate_route_requests_total", &labelled(name), &classes);
    }
    head(page, "wxgate_route_refused_total", "counter", "Of these, refused by the gateway, by problem code.");
    for (name, parts) in &routes {
        let mut codes: BTreeMap<&str, u64> = BTreeMap::new();
        for part in parts {
            for (code, count) in &*part.refused.lock().unwrap_or_else(PoisonError::into_inner) {
                *codes.entry(code).or_default() += count;
            }
        }
        for (code, count) in codes {
            let _ = writeln!(page, "wxgate_route_refused_total{{{},code=\"{code}\"}} {count}", labelled(name));
        }
    }
    let (name, help) = ("wxgate_route_duration_seconds", "From request head to the end of the answer, by route.");
    head(page, name, "histogram", help);
    for (route, parts) in &routes {
        let parts: Vec<_> = parts.iter().map(|part| &part.duration).collect();
        histogram::write(page, name, &labelled(route), &parts);
    }
    let upstreams = by_name(shards, |shard| &shard.upstreams);
    let labelled = |name: &str| format!("upstream={}", label(name));
    let help = "Requests sent to an upstream, retries not counted, by class of its answer.";
    head(page, "wxgate_upstream_responses_total", "counter", help);
    for (name, parts) in &upstreams {
        let classes: Vec<_> = parts.iter().map(|part| &part.classes).collect();
        write_classes(page, "wxgate_upstream_responses_total", &labelled(name), &classes);
    }
    let (name, help) = ("wxgate_upstream_head_seconds", "From request head to the upstream's response head.");
    head(page, name, "histogram", help);
    for (upstream, parts) in &upstreams {
        let parts: Vec<_> = parts.iter().map(|part| &part.head).collect();
        histogram::write(page, name, &labelled(upstream), &parts);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn the_parts_of_the_workers_are_summed_by_name() {
        let metrics = Metrics::default();
        let (a, b) = (metrics.shard(), metrics.shard());
        a.route("/api/* [GET]").request(200, Duration::from_micros(300), None);
        b.route("/api/* [GET]").request(429, Duration::from_micros(700), Some("rate_limited"));
        b.route("/api/* [GET]").request(429, Duration::from_micros(700), Some("rate_limited"));
        a.upstream("shop").exchange(Some(503), Duration::from_millis(2));
        b.upstream("shop").exchange(None, Duration::from_millis(2));
        let page = metrics.page();
        for line in [
            "wxgate_route_requests_total{route=\"/api/* [GET]\",class=\"2xx\"} 1",
            "wxgate_route_requests_total{route=\"/api/* [GET]\",class=\"4xx\"} 2",
            "wxgate_route_refused_total{route=\"/api/* [GET]\",code=\"rate_limited\"} 2",
            "wxgate_route_duration_seconds_bucket{route=\"/api/* [GET]\",le=\"0.0005\"} 1",
            "wxgate_route_duration_seconds_bucket{route=\"/api/* [GET]\",le=\"+Inf\"} 3",
            "wxgate_route_duration_seconds_sum{route=\"/api/* [GET]\"} 0.001700",
            "wxgate_route_duration_seconds_count{route=\"/api/* [GET]\"} 3",
            "wxgate_upstream_responses_total{upstream=\"shop\",class=\"5xx\"} 1",
            "wxgate_upstream_responses_total{upstream=\"shop\",class=\"none\"} 1",
            "wxgate_upstream_head_seconds_count{upstream=\"shop\"} 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
        assert!(!page.contains("class=\"3xx\""), "nothing is said of what never happened");
    }

    #[test]
    fn a_name_keeps_its_figures_for_as_long_as_the_process_lives() {
        let shard = Shard::default();
        shard.route("/a").request(200, Duration::ZERO, None);
        assert!(Arc::ptr_eq(&shard.route("/a"), &shard.route("/a")));
        assert_eq!(shard.route("/a").classes[1].get(), 1);
    }
}
