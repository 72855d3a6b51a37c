//! `POST /introspect` (RFC 7662): what a token says, while it is good.
//!
//! An access token is judged as on a route: signature, claims, time, revocations. A refresh token is active while its
//! session lives and it has not been used. About anything else the answer is `{"active": false}` and no more: not why.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::gateway::{Gateway, Snapshot};
use crate::problem::{Code, Problem};
use crate::store::RefreshHash;
use crate::token::handle::is_handle;
use crate::token::refresh::RefreshToken;
use crate::token::{Claims, access, is_reserved_claim};

use super::{Answer, json as answer, refused};

/// The pairs of an `application/x-www-form-urlencoded` body.
type Pairs = Form<Vec<(String, String)>>;

/// The handler.
pub(super) async fn introspect(State(gateway): State<Arc<Gateway>>, form: Result<Pairs, FormRejection>) -> Answer {
    match look_at(&gateway, form).await {
        Ok(document) => answer(&document),
        Err(problem) => refused(problem),
    }
}

async fn look_at(gateway: &Gateway, form: Result<Pairs, FormRejection>) -> Result<Value, Problem> {
    let wrong = || Problem::new(Code::InvalidRequest, "Send a form with one `token`, an access or refresh token.");
    let Form(form) = form.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::BodyTooLarge, "A token has at most 8 KiB."),
        _ => wrong(),
    })?;
    let mut tokens = form.iter().filter(|(name, _)| name == "token");
    let (Some((_, token)), None) = (tokens.next(), tokens.next()) else { return Err(wrong()) };
    // What the token is can be seen; `token_type_hint` is not needed (RFC 7662, section 2.1).
    let found = match RefreshToken::parse(token) {
        Ok(token) => of_refresh_token(gateway, &token).await?,
        Err(_) if is_handle(token.as_bytes()) => of_handle(gateway, token.as_bytes()).await?,
        Err(_) => of_access_token(gateway, token.as_bytes())?,
    };
    Ok(found.unwrap_or_else(|| json!({ "active": false })))
}

fn of_access_token(gateway: &Gateway, token: &[u8]) -> Result<Option<Value>, Problem> {
    let snapshot = gateway.current();
    match access::check(snapshot.verifier(), &gateway.kept().revocations, token) {
        Ok(claims) => Ok(Some(describe(&snapshot, &claims))),
        // Whether it is active cannot be said now, and "no" might be remembered.
        Err(unknown @ (access::Error::Stale | access::Error::KeysMissed)) => Err(unknown.into()),
        Err(_) => Ok(None),
    }
}

/// A JWT says itself what the login hook added; for a handle this is the only place that can.
async fn of_handle(gateway: &Gateway, token: &[u8]) -> Result<Option<Value>, Problem> {
    let snapshot = gateway.current();
    let claims = match snapshot.auth().access(token).await {
        Ok(claims) => claims,
        Err(problem) if problem.code().status() >= 500 => return Err(problem),
        Err(_) => return Ok(None),
    };
    let mut document = describe(&snapshot, &claims);
    let added = gateway.kept().members.find(&claims.member_id).await?.map(|member| member.hook.claims);
    let added: Map<String, Value> = serde_json::from_str(&added.unwrap_or_default()).unwrap_or_default();
    for (name, value) in added {
        if document.get(&name).is_none() && !is_reserved_claim(&name) && !is_reserved_answer(&name) {
            document[name] = value;
        }
    }
    Ok(Some(document))
}

/// Members of an answer that mean something (RFC 7662, section 2.2) and are no claims of a JWT.
fn is_reserved_answer(name: &str) -> bool {
    ["active", "token_type", "username"].contains(&name)
}

fn describe(snapshot: &Snapshot, claims: &Claims) -> Value {
    let mut document = json!({
        "active": true,
        "token_type": "Bearer",
        "iss": snapshot.config.token.issuer,
        "sub": claims.member_id,
        "client_id": claims.appid,
        "appid": claims.appid,
        "openid": claims.openid,
        "sid": claims.session_id,
        "iat": claims.issued_at.secs(),
        "exp": claims.expires_at.secs(),
    });
    let optional = [
        ("unionid", claims.unionid.as_ref().map(|unionid| json!(unionid))),
        ("roles", (!claims.roles.is_empty()).then(|| json!(claims.roles))),
        ("user_id", claims.user_id.as_ref().map(|id| json!(id))),
        ("jti", claims.jti.as_ref().map(|jti| json!(jti))),
        ("auth_time", claims.auth_time.map(|at| json!(at.secs()))),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            document[name] = value;
        }
    }
    document
}

async fn of_refresh_token(gateway: &Gateway, token: &RefreshToken) -> Result<Option<Value>, Problem> {
    let kept = gateway.kept();
    let now = kept.clock.now();
    let Some(session) = kept.sessions.find_by_refresh(RefreshHash(token.hash()), now).await? else { return Ok(None) };
    if kept.revocations.is_over(&session.member_id, &session.appid, session.created_at) {
        return Ok(None);
    }
    // Its successor is there once it has been used.
    let successor = RefreshHash(kept.refresh.successor(token).hash());
    if kept.sessions.find_by_refresh(successor, now).await?.is_some() {
        return Ok(None);
    }
    Ok(Some(json!({
        "active": true,
        "token_type": "refresh_token",
        "iss": gateway.current().config.token.issuer,
        "sub": session.member_id,
        "client_id": session.appid,
        "appid": session.appid,
        "openid": session.openid,
        "sid": session.session_id,
        "auth_time": session.created_at.secs(),
    })))
}
