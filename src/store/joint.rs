//! What a login and a refresh ask of members and sessions alike, where both are in one database.
//!
//! Asked one after the other it would be several transactions, with questions between and behind them that only look whether
//! somebody has come between. In one transaction nobody does. Stores that have only one of both do not offer it; nothing
//! depends on it but speed.

use std::fmt::Debug;

use async_trait::async_trait;

use super::{Error, Member, NewSession, RefreshHash, RefreshUse, Rotation, SessionId, SignIn, SignedIn};

/// The session that whoever has signed in gets; `None`: not in this transaction.
pub type Grant = Box<dyn FnMut(&SignedIn) -> Option<NewSession> + Send>;

/// A session that was opened.
#[derive(Debug, Clone)]
pub struct Opened {
    /// As it was asked for.
    pub new: NewSession,
    /// Those that ended to make room, as [`Sessions::open`](super::Sessions::open) returns them.
    pub ended: Vec<SessionId>,
}

/// Members and sessions together.
#[async_trait]
pub trait Joint: Send + Sync + Debug {
    /// [`Members::sign_in`](super::Members::sign_in), and [`Sessions::open`](super::Sessions::open) with what `grant` makes of it,
    /// in one transaction: after an error neither is there.
    async fn log_in(&self, who: SignIn, grant: Grant) -> Result<(SignedIn, Option<Opened>), Error>;

    /// [`Sessions::rotate`](super::Sessions::rotate), and the member whose session goes on, as he is in the same transaction.
    async fn refresh(
        &self,
        shown: RefreshHash,
        successor: RefreshHash,
        use_: RefreshUse,
    ) -> Result<(Rotation, Option<Member>), Error>;
}
