//! `POST /auth/check`: is the session_key that is kept still the one that WeChat holds?
//!
//! The client's own `wx.checkSession` looks at the client's last code, not at what the gateway has. No key at all is no
//! valid one.

use std::sync::Arc;

use axum::extract::State;
use http::Response;
use serde::Serialize;

use crate::body::Body;
use crate::problem::Problem;

use super::Auth;
use super::answer;
use super::call::Call;
use super::session_keys::{self, Asker};

#[derive(Serialize)]
struct Checked {
    valid: bool,
}

/// The handler.
pub async fn check(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let made = handle(&auth, &call).await;
    call.answer(made)
}

async fn handle(auth: &Auth, call: &Call) -> Result<Response<Body>, Problem> {
    let Asker { session, app } = session_keys::asker(auth, call).await?;
    let keys = session_keys::kept(auth, &session.appid, &session.openid).await?;
    let (openid, newest) = (&session.openid, keys.first());
    let valid = match newest {
        Some(key) => {
            let ask = |token| async move { auth.wechat.check_session(&app.appid, &token, openid, key).await };
            auth.access_tokens.call(&auth.wechat, app, ask).await?
        }
        None => false,
    };
    answer::json(&Checked { valid })
}
