//! What Redis's errors mean to a caller of the store: come back later, or damaged.
//!
//! No argument of a command is in these errors: the client library does not keep them, and the server's own words name
//! the kind of fault only.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::Error;

/// Why there is no answer, where Redis itself has no error for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("no answer from Redis within the deadline")]
    Late,
    #[error("there is no connection to Redis")]
    Away,
    #[error("too few replicas of Redis hold the change")]
    NotReplicated,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(Box::new(failure))
    }
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedReturnType | ErrorKind::Server(ServerErrorKind::ResponseError)
                if error.code() == Some("WRONGTYPE") || error.kind() == ErrorKind::UnexpectedReturnType =>
            {
                Self::Damaged("a key of Redis holds what is never written there")
            }
            _ => Self::Unavailable(Box::new(error)),
        }
    }
}

/// Whether the connection that gave this error is of no more use: it is gone, or leads to a server that is no longer in
/// charge.
pub(super) fn is_broken(error: &RedisError) -> bool {
    let demoted = matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown));
    demoted || error.is_io_error() || error.is_unrecoverable_error() || error.is_connection_dropped()
}
