//! Which HTTP a client on clear text speaks: HTTP/2 with prior knowledge (RFC 9113, section 3.3), or HTTP/1.
//!
//! What comes first is read and passed on to whoever speaks that: a look that leaves the bytes in the kernel would be one more
//! system call for each connection.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;

/// How much is read at once, bytes: an ordinary head as a whole.
const READ: usize = 8 * 1024;

/// What a client that knows that we speak HTTP/2 says first (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks, and what was read of it to know.
#[derive(Debug)]
pub(super) struct Spoken {
    pub(super) http2: bool,
    pub(super) read: Vec<u8>,
}

/// Waits for the first bytes of a client and looks at them.
///
/// # Errors
/// When the connection breaks off.
pub(super) async fn spoken(stream: &mut TcpStream) -> io::Result<Spoken> {
    let mut read = some(stream).await?;
    // Only the few that begin like the preface and come in pieces are waited for.
    while read.len() < PREFACE.len() && !read.is_empty() && PREFACE.starts_with(&read) {
        let more = some(stream).await?;
        if more.is_empty() {
            break;
        }
        read.extend_from_slice(&more);
    }
    Ok(Spoken { http2: read.starts_with(PREFACE), read })
}

/// What comes next; nothing at the end. The room for it is no part of the future, which a connection carries for long.
async fn some(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    poll_fn(|cx| {
        let mut room = [MaybeUninit::uninit(); READ];
        let mut room = ReadBuf::uninit(&mut room);
        Poll::Ready(match ready!(Pin::new(&mut *stream).poll_read(cx, &mut room)) {
            Ok(()) => Ok(room.filled().to_vec()),
            Err(error) => Err(error),
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What is made of a client that sends these pieces, each after the one before was taken.
    async fn of(pieces: &[&[u8]]) -> (Spoken, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut ours, _) = listener.accept().await.unwrap();
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        client.set_nodelay(true).unwrap();
        let sending = tokio::spawn(async move {
            for piece in pieces {
                client.write_all(&piece).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            client.shutdown().await.unwrap();
        });
        let spoken = spoken(&mut ours).await.unwrap();
        let mut rest = spoken.read.clone();
        sending.await.unwrap();
        ours.read_to_end(&mut rest).await.unwrap();
        (spoken, rest)
    }

    #[tokio::test]
    async fn the_preface_is_known_however_it_comes_and_no_byte_is_lost() {
        let cases: [(&[&[u8]], bool); 8] = [
            (&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore"], true),
            (&[b"PRI * HTTP/2.0\r\n\r\n", b"SM\r\n\r\n", b"more"], true),
            (&[b"P", b"RI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], true),
            (&[b"P", b"OST / HTTP/1.1\r\n"], false),
            (&[b"GET / HTTP/1.1\r\n"], false),
            (&[b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"], false),
            (&[b"PRI "], false),
            (&[], false),
        ];
        for (pieces, http2) in cases {
            let (spoken, all) = of(pieces).await;
            assert_eq!(spoken.http2, http2, "{pieces:?}");
            assert_eq!(all, pieces.concat(), "{pieces:?}");
        }
    }
}
