//! Tokens: what is in them, how they are signed, how they are checked.
//!
//! *Access token*: a JWT (RFC 9068 profile, `typ: at+jwt`), minted by [`mint`] with the active key of [`keys`], checked by
//! [`verify`] without a store, published by [`jwks`]; [`cache`] remembers what was verified, [`access`] judges. *Assertion*: a JWT for one
//! upstream, [`assertion`]. *Handle*: an opaque access token in place of the JWT, [`handle`]. *Refresh token*: opaque,
//! [`refresh`]. What was revoked before its time is in [`revocation`], whose roles were
//! changed in [`roles`], what was
//! prolonged in [`renewal`]. HTTP is unknown here: where a token stands in a
//! request is the pipeline's business.

pub mod access;
pub mod assertion;
pub mod cache;
mod directory;
#[cfg(test)]
pub(crate) mod fixture;
pub mod freshness;
pub mod handle;
mod header;
pub mod jwks;
pub mod key;
pub mod keys;
pub mod mint;
mod object;
mod payload;
mod pkcs8;
pub mod recent;
pub mod refresh;
pub mod renewal;
pub mod revocation;
pub mod roles;
pub mod rotation;
pub mod sign;
mod signer;
pub mod verify;

use crate::clock::Timestamp;
use crate::ids::{self, AppId, MemberId, OpenId, SessionId, UnionId, UserId};

/// `typ` of an access token (RFC 9068, section 2.1).
pub const ACCESS_TYP: &str = "at+jwt";

/// `typ` of an assertion (RFC 8725, section 3.11).
pub const ASSERTION_TYP: &str = "wxgate-assertion+jwt";

/// How far `iat` and `nbf` may lie in the future, seconds. `exp` has no leeway.
pub const LEEWAY_SECS: i64 = 60;

/// Longest access token that is looked at, bytes.
pub const MAX_TOKEN: usize = 8 * 1024;

/// Whether a role or a `jti` can stand in a header and in a list: visible ASCII without comma, 1 to 128 bytes.
pub fn is_name(text: &str) -> bool {
    (1..=ids::MAX_LEN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

/// Names of claims that have a meaning here or in a standard that readers of our tokens follow (RFC 7519, RFC 9068, OpenID
/// Connect): nobody else's claim may have one.
const RESERVED_CLAIMS: &[&str] = &[
    "acr",
    "act",
    "amr",
    "appid",
    "at_hash",
    "aud",
    "auth_time",
    "azp",
    "c_hash",
    "client_id",
    "cnf",
    "events",
    "exp",
    "iat",
    "iss",
    "jti",
    "may_act",
    "nbf",
    "nonce",
    "openid",
    "roles",
    "scope",
    "sid",
    "sub",
    "typ",
    "unionid",
    "user_id",
];

/// Whether a claim of this name is the gateway's alone.
pub fn is_reserved_claim(name: &str) -> bool {
    RESERVED_CLAIMS.contains(&name)
}

/// What a verified access token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `sub`.
    pub member_id: MemberId,
    /// `sid`.
    pub session_id: SessionId,
    /// `appid`.
    pub appid: AppId,
    /// `openid`.
    pub openid: OpenId,
    /// `unionid`, when known.
    pub unionid: Option<UnionId>,
    /// `roles`, when any.
    pub roles: Vec<String>,
    /// `user_id`, when the login hook gave one.
    pub user_id: Option<UserId>,
    /// `jti`; absent in tokens that others minted without one.
    pub jti: Option<String>,
    /// `auth_time`; absent in tokens that others minted without one.
    pub auth_time: Option<Timestamp>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
}

/// What a new access token shall say; `iat`, `exp` and `jti` are the mint's.
#[derive(Debug, Clone)]
pub struct Grant {
    /// `sub`.
    pub member_id: MemberId,
    /// `sid`.
    pub session_id: SessionId,
    /// `appid` and `client_id`.
    pub appid: AppId,
    /// `openid`.
    pub openid: OpenId,
    /// `unionid`, when known.
    pub unionid: Option<UnionId>,
    /// `roles`; left out when empty.
    pub roles: Vec<String>,
    /// `user_id`, when the login hook gave one.
    pub user_id: Option<UserId>,
    /// Claims of the login hook: a JSON object as text, or nothing. Names that are reserved are left out.
    pub claims: String,
    /// `auth_time`: the login that opened the session.
    pub auth_time: Timestamp,
    /// Absolute end of the session; `exp` is never later.
    pub session_expires_at: Timestamp,
}
