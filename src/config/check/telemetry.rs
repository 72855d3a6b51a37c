//! `[telemetry]`: where spans go.

use std::path::Path;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue};

use super::super::file;
use super::super::report::Report;
use super::super::section::{Otlp, Telemetry};
use super::super::url;
use super::super::value::{Wrong, duration};
use super::shared::{secret, time};

/// Longest deadline of one batch.
const LONGEST: Duration = Duration::from_secs(60);

/// Part of the requests that is recorded, unless said.
const SAMPLE: f64 = 0.01;

/// `[telemetry]`.
pub(super) fn telemetry(file: file::Telemetry, folder: &Path, report: &mut Report<'_>) -> Telemetry {
    Telemetry { otlp: file.otlp.and_then(|otlp| self::otlp(otlp, folder, report)) }
}

fn otlp(file: file::Otlp, folder: &Path, report: &mut Report<'_>) -> Option<Otlp> {
    let endpoint = file.endpoint.as_deref().and_then(|text| report.read("telemetry.otlp.endpoint", text, url::otlp));
    let key = "telemetry.otlp.timeout";
    let timeout = time(report, key, file.timeout.as_ref(), "10s", duration);
    if timeout > LONGEST {
        report.refuse(key, &Wrong::new("is too long", "write at most \"60s\""));
    }
    let service_name = file.service_name.unwrap_or_else(|| "wxgate".to_owned());
    if service_name.trim().is_empty() || service_name.len() > 255 {
        let wrong = Wrong::new("is no name", "write 1 to 255 characters, such as \"wxgate\"");
        report.refuse("telemetry.otlp.service_name", &wrong);
    }
    let mut headers = Vec::new();
    for (n, from) in file.headers.into_iter().flatten().enumerate() {
        let key = format!("telemetry.otlp.headers[{n}]");
        if let Some(text) = secret(report, &key, from, folder) {
            headers.extend(report.read(&key, text.expose(), header));
        }
    }
    Some(Otlp { endpoint: endpoint?, sample: file.sample.unwrap_or(SAMPLE), headers, service_name, timeout })
}

/// `Name: value`; what is wrong with it is said without quoting it.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), Wrong> {
    let wrong = || Wrong::silent("is not a header", "write \"Name: value\" in ASCII on one line");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name: HeaderName = name.trim_end().parse().map_err(|_| wrong())?;
    if [CONTENT_LENGTH, CONTENT_TYPE, HOST].contains(&name) {
        return Err(Wrong::silent("is written by the gateway itself", "remove it"));
    }
    let mut value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok((name, value))
}
