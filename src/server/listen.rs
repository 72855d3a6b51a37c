//! Listening sockets of the public listener, and the accept loop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;

/// Connections that the kernel holds for us while a worker is busy.
const BACKLOG: i32 = 4096;

/// How long accepting pauses when there are no descriptors left: long enough not to spin, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(50);

/// A listening socket that other workers can share the address with (`SO_REUSEPORT`): the kernel spreads connections
/// over them.
///
/// # Errors
/// When the address is taken by somebody else, or not ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A listening socket that nobody shares.
///
/// # Errors
/// When the address is taken, or not ours.
pub fn bind_alone(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?; // with SO_REUSEADDR
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether nobody else listens on `address`. Asked once before the workers share it among themselves: with
/// `SO_REUSEPORT` a second gateway of the same user would silently take half of the first one's connections.
///
/// # Errors
/// When the address is taken by somebody else, or not ours.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())
}

/// The listening socket for an accept loop, ours or inherited. What it accepts sends without delay (`TCP_NODELAY`): an accepted
/// socket has what the listening one has, so it is set once and not for each connection.
///
/// # Errors
/// When it is no socket that the runtime can watch.
pub fn accepting(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    SockRef::from(&listener).set_tcp_nodelay(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// The next connection. Faults of single connections are passed over; without descriptors it pauses and goes on
/// (`EMFILE` must not become a busy loop).
pub async fn accept(listener: &tokio::net::TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_sends_without_delay() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        for listener in [bind_alone(any).unwrap(), bind(any).unwrap()] {
            let address = listener.local_addr().unwrap();
            let listener = accepting(listener).unwrap();
            let (client, (stream, _)) = tokio::join!(TcpStream::connect(address), accept(&listener));
            assert!(stream.nodelay().unwrap() && client.is_ok());
        }
    }
}
