//! Message push: the signature of a callback, and the envelope of safe mode. Pure functions.
//!
//! Official pages "Message push" and "Message encryption notes". In safe mode `msg_signature` is over the ciphertext and
//! must be checked before anything else; `signature`, over the query alone, is then to be ignored. What the messages say
//! is read by [`message`](super::message).

use aes::Aes256;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD};
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _};
use sha1::{Digest as _, Sha1};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::session_key::hex;

/// Block of AES, bytes.
const BLOCK: usize = 16;

/// What the padding fills up to, bytes: PKCS#7 with the block of another cipher.
const PAD_BLOCK: usize = 32;

/// Random bytes before the message.
const RANDOM: usize = 16;

/// Bytes of the message's length.
const LENGTH: usize = 4;

/// The 43rd character of an EncodingAESKey holds two spare bits, which are set at random.
const LOOSE: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// An EncodingAESKey. Never shown.
#[derive(Clone)]
pub struct AesKey(Zeroizing<[u8; 32]>);

impl AesKey {
    /// From the 43 characters of the WeChat console; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 43 {
            return None;
        }
        let padded = Zeroizing::new(format!("{text}="));
        let bytes = Zeroizing::new(LOOSE.decode(padded.as_bytes()).ok()?);
        Some(Self(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }

    fn iv(&self) -> [u8; BLOCK] {
        let mut iv = [0; BLOCK];
        iv.copy_from_slice(&self.0[..BLOCK]);
        iv
    }
}

impl std::fmt::Debug for AesKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AesKey(…)")
    }
}

/// A ciphertext that is not one of this key and app. Deliberately one for all faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message could not be decrypted")]
pub struct Unreadable;

/// The signature of these parts: token, timestamp and nonce, in safe mode also the ciphertext. Sorted as bytes, whatever
/// their order here.
pub fn signature(parts: &[&str]) -> String {
    let mut parts = parts.to_vec();
    parts.sort_unstable();
    let mut hash = Sha1::new();
    for part in parts {
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// Whether `shown` is the signature of `parts`. Takes the same time wherever the two differ.
pub fn is_signed(shown: &str, parts: &[&str]) -> bool {
    signature(parts).as_bytes().ct_eq(shown.as_bytes()).into()
}

/// The message in a ciphertext whose signature was checked: random (16) | length (4, big endian) | message | appid.
///
/// # Errors
/// [`Unreadable`], also when the appid at the end is another one.
pub fn open(key: &AesKey, encrypted: &str, appid: &str) -> Result<Vec<u8>, Unreadable> {
    let ciphertext = STANDARD.decode(encrypted).map_err(|_| Unreadable)?;
    if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(BLOCK) {
        return Err(Unreadable);
    }
    let padded = Zeroizing::new(
        cbc::Decryptor::<Aes256>::new((&*key.0).into(), &key.iv().into())
            .decrypt_padded_vec::<NoPadding>(&ciphertext)
            .map_err(|_| Unreadable)?,
    );
    let pad = usize::from(*padded.last().ok_or(Unreadable)?);
    if !(1..=PAD_BLOCK).contains(&pad) || pad > padded.len() {
        return Err(Unreadable);
    }
    let (plain, padding) = padded.split_at(padded.len() - pad);
    if padding.iter().any(|byte| usize::from(*byte) != pad) {
        return Err(Unreadable);
    }
    let (length, rest) = plain.get(RANDOM..).and_then(<[u8]>::split_first_chunk::<LENGTH>).ok_or(Unreadable)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Unreadable)?;
    let (message, end) = rest.split_at_checked(length).ok_or(Unreadable)?;
    if end != appid.as_bytes() {
        return Err(Unreadable);
    }
    Ok(message.to_vec())
}

/// Encrypts `message` as [`open`] reads it: our replies, and the pushes of the simulator. `None` for one whose length does
/// not fit in 32 bits.
pub fn seal(key: &AesKey, random: &[u8; RANDOM], message: &[u8], appid: &str) -> Option<String> {
    let length = u32::try_from(message.len()).ok()?;
    let mut plain = Zeroizing::new(Vec::with_capacity(RANDOM + LENGTH + message.len() + appid.len() + PAD_BLOCK));
    plain.extend_from_slice(random);
    plain.extend_from_slice(&length.to_be_bytes());
    plain.extend_from_slice(message);
    plain.extend_from_slice(appid.as_bytes());
    let pad = PAD_BLOCK - plain.len() % PAD_BLOCK;
    let padded = plain.len() + pad;
    plain.resize(padded, u8::try_from(pad).ok()?);
    let encryptor = cbc::Encryptor::<Aes256>::new((&*key.0).into(), &key.iv().into());
    Some(STANDARD.encode(encryptor.encrypt_padded_vec::<NoPadding>(&plain)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::wechat::message;

    fn vectors(kind: &str) -> Vec<Value> {
        let file: Value = serde_json::from_str(include_str!("../../tests/data/vectors/wechat.json")).unwrap();
        let found: Vec<_> = file["vectors"].as_array().unwrap().iter().filter(|v| v["kind"] == kind).cloned().collect();
        assert!(!found.is_empty(), "{kind}");
        found
    }

    fn text<'a>(vector: &'a Value, path: &str) -> &'a str {
        vector.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("{path} in {vector}"))
    }

    fn key(vector: &Value) -> AesKey {
        AesKey::parse(text(vector, "/encoding_aes_key")).unwrap()
    }

    #[test]
    fn the_official_plain_signatures() {
        for vector in vectors("push_plain_signature") {
            let parts = [text(&vector, "/token"), text(&vector, "/timestamp"), text(&vector, "/nonce")];
            let shown = text(&vector, "/expect/signature");
            assert!(is_signed(shown, &parts), "{vector}");
            assert!(!is_signed(&shown.to_uppercase(), &parts) && !is_signed(&shown[1..], &parts));
            assert!(!is_signed(shown, &["", parts[1], parts[2]]));
        }
    }

    #[test]
    fn the_official_messages_of_safe_mode() {
        for vector in vectors("push_safe") {
            let body = match vector["body_xml"].as_str() {
                Some(xml) => xml.to_owned(),
                None => vector["body"].to_string(),
            };
            let (envelope, _) = message::parse(body.as_bytes()).unwrap();
            let encrypted = envelope["Encrypt"].as_str().unwrap();
            let query = |name: &str| text(&vector, &format!("/query/{name}"));
            let parts = [text(&vector, "/token"), query("timestamp"), query("nonce"), encrypted];
            assert!(is_signed(query("msg_signature"), &parts), "{vector}");
            let opened = open(&key(&vector), encrypted, text(&vector, "/appid")).unwrap();
            assert_eq!(String::from_utf8(opened.clone()).unwrap(), text(&vector, "/expect/msg"));
            let (inner, _) = message::parse(&opened).unwrap();
            assert_eq!(inner["Event"], "debug_demo");
            assert_eq!(open(&key(&vector), encrypted, "wxanother"), Err(Unreadable));
        }
    }

    #[test]
    fn the_official_reply() {
        for vector in vectors("push_safe_reply") {
            let random: [u8; RANDOM] = text(&vector, "/random").as_bytes().try_into().unwrap();
            let message = text(&vector, "/msg").as_bytes();
            let sealed = seal(&key(&vector), &random, message, text(&vector, "/appid")).unwrap();
            assert_eq!(sealed, text(&vector, "/expect/Encrypt"));
            let timestamp = vector["timestamp"].to_string();
            let signed = signature(&[text(&vector, "/token"), &timestamp, text(&vector, "/nonce"), &sealed]);
            assert_eq!(signed, text(&vector, "/expect/MsgSignature"));
        }
    }

    #[test]
    fn an_encrypted_echostr_with_a_key_that_has_spare_bits() {
        for vector in vectors("push_safe_echostr") {
            let echostr = text(&vector, "/echostr");
            let parts = [text(&vector, "/token"), text(&vector, "/timestamp"), text(&vector, "/nonce"), echostr];
            assert!(is_signed(text(&vector, "/expect/msg_signature"), &parts));
            let opened = open(&key(&vector), echostr, text(&vector, "/expect/appid")).unwrap();
            assert_eq!(opened, text(&vector, "/expect/echostr_plain").as_bytes());
        }
    }

    #[test]
    fn only_43_characters_are_a_key() {
        for bad in ["", "A", &"A".repeat(42), &"A".repeat(44), &"-".repeat(43), &"é".repeat(43)] {
            assert!(AesKey::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(format!("{:?}", AesKey::parse(&"A".repeat(43)).unwrap()), "AesKey(…)");
    }

    /// Encrypts blocks as they are, so that a test chooses padding and length.
    fn sealed_blocks(key: &AesKey, blocks: &[u8]) -> String {
        let encryptor = cbc::Encryptor::<Aes256>::new((&*key.0).into(), &key.iv().into());
        STANDARD.encode(encryptor.encrypt_padded_vec::<NoPadding>(blocks))
    }

    #[test]
    fn bad_padding_and_lengths_are_unreadable() {
        let key = AesKey::parse(&"A".repeat(43)).unwrap();
        let block = |length: u32, pad: u8| {
            let mut plain = [[7; RANDOM].as_slice(), &length.to_be_bytes(), b"hi", b"wx1"].concat();
            plain.resize(32, pad);
            sealed_blocks(&key, &plain)
        };
        assert_eq!(open(&key, &block(2, 7), "wx1").unwrap(), b"hi");
        for (length, pad) in [(3, 7), (u32::MAX, 7), (1 << 31, 7), (2, 0), (2, 33), (2, 8), (2, 255), (1, 7)] {
            assert_eq!(open(&key, &block(length, pad), "wx1"), Err(Unreadable), "{length} {pad}");
        }
        for bad in ["", "AAAA", "%%%", &STANDARD.encode([0; 16]), &STANDARD.encode([0; 17])] {
            assert_eq!(open(&key, bad, "wx1"), Err(Unreadable));
        }
        // All of it padding: nothing is left of the random bytes.
        assert_eq!(open(&key, &sealed_blocks(&key, &[32; 32]), "wx1"), Err(Unreadable));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_sealed_is_opened_by_its_key_and_app_alone(
            message in proptest::collection::vec(any::<u8>(), 0..200),
            random in any::<[u8; 16]>(),
            raw in any::<[u8; 32]>(),
        ) {
            let key = AesKey(Zeroizing::new(raw));
            let sealed = seal(&key, &random, &message, "wx1").unwrap();
            prop_assert_eq!(open(&key, &sealed, "wx1"), Ok(message));
            prop_assert_eq!(open(&key, &sealed, "wx2"), Err(Unreadable));
        }

        #[test]
        fn any_bytes_are_a_message_or_unreadable(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,60}") {
            let key = AesKey::parse(&"B".repeat(43)).unwrap();
            let _ = open(&key, &STANDARD.encode(&bytes), "wx1");
            let whole = &bytes[..bytes.len() - bytes.len() % BLOCK];
            let _ = open(&key, &sealed_blocks(&key, whole), "wx1");
            let _ = open(&key, &text, "wx1");
            let _ = AesKey::parse(&text);
        }
    }
}
