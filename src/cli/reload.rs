//! `wxgate reload`: asks the running gateway to read its file again.

use std::io::Write;

use anyhow::{Context as _, bail};
use reqwest::Method;
use serde::Deserialize;

use super::operator::Operator;
use crate::config::Config;

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
    let operator = Operator::of(config)?;
    let response = operator.send(Method::POST, "/api/reload", &[], None).await?;
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
        _ => bail!("the gateway answered {status}"),
    }
}
