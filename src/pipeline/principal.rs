//! The caller of one request, as a verified token names him, ready for headers and log.
//!
//! Made once per token and kept in the cache of verified tokens: the header values are slices of one buffer, so that a
//! request with a known token copies and checks nothing.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;

use crate::clock::Timestamp;
use crate::telemetry::{Pseudonym, Pseudonyms};
use crate::token::Claims;
use crate::token::cache::Expires;
use crate::token::recent::HasToken;

use super::assertion::Assertions;
use super::identity;
use super::renew::Renewal;

/// A verified caller.
///
/// In the order that it says: what every request looks at comes first. A thousand callers are more than what is next to a
/// processor holds, and then it is the lines of memory that are looked at which cost, not what is done with them.
#[repr(C)]
pub struct Principal {
    record: Record,
    expires_at: Timestamp,
    /// The person's name in logs.
    pub pseudonym: Pseudonym,
    /// What the token says.
    pub claims: Claims,
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
    /// `X-Wxgate-Assertion`, where routes asked for it.
    pub assertions: Assertions,
    /// The token that is to follow this one, once it is about to expire.
    pub renewal: Renewal,
}

/// The token, with which the one of a request is compared, and right behind it the lines that its request gets: who reads the one
/// from its beginning to its end finds the other near already.
struct Record {
    bytes: Bytes,
    /// Where the lines begin.
    lines: usize,
    /// Where in them the member's id stands.
    member: Range<usize>,
}

/// Without the token, and without what says who it is: the pseudonym does.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pseudonym, expires_at, .. } = self;
        f.debug_struct("Principal")
            .field("pseudonym", pseudonym)
            .field("expires_at", expires_at)
            .finish_non_exhaustive()
    }
}

/// A claim cannot stand in a header. The verifier refuses such tokens; this is the second lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unprintable;

impl Principal {
    /// Of a verified token and its claims.
    ///
    /// # Errors
    /// When a claim cannot stand in a header.
    pub fn new(token: &[u8], claims: Claims, pseudonyms: &Pseudonyms) -> Result<Self, Unprintable> {
        let (bytes, places) = identity::record(token, &claims);
        let [openid, appid, unionid, _, member, roles, user, session] = places;
        let value =
            |at: &Range<usize>| HeaderValue::from_maybe_shared(bytes.slice(at.clone())).map_err(|_| Unprintable);
        let known = |at: &Range<usize>| if at.is_empty() { Ok(None) } else { value(at).map(Some) };
        Ok(Self {
            expires_at: claims.expires_at,
            pseudonym: pseudonyms.of(claims.appid.as_str(), claims.openid.as_str()),
            openid: value(&openid)?,
            appid: value(&appid)?,
            unionid: known(&unionid)?,
            member: value(&member)?,
            session: value(&session)?,
            user: known(&user)?,
            roles: known(&roles)?,
            assertions: Assertions::default(),
            renewal: Renewal::default(),
            claims,
            record: Record { lines: token.len(), member, bytes },
        })
    }

    /// Its headers, and `X-WX-SOURCE`, as lines.
    pub fn lines(&self) -> &[u8] {
        &self.record.bytes[self.record.lines..]
    }

    /// The member's id, from where its lines are.
    pub fn member_id(&self) -> &str {
        std::str::from_utf8(&self.record.bytes[self.record.member.clone()]).unwrap_or_default()
    }

    /// When its token ends.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
}

impl Expires for Principal {
    fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
}

impl HasToken for Principal {
    fn token(&self) -> &[u8] {
        &self.record.bytes[..self.record.lines]
    }

    fn kept_token(&self) -> Bytes {
        self.record.bytes.slice(..self.record.lines)
    }
}
