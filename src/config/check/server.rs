//! `[server]` and `[admin]`: the listeners and the paths that the gateway keeps for itself.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;

use super::super::file;
use super::super::pattern::exact_path;
use super::super::report::Report;
use super::super::section::{Admin, Internal, PathPattern, Segment, Server};
use super::super::value::{Wrong, duration, duration_or_zero, listen, trusted_proxy};
use super::shared::{bytes, list, most, scalar, time};
use super::tls;

const LISTEN: &str = "0.0.0.0:8080";

/// Open sockets of one member. A mini program may hold five; a member may have several devices.
const MAX_SOCKETS: usize = 32;

const MAX_BODY: (&str, &str) = ("0B", "1024GiB");

/// `[server]`.
pub(super) fn server(file: &file::Server, folder: &Path, report: &mut Report<'_>) -> Server {
    let mut addresses = Vec::new();
    for (n, text) in file.listen.iter().flatten().enumerate() {
        addresses.extend(report.read(&format!("server.listen[{n}]"), text, listen));
    }
    if addresses.is_empty() {
        addresses.extend(listen(LISTEN));
    }
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let workers = file.workers.and_then(|n| usize::try_from(n).ok()).and_then(NonZeroUsize::new).unwrap_or(cores);

    let head = bytes(report, "server.max_head", file.max_head.as_ref(), ("1KiB", "1MiB")).unwrap_or(32 << 10);
    let uri = bytes(report, "server.max_uri", file.max_uri.as_ref(), ("64B", "1MiB")).unwrap_or(8 << 10);
    if uri > head && !report.is_refused("server.max_uri") && !report.is_refused("server.max_head") {
        let what = format!(
            "is {uri} bytes and server.max_head is {head}, so it would never be reached: the target is a part of the head; \
             lower it, or raise server.max_head"
        );
        report.fault("server.max_uri", what);
    }

    let base = scalar(report, "server.base", file.base.as_deref(), "/auth", base_path).unwrap_or_default();
    let health = file.health_path.as_deref().unwrap_or("/healthz");
    let health_path = match health {
        "" => None,
        path => scalar(report, "server.health_path", Some(path), "/healthz", exact_path),
    };
    if let Some(path) = &health_path {
        if is_under(path, &base) && !report.is_refused("server.base") {
            let what = format!("lies under server.base ({base}), whose endpoints would hide it; choose another path");
            report.fault("server.health_path", what);
        } else if is_under(path, WELL_KNOWN) || path == OPENAPI {
            report.fault("server.health_path", "is a path of the gateway itself; choose another path");
        }
    }

    Server {
        listen: addresses,
        tls: tls::tls(file, folder, report),
        http2: file.http2.unwrap_or(true),
        workers,
        base,
        health_path,
        trusted_proxies: list(report, "server.trusted_proxies", file.trusted_proxies.as_ref(), trusted_proxy),
        head_timeout: time(report, "server.head_timeout", file.head_timeout.as_ref(), "10s", duration),
        keep_alive: time(report, "server.keep_alive", file.keep_alive.as_ref(), "75s", duration),
        max_head: usize::try_from(head).unwrap_or(usize::MAX),
        max_uri: usize::try_from(uri).unwrap_or(usize::MAX),
        max_body: max_body(report, "server.max_body", file.max_body.as_ref()).unwrap_or(10 << 20),
        drain_min: time(report, "server.drain_min", file.drain_min.as_ref(), "0s", duration_or_zero),
        drain_timeout: time(report, "server.drain_timeout", file.drain_timeout.as_ref(), "30s", duration_or_zero),
        takeover_timeout: time(report, "server.takeover_timeout", file.takeover_timeout.as_ref(), "30s", duration),
        max_sockets_per_member: NonZeroUsize::new(
            file.max_sockets_per_member.and_then(|n| usize::try_from(n).ok()).unwrap_or(MAX_SOCKETS),
        ),
        max_connections: most(file.max_connections),
        shed_above: time(report, "server.shed_above", file.shed_above.as_ref(), "250ms", duration_or_zero),
    }
}

/// A `max_body`, of the server or of a route.
pub(super) fn max_body(report: &mut Report<'_>, key: &str, value: Option<&file::Size>) -> Option<u64> {
    bytes(report, key, value, MAX_BODY)
}

fn base_path(text: &str) -> Result<String, Wrong> {
    let path = exact_path(text)?;
    if path.ends_with('/') {
        return Err(Wrong::new("ends with \"/\"", "write a path such as \"/auth\""));
    }
    if is_under(&path, WELL_KNOWN) || path == OPENAPI {
        return Err(Wrong::new("is another path of the gateway itself", "write a path such as \"/auth\""));
    }
    Ok(path)
}

/// `[admin]`.
pub(super) fn admin(file: &file::Admin, report: &mut Report<'_>) -> Admin {
    Admin { listen: address(report, "admin.listen", file.listen.as_deref(), "127.0.0.1:9090") }
}

/// The address of a listener that has one.
pub(super) fn address(report: &mut Report<'_>, key: &str, text: Option<&str>, default: &str) -> SocketAddr {
    scalar(report, key, text, default, listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// Two listeners on one address would share its connections, or one of them would not start.
pub(super) fn distinct(server: &file::Server, admin: &Admin, internal: Option<&Internal>, report: &mut Report<'_>) {
    let mut seen: Vec<(String, SocketAddr)> = Vec::new();
    match &server.listen {
        Some(texts) => {
            let addresses = texts.iter().enumerate().filter_map(|(n, text)| Some((n, listen(text).ok()?)));
            seen.extend(addresses.map(|(n, address)| (format!("server.listen[{n}]"), address)));
        }
        None => seen.extend(listen(LISTEN).ok().map(|address| ("server.listen".to_owned(), address))),
    }
    for (n, text) in server.http_redirect.iter().flatten().enumerate() {
        seen.extend(listen(text).ok().map(|address| (format!("server.http_redirect[{n}]"), address)));
    }
    seen.push(("admin.listen".to_owned(), admin.listen));
    seen.extend(internal.map(|internal| ("internal.listen".to_owned(), internal.listen)));

    for (n, (key, address)) in seen.iter().enumerate() {
        if let Some((other, _)) = seen[..n].iter().find(|(_, earlier)| collide(*earlier, *address)) {
            let other = report.refer(other);
            report.fault(key, format!("{address} is taken by {other}; give each listener its own port"));
        }
    }
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let wildcard = a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || wildcard)
}

const WELL_KNOWN: &str = "/.well-known";
const OPENAPI: &str = "/openapi.json";

fn is_under(path: &str, base: &str) -> bool {
    path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Which of the gateway's own paths `pattern` lies in, if any: a route there would never be reached.
pub(super) fn reserved(server: &Server, pattern: &PathPattern) -> Option<String> {
    let mut path = String::new();
    for segment in &pattern.segments {
        match segment {
            Segment::Literal(text) => path.extend(["/", text]),
            Segment::Any => break,
        }
    }
    let literal = pattern.segments.iter().all(|segment| matches!(segment, Segment::Literal(_)));
    let under = [server.base.as_str(), WELL_KNOWN].into_iter().find(|base| !base.is_empty() && is_under(&path, base));
    let exact = [Some(OPENAPI), server.health_path.as_deref()];
    let same = exact.into_iter().flatten().find(|own| literal && !pattern.rest && *own == path);
    under.or(same).map(str::to_owned)
}
