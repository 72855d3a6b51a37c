//! `/api/members`: list and search, show, change, erase, export.

use std::sync::Arc;

use axum::body::{Body as AxumBody, Bytes};
use axum::extract::{Path, RawQuery, State};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::ids::{AppId, MemberId, OpenId, UnionId};
use crate::problem::{Code, Problem};
use crate::store::{Identity, Member, MemberCursor, MemberFilter, MemberPage, SessionsOf};

use super::audit::Begun;
use super::query::{Page, Query};
use super::{Admin, Answer, json_answer, refused, to_its_end};

/// Members in one piece of an export.
const EXPORTED_AT_ONCE: u32 = 500;

/// Sessions are counted no further.
const MOST_COUNTED: u32 = 10_000;

/// `GET /api/members?app=|role=|banned=true|openid=|unionid=|phone=|nickname=&limit=&after=`.
pub(super) async fn list(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Answer {
    answered(listed(&admin, query.as_deref()).await)
}

async fn listed(admin: &Admin, query: Option<&str>) -> Result<Value, Problem> {
    let mut query = Query::parse(query)?;
    let Page { limit, after } = query.page()?;
    let after = after.as_deref().map(read_cursor).transpose()?;
    let filter = filter(&mut query)?;
    query.end()?;
    let members = &admin.gateway.kept().members;
    let page = members.list(&filter, after.as_ref(), limit).await?;
    Ok(json!({
        "members": page.members.iter().map(|member| view(member, Phone::Masked)).collect::<Vec<_>>(),
        "next": page.next.as_ref().map(cursor),
    }))
}

/// At most one question.
fn filter(query: &mut Query) -> Result<MemberFilter, Problem> {
    let wrong = |detail: &'static str| Problem::new(Code::InvalidRequest, detail);
    let mut asked = Vec::new();
    for name in ["app", "role", "banned", "openid", "unionid", "phone", "nickname"] {
        if let Some(value) = query.take(name) {
            asked.push(match name {
                "app" => MemberFilter::App(AppId::parse(&value).map_err(|_| wrong("`app` is no appid."))?),
                "role" => MemberFilter::Role(value),
                "banned" if value == "true" => MemberFilter::Banned,
                "banned" => return Err(wrong("`banned` can be \"true\".")),
                "openid" => MemberFilter::OpenId(OpenId::parse(&value).map_err(|_| wrong("`openid` is no openid."))?),
                "unionid" => {
                    MemberFilter::UnionId(UnionId::parse(&value).map_err(|_| wrong("`unionid` is no unionid."))?)
                }
                // A plus in a query is a space to some.
                "phone" => MemberFilter::Phone(value.replace(' ', "+")),
                _ => MemberFilter::Nickname(value),
            });
        }
    }
    match (asked.pop(), asked.is_empty()) {
        (None, _) => Ok(MemberFilter::All),
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(wrong("Ask for one of app, role, banned, openid, unionid, phone, nickname.")),
    }
}

/// `GET /api/members/{id}`.
pub(super) async fn show(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Answer {
    answered(shown(&admin, &id).await)
}

async fn shown(admin: &Admin, id: &str) -> Result<Value, Problem> {
    let id = member_id(id)?;
    let kept = admin.gateway.kept();
    let member = kept.members.find(&id).await?.ok_or_else(nobody)?;
    let identities = kept.members.identities(&member.member_id).await?;
    let mut sessions = 0;
    for Identity { member_id, .. } in &identities {
        let of = SessionsOf::Member(member_id.clone());
        sessions += kept.sessions.count(&of, MOST_COUNTED, kept.clock.now()).await?;
    }
    let mut document = view(&member, Phone::Masked);
    document["sessions"] = json!(sessions);
    document["identities"] = identities
        .iter()
        .map(|known| json!({ "member_id": known.member_id, "appid": known.appid, "openid": known.openid }))
        .collect();
    Ok(document)
}

/// `PUT /api/members/{id}` with any of `roles`, `nickname`, `avatar_url`, `banned`, `reason`.
pub(super) async fn change(State(admin): State<Arc<Admin>>, Path(id): Path<String>, body: Bytes) -> Answer {
    to_its_end(async move { answered(changed(&admin, &id, &body).await) }).await
}

async fn changed(admin: &Admin, id: &str, body: &[u8]) -> Result<Value, Problem> {
    let id = member_id(id)?;
    let snapshot = admin.gateway.current();
    let change = snapshot.auth().member_change(body)?;
    let about = change.roles.as_ref().map_or(Value::Null, |roles| json!({ "roles": roles }));
    let begun = begin(admin, change.action(), &id, about).await?;
    let outcome = snapshot.auth().change_member(&id, &change).await;
    begun.end_with(&outcome).await;
    Ok(view(&outcome?, Phone::Masked))
}

/// `DELETE /api/members/{id}`: as `DELETE /auth/me` does.
pub(super) async fn erase(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Answer {
    to_its_end(async move { answered(erased(&admin, &id).await) }).await
}

async fn erased(admin: &Admin, id: &str) -> Result<Value, Problem> {
    let id = member_id(id)?;
    let begun = begin(admin, "members.erase", &id, Value::Null).await?;
    let outcome = admin.gateway.current().auth().erase_member(&id).await;
    begun.end_with(&outcome).await;
    outcome.map(|()| json!({ "member_id": id, "erased": true }))
}

/// Writes down what is about to be done to whom.
async fn begin(admin: &Admin, action: &'static str, id: &MemberId, about: Value) -> Result<Begun, Problem> {
    let kept = admin.gateway.kept();
    let member = kept.members.find(id).await?.ok_or_else(nobody)?;
    let name = kept.pseudonyms.of(member.appid.as_str(), member.openid.as_str());
    admin.audit.begin_about(action, Some(name.as_str()), about).await
}

/// `GET /api/members/export?…&show=phone`: all members of a question as NDJSON, phone numbers masked unless asked for.
/// Reading people's data in bulk is written down like a change.
pub(super) async fn export(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Answer {
    match exported(&admin, query.as_deref()).await {
        Ok(answer) => answer,
        Err(problem) => refused(problem),
    }
}

async fn exported(admin: &Arc<Admin>, query: Option<&str>) -> Result<Answer, Problem> {
    let mut query = Query::parse(query)?;
    let phone = match query.take("show").as_deref() {
        None | Some("masked") => Phone::Masked,
        Some("phone") => Phone::Full,
        Some(_) => return Err(Problem::new(Code::InvalidRequest, "`show` can be \"phone\".")),
    };
    let filter = filter(&mut query)?;
    query.end()?;
    let action = if phone == Phone::Full { "members.export-phones" } else { "members.export" };
    let begun = admin.audit.begin(action, None).await?;
    let members = Arc::clone(&admin.gateway.kept().members);
    // The first page now, so that a store that is away is a problem and not an empty file.
    let first = members.list(&filter, None, EXPORTED_AT_ONCE).await?;
    begun.end("done").await;
    let pages = futures_util::stream::unfold(Some(Ok(first)), move |page: Option<Result<MemberPage, _>>| {
        let (members, filter) = (Arc::clone(&members), filter.clone());
        async move {
            let page = match page? {
                Ok(page) => page,
                // The connection breaks off: whoever reads must not take a part for the whole.
                Err(error) => return Some((Err(error), None)),
            };
            let mut lines = String::new();
            for member in &page.members {
                lines.push_str(&view(member, phone).to_string());
                lines.push('\n');
            }
            let next = match &page.next {
                Some(after) => Some(members.list(&filter, Some(after), EXPORTED_AT_ONCE).await),
                None => None,
            };
            Some((Ok(Bytes::from(lines)), next))
        }
    });
    let mut response = Response::new(AxumBody::from_stream(pages));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"members.ndjson\""));
    Ok(response)
}

/// How a phone number is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phone {
    Masked,
    Full,
}

fn view(member: &Member, phone: Phone) -> Value {
    let claims: Value = serde_json::from_str(&member.hook.claims).unwrap_or_else(|_| json!({}));
    json!({
        "member_id": member.member_id,
        "appid": member.appid,
        "openid": member.openid,
        "unionid": member.unionid,
        "nickname": member.nickname,
        "avatar_url": member.avatar_url,
        "phone": if phone == Phone::Full { member.phone.clone() } else { member.masked_phone() },
        "roles": member.roles,
        "hook": { "roles": member.hook.roles, "user_id": member.hook.user_id, "claims": claims },
        "banned": member.banned,
        "ban_reason": member.ban_reason,
        "created_at": member.created_at.to_string(),
        "last_login_at": member.last_login_at.to_string(),
    })
}

fn cursor(next: &MemberCursor) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}\n{}", next.member_id.as_str(), next.nickname))
}

fn read_cursor(text: &str) -> Result<MemberCursor, Problem> {
    let read = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (id, nickname) = text.split_once('\n')?;
        Some(MemberCursor { member_id: MemberId::parse(id).ok()?, nickname: nickname.to_owned() })
    };
    read().ok_or_else(|| Problem::new(Code::InvalidRequest, "`after` is the `next` of the page before."))
}

pub(super) fn member_id(text: &str) -> Result<MemberId, Problem> {
    MemberId::parse(text).map_err(|_| nobody())
}

fn nobody() -> Problem {
    Problem::new(Code::RouteNotFound, "There is no member of this id.")
}

pub(super) fn answered(outcome: Result<Value, Problem>) -> Answer {
    match outcome {
        Ok(document) => json_answer(StatusCode::OK, &document),
        Err(problem) => refused(problem),
    }
}
