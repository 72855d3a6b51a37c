//! `wxgate backup DIR`: database and keys of a running gateway, as one consistent copy that only its owner can read.
//!
//! The database first, copied by the gateway while it goes on serving; then the keys. A key that is made in between is one too
//! many; nothing in the database was sealed or signed with a key that the copy does not have.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use reqwest::Method;

use super::operator::{Operator, good};
use crate::config::{Config, Keys, MembersStore, SessionsStore};

/// Folder of the keys in a backup.
const KEYS: &str = "keys";

/// Makes the folder and fills it.
///
/// # Errors
/// When it is there and not empty, no gateway answers, or something cannot be copied. What was copied until then stays, in a
/// folder that is not whole: `complete` is written last.
pub async fn run(config: &Config, to: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let operator = Operator::of(config)?;
    let there = || format!("cannot make {}", to.display());
    DirBuilder::new().recursive(true).mode(0o700).create(to).with_context(there)?;
    if fs::read_dir(to).with_context(there)?.next().is_some() {
        bail!("{} is not empty: name a new folder", to.display());
    }
    let mut databases = Vec::new();
    let members = match &config.store.members {
        MembersStore::Sqlite(path) => Some(path),
        MembersStore::Postgres(_) => None,
    };
    let sessions = match &config.store.sessions {
        SessionsStore::Sqlite(path) => Some(path),
        SessionsStore::Redis(_) => None,
    };
    for (name, database) in [("members", members), ("sessions", sessions)] {
        let Some(path) = database else {
            writeln!(out, "{name}: on a server of its own, not in this backup")?;
            continue;
        };
        if databases.contains(&path) {
            continue;
        }
        let file = path.file_name().context("the database has no name")?;
        let bytes = copy_database(&operator, name, &to.join(file)).await?;
        writeln!(out, "{}: {bytes} bytes", Path::new(file).display())?;
        databases.push(path);
    }
    match &config.token.keys {
        Keys::Folder(folder) => {
            let copied = copy_keys(folder, &to.join(KEYS))?;
            writeln!(out, "{KEYS}: {copied} files")?;
        }
        Keys::Store { .. } => {
            let what = "sealed in the store of sessions; keep the master key, without it no copy opens";
            writeln!(out, "{KEYS}: {what}")?;
        }
    }
    write(&to.join("complete"), format!("wxgate {}\n", env!("CARGO_PKG_VERSION")).as_bytes())?;
    File::open(to).and_then(|folder| folder.sync_all()).with_context(there)?;
    writeln!(out, "backup in {}", to.display())?;
    Ok(())
}

async fn copy_database(operator: &Operator, name: &str, to: &Path) -> anyhow::Result<u64> {
    let response = operator.send(Method::GET, &format!("/api/backup/{name}"), &[], None).await?;
    let response = good(response).await?;
    let announced = response.content_length();
    let mut file = create(to)?;
    let (mut parts, mut written) = (response.bytes_stream(), 0);
    while let Some(part) = parts.next().await {
        let part = part.context("the copy of the database broke off")?;
        file.write_all(&part).with_context(|| format!("cannot write {}", to.display()))?;
        written += part.len() as u64;
    }
    if announced.is_some_and(|announced| announced != written) {
        bail!("the copy of the database broke off");
    }
    file.sync_all()?;
    Ok(written)
}

/// Every file of the key directory, which only its owner can read.
fn copy_keys(from: &Path, to: &Path) -> anyhow::Result<usize> {
    DirBuilder::new().mode(0o700).create(to).with_context(|| format!("cannot make {}", to.display()))?;
    let mut copied = 0;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let path = entry.path();
            let content =
                zeroize::Zeroizing::new(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
            write(&to.join(entry.file_name()), &content)?;
            copied += 1;
        }
    }
    Ok(copied)
}

fn create(path: &Path) -> anyhow::Result<File> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.with_context(|| format!("cannot write {}", path.display()))
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut file = create(path)?;
    file.write_all(content)?;
    Ok(file.sync_all()?)
}
