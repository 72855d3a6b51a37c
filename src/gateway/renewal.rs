//! Fresh tokens for callers whose own are about to expire: made on control, because the store is asked.

use std::sync::Arc;

use http::HeaderValue;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::auth::Auth;
use crate::pipeline::Principal;
use crate::pipeline::renew::{Fresh, Renewals};

/// Asks the endpoints' side.
#[derive(Debug)]
pub(super) struct Renewer {
    pub(super) auth: Arc<Auth>,
    pub(super) control: Handle,
}

impl Renewals for Renewer {
    fn renew(&self, caller: &Arc<Principal>) -> oneshot::Receiver<Fresh> {
        let (sender, receiver) = oneshot::channel();
        let (auth, caller) = (Arc::clone(&self.auth), Arc::clone(caller));
        self.control.spawn(async move {
            if let Some(fresh) = renew(&auth, &caller).await {
                caller.renewal.set(fresh.clone());
                // Whoever asked may have gone; the next request finds it.
                let _ = sender.send(fresh);
            }
        });
        receiver
    }
}

async fn renew(auth: &Auth, caller: &Principal) -> Option<Fresh> {
    let minted = auth.renew(&caller.claims).await?;
    let mut token = HeaderValue::from_str(minted.token.expose()).ok()?;
    token.set_sensitive(true);
    Some(Fresh { token, set_cookie: auth.cookies.access(&minted.token).ok()? })
}
