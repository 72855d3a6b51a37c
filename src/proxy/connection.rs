//! One HTTP/1.1 connection to a backend, and how it is opened.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::Error;
use super::backend::Backend;
use super::patience::Patience;
use super::tls::{self, Socket};

/// An open connection. Dropping it closes the socket.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) tcp: Socket,
    /// Head or size line of what is being sent, and how much of it the kernel has taken. Kept for its room.
    pub(super) unsent: Vec<u8>,
    pub(super) sent: usize,
    /// Of whatever is waited for on this connection.
    pub(super) patience: Patience,
    /// Whether it has carried a request before this one.
    pub(super) reused: bool,
    pub(super) opened: Instant,
}

impl Connection {
    /// Opens a connection to `backend` within `limit`, and no later than `total`.
    ///
    /// # Errors
    /// [`Error::Resolve`], [`Error::Connect`], [`Error::ConnectTimeout`], or [`Error::TotalTimeout`].
    pub(super) async fn open(backend: &Backend, limit: Duration, total: Option<Instant>) -> Result<Self, Error> {
        let connect_by = Instant::now() + limit;
        let (by, late) = match total {
            Some(total) if total < connect_by => (total, Error::TotalTimeout),
            _ => (connect_by, Error::ConnectTimeout),
        };
        let opening = async {
            let addresses = backend.addresses().await.map_err(Error::Resolve)?;
            let turn = backend.counts.connects.fetch_add(1, Ordering::Relaxed);
            let tcp = dial(addresses.as_slice(), turn, by).await.map_err(Error::Connect)?;
            // Requests are written whole; waiting for more bytes would only delay them.
            tcp.set_nodelay(true).map_err(Error::Connect)?;
            let tcp = tls::secure(tcp, backend.host(), backend.transport()).await.map_err(Error::Tls)?;
            Ok(Self {
                tcp,
                unsent: Vec::new(),
                sent: 0,
                patience: Patience::default(),
                reused: false,
                opened: Instant::now(),
            })
        };
        timeout_at(by, opening).await.unwrap_or(Err(late))
    }

    /// Whether an idle connection is still open with nothing to read. It asks the kernel, because the runtime learns of
    /// bytes and of a close only at its next look at its sockets: by then the next request would have been sent, and would
    /// be answered by stray bytes of the last exchange, or fail on a connection known to be closed. One system call.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        SockRef::from(self.tcp.tcp()).peek(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same as far as the runtime knows; no system call as long as it has heard of nothing.
    pub(super) fn seems_quiet(&self) -> bool {
        // What is read here belongs to nobody.
        self.tcp.tcp().try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// The addresses in the order to be tried. Those of the family that the resolver put first take turns to be the first, so
/// that the servers behind one name share the connections; the other family is for when none of them answers.
fn in_turn(addresses: &[SocketAddr], turn: u64) -> impl Iterator<Item = &SocketAddr> {
    let first = addresses.first().map(SocketAddr::is_ipv4);
    let same = addresses.iter().take_while(|address| Some(address.is_ipv4()) == first).count();
    let (same, other) = addresses.split_at(same);
    let start = usize::try_from(turn % same.len().max(1) as u64).unwrap_or(0);
    same[start..].iter().chain(&same[..start]).chain(other)
}

/// Connects to the first address that answers. Each gets an equal share of the time that is left, so that one that
/// swallows packets does not use it all.
async fn dial(addresses: &[SocketAddr], turn: u64, by: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for (index, address) in in_turn(addresses, turn).enumerate() {
        let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = by.saturating_duration_since(Instant::now()) / left;
        let connect = TcpStream::connect(address);
        let connected = if left == 1 {
            connect.await
        } else {
            timeout_at(Instant::now() + share, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        match connected {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_behind_a_name_take_turns_within_the_family_that_is_preferred() {
        let addresses: Vec<SocketAddr> =
            ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "[::1]:80"].map(|a| a.parse().unwrap()).into();
        let order = |turn| {
            let places = in_turn(&addresses, turn).map(|a| addresses.iter().position(|b| a == b).unwrap());
            places.collect::<Vec<_>>()
        };
        assert_eq!([order(0), order(1), order(5)], [[0, 1, 2, 3], [1, 2, 0, 3], [2, 0, 1, 3]]);
        assert_eq!(in_turn(&addresses[3..], 7).count(), 1);
        assert_eq!(in_turn(&[], 7).count(), 0);
    }
}
