//! The keys by which a mini program and its services encrypt what they say to each other (official page "Get user
//! encryptKey"; on the phone `wx.getUserCryptoManager`).
//!
//! WeChat makes them, one an hour, and tells the last three. They are not the session_key, and are made for services to
//! have. The call uses nothing up, so a busy WeChat is asked again.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};

use super::access_token::AccessToken;
use super::session_check::signed;
use super::{Client, Error, SessionKey};
use crate::ids::{AppId, OpenId};

/// The call, as it stands in the list of what a service may call.
pub const PATH: &str = "/wxa/business/getuserencryptkey";

/// Most keys that are passed on; WeChat tells three.
const MAX_KEYS: usize = 16;

/// One key of the encrypted channel, as WeChat tells it. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct EncryptKey {
    encrypt_key: String,
    /// 16 characters that look like hex; whether they are to be decoded is between the mini program and its service.
    iv: String,
    version: u64,
    /// Seconds; 0 when the key is dead.
    expire_in: u64,
    create_time: u64,
}

impl EncryptKey {
    fn read(info: &Map<String, Value>) -> Option<Self> {
        let number = |name: &str| info.get(name).and_then(Value::as_u64);
        let text = |name: &str| info.get(name).and_then(Value::as_str).map(str::to_owned);
        let (encrypt_key, iv) = (text("encrypt_key")?, text("iv")?);
        let fits = STANDARD.decode(&encrypt_key).is_ok_and(|key| key.len() == 16)
            && iv.len() == 16
            && iv.bytes().all(|b| b.is_ascii_alphanumeric());
        let key = Self {
            encrypt_key,
            iv,
            version: number("version")?,
            expire_in: number("expire_in")?,
            create_time: number("create_time")?,
        };
        fits.then_some(key)
    }
}

impl fmt::Debug for EncryptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptKey(…)")
    }
}

impl Client {
    /// The latest keys of this person, in WeChat's order.
    ///
    /// # Errors
    /// All of [`Error`]; with the meaning [`Meaning::SignatureInvalid`](super::Meaning::SignatureInvalid) when
    /// `session_key` is not the current one.
    pub async fn encrypt_keys(
        &self,
        appid: &AppId,
        token: &AccessToken,
        openid: &OpenId,
        session_key: &SessionKey,
    ) -> Result<Vec<EncryptKey>, Error> {
        let signature = session_key.sign(b"");
        let query = signed(token, openid, &signature);
        let answer = self.while_busy(|| self.guarded(appid, PATH, self.get_json(PATH, &query))).await?;
        let list = answer.get("key_info_list").and_then(Value::as_array);
        let list = list.ok_or(Error::Answer("key_info_list is missing"))?.iter().take(MAX_KEYS);
        let read = |info: &Value| info.as_object().and_then(EncryptKey::read);
        list.map(|info| read(info).ok_or(Error::Answer("key_info_list holds what is no key"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_published_example_is_read_and_what_is_no_key_is_not() {
        let good = json!({
            "encrypt_key": "VI6BpyrK9XH4i4AIGe86tg==", "version": 10, "expire_in": 3597,
            "iv": "6003f73ec441c386", "create_time": 1_616_572_301
        });
        let read = |value: &Value| EncryptKey::read(value.as_object().unwrap());
        let key = read(&good).unwrap();
        assert_eq!(serde_json::to_value(&key).unwrap(), good);
        assert_eq!(format!("{key:?}"), "EncryptKey(…)");
        for (name, bad) in [
            ("encrypt_key", json!("VI6BpyrK9XH4i4AIGe8=")),
            ("encrypt_key", json!("%")),
            ("iv", json!("6003")),
            ("iv", json!(7)),
            ("version", json!("10")),
            ("expire_in", json!(-1)),
            ("create_time", json!(null)),
        ] {
            let mut info = good.clone();
            info[name] = bad;
            assert!(read(&info).is_none(), "{info}");
        }
    }
}
