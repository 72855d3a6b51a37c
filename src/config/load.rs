//! From a text to a [`Config`], or to every fault of it.
//!
//! Four steps: parse the TOML, take out what has the wrong shape ([`super::structure`]), read the rest into
//! [`super::file::File`], check what it means ([`super::check`]). Only a syntax fault ends it early.

use std::hash::Hasher as _;
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, Deserializer};

use super::check;
use super::fault::{Fault, Faults};
use super::file::{self, File};
use super::report::Report;
use super::secret::Environment;
use super::section::Config;
use super::shown;
use super::structure::prune;

/// Reads and checks the file at `path`, with the environment of this process. Opens no socket.
///
/// # Errors
/// Every fault of it, or that it cannot be read.
pub fn load(path: &Path) -> Result<Config, Faults> {
    parse(read(path)?, path, &Environment::process())
}

/// The content of the file at `path`.
///
/// # Errors
/// One fault, when it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, Faults> {
    std::fs::read(path).map_err(|why| {
        let what = format!("cannot be read: {why}; name another file with --config");
        Faults { file: path.to_owned(), faults: vec![Fault { line: None, key: String::new(), what }] }
    })
}

/// Checks `text` as the content of the file at `path`, where relative paths start.
///
/// # Errors
/// Every fault of it.
pub fn parse(text: impl AsRef<[u8]>, path: &Path, env: &Environment) -> Result<Config, Faults> {
    let digest = digest(text.as_ref());
    let text = match std::str::from_utf8(text.as_ref()) {
        Ok(text) => text,
        Err(wrong) => {
            let sound = String::from_utf8_lossy(text.as_ref().get(..wrong.valid_up_to()).unwrap_or_default());
            let what = "is not UTF-8; save the file as UTF-8".to_owned();
            let line = Some(sound.matches('\n').count() + 1);
            return Err(Faults { file: path.to_owned(), faults: vec![Fault { line, key: String::new(), what }] });
        }
    };
    let mut report = Report::new(text);
    report.stand_in(env.stand_in());
    let checked = shaped(text, env, &mut report).map(|file| check::file(file, path, &mut report));
    match checked {
        Some(config) if report.is_clean() => Ok(Config { digest, shown: shown::shown(text), ..config }),
        Some(_) | None => Err(report.into_faults(path)),
    }
}

/// Tells one content of the file from another, within one process.
pub fn digest(text: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(text);
    hasher.finish()
}

/// The parts of `text` that have the right shape; `None` when it is no TOML at all.
fn shaped(text: &str, env: &Environment, report: &mut Report<'_>) -> Option<File> {
    let (mut root, faults) = DeTable::parse_recoverable(text);
    if !faults.is_empty() {
        for fault in faults {
            let at = fault.span().map_or(text.len(), |span| span.start);
            report.fault_at(at, format!("not TOML: {}", one_line(fault.message())));
        }
        return None;
    }
    prune(root.get_mut(), &file::schema(), env, report);
    match File::deserialize(Deserializer::from(root)) {
        Ok(file) => Some(file),
        // Everything that could fail here was taken out above. If not, refuse, and do not repeat values.
        Err(_) => {
            report.fault_at(0, "has a shape that the schema allows and the reader does not; compare `wxgate schema`");
            None
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
