//! `wxgate reload`: asks the running gateway to read its file again.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::admin::AdminToken;
use crate::config::Config;

/// How long the gateway may take.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    generation: u64,
    #[serde(default)]
    changes: Vec<String>,
    #[serde(default)]
    faults: Vec<String>,
}

/// Asks the gateway of this configuration; prints what changed on `out`, or the faults on `err`. The exit status is 0, or 64
/// when there are faults.
///
/// # Errors
/// When no gateway answers, or it does not accept the admin token.
pub async fn run(config: &Config, out: &mut impl Write, err: &mut impl Write) -> anyhow::Result<u8> {
    let address = match config.admin.listen {
        address if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
        address => address.to_string(),
    };
    let token = AdminToken::read(&config.token.keys)
        .with_context(|| format!("cannot read the admin token in {}", config.token.keys.display()))?;
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build()?;
    let response = client
        .post(format!("http://{address}/api/reload"))
        .bearer_auth(token.expose())
        .send()
        .await
        .with_context(|| format!("no gateway answers at {address} ([admin] listen); is it running?"))?;
    let status = response.status();
    match status.as_u16() {
        200 => {
            let answer: Answer = response.json().await.context("the gateway's answer cannot be read")?;
            if answer.changes.is_empty() {
                writeln!(out, "reloaded: nothing changed (configuration {})", answer.generation)?;
            } else {
                writeln!(out, "reloaded (configuration {}):", answer.generation)?;
                for change in answer.changes {
                    writeln!(out, "  {change}")?;
                }
            }
            Ok(0)
        }
        422 => {
            let answer: Answer = response.json().await.context("the gateway's answer cannot be read")?;
            for fault in answer.faults {
                writeln!(err, "{fault}")?;
            }
            Ok(64)
        }
        401 => bail!("the gateway at {address} does not accept the admin token of {}", config.token.keys.display()),
        _ => bail!("the gateway at {address} answered {status}"),
    }
}
