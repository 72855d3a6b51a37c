//! What Postgres's errors mean to a caller of the store: come back later, or damaged.
//!
//! The server's errors may quote values (`Key (openid)=(…) already exists`), so none of its words is passed on: only the
//! code (SQLSTATE) and what kind of thing it is.

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

use crate::store::Error;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("no answer from Postgres within the deadline")]
    Late,
    #[error("no connection to Postgres: {0}")]
    Away(String),
    #[error("Postgres refused with {0}")]
    Refused(String),
    #[error("the statement that it shared with others failed")]
    Shared,
    #[error("the connection to Postgres broke")]
    Broken,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(Box::new(failure))
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(&(SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED)) => {
                Self::Damaged("Postgres says that its files are damaged")
            }
            Some(&(SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN)) => {
                Self::Damaged("a table of wxgate is missing in Postgres")
            }
            Some(code) => Failure::Refused(format!("SQLSTATE {}", code.code())).into(),
            None if error.is_closed() => Failure::Broken.into(),
            None => Self::Unavailable(Box::new(error)),
        }
    }
}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) if error.code().is_some() => error.into(),
            PoolError::Timeout(_) => Failure::Late.into(),
            other => Failure::Away(other.to_string()).into(),
        }
    }
}
