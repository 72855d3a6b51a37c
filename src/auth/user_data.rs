//! What a client brings along of the user's data: `rawData` with its `signature`, `encryptedData` with its `iv`.
//!
//! First the shape is checked, without any key; then all keys are tried on all that is there. Whatever goes wrong from then
//! on is one answer, and the same work whatever it was: no padding oracle.

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::problem::{Code, Problem};
use crate::wechat::SessionKey;
use crate::wechat::open_data::{Encrypted, OpenDataError, Owner, check_signature};

use super::call::{Call, read_json};

/// The members as they stand in a request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    raw_data: Option<String>,
    signature: Option<String>,
    encrypted_data: Option<String>,
    iv: Option<String>,
}

/// User data of the right shape, not yet verified.
pub(super) struct UserData {
    signed: Option<Signed>,
    encrypted: Option<Encrypted>,
}

struct Signed {
    raw_data: String,
    signature: String,
}

/// User data that WeChat made for the owner.
#[derive(Default)]
pub(super) struct Verified {
    /// What was in `encryptedData`.
    pub(super) data: Option<Map<String, Value>>,
    /// What is in `rawData`, if it is an object.
    pub(super) raw: Option<Map<String, Value>>,
}

impl UserData {
    /// What the request holds of it.
    ///
    /// # Errors
    /// `invalid_request` for half a pair, and for what cannot be decrypted by any key.
    pub(super) fn of(call: &Call) -> Result<Self, Problem> {
        Self::read(call.body())
    }

    /// As [`UserData::of`], of the JSON in `body`.
    ///
    /// # Errors
    /// As [`UserData::of`].
    pub(super) fn read(body: &[u8]) -> Result<Self, Problem> {
        Self::shaped(read_json(body)?)
    }

    /// As [`UserData::of`], of these two alone.
    ///
    /// # Errors
    /// As [`UserData::of`].
    pub(super) fn encrypted(encrypted_data: Option<String>, iv: Option<String>) -> Result<Self, Problem> {
        Self::shaped(Request { raw_data: None, signature: None, encrypted_data, iv })
    }

    fn shaped(request: Request) -> Result<Self, Problem> {
        let Request { raw_data, signature, encrypted_data, iv } = request;
        let signed = match (raw_data, signature) {
            (Some(raw_data), Some(signature)) => Some(Signed { raw_data, signature }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(half("rawData", "signature")),
        };
        let encrypted = match (encrypted_data, iv) {
            (Some(data), Some(iv)) => Some(Encrypted::parse(&data, &iv).map_err(refused)?),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(half("encryptedData", "iv")),
        };
        Ok(Self { signed, encrypted })
    }

    pub(super) fn is_signed(&self) -> bool {
        self.signed.is_some()
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.encrypted.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_signed() && !self.is_encrypted()
    }

    /// Verifies all that is there with these keys, in this order. Both pairs must be of one key.
    ///
    /// # Errors
    /// `decrypt_failed`; `signature_mismatch` when what is encrypted is good, or not there, and the signature does not fit.
    pub(super) fn verify(&self, keys: &[SessionKey], owner: &Owner<'_>, now: Timestamp) -> Result<Verified, Problem> {
        let mut opened = self.encrypted.is_none();
        for key in keys {
            let data = self.encrypted.as_ref().map(|encrypted| encrypted.open(key, owner, now));
            let fits = self.signed.as_ref().is_none_or(|s| check_signature(&s.raw_data, key, &s.signature));
            let data = data.transpose();
            opened |= data.is_ok();
            if let (Ok(data), true) = (data, fits) {
                let raw = self.signed.as_ref().and_then(|signed| serde_json::from_str(&signed.raw_data).ok());
                return Ok(Verified { data, raw });
            }
        }
        Err(if opened { mismatch() } else { refused(OpenDataError::Failed) })
    }
}

impl fmt::Debug for UserData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserData(…)")
    }
}

fn half(one: &str, other: &str) -> Problem {
    Problem::new(Code::InvalidRequest, format!("`{one}` and `{other}` belong together: send both or none."))
}

fn mismatch() -> Problem {
    let detail = "`signature` is not that of `rawData`: send both exactly as the client API gave them.";
    Problem::new(Code::SignatureMismatch, detail)
}

/// The one answer for everything that goes wrong once a key is used.
pub(super) fn refused(error: OpenDataError) -> Problem {
    match error {
        OpenDataError::Malformed => Problem::new(
            Code::InvalidRequest,
            "`encryptedData` and `iv` must be base64, exactly as the client API gave them: an `iv` of 16 bytes, data of \
             whole blocks of 16.",
        ),
        OpenDataError::Failed => Problem::new(
            Code::DecryptFailed,
            "Call wx.login, log in again, and ask the user again. Sending the same data again will not help.",
        ),
    }
}
