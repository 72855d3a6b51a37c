//! Message push as WeChat sends it: signed, in safe mode encrypted, JSON or XML (official page "Message push").

use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::random;
use super::world::World;
use crate::ids::AppId;
use crate::wechat::message::cdata;
use crate::wechat::push::{AesKey, seal, signature};

/// WeChat waits this long for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is to be pushed, and how.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Push {
    /// Where to.
    url: String,
    /// The Token of the console.
    token: String,
    /// Safe mode when it is there.
    aes_key: Option<String>,
    /// Whose openid stands in `FromUserName`, unless the message says it.
    pub(super) user: String,
    pub(super) appid: Option<String>,
    /// XML in place of JSON.
    #[serde(default)]
    xml: bool,
    /// Further members; `MsgType` is `event` and `Event` is `debug_demo` unless they say otherwise.
    #[serde(default)]
    message: Map<String, Value>,
}

/// A push that is ready to be sent.
pub(super) struct Signed {
    url: String,
    query: Vec<(&'static str, String)>,
    body: String,
    xml: bool,
}

impl Push {
    /// `None` when `aes_key` is no key.
    pub(super) fn sign(self, world: &World, appid: &AppId, openid: &str) -> Option<Signed> {
        let now = world.clock.now().secs();
        let mut message = json!({
            "ToUserName": "gh_simulated",
            "FromUserName": openid,
            "CreateTime": now,
            "MsgType": "event",
            "Event": "debug_demo",
        });
        for (name, value) in self.message {
            message[name] = value;
        }
        let text = written(&message, self.xml);
        let nonce = u32::from_be_bytes(random()).to_string();
        let timestamp = now.to_string();
        let mut query = vec![
            ("signature", signature(&[&self.token, &timestamp, &nonce])),
            ("timestamp", timestamp.clone()),
            ("nonce", nonce.clone()),
            ("openid", openid.to_owned()),
        ];
        let body = match self.aes_key {
            None => text,
            Some(key) => {
                let encrypted = seal(&AesKey::parse(&key)?, &random(), text.as_bytes(), appid.as_str())?;
                query.push(("encrypt_type", "aes".to_owned()));
                query.push(("msg_signature", signature(&[&self.token, &timestamp, &nonce, &encrypted])));
                written(&json!({ "ToUserName": "gh_simulated", "Encrypt": encrypted }), self.xml)
            }
        };
        Some(Signed { url: self.url, query, body, xml: self.xml })
    }
}

/// A flat message as WeChat writes it: numbers bare, text in CDATA.
fn written(message: &Value, xml: bool) -> String {
    if !xml {
        return message.to_string();
    }
    let mut text = "<xml>".to_owned();
    for (name, value) in message.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), cdata);
        // Writing to a string does not fail.
        let _ = writeln!(text, "<{name}>{value}</{name}>");
    }
    text + "</xml>"
}

impl Signed {
    /// Sends it once; the status and the text of the answer.
    pub(super) async fn send(self) -> Result<Value, reqwest::Error> {
        let mut builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        if self.url.starts_with("http://") {
            builder = builder.tls_certs_only([]);
        }
        let content_type = if self.xml { "text/xml" } else { "application/json" };
        let request = builder.timeout(TIMEOUT).build()?.post(self.url).query(&self.query);
        let answer = request.header(http::header::CONTENT_TYPE, content_type).body(self.body).send().await?;
        Ok(json!({ "status": answer.status().as_u16(), "body": answer.text().await? }))
    }
}
