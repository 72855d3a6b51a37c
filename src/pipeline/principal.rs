//! The caller of one request, as a verified token names him, ready for headers and log.
//!
//! Made once per token and kept in the cache of verified tokens: the header values are slices of one buffer, so that a
//! request with a known token copies and checks nothing.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderValue;

use crate::clock::Timestamp;
use crate::telemetry::{Pseudonym, Pseudonyms};
use crate::token::Claims;

use super::assertion::Assertions;
use super::identity;
use super::renew::Renewal;

/// A verified caller.
#[derive(Debug)]
pub struct Principal {
    /// What the token says.
    pub claims: Claims,
    /// The person's name in logs.
    pub pseudonym: Pseudonym,
    /// `X-WX-OPENID`.
    pub openid: HeaderValue,
    /// `X-WX-APPID`.
    pub appid: HeaderValue,
    /// `X-WX-UNIONID`.
    pub unionid: Option<HeaderValue>,
    /// `X-Wxgate-Member`.
    pub member: HeaderValue,
    /// `X-Wxgate-Session`.
    pub session: HeaderValue,
    /// `X-Wxgate-User`: the business service's own id, from the login hook.
    pub user: Option<HeaderValue>,
    /// `X-Wxgate-Roles`, comma-separated; absent when there are none.
    pub roles: Option<HeaderValue>,
    /// These headers, and `X-WX-SOURCE`, as lines.
    pub lines: Bytes,
    /// `X-Wxgate-Assertion`, where routes asked for it.
    pub assertions: Assertions,
    /// The token that is to follow this one, once it is about to expire.
    pub renewal: Renewal,
}

/// A claim cannot stand in a header. The verifier refuses such tokens; this is the second lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unprintable;

impl Principal {
    /// Of a verified token's claims.
    ///
    /// # Errors
    /// When a claim cannot stand in a header.
    pub fn new(claims: Claims, pseudonyms: &Pseudonyms) -> Result<Self, Unprintable> {
        let roles = claims.roles.join(",");
        let texts = [
            claims.openid.as_str(),
            claims.appid.as_str(),
            claims.unionid.as_ref().map_or("", |u| u.as_str()),
            claims.member_id.as_str(),
            claims.session_id.as_str(),
            &roles,
            claims.user_id.as_ref().map_or("", |u| u.as_str()),
        ];
        let mut buffer = BytesMut::with_capacity(texts.iter().map(|t| t.len()).sum());
        for text in texts {
            buffer.put_slice(text.as_bytes());
        }
        let mut rest = buffer.freeze();
        let mut values = texts.map(|text| HeaderValue::from_maybe_shared(rest.split_to(text.len())).ok());
        let mut next = |n: usize| values[n].take().ok_or(Unprintable);
        let (openid, appid, unionid) = (next(0)?, next(1)?, next(2)?);
        let (member, session, role_list, user) = (next(3)?, next(4)?, next(5)?, next(6)?);
        let mut principal = Self {
            pseudonym: pseudonyms.of(claims.appid.as_str(), claims.openid.as_str()),
            openid,
            appid,
            unionid: claims.unionid.is_some().then_some(unionid),
            member,
            session,
            user: claims.user_id.is_some().then_some(user),
            roles: (!claims.roles.is_empty()).then_some(role_list),
            assertions: Assertions::default(),
            renewal: Renewal::default(),
            lines: Bytes::new(),
            claims,
        };
        principal.lines = identity::lines(&principal);
        Ok(principal)
    }

    /// When its token ends.
    pub fn expires_at(&self) -> Timestamp {
        self.claims.expires_at
    }
}
