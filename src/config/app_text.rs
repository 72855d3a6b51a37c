//! The text of an app, key by key; a part of [`super::file`].

use schemars::JsonSchema;
use serde::Deserialize;

use super::file::Secret;
use super::section::{AccessTokenLine, AppKind, WebResult, WebScope};

/// A WeChat app that may log in.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// The AppID. Required.
    #[schemars(required, example = &"wx0123456789abcdef")]
    pub appid: Option<String>,
    /// What kind of app it is. Default: "mini-program".
    pub kind: Option<AppKind>,
    /// The AppSecret. Required.
    #[schemars(required)]
    pub secret: Option<Secret>,
    /// Takes WeChat's message push at BASE/push/APPID. Default: not taken.
    pub push: Option<Push>,
    /// Where its access tokens come from: WeChat's `stable_token`, or the classic call. Default: "stable".
    pub access_token: Option<AccessTokenLine>,
    /// Origins that the web login of an official account or website may return to. Default: none, no web login.
    #[schemars(example = ["https://m.example.com"])]
    pub origins: Option<Vec<String>>,
    /// What the web login of an official account asks for. Default: "snsapi_base".
    pub scope: Option<WebScope>,
    /// What its web login yields: a ticket in the URL, or cookies. Default: "ticket".
    pub web_result: Option<WebResult>,
}

/// WeChat's message push: how it is verified, and where it goes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// The Token of the WeChat console. Required.
    #[schemars(required)]
    pub token: Option<Secret>,
    /// The EncodingAESKey; with it only safe mode is taken. Default: plain mode.
    pub aes_key: Option<Secret>,
    /// The EncodingAESKey before that one, taken as well until a change has reached all of WeChat. Default: none.
    pub previous_aes_key: Option<Secret>,
    /// Name of the upstream that gets the messages. Required.
    #[schemars(required, example = &"orders")]
    pub upstream: Option<String>,
    /// Exact path there. Required.
    #[schemars(required, example = &"/wechat/push")]
    pub path: Option<String>,
}
