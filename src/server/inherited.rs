//! Listening sockets that were there before the process: from systemd's socket activation or another supervisor
//! (`LISTEN_FDS`, sd_listen_fds(3)), or from the gateway whose place this one takes ([`super::handover`]).
//!
//! Connections wait in the queue of such a socket while one process ends and another begins, and none is refused. Each is
//! known by its address: the configuration says which listener it is.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::SockRef;

/// The sockets that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(SocketAddr, TcpListener)>,
    supervised: bool,
}

impl Inherited {
    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// Those of this process's environment, which is cleared of them. Call it before there are threads.
    ///
    /// # Errors
    /// When a descriptor is no listening TCP socket.
    pub fn from_env() -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        let sockets = (0..passed.len()).filter_map(|n| passed.take_tcp_listener(n).transpose());
        let inherited = Self::of(sockets.collect::<io::Result<_>>()?)?;
        Ok(Self { supervised: !inherited.is_empty(), ..inherited })
    }

    /// These.
    ///
    /// # Errors
    /// When one does not listen.
    pub fn of(sockets: Vec<TcpListener>) -> io::Result<Self> {
        let known = |socket: TcpListener| {
            if !SockRef::from(&socket).is_listener()? {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket that does not listen was passed"));
            }
            socket.set_nonblocking(true)?;
            Ok((socket.local_addr()?, socket))
        };
        let sockets = sockets.into_iter().map(known).collect::<io::Result<_>>()?;
        Ok(Self { sockets, supervised: false })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Whether a supervisor holds them, too, so that connections may wait in them when this process is gone.
    pub fn are_held_elsewhere(&self) -> bool {
        self.supervised
    }

    /// Whether there is one of this address.
    pub fn has(&self, address: SocketAddr) -> bool {
        self.sockets.iter().any(|(own, _)| *own == address)
    }

    /// All of this address: several share it where each worker had one of its own (`SO_REUSEPORT`), and each has a queue.
    pub fn take(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        self.sockets.extract_if(.., |(own, _)| *own == address).map(|(_, socket)| socket).collect()
    }

    /// Those of these addresses; the others are closed.
    pub fn only(mut self, addresses: &[SocketAddr]) -> Self {
        self.sockets.retain(|(own, _)| addresses.contains(own));
        self
    }

    /// The address of one that no listener has taken: its clients would wait for ever.
    pub fn left(&self) -> Option<SocketAddr> {
        self.sockets.first().map(|(address, _)| *address)
    }
}

/// Which of so many sockets of one address worker `n` accepts from: each socket has a worker, and each worker a socket.
pub(super) fn share(n: usize, workers: usize, sockets: usize) -> impl Iterator<Item = usize> {
    let (first, step) = if sockets <= workers { (n % sockets.max(1), workers) } else { (n, workers) };
    (first..sockets).step_by(step.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sockets_of_an_address_are_taken_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let again = listener.try_clone().unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let left = other.local_addr().unwrap();
        let mut inherited = Inherited::of(vec![listener, other, again]).unwrap();
        assert!(inherited.take(SocketAddr::from(([127, 0, 0, 1], 1))).is_empty());
        assert!(inherited.has(address) && !inherited.is_empty());
        assert_eq!(inherited.take(address).len(), 2);
        assert!(inherited.take(address).is_empty());
        assert_eq!(inherited.left(), Some(left));
        assert_eq!(inherited.only(&[address]).left(), None);
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = TcpListener::from(std::os::fd::OwnedFd::from(stream));
        assert!(Inherited::of(vec![stream]).is_err());
    }

    #[test]
    fn every_socket_has_a_worker_and_every_worker_a_socket() {
        for workers in 1..6 {
            for sockets in 1..6 {
                let mut served = vec![0; sockets];
                for n in 0..workers {
                    let own: Vec<usize> = share(n, workers, sockets).collect();
                    assert!(!own.is_empty(), "worker {n} of {workers}, {sockets} sockets");
                    own.into_iter().for_each(|socket| served[socket] += 1);
                }
                assert!(served.iter().all(|by| *by > 0), "{workers} workers, {sockets} sockets: {served:?}");
            }
        }
    }
}
