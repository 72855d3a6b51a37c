//! `/api/sessions`: who is logged in, and the end of it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ids::{AppId, SessionId};
use crate::problem::{Code, Problem};
use crate::store::{Session, SessionsOf};

use super::members::{answered, member_id};
use super::query::{Page, Query};
use super::{Admin, Answer, to_its_end};

/// Counted no further.
const MOST_COUNTED: u32 = 10_000;

fn wrong(detail: &'static str) -> Problem {
    Problem::new(Code::InvalidRequest, detail)
}

/// `GET /api/sessions?member=|app=&limit=&after=`: newest first.
pub(super) async fn list(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Answer {
    answered(listed(&admin, query.as_deref()).await)
}

async fn listed(admin: &Admin, query: Option<&str>) -> Result<Value, Problem> {
    let mut query = Query::parse(query)?;
    let Page { limit, after } = query.page()?;
    let after = after.map(|id| SessionId::parse(&id)).transpose().map_err(|_| wrong("`after` is a session id."))?;
    let of = match (query.take("member"), query.take("app")) {
        (Some(member), None) => SessionsOf::Member(member_id(&member)?),
        (None, Some(app)) => SessionsOf::App(AppId::parse(&app).map_err(|_| wrong("`app` is no appid."))?),
        _ => return Err(wrong("Ask for the sessions of a `member` or of an `app`.")),
    };
    query.end()?;
    let kept = admin.gateway.kept();
    let now = kept.clock.now();
    let sessions = kept.sessions.list(&of, after.as_ref(), limit, now).await?;
    let count = kept.sessions.count(&of, MOST_COUNTED, now).await?;
    let full = sessions.len() == limit as usize;
    Ok(json!({
        "sessions": sessions.iter().map(view).collect::<Vec<_>>(),
        "next": sessions.last().filter(|_| full).map(|last| &last.session_id),
        "count": count,
        "count_is_exact": count < MOST_COUNTED,
    }))
}

fn view(session: &Session) -> Value {
    json!({
        "session_id": session.session_id,
        "member_id": session.member_id,
        "appid": session.appid,
        "openid": session.openid,
        "created_at": session.created_at.to_string(),
        "expires_at": session.expires_at.to_string(),
    })
}

/// Whose sessions are to end: one of the three.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    session: Option<String>,
    member: Option<String>,
    app: Option<String>,
}

/// `POST /api/sessions/revoke {session | member | app}`: in force everywhere within a second.
pub(super) async fn revoke(State(admin): State<Arc<Admin>>, body: Bytes) -> Answer {
    to_its_end(async move { answered(revoked(&admin, &body).await) }).await
}

async fn revoked(admin: &Admin, body: &[u8]) -> Result<Value, Problem> {
    let asked = || wrong("Send one of `session`, `member`, `app` in a JSON object.");
    let revoke: Revoke = serde_json::from_slice(body).map_err(|_| asked())?;
    let snapshot = admin.gateway.current();
    let (auth, kept) = (snapshot.auth(), admin.gateway.kept());
    let ended = match revoke {
        Revoke { session: Some(id), member: None, app: None } => {
            let id = SessionId::parse(&id).map_err(|_| wrong("`session` is no session id."))?;
            let known = kept.sessions.find(&id, kept.clock.now()).await?;
            let name = known.map(|known| kept.pseudonyms.of(known.appid.as_str(), known.openid.as_str()));
            let begun = admin
                .audit
                .begin_about("sessions.revoke", name.as_ref().map(|n| n.as_str()), json!({ "session": id }))
                .await?;
            let outcome = auth.end_session(&id).await;
            begun.end_with(&outcome).await;
            u64::from(outcome?)
        }
        Revoke { session: None, member: Some(id), app: None } => {
            let id = member_id(&id)?;
            let known = kept.members.find(&id).await?;
            let known = known.ok_or_else(|| wrong("There is no `member` of this id."))?;
            let name = kept.pseudonyms.of(known.appid.as_str(), known.openid.as_str());
            let begun = admin.audit.begin("sessions.revoke-member", Some(name.as_str())).await?;
            let outcome = auth.end_member(&id).await;
            begun.end_with(&outcome).await;
            outcome?
        }
        Revoke { session: None, member: None, app: Some(app) } => {
            let app = AppId::parse(&app).map_err(|_| wrong("`app` is no appid."))?;
            let begun = admin.audit.begin_about("sessions.revoke-app", None, json!({ "app": app })).await?;
            let outcome = auth.end_app(&app).await;
            begun.end_with(&outcome).await;
            outcome?
        }
        _ => return Err(asked()),
    };
    Ok(json!({ "ended": ended }))
}
