//! Whether the database is still the one that it was at the last start.
//!
//! Access tokens are believed without the store, so they outlive it: a database that was lost or moved away takes the
//! memory of every logout and ban with it. Its birth mark is therefore recorded beside the keys, in `store.birth`. When
//! another one is found there, every login before that moment is refused, at each start from then on; what was restored
//! from a backup bears the old mark and changes nothing.
//!
//! The moment is later than it is by [`MAX_SKEW`], since a login may have been dated by an instance whose clock is ahead. One that
//! comes after the loss is dated no earlier than the moment ([`Revocations::earliest_login`](crate::token::revocation::Revocations)),
//! so that nobody has to wait.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{MAX_SKEW, Timestamp};
use crate::keyfile::Shelf;

/// File of the record.
pub(super) const FILE: &str = "store.birth";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// The database's.
    birth_mark: String,
    /// Milliseconds since 1970: logins before that are refused. Absent as long as no database was lost.
    epoch: Option<i64>,
}

/// Compares `birth_mark` with what is recorded on `shelf`, and records it. Returns the moment before which no login counts,
/// if there is one.
///
/// # Errors
/// When the record is damaged, or cannot be read or written.
pub(super) fn epoch(shelf: &Shelf, birth_mark: &str, now: Timestamp) -> io::Result<Option<Timestamp>> {
    let known = match shelf.read(FILE) {
        Ok(text) => Some(serde_json::from_slice::<Record>(&text).map_err(|_| damaged(shelf))?),
        // The first start, or the first one of a build that records it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let epoch = match known {
        Some(known) if known.birth_mark == birth_mark => return Ok(known.epoch.map(Timestamp::from_millis)),
        Some(known) => {
            tracing::warn!("the database is not that of the last start: all logins before now are refused");
            let loss = now.plus(MAX_SKEW);
            // Later than before, should the clock have been set back: a login may be dated by that very moment.
            let later = |before| Timestamp::from_millis(before).plus(Duration::from_millis(1));
            Some(known.epoch.map_or(loss, |before| later(before).max(loss)))
        }
        None => None,
    };
    let record = Record { birth_mark: birth_mark.to_owned(), epoch: epoch.map(Timestamp::millis) };
    shelf.write(FILE, &serde_json::to_vec(&record)?)?;
    Ok(epoch)
}

fn damaged(shelf: &Shelf) -> io::Error {
    let what = format!(
        "{} is damaged: restore it, or delete it if the database is the one that it was before",
        shelf.path(FILE).display()
    );
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn another_database_ends_what_was_before_it_for_good() {
        let keys = tempfile::tempdir().unwrap();
        let epoch = |mark, now| epoch(&keys.path().into(), mark, at(now)).unwrap();
        assert_eq!(epoch("a", 10), None, "the first one replaces nothing");
        assert_eq!(epoch("a", 20), None);
        let lost = |secs| Some(at(secs).plus(MAX_SKEW));
        assert_eq!(epoch("b", 30), lost(30), "whatever instance a login is of");
        assert_eq!(epoch("b", 40), lost(30));
        assert_eq!(epoch("c", 50), lost(50));
        let after = lost(50).map(|before| before.plus(Duration::from_millis(1)));
        assert_eq!(epoch("d", 45), after, "those that are dated by the moment before are of the past, too");
    }

    #[test]
    fn a_damaged_record_is_no_first_start() {
        let keys = tempfile::tempdir().unwrap();
        let shelf = Shelf::from(keys.path());
        shelf.write(FILE, b"{}").unwrap();
        let error = epoch(&shelf, "a", at(1)).unwrap_err();
        assert!(error.to_string().contains("store.birth is damaged"), "{error}");
    }
}
