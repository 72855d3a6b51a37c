//! `{base}/web/{appid}/…`: web login of official accounts and websites (OAuth2 with WeChat as the provider).
//!
//! [`start`] sends the browser to WeChat with a [`state`] that only this browser can bring back; [`callback`] takes it
//! back, exchanges the code, opens the session and sends the browser to the page that asked, with a one-time [`ticket`]
//! in the URL. The page shows the ticket to `POST {base}/login` and gets its tokens, which never stand in a URL. Where a
//! browser may be sent is decided by [`redirect`] alone.

pub mod callback;
pub mod redirect;
pub mod start;
pub mod state;
pub mod ticket;

use std::sync::Arc;

use crate::store::shared::Shared;
use crate::token::refresh::RefreshSecret;

/// What is known of web logins under way. Outlives a reload.
#[derive(Debug)]
pub struct WebLogins {
    pub(super) states: state::States,
    pub(super) tickets: ticket::Tickets,
}

impl WebLogins {
    /// None under way. States are signed with a key of their own, derived from `secret`, so that every instance knows
    /// those of the others.
    pub fn new(secret: &RefreshSecret, shared: &Arc<dyn Shared>) -> Self {
        Self {
            states: state::States::new(&*secret.web_state_key(), Arc::clone(shared)),
            tickets: ticket::Tickets::new(Arc::clone(shared)),
        }
    }
}
