//! `[[upstream]]`: the services behind the gateway.

use std::num::NonZeroU32;
use std::path::Path;

use super::super::file;
use super::super::report::Report;
use super::super::section::{Backend, Breaker, Capacity, Health, Queue, Upstream};
use super::super::structure::closest;
use super::super::url::backend;
use super::super::value::{Wrong, duration, duration_or_zero, name};
use super::shared::{most, time};
use super::transport;

/// `[[upstream]]`, each at its place in the file; `None` where the name is missing or wrong.
pub(super) fn upstreams(files: &[file::Upstream], folder: &Path, report: &mut Report<'_>) -> Vec<Option<Upstream>> {
    let mut upstreams: Vec<Option<Upstream>> = Vec::with_capacity(files.len());
    for (n, file) in files.iter().enumerate() {
        let key = |name: &str| format!("upstream[{n}].{name}");
        let called = file.name.as_deref().and_then(|text| report.read(&key("name"), text, name));
        let earlier = |upstream: &Option<Upstream>| upstream.as_ref().map(|u| &u.name) == called.as_ref();
        if let (Some(_), Some(m)) = (&called, upstreams.iter().position(earlier)) {
            let other = report.refer(&format!("upstream[{m}].name"));
            report.refuse(&key("name"), &Wrong::new(format!("is the same as {other}"), "give each its own name"));
        }
        let (servers, weights) = servers(file, &key("servers"), report);
        let servers = transport::all(servers, file, &key, folder, report);
        let connect_timeout = time(report, &key("connect_timeout"), file.connect_timeout.as_ref(), "2s", duration);
        let balance = file.balance.unwrap_or_default();
        let health = file.health.as_ref().and_then(|file| health(file, &key("health"), report));
        let mut capacity = capacity(file, &key, report);
        capacity.weights = weights;
        upstreams.push(called.map(|name| {
            if let Some(breaker) = &mut capacity.breaker {
                breaker.upstream.clone_from(&name);
            }
            Upstream { name, servers, balance, connect_timeout, health, capacity }
        }));
    }
    upstreams
}

/// Its servers, and the share of each unless all are equal.
fn servers(file: &file::Upstream, at: &str, report: &mut Report<'_>) -> (Vec<(Backend, bool)>, Vec<NonZeroU32>) {
    let (mut servers, mut weights) = (Vec::new(), Vec::new());
    for (n, server) in file.servers.iter().flatten().enumerate() {
        let key = format!("{at}[{n}]");
        let (key, url, weight) = match server {
            file::UpstreamServer::Url(url) => (key, Some(url), None),
            file::UpstreamServer::Weighted(server) => (format!("{key}.url"), server.url.as_ref(), server.weight),
        };
        let Some(server) = url.and_then(|url| report.read(&key, url, backend)) else { continue };
        if servers.contains(&server) {
            report.refuse(&key, &Wrong::new("is listed twice", "remove one"));
            continue;
        }
        servers.push(server);
        weights.push(weight.and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN));
    }
    let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
    (servers, if equal { Vec::new() } else { weights })
}

/// What its servers take; without their shares.
fn capacity(file: &file::Upstream, key: &impl Fn(&str) -> String, report: &mut Report<'_>) -> Capacity {
    let slow_start = time(report, &key("slow_start"), file.slow_start.as_ref(), "0s", duration_or_zero);
    let max_connections = most(file.max_connections);
    if let (None, Some(_)) = (max_connections, &file.queue)
        && !report.is_refused(&key("max_connections"))
    {
        let wrong =
            Wrong::new("is never used without max_connections", "write max_connections beside it, or remove it");
        report.refuse(&key("queue"), &wrong);
    }
    let queue = file.queue.clone().unwrap_or_default();
    let size = queue.size.and_then(|n| usize::try_from(n).ok()).unwrap_or(128);
    let timeout = time(report, &key("queue.timeout"), queue.timeout.as_ref(), "1s", duration);
    let breaker = file.breaker.as_ref().map(|file| Breaker {
        upstream: String::new(),
        failures: file.failures.and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new),
        open: time(report, &key("breaker.open"), file.open.as_ref(), "5s", duration),
        max_requests: most(file.max_requests),
    });
    if breaker.as_ref().is_some_and(|breaker| breaker.failures.is_none() && breaker.max_requests.is_none()) {
        let wrong = Wrong::new("says neither when to open nor how much is too much", "write failures or max_requests");
        report.refuse(&key("breaker"), &wrong);
    }
    Capacity { weights: Vec::new(), slow_start, max_connections, queue: Queue { size, timeout }, breaker }
}

fn health(file: &file::Health, at: &str, report: &mut Report<'_>) -> Option<Health> {
    let key = |name: &str| format!("{at}.{name}");
    let times = |n: Option<i64>, default| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
    let interval = time(report, &key("interval"), file.interval.as_ref(), "5s", duration);
    let timeout = time(report, &key("timeout"), file.timeout.as_ref(), "2s", duration);
    let path = report.read(&key("path"), file.path.as_deref()?, target)?;
    Some(Health { path, interval, timeout, healthy: times(file.healthy, 2), unhealthy: times(file.unhealthy, 3) })
}

/// A path with or without query, as it is sent.
fn target(text: &str) -> Result<String, Wrong> {
    let plain = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !plain || text.parse::<http::uri::PathAndQuery>().is_err() {
        return Err(Wrong::new("is not a path", "write it as it is to be sent, such as \"/healthz\""));
    }
    Ok(text.to_owned())
}

/// The upstream of this name, for `key` that refers to it: its index.
pub(super) fn named(name: &str, key: &str, upstreams: &[Option<Upstream>], report: &mut Report<'_>) -> Option<usize> {
    let known: Vec<&str> = upstreams.iter().flatten().map(|upstream| upstream.name.as_str()).collect();
    let found = known.iter().position(|known| *known == name);
    // An upstream without a valid name has its own fault; this may be the one that is meant.
    let unnamed = upstreams.iter().any(Option::is_none) || report.is_refused("upstream");
    if found.is_none() && !unnamed {
        let write = match (closest(name, &known), known.as_slice()) {
            (Some(close), _) => format!("did you mean \"{close}\"?"),
            (None, []) => "write [[upstream]] with that name".to_owned(),
            (None, known) => format!("write one of {}, or an [[upstream]] of that name", known.join(", ")),
        };
        report.refuse(key, &Wrong::new("is no upstream", write));
    }
    found
}
