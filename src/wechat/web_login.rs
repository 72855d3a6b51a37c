//! Web login: where a browser is sent, and what its code is worth (official pages "Web page authorisation", "Website app
//! login").
//!
//! The access token of these calls is the person's own and has nothing to do with [`access_token`](super::access_token);
//! it is used once, for the profile, and forgotten.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use super::access_token::AccessToken;
use super::{Client, Error};
use crate::config::WebScope;
use crate::ids::{AppId, OpenId, Secret, UnionId};

const EXCHANGE: &str = "/sns/oauth2/access_token";
const USER_INFO: &str = "/sns/userinfo";
const FOLLOWER: &str = "/cgi-bin/user/info";

/// What stays as it is in a parameter (RFC 3986, "unreserved").
const PARAMETER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The page of WeChat that asks the person, or lets them pass in silence. Order and case of the parameters and the
/// fragment are WeChat's: it refuses any other.
pub fn authorize_url(open_base: &str, appid: &AppId, scope: WebScope, redirect_uri: &str, state: &str) -> String {
    let page = match scope {
        WebScope::Base | WebScope::UserInfo => "oauth2/authorize",
        WebScope::Login => "qrconnect",
    };
    let (appid, redirect_uri) = (parameter(appid.as_str()), parameter(redirect_uri));
    let (scope, state) = (scope.name(), parameter(state));
    format!(
        "{open_base}/connect/{page}?appid={appid}&redirect_uri={redirect_uri}&response_type=code&scope={scope}\
         &state={state}#wechat_redirect"
    )
}

fn parameter(text: &str) -> String {
    utf8_percent_encode(text, PARAMETER).to_string()
}

/// Who came back with a code.
#[derive(Debug, Clone)]
pub struct WebIdentity {
    /// The person within this app.
    pub openid: OpenId,
    /// The person across apps, when WeChat tells it.
    pub unionid: Option<UnionId>,
    /// Whether this is the stand-in that WeChat shows to a page in snapshot mode: nobody in particular.
    pub is_snapshot: bool,
    token: AccessToken,
}

/// What a person lets a page see.
#[derive(Clone, Default)]
pub struct WebProfile {
    /// Nickname; may be WeChat's placeholder.
    pub nickname: String,
    /// Address of the picture.
    pub headimgurl: String,
    /// The person across apps.
    pub unionid: Option<UnionId>,
}

impl std::fmt::Debug for WebProfile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebProfile(…)")
    }
}

impl Client {
    /// Exchanges the code of a callback: single-use, of this app. Never sent twice.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn web_identity(&self, appid: &AppId, secret: &Secret<String>, code: &str) -> Result<WebIdentity, Error> {
        let query = [
            ("appid", appid.as_str()),
            ("secret", secret.expose()),
            ("code", code),
            ("grant_type", "authorization_code"),
        ];
        self.guarded(appid, EXCHANGE, async { identity(self.get_json(EXCHANGE, &query).await?) }).await
    }

    /// The profile of somebody who has just come back. Uses nothing up, so a busy WeChat is asked again.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn web_profile(&self, appid: &AppId, who: &WebIdentity) -> Result<WebProfile, Error> {
        let query = [("access_token", who.token.expose()), ("openid", who.openid.as_str()), ("lang", "zh_CN")];
        let call = || self.guarded(appid, USER_INFO, async { profile(&self.get_json(USER_INFO, &query).await?, who) });
        self.while_busy(call).await
    }

    /// Whether this person follows the official account (official page "Get basic user information").
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn is_follower(&self, appid: &AppId, token: &AccessToken, openid: &OpenId) -> Result<bool, Error> {
        let query = [("access_token", token.expose()), ("openid", openid.as_str()), ("lang", "zh_CN")];
        let call = || self.guarded(appid, FOLLOWER, async { follower(&self.get_json(FOLLOWER, &query).await?) });
        self.while_busy(call).await
    }
}

fn identity(mut answer: Map<String, Value>) -> Result<WebIdentity, Error> {
    let token = match answer.remove("access_token") {
        Some(Value::String(text)) if !text.is_empty() => AccessToken::new(text),
        _ => return Err(Error::Answer("access_token is missing")),
    };
    let openid = answer.get("openid").and_then(Value::as_str).ok_or(Error::Answer("openid is missing"))?;
    let openid = OpenId::parse(openid).map_err(|_| Error::Answer("openid is malformed"))?;
    let is_snapshot = match answer.get("is_snapshotuser") {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Number(number)) => number.as_i64() != Some(0),
        Some(Value::String(text)) => text != "0" && !text.is_empty(),
        // Whatever else it is, it does not say no.
        Some(Value::Bool(true) | Value::Array(_) | Value::Object(_)) => true,
    };
    Ok(WebIdentity { openid, unionid: unionid(&answer)?, is_snapshot, token })
}

fn unionid(answer: &Map<String, Value>) -> Result<Option<UnionId>, Error> {
    const MALFORMED: Error = Error::Answer("unionid is malformed");
    match answer.get("unionid") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => UnionId::parse(text).map(Some).map_err(|_| MALFORMED),
        Some(_) => Err(MALFORMED),
    }
}

fn profile(answer: &Map<String, Value>, who: &WebIdentity) -> Result<WebProfile, Error> {
    if answer.get("openid").and_then(Value::as_str) != Some(who.openid.as_str()) {
        return Err(Error::Answer("the profile is of somebody else"));
    }
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(WebProfile { nickname: text("nickname"), headimgurl: text("headimgurl"), unionid: unionid(answer)? })
}

fn follower(answer: &Map<String, Value>) -> Result<bool, Error> {
    match answer.get("subscribe").and_then(Value::as_i64) {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => Err(Error::Answer("subscribe is neither 0 nor 1")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_parameters_stand_in_the_order_that_wechat_asks_for() {
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        let url = |scope| authorize_url("https://open.example", &appid, scope, "https://a.b/c?d=e&f", "5ta7e");
        let redirect = "redirect_uri=https%3A%2F%2Fa.b%2Fc%3Fd%3De%26f&response_type=code";
        let page = |page: &str, scope: &str| {
            format!(
                "https://open.example/connect/{page}?appid=wx0123456789abcdef&{redirect}&scope={scope}&state=5ta7e\
                 #wechat_redirect"
            )
        };
        assert_eq!(url(WebScope::Base), page("oauth2/authorize", "snsapi_base"));
        assert_eq!(url(WebScope::UserInfo), page("oauth2/authorize", "snsapi_userinfo"));
        assert_eq!(url(WebScope::Login), page("qrconnect", "snsapi_login"));
    }

    fn read(value: Value) -> Result<WebIdentity, Error> {
        let Value::Object(object) = value else { panic!("an object") };
        identity(object)
    }

    #[test]
    fn a_snapshot_user_is_known_however_it_is_written() {
        for (said, is_snapshot) in
            [(json!(null), false), (json!(0), false), (json!("0"), false), (json!(1), true), (json!("1"), true)]
        {
            let who = read(json!({"access_token": "t", "openid": "o1", "is_snapshotuser": said})).unwrap();
            assert_eq!(who.is_snapshot, is_snapshot, "{said}");
        }
        let who = read(json!({"access_token": "secret-t", "openid": "o1", "unionid": "u1"})).unwrap();
        assert!(!who.is_snapshot && who.unionid.is_some());
        assert!(!format!("{who:?}").contains("secret-t"));
    }

    #[test]
    fn an_answer_that_lacks_something_is_unusable() {
        for bad in [
            json!({}),
            json!({"openid": "o1"}),
            json!({"access_token": "t"}),
            json!({"access_token": "", "openid": "o1"}),
            json!({"access_token": "t", "openid": "a b"}),
            json!({"access_token": "t", "openid": "o1", "unionid": 7}),
        ] {
            assert!(read(bad).is_err());
        }
        let who = read(json!({"access_token": "t", "openid": "o1"})).unwrap();
        let theirs = json!({"openid": "o2", "nickname": "x"});
        assert!(profile(theirs.as_object().unwrap(), &who).is_err());
    }
}
