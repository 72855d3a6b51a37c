//! The login call: a `js_code` of `wx.login` against the person's openid, unionid and session_key.
//!
//! Official page "Mini program login credential check (code2Session)". The call needs no access token, so logins go on
//! when the token service is down.

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{Client, Error, SessionKey};
use crate::ids::{AppId, OpenId, Secret, UnionId};

/// Path of the call.
const PATH: &str = "/sns/jscode2session";

/// Who showed the code.
#[derive(Debug, Clone)]
pub struct Code2Session {
    /// The person within this app.
    pub openid: OpenId,
    /// The person across the apps of one Open Platform account; absent when the app belongs to none.
    pub unionid: Option<UnionId>,
    /// The key that WeChat and the person's client share with us from now on.
    pub session_key: SessionKey,
}

impl Client {
    /// Exchanges a login code: single-use, of this app, at most five minutes old. Never sent twice.
    ///
    /// # Errors
    /// All of [`Error`]; [`Error::Answer`] also when a field is missing or is not what it should be.
    pub async fn code2session(
        &self,
        appid: &AppId,
        secret: &Secret<String>,
        js_code: &str,
    ) -> Result<Code2Session, Error> {
        let query = [
            ("appid", appid.as_str()),
            ("secret", secret.expose()),
            ("js_code", js_code),
            ("grant_type", "authorization_code"),
        ];
        self.guarded(appid, PATH, async { read(self.get_json(PATH, &query).await?) }).await
    }
}

fn read(mut answer: Map<String, Value>) -> Result<Code2Session, Error> {
    // Taken out first, so that the copy is wiped whatever the other fields are.
    let session_key = match answer.remove("session_key") {
        Some(Value::String(text)) => Zeroizing::new(text),
        _ => return Err(Error::Answer("session_key is missing")),
    };
    let session_key =
        SessionKey::parse(&session_key).map_err(|_| Error::Answer("session_key is not the base64 of 16 bytes"))?;
    let openid = answer.get("openid").and_then(Value::as_str).ok_or(Error::Answer("openid is missing"))?;
    let openid = OpenId::parse(openid).map_err(|_| Error::Answer("openid is malformed"))?;
    let unionid = match answer.get("unionid") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) => Some(UnionId::parse(text).map_err(|_| Error::Answer("unionid is malformed"))?),
        Some(_) => return Err(Error::Answer("unionid is malformed")),
    };
    Ok(Code2Session { openid, unionid, session_key })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEY: &str = "tiihtNczf5v6AKRyjwEUhQ==";

    fn answer(value: Value) -> Result<Code2Session, Error> {
        let Value::Object(object) = value else { panic!("an object") };
        read(object)
    }

    #[test]
    fn a_full_answer_is_read() {
        let session = answer(json!({"openid": "o1", "unionid": "u1", "session_key": KEY, "errcode": 0})).unwrap();
        assert_eq!(session.openid.as_str(), "o1");
        assert_eq!(session.unionid.as_ref().map(UnionId::as_str), Some("u1"));
        assert_eq!(session.session_key.text(), KEY);
        let shown = format!("{session:?}");
        assert!(!shown.contains("o1") && !shown.contains("u1") && !shown.contains("tiih"), "{shown}");
    }

    #[test]
    fn an_absent_null_or_empty_unionid_is_none() {
        for extra in [json!({}), json!({"unionid": null}), json!({"unionid": ""})] {
            let mut whole = json!({"openid": "o1", "session_key": KEY});
            whole.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            assert_eq!(answer(whole).unwrap().unionid, None);
        }
    }

    #[test]
    fn a_field_that_is_missing_or_odd_makes_the_answer_unusable() {
        let long = "o".repeat(64 * 1024);
        for openid in
            [json!(null), json!(7), json!(""), json!("o\r\nX-Evil: 1"), json!("o,p"), json!(long), json!(["o"])]
        {
            assert!(matches!(answer(json!({"openid": openid, "session_key": KEY})), Err(Error::Answer(_))));
        }
        for key in [json!(null), json!(7), json!(""), json!("short"), json!("AAAA"), json!(format!("{KEY}{KEY}"))] {
            assert!(matches!(answer(json!({"openid": "o1", "session_key": key})), Err(Error::Answer(_))));
        }
        for unionid in [json!(7), json!({}), json!("u\0")] {
            let whole = json!({"openid": "o1", "session_key": KEY, "unionid": unionid});
            assert!(matches!(answer(whole), Err(Error::Answer(_))));
        }
        assert!(matches!(answer(json!({"openid": "o1"})), Err(Error::Answer(_))));
        assert!(matches!(answer(json!({"session_key": KEY})), Err(Error::Answer(_))));
    }
}
