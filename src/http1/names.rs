//! Names of header fields, read from the bytes of a line. Those that clients send often are found in a table: nothing is
//! allocated for them, and what they mean for the connection is known by then.

use std::array;
use std::sync::LazyLock;

use http::HeaderName;
use memchr::memchr;

use super::grammar::is_token;
use super::marks::{WIDTH, equal};

/// Longer than any name in the table, bytes.
const LONGEST: usize = 2 * WIDTH;

/// Places in the table; so many that no two names need the same one.
const PLACES: usize = 512;

/// What a field decides besides what it says to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Who asks.
    Authorization,
    Connection,
    ContentLength,
    Expect,
    Host,
    TransferEncoding,
    Upgrade,
    /// Nothing, but steps between client and service look at it.
    None,
    /// Nothing, and nobody but the service looks at it.
    Passing,
    /// Nothing, and it belongs to an answer.
    Answer,
    /// Nothing, as far as this table knows.
    Unknown,
}

/// The fields that something is decided by.
const DECIDING: [(&str, Role); 7] = [
    ("authorization", Role::Authorization),
    ("connection", Role::Connection),
    ("content-length", Role::ContentLength),
    ("expect", Role::Expect),
    ("host", Role::Host),
    ("transfer-encoding", Role::TransferEncoding),
    ("upgrade", Role::Upgrade),
];

/// What mini programs, browsers and the proxies before us send besides, and steps between client and service look at.
const LOOKED_AT: [&str; 15] = [
    "cookie",
    "keep-alive",
    "origin",
    "sec-fetch-site",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "te",
    "traceparent",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// What they send to the service alone. A step that begins to look at one of these has to gather the request first
/// (`pipeline::Request::gather`), or to take its name from here to the others.
const PASSING: [&str; 26] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "charset",
    "content-encoding",
    "content-type",
    "date",
    "dnt",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "pragma",
    "priority",
    "range",
    "referer",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "upgrade-insecure-requests",
    "user-agent",
    "x-requested-with",
];

/// What services answer with besides.
const ANSWERS: [&str; 23] = [
    "accept-ranges",
    "access-control-allow-origin",
    "age",
    "alt-svc",
    "content-disposition",
    "content-language",
    "content-security-policy",
    "etag",
    "expires",
    "last-modified",
    "link",
    "location",
    "referrer-policy",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "vary",
    "www-authenticate",
    "x-content-type-options",
    "x-frame-options",
    "x-powered-by",
    "x-xss-protection",
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
        let ordinary =
            LOOKED_AT.map(|name| (name, Role::None)).into_iter().chain(PASSING.map(|name| (name, Role::Passing)));
        let answers = ANSWERS.map(|name| (name, Role::Answer));
        for (name, role) in DECIDING.into_iter().chain(ordinary).chain(answers) {
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

/// The name of a field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    /// As the table has it; `None` for one that it does not have.
    pub(crate) known: Option<&'static HeaderName>,
    /// What the field decides.
    pub(crate) role: Role,
    /// Bytes.
    pub(crate) len: usize,
}

/// The name at the start of `line`, behind whose end there may be other lines; `None` unless it is a token (RFC 9110, section
/// 5.1) with a colon behind it.
pub(crate) fn read(line: &[u8]) -> Option<Name> {
    let mut letters = [0; LONGEST];
    match line.first_chunk() {
        Some(first) => letters = *first,
        None => letters[..line.len()].copy_from_slice(line),
    }
    let len = match colon(&letters) {
        Some(len) => {
            for (letter, kept) in letters.iter_mut().zip(&KEPT[len]) {
                let lower = *letter | u8::from(letter.is_ascii_uppercase()) << 5;
                *letter = lower & kept;
            }
            let known = TABLE.places[place(&letters, TABLE.factor)].as_ref();
            if let Some(known) = known.filter(|known| known.letters == letters && known.name.as_str().len() == len) {
                return Some(Name { known: Some(&known.name), role: known.role, len });
            }
            len
        }
        None => memchr(b':', line)?,
    };
    let is_name = len > 0 && line[..len].iter().all(|b| is_token(*b));
    is_name.then_some(Name { known: None, role: Role::Unknown, len })
}

/// Where the first colon is.
fn colon(letters: &Letters) -> Option<usize> {
    let (halves, _) = letters.as_chunks::<WIDTH>();
    let [first, second] = halves else { return None };
    let colons = equal(first, b':') | equal(second, b':') << WIDTH;
    (colons != 0).then(|| colons.trailing_zeros() as usize)
}

/// What is kept of the letters of a line whose name has this length.
const KEPT: [Letters; LONGEST] = {
    let mut kept = [[0; LONGEST]; LONGEST];
    let mut len = 0;
    while len < LONGEST {
        let mut at = 0;
        while at < len {
            kept[len][at] = 0xff;
            at += 1;
        }
        len += 1;
    }
    kept
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_name_has_a_place_of_its_own() {
        assert_eq!(
            TABLE.places.iter().flatten().count(),
            DECIDING.len() + LOOKED_AT.len() + PASSING.len() + ANSWERS.len()
        );
    }

    #[test]
    fn a_name_is_what_the_library_makes_of_it() {
        let known = DECIDING.iter().map(|(name, _)| *name).chain(LOOKED_AT).chain(PASSING).chain(ANSWERS);
        let others =
            ["x-app-version", "a", "content_length", "x-a-name-that-is-longer-than-the-longest-one-of-the-table"];
        for name in known.clone().chain(others) {
            for spelling in [name.to_owned(), name.to_uppercase(), name.replacen(name.get(..1).unwrap(), "X", 1)] {
                let read = read(format!("{spelling}: v").as_bytes()).unwrap();
                let lower = spelling.to_lowercase();
                assert_eq!(read.len, spelling.len());
                assert_eq!(read.known.map(HeaderName::as_str), known.clone().find(|name| *name == lower), "{spelling}");
                let decides = DECIDING.iter().find(|(name, _)| lower == *name).map(|(_, role)| *role);
                let decided = !matches!(read.role, Role::None | Role::Passing | Role::Answer | Role::Unknown);
                assert_eq!(decides, decided.then_some(read.role), "{spelling}");
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
        assert_eq!(read(format!("{long}:").as_bytes()).unwrap().len, LONGEST);
    }

    /// Sources of those who look at the fields of a request before it is gathered.
    fn lookers() -> Vec<(String, String)> {
        let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        for folder in ["pipeline", "credential", "proxy", "server/http1", "limiter"] {
            files.extend(std::fs::read_dir(src.join(folder)).unwrap().map(|entry| entry.unwrap().path()));
        }
        files.extend(["credential.rs", "gateway/to_proxy.rs", "server/connection.rs"].map(|file| src.join(file)));
        let named = |path: std::path::PathBuf| (path.display().to_string(), std::fs::read_to_string(&path));
        files.into_iter().map(named).filter_map(|(name, text)| Some((name, text.ok()?))).collect()
    }

    #[test]
    fn nobody_looks_at_what_passes_before_it_is_gathered() {
        // What these name is of answers or trailers, or they are asked with a gathered request.
        let known = "pages compress dispatch streams answer redirect health trailers renew tests";
        // Lists of names, for whom nobody asks the request.
        let lists = [("cors.rs", "content-type"), ("hygiene.rs", "content-type"), ("hygiene.rs", "content-encoding")];
        let passes = |name: &str| PASSING.contains(&name) || super::super::verbatim::is_passing_custom(name.as_bytes());
        let sources = lookers();
        assert!(sources.len() > 40, "{}", sources.len());
        for (path, text) in &sources {
            let file = path.rsplit('/').next().unwrap();
            if known.split(' ').any(|known| file.strip_suffix(".rs") == Some(known)) {
                continue;
            }
            let code = text.split("#[cfg(test)]").next().unwrap();
            let quoted = code.split('"').skip(1).step_by(2).map(str::to_owned);
            let constants = code.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).filter(|word| word.len() > 3);
            for name in quoted.chain(constants.map(|word| word.to_lowercase().replace('_', "-"))) {
                assert!(!passes(&name) || lists.contains(&(file, &name)), "{path} looks at {name}");
            }
        }
    }
}
