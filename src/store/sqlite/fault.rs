//! What SQLite's errors mean to a caller of the store: come back later, or damaged.
//!
//! No value of a row is in these errors: SQLite names columns and constraints only.

use rusqlite::ErrorCode;

use crate::store::Error;

/// Why a job got no answer, where SQLite itself has no error for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("no answer within the deadline")]
    Late,
    #[error("the thread that does the work has stopped")]
    Stopped,
    #[error("the transaction that it shared was rolled back")]
    RolledBack,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(Box::new(failure))
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match &error {
            rusqlite::Error::SqliteFailure(cause, _) => match cause.code {
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Damaged("the database file is damaged"),
                ErrorCode::ConstraintViolation => Self::Damaged("an id or a hash that must be new is there already"),
                // Full disk, failed read, write or sync, locked from outside, no memory: all may pass.
                _ => Self::Unavailable(Box::new(error)),
            },
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..) => Self::Damaged("a column holds what is never written there"),
            _ => Self::Unavailable(Box::new(error)),
        }
    }
}
