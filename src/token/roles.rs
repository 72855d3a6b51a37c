//! Roles that were changed while tokens that say otherwise are about: they count, whatever a token says.
//!
//! An entry lives until the last token with other roles has expired. It overrides newer tokens too, for one that was being
//! made while the change came may be newer and still wrong; it says the same as they do in every other case.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::quality::RandomState;
use papaya::{Compute, HashMap, Operation};

use crate::clock::Timestamp;
use crate::ids::MemberId;

/// A member's roles, sorted.
pub type Roles = Arc<[String]>;

#[derive(Debug, Clone)]
struct Changed {
    roles: Roles,
    at: Timestamp,
    until: Timestamp,
}

/// The set.
#[derive(Debug, Default)]
pub struct ChangedRoles {
    /// Never fewer than there are: raised before an insertion, lowered after a removal.
    entries: AtomicUsize,
    members: HashMap<MemberId, Changed, RandomState>,
}

impl ChangedRoles {
    /// The roles of this member, if they were changed.
    pub fn of(&self, member: &MemberId) -> Option<Roles> {
        // Most of the time nobody's were; then this is all there is to do.
        if self.entries.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.members.pin().get(member).map(|changed| Arc::clone(&changed.roles))
    }

    /// The later change counts, by the times that the store gave them in the order of their arrival; of the same time the one
    /// that comes last.
    pub(super) fn set(&self, member: &MemberId, roles: &[String], at: Timestamp, until: Timestamp) {
        let new = Changed { roles: roles.into(), at, until };
        self.entries.fetch_add(1, Ordering::AcqRel);
        let members = self.members.pin();
        let done = members.compute(member.clone(), |old| {
            let merged = match old {
                Some((_, old)) if old.at > at => Changed { until: old.until.max(until), ..old.clone() },
                Some((_, old)) => Changed { until: old.until.max(until), ..new.clone() },
                None => new.clone(),
            };
            Operation::<Changed, ()>::Insert(merged)
        });
        if !matches!(done, Compute::Inserted(..)) {
            self.entries.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// What may be forgotten.
    pub(super) fn due(&self, now: Timestamp) -> Vec<MemberId> {
        let members = self.members.pin();
        members.iter().filter(|(_, changed)| changed.until <= now).map(|(member, _)| member.clone()).collect()
    }

    /// Drops what of it is over still.
    pub(super) fn forget(&self, due: &[MemberId], now: Timestamp) {
        let members = self.members.pin();
        for member in due {
            if let Ok(Some(_)) = members.remove_if(member, |_, changed| changed.until <= now) {
                self.entries.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// How many members.
    pub fn len(&self) -> usize {
        self.entries.load(Ordering::Acquire)
    }

    /// Whether nobody's roles were changed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn the_later_change_counts_until_its_end() {
        let set = ChangedRoles::default();
        let alice = MemberId::parse("alice").unwrap();
        assert_eq!(set.of(&alice), None);
        for (role, when, until, now) in [("a", 10, 60, "a"), ("b", 10, 50, "b"), ("c", 9, 90, "b"), ("d", 11, 20, "d")]
        {
            set.set(&alice, &[role.to_owned()], at(when), at(until));
            assert_eq!(&*set.of(&alice).unwrap(), [now.to_owned()]);
        }
        assert_eq!((set.len(), set.of(&MemberId::parse("bob").unwrap())), (1, None));
        set.forget(&set.due(at(89)), at(89));
        assert_eq!(set.len(), 1, "the longest end counts");
        set.forget(&set.due(at(90)), at(90));
        assert!(set.is_empty() && set.of(&alice).is_none());
    }
}
