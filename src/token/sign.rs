//! Signs claims with an active key of the ring: the one place that writes a JWT.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Header;
use serde::Serialize;

use super::ACCESS_TYP;
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

/// A JWT of this type with these claims, signed for `algorithm` ([`KeyRing::signer`]). Only an access token may be signed
/// by a key that is not published.
pub(super) fn sign(
    ring: &KeyRing,
    algorithm: Algorithm,
    typ: &str,
    claims: &impl Serialize,
) -> Result<Secret<String>, Error> {
    let key = ring.signer(algorithm, typ != ACCESS_TYP).ok_or(Error::NoKey)?;
    let mut header = Header::new(match key.algorithm() {
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
    });
    header.typ = Some(typ.to_owned());
    header.kid = Some(key.kid().to_owned());
    let mut token = String::with_capacity(1024);
    write(&mut token, &header)?;
    token.push('.');
    write(&mut token, claims)?;
    let signature = key.sign(token.as_bytes()).map_err(|_| Error::Signing)?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(Secret::new(token))
}

/// A part of a JWS in its compact form (RFC 7515, section 7.1).
fn write(token: &mut String, part: &impl Serialize) -> Result<(), Error> {
    let json = serde_json::to_vec(part).map_err(|_| Error::Signing)?;
    URL_SAFE_NO_PAD.encode_string(json, token);
    Ok(())
}
