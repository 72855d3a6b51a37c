//! The messages of OTLP (opentelemetry-proto 1.x, `trace.proto` and what it needs), as far as the gateway says them.
//!
//! Written down here instead of taken from a crate: the stable part is these few fields, which may not change any more, and
//! the crate that has them brings an SDK along. The tests read what is sent with that crate.

use std::time::Duration;

use prost::{Message, Oneof};

use super::span::{Attempt, RequestSpan, SpanContext};

/// `SPAN_KIND_SERVER` and `SPAN_KIND_CLIENT`.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;

/// Bits of `flags`: sampled (W3C); it is known whether the parent is elsewhere; it is.
const SAMPLED: u32 = 1;
const KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

/// What sends them.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 2, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Flag(bool),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// What a collector answers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}

impl ExportResponse {
    /// Spans that it did not take.
    pub(super) fn rejected(&self) -> u64 {
        self.partial_success.as_ref().and_then(|part| u64::try_from(part.rejected_spans).ok()).unwrap_or(0)
    }
}

impl Resource {
    /// One process of the service `name`.
    pub(super) fn new(name: &str, instance: &str) -> Self {
        Self {
            attributes: vec![
                text("service.name", name),
                text("service.version", env!("CARGO_PKG_VERSION")),
                text("service.instance.id", instance),
            ],
        }
    }
}

/// One batch.
pub(super) fn batch(resource: &Resource, spans: Vec<Span>) -> ExportRequest {
    let scope = Scope { name: "wxgate".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    ExportRequest { resource_spans: vec![ResourceSpans { resource: Some(resource.clone()), scope_spans }] }
}

/// The span of a request, and one for each attempt (names of attributes: OpenTelemetry's semantic conventions for HTTP).
pub(super) fn spans(request: RequestSpan) -> impl Iterator<Item = Span> {
    let RequestSpan { context, method, began, took, status, attempts, .. } = request;
    let mut attributes = vec![
        text("http.request.method", method),
        text("http.route", &request.route),
        text("url.scheme", if request.https { "https" } else { "http" }),
        text("wxgate.request_id", &request.request_id),
        number("http.response.body.size", request.bytes),
    ];
    // Gone before there was an answer: none was sent.
    if status != 499 {
        attributes.push(number("http.response.status_code", u64::from(status)));
    }
    if let Some(upstream) = &request.upstream {
        attributes.push(text("wxgate.upstream", upstream));
        attributes.push(number("wxgate.attempts", attempts.len() as u64));
    }
    let broken = status == 499 || !request.complete;
    let failed = status >= 500 || broken;
    match request.code {
        Some(code) => attributes.push(text("error.type", code)),
        None if broken => attributes.push(text("error.type", "incomplete")),
        None if failed => attributes.push(text("error.type", &status.to_string())),
        None => {}
    }
    let own = Span {
        trace_id: context.trace.to_vec(),
        span_id: context.span.to_vec(),
        parent_span_id: context.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        name: format!("{method} {}", request.route),
        kind: SERVER,
        start_time_unix_nano: began,
        end_time_unix_nano: after(began, took),
        attributes,
        status: (status >= 500).then_some(Status { code: ERROR }),
        flags: if context.parent.is_some() { SAMPLED | KNOWN | REMOTE } else { SAMPLED | KNOWN },
    };
    let of_attempts = attempts.into_iter().enumerate();
    std::iter::once(own).chain(of_attempts.map(move |(nth, attempt)| {
        let answered = attempt.failed.is_none().then_some(status);
        tried(&context, method, nth, &attempt, (began, took), answered)
    }))
}

fn tried(
    of: &SpanContext,
    method: &str,
    nth: usize,
    attempt: &Attempt,
    (began, took): (u64, Duration),
    answered: Option<u16>,
) -> Span {
    let mut attributes = vec![text("http.request.method", method)];
    match attempt.server.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => attributes.extend([text("server.address", host), number("server.port", port)]),
        None => attributes.push(text("server.address", &attempt.server)),
    }
    if nth > 0 {
        attributes.push(number("http.request.resend_count", nth as u64));
    }
    // For a client, 4xx is an error, too.
    let failed = answered.is_none_or(|status| status >= 400);
    match answered {
        Some(status) if status != 499 => attributes.push(number("http.response.status_code", u64::from(status))),
        _ => {}
    }
    if failed {
        let what = answered.map_or("_OTHER".to_owned(), |status| status.to_string());
        attributes.push(text("error.type", &what));
    }
    Span {
        trace_id: of.trace.to_vec(),
        span_id: attempt.span.to_vec(),
        parent_span_id: of.span.to_vec(),
        name: method.to_owned(),
        kind: CLIENT,
        start_time_unix_nano: after(began, attempt.began),
        end_time_unix_nano: after(began, attempt.failed.unwrap_or(took)),
        attributes,
        status: failed.then_some(Status { code: ERROR }),
        flags: SAMPLED | KNOWN,
    }
}

fn after(began: u64, time: Duration) -> u64 {
    began.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::Text(value.to_owned())) }) }
}

fn number(key: &str, value: u64) -> KeyValue {
    let value = Value::Number(i64::try_from(value).unwrap_or(i64::MAX));
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}
