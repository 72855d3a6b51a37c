//! What a start would stumble over, found before a running gateway is asked to make place for it.

use std::sync::Arc;

use crate::auth::hook::Hook;
use crate::clock::Clock;
use crate::config::{Config, Keys, MembersStore, SessionsStore};
use crate::keyfile::Shelf;
use crate::store::sqlite;
use crate::store::vault::Vault;
use crate::token::keys::KeyRing;
use crate::token::refresh::RefreshSecret;
use crate::wechat;

use super::{Error, kept, key_shelf, tls};

/// Opens and makes whatever can be there twice: keys, TLS, clients; and looks at the databases from outside.
///
/// # Errors
/// What [`Gateway::open`](super::Gateway::open) would say.
pub fn rehearse(config: &Config, clock: &Clock) -> Result<(), Error> {
    let keys = &config.token.keys;
    key_shelf::make_folder(keys)?;
    match keys {
        Keys::Folder(folder) => {
            let shelf = Shelf::from(folder);
            KeyRing::open(&shelf, config.token.algorithm, clock)?;
            Vault::open(&shelf, clock)?;
            RefreshSecret::open(&shelf)?;
            kept::log_key(&shelf).map_err(Error::KeyFile)?;
        }
        // Their store is not ours yet.
        Keys::Store { .. } => drop(key_shelf::masters(keys)?),
    }
    tls::config(&config.server.tls, None, config.server.http2)?;
    wechat::Client::new(&config.wechat)?;
    if let Some(hook) = &config.login.hook {
        Hook::new(hook, Arc::default()).map_err(Error::Hook)?;
    }
    if let MembersStore::Sqlite(path) = &config.store.members {
        sqlite::look(path)?;
    }
    if let SessionsStore::Sqlite(path) = &config.store.sessions {
        sqlite::look(path)?;
    }
    Ok(())
}
