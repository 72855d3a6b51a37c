//! Whether an access token is good now: verified and not revoked. The one place that puts the two together.

use super::Claims;
use super::revocation::Revocations;
use super::verify::{self, Verifier};

/// Why an access token was refused. Carries nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not verify.
    #[error(transparent)]
    Unverified(#[from] verify::Error),
    /// It was good, and its session was ended.
    #[error("the token was revoked")]
    Revoked,
    /// It may have been revoked: this instance has not heard from the others for too long.
    #[error("what was revoked elsewhere has not been heard for too long")]
    Stale,
    /// It names a key that is not known here, and the keys could not be looked at lately: it may be a new one of ours.
    #[error("the token names a key that is not known, and the keys could not be read lately")]
    KeysMissed,
}

/// What the verifier found, where the ring may be behind: nobody is told that a token is bad because this instance cannot know.
///
/// # Errors
/// The verifier's, or [`Error::KeysMissed`].
pub fn verified(found: Result<Claims, verify::Error>, revocations: &Revocations) -> Result<Claims, Error> {
    match found {
        Err(verify::Error::UnknownKey) if revocations.freshness().has_missed_keys() => Err(Error::KeysMissed),
        found => Ok(found?),
    }
}

/// What `token` says, if it is good now; with the member's roles of today, should they have been changed since.
///
/// # Errors
/// The first reason to refuse it.
pub fn check(verifier: &Verifier, revocations: &Revocations, token: &[u8]) -> Result<Claims, Error> {
    check_read(revocations, verified(verifier.verify(token), revocations)?)
}

/// As [`check`], for what a handle stands for, once that was read.
///
/// # Errors
/// [`Error::Revoked`], [`Error::Stale`].
pub fn check_read(revocations: &Revocations, mut claims: Claims) -> Result<Claims, Error> {
    check_again(revocations, &claims)?;
    if let Some(roles) = revocations.roles().of(&claims.member_id) {
        claims.roles = roles.to_vec();
    }
    Ok(claims)
}

/// As [`check`], for what was verified a moment ago and has not expired since.
///
/// # Errors
/// [`Error::Revoked`], [`Error::Stale`].
pub fn check_again(revocations: &Revocations, claims: &Claims) -> Result<(), Error> {
    if revocations.is_revoked(claims) {
        return Err(Error::Revoked);
    }
    if revocations.freshness().is_stale() { Err(Error::Stale) } else { Ok(()) }
}
