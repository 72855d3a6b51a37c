//! Lists of members: each question has an index that holds its order, so that every page costs the same.

use rusqlite::{Connection, Row, ToSql};

use super::member_row::{find, member};
use crate::ids::MemberId;
use crate::store::{Member, MemberCursor, MemberFilter, MemberPage};

/// After every member id, and after every nickname of the same beginning.
const PAST_IDS: &str = "\u{7f}";
const PAST_TEXTS: char = '\u{10ffff}';

/// `?1` is what is asked for, `?2` where the last page ended; newest first.
const ALL: &str = "FROM members WHERE ?1 IS NULL AND member_id < ?2 AND alias_of IS NULL ORDER BY member_id DESC";
const BANNED: &str = "FROM members WHERE ?1 IS NULL AND banned = 1 AND member_id < ?2 ORDER BY member_id DESC";
const APP: &str = "FROM members WHERE appid = ?1 AND member_id < ?2 ORDER BY member_id DESC";
const OPENID: &str = "FROM members WHERE openid = ?1 AND member_id < ?2 ORDER BY member_id DESC";
const UNIONID: &str = "FROM members WHERE unionid = ?1 AND member_id < ?2 ORDER BY member_id DESC";
const PHONE: &str = "FROM members WHERE phone = ?1 AND phone <> '' AND member_id < ?2 ORDER BY member_id DESC";
// CROSS JOIN keeps the order of the tables: first the role, then its members.
const ROLE: &str = "FROM member_roles r CROSS JOIN members m ON m.member_id = r.member_id
    WHERE r.role = ?1 AND r.member_id < ?2 ORDER BY r.member_id DESC";
/// `?1`: past the last nickname; `?2` and `?3`: where the last page ended. By nickname.
const NICKNAME: &str = "FROM members WHERE (nickname_folded, member_id) > (?2, ?3) AND nickname_folded < ?1
    AND nickname <> '' ORDER BY nickname_folded, member_id";

/// Every form of question, for the test that asks SQLite for its plans.
#[cfg(test)]
pub(super) const QUESTIONS: [&str; 8] = [ALL, BANNED, APP, OPENID, UNIONID, PHONE, ROLE, NICKNAME];

/// One page, and where the next one begins.
pub(super) fn page(
    db: &Connection,
    filter: &MemberFilter,
    after: Option<&MemberCursor>,
    limit: u32,
) -> rusqlite::Result<MemberPage> {
    let question = Question::of(filter, after);
    let columns = if question.from == ROLE { "m.*" } else { "*" };
    let mut query =
        db.prepare_cached(&format!("SELECT {columns} {} LIMIT {}", question.from, limit.saturating_add(1)))?;
    let rows = query.query_map(question.values().as_slice(), |row: &Row<'_>| {
        Ok((row.get::<_, Option<MemberId>>("alias_of")?, member(row)?))
    })?;
    let mut rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|(_, last)| MemberCursor {
        nickname: if question.from == NICKNAME { last.nickname.to_ascii_lowercase() } else { String::new() },
        member_id: last.member_id.clone(),
    });
    let members = rows.into_iter().map(|(own, row)| resolved(db, own, row)).collect::<rusqlite::Result<_>>()?;
    Ok(MemberPage { members, next })
}

/// How many, up to `at_most`.
pub(super) fn count(db: &Connection, filter: &MemberFilter, at_most: u32) -> rusqlite::Result<u32> {
    let question = Question::of(filter, None);
    let mut query = db.prepare_cached(&format!("SELECT count(*) FROM (SELECT 1 {} LIMIT {at_most})", question.from))?;
    query.query_row(question.values().as_slice(), |row| row.get(0))
}

struct Question {
    from: &'static str,
    subject: Option<String>,
    after: Vec<String>,
}

impl Question {
    fn of(filter: &MemberFilter, after: Option<&MemberCursor>) -> Self {
        let (from, subject) = match filter {
            MemberFilter::All => (ALL, None),
            MemberFilter::Banned => (BANNED, None),
            MemberFilter::App(appid) => (APP, Some(appid.as_str().to_owned())),
            MemberFilter::Role(role) => (ROLE, Some(role.clone())),
            MemberFilter::OpenId(openid) => (OPENID, Some(openid.as_str().to_owned())),
            MemberFilter::UnionId(unionid) => (UNIONID, Some(unionid.as_str().to_owned())),
            MemberFilter::Phone(phone) => (PHONE, Some(phone.clone())),
            MemberFilter::Nickname(prefix) => {
                let prefix = prefix.to_ascii_lowercase();
                let after = match after {
                    Some(last) => vec![last.nickname.clone(), last.member_id.as_str().to_owned()],
                    None => vec![prefix.clone(), String::new()],
                };
                return Self { from: NICKNAME, subject: Some(format!("{prefix}{PAST_TEXTS}")), after };
            }
        };
        let after = after.map_or(PAST_IDS, |last| last.member_id.as_str()).to_owned();
        Self { from, subject, after: vec![after] }
    }

    fn values(&self) -> Vec<&dyn ToSql> {
        let mut values: Vec<&dyn ToSql> = vec![&self.subject];
        values.extend(self.after.iter().map(|text| text as &dyn ToSql));
        values
    }
}

/// The member whose alias a row is, under the app and the openid that were found.
fn resolved(db: &Connection, own: Option<MemberId>, row: Member) -> rusqlite::Result<Member> {
    match own.map(|own| find(db, &own)).transpose()?.flatten() {
        Some(found) => Ok(Member { appid: row.appid, openid: row.openid, ..found }),
        None => Ok(row),
    }
}
