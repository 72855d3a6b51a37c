//! The claims of a token (RFC 7519, section 4) as JSON gives them: types checked, values not yet.
//!
//! A claim that is here has the one type that it may have. Which values are right is for [`super::verify`].

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::object::{self, Members, Text};

/// Latest time that is believed: the end of the year 9999. A later `exp` was written in milliseconds.
const LATEST: u64 = 253_402_300_799;

/// What the claims say.
#[derive(Debug, Default)]
pub(super) struct Payload<'a> {
    pub(super) iss: Option<Text<'a>>,
    pub(super) aud: Option<Audience<'a>>,
    pub(super) sub: Option<Text<'a>>,
    pub(super) sid: Option<Text<'a>>,
    pub(super) appid: Option<Text<'a>>,
    pub(super) client_id: Option<Text<'a>>,
    pub(super) openid: Option<Text<'a>>,
    pub(super) unionid: Option<Text<'a>>,
    pub(super) roles: Option<Vec<Text<'a>>>,
    pub(super) user_id: Option<Text<'a>>,
    pub(super) jti: Option<Text<'a>>,
    pub(super) auth_time: Option<NumericDate>,
    pub(super) iat: Option<NumericDate>,
    pub(super) nbf: Option<NumericDate>,
    pub(super) exp: Option<NumericDate>,
    reading: Option<&'static str>,
}

/// Whole seconds since the epoch (RFC 7519, section 2). Fractions are allowed there and refused here: nobody whose
/// tokens these are writes them, and two readers may round them differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NumericDate(pub(super) i64);

/// One audience or several (RFC 7519, section 4.1.3).
#[derive(Debug)]
pub(super) enum Audience<'a> {
    One(Text<'a>),
    Several(Vec<Text<'a>>),
}

impl Audience<'_> {
    /// Whether one of them is `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one.0 == name,
            Self::Several(several) => several.iter().any(|one| one.0 == name),
        }
    }
}

impl<'a> Payload<'a> {
    /// The name of the claim whose type is wrong, or `None` inside when it is not an object, or has a claim twice.
    pub(super) fn parse(json: &'a [u8]) -> Result<Self, Option<&'static str>> {
        let mut payload = Self::default();
        if object::read(json, &mut payload) { Ok(payload) } else { Err(payload.reading) }
    }
}

impl<'a> Members<'a> for Payload<'a> {
    fn take<A: MapAccess<'a>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        macro_rules! claims {
            ($($claim:ident)*) => {
                match name {
                    $(stringify!($claim) => {
                        self.reading = Some(stringify!($claim));
                        self.$claim = Some(map.next_value()?);
                        self.reading = None;
                        Ok(true)
                    })*
                    _ => Ok(false),
                }
            };
        }
        claims!(iss aud sub sid appid client_id openid unionid roles user_id jti auth_time iat nbf exp)
    }
}

impl<'a> Deserialize<'a> for NumericDate {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        let secs = u64::deserialize(from)?;
        match i64::try_from(secs) {
            Ok(whole) if secs <= LATEST => Ok(Self(whole)),
            _ => Err(D::Error::custom("a time after the year 9999")),
        }
    }
}

impl<'a> Deserialize<'a> for Audience<'a> {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AudienceVisitor)
    }
}

struct AudienceVisitor;

impl<'a> Visitor<'a> for AudienceVisitor {
    type Value = Audience<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Audience<'a>, E> {
        Ok(Audience::One(Text(text.into())))
    }

    fn visit_str<E>(self, text: &str) -> Result<Audience<'a>, E> {
        Ok(Audience::One(Text(text.to_owned().into())))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<Audience<'a>, A::Error> {
        let mut several = Vec::new();
        while let Some(one) = list.next_element()? {
            several.push(one);
        }
        Ok(Audience::Several(several))
    }
}
