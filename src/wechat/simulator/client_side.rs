//! What the calls of the mini-program client return: `wx.getUserInfo`, the phone button, and other open data (official
//! page "Service-side access to open data").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::people;
use super::random;
use super::world::World;
use crate::ids::AppId;
use crate::wechat::{SessionKey, open_data};

/// What `wx.getUserInfo` returns.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserInfo {
    /// The profile as JSON text; the signature is over these very bytes.
    pub raw_data: String,
    /// See [`open_data::check_signature`].
    pub signature: String,
    /// The profile with openid and watermark, and its iv.
    #[serde(flatten)]
    pub sealed: Sealed,
}

/// What the phone button returns.
#[derive(Debug, Clone, Serialize)]
pub struct Phone {
    /// For `getuserphonenumber`: five minutes, one use.
    pub code: String,
    /// The number, encrypted; absent when the person has no session_key yet.
    #[serde(flatten)]
    pub sealed: Option<Sealed>,
}

/// Data encrypted with a session_key.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sealed {
    /// Base64 ciphertext.
    pub encrypted_data: String,
    /// Base64 initialisation vector.
    pub iv: String,
}

/// The profile in the order of the official sample.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile<'a> {
    nick_name: &'a str,
    gender: u8,
    language: &'a str,
    city: &'a str,
    province: &'a str,
    country: &'a str,
    avatar_url: &'a str,
}

impl World {
    /// What `wx.login` gives `user`; `None` makes a code that is good for any app.
    pub(super) fn issue_code(&self, user: &str, appid: Option<&AppId>) -> String {
        let mut state = self.lock();
        if let Some(appid) = appid {
            state.people.promise(user, appid);
        }
        state.login_codes.issue(user, appid, self.clock.now())
    }

    /// The session_key of `user` in `appid`; `None` before the first `wx.login`.
    fn session_key(&self, user: &str, appid: &AppId) -> Option<SessionKey> {
        self.lock().people.session_key(&people::openid(user, appid))
    }

    /// `None` when `user` has no session_key yet: the client must log in first.
    pub(super) fn user_info(&self, user: &str, appid: &AppId) -> Option<UserInfo> {
        let session_key = self.session_key(user, appid)?;
        let profile = Profile {
            nick_name: user,
            gender: 0,
            language: "zh_CN",
            city: "",
            province: "",
            country: "",
            avatar_url: "https://thirdwx.qlogo.cn/mmopen/vi_32/simulated/132",
        };
        let raw_data = serde_json::to_string(&profile).ok()?;
        let signature = open_data::raw_data_signature(&raw_data, &session_key);
        let mut whole: Map<String, Value> = serde_json::from_str(&raw_data).ok()?;
        whole.insert("openId".to_owned(), people::openid(user, appid).into());
        if let Some(unionid) = people::unionid(user) {
            whole.insert("unionId".to_owned(), unionid.into());
        }
        Some(UserInfo { raw_data, signature, sealed: self.seal(&session_key, appid, whole) })
    }

    /// A code for the phone number, and the number itself in the older, encrypted form.
    pub(super) fn phone(&self, user: &str, appid: &AppId) -> Phone {
        let number = people::phone_number(user);
        let mut data = Map::new();
        data.insert("phoneNumber".to_owned(), number.as_str().into());
        data.insert("purePhoneNumber".to_owned(), number.as_str().into());
        data.insert("countryCode".to_owned(), "86".into());
        let sealed = self.session_key(user, appid).map(|key| self.seal(&key, appid, data));
        let code = self.lock().phone_codes.issue(user, Some(appid), self.clock.now());
        Phone { code, sealed }
    }

    /// Any data with a watermark, such as steps or a group id. `None` when `user` has no session_key yet.
    pub(super) fn open_data(&self, user: &str, appid: &AppId, data: Map<String, Value>) -> Option<Sealed> {
        Some(self.seal(&self.session_key(user, appid)?, appid, data))
    }

    fn seal(&self, session_key: &SessionKey, appid: &AppId, mut data: Map<String, Value>) -> Sealed {
        let watermark = json!({"timestamp": self.clock.now().secs(), "appid": appid.as_str()});
        data.insert("watermark".to_owned(), watermark);
        let iv = random();
        let encrypted_data = open_data::encrypt(session_key, &Value::Object(data).to_string(), &iv);
        Sealed { encrypted_data, iv: STANDARD.encode(iv) }
    }
}
