//! `wxgate keys`: the keys from the command line, whether in a folder or in the store.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::{Config, Keys};
use crate::gateway::{self, KeysInStore};
use crate::token::keys::{self, Imported};

use super::operator::Operator;

/// Longest key file that is read, bytes. An RSA key of 8192 bits takes about 6,400 as PEM.
const MAX_FILE: u64 = 64 * 1024;

/// `wxgate keys import FILE [--hs256]`: takes the key in `file` into the keys of `[token]`, as the active one of its algorithm.
/// Needs no running gateway, but takes the way through one that has the database open. A running one takes the key up by itself.
///
/// # Errors
/// When the file cannot be read, the key is not fit, or the keys there cannot be used; the message names the file and the
/// remedy and says nothing of the key.
pub async fn import(
    config: &Config,
    file: &Path,
    hs256: bool,
    clock: &Clock,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let failed = || format!("cannot import {}", file.display());
    let content = read(file).with_context(failed)?;
    let section = &config.token;
    let imported = match &section.keys {
        Keys::Folder(folder) => {
            let import = if hs256 {
                keys::import_hs256(folder, &content, clock)
            } else {
                keys::import_pem(folder, &content, clock)
            };
            Said::of(import.with_context(failed)?)
        }
        Keys::Store { .. } => match KeysInStore::open(config, clock).await.with_context(failed)? {
            Some(keys) => Said::of(keys.import(&content, hs256).await.with_context(failed)?),
            None => sent(config, &content, hs256, clock).await.with_context(failed)?,
        },
    };
    let Said { algorithm: name, kid, replaced, signs_at } = imported;

    let place = match &section.keys {
        Keys::Folder(folder) => folder.display().to_string(),
        Keys::Store { .. } => "the store".to_owned(),
    };
    match &signs_at {
        Some(at) => writeln!(
            out,
            "{name} key {kid} is in {place}, and the active one from {at} on, when every instance has it"
        )?,
        None => writeln!(out, "{name} key {kid} is now the active one in {place}")?,
    }
    if let Some(former) = replaced {
        writeln!(out, "the former one, {former}, verifies what it signed")?;
    }
    if hs256 && content.last() == Some(&b'\n') {
        writeln!(out, "note: the file ends in a line end, which is part of the secret")?;
    }
    if name != section.algorithm.name() {
        let signs = section.algorithm.name();
        writeln!(out, "note: it verifies; new tokens are signed with {signs} until `token.algorithm` is \"{name}\"")?;
    }
    writeln!(out, "running gateways take it up within a second")?;
    Ok(())
}

/// What is said of an imported key.
struct Said {
    algorithm: String,
    kid: String,
    replaced: Option<String>,
    signs_at: Option<String>,
}

impl Said {
    fn of(imported: Imported) -> Self {
        let Imported { algorithm, kid, replaced, signs_at } = imported;
        Self { algorithm: algorithm.name().to_owned(), kid, replaced, signs_at: signs_at.map(|at| at.to_string()) }
    }
}

/// Through the gateway that has the database: sealed, since its listener speaks plain HTTP.
async fn sent(config: &Config, content: &[u8], hs256: bool, clock: &Clock) -> anyhow::Result<Said> {
    let record = gateway::sealed_key(&gateway::masters(&config.token.keys)?, content, hs256, clock)?;
    let body = json!({ "sealed": STANDARD.encode(record) });
    let answer = Operator::of(config)?.post("/api/keys/import", &body).await?;
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    let (algorithm, kid) = text("algorithm").zip(text("kid")).context("the gateway's answer cannot be read")?;
    Ok(Said { algorithm, kid, replaced: text("replaced"), signs_at: text("signs_at") })
}

/// `wxgate keys import --from FOLDER [--replace]`: brings all keys of a folder into the store, so that nobody is signed out when
/// `[token] keys` becomes `"store"`. No gateway may run on the folder, nor have the database open.
///
/// # Errors
/// When the keys are not to be in the store, the folder holds none, or there are keys in the store already.
pub async fn move_in(
    config: &Config,
    folder: &Path,
    replace: bool,
    clock: &Clock,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    if let Keys::Folder(keys) = &config.token.keys {
        bail!(
            "--from brings keys into the store, and token.keys names the folder {}: write keys = \"store\" first; to use \
             another folder, name it there",
            keys.display()
        );
    }
    let failed = || format!("cannot bring in the keys of {}", folder.display());
    let Some(keys) = KeysInStore::open(config, clock).await.with_context(failed)? else {
        bail!("{}: a gateway is running on this database; stop it first", failed());
    };
    let moved = keys.for_move().move_in(folder, &config.token, replace).await.with_context(failed)?;
    writeln!(out, "in the store now, sealed: {}", moved.files.join(", "))?;
    if !moved.left.is_empty() {
        let local = config.token.keys.local().display();
        writeln!(out, "left where they are: {} (certificates belong into {local}/acme)", moved.left.join(", "))?;
    }
    writeln!(out, "start the gateways; when all is well, move {} away: who has it can sign tokens", folder.display())?;
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
    use super::*;
    use crate::config::{self, Environment};

    fn config(dir: &Path, algorithm: &str) -> Config {
        let text = format!(
            "[token]\nissuer = \"https://auth.example.test\"\nalgorithm = \"{algorithm}\"\nkeys = \"keys\"
             [[app]]\nappid = \"wx0123456789abcdef\"\nsecret = \"s\"
             [[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:1\"]
             [[route]]\npath = \"/*\"\nupstream = \"a\""
        );
        config::parse(text, &dir.join("gateway.toml"), &Environment::of([])).unwrap()
    }

    async fn run(config: &Config, content: &[u8], hs256: bool) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("the-file");
        std::fs::write(&file, content).unwrap();
        let mut out = Vec::new();
        match import(config, &file, hs256, &Clock::system(), &mut out).await {
            Ok(()) => Ok(String::from_utf8(out).unwrap()),
            Err(e) => Err(format!("{e:#}")),
        }
    }

    #[tokio::test]
    async fn an_imported_secret_is_reported_by_name_and_never_shown() {
        let home = tempfile::tempdir().unwrap();
        let secret = b"bench-only-secret-0123456789abcdefghijklmnop\n";
        let said = run(&config(home.path(), "HS256"), secret, true).await.unwrap();
        assert!(said.starts_with("HS256 key ") && said.contains("line end"), "{said}");
        assert!(!said.contains("bench-only"), "{said}");
    }

    #[tokio::test]
    async fn a_key_of_another_algorithm_than_the_configured_one_is_said_to_verify_only() {
        let home = tempfile::tempdir().unwrap();
        let said = run(&config(home.path(), "ES256"), &[b'x'; 32], true).await.unwrap();
        assert!(said.contains("signed with ES256 until `token.algorithm` is \"HS256\""), "{said}");
    }

    #[tokio::test]
    async fn an_unfit_file_is_refused_with_its_name_and_the_command_that_converts_it() {
        let home = tempfile::tempdir().unwrap();
        let config = config(home.path(), "ES256");
        let sec1 = b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
        let said = run(&config, sec1, false).await.unwrap_err();
        assert!(said.contains("the-file") && said.contains("openssl pkey -in FILE -out key.pem"), "{said}");
        assert!(run(&config, b"short", true).await.unwrap_err().contains("32 bytes"));
        assert!(run(&config, &vec![b'x'; 100_000], true).await.unwrap_err().contains("too large"));
    }
}
