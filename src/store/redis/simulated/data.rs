//! What stands under the keys, and until when.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::clock::{Clock, Timestamp};

type Bytes = Vec<u8>;

/// Milliseconds and a number within them: the id of an entry.
pub(super) type EntryId = (u64, u64);

/// A value.
#[derive(Debug)]
pub(super) enum Value {
    Text(Bytes),
    Hash(BTreeMap<Bytes, Bytes>),
    /// Members and whole scores.
    Sorted(BTreeMap<Bytes, i64>),
    Set(BTreeSet<Bytes>),
    Stream(Stream),
}

/// Entries in order; ids only ever grow.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) entries: Vec<(EntryId, Vec<Bytes>)>,
    pub(super) last: EntryId,
}

/// The keys.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) clock: Clock,
    held: HashMap<Bytes, (Value, Option<Timestamp>)>,
}

macro_rules! of_kind {
    ($name:ident, $kind:ident, $type:ty) => {
        /// What is there; made when nothing is.
        pub(super) fn $name(&mut self, key: &[u8]) -> &mut $type {
            self.forget(key);
            let empty = || (Value::$kind(<$type>::default()), None);
            match &mut self.held.entry(key.to_owned()).or_insert_with(empty).0 {
                Value::$kind(value) => value,
                other => panic!("a {} was expected, and there is {other:?}", stringify!($kind)),
            }
        }
    };
}

impl Keys {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, held: HashMap::new() }
    }

    /// Loses everything; the birth mark, too, unless it is to be kept.
    pub(super) fn clear(&mut self, keep_birth_mark: bool) {
        self.held.retain(|key, _| keep_birth_mark && key.ends_with(b":birth"));
    }

    /// The session that was opened last is gone.
    pub(super) fn lose_newest_session(&mut self) {
        let is_session = |key: &&Bytes| String::from_utf8_lossy(key).contains(":session:");
        let newest = self.held.keys().filter(is_session).max().cloned();
        newest.and_then(|key| self.held.remove(&key));
    }

    of_kind!(text, Text, Bytes);
    of_kind!(hash, Hash, BTreeMap<Bytes, Bytes>);
    of_kind!(sorted, Sorted, BTreeMap<Bytes, i64>);
    of_kind!(set, Set, BTreeSet<Bytes>);
    of_kind!(stream, Stream, Stream);

    /// Drops it if its time is over.
    fn forget(&mut self, key: &[u8]) {
        let now = self.clock.now();
        if self.held.get(key).is_some_and(|(_, end)| end.is_some_and(|end| end <= now)) {
            self.held.remove(key);
        }
    }

    pub(super) fn exists(&mut self, key: &[u8]) -> bool {
        self.forget(key);
        self.held.get(key).is_some_and(|(value, _)| !is_empty(value))
    }

    /// The keys that begin so.
    pub(super) fn beginning(&mut self, start: &[u8]) -> Vec<Bytes> {
        let mut found: Vec<Bytes> = self.held.keys().filter(|key| key.starts_with(start)).cloned().collect();
        found.sort();
        found.retain(|key| self.exists(key));
        found
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        let there = self.exists(key);
        self.held.remove(key);
        there
    }

    pub(super) fn expire(&mut self, key: &[u8], millis: u64) {
        let end = self.clock.now().plus(std::time::Duration::from_millis(millis));
        if let Some((_, ends)) = self.held.get_mut(key) {
            *ends = Some(end);
        }
    }

    /// Milliseconds that are left; -1 for one that stays, -2 for none.
    pub(super) fn left(&mut self, key: &[u8]) -> i64 {
        match (self.exists(key), self.held.get(key)) {
            (true, Some((_, Some(end)))) => end.millis() - self.clock.now().millis(),
            (true, _) => -1,
            (false, _) => -2,
        }
    }
}

/// A container without members is no key in Redis; an empty text is one.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Text(_) | Value::Stream(_) => false,
        Value::Hash(hash) => hash.is_empty(),
        Value::Sorted(sorted) => sorted.is_empty(),
        Value::Set(set) => set.is_empty(),
    }
}
