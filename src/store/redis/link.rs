//! The connection to Redis, whatever shape Redis has: made again when it breaks, never waited for by many.
//!
//! One connection serves everybody: commands are pipelined on it, and with `appendfsync always` those that arrive together
//! share one sync of the disk. Whoever finds it broken takes it out; the next call makes another, one attempt at a time,
//! and after a failed one nobody tries for [`PAUSE`], so that calls fail at once while Redis is away.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo as _, Pipeline,
    RedisConnectionInfo, RedisError, RedisFuture, RedisResult, ScriptInvocation, TlsMode, Value,
};
use tokio::time::{Instant, timeout};

use super::fault::{Failure, is_broken};
use super::keys::slot;
use crate::config::{Redis as Address, Topology};
use crate::store::Error;

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(2);

/// How long one command may take.
const ANSWER: Duration = Duration::from_secs(3);

/// Pause after a failed attempt to connect.
const PAUSE: Duration = Duration::from_millis(200);

/// How long replicas may take to hold a change.
const REPLICATION: Duration = Duration::from_secs(1);

/// A connection; clones share it.
#[derive(Clone)]
pub(super) enum Wire {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// See the [module documentation](self).
pub(super) struct Link {
    address: Address,
    wire: ArcSwapOption<Wire>,
    connecting: tokio::sync::Mutex<()>,
    failed_at: Mutex<Option<Instant>>,
}

impl Link {
    /// Connects.
    pub(super) async fn open(address: Address) -> RedisResult<Self> {
        let wire = connect(&address).await?;
        Ok(Self {
            address,
            wire: ArcSwapOption::from_pointee(wire),
            connecting: tokio::sync::Mutex::default(),
            failed_at: Mutex::default(),
        })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Runs a command that changes nothing; once more when the connection turned out to be broken.
    pub(super) async fn read<T: FromRedisValue>(&self, cmd: &Cmd) -> Result<T, Error> {
        match self.once(cmd).await {
            Err((_, true)) => self.once(cmd).await.map_err(|(error, _)| error),
            other => other.map_err(|(error, _)| error),
        }
    }

    /// Runs a command that changes `key`.
    pub(super) async fn write<T: FromRedisValue>(&self, key: &str, cmd: &Cmd) -> Result<T, Error> {
        let done = self.once(cmd).await.map_err(|(error, _)| error)?;
        self.replicated(key).await?;
        Ok(done)
    }

    /// Runs a script that changes `key`.
    pub(super) async fn run<T: FromRedisValue>(&self, key: &str, script: &ScriptInvocation<'_>) -> Result<T, Error> {
        let wire = self.wire().await?;
        let mut own = Wire::clone(&wire);
        let done = timeout(ANSWER, script.invoke_async(&mut own)).await;
        let done = self.judged(&wire, done).map_err(|(error, _)| error)?;
        self.replicated(key).await?;
        Ok(done)
    }

    /// Runs a script whose change need not survive anything.
    pub(super) async fn run_once<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Error> {
        let wire = self.wire().await?;
        let mut own = Wire::clone(&wire);
        let done = timeout(ANSWER, script.invoke_async(&mut own)).await;
        self.judged(&wire, done).map_err(|(error, _)| error)
    }

    /// Runs a script that changes nothing; once more when the connection turned out to be broken.
    pub(super) async fn run_reading<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Error> {
        let mut again = true;
        loop {
            let wire = self.wire().await?;
            let mut own = Wire::clone(&wire);
            let done = timeout(ANSWER, script.invoke_async(&mut own)).await;
            match self.judged(&wire, done) {
                Err((_, true)) if again => again = false,
                other => return other.map_err(|(error, _)| error),
            }
        }
    }

    /// Whether keys are spread over several servers.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.address.topology, Topology::Cluster)
    }

    /// The names of all keys of a slot of the cluster: a 16,384th part of them.
    pub(super) async fn keys_in_slot(&self, slot: u16) -> Result<Vec<String>, Error> {
        let mut ask = redis::cmd("CLUSTER");
        ask.arg("GETKEYSINSLOT").arg(slot).arg(i32::MAX);
        let wire = self.wire().await?;
        let Wire::Cluster(cluster) = &*wire else { return Ok(Vec::new()) };
        let node = SingleNodeRoutingInfo::SpecificNode(Route::new(slot, SlotAddr::Master));
        let done = timeout(ANSWER, cluster.clone().route_command(ask, RoutingInfo::SingleNode(node))).await;
        let value = self.judged(&wire, done).map_err(|(error, _)| error)?;
        Ok(Vec::from_redis_value(value).map_err(RedisError::from)?)
    }

    /// Asks every server that takes writes.
    pub(super) async fn everywhere(&self, cmd: &Cmd) -> Result<Vec<Value>, Error> {
        let wire = self.wire().await?;
        let done = match &*wire {
            Wire::Server(server) => {
                let value = timeout(ANSWER, cmd.query_async(&mut server.clone())).await;
                return Ok(vec![self.judged(&wire, value).map_err(|(error, _)| error)?]);
            }
            Wire::Cluster(cluster) => {
                let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                timeout(ANSWER, cluster.clone().route_command(cmd.clone(), all)).await
            }
        };
        match self.judged(&wire, done).map_err(|(error, _)| error)? {
            Value::Map(nodes) => Ok(nodes.into_iter().map(|(_, value)| value).collect()),
            Value::Array(values) => Ok(values),
            other => Ok(vec![other]),
        }
    }

    async fn once<T: FromRedisValue>(&self, cmd: &Cmd) -> Result<T, (Error, bool)> {
        let wire = self.wire().await.map_err(|error| (error, false))?;
        let done = timeout(ANSWER, cmd.query_async(&mut Wire::clone(&wire))).await;
        self.judged(&wire, done)
    }

    /// The outcome of a command; a broken connection is taken out. The flag says whether it was.
    fn judged<T>(
        &self,
        wire: &Arc<Wire>,
        done: Result<RedisResult<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, (Error, bool)> {
        match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let broken = is_broken(&error);
                if broken {
                    self.take_out(wire);
                }
                Err((error.into(), broken))
            }
            Err(_) => {
                self.take_out(wire);
                Err((Failure::Late.into(), false))
            }
        }
    }

    /// Waits until as many replicas hold what was written to `key` as the address says.
    async fn replicated(&self, key: &str) -> Result<(), Error> {
        let wanted = self.address.wait;
        if wanted == 0 {
            return Ok(());
        }
        let mut wait = redis::cmd("WAIT");
        wait.arg(wanted).arg(u64::try_from(REPLICATION.as_millis()).unwrap_or(u64::MAX));
        let wire = self.wire().await?;
        let holding: u32 = match &*wire {
            Wire::Server(server) => {
                let done = timeout(ANSWER, wait.query_async(&mut server.clone())).await;
                self.judged(&wire, done).map_err(|(error, _)| error)?
            }
            Wire::Cluster(cluster) => {
                // To the node that the key is on, over the connection that wrote it.
                let node = SingleNodeRoutingInfo::SpecificNode(Route::new(slot(key), SlotAddr::Master));
                let done = timeout(ANSWER, cluster.clone().route_command(wait, RoutingInfo::SingleNode(node))).await;
                let value = self.judged(&wire, done).map_err(|(error, _)| error)?;
                u32::from_redis_value(value).map_err(RedisError::from)?
            }
        };
        if holding < wanted { Err(Failure::NotReplicated.into()) } else { Ok(()) }
    }

    async fn wire(&self) -> Result<Arc<Wire>, Error> {
        if let Some(wire) = self.wire.load_full() {
            return Ok(wire);
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(wire) = self.wire.load_full() {
            return Ok(wire);
        }
        if self.failed_at().is_some_and(|at| at.elapsed() < PAUSE) {
            return Err(Failure::Away.into());
        }
        match connect(&self.address).await {
            Ok(wire) => {
                let wire = Arc::new(wire);
                self.wire.store(Some(Arc::clone(&wire)));
                *self.failed_at() = None;
                Ok(wire)
            }
            Err(error) => {
                *self.failed_at() = Some(Instant::now());
                Err(Error::Unavailable(Box::new(error)))
            }
        }
    }

    fn failed_at(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.failed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unless somebody has put another one there already.
    fn take_out(&self, wire: &Arc<Wire>) {
        self.wire.compare_and_swap(wire, None);
    }
}

/// Connects, within [`CONNECT`].
async fn connect(address: &Address) -> RedisResult<Wire> {
    let late = || RedisError::from(std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in time"));
    timeout(2 * CONNECT, attempt(address)).await.unwrap_or_else(|_| Err(late()))
}

async fn attempt(address: &Address) -> RedisResult<Wire> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER));
    #[cfg(test)]
    if let Some(connected) = super::simulated::connect(address, &config).await {
        return connected;
    }
    match &address.topology {
        Topology::Single => {
            let mut infos = addresses(address).into_iter();
            let at =
                infos.next().ok_or_else(|| RedisError::from((redis::ErrorKind::InvalidClientConfig, "no server")))?;
            let info = at.into_connection_info()?.set_redis_settings(settings(address)).set_tcp_settings(at_once());
            let connection = Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?;
            Ok(Wire::Server(connection))
        }
        Topology::Sentinel(service) => {
            // Asked anew each time: who is in charge may have changed since.
            let connection = sentinels(address, service)?.get_async_connection_with_config(&config).await?;
            Ok(Wire::Server(connection))
        }
        Topology::Cluster => {
            let mut nodes = Vec::new();
            for at in addresses(address) {
                nodes.push(at.into_connection_info()?);
            }
            let mut builder = ClusterClient::builder(nodes)
                .retries(3)
                .connection_timeout(CONNECT)
                .response_timeout(ANSWER)
                .overall_response_timeout(Some(ANSWER))
                .tcp_settings(at_once());
            if let Some(user) = &address.user {
                builder = builder.username(user);
            }
            if let Some(password) = &address.password {
                builder = builder.password(password.expose());
            }
            if address.tls {
                builder = builder.tls(TlsMode::Secure);
            }
            Ok(Wire::Cluster(builder.build()?.get_async_connection().await?))
        }
    }
}

fn sentinels(address: &Address, service: &str) -> RedisResult<SentinelClient> {
    let mut builder = SentinelClientBuilder::new(addresses(address), service, SentinelServerType::Master)?
        .set_client_to_redis_db(address.database)
        .set_client_to_redis_tcp_settings(at_once());
    if let Some(user) = &address.user {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = &address.password {
        builder = builder.set_client_to_redis_password(password.expose());
    }
    if address.tls {
        builder =
            builder.set_client_to_redis_tls_mode(TlsMode::Secure).set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    builder.build()
}

/// What is written is sent at once: else a command would wait until what was sent before it is acknowledged, which the server
/// does with its next answer.
fn at_once() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn addresses(address: &Address) -> Vec<ConnectionAddr> {
    let of = |(host, port): &(String, u16)| match address.tls {
        true => ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host.clone(), *port),
    };
    address.nodes.iter().map(of).collect()
}

pub(super) fn settings(address: &Address) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default().set_db(address.database);
    if let Some(user) = &address.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &address.password {
        settings = settings.set_password(password.expose());
    }
    settings
}

impl ConnectionLike for Wire {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(server) => server.req_packed_command(cmd),
            Self::Cluster(cluster) => cluster.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(server) => server.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(server) => server.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}
