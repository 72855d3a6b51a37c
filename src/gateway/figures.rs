//! Figures that are read off the snapshot in force when somebody asks for metrics.

use std::sync::Arc;

use crate::metrics::label;
use crate::proxy::{Counters, Upstream};

use super::Gateway;

/// Name, kind, help, and what of a backend's counters it is.
type Figure = (&'static str, &'static str, &'static str, fn(&Counters) -> u64);

/// Name, help, and what of an upstream it is.
type UpstreamFigure = (&'static str, &'static str, fn(&Upstream) -> u64);

const BACKEND: [Figure; 5] = [
    ("wxgate_backend_requests_total", "counter", "Attempts to have a backend answer.", |c| c.requests),
    ("wxgate_backend_failures_total", "counter", "Attempts that failed by the backend's fault.", |c| c.failures),
    ("wxgate_backend_connects_total", "counter", "Connections opened to a backend.", |c| c.connects),
    ("wxgate_backend_ejections_total", "counter", "Times a backend was ejected for its failures.", |c| c.ejections),
    ("wxgate_backend_in_flight", "gauge", "Requests to a backend whose answer is under way.", |c| c.in_flight as u64),
];

impl Gateway {
    /// Registers them all. Weak, because the gateway holds the metrics.
    #[allow(clippy::cast_precision_loss)] // counts far from 2^53
    pub(super) fn register_metrics(self: &Arc<Self>) {
        let metrics = &self.kept.metrics;
        let weak = Arc::downgrade(self);
        metrics.register("wxgate_config_generation", "gauge", "Configurations put in force so far.", move || {
            weak.upgrade().map(|g| (String::new(), g.current().generation as f64)).into_iter().collect()
        });
        self.kept.sockets.register(metrics);
        self.kept.streams.register(metrics);
        self.kept.in_flight.register(metrics);
        let revocations = Arc::clone(&self.kept.revocations);
        metrics.register("wxgate_revocations", "gauge", "Live revocations held in memory.", move || {
            vec![(String::new(), revocations.len() as f64)]
        });
        for (name, kind, help, read) in BACKEND {
            let weak = Arc::downgrade(self);
            metrics.register(name, kind, help, move || {
                weak.upgrade().map(|g| g.backends(|counters, _| read(counters) as f64)).unwrap_or_default()
            });
        }
        let weak = Arc::downgrade(self);
        let help = "1 while a backend is in the choice: its health checks pass, and it is not ejected.";
        metrics.register("wxgate_backend_up", "gauge", help, move || {
            weak.upgrade().map(|g| g.backends(|_, up| f64::from(u8::from(up)))).unwrap_or_default()
        });
        let counters: [UpstreamFigure; 7] = [
            ("wxgate_upstream_retries_total", "Requests that were tried again by their route's policy.", |u| {
                u.retries().0
            }),
            ("wxgate_upstream_retries_refused_total", "Those that were not: over the retry budget.", |u| u.retries().1),
            ("wxgate_upstream_queued_total", "Requests that had to wait for a server with room.", |u| u.queue().queued),
            ("wxgate_upstream_queue_full_total", "Requests refused: too many waited.", |u| u.queue().full),
            ("wxgate_upstream_queue_timeouts_total", "Requests refused: they waited in vain.", |u| u.queue().late),
            ("wxgate_upstream_circuit_opened_total", "Times the circuit of an upstream opened.", |u| u.circuit().1),
            ("wxgate_upstream_circuit_refused_total", "Requests that a breaker refused.", |u| u.circuit().2),
        ];
        let gauges: [UpstreamFigure; 2] = [
            ("wxgate_upstream_queue", "Requests that wait for a server with room.", |u| u.queue().waiting as u64),
            ("wxgate_upstream_circuit_open", "1 while the circuit of an upstream is open.", |u| {
                u64::from(u.circuit().0)
            }),
        ];
        let figures = counters.map(|figure| (figure, "counter")).into_iter();
        for ((name, help, read), kind) in figures.chain(gauges.map(|figure| (figure, "gauge"))) {
            let weak = Arc::downgrade(self);
            metrics.register(name, kind, help, move || {
                let snapshot = weak.upgrade().map(|g| g.current());
                let upstreams = snapshot.iter().flat_map(|snapshot| snapshot.upstreams());
                upstreams.map(|u| (format!("{{upstream={}}}", label(u.name())), read(u) as f64)).collect()
            });
        }
    }

    /// One line a backend of each upstream.
    fn backends(&self, value: impl Fn(&Counters, bool) -> f64) -> Vec<(String, f64)> {
        let snapshot = self.current();
        let mut lines = Vec::new();
        for upstream in snapshot.upstreams() {
            for (index, backend) in upstream.backends().iter().enumerate() {
                let (name, backend_name) = (label(upstream.name()), label(backend.authority().as_str()));
                let labels = format!("{{upstream={name},backend={backend_name}}}");
                lines.push((labels, value(&backend.counters(), upstream.is_up(index))));
            }
        }
        lines
    }
}
