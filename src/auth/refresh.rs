//! `POST /auth/refresh`: a refresh token → a new pair. Every use rotates it.
//!
//! The successor is derived from the token that is shown, so a client that lost the answer gets the same one again, byte
//! for byte, within the grace. Later that is reuse: somebody else may hold a copy, and the session ends
//! (RFC 9700, section 4.14.2).

use std::sync::Arc;

use axum::extract::State;
use http::Response;
use serde::Deserialize;

use crate::body::Body;
use crate::ids::Secret;
use crate::problem::{Code, Problem};
use crate::store::{self, Member, RefreshHash, RefreshUse, Rotation};
use crate::token::refresh::RefreshToken;

use super::Auth;
use super::answer::{self, Way};
use super::call::Call;
use super::cookie::one;

#[derive(Deserialize, Default)]
pub(super) struct Request {
    #[serde(default)]
    pub(super) refresh_token: String,
    #[serde(default)]
    pub(super) all: bool,
}

impl Request {
    /// The token, if one was sent.
    pub(super) fn token(&self) -> Result<Option<RefreshToken>, Problem> {
        if self.refresh_token.is_empty() {
            return Ok(None);
        }
        Ok(Some(RefreshToken::parse(&self.refresh_token)?))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        drop(Secret::new(std::mem::take(&mut self.refresh_token)));
    }
}

/// The handler.
pub async fn refresh(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let made = match shown(&auth, &call) {
        Ok((token, way)) => match handle(&auth, &token, way).await {
            // The page is logged out: it need not show its cookies again.
            Err(problem) if way == Way::Cookies && problem.code().status() == 401 => {
                let mut response = call.refuse(problem);
                auth.cookies.clear(&mut response);
                Ok(response)
            }
            made => made,
        },
        Err(problem) => Err(problem),
    };
    call.answer(made)
}

/// The refresh token of the body, or the one of the cookie; the successor goes the way that it came.
fn shown(auth: &Auth, call: &Call) -> Result<(RefreshToken, Way), Problem> {
    let cookie = auth.cookies.shown(call)?.refresh;
    let request: Request = if cookie.is_some() { call.json_or_empty()? } else { call.json()? };
    let cookie = cookie.map(|cookie| String::from_utf8_lossy(cookie));
    let body = Some(request.refresh_token.as_str()).filter(|token| !token.is_empty());
    let way = if body.is_some() { Way::Body } else { Way::Cookies };
    match one(body.map(str::as_bytes), cookie.as_deref().map(str::as_bytes))? {
        Some(_) => {
            let text = body.or(cookie.as_deref()).unwrap_or_default();
            Ok((RefreshToken::parse(text)?, way))
        }
        None => Err(Problem::new(Code::InvalidRequest, "`refresh_token` must be the one of the last token answer.")),
    }
}

/// Uses the token; and whose it is, where that is known by the way.
async fn rotate(
    auth: &Auth,
    shown: RefreshHash,
    successor: RefreshHash,
    use_: RefreshUse,
) -> Result<(Rotation, Option<Member>), store::Error> {
    match &auth.joint {
        Some(joint) => joint.refresh(shown, successor, use_).await,
        None => Ok((auth.sessions.rotate(shown, successor, use_).await?, None)),
    }
}

async fn handle(auth: &Auth, shown: &RefreshToken, way: Way) -> Result<Response<Body>, Problem> {
    let successor = auth.refresh.successor(shown);
    let now = auth.clock.now();
    let hash = RefreshHash(shown.hash());
    let use_ = RefreshUse {
        now,
        grace: auth.section.refresh_grace,
        refresh_expires_at: now.plus(auth.section.refresh_ttl),
        revoked_until: auth.access_until(now),
    };
    let (rotation, member) = auth.settled(rotate(auth, hash, RefreshHash(successor.hash()), use_)).await?;
    let (session, refresh_expires_at) = match rotation {
        Rotation::Rotated { session, .. } if auth.is_over(&session) => {
            auth.end(&session.session_id, now, auth.access_until(now)).await?;
            return Err(Problem::token_revoked());
        }
        Rotation::Rotated { session, refresh_expires_at } => (session, refresh_expires_at),
        Rotation::Reused(session) => {
            auth.revocations.revoke_session(&session.session_id, auth.access_until(now));
            auth.metrics.refresh_reuses.inc();
            tracing::warn!(
                session = session.session_id.as_str(),
                member = session.member_id.as_str(),
                "a used refresh token was shown again: the session has been ended"
            );
            return Err(Problem::new(
                Code::RefreshReused,
                "This refresh token was used before, so the session has been ended: log in again.",
            ));
        }
        Rotation::Ended => {
            auth.catch_up(hash, now).await?;
            return Err(Problem::token_revoked());
        }
        Rotation::Unknown => {
            return Err(Problem::new(
                Code::RefreshInvalid,
                "This refresh token is unknown or has expired: log in again.",
            ));
        }
    };
    let member = match member {
        Some(member) => Some(member),
        None => auth.members.find(&session.member_id).await?,
    };
    let member = member.ok_or_else(Problem::token_revoked)?;
    if member.banned {
        // Its sessions were to end with the ban: what did not, ends now.
        auth.end_member(&session.member_id).await?;
        return Err(Problem::new(Code::MemberBanned, "This member may not log in."));
    }
    let member = auth.with_roles_in_force(member, &session.member_id).await?;
    auth.metrics.refreshes.inc();
    answer::tokens(auth, &session, &member, &successor, refresh_expires_at, false, way)
}
