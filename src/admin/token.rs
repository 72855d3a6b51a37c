//! The admin token: made beside the keys on first start, owner-only, read by the command line. Where the keys are in the
//! store it is derived from the master key, which the command line has as well.

use std::fmt;
use std::io;
use std::path::Path;

use aws_lc_rs::rand;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::ids::Secret;
use crate::keyfile::{self, MasterKey};

/// Name of the file in the key directory.
pub const FILE: &str = "admin.token";

/// Proves an operator.
#[derive(Clone)]
pub struct AdminToken(Secret<String>);

impl AdminToken {
    /// Reads the token in the key directory, or makes one.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds no token.
    pub fn open(keys: &Path) -> io::Result<Self> {
        match Self::read(keys) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut fresh = Zeroizing::new([0; 32]);
                rand::fill(fresh.as_mut_slice()).map_err(|_| io::Error::other("the system gives no random numbers"))?;
                let text = Zeroizing::new(hex(fresh.as_slice()));
                keyfile::create_dir(keys)?;
                Self::parse(&keyfile::write_new(&keys.join(FILE), text.as_bytes())?)
            }
            other => other,
        }
    }

    /// The token of a deployment whose keys are sealed with `master`.
    pub fn derived(master: &MasterKey) -> Self {
        Self(Secret::new(hex(master.derive("admin token", b"").as_slice())))
    }

    /// Reads the token that a gateway made.
    ///
    /// # Errors
    /// When the file is missing, cannot be read, or holds no token.
    pub fn read(keys: &Path) -> io::Result<Self> {
        Self::parse(&keyfile::read(&keys.join(FILE))?)
    }

    fn parse(content: &[u8]) -> io::Result<Self> {
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, "admin.token holds no token; delete it and restart");
        let text = std::str::from_utf8(content).map_err(|_| damaged())?.trim_end();
        if text.len() < 32 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(damaged());
        }
        Ok(Self(Secret::new(text.to_owned())))
    }

    /// Whether `shown` is it; takes the same time for every wrong one of its length.
    pub fn is(&self, shown: &[u8]) -> bool {
        self.0.expose().as_bytes().ct_eq(shown).into()
    }

    /// The token, for the header of a call.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        assert_eq!(AdminToken::read(&keys).unwrap_err().kind(), io::ErrorKind::NotFound);
        let token = AdminToken::open(&keys).unwrap();
        assert!(AdminToken::open(&keys).unwrap().is(token.expose().as_bytes()));
        assert!(AdminToken::read(&keys).unwrap().is(token.expose().as_bytes()));
        assert!(!token.is(b"") && !token.is(&[b'0'; 64]));
        assert_eq!(format!("{token:?}"), "AdminToken(…)");
    }

    #[test]
    fn a_derived_token_is_that_of_its_master_key_alone() {
        let of = |text: &str| AdminToken::derived(&MasterKey::new(&Secret::new(text.to_owned())));
        assert!(of("one").is(of("one").expose().as_bytes()) && !of("two").is(of("one").expose().as_bytes()));
        assert_eq!(of("one").expose().len(), 64);
    }

    #[test]
    fn an_empty_file_is_no_token() {
        let dir = tempfile::tempdir().unwrap();
        keyfile::write(&dir.path().join(FILE), b"").unwrap();
        assert!(AdminToken::open(dir.path()).is_err());
    }
}
