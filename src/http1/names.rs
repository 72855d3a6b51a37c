//! Names of header fields, read from the bytes of a line. Those that clients send often are found in a table: nothing is
//! allocated for them, and what they mean for the connection is known by then.

use std::array;
use std::sync::LazyLock;

use http::HeaderName;

use super::grammar::{is_token, lower};

/// Longest name in the table, bytes.
const LONGEST: usize = 32;

/// Places in the table; so many that no two names need the same one.
const PLACES: usize = 512;

/// What a field decides besides what it says to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Connection,
    ContentLength,
    Expect,
    Host,
    TransferEncoding,
    Upgrade,
    /// Nothing, and its name is an ordinary one.
    None,
    /// Nothing, as far as this table knows.
    Unknown,
}

/// The fields that something is decided by.
const DECIDING: [(&str, Role); 6] = [
    ("connection", Role::Connection),
    ("content-length", Role::ContentLength),
    ("expect", Role::Expect),
    ("host", Role::Host),
    ("transfer-encoding", Role::TransferEncoding),
    ("upgrade", Role::Upgrade),
];

/// What mini programs, browsers and the proxies before us send besides.
const ORDINARY: [&str; 42] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cache-control",
    "charset",
    "content-encoding",
    "content-type",
    "cookie",
    "date",
    "dnt",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "keep-alive",
    "origin",
    "pragma",
    "priority",
    "range",
    "referer",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "te",
    "traceparent",
    "upgrade-insecure-requests",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
    "x-requested-with",
];

/// A name in lower case, filled up with zeros.
type Letters = [u8; LONGEST];

#[derive(Debug)]
struct Known {
    letters: Letters,
    name: HeaderName,
    role: Role,
}

#[derive(Debug)]
struct Table {
    factor: u64,
    places: [Option<Known>; PLACES],
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    // A factor under which each name has a place of its own: found among the first few hundred (a test sees to that). Without one
    // there would be no table, which costs time and nothing else.
    (1..10_000)
        .map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
        .find_map(Table::new)
        .unwrap_or_else(Table::empty)
});

impl Table {
    fn new(factor: u64) -> Option<Self> {
        let mut table = Self { factor, ..Self::empty() };
        let ordinary = ORDINARY.iter().map(|name| (*name, Role::None));
        for (name, role) in DECIDING.into_iter().chain(ordinary) {
            let mut letters = [0; LONGEST];
            letters[..name.len()].copy_from_slice(name.as_bytes());
            let place = &mut table.places[place(&letters, factor)];
            if place.is_some() {
                return None;
            }
            *place = Some(Known { letters, name: HeaderName::from_static(name), role });
        }
        Some(table)
    }

    fn empty() -> Self {
        Self { factor: 1, places: array::from_fn(|_| None) }
    }
}

fn place(letters: &Letters, factor: u64) -> usize {
    let (words, _) = letters.as_chunks::<8>();
    let mixed = words.iter().fold(0u64, |mixed, word| mixed.rotate_left(23) ^ u64::from_le_bytes(*word));
    (mixed.wrapping_mul(factor) >> 55) as usize
}

/// The name at the start of `line`, what it decides, and how long it is; `None` unless it is a token (RFC 9110, section 5.1)
/// with a colon behind it.
pub(crate) fn read(line: &[u8]) -> Option<(HeaderName, Role, usize)> {
    let mut letters = [0; LONGEST];
    let mut length = 0;
    for (letter, &b) in letters.iter_mut().zip(line) {
        let c = lower(b);
        if c == 0 {
            break;
        }
        *letter = c;
        length += 1;
    }
    if length == LONGEST {
        length += line[LONGEST..].iter().take_while(|b| is_token(**b)).count();
    }
    if length == 0 || line.get(length) != Some(&b':') {
        return None;
    }
    if length <= LONGEST
        && let Some(known) = &TABLE.places[place(&letters, TABLE.factor)]
        && known.letters == letters
    {
        return Some((known.name.clone(), known.role, length));
    }
    Some((HeaderName::from_bytes(&line[..length]).ok()?, Role::Unknown, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_name_has_a_place_of_its_own() {
        assert_eq!(TABLE.places.iter().flatten().count(), DECIDING.len() + ORDINARY.len());
    }

    #[test]
    fn a_name_is_what_the_library_makes_of_it() {
        let all = DECIDING.iter().map(|(name, _)| *name).chain(ORDINARY);
        let others =
            ["x-app-version", "a", "content_length", "x-a-name-that-is-longer-than-the-longest-one-of-the-table"];
        for name in all.chain(others) {
            for spelling in [name.to_owned(), name.to_uppercase(), name.replacen(name.get(..1).unwrap(), "X", 1)] {
                let (read, role, length) = read(format!("{spelling}: v").as_bytes()).unwrap();
                assert_eq!((&read, length), (&HeaderName::from_bytes(spelling.as_bytes()).unwrap(), spelling.len()));
                let decides = DECIDING.iter().find(|(name, _)| read == *name).map(|(_, role)| *role);
                assert_eq!(decides, (!matches!(role, Role::None | Role::Unknown)).then_some(role), "{spelling}");
            }
        }
    }

    #[test]
    fn what_is_no_token_before_a_colon_is_no_name() {
        for line in ["", ":", ": v", "host", "host : v", " host: v", "ho st: v", "h\u{e9}: v", "host\0: v"] {
            assert!(read(line.as_bytes()).is_none(), "{line:?}");
        }
        let long = "a".repeat(LONGEST);
        for end in ["", " :", "b :", "(:"] {
            assert!(read(format!("{long}{end}").as_bytes()).is_none(), "{end:?}");
        }
        assert_eq!(read(format!("{long}:").as_bytes()).unwrap().2, LONGEST);
    }
}
