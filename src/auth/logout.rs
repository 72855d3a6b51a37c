//! `POST /auth/logout` and `POST /auth/revoke` (RFC 7009): a session ends.
//!
//! The end is on disk before the answer leaves, and in force on this instance at once: the next request with the session's
//! access token is refused.

use std::sync::Arc;

use axum::extract::State;
use http::{Response, StatusCode};

use crate::body::Body;
use crate::clock::Timestamp;
use crate::credential;
use crate::ids::{AppId, MemberId, SessionId};
use crate::problem::{Code, Problem};
use crate::store::RefreshHash;
use crate::token::access;
use crate::token::handle::is_handle;
use crate::token::refresh::RefreshToken;

use super::Auth;
use super::answer;
use super::call::Call;
use super::cookie::one;
use super::refresh::Request;

/// Whose session is to end.
struct Target {
    session: SessionId,
    /// Member and app; unknown where the session is, and its token does not say.
    owner: Option<(MemberId, AppId)>,
    /// When the token that was shown expires; a token that others minted may live longer than ours do.
    expires_at: Option<Timestamp>,
}

/// The handler of `/auth/logout`.
pub async fn logout(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let made = handle_logout(&auth, &call).await;
    call.answer(made)
}

async fn handle_logout(auth: &Auth, call: &Call) -> Result<Response<Body>, Problem> {
    let cookies = auth.cookies.shown(call)?;
    let request: Request = call.json_or_empty()?;
    // A cookie that is no refresh token is none.
    let of_cookie = || RefreshToken::parse(std::str::from_utf8(cookies.refresh?).ok()?).ok();
    let refresh = request.token()?.or_else(of_cookie);
    let bearer = credential::bearer(call.headers(), auth.section.accept_bare)?;
    let target = match (one(bearer, cookies.access)?, refresh) {
        (None, None) => {
            return Err(Problem::new(
                Code::TokenMissing,
                "Send the access token as `Authorization: Bearer`, or `refresh_token` in the body.",
            ));
        }
        (Some(token), None) => Some(by_access_token(auth, token).await?),
        (None, Some(refresh)) => by_refresh_token(auth, &refresh).await?,
        // A client that sends what is left of an old login along still means to end this one.
        (Some(token), Some(refresh)) => match by_access_token(auth, token).await {
            Ok(target) => Some(target),
            // Who cannot be asked about one cannot be asked about the other.
            Err(problem) if problem.code().status() >= 500 => return Err(problem),
            Err(_) => by_refresh_token(auth, &refresh).await?,
        },
    };
    if let Some(target) = target {
        end(auth, &target, request.all).await?;
    }
    let mut response = answer::empty(StatusCode::NO_CONTENT);
    if cookies.access.is_some() || cookies.refresh.is_some() {
        auth.cookies.clear(&mut response);
    }
    Ok(response)
}

/// The session of an access token. An expired one will do: its session lives on with its refresh token, and who asks late
/// for the end still means it.
async fn by_access_token(auth: &Auth, token: &[u8]) -> Result<Target, Problem> {
    if is_handle(token) {
        return by_handle(auth, token).await;
    }
    let claims = access::verified(auth.verifier.verify_even_if_expired(token), &auth.revocations)?;
    Ok(Target {
        session: claims.session_id,
        owner: Some((claims.member_id, claims.appid)),
        expires_at: Some(claims.expires_at),
    })
}

/// The session of an opaque access token, also of one that is over by now.
async fn by_handle(auth: &Auth, token: &[u8]) -> Result<Target, Problem> {
    let handle = auth.handles.read_even_if_expired(token)?;
    Ok(Target {
        owner: auth.sessions.owner_of(&handle.session_id, auth.clock.now()).await?,
        session: handle.session_id,
        expires_at: Some(handle.expires_at),
    })
}

/// The session of a refresh token, also of one that is over by now; `None` when nothing is known of it.
async fn by_refresh_token(auth: &Auth, token: &RefreshToken) -> Result<Option<Target>, Problem> {
    let (hash, now) = (RefreshHash(token.hash()), auth.clock.now());
    if let Some(live) = auth.sessions.find_by_refresh(hash, now).await? {
        let owner = Some((live.member_id, live.appid));
        return Ok(Some(Target { session: live.session_id, owner, expires_at: None }));
    }
    let Some(session) = auth.catch_up(hash, now).await? else { return Ok(None) };
    let owner = auth.sessions.owner_of(&session, now).await?;
    Ok(Some(Target { session, owner, expires_at: None }))
}

async fn end(auth: &Auth, target: &Target, all: bool) -> Result<(), Problem> {
    let now = auth.clock.now();
    let until = match target.expires_at {
        None => auth.access_until(now),
        Some(shown) => match auth.sessions.find(&target.session, now).await {
            // The store knows how long its tokens live.
            Ok(Some(_)) => auth.access_until(now).max(shown),
            _ => auth.revoked_until(now, Some(shown)),
        },
    };
    let mut ended = u64::from(auth.end(&target.session, now, until).await?);
    if all && let Some((member, appid)) = &target.owner {
        for member in auth.ids_of(member).await? {
            ended += auth.end_all((&member, appid), None, now, auth.access_until(now)).await?;
        }
    }
    auth.metrics.logouts.add(ended);
    Ok(())
}

/// The handler of `/auth/revoke`: 200 for every well-formed request, whatever the token is (RFC 7009, section 2.2).
pub async fn revoke(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let made = handle_revoke(&auth, &call).await;
    call.answer(made)
}

async fn handle_revoke(auth: &Auth, call: &Call) -> Result<Response<Body>, Problem> {
    let form: Vec<(String, String)> = form_pairs(call.body());
    let mut tokens = form.iter().filter(|(name, _)| name == "token");
    let (Some((_, token)), None) = (tokens.next(), tokens.next()) else {
        return Err(Problem::new(Code::InvalidRequest, "Send a form with one `token`, an access or refresh token."));
    };
    let target = match RefreshToken::parse(token) {
        Ok(token) => by_refresh_token(auth, &token).await?,
        Err(_) => match by_access_token(auth, token.as_bytes()).await {
            Ok(target) => Some(target),
            Err(problem) if problem.code().status() >= 500 => return Err(problem),
            Err(_) => None,
        },
    };
    if let Some(target) = target {
        end(auth, &target, false).await?;
    }
    Ok(answer::empty(StatusCode::OK))
}

/// The pairs of an `application/x-www-form-urlencoded` body.
fn form_pairs(body: &[u8]) -> Vec<(String, String)> {
    let decode = |part: &[u8]| {
        let spaced: Vec<u8> = part.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
        percent_encoding::percent_decode(&spaced).decode_utf8_lossy().into_owned()
    };
    body.split(|b| *b == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.iter().position(|b| *b == b'=') {
            Some(at) => (decode(&pair[..at]), decode(&pair[at + 1..])),
            None => (decode(pair), String::new()),
        })
        .collect()
}
