//! The sign-in of a person, and the merge of those who have one unionid.
//!
//! All in one transaction of the one writer, so nobody comes between.

use rusqlite::{Connection, OptionalExtension as _, Row, named_params};

use super::member_row::{self, member};
use crate::ids::{MemberId, UnionId};
use crate::store::{Member, SignIn, SignedIn};

/// An update that finds nobody becomes the registration.
pub(super) fn sign_in(db: &Connection, who: &SignIn) -> rusqlite::Result<SignedIn> {
    // Absence says nothing: WeChat omits the unionid when it has no reason to tell it. Another one is the truth of
    // today: the app was moved to another Open Platform account, whose ids replace the old ones.
    let mut update = db.prepare_cached(
        "UPDATE members SET unionid = coalesce(:unionid, unionid), last_login_at = max(last_login_at, :at)
         WHERE appid = :appid AND openid = :openid RETURNING *",
    )?;
    let known = named_params! { ":appid": who.appid, ":openid": who.openid, ":unionid": who.unionid, ":at": who.at };
    let known = update.query_row(known, |row| Ok((row.get::<_, Option<MemberId>>("alias_of")?, member(row)?)));
    let (row, is_new) = match known.optional()? {
        Some((Some(own), alias)) => (seen(db, own, alias.unionid, who)?, false),
        Some((None, own)) => (own, false),
        None => register(db, who)?,
    };
    match &row.unionid {
        Some(unionid) if who.merge => {
            merge(db, unionid, &row).map(|(member, merged)| SignedIn { member, is_new, merged })
        }
        _ => Ok(SignedIn { member: row, is_new, merged: Vec::new() }),
    }
}

/// The login of an alias is one of the member. He comes back with the unionid of the alias, which may be the newer one.
fn seen(db: &Connection, own: MemberId, unionid: Option<UnionId>, who: &SignIn) -> rusqlite::Result<Member> {
    let mut update = db
        .prepare_cached("UPDATE members SET last_login_at = max(last_login_at, ?2) WHERE member_id = ?1 RETURNING *")?;
    let found = update.query_row((own, who.at), member)?;
    Ok(Member { unionid: unionid.or(found.unionid.clone()), ..found })
}

/// A new row: an alias where somebody of this unionid is there and all of one unionid are one member.
fn register(db: &Connection, who: &SignIn) -> rusqlite::Result<(Member, bool)> {
    let own = match &who.unionid {
        Some(unionid) if who.merge => of_unionid(db, unionid)?.into_iter().next(),
        _ => None,
    };
    let mut insert = db.prepare_cached(
        "INSERT INTO members (member_id, appid, openid, unionid, created_at, last_login_at, alias_of)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6) RETURNING *",
    )?;
    let id = own.as_ref().map(|own| &own.member_id);
    let row = insert.query_row((MemberId::new_v7(), &who.appid, &who.openid, &who.unionid, who.at, id), member)?;
    match own {
        Some(own) => Ok((seen(db, own.member_id, row.unionid, who)?, false)),
        None => Ok((row, true)),
    }
}

/// The members of whom a row has this unionid, the oldest first.
fn of_unionid(db: &Connection, unionid: &UnionId) -> rusqlite::Result<Vec<Member>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM members
         WHERE member_id IN (SELECT coalesce(alias_of, member_id) FROM members WHERE unionid = ?1)
         ORDER BY created_at, member_id",
    )?;
    query.query_map([unionid], member)?.collect()
}

/// Makes one member of all who have this unionid; `row` is one of them. Returns him, and who became an alias.
fn merge(db: &Connection, unionid: &UnionId, row: &Member) -> rusqlite::Result<(Member, Vec<MemberId>)> {
    let mut all = of_unionid(db, unionid)?.into_iter();
    let Some(mut survivor) = all.next() else { return Ok((row.clone(), Vec::new())) };
    let mut merged = Vec::new();
    for other in all {
        survivor = take_over(db, &survivor.member_id, &other.member_id)?;
        merged.push(other.member_id);
    }
    survivor.unionid = Some(unionid.clone());
    Ok((survivor, merged))
}

/// `other` becomes an alias of `own`; what he has and `own` has not goes over.
fn take_over(db: &Connection, own: &MemberId, other: &MemberId) -> rusqlite::Result<Member> {
    let operators = |row: &Row<'_>| -> rusqlite::Result<Vec<String>> { member_row::roles(row, "roles") };
    let roles_of = |id: &MemberId, column: &str| -> rusqlite::Result<Vec<String>> {
        let mut query = db.prepare_cached(&format!("SELECT {column} AS roles FROM members WHERE member_id = ?1"))?;
        query.query_row([id], operators)
    };
    let both = |column: &str| -> rusqlite::Result<String> {
        let mut roles = roles_of(own, column)?;
        roles.extend(roles_of(other, column)?);
        Ok(member_row::roles_text(&roles))
    };
    let (roles, hook_roles) = (both("roles")?, both("hook_roles")?);
    let mut update = db.prepare_cached(
        "UPDATE members SET
             nickname = iif(members.nickname = '', o.nickname, members.nickname),
             avatar_url = iif(members.avatar_url = '', o.avatar_url, members.avatar_url),
             phone = iif(members.phone = '', o.phone, members.phone),
             user_id = coalesce(members.user_id, o.user_id),
             claims = iif(members.claims = '', o.claims, members.claims),
             ban_reason = iif(members.banned, members.ban_reason, o.ban_reason),
             banned = max(members.banned, o.banned),
             last_login_at = max(members.last_login_at, o.last_login_at),
             roles = ?3, hook_roles = ?4
         FROM (SELECT * FROM members WHERE member_id = ?2) AS o
         WHERE members.member_id = ?1",
    )?;
    update.execute((own, other, roles, hook_roles))?;
    db.prepare_cached("UPDATE members SET alias_of = ?1 WHERE alias_of = ?2")?.execute((own, other))?;
    db.prepare_cached(
        "UPDATE members SET alias_of = ?1, nickname = '', avatar_url = '', phone = '', roles = '[]', hook_roles = '[]',
             user_id = NULL, claims = '', banned = 0, ban_reason = ''
         WHERE member_id = ?2",
    )?
    .execute((own, other))?;
    db.prepare_cached("DELETE FROM member_roles WHERE member_id = ?1")?.execute([other])?;
    let merged = db.prepare_cached("SELECT * FROM members WHERE member_id = ?1")?.query_row([own], member)?;
    member_row::index_roles(db, &merged)?;
    Ok(merged)
}
