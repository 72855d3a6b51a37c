//! A WeChat that is played, where there is no network to reach the simulator by.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::wechat::Error;

/// Who plays it.
#[async_trait]
pub(crate) trait Played: Send + Sync + Debug {
    /// The answer to `GET path?query`.
    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Map<String, Value>, Error>;
}

thread_local! {
    static PLAYED: RefCell<Option<Arc<dyn Played>>> = const { RefCell::new(None) };
}

/// Clients that are made on this thread from now on ask this one.
pub(crate) fn play(by: Option<Arc<dyn Played>>) {
    PLAYED.with(|played| *played.borrow_mut() = by);
}

pub(in crate::wechat) fn here() -> Option<Arc<dyn Played>> {
    PLAYED.with(|played| played.borrow().clone())
}
