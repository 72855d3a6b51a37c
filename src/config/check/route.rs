//! `[[route]]`: which request goes where, and what it needs.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::super::file;
use super::super::pattern::{exact_path, host, path};
use super::super::report::Report;
use super::super::section::{Auth, HostPattern, PathPattern, Retry, RetryOn, Route, Segment, Server, Upstream};
use super::super::value::{Wrong, duration, method, name, protocol};
use super::server::{max_body, reserved};
use super::shared::{bytes, list, most, time};
use super::upstream::named;
use super::{cors, limit, transform};
use crate::ids::AppId;

/// Bytes a second of a request body. Far below what a phone in a bad network does.
const MIN_BODY_RATE: u64 = 1024;

/// What routes refer to.
pub(super) struct Around<'a> {
    pub(super) server: &'a Server,
    pub(super) upstreams: &'a [Option<Upstream>],
    /// `token.audience`.
    pub(super) audience: &'a [String],
    /// Of each `[[app]]`; `None` where it is missing or wrong.
    pub(super) appids: &'a [Option<AppId>],
}

/// `[[route]]`, each at its place in the file; `None` where the path is missing or wrong.
pub(super) fn routes(files: &[file::Route], around: &Around<'_>, report: &mut Report<'_>) -> Vec<Option<Route>> {
    let mut routes: Vec<Option<Route>> = Vec::with_capacity(files.len());
    for (n, file) in files.iter().enumerate() {
        let route = route(file, &format!("route[{n}]"), around, report);
        if let Some(route) = &route {
            let rival = routes.iter().position(|other| other.as_ref().is_some_and(|other| ties(other, route)));
            if let Some(m) = rival {
                let other = report.refer(&format!("route[{m}]"));
                let what = format!(
                    "matches the same requests as {other} and neither is more specific; change its path, host or methods, \
                     or remove one"
                );
                report.fault(&format!("route[{n}].path"), what);
            }
        }
        routes.push(route);
    }
    routes
}

fn route(file: &file::Route, at: &str, around: &Around<'_>, report: &mut Report<'_>) -> Option<Route> {
    let key = |name: &str| format!("{at}.{name}");
    let pattern = file.path.as_deref().and_then(|text| report.read(&key("path"), text, path));
    if let Some(own) = pattern.as_ref().and_then(|pattern| reserved(around.server, pattern)) {
        let what = format!("lies in {own}, which the gateway answers itself, so it would never be reached; change it");
        report.fault(&key("path"), what);
    }
    let upstream = file.upstream.as_deref().and_then(|name| named(name, &key("upstream"), around.upstreams, report));
    let redirect =
        file.redirect.as_ref().and_then(|file| transform::redirect(file, &key("redirect"), pattern.as_ref(), report));
    answered(file, at, report);
    let hosts = list(report, &key("host"), file.host.as_ref(), host);
    let methods = list(report, &key("methods"), file.methods.as_ref(), method);
    let auth = file.auth.unwrap_or_default();
    let roles = list(report, &key("roles"), file.roles.as_ref(), name);
    let apps = apps(file, &key("apps"), around, report);
    if auth == Auth::None {
        for (name, written) in [("roles", file.roles.as_ref()), ("apps", file.apps.as_ref())] {
            if written.is_some_and(|list| !list.is_empty()) {
                let what = format!(
                    "needs a token to look at, but {} = \"none\" reads none, so nobody could pass; write auth = \
                     \"required\", or remove {name}",
                    key("auth")
                );
                report.fault(&key(name), what);
            }
        }
    }
    let assertion = assertion(file, &key("assertion"), auth, around, report);
    let strip_prefix = file.strip_prefix.as_deref().and_then(|text| {
        let parse = |text: &str| prefix(text, pattern.as_ref());
        report.read(&key("strip_prefix"), text, parse)
    });
    let timeout = time(report, &key("timeout"), file.timeout.as_ref(), "30s", duration);
    let idle_timeout = time(report, &key("idle_timeout"), file.idle_timeout.as_ref(), "60s", duration);
    let total_timeout =
        file.total_timeout.as_ref().and_then(|text| report.read(&key("total_timeout"), &text.0, duration));
    if let (Some(total), Some(_)) = (total_timeout, &file.timeout)
        && total < timeout
        && !report.is_refused(&key("timeout"))
    {
        let what =
            format!("is shorter than {}, which would never be reached; raise it, or lower the other", key("timeout"));
        report.fault(&key("total_timeout"), what);
    }
    let upgrade = match &file.upgrade {
        Some(protocols) => list(report, &key("upgrade"), Some(protocols), protocol),
        None => vec!["websocket".to_owned()],
    };
    let max_body = max_body(report, &key("max_body"), file.max_body.as_ref()).unwrap_or(around.server.max_body);
    let min_body_rate =
        bytes(report, &key("min_body_rate"), file.min_body_rate.as_ref(), ("0B", "1GiB")).unwrap_or(MIN_BODY_RATE);
    let limit = file.limit.as_ref().and_then(|file| limit::route(file, &key("limit"), auth, report));
    let retry = file.retry.as_ref().map(|file| retry(file, &key("retry"), timeout, report));
    let cors = file.cors.as_ref().map(|file| cors::cors(file, &key("cors"), report));
    let forward_token = file.forward_token.unwrap_or(false);
    let rewrite = file.rewrite.as_ref();
    let rewrite = rewrite.map(|file| transform::rewrite(file, &key("rewrite"), pattern.as_ref(), report));
    let headers = file.headers.as_ref();
    let headers =
        headers.map(|file| transform::headers(file, &key("headers"), (cors.is_some(), forward_token), report));
    let compress = file.compress.as_ref().and_then(|file| transform::compress(file, &key("compress"), report));
    let networks = transform::networks(file, at, report);
    Some(Route {
        path: pattern?,
        hosts,
        methods,
        upstream,
        auth,
        roles,
        apps,
        strip_prefix,
        timeout,
        idle_timeout,
        total_timeout,
        max_body,
        min_body_rate,
        max_in_flight: most(file.max_in_flight),
        max_in_flight_per_member: most(file.max_in_flight_per_member),
        forward_token,
        assertion,
        upgrade,
        limit,
        retry: retry.map(Arc::new),
        cors,
        networks,
        headers: headers.unwrap_or_default(),
        rewrite: rewrite.unwrap_or_default(),
        redirect,
        compress,
    })
}

/// Who answers: an upstream or a redirect, and nothing beside it that would have no effect.
fn answered(file: &file::Route, at: &str, report: &mut Report<'_>) {
    let key = |name: &str| format!("{at}.{name}");
    let refused =
        report.is_refused(at) || report.is_refused(&key("upstream")) || report.is_refused_within(&key("redirect"));
    if file.redirect.is_none() && file.upstream.is_none() && !refused {
        report.fault(&key("upstream"), "is missing; write for example upstream = \"orders\"");
    }
    let redirects = file.redirect.is_some();
    for (name, beside) in [
        ("upstream", redirects && file.upstream.is_some()),
        ("strip_prefix", redirects && file.strip_prefix.is_some()),
        ("rewrite", redirects && file.rewrite.is_some()),
        (
            "compress",
            redirects && matches!(file.compress, Some(file::Compress::With(_) | file::Compress::Switch(true))),
        ),
        ("retry", redirects && file.retry.is_some()),
    ] {
        if beside {
            let other = report.refer(&key("redirect"));
            report.fault(&key(name), format!("has no effect beside {other}, which answers instead; remove one"));
        }
    }
    if file.strip_prefix.is_some() && file.rewrite.as_ref().is_some_and(|rewrite| rewrite.path.is_some()) {
        let other = report.refer(&key("rewrite.path"));
        report.fault(&key("strip_prefix"), format!("and {other} both say what the path becomes; remove one"));
    }
}

/// `assertion` of a route.
fn assertion(file: &file::Route, key: &str, auth: Auth, around: &Around<'_>, report: &mut Report<'_>) -> bool {
    let asked = file.assertion.unwrap_or(false);
    if asked && auth == Auth::None {
        let what =
            "has nobody to speak of, because auth = \"none\" reads no token; write auth = \"required\", or remove it";
        report.fault(key, what.to_owned());
    }
    // By `aud` alone an upstream could not tell an access token from its assertion.
    if let Some(name) = file.upstream.as_ref().filter(|name| asked && around.audience.contains(name)) {
        let what = format!(
            "is made for \"{name}\", which is also a token.audience, so the upstream could take an access token for \
             it; rename the upstream, or change the audience"
        );
        report.fault(key, what);
    }
    asked
}

/// `retry` of a route with this `timeout`.
fn retry(file: &file::Retry, at: &str, timeout: Duration, report: &mut Report<'_>) -> Retry {
    let key = |name: &str| format!("{at}.{name}");
    let mut methods = list(report, &key("methods"), file.methods.as_ref(), method);
    if file.methods.is_none() {
        // RFC 9110, section 9.2.2.
        methods = vec![Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS];
    }
    let per_try = file.per_try.as_ref().and_then(|text| report.read(&key("per_try"), &text.0, duration));
    if per_try.is_some_and(|limit| limit >= timeout) {
        let wrong =
            Wrong::new("is not shorter than the route's timeout, which bounds all tries", "write a shorter one");
        report.refuse(&key("per_try"), &wrong);
    }
    let attempts = file.attempts.and_then(|n| u32::try_from(n).ok()).unwrap_or(2);
    Retry { attempts, on: file.on.clone().unwrap_or(RetryOn::ALL.to_vec()), methods, per_try }
}

/// The apps that a route names, which must be apps of this gateway.
fn apps(file: &file::Route, key: &str, around: &Around<'_>, report: &mut Report<'_>) -> Vec<AppId> {
    // As with upstreams: an app without a valid appid may be the one that is meant.
    let unnamed = around.appids.iter().any(Option::is_none) || report.is_refused("app");
    let known = |text: &str| {
        let found = around.appids.iter().flatten().find(|appid| appid.as_str() == text).cloned();
        match found.is_some() || unnamed {
            true => Ok((text.to_owned(), found)),
            false => Err(Wrong::new("is no app of this gateway", "write the appid of an [[app]]")),
        }
    };
    list(report, key, file.apps.as_ref(), known).into_iter().filter_map(|(_, found)| found).collect()
}

/// A prefix of `pattern` by whole segments, all of them literal.
fn prefix(text: &str, pattern: Option<&PathPattern>) -> Result<String, Wrong> {
    let prefix = exact_path(text)?;
    if prefix.ends_with('/') {
        return Err(Wrong::new("ends with \"/\"", "write whole segments without the last slash, such as \"/api\""));
    }
    let Some(pattern) = pattern else { return Ok(prefix) };
    let mut segments = pattern.segments.iter();
    let whole = prefix
        .split('/')
        .skip(1)
        .all(|part| matches!(segments.next(), Some(Segment::Literal(literal)) if literal == part));
    match whole {
        true => Ok(prefix),
        false => Err(Wrong::new("is not how the route's path begins", "write its first segments, such as \"/api\"")),
    }
}

/// Whether two routes can match one request and neither is more specific.
///
/// The host decides first, then the path, then the methods (`pipeline::matcher`): a route that names hosts or methods is more specific than
/// one that takes any, a longer host suffix than a shorter one. What is left is the same shape of path, with a host
/// pattern and a method in common, or with neither limited.
fn ties(a: &Route, b: &Route) -> bool {
    let (p, q) = (&a.path, &b.path);
    (&p.segments, p.rest, p.slash) == (&q.segments, q.rest, q.slash)
        && common::<HostPattern>(&a.hosts, &b.hosts)
        && common::<Method>(&a.methods, &b.methods)
}

fn common<T: PartialEq>(a: &[T], b: &[T]) -> bool {
    (a.is_empty() && b.is_empty()) || a.iter().any(|item| b.contains(item))
}
