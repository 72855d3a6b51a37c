//! Why an exchange with an upstream failed.
//!
//! Each error carries three facts: its kind (the variant, which the problem table reads), whose fault it was
//! ([`Error::fault`], which log and metrics read), and whether the request may be sent again ([`Error::retry`]).

use std::io;
use std::time::Duration;

use crate::body;

/// Why there is no answer, or no complete one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The upstream's name has no address, and no earlier one is known.
    #[error("the upstream's name cannot be resolved")]
    Resolve(#[source] io::Error),
    /// No address took the connection.
    #[error("cannot connect to the upstream")]
    Connect(#[source] io::Error),
    /// The TLS handshake failed: the certificate is not good, or there is no TLS.
    #[error("the upstream cannot be trusted, or does not speak TLS as configured")]
    Tls(#[source] io::Error),
    /// Resolving and connecting took longer than `connect_timeout`.
    #[error("connecting to the upstream took too long")]
    ConnectTimeout,
    /// The whole request was taken, but no response head came in time.
    #[error("the upstream did not answer in time")]
    ResponseHeadTimeout,
    /// The connection ended before any byte of an answer.
    #[error("the upstream closed the connection without an answer")]
    Closed(#[source] io::Error),
    /// The answer is not one that can be passed on in one unambiguous form.
    #[error("the upstream's answer breaks HTTP/1.1")]
    Protocol(#[source] Violation),
    /// The client broke off its request body.
    #[error("the client broke off the request body")]
    RequestBodyAborted(#[source] body::Error),
    /// The request body is larger than the route allows.
    #[error("the request body is too large")]
    RequestBodyTooLarge,
    /// The client sent nothing of the rest of its body for `idle_timeout`.
    #[error("the client's request body fell silent")]
    RequestBodyIdle,
    /// The answer broke off after its head: truncated, reset, or wrongly chunked.
    #[error("the upstream broke off the response body")]
    ResponseBodyBroken(#[source] io::Error),
    /// The upstream sent nothing of the rest of its answer for `idle_timeout`.
    #[error("the upstream's response body fell silent")]
    ResponseBodyIdle,
    /// The circuit is open: the upstream has only failed of late. For how long about.
    #[error("the circuit of the upstream is open")]
    CircuitOpen(Duration),
    /// `max_requests` of the breaker are under way.
    #[error("the upstream has as many requests as it may")]
    TooManyRequests,
    /// Every server has `max_connections`, and the queue is full.
    #[error("every server is busy, and the queue is full")]
    QueueFull,
    /// No server had room within the queue's time.
    #[error("no server had room in time")]
    QueueTimeout,
    /// `total_timeout` passed.
    #[error("the exchange took longer than its total time limit")]
    TotalTimeout,
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// It is not HTTP/1.1 at all, or ends within its head.
    #[error("malformed or truncated response head")]
    Malformed(#[source] Malformed),
    /// 101 to a request that asked for no upgrade (RFC 9110 section 15.2.2).
    #[error("101 Switching Protocols without an upgrade request")]
    UnaskedSwitch,
    /// Content-Length beside Transfer-Encoding (RFC 9112 section 6.2).
    #[error("Content-Length beside Transfer-Encoding")]
    LengthAndEncoding,
    /// Content-Length that differs from another, or is not a number (RFC 9112 section 6.3 rule 5).
    #[error("contradictory or invalid Content-Length")]
    Length,
    /// A transfer coding other than `chunked` alone (RFC 9112 section 6.1): it was not asked for, and cannot be undone.
    #[error("a transfer coding other than chunked")]
    Encoding,
}

/// Why bytes are no response head.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// The grammar (RFC 9112, section 4).
    #[error("not the grammar of HTTP/1.1: {0}")]
    Grammar(&'static str),
    /// A line that ends in LF alone: parsers differ on whether it ends.
    #[error("a line ends without CR")]
    BareLf,
    /// A status code below 100.
    #[error("an impossible status code")]
    Status,
    /// More bytes than a head may have.
    #[error("the head is too large")]
    TooLarge,
    /// The connection ended within the head.
    #[error("the connection ended within the head")]
    Truncated(#[source] io::Error),
}

/// Who caused a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The upstream, or the network to it.
    Upstream,
    /// The client.
    Downstream,
    /// The gateway's own machine (no file descriptor, no local port), or its own limits.
    Internal,
}

/// Whether the same request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// No: the upstream may have acted on it, or it would fail again.
    Never,
    /// Yes: nothing of it was sent.
    Always,
    /// Only if the connection was a reused one, and the request is idempotent and has no body (RFC 9110 section 9.2.2,
    /// RFC 9112 section 9.3.1): the upstream has most likely closed an idle connection.
    ReusedOnly,
}

/// Linux: the process (`EMFILE`) or the system (`ENFILE`) is out of file descriptors.
const OUT_OF_DESCRIPTORS: [i32; 2] = [24, 23];

impl Error {
    /// Whose fault it was.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Resolve(error) | Self::Connect(error) => {
                let ours = error.kind() == io::ErrorKind::AddrNotAvailable
                    || error.raw_os_error().is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code));
                if ours { Fault::Internal } else { Fault::Upstream }
            }
            Self::ConnectTimeout
            | Self::Tls(_)
            | Self::ResponseHeadTimeout
            | Self::Closed(_)
            | Self::Protocol(_)
            | Self::ResponseBodyBroken(_)
            | Self::ResponseBodyIdle
            | Self::TotalTimeout => Fault::Upstream,
            Self::RequestBodyAborted(_) | Self::RequestBodyTooLarge | Self::RequestBodyIdle => Fault::Downstream,
            Self::CircuitOpen(_) | Self::TooManyRequests | Self::QueueFull | Self::QueueTimeout => Fault::Internal,
        }
    }

    /// Whether the same request may be sent again.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Resolve(_) | Self::Connect(_) | Self::Tls(_) | Self::ConnectTimeout => Retry::Always,
            Self::Closed(_) => Retry::ReusedOnly,
            Self::ResponseHeadTimeout
            | Self::Protocol(_)
            | Self::RequestBodyAborted(_)
            | Self::RequestBodyTooLarge
            | Self::RequestBodyIdle
            | Self::ResponseBodyBroken(_)
            | Self::ResponseBodyIdle
            | Self::CircuitOpen(_)
            | Self::TooManyRequests
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::TotalTimeout => Retry::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_out_of_descriptors_or_ports_is_not_the_upstreams_fault() {
        for code in [23, 24, 99] {
            assert_eq!(Error::Connect(io::Error::from_raw_os_error(code)).fault(), Fault::Internal, "{code}");
        }
        let refused = Error::Connect(io::ErrorKind::ConnectionRefused.into());
        assert_eq!((refused.fault(), refused.retry()), (Fault::Upstream, Retry::Always));
    }
}
