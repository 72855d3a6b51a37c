//! From the bytes of a token to [`Claims`], or a refusal: the hot path.
//!
//! Pure computation: no store, no lock, no network, no file. In this order: size and shape; header; `typ`; the key that
//! `kid` names; `alg` against that key's own; the signature; only then the claims; `exp` last, so that
//! [`Error::Expired`] means "was good until then" and a client knows to refresh. What was revoked is not known here
//! ([`super::revocation`]), nor what was verified a moment ago ([`super::cache`]).
//!
//! The signature is checked with keys that are prepared once ([`super::key`]), and header and claims are read once, by
//! readers that refuse what `jsonwebtoken::decode` would let pass (duplicate claims, `null` for a claim, fractions) and
//! that say which claim is at fault. `decode` parses both twice and prepares the key anew on each call, which is most of
//! what it costs with HS256. It remains the mint's encoder, and the oracle: a property test holds that nothing verifies
//! here that it refuses.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::header::Header;
use super::keys::KeyRing;
use super::object::Text;
use super::payload::{NumericDate, Payload};
use super::{ACCESS_TYP, ASSERTION_TYP, Claims, LEEWAY_SECS, MAX_TOKEN, is_name};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Algorithm};
use crate::ids::{AppId, MemberId, OpenId, SessionId, UnionId, UserId};

/// Longest signature: RSA with 8192 bits.
const MAX_SIGNATURE: usize = 1024;

/// Why a token was refused. Carries nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not three parts of strict base64url (RFC 7515, section 2) with an acceptable header and a JSON object.
    #[error("the token is malformed")]
    Malformed,
    /// No key of the ring has this `kid`, or there is none.
    #[error("the token names no key of this gateway")]
    UnknownKey,
    /// `alg` is not that of the key.
    #[error("the token's algorithm is not that of its key")]
    Algorithm,
    /// `typ` is not that of an access token (RFC 9068, section 4).
    #[error("this is not an access token")]
    Type,
    /// The signature is not that of the key.
    #[error("the token's signature is wrong")]
    Signature,
    /// This claim is missing, of the wrong type, or has a value that is not accepted.
    #[error("the token's {0} is not accepted")]
    Claim(&'static str),
    /// Everything is right but the time: `exp` is now or past.
    #[error("the token has expired")]
    Expired,
}

/// Verifies access tokens for one configuration and one ring.
#[derive(Debug, Clone)]
pub struct Verifier {
    ring: Arc<KeyRing>,
    issuer: Box<str>,
    audience: Vec<String>,
    slow: bool,
    clock: Clock,
}

impl Verifier {
    /// Accepts what any key of `ring` signed for the issuer and one of the audiences of `section`.
    pub fn new(ring: Arc<KeyRing>, section: &config::Token, clock: Clock) -> Self {
        let slow = section.algorithm != Algorithm::Hs256;
        Self { ring, issuer: section.issuer.as_str().into(), audience: section.audience.clone(), slow, clock }
    }

    /// Whether it may take long to verify `token`, compared with all else that is done for a request: access tokens are signed
    /// asymmetrically here, and this has the shape of one.
    pub fn takes_long(&self, token: &[u8]) -> bool {
        self.slow && token.len() <= MAX_TOKEN && memchr::memchr_iter(b'.', token).count() == 2
    }

    /// What `token` says, if it is to be believed now.
    ///
    /// # Errors
    /// The first reason to refuse it.
    pub fn verify(&self, token: &[u8]) -> Result<Claims, Error> {
        let claims = self.verify_even_if_expired(token)?;
        // "On or after" (RFC 7519, section 4.1.4), without leeway.
        if self.clock.now() >= claims.expires_at { Err(Error::Expired) } else { Ok(claims) }
    }

    /// What `token` says, whether or not its time is over. Good for ending what it stands for, and for nothing else.
    ///
    /// # Errors
    /// The first reason to refuse it, which is never [`Error::Expired`].
    pub fn verify_even_if_expired(&self, token: &[u8]) -> Result<Claims, Error> {
        let payload = self.signed(token, ACCESS_TYP)?;
        let payload = Payload::parse(&payload).map_err(|at| at.map_or(Error::Malformed, Error::Claim))?;
        self.accept(&payload)
    }

    /// Whether this is an assertion of ours, for whichever upstream, that is good now. For operators; the gateway itself
    /// takes none.
    ///
    /// # Errors
    /// The first reason to refuse it.
    pub fn check_assertion(&self, token: &[u8]) -> Result<(), Error> {
        let payload = self.signed(token, ASSERTION_TYP)?;
        let payload = Payload::parse(&payload).map_err(|at| at.map_or(Error::Malformed, Error::Claim))?;
        if payload.iss.as_ref().is_none_or(|iss| iss.0 != *self.issuer) {
            return Err(Error::Claim("iss"));
        }
        let exp = payload.exp.ok_or(Error::Claim("exp"))?;
        if self.clock.now().secs() >= exp.0 { Err(Error::Expired) } else { Ok(()) }
    }

    /// The payload of a token of this type that a key of the ring signed.
    fn signed(&self, token: &[u8], typ: &str) -> Result<Vec<u8>, Error> {
        if token.len() > MAX_TOKEN {
            return Err(Error::Malformed);
        }
        let first = memchr::memchr(b'.', token).ok_or(Error::Malformed)?;
        let last = first + 1 + memchr::memchr(b'.', &token[first + 1..]).ok_or(Error::Malformed)?;
        let (message, signature) = (&token[..last], &token[last + 1..]);
        // A fourth part; base64url has no dot either, but this is known before any key is asked for.
        if signature.contains(&b'.') {
            return Err(Error::Malformed);
        }

        let header = decode(&token[..first])?;
        let header = Header::parse(&header).ok_or(Error::Malformed)?;
        if header.typ.is_none_or(|found| found.0 != typ) {
            return Err(Error::Type);
        }
        let key = header.kid.and_then(|kid| self.ring.verifying_key(&kid.0)).ok_or(Error::UnknownKey)?;
        if header.alg.is_none_or(|alg| alg.0 != key.algorithm().name()) {
            return Err(Error::Algorithm);
        }

        let mut raw = [0; MAX_SIGNATURE];
        let length = URL_SAFE_NO_PAD.decode_slice(signature, &mut raw).map_err(|_| Error::Malformed)?;
        if !key.checks(message, &raw[..length]) {
            return Err(Error::Signature);
        }

        decode(&token[first + 1..last])
    }

    /// The claims, if each is acceptable. The signature was right before this is asked.
    fn accept(&self, payload: &Payload<'_>) -> Result<Claims, Error> {
        let now = self.clock.now();
        if payload.iss.as_ref().is_none_or(|iss| iss.0 != *self.issuer) {
            return Err(Error::Claim("iss"));
        }
        if !payload.aud.as_ref().is_some_and(|aud| self.audience.iter().any(|ours| aud.has(ours))) {
            return Err(Error::Claim("aud"));
        }
        let started = |date: NumericDate| date.0 <= now.secs().saturating_add(LEEWAY_SECS);
        let issued_at = payload.iat.filter(|&iat| started(iat)).ok_or(Error::Claim("iat"))?;
        if !payload.nbf.is_none_or(started) {
            return Err(Error::Claim("nbf"));
        }
        // A login in the future would outlive every "revoke everything before now".
        if !payload.auth_time.is_none_or(started) {
            return Err(Error::Claim("auth_time"));
        }
        let exp = payload.exp.ok_or(Error::Claim("exp"))?;

        let claims = Claims {
            member_id: required(payload.sub.as_ref(), "sub", MemberId::parse)?,
            session_id: required(payload.sid.as_ref(), "sid", SessionId::parse)?,
            appid: required(payload.appid.as_ref(), "appid", AppId::parse)?,
            openid: required(payload.openid.as_ref(), "openid", OpenId::parse)?,
            unionid: optional(payload.unionid.as_ref(), "unionid", UnionId::parse)?,
            roles: names(payload.roles.as_deref().unwrap_or_default(), "roles")?,
            user_id: optional(payload.user_id.as_ref(), "user_id", UserId::parse)?,
            jti: names(payload.jti.as_slice(), "jti")?.pop(),
            auth_time: payload.auth_time.map(|date| Timestamp::from_secs(date.0)),
            issued_at: Timestamp::from_secs(issued_at.0),
            expires_at: Timestamp::from_secs(exp.0),
        };
        // Two names for one thing: a token in which they differ is for one app to one reader and for another to the next.
        if payload.client_id.as_ref().is_some_and(|client| client.0 != claims.appid.as_str()) {
            return Err(Error::Claim("client_id"));
        }
        Ok(claims)
    }
}

/// Strict base64url: no padding, no other alphabet, no bits left over (RFC 4648, section 3.5; RFC 7515, section 2).
fn decode(part: &[u8]) -> Result<Vec<u8>, Error> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Error::Malformed)
}

fn required<T, E>(
    text: Option<&Text<'_>>,
    claim: &'static str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, Error> {
    optional(text, claim, parse)?.ok_or(Error::Claim(claim))
}

fn optional<T, E>(
    text: Option<&Text<'_>>,
    claim: &'static str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, Error> {
    text.map(|text| parse(&text.0)).transpose().map_err(|_| Error::Claim(claim))
}

fn names(texts: &[Text<'_>], claim: &'static str) -> Result<Vec<String>, Error> {
    texts
        .iter()
        .map(|text| if is_name(&text.0) { Ok(text.0.clone().into_owned()) } else { Err(Error::Claim(claim)) })
        .collect()
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
