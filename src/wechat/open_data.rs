//! Open data: what WeChat hands to the client signed and encrypted, and what we make of it. Pure functions.
//!
//! The client sends `rawData` with a `signature`, and `encryptedData` with an `iv`; both are made with the user's
//! session_key (official page "Service-side access to open data"). Nothing here authenticates the ciphertext before it is
//! decrypted, because WeChat does not: therefore every fault after the first use of the key is one and the same
//! [`OpenDataError::Failed`], and the steps after decryption run whether the padding was right or not.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use aes::Aes128;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cbc::cipher::block_padding::{NoPadding, Pkcs7};
use cbc::cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _};
use serde_json::{Map, Value};
use sha1::{Digest as _, Sha1};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _, ConstantTimeLess as _};
use zeroize::Zeroizing;

use super::answer;
use super::session_key::{SessionKey, hex};
use crate::clock::Timestamp;
use crate::ids::{AppId, OpenId};

/// Block and initialisation vector of AES, bytes.
const BLOCK: usize = 16;

/// How old a watermark may be. WeChat names no bound; its own check of such blobs reaches back 3 days, and a session_key
/// is said to live about as long. A week refuses replays of old captures and nothing that a client sends in good faith.
pub const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How far a watermark may lie in the future: it is WeChat's clock against ours.
pub const MAX_AHEAD: Duration = Duration::from_secs(10 * 60);

/// Why open data could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenDataError {
    /// Not base64, or of a length that no ciphertext or iv has. Found before any key is used.
    #[error("encryptedData or iv is malformed")]
    Malformed,
    /// Everything later: padding, text, JSON, watermark, another person. Deliberately indistinguishable.
    #[error("the data could not be decrypted")]
    Failed,
}

/// Whether `signature` is the lower-case hex SHA-1 of `raw_data` followed by the session_key's text. Takes the same time
/// wherever the two differ.
pub fn check_signature(raw_data: &str, session_key: &SessionKey, signature: &str) -> bool {
    raw_data_signature(raw_data, session_key).as_bytes().ct_eq(signature.as_bytes()).into()
}

/// The signature that WeChat puts beside `raw_data`. For the simulator.
pub(super) fn raw_data_signature(raw_data: &str, session_key: &SessionKey) -> String {
    hex(&Sha1::new().chain_update(raw_data).chain_update(session_key.text()).finalize())
}

/// `encryptedData` and `iv` as a client sent them, of a shape that can be decrypted. No key was used yet.
#[derive(Clone)]
pub struct Encrypted {
    ciphertext: Vec<u8>,
    iv: [u8; BLOCK],
}

impl Encrypted {
    /// Takes both as base64. Values that arrive percent-encoded are decoded once.
    ///
    /// # Errors
    /// [`OpenDataError::Malformed`].
    pub fn parse(encrypted_data: &str, iv: &str) -> Result<Self, OpenDataError> {
        let iv = <[u8; BLOCK]>::try_from(decode(iv)?.as_slice()).map_err(|_| OpenDataError::Malformed)?;
        let ciphertext = decode(encrypted_data)?;
        if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(BLOCK) {
            return Err(OpenDataError::Malformed);
        }
        Ok(Self { ciphertext, iv })
    }

    /// Decrypts (AES-128-CBC, PKCS#7) and checks whom the data is of: the watermark's `appid` must be the owner's, its
    /// `timestamp` no older than [`MAX_AGE`] and no further ahead than [`MAX_AHEAD`]; an `openId` must be the owner's,
    /// where there is one.
    ///
    /// # Errors
    /// [`OpenDataError::Failed`].
    pub fn open(
        &self,
        session_key: &SessionKey,
        owner: &Owner<'_>,
        now: Timestamp,
    ) -> Result<Map<String, Value>, OpenDataError> {
        let padded = Zeroizing::new(
            cbc::Decryptor::<Aes128>::new(session_key.bytes().into(), &self.iv.into())
                .decrypt_padded_vec::<NoPadding>(&self.ciphertext)
                .map_err(|_| OpenDataError::Failed)?,
        );
        let (unpadded, padding_ok) = unpad(&padded);
        // The text is looked at even when the padding was wrong: stopping here would let a stopwatch tell the two apart.
        let object = std::str::from_utf8(unpadded).ok().and_then(object);
        let owner_ok = object.as_ref().is_some_and(|object| watermark_fits(object, owner, now) & is_of(object, owner));
        match object {
            Some(object) if owner_ok & bool::from(padding_ok) => Ok(object),
            _ => Err(OpenDataError::Failed),
        }
    }
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encrypted({} bytes)", self.ciphertext.len())
    }
}

/// Whom open data must be of.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The app.
    pub appid: &'a AppId,
    /// The person within it.
    pub openid: &'a OpenId,
}

/// Encrypts as WeChat does. For the simulator and for tests.
pub fn encrypt(session_key: &SessionKey, plaintext: &str, iv: &[u8; BLOCK]) -> String {
    let ciphertext = cbc::Encryptor::<Aes128>::new(session_key.bytes().into(), &(*iv).into())
        .encrypt_padded_vec::<Pkcs7>(plaintext.as_bytes());
    STANDARD.encode(ciphertext)
}

/// Base64, after one percent-decoding where there is a `%` (base64 itself has none).
fn decode(text: &str) -> Result<Vec<u8>, OpenDataError> {
    let text = match text.contains('%') {
        true => percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| OpenDataError::Malformed)?,
        false => Cow::Borrowed(text),
    };
    STANDARD.decode(text.as_bytes()).map_err(|_| OpenDataError::Malformed)
}

/// Removes PKCS#7 padding (RFC 5652, section 6.3) without a branch on the plaintext: all sixteen last bytes are looked at,
/// whatever the last one says. With bad padding the whole buffer comes back.
fn unpad(padded: &[u8]) -> (&[u8], Choice) {
    let Some(block) = padded.last_chunk::<BLOCK>() else { return (padded, Choice::from(0)) };
    let pad = block[BLOCK - 1];
    let mut ok = !pad.ct_eq(&0) & pad.ct_lt(&17);
    for (byte, from_end) in block.iter().rev().zip(0_u8..) {
        ok &= !from_end.ct_lt(&pad) | byte.ct_eq(&pad);
    }
    let removed = u8::conditional_select(&0, &pad, ok);
    (&padded[..padded.len() - usize::from(removed)], ok)
}

/// The JSON object that `text` is. Raw control characters inside strings are forgiven (nicknames have them), and escaped in
/// every case: a second attempt after a failed one would tell by its time how the first one failed.
fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(&Zeroizing::new(answer::escape_controls(text))).ok()
}

fn watermark_fits(object: &Map<String, Value>, owner: &Owner<'_>, now: Timestamp) -> bool {
    let Some(watermark) = object.get("watermark") else { return false };
    let made = watermark.get("timestamp").and_then(Value::as_i64).map(Timestamp::from_secs);
    watermark.get("appid").and_then(Value::as_str) == Some(owner.appid.as_str())
        && made.is_some_and(|made| now.since(made) <= MAX_AGE && made.since(now) <= MAX_AHEAD)
}

/// Whether every openid in it, in either spelling, is the owner's. Most kinds of open data have none.
fn is_of(object: &Map<String, Value>, owner: &Owner<'_>) -> bool {
    ["openId", "openid"]
        .iter()
        .filter_map(|name| object.get(*name))
        .all(|id| id.as_str() == Some(owner.openid.as_str()))
}

#[cfg(test)]
mod tests;
