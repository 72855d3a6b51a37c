//! From a [`Grant`] to a signed access token, in the shape of RFC 9068.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Header;
use serde::Serialize;

use super::keys::KeyRing;
use super::{ACCESS_TYP, Claims, Grant, MAX_TOKEN, is_name};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Algorithm};
use crate::ids::{AppId, MemberId, OpenId, Secret, SessionId, UnionId};

/// Why no token was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The session's absolute end is now or past.
    #[error("the session is over")]
    SessionOver,
    /// A role that could not stand in a header: the token would not verify.
    #[error("a role is not visible ASCII without comma, of 1 to 128 characters")]
    Role,
    /// So many roles that the token would be longer than is looked at.
    #[error("the token would be longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// The ring has no active key of the configured algorithm; a ring that was opened for it has.
    #[error("there is no key to sign with")]
    NoKey,
    /// The key could not sign.
    #[error("the token could not be signed")]
    Signing,
}

/// A new access token.
#[derive(Debug, Clone)]
pub struct Minted {
    /// The token, for the client alone.
    pub token: Secret<String>,
    /// What it says.
    pub claims: Claims,
    /// How long it is good for, whole seconds.
    pub expires_in: Duration,
}

/// Mints access tokens with the active key of the configured algorithm.
#[derive(Debug, Clone)]
pub struct Minter {
    ring: Arc<KeyRing>,
    algorithm: Algorithm,
    issuer: Box<str>,
    audience: Vec<String>,
    access_ttl: Duration,
    clock: Clock,
}

/// The claims in the order in which they are written.
#[derive(Serialize)]
struct Written<'a> {
    iss: &'a str,
    aud: Audience<'a>,
    sub: &'a MemberId,
    client_id: &'a AppId,
    appid: &'a AppId,
    openid: &'a OpenId,
    #[serde(skip_serializing_if = "Option::is_none")]
    unionid: Option<&'a UnionId>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    roles: &'a [String],
    sid: &'a SessionId,
    jti: &'a str,
    auth_time: i64,
    iat: i64,
    exp: i64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Audience<'a> {
    One(&'a str),
    Several(&'a [String]),
}

impl Minter {
    /// Signs with the active key of `ring` for the algorithm of `section`.
    pub fn new(ring: Arc<KeyRing>, section: &config::Token, clock: Clock) -> Self {
        Self {
            ring,
            algorithm: section.algorithm,
            issuer: section.issuer.as_str().into(),
            audience: section.audience.clone(),
            access_ttl: section.access_ttl,
            clock,
        }
    }

    /// A token that says what `grant` says, good for `access_ttl` and never past the end of the session.
    ///
    /// # Errors
    /// [`Error`]; the ones a caller can meet are [`Error::SessionOver`] and, with roles from outside, [`Error::Role`] and
    /// [`Error::TooLong`].
    pub fn mint(&self, grant: &Grant) -> Result<Minted, Error> {
        let key = self.ring.signing_key(self.algorithm).ok_or(Error::NoKey)?;
        let now = Timestamp::from_secs(self.clock.now().secs());
        let exp = Timestamp::from_secs(now.plus(self.access_ttl).min(grant.session_expires_at).secs());
        if exp <= now {
            return Err(Error::SessionOver);
        }
        if !grant.roles.iter().all(|role| is_name(role)) {
            return Err(Error::Role);
        }
        let jti = uuid::Uuid::now_v7().to_string();
        let written = Written {
            iss: &self.issuer,
            aud: match self.audience.as_slice() {
                [one] => Audience::One(one),
                several => Audience::Several(several),
            },
            sub: &grant.member_id,
            client_id: &grant.appid,
            appid: &grant.appid,
            openid: &grant.openid,
            unionid: grant.unionid.as_ref(),
            roles: &grant.roles,
            sid: &grant.session_id,
            jti: &jti,
            auth_time: grant.auth_time.secs(),
            iat: now.secs(),
            exp: exp.secs(),
        };
        let mut header = Header::new(match self.algorithm {
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
        });
        header.typ = Some(ACCESS_TYP.to_owned());
        header.kid = Some(key.kid().to_owned());
        let token = jsonwebtoken::encode(&header, &written, key.signer()).map_err(|_| Error::Signing)?;
        let token = Secret::new(token);
        if token.expose().len() > MAX_TOKEN {
            return Err(Error::TooLong);
        }
        let claims = Claims {
            member_id: grant.member_id.clone(),
            session_id: grant.session_id.clone(),
            appid: grant.appid.clone(),
            openid: grant.openid.clone(),
            unionid: grant.unionid.clone(),
            roles: grant.roles.clone(),
            jti: Some(jti),
            auth_time: Some(Timestamp::from_secs(grant.auth_time.secs())),
            issued_at: now,
            expires_at: exp,
        };
        Ok(Minted { token, claims, expires_in: exp.since(now) })
    }
}
