//! What the requests of one client connection share: who is connected, as an address and as the texts that every request
//! would otherwise write anew.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::HeaderValue;

use super::exchange::Way;

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    peer: SocketAddr,
    peer_text: HeaderValue,
    https: bool,
    /// SHA-256 of the certificate that the client showed, in hexadecimal digits.
    certificate: Option<HeaderValue>,
    /// Which way requests come, as header lines, for the host of the first one; the others mostly ask for the same.
    way: OnceLock<(HeaderValue, Bytes)>,
    /// Heads that have passed the guard and are not answered yet.
    due: AtomicUsize,
    /// Who waits for an answer to be over.
    waiting: AtomicWaker,
}

impl Connection {
    /// Of this peer, who speaks TLS or not.
    pub fn new(peer: SocketAddr, https: bool) -> Self {
        let peer_text = ip_text(peer.ip().to_canonical());
        Self {
            peer,
            peer_text,
            https,
            certificate: None,
            way: OnceLock::new(),
            due: AtomicUsize::new(0),
            waiting: AtomicWaker::new(),
        }
    }

    /// The client has shown this certificate (its fingerprint), which one of our authorities has signed.
    #[must_use]
    pub fn showing(mut self, certificate: Option<HeaderValue>) -> Self {
        self.certificate = certificate;
        self
    }

    /// The fingerprint of the certificate that the client showed.
    pub fn certificate(&self) -> Option<&HeaderValue> {
        self.certificate.as_ref()
    }

    /// Whether an answer is under way. The guard asks: silence of a client that waits is not idleness.
    pub fn is_busy(&self) -> bool {
        self.due.load(Ordering::Relaxed) > 0
    }

    /// A request's head has passed the guard. They are counted, because a client may send the next before it has an answer.
    pub fn head_passed(&self) {
        self.due.fetch_add(1, Ordering::Relaxed);
    }

    /// Wakes this one when the next request is over.
    pub fn wake_when_answered(&self, waker: &Waker) {
        self.waiting.register(waker);
    }

    /// A request is over.
    pub fn answered(&self) {
        // Without a guard in front, as in some tests, no head was counted.
        let _ = self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| due.checked_sub(1));
        self.waiting.wake();
    }

    /// Who is connected: a client, or a proxy in front of us. An IPv4 address is one, however it came.
    pub fn peer(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// Whether the connection itself is TLS.
    pub fn https(&self) -> bool {
        self.https
    }

    /// The peer's address as text.
    pub fn peer_text(&self) -> &HeaderValue {
        &self.peer_text
    }

    /// What `write` writes of the way of a client that is connected directly and asks for `host`: kept for the first host.
    pub(super) fn way(&self, host: &HeaderValue, write: impl Fn() -> Bytes) -> Way {
        let (known, _) = self.way.get_or_init(|| {
            // Copied, so that the head that it came in need not be kept with the connection.
            (HeaderValue::from_bytes(host.as_bytes()).unwrap_or_else(|_| host.clone()), write())
        });
        if known == host { Way::Kept } else { Way::Own(write()) }
    }

    /// What is kept.
    pub(super) fn kept_way(&self) -> Option<&Bytes> {
        self.way.get().map(|(_, lines)| lines)
    }
}

/// An address as a header value.
pub fn ip_text(ip: IpAddr) -> HeaderValue {
    let mut text = Vec::with_capacity(16);
    match ip {
        // By hand: the library's way through a formatter costs ten times as much, for each new connection.
        IpAddr::V4(ip) => {
            for (n, octet) in ip.octets().into_iter().enumerate() {
                if n > 0 {
                    text.push(b'.');
                }
                text.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        IpAddr::V6(ip) => drop(write!(text, "{ip}")),
    }
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static("unknown"))
}

/// The value of `Forwarded` for the client of this address and text. Addresses of version 6 are quoted (RFC 7239, section 6),
/// and so is the host, for its port.
pub fn forwarded(client: IpAddr, text: &HeaderValue, host: Option<&HeaderValue>, https: bool) -> HeaderValue {
    let mut value = Vec::with_capacity(96);
    let mut push = |part: &[u8]| value.extend_from_slice(part);
    let (before, after): (&[u8], &[u8]) = if client.is_ipv6() { (b"for=\"[", b"]\"") } else { (b"for=", b"") };
    [before, text.as_bytes(), after].into_iter().for_each(&mut push);
    if let Some(host) = host.and_then(|h| h.to_str().ok()).filter(|h| !h.contains(['"', '\\'])) {
        [b";host=\"", host.as_bytes(), b"\""].into_iter().for_each(&mut push);
    }
    push(if https { b";proto=https" } else { b";proto=http" });
    HeaderValue::from_maybe_shared(Bytes::from(value)).unwrap_or(HeaderValue::from_static("for=unknown"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_is_written_as_the_library_writes_it(ip: IpAddr) {
            prop_assert_eq!(ip_text(ip), ip.to_string());
        }
    }
}
