//! The key that seals keys: `[token] master_key`, which lies where neither store nor folder is.

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use zeroize::Zeroizing;

use crate::ids::Secret;

/// Sets what is derived here apart from whatever else is derived from the same text.
const SALT: &[u8] = b"wxgate master key v1";

/// Derives keys, each for one purpose (HKDF with SHA-256, RFC 5869). None of them leads back to it, or to another.
#[derive(Clone)]
pub struct MasterKey(Prk);

/// Which master key it is; says nothing of the key.
pub(super) type MasterId = [u8; 8];

impl MasterKey {
    /// Of the text that is configured. That it cannot be guessed is checked there: nothing here makes guessing slow.
    pub fn new(text: &Secret<String>) -> Self {
        Self(Salt::new(HKDF_SHA256, SALT).extract(text.expose().as_bytes()))
    }

    /// A key for what `label` says; `salt` gives another for each use. No label may be the beginning of another.
    #[allow(clippy::expect_used)] // 32 bytes are within what HKDF yields
    pub fn derive(&self, label: &str, salt: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        let info = [label.as_bytes(), b"\0", salt];
        let derived = self.0.expand(&info, HKDF_SHA256).and_then(|okm| okm.fill(key.as_mut_slice()));
        derived.expect("as long as the hash");
        key
    }

    /// Its name.
    pub fn id(&self) -> MasterId {
        let mut id = [0; 8];
        id.copy_from_slice(&self.derive("id", b"")[..8]);
        id
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// A name for people.
pub(super) fn shown(id: &MasterId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_and_salt_gives_another_key_and_the_same_text_the_same() {
        let master = |text: &str| MasterKey::new(&Secret::new(text.to_owned()));
        let key = master("a text");
        let keys = [
            key.derive("a", b""),
            key.derive("b", b""),
            key.derive("a", b"b"),
            key.derive("ab", b""),
            master("another text").derive("a", b""),
        ];
        for (n, one) in keys.iter().enumerate() {
            assert!(keys[n + 1..].iter().all(|other| other != one), "{n}");
        }
        assert_eq!(master("a text").derive("a", b""), keys[0]);
        assert_eq!(master("a text").id(), key.id());
        assert_ne!(master("another text").id(), key.id());
        assert_eq!(format!("{key:?}"), "MasterKey(…)");
    }
}
