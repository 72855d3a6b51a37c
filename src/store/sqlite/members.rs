//! [`Members`] in SQLite.

use async_trait::async_trait;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params};

use super::Sqlite;
use crate::ids::{AppId, MemberId, OpenId};
use crate::store::{Error, Member, Members, SignIn};

#[async_trait]
impl Members for Sqlite {
    async fn sign_in(&self, who: SignIn) -> Result<(Member, bool), Error> {
        self.write(move |db| sign_in(db, &who)).await
    }

    async fn find(&self, id: &MemberId) -> Result<Option<Member>, Error> {
        let id = id.clone();
        self.read(move |db| {
            let mut query = db.prepare_cached("SELECT * FROM members WHERE member_id = ?1")?;
            Ok(query.query_row([id], member).optional()?)
        })
        .await
    }

    async fn set_profile(
        &self,
        id: &MemberId,
        nickname: Option<&str>,
        avatar_url: Option<&str>,
    ) -> Result<Option<Member>, Error> {
        let (id, nickname, avatar_url) = (id.clone(), nickname.map(str::to_owned), avatar_url.map(str::to_owned));
        self.write(move |db| {
            let mut update = db.prepare_cached(
                "UPDATE members SET nickname = coalesce(?2, nickname), avatar_url = coalesce(?3, avatar_url)
                 WHERE member_id = ?1 RETURNING *",
            )?;
            Ok(update.query_row((id, nickname, avatar_url), member).optional()?)
        })
        .await
    }

    async fn forget_profile(&self, appid: &AppId, openid: &OpenId) -> Result<Option<Member>, Error> {
        let (appid, openid) = (appid.clone(), openid.clone());
        self.write(move |db| {
            let mut update = db.prepare_cached(
                "UPDATE members SET nickname = '', avatar_url = '', phone = ''
                 WHERE appid = ?1 AND openid = ?2 RETURNING *",
            )?;
            Ok(update.query_row((appid, openid), member).optional()?)
        })
        .await
    }

    async fn set_phone(&self, id: &MemberId, phone: &str) -> Result<Option<Member>, Error> {
        let (id, phone) = (id.clone(), phone.to_owned());
        self.write(move |db| {
            let mut update = db.prepare_cached("UPDATE members SET phone = ?2 WHERE member_id = ?1 RETURNING *")?;
            Ok(update.query_row((id, phone), member).optional()?)
        })
        .await
    }

    async fn erase(&self, id: &MemberId) -> Result<bool, Error> {
        let id = id.clone();
        self.write(move |db| Ok(db.prepare_cached("DELETE FROM members WHERE member_id = ?1")?.execute([id])? > 0))
            .await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.answers().await
    }
}

/// An update that finds nobody becomes the registration; both in one transaction of the one writer, so nobody comes
/// between.
fn sign_in(db: &Connection, who: &SignIn) -> Result<(Member, bool), Error> {
    // Absence says nothing: WeChat omits the unionid when it has no reason to tell it. Another one is the truth of
    // today: the app was moved to another Open Platform account, whose ids replace the old ones.
    let mut update = db.prepare_cached(
        "UPDATE members SET unionid = coalesce(:unionid, unionid), last_login_at = max(last_login_at, :at)
         WHERE appid = :appid AND openid = :openid RETURNING *",
    )?;
    let known = named_params! { ":appid": who.appid, ":openid": who.openid, ":unionid": who.unionid, ":at": who.at };
    if let Some(member) = update.query_row(known, member).optional()? {
        return Ok((member, false));
    }
    let mut insert = db.prepare_cached(
        "INSERT INTO members (member_id, appid, openid, unionid, created_at, last_login_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5) RETURNING *",
    )?;
    let member = insert.query_row((MemberId::new_v7(), &who.appid, &who.openid, &who.unionid, who.at), member)?;
    Ok((member, true))
}

fn member(row: &Row<'_>) -> rusqlite::Result<Member> {
    let roles: String = row.get("roles")?;
    let column = row.as_ref().column_index("roles")?;
    let roles = serde_json::from_str(&roles)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e)))?;
    Ok(Member {
        member_id: row.get("member_id")?,
        appid: row.get("appid")?,
        openid: row.get("openid")?,
        unionid: row.get("unionid")?,
        nickname: row.get("nickname")?,
        avatar_url: row.get("avatar_url")?,
        phone: row.get("phone")?,
        roles,
        banned: row.get("banned")?,
        created_at: row.get("created_at")?,
        last_login_at: row.get("last_login_at")?,
    })
}
