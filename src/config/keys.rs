//! `[token] keys`: where the keys of a deployment are.

use std::path::{Path, PathBuf};

use crate::ids::Secret;

/// Where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// In a folder, which several instances may have mounted.
    Folder(PathBuf),
    /// In the store of sessions, sealed.
    Store {
        /// What seals them. `None` where a command has been given an incomplete environment, which has no such variable.
        master_key: Option<Secret<String>>,
        /// What sealed them before, while some instances may still use it.
        previous: Option<Secret<String>>,
        /// Folder of what is this machine's own.
        local: PathBuf,
    },
}

impl Keys {
    /// The folder of what is this machine's own and as secret as the keys: certificates that an authority issued.
    pub fn local(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder,
            Self::Store { local, .. } => local,
        }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::Folder(PathBuf::new())
    }
}
