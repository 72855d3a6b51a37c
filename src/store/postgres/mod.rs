//! Members in Postgres, for several instances side by side.
//!
//! Logins that arrive together share a statement and a commit ([`gather`]), and so do questions who a member is.
//! The server answers a commit when it is on disk
//! (`synchronous_commit`, `fsync`; what is weaker is said in the log at start). The schema is made and moved forward by
//! whichever instance comes first ([`migration`]).

mod fault;
mod gather;
mod list;
mod members;
mod migration;
mod row;
mod sign_in;
mod tls;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
};
use tokio::time::timeout;
use tokio_postgres::NoTls;

use super::Error;
use crate::config::Postgres as Address;
use fault::Failure;
use gather::Gathered;
use members::Finds;
use sign_in::SignIns;

/// Connections at most. Each holds a process on the server; statements take well under a millisecond.
const CONNECTIONS: usize = 16;

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(2);

/// From the call to its answer, waiting for a connection included.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why Postgres cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address has something that the client library does not know.
    #[error("`[store] members` is not an address of Postgres: {0}")]
    Address(#[source] tokio_postgres::Error),
    /// Certificates to trust.
    #[error("the certificates for Postgres: {0}")]
    Tls(String),
    /// It cannot be reached, or does not let us in.
    #[error("Postgres: {0}; check `[store] members` and whether Postgres runs")]
    Unreachable(#[source] Error),
    /// The schema cannot be made or read.
    #[error("the tables of wxgate in Postgres: {0}")]
    Schema(#[source] tokio_postgres::Error),
    /// Of another time.
    #[error("the tables in Postgres are of version {found}, and this wxgate knows {newest} at most: run a newer one")]
    TooNew {
        /// As it stands there.
        found: i32,
        /// What this build knows.
        newest: i32,
    },
}

/// What the server itself ends: a statement that is given up here goes on there, and keeps the locks that others wait for. A row
/// that somebody has locked for long is one person's trouble, and not that of all who share a statement with him.
const BOUNDED: &str =
    "SET lock_timeout = '1s'; SET statement_timeout = '5s'; SET idle_in_transaction_session_timeout = '10s'";

/// For changes of the tables, which may take their time.
const UNBOUNDED: &str = "SET lock_timeout = 0; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";

async fn bounded(client: &ClientWrapper) -> Result<(), HookError> {
    client.batch_execute(BOUNDED).await.map_err(HookError::Backend)
}

/// The store. Implements [`Members`](super::Members).
pub struct Postgres {
    pool: Pool,
    sign_ins: Gathered<SignIns>,
    finds: Gathered<Finds>,
    place: String,
}

impl Postgres {
    /// Connects, and makes or updates the tables.
    ///
    /// # Errors
    /// When it cannot be reached, or its tables are of a newer version. The message says what to do.
    pub async fn open(address: &Address) -> Result<Arc<Self>, OpenError> {
        let mut config = tokio_postgres::Config::from_str(address.address.expose()).map_err(OpenError::Address)?;
        config.connect_timeout(CONNECT).application_name("wxgate").keepalives_idle(Duration::from_secs(30));
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(DEADLINE);
        }
        let place = format!("{:?}/{}", config.get_hosts(), config.get_dbname().unwrap_or_default());
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = if address.tls {
            Manager::from_config(config, tls::connector(address.trust.as_deref()).map_err(OpenError::Tls)?, recycling)
        } else {
            Manager::from_config(config, NoTls, recycling)
        };
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(DEADLINE))
            .create_timeout(Some(CONNECT))
            .recycle_timeout(Some(CONNECT))
            .post_create(Hook::async_fn(|client, _| Box::pin(bounded(client))))
            .build();
        let pool = pool.map_err(|e| OpenError::Unreachable(Error::Unavailable(Box::new(e))))?;
        let (sign_ins, finds) = (Gathered::start(&pool), Gathered::start(&pool));
        let postgres = Arc::new(Self { pool, sign_ins, finds, place });
        let mut client = postgres.client().await.map_err(OpenError::Unreachable)?;
        client.batch_execute(UNBOUNDED).await.map_err(OpenError::Schema)?;
        migration::migrate(&mut client).await?;
        postgres.name_what_is_weaker(&client).await;
        // It has no bounds, so it serves nobody else.
        drop(Object::take(client));
        Ok(postgres)
    }

    /// Statements of sign-ins since the store was opened, each with a commit of its own. Sign-ins by statements is how many
    /// share one wait for the disk.
    pub fn commits(&self) -> u64 {
        self.sign_ins.counted().statements.load(Ordering::Relaxed)
    }

    /// Sign-ins in them.
    pub fn sign_ins(&self) -> u64 {
        self.sign_ins.counted().calls.load(Ordering::Relaxed)
    }

    async fn client(&self) -> Result<Object, Error> {
        Ok(self.pool.get().await?)
    }

    /// Bounds a call.
    async fn within<T>(&self, work: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(Failure::Late.into()))
    }

    async fn name_what_is_weaker(&self, client: &Object) {
        for (name, weak) in [("fsync", "off"), ("synchronous_commit", "off"), ("full_page_writes", "off")] {
            let sql = "SELECT current_setting($1)";
            let value = client.query_one(sql, &[&name]).await.and_then(|row| row.try_get::<_, String>(0));
            if value.is_ok_and(|value| value == weak) {
                tracing::warn!(
                    postgres = self.place,
                    setting = format!("{name} {weak}"),
                    "Postgres is set to answer before a change is on disk: after a crash the last changes before it \
                     may be lost; switch it on"
                );
            }
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("place", &self.place).finish_non_exhaustive()
    }
}
