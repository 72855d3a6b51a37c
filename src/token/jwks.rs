//! The public keys of the ring as a JWK Set (RFC 7517, section 5), for services that verify tokens themselves.
//!
//! Every key that verifies here is in it, the retiring ones too. A shared secret has no public half and never is.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::keys::KeyRing;

/// Media type (RFC 7517, section 8.5.2).
pub const CONTENT_TYPE: &str = "application/jwk-set+json";

/// `Cache-Control` of the answer. Five minutes: a key is published before it signs, so a copy may be as old as that lead
/// is long; and a key that had to be withdrawn must be gone from everybody's cache soon. Public: it is the same for all.
pub const CACHE_CONTROL: &str = "public, max-age=300";

/// The document.
pub fn document(ring: &KeyRing) -> String {
    let mut keys = String::new();
    for key in ring.entries().iter().map(|entry| &entry.key) {
        // The members that the thumbprint hashes are the public key and nothing else (RFC 7638, section 3.2).
        let Some(public) = key.jwk().and_then(|jwk| jwk.strip_suffix('}')) else { continue };
        let (alg, kid) = (key.algorithm().name(), key.kid());
        let comma = if keys.is_empty() { "" } else { "," };
        keys.push_str(&format!(r#"{comma}{public},"use":"sig","alg":"{alg}","kid":"{kid}"}}"#));
    }
    format!(r#"{{"keys":[{keys}]}}"#)
}

/// A strong `ETag` (RFC 9110, section 8.8.3) of a document, with its quotes.
pub fn etag(document: &str) -> String {
    let hash = digest::digest(&digest::SHA256, document.as_bytes());
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(hash.as_ref()))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{DecodingKey, Validation};

    use super::super::fixture::{self, section};
    use super::super::mint::Minter;
    use super::*;
    use crate::clock::Clock;
    use crate::config::Algorithm;

    #[test]
    fn a_service_verifies_with_the_published_keys_alone() {
        let ring = fixture::ring();
        let set: JwkSet = serde_json::from_str(&document(&ring)).unwrap();
        assert_eq!(set.keys.len(), 3, "HS256 is not published");
        for (algorithm, theirs) in [
            (Algorithm::Es256, jsonwebtoken::Algorithm::ES256),
            (Algorithm::EdDsa, jsonwebtoken::Algorithm::EdDSA),
            (Algorithm::Rs256, jsonwebtoken::Algorithm::RS256),
        ] {
            let minter = Minter::new(ring.clone(), &section(algorithm), Clock::system());
            let minted = minter.mint(&fixture::grant(Clock::system().now())).unwrap();
            let header = jsonwebtoken::decode_header(minted.token.expose()).unwrap();
            let jwk = set.find(header.kid.as_deref().unwrap()).unwrap();
            assert_eq!(jwk.common.key_algorithm.unwrap().to_string(), algorithm.name());
            let mut validation = Validation::new(theirs);
            validation.set_audience(&["wxgate"]);
            let key = DecodingKey::from_jwk(jwk).unwrap();
            let data = jsonwebtoken::decode::<serde_json::Value>(minted.token.expose(), &key, &validation).unwrap();
            assert_eq!(data.claims["sub"], "member-1");
        }
    }

    #[test]
    fn nothing_private_is_published() {
        let document: serde_json::Value = serde_json::from_str(&document(&fixture::ring())).unwrap();
        for key in document["keys"].as_array().unwrap() {
            for (name, _) in key.as_object().unwrap() {
                assert!(["kty", "use", "alg", "kid", "crv", "x", "y", "n", "e"].contains(&name.as_str()), "{name}");
            }
        }
    }

    #[test]
    fn the_etag_is_quoted_and_follows_the_document() {
        let document = document(&fixture::ring());
        assert_eq!(etag(&document), etag(&document));
        assert_ne!(etag(&document), etag(r#"{"keys":[]}"#));
        assert!(etag(&document).starts_with('"') && etag(&document).ends_with('"'));
    }
}
