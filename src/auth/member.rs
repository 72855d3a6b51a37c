//! `/auth/me`: who am I (GET), name and picture (PUT), forget me (DELETE).

use std::sync::Arc;

use axum::extract::State;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::body::Body;
use crate::clock::Timestamp;
use crate::ids::SessionId;
use crate::problem::{Code, Problem};
use crate::store::Identity;

use super::Auth;
use super::answer::{self, MemberView};
use super::call::Call;
use super::follower;

/// Longest nickname, characters. WeChat allows 20; ours may be set from elsewhere.
pub(super) const MAX_NICKNAME: usize = 64;
/// Longest avatar address, bytes.
const MAX_AVATAR_URL: usize = 1024;

#[derive(Serialize)]
struct Me<'a> {
    member: MemberView<'a>,
    session: SessionView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribed: Option<bool>,
}

#[derive(Serialize)]
struct SessionView<'a> {
    id: &'a str,
    created_at: String,
    expires_at: String,
}

/// GET.
pub async fn me(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let made = handle_me(&auth, &call).await;
    call.answer(made)
}

async fn handle_me(auth: &Arc<Auth>, call: &Call) -> Result<Response<Body>, Problem> {
    let caller = call.caller(auth).await?;
    let session = auth.sessions.find(&caller.session_id, auth.clock.now()).await?.ok_or_else(Problem::token_revoked)?;
    let member = auth.members.find(&session.member_id).await?.ok_or_else(Problem::token_revoked)?;
    answer::json(&Me {
        member: MemberView::of(&member, &session),
        session: SessionView {
            id: session.session_id.as_str(),
            created_at: session.created_at.to_string(),
            expires_at: session.expires_at.to_string(),
        },
        subscribed: follower::subscribed(auth, &session.appid, &session.openid).await,
    })
}

#[derive(Deserialize)]
struct Update {
    nickname: Option<String>,
    avatar_url: Option<String>,
}

/// PUT.
pub async fn update(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let made = handle_update(&auth, &call).await;
    call.answer(made)
}

async fn handle_update(auth: &Auth, call: &Call) -> Result<Response<Body>, Problem> {
    let caller = call.caller(auth).await?;
    let update: Update = call.json()?;
    if update.nickname.as_ref().is_some_and(|n| n.chars().count() > MAX_NICKNAME || n.chars().any(char::is_control)) {
        return Err(Problem::new(
            Code::InvalidRequest,
            "`nickname` has at most 64 characters and no control characters.",
        ));
    }
    if update.avatar_url.as_ref().is_some_and(|url| !is_web_url(url)) {
        return Err(Problem::new(
            Code::InvalidRequest,
            "`avatar_url` must be an http or https URL of at most 1024 bytes.",
        ));
    }
    let session = auth.sessions.find(&caller.session_id, auth.clock.now()).await?.ok_or_else(Problem::token_revoked)?;
    let member = auth
        .members
        .set_profile(&session.member_id, update.nickname.as_deref(), update.avatar_url.as_deref())
        .await?
        .ok_or_else(Problem::token_revoked)?;
    answer::json(&MemberView::of(&member, &session))
}

/// Empty, or an absolute http(s) URL: it will stand in somebody's `src`.
pub(super) fn is_web_url(url: &str) -> bool {
    url.is_empty()
        || (url.len() <= MAX_AVATAR_URL
            && (url.starts_with("https://") || url.starts_with("http://"))
            && url.parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty())))
}

/// DELETE: sessions, keys, profile and phone go (privacy law asks for it). A later login of the same person is a new member.
pub async fn erase(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let made = handle_erase(&auth, &call).await;
    call.answer(made)
}

async fn handle_erase(auth: &Auth, call: &Call) -> Result<Response<Body>, Problem> {
    let caller = call.caller_to_erase(auth).await?;
    let now = auth.clock.now();
    let until = auth.revoked_until(now, Some(caller.expires_at));
    let own = &caller.session_id;
    // Where members are merged, he is known under several ids, in several apps.
    let mut known = auth.members.identities(&caller.member_id).await?;
    if known.is_empty() {
        let (member_id, appid, openid) = (caller.member_id.clone(), caller.appid.clone(), caller.openid.clone());
        known.push(Identity { member_id, appid, openid });
    }
    // Sessions first: whatever fails after that, nobody is left logged in to a member that is half gone. But the caller's
    // own goes last, so that who was told of a failure can ask again.
    end_others(auth, &known, own, now, until).await?;
    auth.erase_keys(&known).await?;
    auth.erase_record(&caller.member_id, &mut known).await?;
    end_others(auth, &known, own, now, until).await?;
    auth.erase_keys(&known).await?;
    auth.settled(auth.sessions.end(own, now, until)).await?;
    auth.revocations.revoke_session(own, until);
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Ends every session of the person in every app, but for this one.
async fn end_others(
    auth: &Auth,
    known: &[Identity],
    own: &SessionId,
    now: Timestamp,
    until: Timestamp,
) -> Result<(), Problem> {
    for Identity { member_id, .. } in known {
        for Identity { appid, .. } in known {
            auth.end_all((member_id, appid), Some(own), now, until).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_avatar_is_a_web_address_or_nothing() {
        for good in ["", "https://wx.qlogo.cn/mmopen/a/0", "http://127.0.0.1:8080/a.png"] {
            assert!(is_web_url(good), "{good}");
        }
        for bad in ["javascript:alert(1)", "data:text/html,x", "//evil/x", "https://", "https:// x", "ftp://a/b"] {
            assert!(!is_web_url(bad), "{bad}");
        }
    }
}
