//! A JSON object, read strictly: every member once, nothing behind it, in one pass and without recursion.
//!
//! serde's derive would do for a file of ours. A token comes from a stranger, and two readers of one token must never
//! differ: duplicate names are refused (RFC 7515, section 4; RFC 7519, section 4), `null` is not absence, a number is not
//! a string. Members that nobody asked for are skipped by a loop, however deep they are.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use smallvec::SmallVec;

/// Most members of one object. Real ones have about fifteen; the check for duplicates is quadratic.
const MOST: usize = 256;

/// Where the members of an object go.
pub(super) trait Members<'a> {
    /// Takes the value of the member `name`, or returns `false` without touching it: it is then skipped.
    fn take<A: MapAccess<'a>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error>;
}

/// Reads `json`, which must be one object in UTF-8, into `members`. False when it is anything else, or when `members`
/// refused a value.
pub(super) fn read<'a, M: Members<'a>>(json: &'a [u8], members: &mut M) -> bool {
    let Ok(text) = std::str::from_utf8(json) else { return false };
    let mut input = serde_json::Deserializer::from_str(text);
    input.deserialize_map(Reader(members)).is_ok() && input.end().is_ok()
}

struct Reader<'m, M>(&'m mut M);

impl<'a, M: Members<'a>> Visitor<'a> for Reader<'_, M> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen: SmallVec<[Cow<'a, str>; 24]> = SmallVec::new();
        while let Some(Text(name)) = map.next_key()? {
            if seen.len() == MOST || seen.contains(&name) {
                return Err(A::Error::custom("a member twice, or too many"));
            }
            if !self.0.take(&name, &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
            seen.push(name);
        }
        Ok(())
    }
}

/// A JSON string, borrowed where it has no escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'a> Deserialize<'a> for Text<'a> {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'a> Visitor<'a> for TextVisitor {
    type Value = Text<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Text<'a>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'a>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}
