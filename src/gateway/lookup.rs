//! Whom opaque access tokens stand for: workers find what was read, and hand over what was not.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::auth::lookup::Lookups;
use crate::pipeline::handle::{Callers, Unread};
use crate::problem::Problem;
use crate::token::Claims;

/// Asks the endpoints' side, on control.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) lookups: Arc<Lookups>,
    pub(super) control: Handle,
}

impl Callers for Reader {
    fn known(&self, token: &[u8]) -> Option<Arc<Claims>> {
        self.lookups.known(token)
    }

    fn look_up(&self, Unread { token, handle }: Unread) -> oneshot::Receiver<Result<Arc<Claims>, Problem>> {
        let (sender, receiver) = oneshot::channel();
        let lookups = Arc::clone(&self.lookups);
        self.control.spawn(async move {
            // Whoever asked may have gone; the next request finds what was read.
            let _ = sender.send(lookups.find(&token.0, &handle).await);
        });
        receiver
    }
}
