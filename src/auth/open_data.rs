//! `POST /auth/open-data`: any of WeChat's encrypted data (steps, group id, …), decrypted for the one it is of.

use std::sync::Arc;

use axum::extract::State;
use http::Response;

use crate::body::Body;
use crate::problem::{Code, Problem};
use crate::wechat::open_data::Owner;

use super::Auth;
use super::answer;
use super::call::Call;
use super::session_keys;
use super::user_data::UserData;

/// The handler.
pub async fn open_data(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let made = handle(&auth, &call).await;
    call.answer(made)
}

async fn handle(auth: &Arc<Auth>, call: &Call) -> Result<Response<Body>, Problem> {
    let asker = session_keys::asker(auth, call).await?;
    let shown = UserData::of(call)?;
    if !shown.is_encrypted() {
        return Err(Problem::new(Code::InvalidRequest, "Send `encryptedData` and `iv` as the client API gave them."));
    }
    session_keys::renew(auth, &asker, call).await?;
    let session = &asker.session;
    let keys = session_keys::needed(auth, &session.appid, &session.openid).await?;
    let owner = Owner { appid: &session.appid, openid: &session.openid };
    let verified = shown.verify(&keys, &owner, auth.clock.now())?;
    answer::json(&verified.data.unwrap_or_default())
}
