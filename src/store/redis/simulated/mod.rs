//! As much of a Redis server as our store asks of one, for the simulation: RESP on any stream, our own scripts run by a real
//! Lua. A command is done when it has arrived, whatever becomes of its answer. Nothing here is random, and time is the
//! caller's, so that the same requests in the same order give the same answers.

mod commands;
mod data;
mod defect;
mod lua;
mod wire;

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::link::{Wire, settings};
use crate::clock::Clock;
use crate::config::Redis as Address;
use crate::store::contract::START;
use commands::Commands;
pub(crate) use defect::Defect;
use wire::{Arguments, Reply};

/// A server with what it holds. Clones are the same server.
#[derive(Clone)]
pub(crate) struct Server(Arc<Mutex<Commands>>);

impl Server {
    /// Empty; expiry goes by `clock`. Of its stream it keeps at most `told` entries.
    pub(crate) fn new(clock: Clock, told: usize, defect: Option<Defect>) -> Self {
        Self(Arc::new(Mutex::new(Commands::new(clock, told, defect))))
    }

    /// It dies. What it has answered is on disk; unless it has a defect.
    pub(crate) fn crash(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).crash();
    }

    /// Loses everything, as one whose disk was replaced.
    pub(crate) fn lose_everything(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lose_everything();
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let (mut come, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(n) = stream.read(&mut buffer).await
            && n > 0
        {
            come.extend_from_slice(&buffer[..n]);
            let mut answers = Vec::new();
            while let Some(arguments) = Arguments::take(&mut come) {
                let reply = self.0.lock().unwrap_or_else(PoisonError::into_inner).run(&arguments.0);
                Reply::write(&reply, &mut answers);
            }
            if stream.write_all(&answers).await.is_err() {
                return;
            }
        }
    }
}

/// Name of the host that stands for a server of this process, outside of any simulated network.
pub(super) const HERE: &str = "simulated";

/// A connection of the client library: to the host of that name in the simulated network, or to the server [`HERE`]. `None`
/// for addresses of real servers.
pub(super) async fn connect(address: &Address, config: &AsyncConnectionConfig) -> Option<RedisResult<Wire>> {
    let (host, port) = &address.nodes[0];
    if turmoil::in_simulation() {
        return Some(match turmoil::net::TcpStream::connect((host.as_str(), *port)).await {
            Ok(stream) => greeted(address, config.clone(), stream).await,
            Err(error) => Err(error.into()),
        });
    }
    if host != HERE {
        return None;
    }
    static SERVER: LazyLock<Server> = LazyLock::new(|| Server::new(Clock::manual(START), usize::MAX, None));
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move { SERVER.serve(theirs).await });
    Some(greeted(address, config.clone(), ours).await)
}

async fn greeted(
    address: &Address,
    config: AsyncConnectionConfig,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> RedisResult<Wire> {
    let (connection, driver) = MultiplexedConnection::new_with_config(&settings(address), stream, config).await?;
    tokio::spawn(driver);
    Ok(Wire::Server(connection))
}
