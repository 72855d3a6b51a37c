//! Lists of members: each question has an index that holds its order, so that every page costs the same.

use deadpool_postgres::GenericClient;
use tokio_postgres::types::ToSql;

use super::members::find;
use super::row::{alias_of, member};
use crate::store::{Error, Member, MemberCursor, MemberFilter, MemberPage};

/// After every member id, and after every nickname of the same beginning.
const PAST_IDS: &str = "\u{7f}";
const PAST_TEXTS: char = '\u{10ffff}';

/// `$1` is where the last page ended, `$2` what is asked for; newest first.
const ALL: &str = "FROM members WHERE member_id < $1 AND alias_of IS NULL ORDER BY member_id DESC";
const BANNED: &str = "FROM members WHERE banned AND member_id < $1 ORDER BY member_id DESC";
const APP: &str = "FROM members WHERE appid = $2 AND member_id < $1 ORDER BY member_id DESC";
const OPENID: &str = "FROM members WHERE openid = $2 AND member_id < $1 ORDER BY member_id DESC";
const UNIONID: &str = "FROM members WHERE unionid = $2 AND member_id < $1 ORDER BY member_id DESC";
const PHONE: &str = "FROM members WHERE phone = $2 AND phone <> '' AND member_id < $1 ORDER BY member_id DESC";
const ROLE: &str = "FROM member_roles r JOIN members m ON m.member_id = r.member_id
    WHERE r.role = $2 AND r.member_id < $1 ORDER BY r.member_id DESC";
/// `$1` and `$2`: where the last page ended, `$3`: past the last nickname. By nickname.
const NICKNAME: &str = "FROM members WHERE (nickname_folded, member_id) > ($2, $1) AND nickname_folded < $3
    AND nickname <> '' ORDER BY nickname_folded, member_id";

/// One page, and where the next one begins.
pub(super) async fn page(
    db: &impl GenericClient,
    filter: &MemberFilter,
    after: Option<&MemberCursor>,
    limit: u32,
) -> Result<MemberPage, Error> {
    let question = Question::of(filter, after);
    let columns = if question.from == ROLE { "m.*" } else { "*" };
    // The limit is part of the text: so few different ones are asked for that the statements stay prepared.
    let sql = format!("SELECT {columns} {} LIMIT {}", question.from, u64::from(limit) + 1);
    let query = db.prepare_cached(&sql).await?;
    let mut rows = db.query(&query, &question.values()).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let mut members = Vec::with_capacity(rows.len());
    let mut next = None;
    for row in &rows {
        let found = member(row)?;
        next = Some(MemberCursor {
            nickname: if question.from == NICKNAME { found.nickname.to_ascii_lowercase() } else { String::new() },
            member_id: found.member_id.clone(),
        });
        // The member whose alias a row is, under the app and the openid that were found.
        let own = match alias_of(row)? {
            Some(own) => find(db, &own).await?,
            None => None,
        };
        members.push(match own {
            Some(own) => Member { appid: found.appid, openid: found.openid, ..own },
            None => found,
        });
    }
    Ok(MemberPage { members, next: next.filter(|_| more) })
}

/// How many, up to `at_most`.
pub(super) async fn count(db: &impl GenericClient, filter: &MemberFilter, at_most: u32) -> Result<u32, Error> {
    let question = Question::of(filter, None);
    let sql = format!("SELECT count(*) FROM (SELECT 1 {} LIMIT {at_most}) AS found", question.from);
    let query = db.prepare_cached(&sql).await?;
    let counted: i64 = db.query_one(&query, &question.values()).await?.try_get(0)?;
    Ok(u32::try_from(counted).unwrap_or(u32::MAX))
}

struct Question {
    from: &'static str,
    values: Vec<String>,
}

impl Question {
    fn of(filter: &MemberFilter, after: Option<&MemberCursor>) -> Self {
        let (from, subject) = match filter {
            MemberFilter::All => (ALL, None),
            MemberFilter::Banned => (BANNED, None),
            MemberFilter::App(appid) => (APP, Some(appid.as_str())),
            MemberFilter::Role(role) => (ROLE, Some(role.as_str())),
            MemberFilter::OpenId(openid) => (OPENID, Some(openid.as_str())),
            MemberFilter::UnionId(unionid) => (UNIONID, Some(unionid.as_str())),
            MemberFilter::Phone(phone) => (PHONE, Some(phone.as_str())),
            MemberFilter::Nickname(prefix) => {
                let prefix = prefix.to_ascii_lowercase().replace('\0', "");
                let (nickname, id) = match after {
                    Some(last) => (last.nickname.clone(), last.member_id.as_str().to_owned()),
                    None => (prefix.clone(), String::new()),
                };
                return Self { from: NICKNAME, values: vec![id, nickname, format!("{prefix}{PAST_TEXTS}")] };
            }
        };
        let after = after.map_or(PAST_IDS, |last| last.member_id.as_str());
        let subject = subject.map(|subject| subject.replace('\0', ""));
        Self { from, values: [after.to_owned()].into_iter().chain(subject).collect() }
    }

    fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(|text| text as &(dyn ToSql + Sync)).collect()
    }
}
