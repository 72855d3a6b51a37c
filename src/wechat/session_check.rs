//! Whether a session_key is still the one that WeChat holds, and a new one in its place (official pages "Check login state
//! (checkSessionKey)", "Reset login state").
//!
//! The check tests the key and does not lengthen its life. It uses nothing up, so a busy WeChat is asked again. A reset
//! ends the key, and is sent once.

use serde_json::Value;

use super::access_token::AccessToken;
use super::{Client, Error, Meaning, SessionKey};
use crate::ids::{AppId, OpenId};

const PATH: &str = "/wxa/checksession";

const RESET_PATH: &str = "/wxa/resetusersessionkey";

/// The query of a call that is signed with a session_key.
pub(super) fn signed<'q>(
    token: &'q AccessToken,
    openid: &'q OpenId,
    signature: &'q str,
) -> [(&'static str, &'q str); 4] {
    [
        ("access_token", token.expose()),
        ("openid", openid.as_str()),
        ("signature", signature),
        ("sig_method", "hmac_sha256"),
    ]
}

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
        let query = signed(token, openid, &signature);
        let asked = self.while_busy(|| self.guarded(appid, PATH, self.get_json(PATH, &query))).await;
        match asked {
            Ok(_) => Ok(true),
            Err(error) if error.meaning() == Some(Meaning::SignatureInvalid) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has WeChat make a new session_key for this person; the one before is dead then. Never sent twice.
    ///
    /// # Errors
    /// All of [`Error`]; with the meaning [`Meaning::SignatureInvalid`] when `session_key` is not the current one.
    pub async fn reset_session(
        &self,
        appid: &AppId,
        token: &AccessToken,
        openid: &OpenId,
        session_key: &SessionKey,
    ) -> Result<SessionKey, Error> {
        let signature = session_key.sign(b"");
        let query = signed(token, openid, &signature);
        let call = async {
            let answer = self.get_json(RESET_PATH, &query).await?;
            if answer.get("openid").and_then(Value::as_str).is_some_and(|other| other != openid.as_str()) {
                return Err(Error::Answer("the session_key is of somebody else"));
            }
            let text = answer.get("session_key").and_then(Value::as_str);
            let text = text.ok_or(Error::Answer("session_key is missing"))?;
            SessionKey::parse(text).map_err(|_| Error::Answer("session_key is malformed"))
        };
        self.guarded(appid, RESET_PATH, call).await
    }
}
