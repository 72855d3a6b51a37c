//! Signs claims with an active key of the ring: the one place that writes a JWT.

use jsonwebtoken::Header;
use serde::Serialize;

use super::keys::KeyRing;
use crate::config::Algorithm;
use crate::ids::Secret;

/// Why nothing was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The ring has no active key of the algorithm; a ring that was opened for it has.
    #[error("there is no key to sign with")]
    NoKey,
    /// The key could not sign.
    #[error("the token could not be signed")]
    Signing,
}

/// A JWT of this type with these claims, signed by the active key of `algorithm`.
pub(super) fn sign(
    ring: &KeyRing,
    algorithm: Algorithm,
    typ: &str,
    claims: &impl Serialize,
) -> Result<Secret<String>, Error> {
    let key = ring.signing_key(algorithm).ok_or(Error::NoKey)?;
    let mut header = Header::new(match algorithm {
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
    });
    header.typ = Some(typ.to_owned());
    header.kid = Some(key.kid().to_owned());
    jsonwebtoken::encode(&header, claims, key.signer()).map(Secret::new).map_err(|_| Error::Signing)
}
