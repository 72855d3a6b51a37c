//! The stores of a measurement, started for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wxgate::config::{SessionsStore, database};
use wxgate::store::Sessions;
use wxgate::store::redis::Redis;
use wxgate::store::sqlite::Sqlite;

use crate::Kind;
use crate::cpu;
use crate::postgres::PostgresServer;
use crate::redis::{RedisServers, cli};

/// Name of the file.
const FILE: &str = "wxgate.db";

/// Servers run as long as this lives.
pub(crate) enum Stores {
    Sqlite,
    Servers { members: Box<PostgresServer>, sessions: Box<RedisServers> },
}

impl Stores {
    pub(crate) fn start(kind: Kind) -> Self {
        match kind {
            Kind::Sqlite => Self::Sqlite,
            Kind::Redis => {
                Self::Servers { members: Box::new(PostgresServer::start()), sessions: Box::new(RedisServers::single()) }
            }
        }
    }

    /// For the table.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Servers { .. } => "Redis, Postgres",
        }
    }

    /// `[store] members`.
    pub(crate) fn members(&self) -> String {
        match self {
            Self::Sqlite => format!("sqlite:{FILE}"),
            Self::Servers { members, .. } => members.url(),
        }
    }

    /// `[store] sessions`.
    pub(crate) fn sessions(&self) -> String {
        match self {
            Self::Sqlite => format!("sqlite:{FILE}"),
            Self::Servers { sessions, .. } => sessions.url(),
        }
    }

    /// User and system time so far of what is outside of the gateway.
    pub(crate) fn cpu(&self) -> Duration {
        match self {
            Self::Sqlite => Duration::ZERO,
            Self::Servers { members, sessions } => {
                let redis = sessions.servers.iter().filter_map(|server| server.pid()).map(|pid| cpu::of(&pid));
                redis.sum::<Duration>() + members.pid().map_or(Duration::ZERO, |pid| cpu::with_children(&pid))
            }
        }
    }

    /// The store of sessions itself, while no gateway has it.
    pub(crate) async fn open(&self, folder: &Path) -> Arc<dyn Sessions> {
        match self {
            Self::Sqlite => Sqlite::open(&folder.join(FILE)).unwrap(),
            Self::Servers { sessions, .. } => {
                let address = database::sessions(&sessions.url(), folder).unwrap();
                let SessionsStore::Redis(address) = address else { unreachable!("it is a Redis") };
                Redis::open(&address).await.unwrap()
            }
        }
    }

    /// Bytes on disk (SQLite, with its log) or in memory (Redis).
    pub(crate) fn size(&self, folder: &Path) -> u64 {
        match self {
            Self::Sqlite => ["", "-wal"]
                .iter()
                .filter_map(|end| std::fs::metadata(folder.join(format!("{FILE}{end}"))).ok())
                .map(|file| file.len())
                .sum(),
            Self::Servers { sessions, .. } => {
                let info = cli(sessions.servers[0].port, &["info", "memory"]);
                let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
                line.trim().parse().unwrap()
            }
        }
    }
}
