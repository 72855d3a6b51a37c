//! The login of clients that were written for the wafer2 SDK (`[login] wafer2`): headers in, `{code, data}` out.
//!
//! It is the login of `/auth/login` in another dress: one exchange per code, the same session for a repeated code. `skey`
//! is an access token of ours, and never made from the session_key. Refusals are problems as everywhere; the SDK logs in
//! again at a 401, so it needs no refresh token.

use std::sync::Arc;

use axum::extract::State;
use http::Response;
use http::header::REFERER;
use serde::Serialize;

use crate::body::Body;
use crate::credential::Wafer2;
use crate::ids::Secret;
use crate::problem::{Code, Problem};

use super::Auth;
use super::answer;
use super::call::Call;
use super::login::{checked_code, find_app, log_in};
use super::user_data::UserData;

/// Mini programs send it, and cannot change it: `https://servicewechat.com/{appid}/{version}/page-frame.html`.
const REFERRERS: &str = "https://servicewechat.com/";

#[derive(Serialize)]
struct Answer<'a> {
    code: u8,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    skey: &'a str,
    userinfo: UserInfo<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UserInfo<'a> {
    open_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    union_id: Option<&'a str>,
    nick_name: &'a str,
    avatar_url: &'a str,
}

/// The handler.
pub async fn login(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let made = handle(&auth, &call).await;
    call.answer(made)
}

async fn handle(auth: &Arc<Auth>, call: &Call) -> Result<Response<Body>, Problem> {
    let Wafer2 { code, encrypted_data, iv } = call.wafer2().cloned().unwrap_or_default();
    let missing =
        || Problem::new(Code::InvalidRequest, "Send the code of wx.login as the wafer2 SDK does, in its header.");
    let code = checked_code(code.ok_or_else(missing)?.expose().clone())?;
    let text = |secret: Option<Secret<String>>| secret.map(|secret| secret.expose().clone());
    let shown = UserData::encrypted(text(encrypted_data), text(iv))?;
    // The SDK does not name its app.
    let appid = if auth.apps.len() > 1 { referrer(call) } else { None };
    let app = find_app(&auth.apps, appid)?.clone();
    let logged_in = log_in(auth, app, code, shown).await?;
    let (session, member) = (&logged_in.session, &logged_in.member);
    let minted = answer::access_token(auth, session, member)?;
    let userinfo = UserInfo {
        open_id: session.openid.as_str(),
        union_id: member.unionid.as_ref().map(|unionid| unionid.as_str()),
        nick_name: &member.nickname,
        avatar_url: &member.avatar_url,
    };
    answer::json(&Answer { code: 0, data: Data { skey: minted.token.expose(), userinfo } })
}

/// The appid in the address that WeChat's client says it comes from. Not believed: a code of another app is refused there.
fn referrer(call: &Call) -> Option<&str> {
    call.headers().get(REFERER)?.to_str().ok()?.strip_prefix(REFERRERS)?.split('/').next()
}
