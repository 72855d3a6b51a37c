//! Answers of the endpoints: the token answer, the member, nothing, and what is not there.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::body::Body;
use crate::clock::{MAX_SKEW, Timestamp};
use crate::problem::{Code, Problem};
use crate::store::{Member, Session};
use crate::token::Grant;
use crate::token::mint::Minted;
use crate::token::refresh::RefreshToken;

use super::Auth;
use super::call::Call;

/// A member as the outside sees it (contract, section 2).
#[derive(Debug, Serialize)]
pub struct MemberView<'a> {
    member_id: &'a str,
    appid: &'a str,
    openid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unionid: Option<&'a str>,
    nickname: &'a str,
    avatar_url: &'a str,
    phone: String,
    roles: &'a [String],
    created_at: String,
    last_login_at: String,
}

impl<'a> MemberView<'a> {
    /// Of a member under the app and the openid of this session: a member who was merged has several.
    pub(super) fn of(member: &'a Member, session: &'a Session) -> Self {
        Self {
            member_id: member.member_id.as_str(),
            appid: session.appid.as_str(),
            openid: session.openid.as_str(),
            unionid: member.unionid.as_ref().map(|u| u.as_str()),
            nickname: &member.nickname,
            avatar_url: &member.avatar_url,
            phone: member.masked_phone(),
            roles: &member.roles,
            created_at: member.created_at.to_string(),
            last_login_at: member.last_login_at.to_string(),
        }
    }
}

/// The token answer of login and refresh.
#[derive(Serialize)]
struct TokenAnswer<'a> {
    /// Absent where both tokens stand in cookies.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<&'a str>,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    refresh_expires_in: u64,
    appid: &'a str,
    openid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unionid: Option<&'a str>,
    member_id: &'a str,
    is_new: bool,
    member: MemberView<'a>,
}

/// How a client gets its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As members of the answer.
    Body,
    /// As cookies, which its scripts cannot read.
    Cookies,
}

/// A fresh access token for this session and member.
///
/// # Errors
/// When the session is over, or no token can be signed.
pub fn access_token(auth: &Auth, session: &Session, member: &Member) -> Result<Minted, Problem> {
    let minted = auth.minter.mint(&grant(session, member, auth.clock.now()))?;
    auth.renewals.note(&session.session_id, minted.claims.expires_at);
    Ok(minted)
}

/// What an access token that is issued now says of this session and member.
pub(super) fn grant(session: &Session, member: &Member, now: Timestamp) -> Grant {
    Grant {
        member_id: session.member_id.clone(),
        session_id: session.session_id.clone(),
        appid: session.appid.clone(),
        openid: session.openid.clone(),
        unionid: member.unionid.clone(),
        roles: member.roles.clone(),
        user_id: member.hook.user_id.clone(),
        claims: member.hook.claims.clone(),
        // Where the clock was set back: a token from the future would not be believed. So far ahead it may be where it was opened,
        // and it is believed; the second has to agree with the session's id.
        auth_time: session.created_at.min(now.plus(2 * MAX_SKEW)),
        session_expires_at: session.expires_at,
    }
}

/// A fresh access token beside this refresh token, for this session and member.
///
/// # Errors
/// When the session is over, or no token can be signed.
pub fn tokens(
    auth: &Auth,
    session: &Session,
    member: &Member,
    refresh: &RefreshToken,
    refresh_expires_at: Timestamp,
    is_new: bool,
    way: Way,
) -> Result<Response<Body>, Problem> {
    let minted = access_token(auth, session, member)?;
    let refresh_text = refresh.expose();
    let in_body = way == Way::Body;
    let mut response = json(&TokenAnswer {
        access_token: in_body.then(|| minted.token.expose().as_str()),
        token_type: "Bearer",
        expires_in: minted.expires_in.as_secs(),
        refresh_token: in_body.then(|| refresh_text.expose().as_str()),
        refresh_expires_in: refresh_expires_at.since(auth.clock.now()).as_secs(),
        appid: session.appid.as_str(),
        openid: session.openid.as_str(),
        unionid: member.unionid.as_ref().map(|u| u.as_str()),
        member_id: session.member_id.as_str(),
        is_new,
        member: MemberView::of(member, session),
    })?;
    if way == Way::Cookies {
        auth.cookies.set(response.headers_mut(), &minted.token, refresh)?;
    }
    Ok(response)
}

/// 200 with a JSON document that nobody may store.
///
/// # Errors
/// When the value cannot be written as JSON.
pub fn json(value: &impl Serialize) -> Result<Response<Body>, Problem> {
    let text = serde_json::to_string(value).map_err(Problem::internal)?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// An empty answer.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// No endpoint of this name.
pub async fn not_found(call: Call) -> Response<axum::body::Body> {
    call.answer(Err(Problem::new(Code::RouteNotFound, "The gateway has no endpoint of this name.")))
}

/// The endpoint is there, for another method. `Allow` is added by the router.
pub async fn method_not_allowed(call: Call) -> Response<axum::body::Body> {
    call.answer(Err(Problem::new(Code::MethodNotAllowed, "The endpoint takes another method; see Allow.")))
}
