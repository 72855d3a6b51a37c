//! What the commands for operators have in common: the running gateway's admin listener, asked with the admin token.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::Method;
use serde_json::Value;

use crate::admin::AdminToken;
use crate::config::{Config, Keys};
use crate::gateway;

/// How long an answer may take to begin. The end of all sessions of a large app takes minutes.
const DEADLINE: Duration = Duration::from_secs(600);

/// How long the connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// The admin listener of a running gateway.
#[derive(Debug)]
pub struct Operator {
    address: String,
    /// Whose token it is, for people.
    of: String,
    token: AdminToken,
    client: reqwest::Client,
}

impl Operator {
    /// That of the gateway of this configuration; opens no connection yet.
    ///
    /// # Errors
    /// When the admin token cannot be read.
    pub fn of(config: &Config) -> anyhow::Result<Self> {
        let address = match config.admin.listen {
            address if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
            address => address.to_string(),
        };
        let token = admin_token(config)?;
        let of = match &config.token.keys {
            Keys::Folder(folder) => format!("the admin token of {}", folder.display()),
            Keys::Store { .. } => "the admin token that this master key gives".to_owned(),
        };
        let client = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT).read_timeout(DEADLINE).build()?;
        Ok(Self { address, of, token, client })
    }

    /// Makes a call; any answer but a problem with the token comes back.
    ///
    /// # Errors
    /// When no gateway answers, or it does not accept the token.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> anyhow::Result<reqwest::Response> {
        let url = format!("http://{}{path}", self.address);
        let mut request = self.client.request(method, url).query(query).bearer_auth(self.token.expose());
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .with_context(|| format!("no gateway answers at {} ([admin] listen); is it running?", self.address))?;
        if response.status().as_u16() == 401 {
            bail!("the gateway at {} does not accept {}", self.address, self.of);
        }
        Ok(response)
    }

    /// Makes a call that answers with JSON.
    ///
    /// # Errors
    /// As [`Operator::send`], and with the detail of a problem.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let response = self.send(method, path, query, body).await?;
        good(response).await?.json().await.context("the gateway's answer cannot be read")
    }

    /// Reads something.
    ///
    /// # Errors
    /// As [`Operator::call`].
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.call(Method::GET, path, query, None).await
    }

    /// Changes something.
    ///
    /// # Errors
    /// As [`Operator::call`].
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, &[], Some(body)).await
    }
}

/// The token of the gateway of this configuration.
///
/// # Errors
/// When it cannot be read, or derived.
pub fn admin_token(config: &Config) -> anyhow::Result<AdminToken> {
    match &config.token.keys {
        Keys::Folder(folder) => {
            AdminToken::read(folder).with_context(|| format!("cannot read the admin token in {}", folder.display()))
        }
        keys @ Keys::Store { .. } => derived(keys),
    }
}

/// The token where the keys are in the store.
///
/// # Errors
/// When the master key is not known here.
pub fn derived(keys: &Keys) -> anyhow::Result<AdminToken> {
    let masters = gateway::masters(keys)?;
    Ok(AdminToken::derived(masters.first().context("the keys are in a folder")?))
}

/// The answer, if it is no problem.
///
/// # Errors
/// With the problem's detail.
pub async fn good(response: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let problem: Value = response.json().await.unwrap_or_default();
    match (problem["code"].as_str(), problem["detail"].as_str()) {
        (Some(code), Some(detail)) => bail!("{code}: {detail}"),
        _ => bail!("the gateway answered {status}"),
    }
}

/// An id as a part of a path.
pub fn segment(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}
