//! Members: who they are, and what a store of them must do.

use std::fmt::Debug;

use async_trait::async_trait;

use super::Error;
use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId, OpenId, UnionId, UserId};

/// A person who logged in with one app; with several, where members are merged by unionid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Our id of the member.
    pub member_id: MemberId,
    /// The app of the first login. In a list that was asked for by app or openid: the app that was found.
    pub appid: AppId,
    /// The person within that app.
    pub openid: OpenId,
    /// The person across apps, once WeChat told it; never overwritten by absence.
    pub unionid: Option<UnionId>,
    /// Empty until set.
    pub nickname: String,
    /// Empty until set.
    pub avatar_url: String,
    /// As WeChat tells it, with `+` and country code where it is foreign; empty until known. Masked wherever it is shown.
    pub phone: String,
    /// All roles, sorted: those that operators gave, and those of the login hook.
    pub roles: Vec<String>,
    /// What the login hook said at the newest login that asked it.
    pub hook: HookAnswer,
    /// Whether a ban is in force.
    pub banned: bool,
    /// Why, in an operator's words; empty when there is none, or none was given.
    pub ban_reason: String,
    /// First login.
    pub created_at: Timestamp,
    /// Newest login.
    pub last_login_at: Timestamp,
}

impl Member {
    /// The phone number with its middle hidden: `138****5678`. Short ones are hidden whole.
    pub fn masked_phone(&self) -> String {
        masked(&self.phone)
    }
}

fn masked(phone: &str) -> String {
    let chars: Vec<char> = phone.chars().collect();
    match chars.len() {
        0 => String::new(),
        n if n < 8 => "*".repeat(n),
        n => chars.iter().enumerate().map(|(i, c)| if i >= n - 8 && i < n - 4 { '*' } else { *c }).collect(),
    }
}

/// What the business service said of a member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HookAnswer {
    /// Roles beside those that operators give, sorted.
    pub roles: Vec<String>,
    /// The service's own id of the person.
    pub user_id: Option<UserId>,
    /// A JSON object for the member's tokens, as text; empty for none.
    pub claims: String,
}

/// What a login knows of a person.
#[derive(Debug, Clone)]
pub struct SignIn {
    /// The app.
    pub appid: AppId,
    /// The person within it.
    pub openid: OpenId,
    /// When WeChat told it.
    pub unionid: Option<UnionId>,
    /// Now.
    pub at: Timestamp,
    /// Whether all who have one unionid are one member.
    pub merge: bool,
}

/// What a sign-in led to.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// The member.
    pub member: Member,
    /// Whether this was the member's first login.
    pub is_new: bool,
    /// Members that stood on their own until now and have become aliases of this one.
    pub merged: Vec<MemberId>,
}

/// One of the ways in which a member is known: an app, the openid there, and the id that was made for the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The member's own id, or an alias: sessions of before the merge carry it.
    pub member_id: MemberId,
    /// The app.
    pub appid: AppId,
    /// The person within it.
    pub openid: OpenId,
}

/// Which members are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberFilter {
    /// All.
    All,
    /// Who has logged in with this app.
    App(AppId),
    /// Who has this role.
    Role(String),
    /// Who is banned.
    Banned,
    /// Who has this openid, in any app.
    OpenId(OpenId),
    /// Who has this unionid: one for each app, or each app of the one member.
    UnionId(UnionId),
    /// Who has this phone number, as it is stored.
    Phone(String),
    /// Whose nickname begins so, ASCII letters in either case. Sorted by nickname; all others newest first.
    Nickname(String),
}

/// Where the next page of members begins; a store makes it, the caller gives it back with the same filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberCursor {
    /// Folded, of the last one; empty where the order is another.
    pub nickname: String,
    /// Of the last one: its own id, or the alias that was found.
    pub member_id: MemberId,
}

/// Members, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberPage {
    /// At most as many as were asked for.
    pub members: Vec<Member>,
    /// `None` when there are no more.
    pub next: Option<MemberCursor>,
}

/// Members, by id and by (appid, openid).
///
/// *Aliases.* Where [`SignIn::merge`] is set, all who have one unionid are one member: the one who registered first keeps
/// his id, the others' ids become aliases of it. Every call that takes an id or a person takes an alias for the member that
/// it stands for, for good, whether merging is still on or not. A chain of aliases never forms.
#[async_trait]
pub trait Members: Send + Sync + Debug {
    /// Registers the person at the first login, else notes the login and the unionid if one is told; one that differs
    /// replaces the old one (the app was moved to another Open Platform account). Of concurrent first logins of one person
    /// exactly one is new, and all get the same member id; so do concurrent logins in two apps that are merged.
    ///
    /// A merge keeps the survivor's nickname, avatar, phone and user id where set, else takes the other's; roles are put
    /// together; a ban of either is a ban of the member.
    async fn sign_in(&self, who: SignIn) -> Result<SignedIn, Error>;

    /// The member of this id or alias.
    async fn find(&self, id: &MemberId) -> Result<Option<Member>, Error>;

    /// Every app and openid of this member, aliases included, the member's own first; empty when there is no such member.
    async fn identities(&self, id: &MemberId) -> Result<Vec<Identity>, Error>;

    /// Sets nickname and avatar where given. `None` when there is no such member.
    async fn set_profile(
        &self,
        id: &MemberId,
        nickname: Option<&str>,
        avatar_url: Option<&str>,
    ) -> Result<Option<Member>, Error>;

    /// Empties nickname, avatar and phone of this person. Returns the member as it is now; `None` when there is none.
    async fn forget_profile(&self, appid: &AppId, openid: &OpenId) -> Result<Option<Member>, Error>;

    /// Sets the phone number. `None` when there is no such member.
    async fn set_phone(&self, id: &MemberId, phone: &str) -> Result<Option<Member>, Error>;

    /// Sets the roles that operators give, in place of those before; those of the login hook stay. `None` when there is no
    /// such member.
    async fn set_roles(&self, id: &MemberId, roles: &[String]) -> Result<Option<Member>, Error>;

    /// Keeps what the login hook said, in place of what it said before. `None` when there is no such member.
    async fn set_hook(&self, id: &MemberId, answer: &HookAnswer) -> Result<Option<Member>, Error>;

    /// Bans the member for this reason (which may be empty), or lifts the ban. `None` when there is no such member.
    async fn set_ban(&self, id: &MemberId, reason: Option<&str>) -> Result<Option<Member>, Error>;

    /// At most `limit` members, after those of the pages before. What is registered or erased meanwhile may be seen or not;
    /// nobody who was there all the time is missed or seen twice. Costs the same on the last page as on the first.
    async fn list(&self, filter: &MemberFilter, after: Option<&MemberCursor>, limit: u32) -> Result<MemberPage, Error>;

    /// How many there are, counted no further than `at_most`.
    async fn count(&self, filter: &MemberFilter, at_most: u32) -> Result<u32, Error>;

    /// Erases the member's record with all its aliases (and, where the same store holds them, nothing else). Returns all that went,
    /// those included of whom nobody knew a moment before; none when there was no member.
    async fn erase(&self, id: &MemberId) -> Result<Vec<Identity>, Error>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_number_is_shown_without_its_middle() {
        for (phone, shown) in
            [("", ""), ("13812345678", "138****5678"), ("+14155550123", "+141****0123"), ("1234", "****")]
        {
            assert_eq!(masked(phone), shown);
        }
    }
}
