//! `wxgate token`: what a token is, asked of the running gateway.

use std::io::{Read, Write};

use anyhow::Context as _;
use serde_json::json;

use crate::config::Config;
use crate::ids::Secret;

use super::operator::{Operator, admin_token};

/// Longest text that is read from standard input, bytes.
const MAX_INPUT: u64 = 64 * 1024;

/// `wxgate token admin`: the token of the admin listener, for curl and the page.
///
/// # Errors
/// When it cannot be read, or derived.
pub fn admin(config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    Ok(writeln!(out, "{}", admin_token(config)?.expose())?)
}

/// `wxgate token inspect TOKEN`: header, claims, and whether the gateway takes it now. `-` reads it from `input`, so that it
/// stands in no list of processes. The exit status is 0 for a valid token, else 1.
///
/// # Errors
/// When no gateway answers.
pub async fn inspect(
    config: &Config,
    token: &str,
    input: &mut (dyn Read + Send),
    out: &mut (dyn Write + Send),
) -> anyhow::Result<u8> {
    let mut text = Secret::new(token.to_owned());
    if token == "-" {
        let mut read = String::new();
        input.take(MAX_INPUT).read_to_string(&mut read).context("cannot read the token from standard input")?;
        text = Secret::new(read);
    }
    let shown = text.expose().trim();
    let shown = shown.strip_prefix("Bearer ").unwrap_or(shown);
    let found = Operator::of(config)?.post("/api/token/inspect", &json!({ "token": shown })).await?;
    let kind = found["kind"].as_str().unwrap_or("unknown");
    let valid = found["valid"] == true;
    match (valid, found["reason"].as_str()) {
        (true, None) => writeln!(out, "{kind}: valid")?,
        (true, Some(but)) => writeln!(out, "{kind}: valid, but {but}")?,
        (false, why) => writeln!(out, "{kind}: not valid: {}", why.unwrap_or("unknown"))?,
    }
    for part in ["header", "claims", "session"] {
        if !found[part].is_null() {
            writeln!(out, "{part} {:#}", found[part])?;
        }
    }
    Ok(u8::from(!valid))
}
