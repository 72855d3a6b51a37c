//! The far host: the database of members, and WeChat. A request is a piece of work that waits in this process; its number
//! travels through the network. So it may be lost on its way, or be done and its answer lost.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use turmoil::net::{TcpListener, TcpStream};

use crate::ids::{AppId, MemberId, OpenId};
use crate::store::{
    Error, HookAnswer, Identity, Member, MemberCursor, MemberFilter, MemberPage, Members, SignIn, SignedIn,
};
use crate::wechat;
use crate::wechat::client::played::Played;

use super::world::{FAR, World};

const PORT: u16 = 7000;

/// How long one request may take.
const ANSWER: Duration = Duration::from_secs(2);

/// One piece of work.
pub(super) type Request = Box<dyn FnOnce(&mut Far) + Send>;

/// What is kept there.
#[derive(Debug, Default)]
pub(super) struct Far {
    members: BTreeMap<MemberId, Member>,
    /// How often each code was shown to WeChat.
    exchanges: HashMap<String, u32>,
}

impl Far {
    fn change(&mut self, id: &MemberId, change: impl FnOnce(&mut Member)) -> Option<Member> {
        let member = self.members.get_mut(id)?;
        change(member);
        Some(member.clone())
    }

    /// Codes are `<user>.<n>` and good once.
    fn code2session(&mut self, code: &str) -> Value {
        let shown = self.exchanges.entry(code.to_owned()).or_default();
        *shown += 1;
        match (*shown, code.split_once('.')) {
            (1, Some((user, _))) => json!({ "openid": format!("o-{user}"), "session_key": "AAECAwQFBgcICQoLDA0ODw==" }),
            (1, None) => json!({ "errcode": 40029, "errmsg": "invalid code" }),
            _ => json!({ "errcode": 40163, "errmsg": "code been used" }),
        }
    }
}

/// Serves until the host crashes.
pub(super) async fn serve(world: Arc<World>) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let number = stream.read_u64().await?;
            let request = world.requests.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            if let Some(request) = request {
                request(&mut world.far.lock().unwrap_or_else(PoisonError::into_inner));
            }
            stream.write_u8(0).await
        });
    }
}

/// The way there.
#[derive(Clone)]
pub(super) struct Near(pub(super) Arc<World>);

impl fmt::Debug for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Near(…)")
    }
}

impl Near {
    async fn ask<T: Send + 'static>(&self, work: impl FnOnce(&mut Far) -> T + Send + 'static) -> io::Result<T> {
        let answer = Arc::new(Mutex::new(None));
        let (number, place) = (self.0.next(), Arc::clone(&answer));
        let request: Request =
            Box::new(move |far| *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(work(far)));
        self.0.requests.lock().unwrap_or_else(PoisonError::into_inner).insert(number, request);
        let sent = async {
            let mut stream = TcpStream::connect((FAR, PORT)).await?;
            stream.write_u64(number).await?;
            stream.read_u8().await
        };
        timeout(ANSWER, sent).await??;
        let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn change(
        &self,
        id: &MemberId,
        change: impl FnOnce(&mut Member) + Send + 'static,
    ) -> Result<Option<Member>, Error> {
        let id = id.clone();
        self.ask(move |far| far.change(&id, change)).await.map_err(away)
    }
}

fn away(error: io::Error) -> Error {
    Error::Unavailable(Box::new(error))
}

/// Nothing here asks for it.
fn not_played() -> Error {
    Error::Damaged("the simulation does not play this")
}

#[async_trait]
impl Members for Near {
    async fn sign_in(&self, who: SignIn) -> Result<SignedIn, Error> {
        let work = move |far: &mut Far| {
            let found = far.members.values_mut().find(|member| member.openid == who.openid);
            if let Some(member) = found {
                member.last_login_at = member.last_login_at.max(who.at);
                return SignedIn { member: member.clone(), is_new: false, merged: Vec::new() };
            }
            let member = Member {
                member_id: MemberId::parse(&format!("m-{}", who.openid.as_str())).unwrap(),
                appid: who.appid,
                openid: who.openid,
                unionid: None,
                nickname: String::new(),
                avatar_url: String::new(),
                phone: String::new(),
                roles: Vec::new(),
                hook: HookAnswer::default(),
                banned: false,
                ban_reason: String::new(),
                created_at: who.at,
                last_login_at: who.at,
            };
            far.members.insert(member.member_id.clone(), member.clone());
            SignedIn { member, is_new: true, merged: Vec::new() }
        };
        self.ask(work).await.map_err(away)
    }

    async fn find(&self, id: &MemberId) -> Result<Option<Member>, Error> {
        self.change(id, |_| ()).await
    }

    async fn identities(&self, id: &MemberId) -> Result<Vec<Identity>, Error> {
        let identity = |member: Member| {
            let Member { member_id, appid, openid, .. } = member;
            Identity { member_id, appid, openid }
        };
        Ok(self.find(id).await?.map(identity).into_iter().collect())
    }

    async fn set_roles(&self, id: &MemberId, roles: &[String]) -> Result<Option<Member>, Error> {
        let roles = roles.to_vec();
        self.change(id, |member| member.roles = roles).await
    }

    async fn set_ban(&self, id: &MemberId, reason: Option<&str>) -> Result<Option<Member>, Error> {
        let banned = reason.is_some();
        self.change(id, move |member| member.banned = banned).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.ask(|_| ()).await.map_err(away)
    }

    async fn set_profile(&self, _: &MemberId, _: Option<&str>, _: Option<&str>) -> Result<Option<Member>, Error> {
        Err(not_played())
    }

    async fn forget_profile(&self, _: &AppId, _: &OpenId) -> Result<Option<Member>, Error> {
        Err(not_played())
    }

    async fn set_phone(&self, _: &MemberId, _: &str) -> Result<Option<Member>, Error> {
        Err(not_played())
    }

    async fn set_hook(&self, _: &MemberId, _: &HookAnswer) -> Result<Option<Member>, Error> {
        Err(not_played())
    }

    async fn list(&self, _: &MemberFilter, _: Option<&MemberCursor>, _: u32) -> Result<MemberPage, Error> {
        Err(not_played())
    }

    async fn count(&self, _: &MemberFilter, _: u32) -> Result<u32, Error> {
        Err(not_played())
    }

    async fn erase(&self, _: &MemberId) -> Result<Vec<Identity>, Error> {
        Err(not_played())
    }
}

#[async_trait]
impl Played for Near {
    async fn get(&self, _: &str, query: &[(&str, &str)]) -> Result<Map<String, Value>, wechat::Error> {
        let code = query.iter().find(|(name, _)| *name == "js_code").map_or("", |(_, code)| code).to_owned();
        let answer = self.ask(move |far| far.code2session(&code)).await.map_err(|_| wechat::Error::Timeout)?;
        wechat::answer::parse(answer.to_string().as_bytes())
    }
}
