//! The way of spans to the collector, which goes on over a reload that leaves `[telemetry]` as it was.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::config::Otlp;
use crate::metrics::Metrics;
use crate::telemetry::export::{Collector, Figures, Spans};

use super::Error;

/// How long the end of the process waits for the last spans.
const FLUSH: Duration = Duration::from_secs(2);

/// What outlives a reload.
#[derive(Debug, Default)]
pub struct Tracing {
    figures: Arc<Figures>,
    /// What it was made from, and the way itself. Locked while a snapshot is made.
    current: Mutex<Option<(Otlp, Weak<Spans>)>>,
}

impl Tracing {
    /// The way that `section` asks for: the one in use, if that is it. A new one starts its task on the present runtime.
    pub(super) fn spans(&self, section: Option<&Otlp>) -> Result<Option<Arc<Spans>>, Error> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(section) = section else {
            *current = None;
            return Ok(None);
        };
        // The part that is recorded is the workers' business.
        let same = |known: &Otlp| Otlp { sample: section.sample, ..known.clone() } == *section;
        if let Some(spans) = current.as_ref().filter(|(known, _)| same(known)).and_then(|(_, spans)| spans.upgrade()) {
            return Ok(Some(spans));
        }
        let collector = Collector {
            endpoint: section.endpoint.clone(),
            headers: section.headers.iter().cloned().collect(),
            service_name: section.service_name.clone(),
            instance: uuid::Uuid::now_v7().to_string(),
            timeout: section.timeout,
        };
        let spans = Spans::start(collector, &self.figures).map_err(Error::Telemetry)?;
        *current = Some((section.clone(), Arc::downgrade(&spans)));
        Ok(Some(spans))
    }

    /// Waits for the last spans to be sent, not for long.
    pub async fn flush(&self) {
        let current =
            self.current.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, spans)| spans.clone());
        if let Some(spans) = current.and_then(|spans| spans.upgrade()) {
            spans.flush(FLUSH).await;
        }
    }

    /// Adds the figures to the metrics page.
    #[allow(clippy::cast_precision_loss)] // counts far from 2^53
    pub(super) fn register(&self, metrics: &Metrics) {
        let figures = Arc::clone(&self.figures);
        let help = "Recorded requests: the collector has them, the queue was full, the collector did not take them.";
        metrics.register("wxgate_otlp_requests_total", "counter", help, move || {
            [("exported", &figures.exported), ("dropped", &figures.dropped), ("failed", &figures.failed)]
                .map(|(outcome, n)| (format!("{{outcome=\"{outcome}\"}}"), n.load(Ordering::Relaxed) as f64))
                .into()
        });
    }
}
