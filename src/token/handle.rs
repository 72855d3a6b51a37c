//! Opaque access tokens (`[token] format = "opaque"`): handles that name a session and say nothing about anybody.
//!
//! A handle is `wxs_` and 99 characters of base64url: `issued (5) ‖ expires (5) ‖ session id (16) ‖ random (16) ‖ MAC (32)`,
//! times in seconds. Whose session it is, only the store knows. The MAC is HMAC-SHA256 with a key derived from the refresh
//! secret for this alone, for one issuer and audience: every instance recomputes it, nothing of a handle is kept anywhere,
//! and what nobody here has issued is refused without a look into the store, however many are shown. Guessing one is guessing
//! 256 bits. It is no refresh token (which has 43 characters) and no JWT (which has dots), and neither is it.

use std::fmt;

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::refresh::RefreshSecret;
use super::verify::Error;
use super::{Claims, Grant, LEEWAY_SECS};
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::ids::{Secret, SessionId};

/// What every handle begins with; for people, and for scanners that look for lost secrets.
const PREFIX: &[u8] = b"wxs_";

/// Bytes of a time: seconds until the year 36812.
const TIME_LEN: usize = 5;
const ID_LEN: usize = 16;
const SAID_LEN: usize = 2 * TIME_LEN + 2 * ID_LEN;
const MAC_LEN: usize = 32;
const BYTES: usize = SAID_LEN + MAC_LEN;
const TEXT_LEN: usize = (BYTES * 4).div_ceil(3);

/// Whether this is in the shape of a handle, good or not.
pub fn is_handle(token: &[u8]) -> bool {
    token.len() == PREFIX.len() + TEXT_LEN && token.starts_with(PREFIX)
}

/// What a handle of ours says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    /// Whose session, as the store knows it.
    pub session_id: SessionId,
    /// Its own name, as the `jti` of a JWT.
    pub jti: Uuid,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Why no handle was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unissued {
    /// The session's id is none that this gateway makes.
    #[error("the session was not opened by this gateway")]
    Session,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// Issues handles and knows its own.
#[derive(Clone)]
pub struct Handles {
    /// One key an audience; the first one issues, all are accepted, as with a JWT.
    keys: Vec<hmac::Key>,
    clock: Clock,
}

impl Handles {
    /// For the issuer and the audiences of `section`.
    pub fn new(secret: &RefreshSecret, section: &config::Token, clock: Clock) -> Self {
        let key = |audience: &String| {
            hmac::Key::new(hmac::HMAC_SHA256, secret.handle_key(&section.issuer, audience).as_slice())
        };
        Self { keys: section.audience.iter().map(key).collect(), clock }
    }

    /// A handle for the session of `grant`.
    ///
    /// # Errors
    /// [`Unissued`].
    pub(super) fn issue(
        &self,
        grant: &Grant,
        issued_at: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(Secret<String>, Uuid), Unissued> {
        let session = Uuid::try_parse(grant.session_id.as_str()).map_err(|_| Unissued::Session)?;
        // Another spelling would lead to another session, or to none.
        if session.to_string() != grant.session_id.as_str() {
            return Err(Unissued::Session);
        }
        let mut random = [0; ID_LEN];
        rand::fill(&mut random).map_err(|_| Unissued::NoRandomness)?;
        let jti = uuid::Builder::from_random_bytes(random).into_uuid();
        let mut bytes = [0; BYTES];
        let (said, mac) = bytes.split_at_mut(SAID_LEN);
        said[..TIME_LEN].copy_from_slice(&written(issued_at));
        said[TIME_LEN..2 * TIME_LEN].copy_from_slice(&written(expires_at));
        said[2 * TIME_LEN..][..ID_LEN].copy_from_slice(session.as_bytes());
        said[2 * TIME_LEN + ID_LEN..].copy_from_slice(jti.as_bytes());
        mac.copy_from_slice(hmac::sign(&self.keys[0], said).as_ref());
        let mut text = String::with_capacity(PREFIX.len() + TEXT_LEN);
        text.push_str("wxs_");
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        Ok((Secret::new(text), jti))
    }

    /// What `token` says, if it is a handle of ours that has not expired. Whether its session lives is not known here.
    ///
    /// # Errors
    /// The first reason to refuse it.
    pub fn read(&self, token: &[u8]) -> Result<Handle, Error> {
        let handle = self.read_even_if_expired(token)?;
        if self.clock.now() >= handle.expires_at { Err(Error::Expired) } else { Ok(handle) }
    }

    /// As [`Handles::read`], whether or not its time is over. Good for ending what it stands for, and for nothing else.
    ///
    /// # Errors
    /// The first reason to refuse it, which is never [`Error::Expired`].
    pub fn read_even_if_expired(&self, token: &[u8]) -> Result<Handle, Error> {
        if !is_handle(token) {
            return Err(Error::Malformed);
        }
        let mut bytes = [0; BYTES];
        // Strict: no bits left over, so that a handle has one spelling.
        URL_SAFE_NO_PAD.decode_slice(&token[PREFIX.len()..], &mut bytes).map_err(|_| Error::Malformed)?;
        let (said, mac) = bytes.split_at(SAID_LEN);
        if !self.keys.iter().any(|key| hmac::verify(key, said, mac).is_ok()) {
            return Err(Error::Signature);
        }
        let id = |at: usize| Uuid::from_slice(&said[2 * TIME_LEN + at..][..ID_LEN]).map_err(|_| Error::Malformed);
        let (issued_at, expires_at) = (time(&said[..TIME_LEN]), time(&said[TIME_LEN..2 * TIME_LEN]));
        // As with a JWT: what was issued while the clock was wrong is not good before its time.
        if issued_at.secs() > self.clock.now().secs().saturating_add(LEEWAY_SECS) {
            return Err(Error::Claim("iat"));
        }
        let session_id = SessionId::parse(&id(0)?.to_string()).map_err(|_| Error::Claim("sid"))?;
        Ok(Handle { session_id, jti: id(ID_LEN)?, issued_at, expires_at })
    }
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handles(…)")
    }
}

impl Handle {
    /// What a JWT for `grant` would say, had it been issued in place of this handle.
    pub fn claims(&self, grant: Grant) -> Claims {
        Claims {
            member_id: grant.member_id,
            session_id: grant.session_id,
            appid: grant.appid,
            openid: grant.openid,
            unionid: grant.unionid,
            roles: grant.roles,
            user_id: grant.user_id,
            jti: Some(self.jti.to_string()),
            auth_time: Some(Timestamp::from_secs(grant.auth_time.secs())),
            issued_at: self.issued_at,
            expires_at: self.expires_at,
        }
    }
}

fn written(at: Timestamp) -> [u8; TIME_LEN] {
    let mut five = [0; TIME_LEN];
    five.copy_from_slice(&at.secs().max(0).to_be_bytes()[8 - TIME_LEN..]);
    five
}

fn time(five: &[u8]) -> Timestamp {
    Timestamp::from_secs(five.iter().fold(0, |secs, byte| secs << 8 | i64::from(*byte)))
}

#[cfg(test)]
mod tests;
