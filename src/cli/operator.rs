//! How commands speak to the running gateway: over its admin listener, with the token of the file beside the keys.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::admin::AdminToken;
use crate::config::Config;

/// How long the gateway may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// The running gateway of a configuration.
#[derive(Debug)]
pub struct Operator {
    client: reqwest::Client,
    address: String,
    token: AdminToken,
    keys: String,
}

impl Operator {
    /// The one that `config` describes.
    ///
    /// # Errors
    /// When the admin token cannot be read.
    pub fn of(config: &Config) -> anyhow::Result<Self> {
        let address = match config.admin.listen {
            address if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
            address => address.to_string(),
        };
        let keys = config.token.keys.display().to_string();
        let token =
            AdminToken::read(&config.token.keys).with_context(|| format!("cannot read the admin token in {keys}"))?;
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build()?;
        Ok(Self { client, address, token, keys })
    }

    /// GETs `path`.
    ///
    /// # Errors
    /// When no gateway answers, or not with 200.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(self.client.get(self.url(path))).await
    }

    /// POSTs `body` to `path`.
    ///
    /// # Errors
    /// As [`Operator::get`].
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(self.client.post(self.url(path)).json(body)).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let address = &self.address;
        let response = request
            .bearer_auth(self.token.expose())
            .send()
            .await
            .with_context(|| format!("no gateway answers at {address} ([admin] listen); is it running?"))?;
        let status = response.status();
        let answer: Value = response.json().await.unwrap_or_default();
        match (status.as_u16(), answer["detail"].as_str()) {
            (200, _) => Ok(answer),
            (401, _) => bail!("the gateway at {address} does not accept the admin token of {}", self.keys),
            (_, Some(detail)) if !detail.is_empty() => bail!("the gateway at {address} refuses: {detail}"),
            _ => bail!("the gateway at {address} answered {status}"),
        }
    }
}
