//! `[[static]]`: small fixed answers.

use http::Method;

use super::super::file;
use super::super::pattern::{exact_path, path};
use super::super::report::Report;
use super::super::section::{Route, Server, Static};
use super::super::value::Wrong;
use super::server::reserved;

/// Largest body, bytes: it is kept in memory and in the configuration.
const MAX_BODY: usize = 64 * 1024;

/// `[[static]]`.
pub(super) fn statics(
    files: &[file::Static],
    server: &Server,
    routes: &[Option<Route>],
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
        if let (Some(path), Some(body)) = (exact, &file.body) {
            statics.push((n, Static { path, body: body.clone() }));
        }
    }
    statics.into_iter().map(|(_, file)| file).collect()
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
