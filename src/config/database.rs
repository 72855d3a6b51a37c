//! Addresses of stores: a SQLite file, Redis in its three shapes, Postgres.
//!
//! No refusal quotes its value: these addresses are where passwords stand.

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use super::pattern::is_host;
use super::url;
use super::value::Wrong;
use crate::ids::Secret;

/// Where members are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembersStore {
    /// `sqlite:PATH`, embedded.
    Sqlite(PathBuf),
    /// `postgres://…`.
    Postgres(Postgres),
}

/// Where sessions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionsStore {
    /// `sqlite:PATH`, embedded.
    Sqlite(PathBuf),
    /// `redis://…` and its relatives.
    Redis(Redis),
}

/// A Postgres server and database. `Debug` hides the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// The address without the parameters below, as the client library reads it.
    pub address: Secret<String>,
    /// `sslmode`: whether the connection must be TLS with a certificate that is good for the host.
    pub tls: bool,
    /// `sslrootcert`: certificates (PEM) to trust in place of the system's.
    pub trust: Option<PathBuf>,
}

/// How Redis is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single,
    /// Sentinels name the server that is in charge of this service.
    Sentinel(String),
    /// A cluster; the addresses are of any of its nodes.
    Cluster,
}

/// A Redis. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Redis {
    /// How it is run.
    pub topology: Topology,
    /// Host and port of the server, of sentinels, or of nodes; at least one.
    pub nodes: Vec<(String, u16)>,
    /// Whether connections are TLS.
    pub tls: bool,
    /// User (Redis ACL); `None` is the default one.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret<String>>,
    /// Number of the database.
    pub database: i64,
    /// What every key starts with, so that several deployments can share a Redis.
    pub prefix: String,
    /// How many replicas must hold a change before it is answered; 0 does not wait.
    pub wait: u32,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topology, nodes, tls, database, prefix, wait, .. } = self;
        write!(f, "Redis({topology:?} {nodes:?} tls={tls} db={database} prefix={prefix} wait={wait})")
    }
}

const REDIS: &str = "write \"redis://[USER:PASSWORD@]HOST[:PORT][/DB]\", \
    \"redis+sentinel://HOST:PORT,HOST:PORT/SERVICE\" or \"redis+cluster://HOST:PORT,HOST:PORT\"; \
    characters such as \"/\" in a password are percent-encoded";

const POSTGRES: &str = "write \"postgres://USER:PASSWORD@HOST[:PORT]/DATABASE\"; \
    characters such as \"/\" in a password are percent-encoded";

/// `[store] members`.
///
/// # Errors
/// When it is no such address.
pub fn members(text: &str, folder: &Path) -> Result<MembersStore, Wrong> {
    match text.split_once(':').map(|(scheme, _)| scheme) {
        Some("postgres" | "postgresql") => postgres(text, folder).map(MembersStore::Postgres),
        Some("redis" | "rediss" | "redis+sentinel" | "redis+cluster") => {
            Err(Wrong::silent("is Redis, which keeps sessions only", "write \"sqlite:PATH\" or \"postgres://…\""))
        }
        _ => sqlite(text, folder).map(MembersStore::Sqlite),
    }
}

/// `[store] sessions`.
///
/// # Errors
/// When it is no such address.
pub fn sessions(text: &str, folder: &Path) -> Result<SessionsStore, Wrong> {
    match text.split_once(':').map(|(scheme, _)| scheme) {
        Some("redis" | "rediss" | "redis+sentinel" | "redis+cluster") => redis(text).map(SessionsStore::Redis),
        Some("postgres" | "postgresql") => {
            Err(Wrong::silent("is Postgres, which keeps members only", "write \"sqlite:PATH\" or \"redis://…\""))
        }
        _ => sqlite(text, folder).map(SessionsStore::Sqlite),
    }
}

/// `sqlite:PATH`, where a relative path starts at `folder`.
fn sqlite(text: &str, folder: &Path) -> Result<PathBuf, Wrong> {
    const WRITE: &str = "write \"sqlite:\" and the path of a file, such as \"sqlite:data/wxgate.db\"";
    let Some(path) = text.strip_prefix("sqlite:") else {
        return Err(Wrong::silent("is not a store", WRITE));
    };
    if path == ":memory:" {
        return Err(Wrong::silent("would forget every session at each restart", WRITE));
    }
    if path.starts_with("//") || path.contains(['?', '\0']) || path.ends_with('/') {
        return Err(Wrong::silent("is a URL, not a path", WRITE));
    }
    url::file(path, folder).map_err(|_| Wrong::silent("names no file", WRITE))
}

fn redis(text: &str) -> Result<Redis, Wrong> {
    let wrong = |what: &str| Wrong::silent(what, REDIS);
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("is not an address"))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (userinfo, hosts) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
    let (service, database) = match scheme {
        "redis+sentinel" => path.split_once('/').unwrap_or((path, "")),
        _ => ("", path),
    };
    let topology = match scheme {
        "redis+sentinel" if service.is_empty() => return Err(wrong("does not name the service of the sentinels")),
        "redis+sentinel" => Topology::Sentinel(decoded(service).ok_or_else(|| wrong("has a bad escape"))?),
        "redis+cluster" => Topology::Cluster,
        _ => Topology::Single,
    };
    let port = if topology == Topology::Single || topology == Topology::Cluster { 6379 } else { 26379 };
    let nodes: Option<Vec<_>> = hosts.split(',').map(|node| host_and_port(node, port)).collect();
    let nodes = nodes.ok_or_else(|| wrong("has no valid host and port"))?;
    if topology == Topology::Single && nodes.len() > 1 {
        return Err(wrong("names several servers, but is neither a cluster nor sentinels"));
    }
    let (user, password) = match userinfo.map(|info| info.split_once(':').unwrap_or(("", info))) {
        None => (None, None),
        Some((user, password)) => {
            let user = decoded(user).ok_or_else(|| wrong("has a bad escape"))?;
            let password = decoded(password).ok_or_else(|| wrong("has a bad escape"))?;
            (Some(user).filter(|user| !user.is_empty()), Some(Secret::new(password)))
        }
    };
    let database = match database {
        "" => 0,
        _ if topology == Topology::Cluster => return Err(wrong("names a database, and a cluster has one only")),
        number => number
            .parse()
            .ok()
            .filter(|n| (0..=65_535).contains(n))
            .ok_or_else(|| wrong("has no number for a database"))?,
    };
    let mut redis = Redis {
        topology,
        nodes,
        tls: scheme == "rediss",
        user,
        password,
        database,
        prefix: "wxgate".to_owned(),
        wait: 0,
    };
    for (name, value) in parameters(query) {
        match (name, value) {
            ("prefix", name) if is_prefix(name) => name.clone_into(&mut redis.prefix),
            ("prefix", _) => return Err(wrong("has a prefix other than letters, digits, \"-\", \"_\" and \".\"")),
            ("wait", number) => {
                let number = number.parse().ok().filter(|n| (0..=9).contains(n));
                redis.wait = number.ok_or_else(|| wrong("has a `wait` that is no number of replicas (0 to 9)"))?;
            }
            ("tls", "true") => redis.tls = true,
            ("tls", "false") if scheme != "rediss" => {}
            _ => return Err(wrong("has a parameter other than prefix, wait and tls")),
        }
    }
    Ok(redis)
}

fn is_prefix(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

fn postgres(text: &str, folder: &Path) -> Result<Postgres, Wrong> {
    let wrong = |what: &str| Wrong::silent(what, POSTGRES);
    let (_, rest) = text.split_once("://").ok_or_else(|| wrong("is not an address"))?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (_, path) = place.split_once('/').ok_or_else(|| wrong("names no database"))?;
    if path.is_empty() || path.contains('/') {
        return Err(wrong("names no database"));
    }
    let (mut tls, mut trust, mut others) = (false, None, Vec::new());
    for (name, value) in parameters(query) {
        match (name, value) {
            ("sslmode", "disable") => tls = false,
            ("sslmode", "require" | "verify-full") => tls = true,
            ("sslmode", _) => {
                return Err(Wrong::silent(
                    "has an sslmode that leaves open whom one talks to",
                    "write sslmode=require (TLS, and the certificate must be good for the host) or sslmode=disable",
                ));
            }
            ("sslrootcert", path) => {
                let path = decoded(path).ok_or_else(|| wrong("has a bad escape"))?;
                trust = Some(url::file(&path, folder).map_err(|_| wrong("names no file in sslrootcert"))?);
            }
            _ => others.push(format!("{name}={value}")),
        }
    }
    if trust.is_some() && !tls {
        return Err(wrong("names an sslrootcert without sslmode=require"));
    }
    let mode = if tls { "require" } else { "disable" };
    others.push(format!("sslmode={mode}"));
    let address = Secret::new(format!("postgres://{place}?{}", others.join("&")));
    Ok(Postgres { address, tls, trust })
}

fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

fn host_and_port(text: &str, default: u16) -> Option<(String, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        let port = if port.is_empty() { default } else { port.strip_prefix(':')?.parse().ok()? };
        return Some((host.to_owned(), port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, default),
    };
    is_host(host).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &str = "/etc/wxgate";

    fn redis_at(text: &str) -> Redis {
        match sessions(text, Path::new(FOLDER)).unwrap() {
            SessionsStore::Redis(redis) => redis,
            SessionsStore::Sqlite(_) => panic!("{text}"),
        }
    }

    #[test]
    fn a_store_is_a_sqlite_file_below_the_folder_of_the_configuration() {
        let folder = Path::new(FOLDER);
        assert_eq!(members("sqlite:a.db", folder).unwrap(), MembersStore::Sqlite("/etc/wxgate/a.db".into()));
        assert_eq!(sessions("sqlite:/var/a.db", folder).unwrap(), SessionsStore::Sqlite("/var/a.db".into()));
        let bad = [
            "",
            "a.db",
            "sqlite:",
            "sqlite::memory:",
            "sqlite:///a.db",
            "sqlite:a.db?mode=ro",
            "mysql://a",
            "sqlite:a/",
        ];
        for bad in bad {
            assert!(members(bad, folder).is_err() && sessions(bad, folder).is_err(), "{bad}");
        }
    }

    #[test]
    fn redis_has_three_shapes() {
        let one = redis_at("redis://cache");
        assert_eq!((one.topology, one.nodes), (Topology::Single, vec![("cache".to_owned(), 6379)]));
        assert_eq!((one.tls, one.user, one.database, &*one.prefix, one.wait), (false, None, 0, "wxgate", 0));
        let one = redis_at("rediss://alice:s%2Fcret@[::1]:6380/3?prefix=shop&wait=1");
        assert_eq!((one.nodes, one.tls, one.database), (vec![("::1".to_owned(), 6380)], true, 3));
        assert_eq!((one.user.as_deref(), &*one.prefix, one.wait), (Some("alice"), "shop", 1));
        assert_eq!(one.password.unwrap().expose(), "s/cret");
        let watched = redis_at("redis+sentinel://:pw@a,b:26380/main/2");
        assert_eq!(watched.topology, Topology::Sentinel("main".to_owned()));
        assert_eq!(watched.nodes, [("a".to_owned(), 26379), ("b".to_owned(), 26380)]);
        assert_eq!((watched.user, watched.database), (None, 2));
        let cluster = redis_at("redis+cluster://a:7000,b:7001?tls=true");
        assert_eq!((cluster.topology, cluster.nodes.len(), cluster.tls), (Topology::Cluster, 2, true));
    }

    #[test]
    fn what_is_no_address_is_refused_and_never_quoted() {
        let folder = Path::new(FOLDER);
        for bad in [
            "redis:",
            "redis://",
            "redis://:hunter2@",
            "redis://hunter2@a:0",
            "redis://hunter2@a,b",
            "redis://a/hunter2",
            "redis://a?hunter2=1",
            "redis://a?wait=hunter2",
            "redis://a?prefix=hunter2:",
            "redis+sentinel://a",
            "redis+cluster://a/1",
            "postgres://hunter2@a/b",
        ] {
            let wrong = sessions(bad, folder).unwrap_err();
            assert!(!wrong.quote && !wrong.to_string().contains("hunter2"), "{bad}: {wrong}");
        }
        for bad in ["redis://a", "postgres:", "postgres://a", "postgres://a/", "postgres://a/b?sslmode=prefer"] {
            assert!(members(bad, folder).is_err(), "{bad}");
        }
        let shown = format!("{:?}", redis_at("redis://u:hunter2@a"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn postgres_is_plain_unless_tls_is_asked_for() {
        let at = |text: &str| match members(text, Path::new(FOLDER)).unwrap() {
            MembersStore::Postgres(postgres) => postgres,
            MembersStore::Sqlite(_) => panic!("{text}"),
        };
        let plain = at("postgres://u:p@db/wxgate?connect_timeout=1");
        assert_eq!(plain.address.expose(), "postgres://u:p@db/wxgate?connect_timeout=1&sslmode=disable");
        assert!(!plain.tls);
        let sealed = at("postgresql://u@db:5433/w?sslmode=verify-full&sslrootcert=ca.pem");
        assert_eq!(sealed.address.expose(), "postgres://u@db:5433/w?sslmode=require");
        assert_eq!((sealed.tls, sealed.trust), (true, Some("/etc/wxgate/ca.pem".into())));
    }
}
