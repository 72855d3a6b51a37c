//! The state that the simulator's endpoints share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::apps::Apps;
use super::calls::Calls;
use super::codes::Codes;
use super::fault::Faults;
use super::people::People;
use super::token_lines::TokenLines;
use super::web::Web;
use crate::clock::Clock;

/// Everything there is. All of it is behind one lock, because an exchange touches apps, codes and people at once and must
/// be seen whole; the lock is held for a few lines and never across an await.
#[derive(Debug)]
pub(super) struct World {
    pub(super) clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) apps: Apps,
    pub(super) login_codes: Codes,
    pub(super) phone_codes: Codes,
    pub(super) people: People,
    pub(super) tokens: TokenLines,
    pub(super) web: Web,
    pub(super) faults: Faults,
    pub(super) calls: Calls,
}

impl World {
    pub(super) fn new(clock: Clock, apps: Apps) -> Self {
        let state = State {
            apps,
            login_codes: Codes::new(40029),
            phone_codes: Codes::new(40013),
            people: People::new(),
            tokens: TokenLines::new(),
            web: Web::new(),
            faults: Faults::default(),
            calls: Calls::default(),
        };
        Self { clock, state: Mutex::new(state) }
    }

    /// The state. After a panic elsewhere it is used as it is: a test's own failure must not hide behind a second one.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
