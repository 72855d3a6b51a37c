//! Whether a session_key is still the one that WeChat holds (official page "Check login state (checkSessionKey)").
//!
//! The call tests the key and does not lengthen its life. It uses nothing up, so a busy WeChat is asked again.

use super::access_token::AccessToken;
use super::{Client, Error, Meaning, SessionKey};
use crate::ids::{AppId, OpenId};

const PATH: &str = "/wxa/checksession";

impl Client {
    /// Whether `session_key` is the current one of this person.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn check_session(
        &self,
        appid: &AppId,
        token: &AccessToken,
        openid: &OpenId,
        session_key: &SessionKey,
    ) -> Result<bool, Error> {
        // A GET has no body, and so the empty message is what is signed.
        let signature = session_key.sign(b"");
        let query = [
            ("access_token", token.expose()),
            ("openid", openid.as_str()),
            ("signature", signature.as_str()),
            ("sig_method", "hmac_sha256"),
        ];
        let asked = self.while_busy(|| self.guarded(appid, PATH, self.get_json(PATH, &query))).await;
        match asked {
            Ok(_) => Ok(true),
            Err(error) if error.meaning() == Some(Meaning::SignatureInvalid) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
