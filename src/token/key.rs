//! One key of the ring: bound to one algorithm, named by its thumbprint, prepared for signing and for checking.
//!
//! *Name.* `kid` is the RFC 7638 thumbprint (SHA-256, base64url). For a shared secret that is a hash of the secret itself,
//! and every token shows it. This gives nothing away that the token does not: whoever holds one token can already test a
//! guess at the secret against its HMAC, at about the same price, and against 256 random bits neither helps. A secret of
//! less entropy (a word of 32 letters) is lost either way; [`Fault::Short`] refuses what is too short, no check can refuse
//! what is guessable (RFC 7638, section 7; RFC 7518, section 3.2).
//!
//! *Algorithm.* It belongs to the key. What a token's header says is compared with it and never chooses (RFC 8725,
//! section 3.1).

use std::fmt;

use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair,
};
use aws_lc_rs::{digest, encoding::AsDer as _, encoding::Pkcs8V1Der, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::pkcs8::{self, Kind};
use super::signer::{Refused, Signer};
use crate::config::Algorithm;

/// Fewest bytes of an HS256 secret: the output of the hash (RFC 7518, section 3.2).
pub const MIN_SECRET: usize = 32;

/// Fewest bytes of an RSA modulus: 2048 bits (RFC 7518, section 3.3).
const MIN_MODULUS: usize = 256;

/// Characters of a `kid`: 32 bytes in base64url.
pub(super) const KID_LEN: usize = 43;

/// What is wrong with a key. Says nothing of the key's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // each variant's text is its documentation
pub enum Fault {
    #[error(
        "it is not a PEM file with a PKCS#8 private key; from DER: `openssl pkey -inform DER -in FILE -out key.pem`"
    )]
    NotPem,
    #[error("it is a PKCS#1 key (BEGIN RSA PRIVATE KEY); convert it to PKCS#8: `openssl pkey -in FILE -out key.pem`")]
    Pkcs1,
    #[error("it is a SEC 1 key (BEGIN EC PRIVATE KEY); convert it to PKCS#8: `openssl pkey -in FILE -out key.pem`")]
    Sec1,
    #[error("it is encrypted with a passphrase; remove it: `openssl pkey -in FILE -out key.pem`")]
    Encrypted,
    #[error("it is an OpenSSH key; convert a copy: `ssh-keygen -p -m PKCS8 -f COPY`")]
    OpenSsh,
    #[error("it is a public key or a certificate; tokens are signed with the private key that belongs to it")]
    Public,
    #[error("it holds more than one PEM block; leave only the private key")]
    SeveralKeys,
    #[error("it is damaged: the PEM block does not hold a PKCS#8 key")]
    NotPkcs8,
    #[error(
        "it is on another curve than P-256; make one: `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`"
    )]
    Curve,
    #[error("it is of a kind that signs no tokens here; ES256 (P-256), EdDSA (Ed25519) and RS256 (RSA) do")]
    Kind,
    #[error(
        "it is an RSA key of less than 2048 bits; make one: `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`"
    )]
    Weak,
    #[error("it is shorter than {MIN_SECRET} bytes; make a secret: `openssl rand -out secret.bin {MIN_SECRET}`")]
    Short,
    #[error("it is damaged: the numbers in it do not make a key")]
    Unsound,
    #[error("it does not hold the key that its name says; restore it from the backup")]
    Misnamed,
    #[error("it could not be made: the system gives no random numbers")]
    NoRandomness,
}

/// A signing key, ready for use.
pub struct Key {
    algorithm: Algorithm,
    kid: Box<str>,
    signer: Signer,
    /// The public half; a secret has none.
    public: Option<ParsedPublicKey>,
    jwk: Option<String>,
}

impl Key {
    /// From a PEM file with a PKCS#8 key, whose kind decides the algorithm.
    ///
    /// # Errors
    /// The [`Fault`] of the file or of the key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Fault> {
        let der = pkcs8::from_pem(pem)?;
        let unsound = |_| Fault::Unsound;
        match pkcs8::open(&der)? {
            (Kind::P256, _) => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).map_err(unsound)?;
                // An uncompressed point: 4, x, y (SEC 1, section 2.3.3).
                let point = pair.public_key().as_ref();
                let (x, y) = point.get(1..).unwrap_or_default().split_at_checked(32).ok_or(Fault::Unsound)?;
                let jwk = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, b64(x), b64(y));
                let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(unsound)?;
                Ok(Self::public(Algorithm::Es256, Signer::Es256(pair), public, jwk))
            }
            (Kind::Ed25519, _) => {
                let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(unsound)?;
                let point = pair.public_key().as_ref();
                let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, b64(point));
                let public = ParsedPublicKey::new(&ED25519, point).map_err(unsound)?;
                Ok(Self::public(Algorithm::EdDsa, Signer::EdDsa(pair), public, jwk))
            }
            (Kind::Rsa, inner) => {
                let (modulus, _) = pkcs8::rsa_integers(inner, true).ok_or(Fault::NotPkcs8)?;
                if modulus.len() < MIN_MODULUS || (modulus.len() == MIN_MODULUS && modulus[0] < 0x80) {
                    return Err(Fault::Weak);
                }
                let pair = RsaKeyPair::from_pkcs8(&der).map_err(unsound)?;
                let public = pair.public_key().as_ref();
                let (n, e) = pkcs8::rsa_integers(public, false).ok_or(Fault::Unsound)?;
                let jwk = format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, b64(e), b64(n));
                let public = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public).map_err(unsound)?;
                Ok(Self::public(Algorithm::Rs256, Signer::Rs256(pair), public, jwk))
            }
        }
    }

    /// An HS256 key: the bytes as they stand, a line end at their end included.
    ///
    /// # Errors
    /// [`Fault::Short`] below [`MIN_SECRET`] bytes.
    pub fn from_secret(secret: &[u8]) -> Result<Self, Fault> {
        if secret.len() < MIN_SECRET {
            return Err(Fault::Short);
        }
        let jwk = Zeroizing::new(format!(r#"{{"k":"{}","kty":"oct"}}"#, Zeroizing::new(b64(secret)).as_str()));
        Ok(Self {
            algorithm: Algorithm::Hs256,
            kid: thumbprint(&jwk),
            signer: Signer::Hs256(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret))),
            public: None,
            jwk: None,
        })
    }

    /// The key in a key file of this algorithm.
    pub(super) fn from_file(algorithm: Algorithm, content: &[u8]) -> Result<Self, Fault> {
        match algorithm {
            Algorithm::Hs256 => Self::from_secret(content),
            Algorithm::Es256 | Algorithm::EdDsa | Algorithm::Rs256 => Self::from_pem(content),
        }
    }

    /// The content of a key file with a new key: PEM, or for HS256 32 random bytes.
    pub(super) fn generate(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let failed = |_| Fault::NoRandomness;
        let random = rand::SystemRandom::new();
        Ok(match algorithm {
            Algorithm::Es256 => pkcs8::to_pem(
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(failed)?.as_ref(),
            ),
            Algorithm::EdDsa => pkcs8::to_pem(Ed25519KeyPair::generate_pkcs8v1(&random).map_err(failed)?.as_ref()),
            Algorithm::Rs256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                pkcs8::to_pem(der.as_ref())
            }
            Algorithm::Hs256 => {
                let mut secret = Zeroizing::new(vec![0; MIN_SECRET]);
                rand::fill(&mut secret).map_err(failed)?;
                secret
            }
        })
    }

    fn public(algorithm: Algorithm, signer: Signer, public: ParsedPublicKey, jwk: String) -> Self {
        Self { algorithm, kid: thumbprint(&jwk), signer, public: Some(public), jwk: Some(jwk) }
    }

    /// The one algorithm that this key signs and checks with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its name in tokens and in the JWKS: the RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The signature of `message`, raw as in a JWS.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Refused> {
        self.signer.sign(message)
    }

    /// The members of the public JWK that RFC 7638 hashes, as JSON; `None` for a secret, which is nobody's to read.
    pub(super) fn jwk(&self) -> Option<&str> {
        self.jwk.as_deref()
    }

    /// Whether `signature` (raw, as in a JWS) is this key's over `message`.
    pub fn checks(&self, message: &[u8], signature: &[u8]) -> bool {
        match (&self.signer, &self.public) {
            (Signer::Hs256(key), _) => hmac::verify(key, message, signature).is_ok(),
            (_, Some(key)) => key.verify_sig(message, signature).is_ok(),
            (_, None) => false,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("algorithm", &self.algorithm).field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// SHA-256 of the required members in order of their names, without white space (RFC 7638, section 3).
fn thumbprint(members: &str) -> Box<str> {
    b64(digest::digest(&digest::SHA256, members.as_bytes()).as_ref()).into()
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_of_each_algorithm_has_its_algorithm_and_a_thumbprint() {
        for algorithm in Algorithm::ALL {
            let content = Key::generate(algorithm).unwrap();
            let key = Key::from_file(algorithm, &content).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            assert_eq!(key.kid().len(), KID_LEN);
            assert_eq!(key.kid(), Key::from_file(algorithm, &content).unwrap().kid(), "stable");
            assert_eq!(key.jwk().is_none(), algorithm == Algorithm::Hs256);
        }
    }

    /// The example of RFC 7638, section 3.1.
    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        let members = concat!(
            r#"{"e":"AQAB","kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFF"#,
            "xuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_F",
            "DW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2",
            r#"NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}"#,
        );
        assert_eq!(&*thumbprint(members), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn a_secret_below_256_bits_is_refused() {
        assert_eq!(Key::from_secret(&[7; MIN_SECRET - 1]).unwrap_err(), Fault::Short);
        assert!(Key::from_secret(&[7; MIN_SECRET]).is_ok());
    }

    #[test]
    fn another_curve_another_kind_and_damage_are_told_apart() {
        let p384 = EcdsaKeyPair::generate_pkcs8(
            &aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            &rand::SystemRandom::new(),
        )
        .unwrap();
        assert_eq!(Key::from_pem(&pkcs8::to_pem(p384.as_ref())).unwrap_err(), Fault::Curve);

        // An X25519 key agrees on secrets and signs nothing (RFC 8410).
        let x25519 = [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 0x22, 4, 0x20][..], &[9; 32]].concat();
        assert_eq!(Key::from_pem(&pkcs8::to_pem(&x25519)).unwrap_err(), Fault::Kind);

        let mut damaged = pkcs8::from_pem(&Key::generate(Algorithm::Es256).unwrap()).unwrap();
        let middle = damaged.len() / 2;
        damaged[middle..].fill(0xff);
        assert_eq!(Key::from_pem(&pkcs8::to_pem(&damaged)).unwrap_err(), Fault::Unsound);
    }

    #[test]
    fn an_rsa_key_below_2048_bits_is_refused() {
        let value = |tag: u8, body: &[u8]| {
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            [&[tag, 0x82][..], &length, body].concat()
        };
        for (first, bytes) in [(0xff, 128), (0x7f, 256)] {
            let modulus = [vec![0, first], vec![1; bytes - 1]].concat();
            let numbers = [value(2, &[0]), value(2, &modulus), value(2, &[1, 0, 1])].concat();
            let rsa_encryption = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
            let key = [value(2, &[0]), value(0x30, &rsa_encryption), value(4, &value(0x30, &numbers))].concat();
            assert_eq!(Key::from_pem(&pkcs8::to_pem(&value(0x30, &key))).unwrap_err(), Fault::Weak);
        }
    }

    #[test]
    fn debug_output_shows_no_key() {
        let key = Key::from_secret(b"a secret that must not be printed").unwrap();
        let shown = format!("{key:?}");
        assert!(shown.contains(key.kid()) && !shown.contains("secret"), "{shown}");
    }
}
