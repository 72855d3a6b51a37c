//! The private half of a key, prepared once: to read a key again for each signature, as `jsonwebtoken::encode` does, costs as much as the
//! signature.

use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use aws_lc_rs::{hmac, rand};

/// What signs, by the algorithm that it is for (RFC 7518, section 3.1; RFC 8037).
pub(super) enum Signer {
    /// HMAC with SHA-256. Checks as well.
    Hs256(Box<hmac::Key>),
    /// ECDSA on P-256 with SHA-256.
    Es256(EcdsaKeyPair),
    /// Ed25519.
    EdDsa(Ed25519KeyPair),
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256(RsaKeyPair),
}

/// The library refused to sign, or had no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused;

impl Signer {
    /// The signature of `message`, as it stands in a JWS.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Refused> {
        let random = rand::SystemRandom::new();
        Ok(match self {
            Self::Hs256(key) => hmac::sign(key, message).as_ref().to_vec(),
            Self::Es256(pair) => pair.sign(&random, message).map_err(|_| Refused)?.as_ref().to_vec(),
            Self::EdDsa(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(|_| Refused)?;
                signature
            }
        })
    }
}
