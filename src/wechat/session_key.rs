//! The `session_key`: the secret that WeChat, the user's client and we share about one login.
//!
//! WeChat uses it in two shapes. Signatures take the base64 *text* as it came; decryption takes the 16 decoded bytes. Both
//! shapes are kept here, and neither is ever printed. It must not leave the gateway (official page "Service-side access
//! to open data").

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

/// Length of the decoded key in bytes: AES-128.
pub const KEY_LEN: usize = 16;

/// Why a text is no session_key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not the base64 text of {KEY_LEN} bytes")]
pub struct InvalidSessionKey;

/// One session_key. `Debug` shows nothing; the memory is wiped when it goes.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct SessionKey {
    text: String,
    bytes: [u8; KEY_LEN],
}

impl SessionKey {
    /// Takes the base64 text as WeChat sent it.
    ///
    /// # Errors
    /// When it does not decode to exactly 16 bytes. A shorter key is not padded: it would be a weaker one.
    pub fn parse(text: &str) -> Result<Self, InvalidSessionKey> {
        let decoded = Zeroizing::new(STANDARD.decode(text).map_err(|_| InvalidSessionKey)?);
        let bytes = <[u8; KEY_LEN]>::try_from(decoded.as_slice()).map_err(|_| InvalidSessionKey)?;
        Ok(Self { text: text.to_owned(), bytes })
    }

    /// The key whose decoded form is `bytes`.
    pub fn from_bytes(mut bytes: [u8; KEY_LEN]) -> Self {
        let key = Self { text: STANDARD.encode(bytes), bytes };
        bytes.zeroize();
        key
    }

    /// The base64 text: what signatures are made with. Must not reach a log, an error or a client.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The decoded key: what AES takes.
    pub fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.bytes
    }

    /// The signature that `wxa/checksession` and its kin ask for: lower-case hex of HMAC-SHA256 over `message` (empty for
    /// GET calls), keyed with the *text* (official page "User login state signature").
    pub fn sign(&self, message: &[u8]) -> String {
        hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.text.as_bytes()), message).as_ref())
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

/// Lower-case hexadecimal.
pub(in crate::wechat) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_base64_of_sixteen_bytes_is_a_session_key() {
        let key = SessionKey::parse("tiihtNczf5v6AKRyjwEUhQ==").unwrap();
        assert_eq!(SessionKey::from_bytes(*key.bytes()), key);
        for bad in ["", "tiihtNczf5v6AKRyjwEUhQ", "tiihtNczf5v6AKRyjwEU", "tiihtNczf5v6AKRyjwEUhQA=", "%%%", "ö"] {
            assert!(SessionKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_output_does_not_show_it() {
        let shown = format!("{:?}", SessionKey::parse("tiihtNczf5v6AKRyjwEUhQ==").unwrap());
        assert_eq!(shown, "SessionKey(…)");
    }

    #[test]
    fn it_signs_as_the_published_examples_do() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/vectors/wechat.json")).unwrap();
        let vectors: Vec<_> =
            file["vectors"].as_array().unwrap().iter().filter(|v| v["kind"] == "session_hmac").collect();
        assert_eq!(vectors.len(), 2);
        for vector in vectors {
            let key = SessionKey::parse(vector["session_key"].as_str().unwrap()).unwrap();
            let signature = key.sign(vector["message"].as_str().unwrap().as_bytes());
            assert_eq!(signature, vector["expect"]["signature"].as_str().unwrap(), "{}", vector["id"]);
        }
    }
}
