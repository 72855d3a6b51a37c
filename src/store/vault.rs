//! Seals what must not lie in a database in clear: WeChat's `session_key`, and the access tokens of apps.
//!
//! AES-256-GCM under a key of our own that lives beside the signing keys, not in the database. A sealed record names
//! its key and is bound to its owner, (appid, openid) or the app: moved to another row it does not open. The store that
//! keeps the record never sees what is in it.
//!
//! A record is `key id (8) ‖ nonce (12) ‖ ciphertext ‖ tag (16)`. The nonce is not random: it is a keyed hash of all
//! that is sealed, as in AES-SIV (RFC 5297). It repeats only when the whole message does, needs no luck from a random
//! generator, and gives equal records for equal keys of one person, by which a store tells that WeChat returned the
//! same `session_key` again.
//!
//! Which keys there are, and which of them seals when, is [`keys`]. Records of older keys are sealed again when they are
//! used, and by whoever goes through the store ([`Vault::reseal`]).

pub mod keys;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use zeroize::Zeroizing;

use crate::clock::{Clock, Timestamp};
use crate::ids::{AppId, OpenId};
use crate::keyfile::Shelf;
use keys::{Key, SealingKeys, Standing};

pub use keys::FILE;

const DOMAIN: &str = "wxgate session_key v1";
const TOKEN_DOMAIN: &str = "wxgate access_token v1";

/// How often at most the file is looked at because a record names a key that is not known here.
const LOOK: Duration = Duration::from_secs(1);

/// Why the vault cannot be opened, or a record not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key file cannot be made or read.
    #[error("sealing key {}: {source}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key file does not hold keys.
    #[error("sealing key {}: line {line} is not a key, which is 64 hex digits (32 bytes)", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The system gave no random bytes for a new key, or the cipher refused the key.
    #[error("the cryptographic library refused to work")]
    Crypto,
    /// The record was sealed by a key that is not in the key file.
    #[error("the record was sealed by a key that is not here")]
    UnknownKey,
    /// The record was changed, or belongs to another person.
    #[error("the record does not open")]
    Sealed,
}

/// Seals and opens records; knows the sealing keys.
pub struct Vault {
    shelf: Shelf,
    /// Replaced whole: what began with the old ones ends with them.
    keys: ArcSwap<SealingKeys>,
    clock: Clock,
    /// Milliseconds: not before that is the file looked at again for want of a key.
    next_look: AtomicI64,
    /// With which keys nothing of the older ones was left in the store.
    resealed: ArcSwapOption<Standing>,
}

impl Vault {
    /// Reads `sealing.key` on `shelf`, or makes it.
    ///
    /// # Errors
    /// When the file cannot be made or read, others may read it, or a line of it is not a key.
    pub fn open(shelf: impl Into<Shelf>, clock: &Clock) -> Result<Self, Error> {
        let shelf = shelf.into();
        keys::make(&shelf, clock.now())?;
        let keys = ArcSwap::from_pointee(SealingKeys::open(&shelf)?);
        Ok(Self { shelf, keys, clock: clock.clone(), next_look: AtomicI64::new(0), resealed: ArcSwapOption::empty() })
    }

    /// Reads the file again, so that keys that were added there seal and open from now on.
    ///
    /// # Errors
    /// As [`Vault::open`]; then the keys stay as they are.
    pub fn reread(&self) -> Result<(), Error> {
        self.keys.store(Arc::new(SealingKeys::open(&self.shelf)?));
        Ok(())
    }

    /// Whether a key may be taken out of the file ([`keys::drop_old`]), as far as can be told without it.
    pub fn may_drop(&self) -> bool {
        self.keys.load().may_drop(self.clock.now())
    }

    /// All keys, the newest first; nothing of a key itself.
    pub fn list(&self) -> Vec<keys::Described> {
        self.keys.load().describe(self.clock.now())
    }

    /// How the keys stand, if there are older ones whose records may be sealed again: the newest has sealed for so long that no
    /// instance seals by an older one.
    pub fn settled(&self) -> Option<Standing> {
        self.keys.load().settled(self.clock.now())
    }

    /// Whether records of older keys may be about.
    pub fn has_old(&self) -> bool {
        let (keys, now) = (self.keys.load(), self.clock.now());
        keys.has_old(now) && self.resealed.load().as_deref() != Some(&keys.standing(now))
    }

    /// While the keys stand like this, no record in the store is sealed by an older one.
    pub fn note_resealed(&self, standing: Standing) {
        self.resealed.store(Some(Arc::new(standing)));
    }

    /// Seals `plaintext` for this person.
    pub fn seal(&self, plaintext: &[u8], appid: &AppId, openid: &OpenId) -> Vec<u8> {
        self.seal_bound(plaintext, &bound_to(&[DOMAIN, appid.as_str(), openid.as_str()]))
    }

    /// Opens what [`Vault::seal`] made for the same person.
    ///
    /// # Errors
    /// [`Error::UnknownKey`] when the key is not here, [`Error::Sealed`] when the record was changed, cut, or sealed
    /// for another person.
    pub fn unseal(&self, sealed: &[u8], appid: &AppId, openid: &OpenId) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.unseal_bound(sealed, &bound_to(&[DOMAIN, appid.as_str(), openid.as_str()]))
    }

    /// Seals an access token that this app has on this line until `end`.
    pub fn seal_access_token(&self, token: &str, appid: &AppId, line: &str, end: Timestamp) -> Vec<u8> {
        let end = end.millis().to_string();
        self.seal_bound(token.as_bytes(), &bound_to(&[TOKEN_DOMAIN, appid.as_str(), line, &end]))
    }

    /// Opens what [`Vault::seal_access_token`] made for the same app, line and end.
    ///
    /// # Errors
    /// As [`Vault::unseal`].
    pub fn unseal_access_token(
        &self,
        sealed: &[u8],
        appid: &AppId,
        line: &str,
        end: Timestamp,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let end = end.millis().to_string();
        self.unseal_bound(sealed, &bound_to(&[TOKEN_DOMAIN, appid.as_str(), line, &end]))
    }

    /// What this person's record is when it is sealed by the key that seals now; `None` when it is already, or by a newer one.
    ///
    /// # Errors
    /// As [`Vault::unseal`].
    pub fn reseal(&self, sealed: &[u8], appid: &AppId, openid: &OpenId) -> Result<Option<Vec<u8>>, Error> {
        if !self.keys.load().is_old(sealed, self.clock.now()) {
            return Ok(None);
        }
        let opened = self.unseal(sealed, appid, openid)?;
        Ok(Some(self.seal(&opened, appid, openid)))
    }

    #[allow(clippy::expect_used)] // AES-GCM refuses nothing below 64 GiB
    fn seal_bound(&self, plaintext: &[u8], bound: &[u8]) -> Vec<u8> {
        let keys = self.keys.load();
        let key = keys.sealing(self.clock.now());
        let nonce = key.nonce(bound, plaintext);
        let mut text = Zeroizing::new(plaintext.to_vec());
        let nonce_of_cipher = Nonce::assume_unique_for_key(nonce);
        let tag = key.cipher.seal_in_place_separate_tag(nonce_of_cipher, Aad::from(bound), &mut text);
        let tag = tag.expect("a record is far below 64 GiB");
        [&key.id[..], &nonce, &text, tag.as_ref()].concat()
    }

    fn unseal_bound(&self, sealed: &[u8], bound: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let opened = self.keys.load().key_of(sealed).and_then(|(key, rest)| open(key, rest, bound));
        match opened {
            // Another instance may have made it a moment ago, at somebody's command.
            Err(Error::UnknownKey) if self.may_look() => {
                self.reread()?;
                self.keys.load().key_of(sealed).and_then(|(key, rest)| open(key, rest, bound))
            }
            opened => opened,
        }
    }

    fn may_look(&self) -> bool {
        let now = self.clock.now();
        let (planned, next) = (self.next_look.load(Ordering::Acquire), now.plus(LOOK).millis());
        // A plan that lies far ahead was made before the clock was set back.
        (planned <= now.millis() || planned > next)
            && self.next_look.compare_exchange(planned, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

fn open(key: &Key, rest: &[u8], bound: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Error::Sealed)?;
    let mut text = Zeroizing::new(text.to_vec());
    let length = key.cipher.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(bound), &mut text);
    let length = length.map_err(|_| Error::Sealed)?.len();
    text.truncate(length);
    Ok(text)
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({} keys)", self.keys.load().len())
    }
}

/// The associated data. Each part has its length in front, so that no two owners give the same bytes.
fn bound_to(parts: &[&str]) -> Vec<u8> {
    let mut bound = Vec::new();
    for part in parts {
        bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bound.extend_from_slice(part.as_bytes());
    }
    bound
}

#[cfg(test)]
mod tests;
