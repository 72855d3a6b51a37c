//! Answers of the endpoints: the token answer, the member, nothing, and what is not there.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::body::Body;
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

impl<'a> From<&'a Member> for MemberView<'a> {
    fn from(member: &'a Member) -> Self {
        Self {
            member_id: member.member_id.as_str(),
            appid: member.appid.as_str(),
            openid: member.openid.as_str(),
            unionid: member.unionid.as_ref().map(|u| u.as_str()),
            nickname: &member.nickname,
            avatar_url: &member.avatar_url,
            phone: masked(&member.phone),
            roles: &member.roles,
            created_at: member.created_at.to_string(),
            last_login_at: member.last_login_at.to_string(),
        }
    }
}

/// A phone number with its middle hidden: `138****5678`. Short ones are hidden whole.
fn masked(phone: &str) -> String {
    let chars: Vec<char> = phone.chars().collect();
    match chars.len() {
        0 => String::new(),
        n if n < 8 => "*".repeat(n),
        n => chars.iter().enumerate().map(|(i, c)| if i >= n - 8 && i < n - 4 { '*' } else { *c }).collect(),
    }
}

/// The token answer of login and refresh.
#[derive(Serialize)]
struct TokenAnswer<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    refresh_token: &'a str,
    refresh_expires_in: u64,
    appid: &'a str,
    openid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unionid: Option<&'a str>,
    member_id: &'a str,
    is_new: bool,
    member: MemberView<'a>,
}

/// A fresh access token for this session and member.
///
/// # Errors
/// When the session is over, or no token can be signed.
pub fn access_token(auth: &Auth, session: &Session, member: &Member) -> Result<Minted, Problem> {
    let minted = auth.minter.mint(&Grant {
        member_id: session.member_id.clone(),
        session_id: session.session_id.clone(),
        appid: session.appid.clone(),
        openid: session.openid.clone(),
        unionid: member.unionid.clone(),
        roles: member.roles.clone(),
        // Not later than now, should the clock have been set back: a token from the future would not be believed.
        auth_time: session.created_at.min(auth.clock.now()),
        session_expires_at: session.expires_at,
    })?;
    auth.renewals.note(&session.session_id, minted.claims.expires_at);
    Ok(minted)
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
    refresh_expires_at: crate::clock::Timestamp,
    is_new: bool,
) -> Result<Response<Body>, Problem> {
    let minted = access_token(auth, session, member)?;
    let refresh_text = refresh.expose();
    json(&TokenAnswer {
        access_token: minted.token.expose(),
        token_type: "Bearer",
        expires_in: minted.expires_in.as_secs(),
        refresh_token: refresh_text.expose(),
        refresh_expires_in: refresh_expires_at.since(auth.clock.now()).as_secs(),
        appid: session.appid.as_str(),
        openid: session.openid.as_str(),
        unionid: member.unionid.as_ref().map(|u| u.as_str()),
        member_id: session.member_id.as_str(),
        is_new,
        member: member.into(),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_number_is_shown_without_its_middle() {
        for (phone, shown) in
            [("", ""), ("13812345678", "138****5678"), ("+14155550123", "+141****0123"), ("1234", "****")]
        {
            assert_eq!(masked(phone), shown);
        }
    }
}
