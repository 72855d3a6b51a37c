//! [`Members`] in Postgres. Sign-in with its merges, and lists, have files of their own.

use std::collections::HashMap;

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::gather::{Gathering, Together};
use super::row::{self, alias_of, member, own_id, storable};
use super::{Postgres, list, sign_in};
use crate::ids::{AppId, MemberId, OpenId, UserId};
use crate::store::{
    Error, HookAnswer, Identity, Member, MemberCursor, MemberFilter, MemberPage, Members, SignIn, SignedIn,
};

type Value<'a> = &'a (dyn ToSql + Sync);

#[async_trait]
impl Members for Postgres {
    async fn sign_in(&self, who: SignIn) -> Result<SignedIn, Error> {
        self.within(sign_in::sign_in(self, &who)).await
    }

    async fn find(&self, id: &MemberId) -> Result<Option<Member>, Error> {
        self.within(async {
            match self.finds.call(id.clone()).await? {
                Some(Found::Member(member)) => Ok(Some(*member)),
                Some(Found::Alias) => find(&self.client().await?, id).await,
                None => Ok(None),
            }
        })
        .await
    }

    async fn identities(&self, id: &MemberId) -> Result<Vec<Identity>, Error> {
        self.within(async {
            let client = self.client().await?;
            match own_id(&client, id).await? {
                Some(own) => row::identities(&client, &own).await,
                None => Ok(Vec::new()),
            }
        })
        .await
    }

    async fn set_profile(
        &self,
        id: &MemberId,
        nickname: Option<&str>,
        avatar_url: Option<&str>,
    ) -> Result<Option<Member>, Error> {
        let (nickname, avatar_url) = (nickname.map(storable), avatar_url.map(storable));
        let set = "nickname = coalesce($2, nickname), avatar_url = coalesce($3, avatar_url)";
        self.set(id, set, &[&nickname, &avatar_url]).await
    }

    async fn forget_profile(&self, appid: &AppId, openid: &OpenId) -> Result<Option<Member>, Error> {
        self.within(async {
            let client = self.client().await?;
            let sql = "UPDATE members SET nickname = '', avatar_url = '', phone = '' WHERE member_id =
                       (SELECT coalesce(alias_of, member_id) FROM members WHERE appid = $1 AND openid = $2)
                       RETURNING *";
            one(&client, sql, &[&appid.as_str(), &openid.as_str()]).await
        })
        .await
    }

    async fn set_phone(&self, id: &MemberId, phone: &str) -> Result<Option<Member>, Error> {
        self.set(id, "phone = $2", &[&storable(phone)]).await
    }

    async fn set_roles(&self, id: &MemberId, roles: &[String]) -> Result<Option<Member>, Error> {
        self.set_indexed(id, "roles = $2", &[&row::sorted(roles)]).await
    }

    async fn set_hook(&self, id: &MemberId, answer: &HookAnswer) -> Result<Option<Member>, Error> {
        let user_id = answer.user_id.as_ref().map(UserId::as_str);
        let (roles, claims) = (row::sorted(&answer.roles), storable(&answer.claims));
        self.set_indexed(id, "hook_roles = $2, user_id = $3, claims = $4", &[&roles, &user_id, &claims]).await
    }

    async fn set_ban(&self, id: &MemberId, reason: Option<&str>) -> Result<Option<Member>, Error> {
        let (banned, reason) = (reason.is_some(), storable(reason.unwrap_or_default()));
        self.set(id, "banned = $2, ban_reason = $3", &[&banned, &reason]).await
    }

    async fn list(&self, filter: &MemberFilter, after: Option<&MemberCursor>, limit: u32) -> Result<MemberPage, Error> {
        self.within(async { list::page(&self.client().await?, filter, after, limit).await }).await
    }

    async fn count(&self, filter: &MemberFilter, at_most: u32) -> Result<u32, Error> {
        self.within(async { list::count(&self.client().await?, filter, at_most).await }).await
    }

    async fn erase(&self, id: &MemberId) -> Result<Vec<Identity>, Error> {
        self.within(async {
            let mut client = self.client().await?;
            let transaction = client.transaction().await?;
            let Some(own) = own_id(&transaction, id).await? else { return Ok(Vec::new()) };
            let own = own.as_str();
            transaction.execute("DELETE FROM member_roles WHERE member_id = $1", &[&own]).await?;
            let all = "DELETE FROM members WHERE member_id = $1 OR alias_of = $1 RETURNING member_id, appid, openid";
            let all = transaction.query(all, &[&own]).await?;
            transaction.commit().await?;
            all.iter().map(row::identity).collect()
        })
        .await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.within(async {
            self.client().await?.query_one("SELECT 1", &[]).await?;
            Ok(())
        })
        .await
    }
}

impl Postgres {
    /// Sets columns of the member of this id or alias; the values are `$2` and so on.
    async fn set(&self, id: &MemberId, set: &str, values: &[Value<'_>]) -> Result<Option<Member>, Error> {
        self.within(async { update(&self.client().await?, id, set, values).await }).await
    }

    /// As [`Postgres::set`], of columns that say which roles he has.
    async fn set_indexed(&self, id: &MemberId, set: &str, values: &[Value<'_>]) -> Result<Option<Member>, Error> {
        self.within(async {
            let mut client = self.client().await?;
            let transaction = client.transaction().await?;
            let changed = update(&transaction, id, set, values).await?;
            if let Some(member) = &changed {
                row::index_roles(&transaction, member).await?;
            }
            transaction.commit().await?;
            Ok(changed)
        })
        .await
    }
}

/// Who has these ids.
pub(super) struct Finds;

/// A row that was found.
pub(super) enum Found {
    Member(Box<Member>),
    /// It leads to another row.
    Alias,
}

impl Together for Finds {
    type Wish = MemberId;
    type Answer = Option<Found>;

    async fn together(client: &Object, ids: &[MemberId]) -> Result<Gathering<Option<Found>>, tokio_postgres::Error> {
        // The limit keeps it one search of the index for each id, however many members the server believes there are when it
        // makes its plan.
        let sql = "SELECT m.* FROM unnest($1::text[]) AS asked (id)
                   CROSS JOIN LATERAL (SELECT * FROM members WHERE member_id = asked.id LIMIT 1) AS m";
        let query = client.prepare_cached(sql).await?;
        let asked: Vec<&str> = ids.iter().map(MemberId::as_str).collect();
        let rows = client.query(&query, &[&asked]).await?;
        let found: HashMap<Option<&str>, &Row> = rows.iter().map(|row| (row.try_get("member_id").ok(), row)).collect();
        let found_one = |row: &Row| match alias_of(row)? {
            Some(_) => Ok(Found::Alias),
            None => member(row).map(Box::new).map(Found::Member),
        };
        Ok(asked.iter().map(|id| Some(found.get(&Some(*id)).map(|row| found_one(row)).transpose())).collect())
    }
}

/// The member of this id, or whose alias it is.
pub(super) async fn find(db: &impl GenericClient, id: &MemberId) -> Result<Option<Member>, Error> {
    let sql = "SELECT * FROM members
               WHERE member_id = (SELECT coalesce(alias_of, member_id) FROM members WHERE member_id = $1)";
    one(db, sql, &[&id.as_str()]).await
}

async fn update(
    db: &impl GenericClient,
    id: &MemberId,
    set: &str,
    values: &[Value<'_>],
) -> Result<Option<Member>, Error> {
    let sql = format!(
        "UPDATE members SET {set}
         WHERE member_id = (SELECT coalesce(alias_of, member_id) FROM members WHERE member_id = $1) RETURNING *"
    );
    let id = id.as_str();
    let mut all: Vec<Value<'_>> = vec![&id];
    all.extend_from_slice(values);
    one(db, &sql, &all).await
}

/// The member that a statement gives, if it gives one.
pub(super) async fn one(db: &impl GenericClient, sql: &str, values: &[Value<'_>]) -> Result<Option<Member>, Error> {
    let statement = db.prepare_cached(sql).await?;
    db.query_opt(&statement, values).await?.map(|row| member(&row)).transpose()
}
