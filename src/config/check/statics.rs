//! `[[static]]`: small fixed answers.

use std::path::Path;

use bytes::Bytes;
use http::{HeaderValue, Method};

use super::super::file;
use super::super::pattern::{exact_path, path};
use super::super::report::Report;
use super::super::section::{Route, Server, Static};
use super::super::url;
use super::super::value::Wrong;
use super::server::reserved;
use super::shared::{content, scalar};

/// Largest body, bytes: it is kept in memory and in the configuration.
const MAX_BODY: usize = 64 * 1024;

/// Largest file, bytes: it is kept in memory.
const MAX_FILE: u64 = 1024 * 1024;

/// `[[static]]`.
pub(super) fn statics(
    files: &[file::Static],
    server: &Server,
    routes: &[Option<Route>],
    folder: &Path,
    report: &mut Report<'_>,
) -> Vec<Static> {
    let mut statics: Vec<(usize, Static)> = Vec::with_capacity(files.len());
    for (n, file) in files.iter().enumerate() {
        let key = format!("static[{n}].path");
        let exact = file.path.as_deref().and_then(|text| report.read(&key, text, exact_path));
        if let Some(what) = exact.as_deref().and_then(|exact| taken(exact, &statics, server, routes, report)) {
            report.fault(&key, what);
        }
        if file.body.as_ref().is_some_and(|body| body.len() > MAX_BODY) {
            report.refuse(
                &format!("static[{n}].body"),
                &Wrong::silent("is larger than 64KiB", "let an upstream serve it"),
            );
        }
        let body = body(file, &format!("static[{n}]"), folder, report);
        let key = format!("static[{n}].content_type");
        let content_type = scalar(report, &key, file.content_type.as_deref(), "text/plain; charset=utf-8", media_type);
        if let (Some(path), Some(body), Some(content_type)) = (exact, body, content_type) {
            statics.push((n, Static { path, body, content_type }));
        }
    }
    statics.into_iter().map(|(_, file)| file).collect()
}

fn body(file: &file::Static, at: &str, folder: &Path, report: &mut Report<'_>) -> Option<Bytes> {
    let key = |name: &str| format!("{at}.{name}");
    if file.body.is_some() && file.file.is_some() {
        let other = report.refer(&key("body"));
        report.fault(&key("file"), format!("and {other} both say what the body is; remove one"));
    }
    let refused = report.is_refused(at) || report.is_refused(&key("body")) || report.is_refused(&key("file"));
    if file.body.is_none() && file.file.is_none() && !refused {
        report.fault(&key("body"), "is missing; write for example body = \"abc\"");
    }
    if let Some(body) = &file.body {
        return Some(Bytes::from(body.clone()));
    }
    let read = |text: &str| url::file(text, folder).and_then(|path| content(&path, MAX_FILE));
    report.read(&key("file"), file.file.as_deref()?, read).map(Bytes::from)
}

/// A media type, with parameters or without (RFC 9110, section 8.3.1).
fn media_type(text: &str) -> Result<HeaderValue, Wrong> {
    let wrong = || Wrong::new("is not a media type", "write one such as \"application/json\"");
    let (kind, subtype) = text.split(';').next().unwrap_or_default().trim().split_once('/').ok_or_else(wrong)?;
    let token =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    match token(kind) && token(subtype) {
        true => HeaderValue::from_str(text).map_err(|_| wrong()),
        false => Err(wrong()),
    }
}

/// Who else answers `exact`, if anybody.
fn taken(
    exact: &str,
    statics: &[(usize, Static)],
    server: &Server,
    routes: &[Option<Route>],
    report: &Report<'_>,
) -> Option<String> {
    if let Some((m, _)) = statics.iter().find(|(_, earlier)| earlier.path == exact) {
        let other = report.refer(&format!("static[{m}].path"));
        return Some(format!("is the same as {other}; write each path once"));
    }
    let pattern = path(exact).ok()?;
    if let Some(own) = reserved(server, &pattern) {
        return Some(format!(
            "lies in {own}, which the gateway answers itself, so it would never be reached; change it"
        ));
    }
    let reads = |route: &Route| {
        route.methods.is_empty() || route.methods.iter().any(|method| [Method::GET, Method::HEAD].contains(method))
    };
    let same = |route: &Route| {
        (&route.path.segments, route.path.rest, route.path.slash) == (&pattern.segments, false, pattern.slash)
    };
    let m = routes.iter().position(|route| route.as_ref().is_some_and(|route| same(route) && reads(route)))?;
    let other = report.refer(&format!("route[{m}].path"));
    Some(format!("is also the exact path of {other}; remove one"))
}
