//! A member as it stands in the tables: a row, his roles, and the rows of his aliases.

use std::collections::BTreeSet;

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId, OpenId, UnionId, UserId};
use crate::store::{Error, HookAnswer, Identity, Member};

const DAMAGED: Error = Error::Damaged("a row of members in Postgres holds what is never written there");

/// The member's own id, where this is an alias.
pub(super) async fn own_id(db: &impl GenericClient, id: &MemberId) -> Result<Option<MemberId>, Error> {
    let query = db.prepare_cached("SELECT coalesce(alias_of, member_id) FROM members WHERE member_id = $1").await?;
    let row = db.query_opt(&query, &[&id.as_str()]).await?;
    row.map(|row| member_id(&row, 0)).transpose()
}

/// The member's row and those of his aliases.
pub(super) async fn identities(db: &impl GenericClient, own: &MemberId) -> Result<Vec<Identity>, Error> {
    let sql = "SELECT member_id, appid, openid FROM members WHERE member_id = $1 OR alias_of = $1
               ORDER BY (alias_of IS NOT NULL), member_id";
    let query = db.prepare_cached(sql).await?;
    db.query(&query, &[&own.as_str()]).await?.iter().map(identity).collect()
}

/// Of a row of member id, appid and openid.
pub(super) fn identity(row: &Row) -> Result<Identity, Error> {
    let text = |at: usize| row.try_get::<_, String>(at).map_err(|_| DAMAGED);
    Ok(Identity {
        member_id: member_id(row, 0)?,
        appid: AppId::parse(&text(1)?).map_err(|_| DAMAGED)?,
        openid: OpenId::parse(&text(2)?).map_err(|_| DAMAGED)?,
    })
}

/// Of a whole row that is no alias.
pub(super) fn member(row: &Row) -> Result<Member, Error> {
    let text = |name: &str| row.try_get::<_, String>(name).map_err(|_| DAMAGED);
    let texts = |name: &str| row.try_get::<_, Vec<String>>(name).map_err(|_| DAMAGED);
    let time = |name: &str| row.try_get::<_, i64>(name).map(Timestamp::from_millis).map_err(|_| DAMAGED);
    let optional = |name: &str| row.try_get::<_, Option<String>>(name).map_err(|_| DAMAGED);
    let user_id = optional("user_id")?.map(|id| UserId::parse(&id)).transpose().map_err(|_| DAMAGED)?;
    let hook = HookAnswer { roles: texts("hook_roles")?, user_id, claims: text("claims")? };
    let all: BTreeSet<String> = texts("roles")?.into_iter().chain(hook.roles.iter().cloned()).collect();
    Ok(Member {
        member_id: MemberId::parse(&text("member_id")?).map_err(|_| DAMAGED)?,
        appid: AppId::parse(&text("appid")?).map_err(|_| DAMAGED)?,
        openid: OpenId::parse(&text("openid")?).map_err(|_| DAMAGED)?,
        unionid: optional("unionid")?.map(|id| UnionId::parse(&id)).transpose().map_err(|_| DAMAGED)?,
        nickname: text("nickname")?,
        avatar_url: text("avatar_url")?,
        phone: text("phone")?,
        roles: all.into_iter().collect(),
        hook,
        banned: row.try_get("banned").map_err(|_| DAMAGED)?,
        ban_reason: text("ban_reason")?,
        created_at: time("created_at")?,
        last_login_at: time("last_login_at")?,
    })
}

/// Whose alias a row is.
pub(super) fn alias_of(row: &Row) -> Result<Option<MemberId>, Error> {
    let own: Option<String> = row.try_get("alias_of").map_err(|_| DAMAGED)?;
    own.map(|own| MemberId::parse(&own)).transpose().map_err(|_| DAMAGED)
}

fn member_id(row: &Row, at: usize) -> Result<MemberId, Error> {
    row.try_get::<_, String>(at).ok().and_then(|id| MemberId::parse(&id).ok()).ok_or(DAMAGED)
}

/// Sorted, each once.
pub(super) fn sorted(roles: &[String]) -> Vec<String> {
    let sorted: BTreeSet<String> = roles.iter().map(|role| storable(role)).collect();
    sorted.into_iter().collect()
}

/// Writes anew by which roles the member is found.
pub(super) async fn index_roles(db: &impl GenericClient, member: &Member) -> Result<(), Error> {
    let id = member.member_id.as_str();
    let delete = db.prepare_cached("DELETE FROM member_roles WHERE member_id = $1").await?;
    db.execute(&delete, &[&id]).await?;
    let insert = db.prepare_cached("INSERT INTO member_roles (role, member_id) SELECT unnest($2::text[]), $1").await?;
    db.execute(&insert, &[&id, &member.roles]).await?;
    Ok(())
}

/// Postgres has no place for a NUL in a text, and nothing that a person may be called has one.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
