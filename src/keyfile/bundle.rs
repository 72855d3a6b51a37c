//! All key files of a deployment as one sealed record, which any store may keep.
//!
//! `"wxkb" ‖ format (1) ‖ deployment (16) ‖ version (8) ‖ salt (32) ‖ n (1) ‖ n × (master key's id (8) ‖ content key, sealed (48))`
//! is the head, `content, sealed` the rest; AES-256-GCM throughout. The content has a key of its own, drawn for each record and
//! sealed once for each master key, so that two can be good while one takes the place of the other. What seals it is derived
//! from the master key and the salt for this alone, so neither key ever seals twice and the nonces may be zero. Everything in
//! front is bound: no byte of a record can be changed, no version number put on another content, no part moved into another
//! record. That a whole record is not replaced by an older one is for whoever remembers its deployment and version.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::MasterKey;
use super::master::{MasterId, shown};
use crate::clock::Timestamp;

const MAGIC: &[u8] = b"wxkb";
const FORMAT: u8 = 1;
const SALT_LEN: usize = 32;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
const ID_LEN: usize = 8;
const SEALED_KEY_LEN: usize = KEY_LEN + TAG_LEN;
/// What the sealed content keys are bound to.
const FIXED_LEN: usize = MAGIC.len() + 1 + 16 + 8 + SALT_LEN;
/// Most master keys of one record.
const MOST: usize = 4;
/// Longest record that is opened, bytes: a ring has a handful of keys.
const MAX_LEN: usize = 1 << 20;

/// A key file, wherever it lies.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// What is in it.
    pub content: Zeroizing<Vec<u8>>,
    /// When it was last written.
    pub written_at: Timestamp,
}

/// Key files by name.
pub type KeyFiles = BTreeMap<String, KeyFile>;

/// The key files of a deployment, as of one moment.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Drawn when the first one was made.
    pub deployment: [u8; 16],
    /// One more with each change.
    pub version: u64,
    /// The files.
    pub files: KeyFiles,
}

/// Why a record does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is none, or of a later version of this program.
    #[error("is no record that this version of wxgate can read")]
    Unknown,
    /// It was sealed with another master key.
    #[error("was sealed with another master key ({sealed_by}) than the configured one ({configured})")]
    OtherMasterKey {
        /// The names of those that open it.
        sealed_by: String,
        /// The names of those that are configured.
        configured: String,
    },
    /// The keys together are larger than a record may be.
    #[error("would be larger than 1 MiB: there are too many keys, or too large ones; nothing was changed")]
    TooLarge,
    /// It was changed since it was sealed.
    #[error("is damaged, or was changed from outside")]
    Damaged,
    /// The system gave no random bytes, or the cipher refused a key.
    #[error("cannot be sealed: the cryptographic library refused to work")]
    Crypto,
}

/// Whether a record that was opened may stay as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It opens with the master key in use.
    Stays,
    /// It opens with the one before alone, or still with one that is no longer configured: it has to be sealed anew.
    SealAnew,
}

impl Bundle {
    /// An empty one of a new deployment; it has never been kept.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn first() -> Result<Self, Error> {
        let mut deployment = [0; 16];
        rand::fill(&mut deployment).map_err(|_| Error::Crypto)?;
        Ok(Self { deployment, version: 0, files: KeyFiles::new() })
    }

    /// The record, which opens with each of `masters`; the first is the one in use. `purpose` sets records apart that must not
    /// stand for each other.
    ///
    /// # Errors
    /// [`Error::TooLarge`] and [`Error::Crypto`].
    pub fn seal(&self, purpose: &str, masters: &[MasterKey]) -> Result<Vec<u8>, Error> {
        let masters = &masters[..masters.len().min(MOST)];
        let (mut salt, mut key) = ([0; SALT_LEN], Zeroizing::new([0; KEY_LEN]));
        rand::fill(&mut salt).and_then(|()| rand::fill(key.as_mut_slice())).map_err(|_| Error::Crypto)?;
        let mut record = MAGIC.to_vec();
        record.push(FORMAT);
        record.extend_from_slice(&self.deployment);
        record.extend_from_slice(&self.version.to_be_bytes());
        record.extend_from_slice(&salt);
        let fixed = record.clone();
        record.push(u8::try_from(masters.len()).map_err(|_| Error::Crypto)?);
        for master in masters {
            let mut sealed = Zeroizing::new(key.to_vec());
            let tag = cipher(&master.derive(purpose, &salt))?
                .seal_in_place_separate_tag(zero(), Aad::from(&fixed), &mut sealed)
                .map_err(|_| Error::Crypto)?;
            record.extend_from_slice(&master.id());
            record.extend_from_slice(&sealed);
            record.extend_from_slice(tag.as_ref());
        }
        let mut content = encode(&self.files)?;
        let tag = cipher(&key)?.seal_in_place_separate_tag(zero(), Aad::from(&record), &mut content);
        let tag = tag.map_err(|_| Error::Crypto)?;
        record.extend_from_slice(&content);
        record.extend_from_slice(tag.as_ref());
        // What `open` would not take must never stand in the store: no instance could start.
        if record.len() > MAX_LEN { Err(Error::TooLarge) } else { Ok(record) }
    }

    /// Opens what [`Bundle::seal`] made for the same purpose and one of `masters`; the first is the one in use.
    ///
    /// # Errors
    /// Any [`Error`] but the last.
    pub fn open(record: &[u8], purpose: &str, masters: &[MasterKey]) -> Result<(Self, Fate), Error> {
        let (fixed, rest) = record.split_at_checked(FIXED_LEN).ok_or(Error::Unknown)?;
        if record.len() > MAX_LEN || !fixed.starts_with(MAGIC) || fixed[MAGIC.len()] != FORMAT {
            return Err(Error::Unknown);
        }
        let (count, rest) = rest.split_first().ok_or(Error::Damaged)?;
        let (list, sealed) =
            rest.split_at_checked(usize::from(*count) * (ID_LEN + SEALED_KEY_LEN)).ok_or(Error::Damaged)?;
        let entries: Vec<(&[u8], &[u8])> =
            list.chunks_exact(ID_LEN + SEALED_KEY_LEN).map(|entry| entry.split_at(ID_LEN)).collect();

        let known = |master: &&MasterKey| entries.iter().any(|(id, _)| *id == master.id());
        let Some(master) = masters.iter().find(known) else {
            let sealed_by = names(entries.iter().map(|(id, _)| <MasterId>::try_from(*id).unwrap_or_default()));
            return Err(Error::OtherMasterKey { sealed_by, configured: names(masters.iter().map(MasterKey::id)) });
        };
        let id = master.id();
        let (_, sealed_key) = entries.iter().find(|(known, _)| *known == id).ok_or(Error::Damaged)?;
        let salt = &fixed[FIXED_LEN - SALT_LEN..];
        let key = opened(&master.derive(purpose, salt), fixed, sealed_key)?;
        let key: Zeroizing<[u8; KEY_LEN]> = Zeroizing::new(key.as_slice().try_into().map_err(|_| Error::Damaged)?);
        let content = opened(&key, &record[..record.len() - sealed.len()], sealed)?;

        let at = MAGIC.len() + 1;
        let bundle = Self {
            deployment: fixed[at..at + 16].try_into().map_err(|_| Error::Damaged)?,
            version: u64::from_be_bytes(fixed[at + 16..at + 24].try_into().map_err(|_| Error::Damaged)?),
            files: decode(&content).ok_or(Error::Damaged)?,
        };
        // Of several instances some may have the next master key already: what they have sealed with it first is theirs.
        let in_use = masters.first().map(MasterKey::id);
        let is_first = entries.first().is_some_and(|(id, _)| in_use.is_some_and(|own| *id == own));
        let left_over = entries.iter().any(|(id, _)| !masters.iter().any(|master| *id == master.id()));
        let opens = in_use.is_some_and(|own| entries.iter().any(|(id, _)| *id == own));
        Ok((bundle, if !opens || (is_first && left_over) { Fate::SealAnew } else { Fate::Stays }))
    }
}

fn names(ids: impl Iterator<Item = MasterId>) -> String {
    let names: Vec<String> = ids.map(|id| shown(&id)).collect();
    names.join(", ")
}

fn cipher(key: &Zeroizing<[u8; KEY_LEN]>) -> Result<LessSafeKey, Error> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| Error::Crypto)?))
}

/// Good once for each key, and each key seals once.
fn zero() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn opened(key: &Zeroizing<[u8; KEY_LEN]>, bound: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut text = Zeroizing::new(sealed.to_vec());
    let opened = cipher(key)?.open_in_place(zero(), Aad::from(bound), &mut text);
    let length = opened.map_err(|_| Error::Damaged)?.len();
    text.truncate(length);
    Ok(text)
}

/// Each file: the length of its name (2), the name, when it was written (8, ms), the length of its content (4), the content.
fn encode(files: &KeyFiles) -> Result<Zeroizing<Vec<u8>>, Error> {
    let length = files.iter().map(|(name, file)| 14 + name.len() + file.content.len()).sum();
    // Enough room, so that growing leaves no copy behind.
    let mut content = Zeroizing::new(Vec::with_capacity(length));
    for (name, file) in files {
        content.extend_from_slice(&u16::try_from(name.len()).map_err(|_| Error::Crypto)?.to_be_bytes());
        content.extend_from_slice(name.as_bytes());
        content.extend_from_slice(&file.written_at.millis().to_be_bytes());
        content.extend_from_slice(&u32::try_from(file.content.len()).map_err(|_| Error::Crypto)?.to_be_bytes());
        content.extend_from_slice(&file.content);
    }
    Ok(content)
}

fn decode(mut content: &[u8]) -> Option<KeyFiles> {
    fn part<'a>(content: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (part, rest) = content.split_at_checked(length)?;
        *content = rest;
        Some(part)
    }
    let mut files = KeyFiles::new();
    while !content.is_empty() {
        let length = u16::from_be_bytes(part(&mut content, 2)?.try_into().ok()?);
        let name = std::str::from_utf8(part(&mut content, usize::from(length))?).ok()?;
        let written_at = Timestamp::from_millis(i64::from_be_bytes(part(&mut content, 8)?.try_into().ok()?));
        let length = u32::from_be_bytes(part(&mut content, 4)?.try_into().ok()?);
        let file = Zeroizing::new(part(&mut content, usize::try_from(length).ok()?)?.to_vec());
        files.insert(name.to_owned(), KeyFile { content: file, written_at });
    }
    Some(files)
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFile(…)")
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle(version {}, {} files)", self.version, self.files.len())
    }
}

#[cfg(test)]
mod tests;
