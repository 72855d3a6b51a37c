//! Who follows which official account, for the headers of upstreams.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::auth::{Auth, follower};
use crate::config::AppKind;
use crate::ids::{AppId, OpenId};
use crate::pipeline::identity::Subscriptions;

use super::{Gateway, Snapshot};

/// Looks at what the endpoints know; what they do not know is asked on the control runtime.
#[derive(Debug)]
struct Known {
    auth: Arc<Auth>,
    control: Handle,
}

impl Subscriptions for Known {
    fn subscribed(&self, appid: &AppId, openid: &OpenId) -> Option<bool> {
        follower::glance(&self.auth, &self.control, appid, openid)
    }
}

impl Gateway {
    /// `None` where no official account is configured, so that nobody is asked for anything.
    pub(super) fn subscriptions(&self, snapshot: &Snapshot) -> Option<Arc<dyn Subscriptions>> {
        let any = snapshot.config.apps.iter().any(|app| app.kind == AppKind::OfficialAccount);
        any.then(|| Arc::new(Known { auth: Arc::clone(&snapshot.auth), control: self.control.clone() }) as _)
    }
}
