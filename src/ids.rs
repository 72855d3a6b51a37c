//! The names by which the gateway knows apps, people and sessions, and [`Secret`], the wrapper of what must never be
//! shown.
//!
//! Every identifier that may end in a header is checked here, once: visible ASCII without comma, 1 to 128 bytes, so that
//! no later step has to ask whether a value can break a header or a list. What came out of a token or out of WeChat
//! passes through `parse` like anything else.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroize;

use crate::clock::Timestamp;

/// Longest identifier that is accepted, in bytes (contract: `sub` and `sid` are opaque ASCII of at most 128).
pub const MAX_LEN: usize = 128;

/// Why a text is not an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// More than [`MAX_LEN`] bytes.
    #[error("is longer than {MAX_LEN} bytes")]
    TooLong,
    /// A byte outside visible ASCII, or a comma.
    #[error("has a character other than visible ASCII without comma")]
    Character,
}

fn check(text: &str) -> Result<(), Error> {
    match text.len() {
        0 => Err(Error::Empty),
        n if n > MAX_LEN => Err(Error::TooLong),
        _ if text.bytes().all(|b| b.is_ascii_graphic() && b != b',') => Ok(()),
        _ => Err(Error::Character),
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, debug = $debug:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and takes it.
            ///
            /// # Errors
            /// When it is empty, longer than [`MAX_LEN`] bytes, or not visible ASCII without comma.
            pub fn parse(text: &str) -> Result<Self, Error> {
                check(text)?;
                Ok(Self(text.into()))
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                id!(@$debug self f $name)
            }
        }
    };
    (@shown $self:ident $f:ident $name:ident) => { $f.write_str(&$self.0) };
    (@hidden $self:ident $f:ident $name:ident) => {{
        let _ = $self;
        $f.write_str(concat!(stringify!($name), "(…)"))
    }};
}

id!(
    /// A WeChat app's public id, such as `wx0123456789abcdef`. Public: it is printed.
    AppId, debug = shown
);
id!(
    /// A person within one app (WeChat: `openid`). Personal data: never printed raw.
    OpenId, debug = hidden
);
id!(
    /// A person across the apps of one Open Platform account (WeChat: `unionid`). Personal data: never printed raw.
    UnionId, debug = hidden
);
id!(
    /// Our own id of a member, a UUIDv7 unless a foreign token says otherwise. Says nothing about the person.
    MemberId, debug = shown
);
id!(
    /// One login on one device; dies at logout. A UUIDv7 unless a foreign token says otherwise.
    SessionId, debug = shown
);

id!(
    /// The business service's own id of a member, as its login hook gave it. May be anything, a phone number too: never
    /// printed raw.
    UserId, debug = hidden
);

impl MemberId {
    /// A new one, ordered by time.
    pub fn new_v7() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into())
    }
}

impl SessionId {
    /// A new one, of a session that begins at `now`: the millisecond in it is what an epoch ("everything before now") is
    /// held against.
    pub fn new_v7(now: Timestamp) -> Self {
        let millis = u64::try_from(now.millis()).unwrap_or(0);
        let nanos = u32::try_from(millis % 1000 * 1_000_000).unwrap_or(0);
        let time = uuid::Timestamp::from_unix(uuid::NoContext, millis / 1000, nanos);
        Self(uuid::Uuid::new_v7(time).to_string().into())
    }
}

/// Something that must not be shown: `Debug` says `Secret(…)`, there is no `Display`, and the memory is wiped when it goes.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. The name is meant to be seen at the place of use: what it returns must not reach a log, an
    /// error, a metric or a URL that is printed.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_that_could_break_a_header_is_refused() {
        for bad in ["", " ", "a b", "a,b", "a\r\nb", "a\0b", "ö", "a\u{85}", "\u{7f}"] {
            assert!(OpenId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(OpenId::parse(&"a".repeat(MAX_LEN)).is_ok());
        assert_eq!(OpenId::parse(&"a".repeat(MAX_LEN + 1)), Err(Error::TooLong));
    }

    #[test]
    fn debug_output_hides_people_and_secrets() {
        let openid = OpenId::parse("oABCDEF").unwrap();
        let unionid = UnionId::parse("uABCDEF").unwrap();
        let secret = Secret::new(String::from("hunter2"));
        assert_eq!(format!("{openid:?} {unionid:?} {secret:?}"), "OpenId(…) UnionId(…) Secret(…)");
    }

    #[test]
    fn new_ids_are_ordered_by_time_and_valid() {
        let (a, b) = (MemberId::new_v7(), MemberId::new_v7());
        assert!(a < b);
        assert_eq!(MemberId::parse(a.as_str()).unwrap(), a);
    }
}
