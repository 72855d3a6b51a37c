//! `wxgate keys`: the key directory from the command line.

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::token::keys::{self, Imported};

use super::operator::Operator;

/// Longest key file that is read, bytes. An RSA key of 8192 bits takes about 6,400 as PEM.
const MAX_FILE: u64 = 64 * 1024;

/// `wxgate keys import FILE [--hs256]`: takes the key in `file` into the key directory of `[token]`, as the active one of
/// its algorithm. Needs no running gateway; a running one takes it up at its next reload.
///
/// # Errors
/// When the file cannot be read, the key is not fit, or the key directory is damaged; the message names the file and the
/// remedy and says nothing of the key.
pub fn import(
    section: &config::Token,
    file: &Path,
    hs256: bool,
    clock: &Clock,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let failed = || format!("cannot import {}", file.display());
    let content = read(file).with_context(failed)?;
    let imported = if hs256 { keys::import_hs256 } else { keys::import_pem }(&section.keys, &content, clock);
    let Imported { algorithm, kid, replaced } = imported.with_context(failed)?;

    let name = algorithm.name();
    writeln!(out, "{name} key {kid} is now the active one in {}", section.keys.display())?;
    if let Some(former) = replaced {
        writeln!(out, "the former one, {former}, verifies what it signed")?;
    }
    if hs256 && content.last() == Some(&b'\n') {
        writeln!(out, "note: the file ends in a line end, which is part of the secret")?;
    }
    if algorithm != section.algorithm {
        let signs = section.algorithm.name();
        writeln!(out, "note: it verifies; new tokens are signed with {signs} until `token.algorithm` is \"{name}\"")?;
    }
    writeln!(out, "a running gateway takes it up with `wxgate reload`")?;
    Ok(())
}

/// `wxgate keys list`: the ring of the running gateway, and its sealing keys.
///
/// # Errors
/// When no gateway answers.
pub async fn list(config: &Config, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    let ring = Operator::of(config)?.get("/api/keys", &[]).await?;
    print(&ring, out)
}

/// `wxgate keys rotate [--now] [--sealing]`: has a new key take over, one that signs or the one that seals.
///
/// # Errors
/// When no gateway answers, or it cannot write the key directory.
pub async fn rotate(config: &Config, now: bool, sealing: bool, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    let ring = Operator::of(config)?.post("/api/keys/rotate", &json!({ "now": now, "sealing": sealing })).await?;
    print(&ring, out)
}

fn print(ring: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    for key in ring["keys"].as_array().into_iter().flatten() {
        let text = |name: &str| key[name].as_str().unwrap_or_default();
        let (state, kid, algorithm) = (text("state"), text("kid"), text("algorithm"));
        let (word, at) = if state == "next" { ("signs from", text("signs_at")) } else { ("since", text("since")) };
        writeln!(out, "{algorithm:<6} {kid} {state:<8} {word} {at}")?;
    }
    for key in ring["sealing"].as_array().into_iter().flatten() {
        let text = |name: &str| key[name].as_str();
        let (id, state) = (text("id").unwrap_or_default(), text("state").unwrap_or_default());
        // In the columns of the names above.
        write!(out, "{:<6} {id:<43} {state:<8}", "seals")?;
        match text("seals_from") {
            Some(at) if state == "next" => writeln!(out, " seals from {at}")?,
            Some(at) => writeln!(out, " since {at}")?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

fn read(file: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Read as _;

    let mut content = Zeroizing::new(Vec::new());
    std::fs::File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if u64::try_from(content.len()).is_ok_and(|n| n <= MAX_FILE) {
        Ok(content)
    } else {
        Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "is too large for a key"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Algorithm;

    fn section(dir: &Path, algorithm: Algorithm) -> config::Token {
        config::Token {
            issuer: "https://auth.example.test".into(),
            audience: vec!["wxgate".into()],
            algorithm,
            format: config::TokenFormat::Jwt,
            keys: dir.join("keys"),
            rotate_every: None,
            access_ttl: Duration::from_secs(7200),
            refresh_ttl: Duration::from_secs(86_400),
            refresh_grace: Duration::from_secs(30),
            session_ttl: Duration::from_secs(86_400),
            renew_within: None,
            max_staleness: Duration::from_secs(7200),
            accept_bare: false,
        }
    }

    fn run(section: &config::Token, content: &[u8], hs256: bool) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("the-file");
        std::fs::write(&file, content).unwrap();
        let mut out = Vec::new();
        match import(section, &file, hs256, &Clock::system(), &mut out) {
            Ok(()) => Ok(String::from_utf8(out).unwrap()),
            Err(e) => Err(format!("{e:#}")),
        }
    }

    #[test]
    fn an_imported_secret_is_reported_by_name_and_never_shown() {
        let home = tempfile::tempdir().unwrap();
        let secret = b"bench-only-secret-0123456789abcdefghijklmnop\n";
        let said = run(&section(home.path(), Algorithm::Hs256), secret, true).unwrap();
        assert!(said.starts_with("HS256 key ") && said.contains("line end"), "{said}");
        assert!(!said.contains("bench-only"), "{said}");
    }

    #[test]
    fn a_key_of_another_algorithm_than_the_configured_one_is_said_to_verify_only() {
        let home = tempfile::tempdir().unwrap();
        let said = run(&section(home.path(), Algorithm::Es256), &[b'x'; 32], true).unwrap();
        assert!(said.contains("signed with ES256 until `token.algorithm` is \"HS256\""), "{said}");
    }

    #[test]
    fn an_unfit_file_is_refused_with_its_name_and_the_command_that_converts_it() {
        let home = tempfile::tempdir().unwrap();
        let section = section(home.path(), Algorithm::Es256);
        let sec1 = b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
        let said = run(&section, sec1, false).unwrap_err();
        assert!(said.contains("the-file") && said.contains("openssl pkey -in FILE -out key.pem"), "{said}");
        assert!(run(&section, b"short", true).unwrap_err().contains("32 bytes"));
        assert!(run(&section, &vec![b'x'; 100_000], true).unwrap_err().contains("too large"));
    }
}
