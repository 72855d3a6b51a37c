//! A member as it stands in the tables: a row, his roles, and the rows of his aliases.

use std::collections::BTreeSet;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::ids::MemberId;
use crate::store::{HookAnswer, Identity, Member};

/// The member of this id, or whose alias it is.
pub(super) fn find(db: &Connection, id: &MemberId) -> rusqlite::Result<Option<Member>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM members
         WHERE member_id = (SELECT coalesce(alias_of, member_id) FROM members WHERE member_id = ?1)",
    )?;
    query.query_row([id], member).optional()
}

/// The member's own id, where this is an alias.
pub(super) fn own_id(db: &Connection, id: &MemberId) -> rusqlite::Result<Option<MemberId>> {
    let mut query = db.prepare_cached("SELECT coalesce(alias_of, member_id) FROM members WHERE member_id = ?1")?;
    query.query_row([id], |row| row.get(0)).optional()
}

/// The member's row and those of his aliases.
pub(super) fn identities(db: &Connection, own: &MemberId) -> rusqlite::Result<Vec<Identity>> {
    let identity = |row: &Row<'_>| Ok(Identity { member_id: row.get(0)?, appid: row.get(1)?, openid: row.get(2)? });
    let mut query = db.prepare_cached("SELECT member_id, appid, openid FROM members WHERE member_id = ?1")?;
    let mut all = query.query_map([own], identity)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut query =
        db.prepare_cached("SELECT member_id, appid, openid FROM members WHERE alias_of = ?1 ORDER BY member_id")?;
    for alias in query.query_map([own], identity)? {
        all.push(alias?);
    }
    Ok(all)
}

/// Of a whole row that is no alias.
pub(super) fn member(row: &Row<'_>) -> rusqlite::Result<Member> {
    let hook =
        HookAnswer { roles: roles(row, "hook_roles")?, user_id: row.get("user_id")?, claims: row.get("claims")? };
    let all: BTreeSet<String> = roles(row, "roles")?.into_iter().chain(hook.roles.iter().cloned()).collect();
    Ok(Member {
        member_id: row.get("member_id")?,
        appid: row.get("appid")?,
        openid: row.get("openid")?,
        unionid: row.get("unionid")?,
        nickname: row.get("nickname")?,
        avatar_url: row.get("avatar_url")?,
        phone: row.get("phone")?,
        roles: all.into_iter().collect(),
        hook,
        banned: row.get("banned")?,
        ban_reason: row.get("ban_reason")?,
        created_at: row.get("created_at")?,
        last_login_at: row.get("last_login_at")?,
    })
}

/// A JSON array of a column.
pub(super) fn roles(row: &Row<'_>, column: &str) -> rusqlite::Result<Vec<String>> {
    let text: String = row.get(column)?;
    let index = row.as_ref().column_index(column)?;
    serde_json::from_str(&text).map_err(|e| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(e)))
}

/// How roles stand in a column: a sorted JSON array, each once.
pub(super) fn roles_text(roles: &[String]) -> String {
    let sorted: BTreeSet<&String> = roles.iter().collect();
    serde_json::json!(sorted).to_string()
}

/// Writes anew by which roles the member is found.
pub(super) fn index_roles(db: &Connection, member: &Member) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM member_roles WHERE member_id = ?1")?.execute([&member.member_id])?;
    let mut insert = db.prepare_cached("INSERT INTO member_roles (role, member_id) VALUES (?1, ?2)")?;
    for role in &member.roles {
        insert.execute((role, &member.member_id))?;
    }
    Ok(())
}
