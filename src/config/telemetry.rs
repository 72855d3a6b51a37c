//! The checked `[telemetry]`: where spans go.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Telemetry {
    /// Where spans are sent; `None`: nowhere, and nothing is recorded.
    pub otlp: Option<Otlp>,
}

/// `otlp` of `[telemetry]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// Where batches are POSTed: the whole URL.
    pub endpoint: String,
    /// Part of the requests that are recorded where nobody has decided, 0 to 1.
    pub sample: f64,
    /// What is sent with each batch; values are sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `service.name`.
    pub service_name: String,
    /// From the connect to the last byte of the collector's answer.
    pub timeout: Duration,
}
