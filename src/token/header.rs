//! The header of a token (RFC 7515, section 4), read strictly.
//!
//! Three members are asked for: `alg`, `kid`, `typ`. Those that would change what the token means, or that bring a key
//! along, make the token malformed: nothing here ever follows a URL or believes a key that a token carries (RFC 8725,
//! sections 3.1 and 3.10). Any other member is ignored, as section 4 asks.

use serde::de::{Error as _, MapAccess};

use super::object::{self, Members, Text};

/// Members that no access token of ours has a use for, each with a meaning that must not be overlooked: extensions that
/// must be understood (`crit`, RFC 7515; `b64`, RFC 7797), encryption and compression (RFC 7516, RFC 7518: `enc`, `zip`,
/// `epk`, `apu`, `apv`, `p2s`, `p2c`), nesting (`cty`, RFC 7519, section 5.2), and keys by reference or by value.
const REFUSED: [&str; 15] =
    ["crit", "b64", "cty", "jku", "jwk", "x5u", "x5c", "enc", "zip", "epk", "apu", "apv", "p2s", "p2c", "iv"];

/// What the header says; nothing of it is believed yet.
#[derive(Debug, Default)]
pub(super) struct Header<'a> {
    pub(super) alg: Option<Text<'a>>,
    pub(super) kid: Option<Text<'a>>,
    pub(super) typ: Option<Text<'a>>,
}

impl<'a> Header<'a> {
    /// `None` when it is not an object of the kind described above.
    pub(super) fn parse(json: &'a [u8]) -> Option<Self> {
        let mut header = Self::default();
        object::read(json, &mut header).then_some(header)
    }
}

impl<'a> Members<'a> for Header<'a> {
    fn take<A: MapAccess<'a>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        let member = match name {
            "alg" => &mut self.alg,
            "kid" => &mut self.kid,
            "typ" => &mut self.typ,
            _ if REFUSED.contains(&name) => return Err(A::Error::custom("a header member that is not accepted")),
            _ => return Ok(false),
        };
        *member = Some(map.next_value()?);
        Ok(true)
    }
}
