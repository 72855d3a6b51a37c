//! `[token] keys`, and with `"store"` the master key: one that cannot be guessed.

use std::path::Path;

use super::super::file;
use super::super::report::Report;
use super::super::section::Keys;
use super::super::url;
use super::shared::{scalar, secret};
use crate::ids::Secret;

/// The value of `keys` that is no folder.
const STORE: &str = "store";

const MASTER: &str = "token.master_key";
const PREVIOUS: &str = "token.previous_master_key";

/// How to make a good one.
const MAKE: &str = "make one with `openssl rand -base64 32`";

/// Fewest characters: 128 bits in hexadecimal.
const LEAST: usize = 32;

/// Fewest different ones. Of 32 random hexadecimal digits fewer are as rare as one in a million.
const LEAST_DIFFERENT: usize = 8;

/// What is in texts that people make up, or leave as they found them. A random text of 64 has one of them as often as one in a
/// hundred million.
const MADE_UP: [&str; 14] = [
    "change",
    "secret",
    "passwor",
    "example",
    "placeholder",
    "master",
    "replace",
    "insert",
    "default",
    "wxgate",
    "123456",
    "abcdef",
    "qwerty",
    "aaaaaa",
];

/// Where the keys are.
pub(super) fn keys(file: &mut file::Token, folder: &Path, report: &mut Report<'_>) -> Keys {
    let path = |text: &str| url::file(text, folder);
    let (master_key, previous) = (file.master_key.take(), file.previous_master_key.take());
    if file.keys.as_deref() != Some(STORE) {
        let for_store =
            [(MASTER, master_key.is_some()), (PREVIOUS, previous.is_some()), ("token.local", file.local.is_some())];
        for (key, _) in for_store.iter().filter(|(_, is_there)| *is_there) {
            report.fault(key, "is for keys in the store; write keys = \"store\" as well, or remove it");
        }
        return Keys::Folder(scalar(report, "token.keys", file.keys.as_deref(), "data/keys", path).unwrap_or_default());
    }
    if master_key.is_none() && !report.is_refused(MASTER) {
        let what = "keys in the store are sealed with a master key; write master_key = \"${WXGATE_MASTER_KEY}\" as well, and set that environment variable";
        report.fault("token.keys", format!("{what} ({MAKE})"));
    }
    let master_key = master_key.and_then(|from| one(report, MASTER, from, folder));
    let previous = previous.and_then(|from| one(report, PREVIOUS, from, folder));
    if master_key.is_some() && master_key == previous {
        report.fault(PREVIOUS, "is the same as token.master_key; write the one before it, or remove it");
    }
    let local = scalar(report, "token.local", file.local.as_deref(), "data", path).unwrap_or_default();
    Keys::Store { master_key, previous, local }
}

/// `None` also when it is not known here, which is no fault.
fn one(report: &mut Report<'_>, key: &str, from: file::Secret, folder: &Path) -> Option<Secret<String>> {
    let secret = secret(report, key, from, folder)?;
    if report.is_stand_in(secret.expose()) {
        return None;
    }
    if let Some(weakness) = weakness(secret.expose()) {
        report.fault(key, format!("{weakness}; {MAKE}"));
        return None;
    }
    Some(secret)
}

/// Why a text can be guessed.
fn weakness(text: &str) -> Option<&'static str> {
    if text.len() < LEAST {
        return Some("is shorter than 32 characters, so it could be guessed");
    }
    let mut different: Vec<char> = text.chars().collect();
    different.sort_unstable();
    different.dedup();
    if different.len() < LEAST_DIFFERENT || repeats(text.as_bytes()) || counts(text.as_bytes()) {
        return Some("repeats itself, so it could be guessed");
    }
    let folded = text.to_ascii_lowercase();
    if MADE_UP.iter().any(|word| folded.contains(word)) || text.contains(['<', '>', ' ']) {
        return Some("looks like a placeholder, or like words, so it could be guessed");
    }
    None
}

/// Whether it is a shorter text again and again.
fn repeats(text: &[u8]) -> bool {
    (1..=text.len() / 2).any(|period| text.iter().zip(&text[period..]).all(|(a, b)| a == b))
}

/// Whether most characters follow from the one before: `abcdefgh…`, `13579…`.
fn counts(text: &[u8]) -> bool {
    let steps: Vec<u8> = text.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    let same = steps.windows(2).filter(|pair| pair[0] == pair[1]).count();
    same * 2 > steps.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_generator_gives_is_taken() {
        for good in [
            "9f86d081884c7d659a2feaa0c55ad015",
            "3q2+7wAAVbZk1mF0Yk9sZ0pXQmRhc2hpbmcyMDI2eHk=",
            "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c",
            "tZ7#kQ1-vR9_mX4.bW6!pL8+nC3&dF5*",
        ] {
            assert_eq!(weakness(good), None, "{good}");
        }
    }

    #[test]
    fn what_could_be_guessed_is_refused() {
        for bad in [
            "",
            "9f86d081884c7d659a2feaa0c55ad01",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "0000000000000000000000000000000000000001",
            "9f86d081884c7d659f86d081884c7d65",
            "0a1b2c3d4e0a1b2c3d4e0a1b2c3d4e0a1b2c",
            "ghijklmnopqrstuvwxyzGHIJKLMNOPQRSTUVWXYZ",
            "CHANGE-ME-9f86d081884c7d659a2feaa0c55ad015",
            "my-very-long-password-that-nobody-knows",
            "<the master key of the deployment>",
            "correct horse battery staple correct",
        ] {
            assert!(weakness(bad).is_some(), "{bad}");
        }
    }
}
