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

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hmac, rand};
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::ids::{AppId, OpenId};
use crate::keyfile;

/// Name of the key file within the key directory.
pub const FILE: &str = "sealing.key";

const KEY_LEN: usize = 32;
const KEY_ID_LEN: usize = 8;
const DOMAIN: &str = "wxgate session_key v1";
const TOKEN_DOMAIN: &str = "wxgate access_token v1";

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
    /// Never empty. The first seals, all open. Replaced whole: what began with the old ones ends with them.
    keys: ArcSwap<Vec<Key>>,
}

struct Key {
    id: [u8; KEY_ID_LEN],
    cipher: LessSafeKey,
    nonces: hmac::Key,
}

impl Vault {
    /// Reads `sealing.key` in `dir`, or makes both. The file has one key a line as 64 hex digits; the first one seals,
    /// all open, so that a new key goes on top and the old ones stay below.
    ///
    /// # Errors
    /// When the file cannot be made or read, others may read it, or a line of it is not a key.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Ok(Self { keys: ArcSwap::from_pointee(read_keys(dir)?) })
    }

    /// Reads the file again, so that a key that was put on top seals from now on.
    ///
    /// # Errors
    /// As [`Vault::open`]; then the keys stay as they are.
    pub fn reread(&self, dir: &Path) -> Result<(), Error> {
        self.keys.store(Arc::new(read_keys(dir)?));
        Ok(())
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

    #[allow(clippy::expect_used)] // AES-GCM refuses nothing below 64 GiB
    fn seal_bound(&self, plaintext: &[u8], bound: &[u8]) -> Vec<u8> {
        let keys = self.keys.load();
        let key = &keys[0];
        let nonce = key.nonce(bound, plaintext);
        let mut text = Zeroizing::new(plaintext.to_vec());
        let nonce_of_cipher = Nonce::assume_unique_for_key(nonce);
        let tag = key.cipher.seal_in_place_separate_tag(nonce_of_cipher, Aad::from(bound), &mut text);
        let tag = tag.expect("a record is far below 64 GiB");
        [&key.id[..], &nonce, &text, tag.as_ref()].concat()
    }

    fn unseal_bound(&self, sealed: &[u8], bound: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let (id, rest) = sealed.split_first_chunk::<KEY_ID_LEN>().ok_or(Error::Sealed)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Error::Sealed)?;
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.id == *id).ok_or(Error::UnknownKey)?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = key.cipher.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(bound), &mut text);
        let length = length.map_err(|_| Error::Sealed)?.len();
        text.truncate(length);
        Ok(text)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({} keys)", self.keys.load().len())
    }
}

impl Key {
    fn new(master: &[u8; KEY_LEN]) -> Result<Self, Error> {
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&digest::digest(&digest::SHA256, master).as_ref()[..KEY_ID_LEN]);
        // One key for one purpose: the cipher and the nonces each get their own.
        let master = hmac::Key::new(hmac::HMAC_SHA256, master);
        let cipher = hmac::sign(&master, b"wxgate sealing cipher");
        let nonces = hmac::sign(&master, b"wxgate sealing nonces");
        let cipher = UnboundKey::new(&AES_256_GCM, cipher.as_ref()).map_err(|_| Error::Crypto)?;
        Ok(Self { id, cipher: LessSafeKey::new(cipher), nonces: hmac::Key::new(hmac::HMAC_SHA256, nonces.as_ref()) })
    }

    fn nonce(&self, bound: &[u8], plaintext: &[u8]) -> [u8; NONCE_LEN] {
        let mut hash = hmac::Context::with_key(&self.nonces);
        hash.update(&(bound.len() as u64).to_be_bytes());
        hash.update(bound);
        hash.update(plaintext);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&hash.sign().as_ref()[..NONCE_LEN]);
        nonce
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

/// The keys of the file, which is made if it is not there.
fn read_keys(dir: &Path) -> Result<Vec<Key>, Error> {
    let path = dir.join(FILE);
    let content = read_or_make(dir, &path)?;
    let mut keys = Vec::new();
    for (index, line) in content.trim_ascii_end().split(|&b| b == b'\n').enumerate() {
        let key = from_hex(line.trim_ascii());
        let key = key.ok_or_else(|| Error::NotAKey { path: path.clone(), line: index + 1 })?;
        keys.push(Key::new(&key)?);
    }
    Ok(keys)
}

fn read_or_make(dir: &Path, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |source| Error::KeyFile { path: path.to_path_buf(), source };
    match keyfile::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        other => return other.map_err(failed),
    }
    keyfile::create_dir(dir).map_err(failed)?;
    let mut key = Zeroizing::new([0; KEY_LEN]);
    rand::fill(key.as_mut_slice()).map_err(|_| Error::Crypto)?;
    keyfile::write_new(path, &to_hex(&key)).map_err(failed)
}

fn to_hex(key: &[u8; KEY_LEN]) -> Zeroizing<Vec<u8>> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // The exact capacity, so that no half-filled copy of the key is left behind by growth.
    let mut hex = Zeroizing::new(Vec::with_capacity(2 * KEY_LEN + 1));
    for byte in key {
        hex.push(DIGITS[usize::from(byte >> 4)]);
        hex.push(DIGITS[usize::from(byte & 15)]);
    }
    hex.push(b'\n');
    hex
}

fn from_hex(hex: &[u8]) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    if hex.len() != 2 * KEY_LEN {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut key = Zeroizing::new([0; KEY_LEN]);
    for (byte, pair) in key.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(id: &str) -> AppId {
        AppId::parse(id).unwrap()
    }

    fn person(id: &str) -> OpenId {
        OpenId::parse(id).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_for_the_same_person_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let sealed = Vault::open(&keys).unwrap().seal(b"session key 16 B", &app("wx1"), &person("alice"));
        let opened = Vault::open(&keys).unwrap().unseal(&sealed, &app("wx1"), &person("alice")).unwrap();
        assert_eq!(opened.as_slice(), b"session key 16 B");
        assert!(!sealed.windows(7).any(|w| w == b"session"));
    }

    #[test]
    fn a_record_that_was_moved_to_another_person_fails_closed() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        let sealed = vault.seal(b"k", &app("wx1"), &person("alice"));
        // The last two have the same bytes once they are put together: lengths tell them apart.
        for (appid, openid) in [("wx1", "bob"), ("wx2", "alice"), ("wx1a", "lice"), ("wx", "1alice")] {
            let result = vault.unseal(&sealed, &app(appid), &person(openid));
            assert!(matches!(result, Err(Error::Sealed)), "{appid} {openid}");
        }
    }

    #[test]
    fn an_access_token_opens_for_its_app_line_and_end_alone() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        let (app, end) = (app("wx1"), Timestamp::from_secs(7200));
        let sealed = vault.seal_access_token("token", &app, "stable", end);
        assert_eq!(vault.unseal_access_token(&sealed, &app, "stable", end).unwrap().as_slice(), b"token");
        let other = AppId::parse("wx2").unwrap();
        for moved in [
            vault.unseal_access_token(&sealed, &other, "stable", end),
            vault.unseal_access_token(&sealed, &app, "classic", end),
            vault.unseal_access_token(&sealed, &app, "stable", Timestamp::from_secs(7201)),
            vault.unseal(&sealed, &app, &person("stable")),
        ] {
            assert!(matches!(moved, Err(Error::Sealed)));
        }
    }

    #[test]
    fn a_record_with_any_bit_changed_or_any_length_cut_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        let (appid, alice) = (app("wx1"), person("alice"));
        let sealed = vault.seal(b"session key 16 B", &appid, &alice);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(vault.unseal(&changed, &appid, &alice).is_err(), "byte {at}");
            assert!(vault.unseal(&sealed[..at], &appid, &alice).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn equal_keys_of_one_person_seal_equally_and_all_else_differs() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        let sealed = vault.seal(b"k1", &app("wx1"), &person("alice"));
        assert_eq!(vault.seal(b"k1", &app("wx1"), &person("alice")), sealed);
        for other in [
            vault.seal(b"k2", &app("wx1"), &person("alice")),
            vault.seal(b"k1", &app("wx2"), &person("alice")),
            vault.seal(b"k1", &app("wx1"), &person("bob")),
        ] {
            let nonce = KEY_ID_LEN..KEY_ID_LEN + NONCE_LEN;
            assert_ne!(other[nonce.clone()], sealed[nonce]);
        }
    }

    #[test]
    fn a_new_key_on_top_seals_and_the_old_one_below_still_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let (appid, alice) = (app("wx1"), person("alice"));
        let old = Vault::open(dir.path()).unwrap().seal(b"k", &appid, &alice);
        let line = std::fs::read_to_string(&path).unwrap();
        keyfile::write(&path, format!("{}\n{line}", "ab".repeat(32)).as_bytes()).unwrap();

        let vault = Vault::open(dir.path()).unwrap();
        assert_eq!(vault.unseal(&old, &appid, &alice).unwrap().as_slice(), b"k");
        let new = vault.seal(b"k", &appid, &alice);
        assert_ne!(new[..KEY_ID_LEN], old[..KEY_ID_LEN]);

        keyfile::write(&path, line.as_bytes()).unwrap();
        let result = Vault::open(dir.path()).unwrap().unseal(&new, &appid, &alice);
        assert!(matches!(result, Err(Error::UnknownKey)));
    }

    #[test]
    fn a_key_file_that_holds_no_keys_is_refused_by_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let good = "0f".repeat(32);
        let short_second = format!("{good}\nabcd\n");
        for (content, line) in [("", 1), ("ab", 1), (&"zz".repeat(32), 1), (&"a".repeat(63), 1), (&short_second, 2)] {
            keyfile::write(&path, content.as_bytes()).unwrap();
            let error = Vault::open(dir.path()).unwrap_err();
            assert!(matches!(&error, Error::NotAKey { line: at, .. } if *at == line), "{error}");
            assert!(!error.to_string().contains(&good));
        }
    }

    #[test]
    fn a_vault_shows_no_key() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(format!("{:?}", Vault::open(dir.path()).unwrap()), "Vault(1 keys)");
    }
}
