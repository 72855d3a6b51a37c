//! Where access tokens outlive the process: sealed, in the store of sessions.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::config::AccessTokenLine;
use crate::ids::AppId;
use crate::store::shared::{Purpose, Shared};
use crate::store::vault::Vault;
use crate::store::{SealedToken, Sessions};
use crate::wechat::access_token::{AccessToken, Granted, Keep};

/// The store and the vault before it.
#[derive(Debug)]
pub(super) struct TokenShelf {
    pub(super) sessions: Arc<dyn Sessions>,
    pub(super) shared: Arc<dyn Shared>,
    pub(super) vault: Arc<Vault>,
}

/// Longer than a fetch takes with a `[wechat] timeout` that anybody would choose; two at once do no harm.
const LEASE: Duration = Duration::from_secs(20);

#[async_trait]
impl Keep for TokenShelf {
    async fn load(&self, appid: &AppId, line: AccessTokenLine) -> Option<Granted> {
        let found = self.sessions.access_token(appid, line.name()).await;
        let found = found.inspect_err(|error| tracing::warn!(%error, "a kept access token cannot be read")).ok()??;
        let opened = self.vault.unseal_access_token(&found.sealed, appid, line.name(), found.expires_at);
        let opened = opened.inspect_err(|error| tracing::warn!(%error, "a kept access token does not open")).ok()?;
        let token = AccessToken::new(std::str::from_utf8(&opened).ok()?.to_owned());
        Some(Granted { token, expires_at: found.expires_at })
    }

    async fn save(&self, appid: &AppId, line: AccessTokenLine, granted: &Granted) {
        let sealed = self.vault.seal_access_token(granted.token.expose(), appid, line.name(), granted.expires_at);
        let token = SealedToken { sealed, expires_at: granted.expires_at };
        if let Err(error) = self.sessions.keep_access_token(appid, line.name(), token).await {
            tracing::warn!(%error, "an access token could not be kept: a restart will fetch another");
        }
    }

    async fn claim(&self, appid: &AppId, line: AccessTokenLine, own: &[u8]) -> bool {
        let name = format!("{} {}", appid.as_str(), line.name());
        // When the store is away, everybody fetches: that costs a call and nothing else.
        self.shared.claim(Purpose::AccessToken, name.as_bytes(), own, LEASE).await.unwrap_or(true)
    }

    async fn release(&self, appid: &AppId, line: AccessTokenLine, own: &[u8]) {
        let name = format!("{} {}", appid.as_str(), line.name());
        if let Err(error) = self.shared.release(Purpose::AccessToken, name.as_bytes(), own).await {
            tracing::debug!(%error, "a claim could not be released; it ends by itself");
        }
    }
}
