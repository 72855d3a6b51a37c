//! The sign-in of a person, and the merge of those who have one unionid.
//!
//! Mostly it is one update of one row. Whoever registers or merges by unionid does so in a transaction that holds the lock
//! of that unionid, so that of logins in several apps at once, on whatever instances, one makes the member.

use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::types::ToSql;

use super::members::one;
use super::row::{alias_of, index_roles, member};
use crate::ids::{MemberId, UnionId};
use crate::store::{Error, Member, SignIn, SignedIn};

/// First key of the locks, for unionids ("wxun" in ASCII); the second is a hash of the unionid.
const LOCKS: i32 = 0x7778_756e;

pub(super) async fn sign_in(client: &mut Object, who: &SignIn) -> Result<SignedIn, Error> {
    let found = known(client, who).await?;
    let unionid = found.as_ref().and_then(|member| member.unionid.clone()).or_else(|| who.unionid.clone());
    let unionid = unionid.filter(|_| who.merge);
    match (found, unionid) {
        (Some(member), None) => Ok(alone(member, false)),
        (Some(member), Some(unionid)) if of_unionid(client, &unionid).await?.len() == 1 => Ok(alone(member, false)),
        (None, None) => register(client, who).await,
        (_, Some(unionid)) => {
            let transaction = client.transaction().await?;
            let lock = transaction.prepare_cached("SELECT pg_advisory_xact_lock($1, hashtext($2))").await?;
            transaction.execute(&lock, &[&LOCKS, &unionid.as_str()]).await?;
            let signed_in = merging(&transaction, who, &unionid).await?;
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
    // Absence says nothing: WeChat omits the unionid when it has no reason to tell it. Another one is the truth of
    // today: the app was moved to another Open Platform account, whose ids replace the old ones.
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

/// Of concurrent first logins one inserts; the others find that it is done.
async fn register(db: &impl GenericClient, who: &SignIn) -> Result<SignedIn, Error> {
    match insert(db, who, None).await? {
        Some(member) => Ok(alone(member, true)),
        None => {
            let found = known(db, who).await?;
            Ok(alone(found.ok_or(Error::Unavailable("a member came and went".into()))?, false))
        }
    }
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
