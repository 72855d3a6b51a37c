//! Spans on their way to a collector: OTLP over HTTP with protobuf.
//!
//! A worker puts what it has recorded into a queue of fixed size and goes on; where there is no room, the span is dropped
//! and counted, and nothing was made for it. One task on the control runtime takes them out in batches. A collector that is
//! away is told about once, and asked again with growing pauses; the batch that it did not take waits for a minute, and
//! the queue behind it fills. So a dead collector costs the memory of one queue. OpenTelemetry's own SDK was not taken: its
//! processors bring a thread or a runtime of their own, and make every span before they ask whether it is wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use prost::Message as _;
use reqwest::{Response, redirect, retry};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::otlp::{self, ExportResponse, Resource};
use super::span::RequestSpan;

/// Recorded requests that may wait.
const QUEUE: usize = 2048;

/// Requests of one batch at most.
const BATCH: usize = 512;

/// How long the first of a batch waits for others.
const LINGER: Duration = Duration::from_secs(1);

/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How long a batch is offered.
const PATIENCE: Duration = Duration::from_secs(60);

/// Largest answer of a collector that is read, bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Where spans go.
#[derive(Debug, Clone)]
pub struct Collector {
    /// Where batches are POSTed: the whole URL.
    pub endpoint: String,
    /// Sent with each.
    pub headers: HeaderMap,
    /// `service.name`.
    pub service_name: String,
    /// `service.instance.id`.
    pub instance: String,
    /// From the connect to the last byte of the answer.
    pub timeout: Duration,
}

/// What became of recorded requests.
#[derive(Debug, Default)]
pub struct Figures {
    /// The collector has them.
    pub exported: AtomicU64,
    /// There was no room in the queue.
    pub dropped: AtomicU64,
    /// The collector did not take them.
    pub failed: AtomicU64,
}

/// The way to a collector; its task ends when this goes, and what waits then is still offered once.
#[derive(Debug)]
pub struct Spans {
    queue: mpsc::Sender<Item>,
    figures: Arc<Figures>,
    /// Set while the collector is away.
    away: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Item {
    Request(Box<RequestSpan>),
    /// Whoever asks wants to know when all before it was offered.
    Flush(oneshot::Sender<()>),
}

impl Spans {
    /// Starts the task, on the present runtime.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn start(collector: Collector, figures: &Arc<Figures>) -> Result<Arc<Self>, reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .timeout(collector.timeout)
            .user_agent(concat!("wxgate/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let (queue, items) = mpsc::channel(QUEUE);
        let away = Arc::<AtomicBool>::default();
        let resource = Resource::new(&collector.service_name, &collector.instance);
        let exporter = Exporter { client, collector, resource, figures: Arc::clone(figures), away: Arc::clone(&away) };
        tokio::spawn(exporter.run(items));
        Ok(Arc::new(Self { queue, figures: Arc::clone(figures), away }))
    }

    /// Puts what `make` makes into the queue, if there is room.
    pub fn offer(&self, make: impl FnOnce() -> RequestSpan) {
        match self.queue.try_reserve() {
            Ok(room) => room.send(Item::Request(Box::new(make()))),
            Err(_) => {
                self.figures.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits until all that was offered so far is sent, at most `within`. Not for a collector that is away.
    pub async fn flush(&self, within: Duration) {
        if self.away.load(Ordering::Acquire) {
            return;
        }
        let (tell, told) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Item::Flush(tell)).await.is_ok() {
                let _ = told.await;
            }
        };
        let _ = timeout(within, flushed).await;
    }
}

struct Exporter {
    client: reqwest::Client,
    collector: Collector,
    resource: Resource,
    figures: Arc<Figures>,
    away: Arc<AtomicBool>,
}

/// Why a batch was not taken.
enum Fault {
    /// It may be taken later; the collector may have said when.
    Later(String, Option<Duration>),
    /// It never will.
    Never(String),
}

impl Exporter {
    async fn run(self, mut items: mpsc::Receiver<Item>) {
        while let Some(first) = items.recv().await {
            let mut requests = Vec::new();
            let mut asked = Vec::new();
            let by = Instant::now() + LINGER;
            let mut next = Some(first);
            while let Some(item) = next {
                match item {
                    Item::Request(request) => requests.push(*request),
                    Item::Flush(tell) => asked.push(tell),
                }
                if requests.len() >= BATCH || !asked.is_empty() {
                    break;
                }
                next = timeout_at(by, items.recv()).await.ok().flatten();
            }
            if !requests.is_empty() {
                self.deliver(requests, &items).await;
            }
            asked.into_iter().for_each(|tell| {
                let _ = tell.send(());
            });
        }
    }

    /// Offers one batch until it is taken, or will not be.
    async fn deliver(&self, requests: Vec<RequestSpan>, items: &mpsc::Receiver<Item>) {
        let count = requests.len() as u64;
        let spans = requests.into_iter().flat_map(otlp::spans).collect();
        let body = bytes::Bytes::from(otlp::batch(&self.resource, spans).encode_to_vec());
        let give_up = Instant::now() + PATIENCE;
        let mut pause = PAUSES.0;
        loop {
            let (what, wait) = match self.send(body.clone()).await {
                Ok(rejected) => {
                    if self.away.swap(false, Ordering::AcqRel) {
                        tracing::info!("the OpenTelemetry collector takes spans again");
                    }
                    // It counts spans, of which a request has several.
                    let failed = u64::from(rejected > 0);
                    if rejected > 0 {
                        tracing::debug!(rejected, "the OpenTelemetry collector did not take all spans of a batch");
                    }
                    self.figures.exported.fetch_add(count - failed, Ordering::Relaxed);
                    self.figures.failed.fetch_add(failed, Ordering::Relaxed);
                    return;
                }
                Err(Fault::Later(what, wait)) => (what, Some(wait.unwrap_or(pause).min(PAUSES.1))),
                Err(Fault::Never(what)) => (what, None),
            };
            if !self.away.swap(true, Ordering::AcqRel) {
                tracing::warn!(error = what, "the OpenTelemetry collector takes no spans; what is recorded is dropped");
            }
            match wait {
                // With the configuration that named it goes the collector.
                Some(wait) if Instant::now() + wait < give_up && !items.is_closed() => {
                    sleep(wait).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
                _ => {
                    self.figures.failed.fetch_add(count, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    /// Sends one batch; how many spans of it were not taken.
    async fn send(&self, body: bytes::Bytes) -> Result<u64, Fault> {
        let request = self.client.post(&self.collector.endpoint).headers(self.collector.headers.clone());
        let request = request.header(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        // Without the URL: it may hold a password.
        let later = |error: reqwest::Error| Fault::Later(said(&error.without_url()), None);
        let answer = request.body(body).send().await.map_err(later)?;
        match answer.status() {
            status if status.is_success() => Ok(rejected(answer).await),
            // OTLP 1.x, "Failures": these and no others are tried again.
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => {
                let after =
                    answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                Err(Fault::Later(status.to_string(), after.map(Duration::from_secs)))
            }
            status => Err(Fault::Never(status.to_string())),
        }
    }
}

async fn rejected(mut answer: Response) -> u64 {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = answer.chunk().await {
        if body.len() + piece.len() > MAX_ANSWER {
            return 0;
        }
        body.extend_from_slice(&piece);
    }
    ExportResponse::decode(body.as_slice()).map_or(0, |response| response.rejected())
}

/// An error with its causes.
fn said(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::span::Sampler;
    use super::*;

    fn request() -> RequestSpan {
        RequestSpan {
            context: Sampler::new(1.).decide(b"0123456789abcdef0123456789abcdef", None).unwrap(),
            request_id: "id".to_owned(),
            method: "GET",
            route: "/api/*".to_owned(),
            https: false,
            upstream: None,
            status: 200,
            code: None,
            bytes: 0,
            began: 0,
            took: Duration::ZERO,
            complete: true,
            attempts: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_collector_that_says_nothing_costs_one_queue_and_what_is_dropped_is_not_even_made() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Collector {
            endpoint: format!("http://{}/v1/traces", silent.local_addr().unwrap()),
            headers: HeaderMap::new(),
            service_name: "x".to_owned(),
            instance: "y".to_owned(),
            timeout: Duration::from_secs(60),
        };
        let figures = Arc::<Figures>::default();
        let spans = Spans::start(collector, &figures).unwrap();
        let made = AtomicU64::new(0);
        let offer = || {
            spans.offer(|| {
                made.fetch_add(1, Ordering::Relaxed);
                request()
            });
        };
        (0..BATCH).for_each(|_| offer());
        // The first batch is on its way, and hangs there.
        let (_hangs, _) = silent.accept().await.unwrap();
        (0..10_000).for_each(|_| offer());
        let held = (BATCH + QUEUE) as u64;
        assert_eq!(made.load(Ordering::Relaxed), held);
        assert_eq!(figures.dropped.load(Ordering::Relaxed), 10_000 - QUEUE as u64);
        assert_eq!(figures.exported.load(Ordering::Relaxed), 0);
    }
}
