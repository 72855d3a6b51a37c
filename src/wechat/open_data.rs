//! Open data: what WeChat hands to the client signed and encrypted, and what we make of it. Pure functions.
//!
//! The client sends `rawData` with a `signature`, and `encryptedData` with an `iv`; both are made with the user's
//! session_key (official page "Service-side access to open data"). Nothing here authenticates the ciphertext before it is
//! decrypted, because WeChat does not: therefore every fault after the first use of the key is one and the same
//! [`OpenDataError::Failed`], and the steps after decryption run whether the padding was right or not.
//!
//! The caller still has to compare `openId` in the result with the member's own openid, where it is present.

use std::borrow::Cow;
use std::time::Duration;

use aes::Aes128;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cbc::cipher::block_padding::{NoPadding, Pkcs7};
use cbc::cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _};
use serde_json::Value;
use sha1::{Digest as _, Sha1};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _, ConstantTimeLess as _};
use zeroize::Zeroizing;

use super::session_key::{SessionKey, hex};
use crate::clock::Timestamp;
use crate::ids::AppId;

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
    /// Everything later: padding, text, JSON, watermark. Deliberately indistinguishable.
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

/// Decrypts `encryptedData` (AES-128-CBC, PKCS#7) and checks its watermark: `appid` must be ours, `timestamp` no older
/// than [`MAX_AGE`] and no further ahead than [`MAX_AHEAD`]. Values that arrive percent-encoded are decoded once.
///
/// # Errors
/// [`OpenDataError::Malformed`] before the key is used, [`OpenDataError::Failed`] after.
pub fn decrypt(
    session_key: &SessionKey,
    encrypted_data: &str,
    iv: &str,
    appid: &AppId,
    now: Timestamp,
) -> Result<Value, OpenDataError> {
    let iv = <[u8; BLOCK]>::try_from(decode(iv)?.as_slice()).map_err(|_| OpenDataError::Malformed)?;
    let ciphertext = decode(encrypted_data)?;
    if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(BLOCK) {
        return Err(OpenDataError::Malformed);
    }
    let padded = Zeroizing::new(
        cbc::Decryptor::<Aes128>::new(session_key.bytes().into(), &iv.into())
            .decrypt_padded_vec::<NoPadding>(&ciphertext)
            .map_err(|_| OpenDataError::Failed)?,
    );
    let (unpadded, padding_ok) = unpad(&padded);
    // The text is looked at even when the padding was wrong: stopping here would let a stopwatch tell the two apart.
    let value = std::str::from_utf8(unpadded).ok().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let watermark_ok = value.as_ref().is_some_and(|value| watermark_fits(value, appid, now));
    match value {
        Some(value) if watermark_ok & bool::from(padding_ok) => Ok(value),
        _ => Err(OpenDataError::Failed),
    }
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

fn watermark_fits(value: &Value, appid: &AppId, now: Timestamp) -> bool {
    let Some(watermark) = value.as_object().and_then(|object| object.get("watermark")) else { return false };
    let made = watermark.get("timestamp").and_then(Value::as_i64).map(Timestamp::from_secs);
    watermark.get("appid").and_then(Value::as_str) == Some(appid.as_str())
        && made.is_some_and(|made| now.since(made) <= MAX_AGE && made.since(now) <= MAX_AHEAD)
}

#[cfg(test)]
mod tests;
