//! What a start would stumble over, found before a running gateway is asked to make place for it.

use std::sync::Arc;

use crate::auth::hook::Hook;
use crate::clock::Clock;
use crate::config::{Config, MembersStore, SessionsStore};
use crate::keyfile;
use crate::store::sqlite;
use crate::store::vault::Vault;
use crate::token::keys::KeyRing;
use crate::token::refresh::RefreshSecret;
use crate::wechat;

use super::{Error, kept, tls};

/// Opens and makes whatever can be there twice: keys, TLS, clients; and looks at the databases from outside.
///
/// # Errors
/// What [`Gateway::open`](super::Gateway::open) would say.
pub fn rehearse(config: &Config, clock: &Clock) -> Result<(), Error> {
    let keys = &config.token.keys;
    keyfile::create_dir(keys).map_err(Error::KeyFile)?;
    KeyRing::open(keys, config.token.algorithm, clock)?;
    Vault::open(keys, clock)?;
    RefreshSecret::open(keys)?;
    kept::log_key(keys).map_err(Error::KeyFile)?;
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
