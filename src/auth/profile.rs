//! `POST /auth/profile`: what `wx.getUserProfile` gave, verified, decrypted and stored on the member.
//!
//! Since 2022 WeChat gives most clients a placeholder for name and picture. Those are nobody's name: they are not stored,
//! so that they never stand in place of what the member has set.

use std::sync::Arc;

use axum::extract::State;
use http::Response;
use serde_json::{Map, Value};

use crate::body::Body;
use crate::ids::{MemberId, UnionId};
use crate::problem::{Code, Problem};
use crate::store::Member;
use crate::wechat::open_data::Owner;

use super::Auth;
use super::answer::{self, MemberView};
use super::call::Call;
use super::member::{MAX_NICKNAME, is_web_url};
use super::session_keys;
use super::user_data::{UserData, Verified};

/// The name of everybody who has not chosen one.
const ANONYMOUS_NAME: &str = "微信用户";

/// In the address of the grey picture that comes with it.
const ANONYMOUS_AVATAR: &str =
    "/POgEwh4mIHO4nibH0KlMECNjjGxQUq24ZEaGT4poC6icRiccVGKSyXwibcPq4BWmiaIGuG1icwxaQX6grC9VemZoJ8rg/";

/// What is taken of a profile. Decoration: WeChat vouches that it is the user's, not that it is true.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    nickname: Option<String>,
    avatar_url: Option<String>,
    /// The person across apps, where the app has no other way to learn it.
    pub(super) unionid: Option<UnionId>,
}

impl Profile {
    /// Of what was encrypted; else of what was signed.
    pub(super) fn of(verified: &Verified) -> Self {
        verified.data.as_ref().or(verified.raw.as_ref()).map(Self::read).unwrap_or_default()
    }

    fn read(data: &Map<String, Value>) -> Self {
        let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
        Self::new(text("nickName"), text("avatarUrl"), UnionId::parse(text("unionId")).ok())
    }

    /// What is worth keeping of these: no placeholders, no addresses that are none.
    pub(super) fn new(nickname: &str, avatar_url: &str, unionid: Option<UnionId>) -> Self {
        let nickname: String = nickname.chars().filter(|c| !c.is_control()).take(MAX_NICKNAME).collect();
        let anonymous = nickname == ANONYMOUS_NAME;
        let real_avatar =
            !anonymous && !avatar_url.is_empty() && !avatar_url.contains(ANONYMOUS_AVATAR) && is_web_url(avatar_url);
        Self {
            nickname: (!anonymous && !nickname.trim().is_empty()).then_some(nickname),
            avatar_url: real_avatar.then(|| avatar_url.to_owned()),
            unionid,
        }
    }

    /// Whether there is nothing to store.
    pub(super) const fn is_empty(&self) -> bool {
        self.nickname.is_none() && self.avatar_url.is_none()
    }

    /// Stores it on the member; `None` when there is no such member.
    pub(super) async fn store(&self, auth: &Auth, member: &MemberId) -> Result<Option<Member>, Problem> {
        if self.is_empty() {
            return Ok(auth.members.find(member).await?);
        }
        let stored = auth.members.set_profile(member, self.nickname.as_deref(), self.avatar_url.as_deref());
        Ok(stored.await?)
    }
}

/// The handler.
pub async fn profile(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let made = handle(&auth, &call).await;
    call.answer(made)
}

async fn handle(auth: &Arc<Auth>, call: &Call) -> Result<Response<Body>, Problem> {
    let asker = session_keys::asker(auth, call).await?;
    let shown = UserData::of(call)?;
    if !shown.is_signed() || !shown.is_encrypted() {
        let detail = "Send `rawData`, `signature`, `encryptedData` and `iv` as wx.getUserProfile gave them.";
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    session_keys::renew(auth, &asker, call).await?;
    let session = &asker.session;
    let keys = session_keys::needed(auth, &session.appid, &session.openid).await?;
    let owner = Owner { appid: &session.appid, openid: &session.openid };
    let verified = shown.verify(&keys, &owner, auth.clock.now())?;
    let member = Profile::of(&verified).store(auth, &session.member_id).await?.ok_or_else(Problem::token_revoked)?;
    answer::json(&MemberView::of(&member, session))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> (Option<String>, Option<String>) {
        let profile = Profile::read(value.as_object().unwrap());
        (profile.nickname, profile.avatar_url)
    }

    #[test]
    fn name_and_picture_are_taken_and_nothing_else() {
        let data = json!({"nickName": "Band", "avatarUrl": "http://wx.qlogo.cn/a/0", "gender": 1, "city": "x"});
        assert_eq!(read(&data), (Some("Band".to_owned()), Some("http://wx.qlogo.cn/a/0".to_owned())));
    }

    #[test]
    fn placeholders_are_nobodys_name_and_picture() {
        let grey = format!("https://thirdwx.qlogo.cn/mmopen/vi_32{ANONYMOUS_AVATAR}132");
        assert_eq!(read(&json!({"nickName": ANONYMOUS_NAME, "avatarUrl": grey})), (None, None));
        assert_eq!(read(&json!({"nickName": ANONYMOUS_NAME, "avatarUrl": "https://another/grey"})), (None, None));
        assert_eq!(read(&json!({"nickName": "Band", "avatarUrl": grey})), (Some("Band".to_owned()), None));
    }

    #[test]
    fn what_is_no_name_and_no_address_is_left_out() {
        for data in [json!({}), json!({"nickName": "", "avatarUrl": ""}), json!({"nickName": 7, "avatarUrl": []})] {
            assert_eq!(read(&data), (None, None));
        }
        assert_eq!(read(&json!({"nickName": "a\u{0}b\r\n", "avatarUrl": "javascript:x"})), (Some("ab".into()), None));
        assert_eq!(read(&json!({"nickName": "n".repeat(1000)})).0.unwrap().len(), MAX_NICKNAME);
    }
}
