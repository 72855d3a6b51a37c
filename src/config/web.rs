//! The web login of an official account or website, as it is configured.

use schemars::JsonSchema;
use serde::Deserialize;

/// What a web login asks the person for (WeChat: `scope`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub enum WebScope {
    /// The openid alone, silently.
    #[default]
    #[serde(rename = "snsapi_base")]
    Base,
    /// Nickname, avatar and unionid too; the person is asked.
    #[serde(rename = "snsapi_userinfo")]
    UserInfo,
    /// The QR login of websites, which knows no other.
    #[serde(skip)]
    Login,
}

impl WebScope {
    /// The name that WeChat knows it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "snsapi_base",
            Self::UserInfo => "snsapi_userinfo",
            Self::Login => "snsapi_login",
        }
    }
}

/// The web login of an official account or website.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebLogin {
    /// Where it may return to, at least one: `scheme://host[:port]` in lower case, as a browser writes it.
    pub origins: Vec<String>,
    /// What the person is asked for.
    pub scope: WebScope,
    /// What the browser comes back with.
    pub result: WebResult,
}

/// What a web login yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WebResult {
    /// A one-time ticket in the URL.
    #[default]
    Ticket,
    /// Tokens in cookies.
    Cookie,
}
