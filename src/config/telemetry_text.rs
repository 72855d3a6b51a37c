//! The text of `[telemetry]`, key by key; a part of [`super::file`].

use schemars::JsonSchema;
use serde::Deserialize;

use super::file::{Duration, Secret};

/// What is told about requests beside metrics and the log.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Traces go to an OpenTelemetry collector. Default: nowhere.
    pub otlp: Option<Otlp>,
}

/// Where traces go, by OTLP over HTTP with protobuf.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// The collector, "http://HOST:4318" or https; /v1/traces is added. Required.
    #[schemars(required, example = &"http://127.0.0.1:4318")]
    pub endpoint: Option<String>,
    /// Part of the requests that is recorded, 0 to 1, where no trusted proxy has decided. Default: 0.01.
    #[schemars(range(min = 0, max = 1), example = 0.01)]
    pub sample: Option<f64>,
    /// "Name: value", sent with each batch. Default: none.
    #[schemars(example = ["Authorization: Bearer ${OTLP_TOKEN}"])]
    pub headers: Option<Vec<Secret>>,
    /// The name of this service in the traces. Default: "wxgate".
    #[schemars(example = &"wxgate")]
    pub service_name: Option<String>,
    /// How long the collector may take for one batch, at most "60s". Default: "10s".
    pub timeout: Option<Duration>,
}
