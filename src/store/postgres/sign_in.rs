//! The sign-in of a person, and the merge of those who have one unionid.
//!
//! Mostly it is one statement that makes the row or finds it there, together with those of others ([`gather`](super::gather)).
//! Whoever registers or merges by unionid does so in a transaction that holds the lock of that unionid, so that of logins in
//! several apps at once, on whatever instances, one makes the member.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::Postgres;
use super::gather::{Gathering, Together};
use super::members::one;
use super::row::{alias_of, index_roles, member};
use crate::ids::{MemberId, UnionId};
use crate::store::{Error, Member, SignIn, SignedIn};

/// First key of the locks, for unionids ("wxun" in ASCII); the second is a hash of the unionid.
const LOCKS: i32 = 0x7778_756e;

/// Sign-ins of people who are not to be looked for among those of their unionid before they are registered.
pub(super) struct SignIns;

/// A person's row after the sign-in.
pub(super) struct Noted {
    row: Member,
    /// Whose alias it is.
    own: Option<MemberId>,
    is_new: bool,
}

pub(super) async fn sign_in(postgres: &Postgres, who: &SignIn) -> Result<SignedIn, Error> {
    if let Some(unionid) = who.unionid.clone().filter(|_| who.merge) {
        let mut client = postgres.client().await?;
        let found = known(&client, who).await?;
        let unionid = found.as_ref().and_then(|member| member.unionid.clone()).unwrap_or(unionid);
        return of_one_unionid(&mut client, who, found, &unionid).await;
    }
    let Noted { row, own, is_new } = postgres.sign_ins.call(who.clone()).await?;
    let member = match own {
        None => row,
        Some(own) => seen(&postgres.client().await?, &own, row.unionid, who).await?,
    };
    match member.unionid.clone().filter(|_| who.merge) {
        None => Ok(alone(member, is_new)),
        Some(unionid) => of_one_unionid(&mut postgres.client().await?, who, Some(member), &unionid).await,
    }
}

impl Together for SignIns {
    type Wish = SignIn;
    type Answer = Noted;

    /// The same person a second time goes by himself: a statement writes a row once.
    async fn together(client: &Object, all: &[SignIn]) -> Result<Gathering<Noted>, tokio_postgres::Error> {
        let mut people = HashMap::with_capacity(all.len());
        let is_first: Vec<bool> = all.iter().map(|who| people.insert(person(who), None::<&Row>).is_none()).collect();
        let once: Vec<&SignIn> = all.iter().zip(&is_first).filter(|(_, first)| **first).map(|(who, _)| who).collect();
        let fresh: Vec<MemberId> = once.iter().map(|_| MemberId::new_v7()).collect();
        let ids: Vec<&str> = fresh.iter().map(MemberId::as_str).collect();
        let appids: Vec<&str> = once.iter().map(|who| who.appid.as_str()).collect();
        let openids: Vec<&str> = once.iter().map(|who| who.openid.as_str()).collect();
        let unionids: Vec<Option<&str>> = once.iter().map(|who| who.unionid.as_ref().map(UnionId::as_str)).collect();
        let times: Vec<i64> = once.iter().map(|who| who.at.millis()).collect();
        let upsert = client.prepare_cached(UPSERT).await?;
        let rows = client.query(&upsert, &[&ids, &appids, &openids, &unionids, &times]).await?;
        for row in &rows {
            people.insert((row.try_get("appid")?, row.try_get("openid")?), Some(row));
        }
        // A row with one of these ids was made just now.
        let ids: HashSet<&str> = ids.into_iter().collect();
        let noted = |row: &Row| {
            let (own, row) = (alias_of(row)?, member(row)?);
            Ok(Noted { is_new: ids.contains(row.member_id.as_str()), row, own })
        };
        let gone = || Err(Error::Unavailable("a member came and went".into()));
        let answer = |(who, first): (&SignIn, bool)| {
            first.then(|| people.get(&person(who)).copied().flatten().map_or_else(gone, noted))
        };
        Ok(all.iter().zip(is_first).map(answer).collect())
    }
}

fn person(who: &SignIn) -> (&str, &str) {
    (who.appid.as_str(), who.openid.as_str())
}

/// Absence of a unionid says nothing: WeChat omits it when it has no reason to tell it. Another one is the truth of today: the
/// app was moved to another Open Platform account, whose ids replace the old ones. In one order, so that no two statements wait
/// for each other.
const UPSERT: &str = "INSERT INTO members AS m (member_id, appid, openid, unionid, created_at, last_login_at)
    SELECT id, appid, openid, unionid, at, at
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) AS w (id, appid, openid, unionid, at)
    ORDER BY appid COLLATE \"C\", openid COLLATE \"C\"
    ON CONFLICT (appid, openid) DO UPDATE SET
        unionid = coalesce(excluded.unionid, m.unionid), last_login_at = greatest(m.last_login_at, excluded.last_login_at)
    RETURNING *";

/// The login of somebody who has, or gets, a unionid by which members are merged; `found` when he is known.
async fn of_one_unionid(
    client: &mut Object,
    who: &SignIn,
    found: Option<Member>,
    unionid: &UnionId,
) -> Result<SignedIn, Error> {
    match found {
        Some(member) if of_unionid(client, unionid).await?.len() == 1 => Ok(alone(member, false)),
        _ => {
            let transaction = client.transaction().await?;
            let lock = transaction.prepare_cached("SELECT pg_advisory_xact_lock($1, hashtext($2))").await?;
            transaction.execute(&lock, &[&LOCKS, &unionid.as_str()]).await?;
            let signed_in = merging(&transaction, who, unionid).await?;
            transaction.commit().await?;
            Ok(signed_in)
        }
    }
}

fn alone(member: Member, is_new: bool) -> SignedIn {
    SignedIn { member, is_new, merged: Vec::new() }
}

/// Notes the login of somebody who is known. He comes back with the unionid of the row, which may be the newer one.
async fn known(db: &impl GenericClient, who: &SignIn) -> Result<Option<Member>, Error> {
    // See UPSERT.
    let sql = "UPDATE members SET unionid = coalesce($3, unionid), last_login_at = greatest(last_login_at, $4)
               WHERE appid = $1 AND openid = $2 RETURNING *";
    let update = db.prepare_cached(sql).await?;
    let unionid = who.unionid.as_ref().map(UnionId::as_str);
    let values: [&(dyn ToSql + Sync); 4] = [&who.appid.as_str(), &who.openid.as_str(), &unionid, &who.at.millis()];
    let Some(row) = db.query_opt(&update, &values).await? else { return Ok(None) };
    let found = member(&row)?;
    match alias_of(&row)? {
        None => Ok(Some(found)),
        Some(own) => seen(db, &own, found.unionid, who).await.map(Some),
    }
}

/// The login of an alias is one of the member.
async fn seen(
    db: &impl GenericClient,
    own: &MemberId,
    unionid: Option<UnionId>,
    who: &SignIn,
) -> Result<Member, Error> {
    let sql = "UPDATE members SET last_login_at = greatest(last_login_at, $2) WHERE member_id = $1 RETURNING *";
    let found = one(db, sql, &[&own.as_str(), &who.at.millis()]).await?;
    let found = found.ok_or(Error::Damaged("an alias in Postgres leads to no member"))?;
    Ok(Member { unionid: unionid.or(found.unionid.clone()), ..found })
}

/// A new row; `None` when somebody else has just made it.
async fn insert(db: &impl GenericClient, who: &SignIn, own: Option<&MemberId>) -> Result<Option<Member>, Error> {
    let sql = "INSERT INTO members (member_id, appid, openid, unionid, created_at, last_login_at, alias_of)
               VALUES ($1, $2, $3, $4, $5, $5, $6) ON CONFLICT (appid, openid) DO NOTHING RETURNING *";
    let (id, unionid, own) = (MemberId::new_v7(), who.unionid.as_ref().map(UnionId::as_str), own.map(MemberId::as_str));
    let values: [&(dyn ToSql + Sync); 6] =
        [&id.as_str(), &who.appid.as_str(), &who.openid.as_str(), &unionid, &who.at.millis(), &own];
    one(db, sql, &values).await
}

/// All of it under the lock: nobody else registers or merges anybody of this unionid meanwhile.
async fn merging(db: &impl GenericClient, who: &SignIn, unionid: &UnionId) -> Result<SignedIn, Error> {
    let mut is_new = false;
    let member = match known(db, who).await? {
        Some(member) => member,
        None => {
            let own = of_unionid(db, unionid).await?.into_iter().next();
            let made = insert(db, who, own.as_ref().map(|own| &own.member_id)).await?;
            match (made, own) {
                (Some(alias), Some(own)) => seen(db, &own.member_id, alias.unionid, who).await?,
                (Some(made), None) => {
                    is_new = true;
                    made
                }
                // Without its unionid, hence without this lock, another login of the same person has just registered.
                (None, _) => known(db, who).await?.ok_or(Error::Unavailable("a member came and went".into()))?,
            }
        }
    };
    let mut all = of_unionid(db, unionid).await?.into_iter();
    let Some(mut survivor) = all.next() else { return Ok(alone(member, is_new)) };
    let mut merged = Vec::new();
    for other in all {
        survivor = take_over(db, &survivor.member_id, &other.member_id).await?;
        merged.push(other.member_id);
    }
    survivor.unionid = Some(unionid.clone());
    Ok(SignedIn { member: survivor, is_new, merged })
}

/// The members of whom a row has this unionid, the oldest first.
async fn of_unionid(db: &impl GenericClient, unionid: &UnionId) -> Result<Vec<Member>, Error> {
    let sql = "SELECT * FROM members
               WHERE member_id IN (SELECT coalesce(alias_of, member_id) FROM members WHERE unionid = $1)
               ORDER BY created_at, member_id";
    let query = db.prepare_cached(sql).await?;
    db.query(&query, &[&unionid.as_str()]).await?.iter().map(member).collect()
}

/// `other` becomes an alias of `own`; what he has and `own` has not goes over.
async fn take_over(db: &impl GenericClient, own: &MemberId, other: &MemberId) -> Result<Member, Error> {
    let (own, other) = (own.as_str(), other.as_str());
    let union = |column: &str| {
        format!("ARRAY(SELECT DISTINCT unnest(m.{column} || o.{column}) COLLATE \"C\" AS role ORDER BY role)")
    };
    let sql = format!(
        "UPDATE members m SET
             nickname = CASE WHEN m.nickname = '' THEN o.nickname ELSE m.nickname END,
             avatar_url = CASE WHEN m.avatar_url = '' THEN o.avatar_url ELSE m.avatar_url END,
             phone = CASE WHEN m.phone = '' THEN o.phone ELSE m.phone END,
             user_id = coalesce(m.user_id, o.user_id),
             claims = CASE WHEN m.claims = '' THEN o.claims ELSE m.claims END,
             ban_reason = CASE WHEN m.banned THEN m.ban_reason ELSE o.ban_reason END,
             banned = m.banned OR o.banned,
             last_login_at = greatest(m.last_login_at, o.last_login_at),
             roles = {}, hook_roles = {}
         FROM members o WHERE m.member_id = $1 AND o.member_id = $2 RETURNING m.*",
        union("roles"),
        union("hook_roles")
    );
    let merged = one(db, &sql, &[&own, &other]).await?;
    let merged = merged.ok_or(Error::Unavailable("a member went while he was merged".into()))?;
    let sql = "UPDATE members SET alias_of = $1 WHERE alias_of = $2";
    db.execute(&db.prepare_cached(sql).await?, &[&own, &other]).await?;
    let sql = "UPDATE members SET alias_of = $1, nickname = '', avatar_url = '', phone = '', roles = '{}',
                   hook_roles = '{}', user_id = NULL, claims = '', banned = FALSE, ban_reason = ''
               WHERE member_id = $2";
    db.execute(&db.prepare_cached(sql).await?, &[&own, &other]).await?;
    let sql = "DELETE FROM member_roles WHERE member_id = $1";
    db.execute(&db.prepare_cached(sql).await?, &[&other]).await?;
    index_roles(db, &merged).await?;
    Ok(merged)
}
