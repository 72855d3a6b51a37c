//! The byte stream to a backend: the socket itself, or TLS over it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::section::Transport;

/// The name by which HTTP/2 is agreed on (RFC 9113, section 3.2).
const H2: &[u8] = b"h2";

/// A connected stream.
#[derive(Debug)]
pub(super) enum Socket {
    Plain(TcpStream),
    /// Boxed, so that connections without TLS do not carry the room for it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// The socket below.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

/// Makes of `tcp`, connected to `host`, what `transport` says.
///
/// # Errors
/// When the handshake fails: no TLS there, a certificate that is not good for the name, or another protocol than the one
/// that is wanted.
pub(super) async fn secure(tcp: TcpStream, host: &str, transport: Option<&Transport>) -> io::Result<Socket> {
    let Some((tls, http2)) = transport.and_then(|t| Some((t.tls.as_ref()?, t.http2))) else {
        return Ok(Socket::Plain(tcp));
    };
    let name = tls.name.clone().unwrap_or_else(|| host.to_owned());
    let name = ServerName::try_from(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = TlsConnector::from(Arc::<ClientConfig>::clone(&tls.config)).connect(name, tcp).await?;
    if http2 && stream.get_ref().1.alpn_protocol() != Some(H2) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the upstream did not agree on HTTP/2"));
    }
    Ok(Socket::Tls(Box::new(stream)))
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, data),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, data),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    /// TLS may hold what was written until it is asked to send it.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
