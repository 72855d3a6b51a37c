//! Opaque access tokens on the request path: which are ours is computed here, whom one stands for is asked elsewhere, once.

use std::fmt::Debug;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::problem::Problem;
use crate::token::Claims;
use crate::token::handle::{Handle, Handles};

/// Whom handles stand for.
pub trait Callers: Debug + Send + Sync {
    /// What was read before. Whether it was revoked since is not known there.
    fn known(&self, token: &[u8]) -> Option<Arc<Claims>>;

    /// Begins to read it; an answer comes within a deadline of theirs.
    fn look_up(&self, unread: Unread) -> oneshot::Receiver<Result<Arc<Claims>, Problem>>;
}

/// What handles are checked with.
#[derive(Debug, Clone)]
pub struct Opaque {
    /// Which are ours.
    pub handles: Arc<Handles>,
    /// Whose they are.
    pub callers: Arc<dyn Callers>,
}

/// A handle of ours that nobody has read yet.
#[derive(Debug)]
pub struct Unread {
    /// Its text.
    pub token: Token,
    /// What it says.
    pub handle: Handle,
}

/// The text of a token, which is not shown.
#[derive(Clone)]
pub struct Token(pub Box<[u8]>);

impl Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}
