//! A collector of OpenTelemetry: OTLP over HTTP, read with the types that OpenTelemetry publishes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::DEADLINE;

/// What it has been sent.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sent {
    pub(crate) headers: Vec<HeaderMap>,
    pub(crate) bodies: Vec<Bytes>,
    pub(crate) spans: Vec<Span>,
    pub(crate) resource: Vec<KeyValue>,
}

/// A running collector; it ends when this goes.
#[derive(Debug)]
pub(crate) struct Collector {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    sent: watch::Sender<Sent>,
    /// Statuses of the next answers; 200 when there is none.
    answers: Mutex<VecDeque<u16>>,
    /// Spans of each batch that it says it has not taken.
    rejects: i64,
}

impl Collector {
    /// Takes everything, but for the first answers, which have these statuses.
    pub(crate) async fn start(answers: &[u16]) -> Self {
        Self::rejecting(0, answers).await
    }

    /// As [`Collector::start`]; says of each batch that it did not take so many spans.
    pub(crate) async fn rejecting(rejects: i64, answers: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sent, _) = watch::channel(Sent::default());
        let shared = Arc::new(Shared { sent, answers: Mutex::new(answers.iter().copied().collect()), rejects });
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&shared));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared, _tasks: tasks }
    }

    /// As `gateway.toml` wants it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it has so far.
    pub(crate) fn sent(&self) -> Sent {
        self.shared.sent.borrow().clone()
    }

    /// Waits until it has so many spans.
    pub(crate) async fn until_spans(&self, n: usize) -> Sent {
        let mut sent = self.shared.sent.subscribe();
        let waited = timeout(DEADLINE, sent.wait_for(|sent| sent.spans.len() >= n)).await;
        waited.unwrap_or_else(|_| panic!("fewer than {n} spans came: {:#?}", self.sent().spans)).unwrap().clone()
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let status = shared.answers.lock().unwrap().pop_front().unwrap_or(200);
    if status != 200 {
        return (StatusCode::from_u16(status).unwrap(), Vec::new());
    }
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body.clone()).expect("an ExportTraceServiceRequest");
    // What they do not know would be lost: then the encoding is another.
    assert_eq!(request.encoded_len(), body.len(), "a field that OpenTelemetry does not know");
    shared.sent.send_modify(|sent| {
        sent.headers.push(headers);
        sent.bodies.push(body);
        for of in request.resource_spans {
            sent.resource = of.resource.unwrap().attributes;
            sent.spans.extend(of.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    });
    let partial = (shared.rejects > 0)
        .then(|| ExportTracePartialSuccess { rejected_spans: shared.rejects, error_message: "no".to_owned() });
    (StatusCode::OK, ExportTraceServiceResponse { partial_success: partial }.encode_to_vec())
}

/// The value of an attribute as text; empty when it is not there.
pub(crate) fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key).and_then(|a| a.value.clone()?.value);
    match found {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}
