//! The pipeline's decision for somebody else's proxy: the same steps, without a route.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use crate::config::Auth;
use crate::ids::AppId;
use crate::pipeline::authenticate::Shown;
use crate::pipeline::authorize::authorize;
use crate::pipeline::{identity, wafer2};
use crate::problem::Problem;
use crate::token::recent::RecentlyVerified;

use super::Gateway;

/// What is asked of a caller.
#[derive(Debug, Clone, Default)]
pub struct Demand {
    /// Whether no token is good, too; a bad one never is.
    pub optional: bool,
    /// Any of these roles; empty is no condition.
    pub roles: Vec<String>,
    /// Any of these apps; empty is no condition.
    pub apps: Vec<AppId>,
}

impl Gateway {
    /// Who sent these headers, as the headers that an upstream gets. What is not known is there and empty, not absent: a
    /// proxy that copies a header that is not there leaves what the client sent (Caddy before 2.11), or its own
    /// placeholder (Caddy 2.6).
    ///
    /// # Errors
    /// The problem that the pipeline would answer on a route that demands the same.
    pub async fn identify(&self, headers: &HeaderMap, demand: &Demand) -> Result<HeaderMap, Problem> {
        let snapshot = self.current();
        let headers = match snapshot.config.login.wafer2 {
            Some(_) => wafer2::with_skey(headers),
            None => Cow::Borrowed(headers),
        };
        let cache = RecentlyVerified::none(Arc::clone(&snapshot.cache));
        let authenticator = self.authenticator(&snapshot, &self.shard, cache);
        let caller = match authenticator.authenticate(&headers, None)? {
            Some(Shown::Unsettled(unsettled)) => Some(authenticator.settle(unsettled).await?),
            Some(Shown::By(principal)) => Some(principal),
            None => None,
        };
        if caller.is_none() && !demand.optional {
            return Err(Problem::token_missing());
        }
        let auth = if demand.optional { Auth::Optional } else { Auth::Required };
        authorize(auth, &demand.roles, &demand.apps, caller.as_ref().map(|principal| &principal.claims))?;
        let mut identity: HeaderMap =
            identity::NAMES.into_iter().map(|name| (name, HeaderValue::from_static(""))).collect();
        if let Some(caller) = caller {
            identity::inject(&mut identity, &caller);
            let (appid, openid) = (&caller.claims.appid, &caller.claims.openid);
            if let Some(known) = self.subscriptions(&snapshot).and_then(|who| who.subscribed(appid, openid)) {
                identity::inject_subscribed(&mut identity, known);
            }
        }
        Ok(identity)
    }
}
