//! What services and operators ask about somebody who is not there to show a token.
//!
//! The same keys, the same decryption, the same answers and the same limit as when he asks himself. Who may ask is the
//! business of the listeners; here the person is known by app and openid, and no session is needed.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config;
use crate::ids::{MemberId, OpenId};
use crate::problem::{Code, Problem};
use crate::store::SealedKey;
use crate::wechat::open_data::Owner;
use crate::wechat::{self, EncryptKey, Meaning};

use super::Auth;
use super::call::read_json;
use super::login::find_app;
use super::session_keys;
use super::user_data::UserData;

/// Whom a request is about.
#[derive(Deserialize)]
struct About {
    appid: Option<String>,
    openid: Option<String>,
    member: Option<String>,
}

/// Somebody, in one app.
#[derive(Debug, Clone)]
pub struct Person {
    app: config::App,
    openid: OpenId,
}

impl Person {
    /// The AppID and the openid.
    pub fn ids(&self) -> (&str, &str) {
        (self.app.appid.as_str(), self.openid.as_str())
    }
}

impl Auth {
    /// The person that `{appid?, openid}` names.
    ///
    /// # Errors
    /// `invalid_request`, `unknown_app`.
    pub fn person(&self, body: &[u8]) -> Result<Person, Problem> {
        let About { appid, openid, .. } = read_json(body)?;
        self.named(appid.as_deref(), openid.as_deref())
    }

    fn named(&self, appid: Option<&str>, openid: Option<&str>) -> Result<Person, Problem> {
        let wanted = || Problem::new(Code::InvalidRequest, "Send the `openid` of the person, and the `appid`.");
        let openid = OpenId::parse(openid.ok_or_else(wanted)?).map_err(|_| wanted())?;
        Ok(Person { app: find_app(&self.apps, appid)?.clone(), openid })
    }

    /// The person that `{appid?, openid}` or `{member}` names.
    ///
    /// # Errors
    /// As [`Auth::person`]; `invalid_request` also when there is no such member.
    pub async fn person_or_member(&self, body: &[u8]) -> Result<Person, Problem> {
        let about: About = read_json(body)?;
        let Some(member) = about.member else { return self.named(about.appid.as_deref(), about.openid.as_deref()) };
        if about.openid.is_some() || about.appid.is_some() {
            return Err(Problem::new(Code::InvalidRequest, "Send either `member`, or `appid` and `openid`."));
        }
        let nobody = || Problem::new(Code::InvalidRequest, "There is no `member` of this id.");
        let id = MemberId::parse(&member).map_err(|_| nobody())?;
        let member = self.members.find(&id).await?.ok_or_else(nobody)?;
        self.named(Some(member.appid.as_str()), Some(member.openid.as_str()))
    }

    /// Decrypts `encryptedData` and `iv` of `body`, as `open-data` does for the one it is of.
    ///
    /// # Errors
    /// Those of `/auth/open-data`.
    pub async fn open_data_of(&self, person: &Person, body: &[u8]) -> Result<Map<String, Value>, Problem> {
        let (appid, openid) = (&person.app.appid, &person.openid);
        session_keys::take(self, appid, openid)?;
        let shown = UserData::read(body)?;
        if !shown.is_encrypted() {
            let detail = "Send `encryptedData` and `iv` as the client API gave them.";
            return Err(Problem::new(Code::InvalidRequest, detail));
        }
        let keys = session_keys::needed(self, appid, openid).await?;
        let verified = shown.verify(&keys, &Owner { appid, openid }, self.clock.now())?;
        Ok(verified.data.unwrap_or_default())
    }

    /// WeChat's latest keys of the encrypted channel with this person.
    ///
    /// # Errors
    /// `rate_limited`; `session_key_stale` when no key is kept or WeChat holds another; those of a call to WeChat.
    pub async fn encrypt_keys_of(&self, person: &Person) -> Result<Vec<EncryptKey>, Problem> {
        let Person { app, openid } = person;
        session_keys::take(self, &app.appid, openid)?;
        let keys = session_keys::needed(self, &app.appid, openid).await?;
        let newest = keys.first().ok_or_else(session_keys::stale)?;
        let call = |token| async move { self.wechat.encrypt_keys(&app.appid, &token, openid, newest).await };
        self.access_tokens.call(&self.wechat, app, call).await.map_err(problem)
    }

    /// Has WeChat make a new session_key for this person, and keeps it. What was encrypted with the old one can still be
    /// read: it is now the one before.
    ///
    /// # Errors
    /// `session_key_stale` when no key is kept or WeChat holds another; those of a call to WeChat.
    pub async fn reset_session_key(&self, person: &Person) -> Result<(), Problem> {
        let Person { app, openid } = person;
        let keys = session_keys::needed(self, &app.appid, openid).await?;
        let newest = keys.first().ok_or_else(session_keys::stale)?;
        let exchanged_at = self.clock.now();
        let call = |token| async move { self.wechat.reset_session(&app.appid, &token, openid, newest).await };
        let fresh = self.access_tokens.call(&self.wechat, app, call).await.map_err(problem)?;
        let sealed = self.vault.seal(fresh.text().as_bytes(), &app.appid, openid);
        Ok(self.sessions.keep_key(&app.appid, openid, SealedKey { sealed, exchanged_at }).await?)
    }
}

/// As for any call to WeChat, but for a signature that does not fit: the key is not the current one.
fn problem(error: wechat::Error) -> Problem {
    match error.meaning() {
        Some(Meaning::SignatureInvalid) => session_keys::stale().caused_by(error),
        _ => error.into(),
    }
}
