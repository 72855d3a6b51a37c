//! [`Members`] in Postgres: a statement each.

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::Postgres;
use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId, OpenId, UnionId};
use crate::store::{Error, Member, Members, SignIn};

/// Absence says nothing: WeChat omits the unionid when it has no reason to tell it. Another one is the truth of today: the
/// app was moved to another Open Platform account, whose ids replace the old ones.
const SIGN_IN: &str = "
    INSERT INTO members (member_id, appid, openid, unionid, created_at, last_login_at)
    VALUES ($1, $2, $3, $4, $5, $5)
    ON CONFLICT (appid, openid) DO UPDATE
    SET unionid = coalesce(excluded.unionid, members.unionid),
        last_login_at = greatest(members.last_login_at, excluded.last_login_at)
    RETURNING *";

#[async_trait]
impl Members for Postgres {
    async fn sign_in(&self, who: SignIn) -> Result<(Member, bool), Error> {
        let fresh = MemberId::new_v7();
        let unionid = who.unionid.as_ref().map(UnionId::as_str);
        let at = who.at.millis();
        let values: [&(dyn ToSql + Sync); 5] =
            [&fresh.as_str(), &who.appid.as_str(), &who.openid.as_str(), &unionid, &at];
        let member = self.one(SIGN_IN, &values).await?.ok_or(Error::Damaged("an upsert in Postgres gave no row"))?;
        let is_new = member.member_id == fresh;
        Ok((member, is_new))
    }

    async fn find(&self, id: &MemberId) -> Result<Option<Member>, Error> {
        self.one("SELECT * FROM members WHERE member_id = $1", &[&id.as_str()]).await
    }

    async fn set_profile(
        &self,
        id: &MemberId,
        nickname: Option<&str>,
        avatar_url: Option<&str>,
    ) -> Result<Option<Member>, Error> {
        let sql = "UPDATE members SET nickname = coalesce($2, nickname), avatar_url = coalesce($3, avatar_url)
                   WHERE member_id = $1 RETURNING *";
        let (nickname, avatar_url) = (nickname.map(storable), avatar_url.map(storable));
        self.one(sql, &[&id.as_str(), &nickname, &avatar_url]).await
    }

    async fn forget_profile(&self, appid: &AppId, openid: &OpenId) -> Result<Option<Member>, Error> {
        let sql = "UPDATE members SET nickname = '', avatar_url = '', phone = ''
                   WHERE appid = $1 AND openid = $2 RETURNING *";
        self.one(sql, &[&appid.as_str(), &openid.as_str()]).await
    }

    async fn set_phone(&self, id: &MemberId, phone: &str) -> Result<Option<Member>, Error> {
        let sql = "UPDATE members SET phone = $2 WHERE member_id = $1 RETURNING *";
        self.one(sql, &[&id.as_str(), &storable(phone)]).await
    }

    async fn erase(&self, id: &MemberId) -> Result<bool, Error> {
        self.within(async {
            let client = self.client().await?;
            let delete = client.prepare_cached("DELETE FROM members WHERE member_id = $1").await?;
            Ok(client.execute(&delete, &[&id.as_str()]).await? > 0)
        })
        .await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.within(async {
            let client = self.client().await?;
            client.query_one("SELECT 1", &[]).await?;
            Ok(())
        })
        .await
    }
}

impl Postgres {
    /// The member that a statement gives, if it gives one.
    pub(super) async fn one(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Option<Member>, Error> {
        self.within(async {
            let client = self.client().await?;
            let statement = client.prepare_cached(sql).await?;
            client.query_opt(&statement, values).await?.map(|row| member(&row)).transpose()
        })
        .await
    }
}

/// Postgres has no place for a NUL in a text, and nothing that a person may be called has one.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn member(row: &Row) -> Result<Member, Error> {
    const DAMAGED: Error = Error::Damaged("a row of members in Postgres holds what is never written there");
    let text = |name: &str| row.try_get::<_, String>(name).map_err(|_| DAMAGED);
    let time = |name: &str| row.try_get::<_, i64>(name).map(Timestamp::from_millis).map_err(|_| DAMAGED);
    let unionid: Option<String> = row.try_get("unionid").map_err(|_| DAMAGED)?;
    Ok(Member {
        member_id: MemberId::parse(&text("member_id")?).map_err(|_| DAMAGED)?,
        appid: AppId::parse(&text("appid")?).map_err(|_| DAMAGED)?,
        openid: OpenId::parse(&text("openid")?).map_err(|_| DAMAGED)?,
        unionid: unionid.map(|id| UnionId::parse(&id)).transpose().map_err(|_| DAMAGED)?,
        nickname: text("nickname")?,
        avatar_url: text("avatar_url")?,
        phone: text("phone")?,
        roles: row.try_get("roles").map_err(|_| DAMAGED)?,
        banned: row.try_get("banned").map_err(|_| DAMAGED)?,
        created_at: time("created_at")?,
        last_login_at: time("last_login_at")?,
    })
}
