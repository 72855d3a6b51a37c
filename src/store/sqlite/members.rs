//! [`Members`] in SQLite. Sign-in with its merges, and lists, have files of their own.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, ToSql};

use super::member_row::{self, member};
use super::{Sqlite, member_list, sign_in};
use crate::ids::{AppId, MemberId, OpenId};
use crate::store::{
    Error, HookAnswer, Identity, Member, MemberCursor, MemberFilter, MemberPage, Members, SignIn, SignedIn,
};

#[async_trait]
impl Members for Sqlite {
    async fn sign_in(&self, who: SignIn) -> Result<SignedIn, Error> {
        self.write(move |db| Ok(sign_in::sign_in(db, &who)?)).await
    }

    async fn find(&self, id: &MemberId) -> Result<Option<Member>, Error> {
        let id = id.clone();
        self.read(move |db| Ok(member_row::find(db, &id)?)).await
    }

    async fn identities(&self, id: &MemberId) -> Result<Vec<Identity>, Error> {
        let id = id.clone();
        self.read(move |db| {
            let Some(own) = member_row::own_id(db, &id)? else { return Ok(Vec::new()) };
            Ok(member_row::identities(db, &own)?)
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
        let set = "nickname = coalesce(?2, nickname), avatar_url = coalesce(?3, avatar_url)";
        self.write(move |db| update(db, &id, set, &[&nickname, &avatar_url])).await
    }

    async fn forget_profile(&self, appid: &AppId, openid: &OpenId) -> Result<Option<Member>, Error> {
        let (appid, openid) = (appid.clone(), openid.clone());
        self.write(move |db| {
            let mut query = db.prepare_cached("SELECT member_id FROM members WHERE appid = ?1 AND openid = ?2")?;
            let id: Option<MemberId> = query.query_row((&appid, &openid), |row| row.get(0)).optional()?;
            let Some(id) = id else { return Ok(None) };
            update(db, &id, "nickname = '', avatar_url = '', phone = ''", &[])
        })
        .await
    }

    async fn set_phone(&self, id: &MemberId, phone: &str) -> Result<Option<Member>, Error> {
        let (id, phone) = (id.clone(), phone.to_owned());
        self.write(move |db| update(db, &id, "phone = ?2", &[&phone])).await
    }

    async fn set_roles(&self, id: &MemberId, roles: &[String]) -> Result<Option<Member>, Error> {
        let (id, roles) = (id.clone(), member_row::roles_text(roles));
        self.write(move |db| with_roles(db, update(db, &id, "roles = ?2", &[&roles])?)).await
    }

    async fn set_hook(&self, id: &MemberId, answer: &HookAnswer) -> Result<Option<Member>, Error> {
        let (id, roles, answer) = (id.clone(), member_row::roles_text(&answer.roles), answer.clone());
        let set = "hook_roles = ?2, user_id = ?3, claims = ?4";
        self.write(move |db| with_roles(db, update(db, &id, set, &[&roles, &answer.user_id, &answer.claims])?)).await
    }

    async fn set_ban(&self, id: &MemberId, reason: Option<&str>) -> Result<Option<Member>, Error> {
        let (id, banned, reason) = (id.clone(), reason.is_some(), reason.unwrap_or_default().to_owned());
        self.write(move |db| update(db, &id, "banned = ?2, ban_reason = ?3", &[&banned, &reason])).await
    }

    async fn list(&self, filter: &MemberFilter, after: Option<&MemberCursor>, limit: u32) -> Result<MemberPage, Error> {
        let (filter, after) = (filter.clone(), after.cloned());
        self.read(move |db| Ok(member_list::page(db, &filter, after.as_ref(), limit)?)).await
    }

    async fn count(&self, filter: &MemberFilter, at_most: u32) -> Result<u32, Error> {
        let filter = filter.clone();
        self.read(move |db| Ok(member_list::count(db, &filter, at_most)?)).await
    }

    async fn erase(&self, id: &MemberId) -> Result<Vec<Identity>, Error> {
        let id = id.clone();
        self.write(move |db| {
            let Some(own) = member_row::own_id(db, &id)? else { return Ok(Vec::new()) };
            let all = member_row::identities(db, &own)?;
            db.prepare_cached("DELETE FROM member_roles WHERE member_id = ?1")?.execute([&own])?;
            db.prepare_cached("DELETE FROM members WHERE alias_of = ?1")?.execute([&own])?;
            db.prepare_cached("DELETE FROM members WHERE member_id = ?1")?.execute([&own])?;
            Ok(all)
        })
        .await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.answers().await
    }
}

/// Sets columns of the member of this id or alias; the values are `?2` and so on.
fn update(db: &Connection, id: &MemberId, set: &str, values: &[&dyn ToSql]) -> Result<Option<Member>, Error> {
    let Some(own) = member_row::own_id(db, id)? else { return Ok(None) };
    let mut update = db.prepare_cached(&format!("UPDATE members SET {set} WHERE member_id = ?1 RETURNING *"))?;
    let mut all: Vec<&dyn ToSql> = vec![&own];
    all.extend_from_slice(values);
    Ok(update.query_row(all.as_slice(), member).optional()?)
}

fn with_roles(db: &Connection, changed: Option<Member>) -> Result<Option<Member>, Error> {
    if let Some(member) = &changed {
        member_row::index_roles(db, member)?;
    }
    Ok(changed)
}
