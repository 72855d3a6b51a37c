//! Refresh tokens: opaque, 256 bits, each derived from the one before.
//!
//! The first is derived from the session, a successor from the token that was shown, both with a secret that lies beside
//! the keys. So any instance recomputes the same answer for the same question, a client that lost an answer gets it
//! again, and the store keeps hashes only. Nobody without the secret can go from one token to the next. Which token is
//! current, used or revoked is the store's to know.

use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::{digest, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

use crate::ids::{Secret, SessionId};
use crate::keyfile::Shelf;

/// Name of the file with the secret, in the key directory.
pub const FILE: &str = "refresh.key";

const LEN: usize = 32;

/// Sets the first token's message apart from a successor's, which is always 32 bytes and never this long.
const FIRST: &[u8] = b"wxgate: first refresh token of session ";

/// The message of the key for web states: neither as long as a successor's, nor does it begin as a first token's.
const WEB_STATE_KEY: &[u8] = b"wxgate: key of the states of web logins";

/// The message of the key for names in limits, of the same kind.
const LIMIT_NAMES_KEY: &[u8] = b"wxgate: key of names in shared limits";

/// How the message of a key for opaque access tokens begins: as none of the others does, and it is longer than a successor's.
const HANDLE_KEY: &[u8] = b"wxgate: key of opaque access tokens\0";

/// Why there is no refresh secret. The remedy may be in the source: print the whole chain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written; also when others may read it.
    #[error("cannot use refresh.key")]
    File(#[from] io::Error),
    /// It does not hold 32 bytes.
    #[error("refresh.key does not hold {LEN} bytes; restore it from the backup (a new one ends every refresh token)")]
    Damaged,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// The secret that refresh tokens are derived with. All instances of a deployment share it; so do clones.
#[derive(Clone)]
pub struct RefreshSecret(Arc<ArcSwap<hmac::Key>>);

impl RefreshSecret {
    /// Reads the secret on `shelf`, and makes it on the first start. Of several processes that start at
    /// once, all get the same.
    ///
    /// # Errors
    /// Any [`Error`]; a damaged file is not replaced.
    pub fn open(shelf: impl Into<Shelf>) -> Result<Self, Error> {
        let shelf = shelf.into();
        let secret = match shelf.read(FILE) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut fresh = Zeroizing::new([0; LEN]);
                rand::fill(fresh.as_mut_slice()).map_err(|_| Error::NoRandomness)?;
                shelf.write_new(FILE, fresh.as_slice())?
            }
            other => other?,
        };
        Ok(Self(Arc::new(ArcSwap::from_pointee(key(&secret)?))))
    }

    /// Takes up the secret that is on `shelf` now: that of another deployment, whose keys took the place of ours.
    ///
    /// # Errors
    /// As [`RefreshSecret::open`]; the secret stays.
    pub fn reread(&self, shelf: &Shelf) -> Result<(), Error> {
        self.0.store(Arc::new(key(&shelf.read(FILE)?)?));
        Ok(())
    }

    /// The first refresh token of a session; the same for the same session.
    pub fn first(&self, session: &SessionId) -> RefreshToken {
        self.derive(&[FIRST, session.as_str().as_bytes()])
    }

    /// The token that follows `shown`; the same for the same token.
    pub fn successor(&self, shown: &RefreshToken) -> RefreshToken {
        self.derive(&[&shown.0])
    }

    /// The key that the states of web logins are signed with: another secret, the same on all instances.
    pub fn web_state_key(&self) -> Zeroizing<[u8; LEN]> {
        Zeroizing::new(self.derive(&[WEB_STATE_KEY]).0)
    }

    /// The key that names in limits of all instances are hidden with: another secret, the same on all of them.
    pub fn limit_names_key(&self) -> Zeroizing<[u8; LEN]> {
        Zeroizing::new(self.derive(&[LIMIT_NAMES_KEY]).0)
    }

    /// The key of opaque access tokens for this issuer and audience: another secret, the same on all instances.
    pub(super) fn handle_key(&self, issuer: &str, audience: &str) -> Zeroizing<[u8; LEN]> {
        // Neither of the two may hold a NUL.
        Zeroizing::new(self.derive(&[HANDLE_KEY, issuer.as_bytes(), b"\0", audience.as_bytes()]).0)
    }

    fn derive(&self, message: &[&[u8]]) -> RefreshToken {
        let mut context = hmac::Context::with_key(&self.0.load());
        message.iter().for_each(|part| context.update(part));
        let mut token = RefreshToken([0; LEN]);
        // HMAC-SHA256 gives exactly as many bytes as a token has.
        token.0.copy_from_slice(context.sign().as_ref());
        token
    }
}

fn key(secret: &[u8]) -> Result<hmac::Key, Error> {
    if secret.len() == LEN { Ok(hmac::Key::new(hmac::HMAC_SHA256, secret)) } else { Err(Error::Damaged) }
}

impl fmt::Debug for RefreshSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshSecret(…)")
    }
}

/// A refresh token as a client holds it. Wiped when it goes; never shown.
#[derive(Clone, ZeroizeOnDrop)]
pub struct RefreshToken([u8; LEN]);

/// What a client sent is not a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a refresh token")]
pub struct Malformed;

impl RefreshToken {
    /// From its text: 43 characters of base64url, no padding, no bits left over, so that one token has one spelling.
    ///
    /// # Errors
    /// [`Malformed`] for anything else.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut token = Self([0; LEN]);
        // One byte more than a token has: room enough to see that a text is too long.
        let mut bytes = [0; LEN + 1];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).map_err(|_| Malformed)?;
        if length == LEN {
            token.0.copy_from_slice(&bytes[..LEN]);
        }
        bytes.zeroize();
        if length == LEN { Ok(token) } else { Err(Malformed) }
    }

    /// SHA-256 of it: what the store knows it by.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &self.0).as_ref());
        hash
    }

    /// Its text, for the client alone.
    pub fn expose(&self) -> Secret<String> {
        Secret::new(URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::keyfile;

    fn session(id: &str) -> SessionId {
        SessionId::parse(id).unwrap()
    }

    #[test]
    fn every_instance_derives_the_same_chain_from_the_same_secret() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (RefreshSecret::open(dir.path()).unwrap(), RefreshSecret::open(dir.path()).unwrap());
        let first = a.first(&session("s1"));
        assert_eq!(first.hash(), b.first(&session("s1")).hash());
        assert_eq!(a.successor(&first).hash(), b.successor(&first).hash());
        assert_ne!(a.first(&session("s2")).hash(), first.hash());
        assert_ne!(a.successor(&first).hash(), first.hash());

        let elsewhere = tempfile::tempdir().unwrap();
        let stranger = RefreshSecret::open(elsewhere.path()).unwrap();
        assert_ne!(stranger.first(&session("s1")).hash(), first.hash());
        assert_ne!(stranger.successor(&first).hash(), a.successor(&first).hash());
    }

    #[test]
    fn the_successor_is_the_hmac_of_the_shown_token() {
        let dir = tempfile::tempdir().unwrap();
        keyfile::write(&dir.path().join(FILE), &[3; LEN]).unwrap();
        let secret = RefreshSecret::open(dir.path()).unwrap();
        let shown = RefreshToken([9; LEN]);
        let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[3; LEN]), &[9; LEN]);
        assert_eq!(secret.successor(&shown).0, expected.as_ref());
    }

    #[test]
    fn a_token_has_one_spelling() {
        let dir = tempfile::tempdir().unwrap();
        let token = RefreshSecret::open(dir.path()).unwrap().first(&session("s1"));
        let text = token.expose();
        let text = text.expose().as_str();
        assert_eq!(text.len(), 43);
        assert_eq!(RefreshToken::parse(text).unwrap().hash(), token.hash());

        let standard = format!("{}+/", &text[..41]);
        let loose = ["B", "C", "D"].map(|last| format!("{}{last}", "A".repeat(42)));
        let bad = ["", "a", &text[..42], &format!("{text}="), &format!(" {text}"), &format!("{text}\n"), &standard];
        for bad in bad.into_iter().chain(loose.iter().map(String::as_str)) {
            assert_eq!(RefreshToken::parse(bad).unwrap_err(), Malformed, "{bad:?}");
        }
        assert_eq!(RefreshToken::parse(&"A".repeat(60_000)).unwrap_err(), Malformed);
        assert_eq!(RefreshToken::parse("eyJhbGciOiJFUzI1NiJ9.e30.c2ln").unwrap_err(), Malformed, "an access token");
    }

    #[test]
    fn the_secret_is_owner_only_and_a_damaged_one_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        RefreshSecret::open(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        keyfile::write(&path, b"short").unwrap();
        assert!(matches!(RefreshSecret::open(dir.path()), Err(Error::Damaged)));
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
    }

    #[test]
    fn debug_output_shows_neither_secret_nor_token() {
        let dir = tempfile::tempdir().unwrap();
        let secret = RefreshSecret::open(dir.path()).unwrap();
        let shown = format!("{secret:?} {:?}", secret.first(&session("s1")));
        assert_eq!(shown, "RefreshSecret(…) RefreshToken(…)");
    }
}
