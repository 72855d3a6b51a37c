//! What the checks of all sections have in common: one scalar with its default, one list without
//! repetitions.

use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use super::super::file;
use super::super::report::Report;
use super::super::value::{Wrong, size};
use super::super::{secret, url};
use crate::ids::Secret;

/// The value of `key`, or `default`, which is written as it would be in the file.
pub(super) fn scalar<T>(
    report: &mut Report<'_>,
    key: &str,
    text: Option<&str>,
    default: &str,
    parse: impl Fn(&str) -> Result<T, Wrong>,
) -> Option<T> {
    text.and_then(|text| report.read(key, text, &parse)).or_else(|| parse(default).ok())
}

/// The duration at `key`, or `default`.
pub(super) fn time(
    report: &mut Report<'_>,
    key: &str,
    text: Option<&file::Duration>,
    default: &str,
    parse: impl Fn(&str) -> Result<Duration, Wrong>,
) -> Duration {
    scalar(report, key, text.map(|text| text.0.as_str()), default, parse).unwrap_or_default()
}

/// The size at `key` in bytes, if it is written and between `least` and `most`.
pub(super) fn bytes(
    report: &mut Report<'_>,
    key: &str,
    value: Option<&file::Size>,
    (least, most): (&str, &str),
) -> Option<u64> {
    let bytes = match value? {
        file::Size::Text(text) => report.read(key, text, size)?,
        file::Size::Bytes(bytes) => u64::try_from(*bytes).unwrap_or_default(),
    };
    let bound = |text: &str| size(text).unwrap_or_default();
    if (bound(least)..=bound(most)).contains(&bytes) {
        return Some(bytes);
    }
    report.refuse(key, &Wrong::new("is out of range", format!("write {least} to {most}")));
    None
}

/// The items of the list at `key`; each may stand there once.
pub(super) fn list<T: PartialEq>(
    report: &mut Report<'_>,
    key: &str,
    items: Option<&Vec<String>>,
    parse: impl Fn(&str) -> Result<T, Wrong>,
) -> Vec<T> {
    let mut parsed: Vec<T> = Vec::new();
    for (n, text) in items.into_iter().flatten().enumerate() {
        let key = format!("{key}[{n}]");
        match report.read(&key, text, &parse) {
            Some(item) if parsed.contains(&item) => report.refuse(&key, &Wrong::new("is listed twice", "remove one")),
            Some(item) => parsed.push(item),
            None => {}
        }
    }
    parsed
}

/// The content of a file of at most `most` bytes.
pub(super) fn content(path: &Path, most: u64) -> Result<Vec<u8>, Wrong> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > most => {
            Err(Wrong::new(format!("is larger than {most} bytes"), "let an upstream serve it"))
        }
        Ok(_) => Ok(bytes),
        Err(why) => {
            Err(Wrong::new(format!("cannot be read: {why}"), "write the path of a file, from this file's folder"))
        }
    }
}

/// The number at `key` where 0 means that there is none. The schema has seen to its range.
pub(super) fn most(number: Option<i64>) -> Option<NonZeroUsize> {
    number.and_then(|n| usize::try_from(n).ok()).and_then(NonZeroUsize::new)
}

/// The secret at `key`: as it is written, or from the file that it names.
pub(super) fn secret(report: &mut Report<'_>, key: &str, from: file::Secret, folder: &Path) -> Option<Secret<String>> {
    match from {
        file::Secret::Text(secret) => Some(secret),
        file::Secret::File(file) => {
            let from = |text: &str| url::file(text, folder).and_then(|path| secret::read(&path));
            report.read(&format!("{key}.file"), &file.file?, from)
        }
    }
}
