//! From a person whom WeChat has named to a session: sign-in, ban, profile, roles, hook, and the session itself.
//!
//! Where members and sessions are in one database, most people need one transaction for all of it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Setbacks};
use crate::ids::{AppId, MemberId, OpenId, SessionId};
use crate::problem::{Code, Problem};
use crate::store::joint::{Joint, Opened};
use crate::store::{CodeHash, Member, NewSession, RefreshHash, SealedKey, Session, SignIn, SignedIn};
use crate::token::refresh::RefreshSecret;
use crate::token::revocation::Revocations;

use super::Auth;
use super::login::{CODE_MEMORY, LoggedIn};
use super::profile::Profile;
use super::welcome::{Written, still_welcome};

/// What a session is opened for, and on which terms. It goes to the store: with the whole of [`Auth`] in its hands the store would
/// hold itself.
#[derive(Debug, Clone)]
struct Opening {
    appid: AppId,
    openid: OpenId,
    code: CodeHash,
    /// A web login has none.
    session_key: Option<SealedKey>,
    clock: Clock,
    setbacks: Arc<Setbacks>,
    revocations: Arc<Revocations>,
    refresh: RefreshSecret,
    session_ttl: Duration,
    refresh_ttl: Duration,
    access_life: Duration,
    max_sessions: Option<NonZeroU32>,
}

/// Registers or finds the person, and opens a session, unless they are banned or the login hook refuses. What is there when this
/// returns is on disk.
///
/// # Errors
/// `member_banned`, `store_unavailable`, and those of the hook.
pub(super) async fn admit(
    auth: &Arc<Auth>,
    person: SignIn,
    profile: &Profile,
    code: CodeHash,
    session_key: Option<SealedKey>,
) -> Result<LoggedIn, Problem> {
    let opening = Opening::new(auth, &person, code, session_key);
    let signed_in = match auth.joint.as_deref() {
        // With a hook to ask or a profile to write there is something in between.
        Some(joint) if auth.hook.is_none() && profile.is_empty() => {
            match at_once(auth, joint, person, &opening).await? {
                Ok(logged_in) => return Ok(logged_in),
                Err(signed_in) => signed_in,
            }
        }
        _ => auth.members.sign_in(person).await?,
    };
    auth.merged(&signed_in).await?;
    let SignedIn { member, is_new, .. } = signed_in;
    if member.banned {
        return Err(Problem::new(Code::MemberBanned, "This member may not log in."));
    }
    let own = member.member_id.clone();
    // Of an alias it is the unionid of its own login, and of the others none.
    let is_whole = profile.is_empty() && opening.is_of(&member);
    let member = if is_whole { member } else { profile.store(auth, &own).await?.unwrap_or(member) };
    let member = auth.with_roles_in_force(member, &own).await?;
    let member = auth.ask_hook(member, is_new, (&opening.appid, &opening.openid)).await?;
    let new = opening.session(&member.member_id, is_new);
    let ended = auth.settled(auth.sessions.open(new.clone())).await?;
    let opened = Opened { new, ended };
    note_ended(auth, &opened);
    still_welcome(auth, &opened.new.session, Written::Session).await?;
    Ok(LoggedIn::new(auth, member, opened.new))
}

/// Signs in and opens the session in one transaction; who has signed in, where more than a session follows.
async fn at_once(
    auth: &Arc<Auth>,
    joint: &dyn Joint,
    person: SignIn,
    opening: &Opening,
) -> Result<Result<LoggedIn, SignedIn>, Problem> {
    let grant = {
        let opening = opening.clone();
        move |signed_in: &SignedIn| {
            let SignedIn { member, is_new, .. } = signed_in;
            opening.suffices(signed_in).then(|| opening.session(&member.member_id, *is_new))
        }
    };
    let written = joint.log_in(person, Box::new(grant));
    // Where sessions make room for each other it may end some.
    let written = if auth.max_sessions.is_some() { auth.settled(written).await } else { written.await };
    let (signed_in, opened) = written?;
    let Some(opened) = opened else { return Ok(Err(signed_in)) };
    note_ended(auth, &opened);
    // Nobody has banned or erased the person in between: whoever does it now finds the session.
    Ok(Ok(LoggedIn::new(auth, signed_in.member, opened.new)))
}

/// Sessions that ended to make room are over here, too.
fn note_ended(auth: &Auth, Opened { new, ended }: &Opened) {
    for oldest in ended {
        auth.revocations.revoke_session(oldest, new.access_until);
        auth.metrics.logouts.inc();
    }
}

impl Opening {
    fn new(auth: &Auth, person: &SignIn, code: CodeHash, session_key: Option<SealedKey>) -> Self {
        Self {
            appid: person.appid.clone(),
            openid: person.openid.clone(),
            code,
            session_key,
            clock: auth.clock.clone(),
            setbacks: Arc::clone(&auth.setbacks),
            revocations: Arc::clone(&auth.revocations),
            refresh: auth.refresh.clone(),
            session_ttl: auth.section.session_ttl,
            refresh_ttl: auth.section.refresh_ttl,
            access_life: auth.access_life(),
            max_sessions: auth.max_sessions,
        }
    }

    /// Whether the member is known by this very login, and not by another one of which this is an alias.
    fn is_of(&self, member: &Member) -> bool {
        member.appid == self.appid && member.openid == self.openid
    }

    /// Whether a session is all that follows: no ban, no alias, and no roles of which somebody has to be told.
    fn suffices(&self, SignedIn { member, merged, .. }: &SignedIn) -> bool {
        let told = self.revocations.roles().of(&member.member_id);
        let plain = !member.banned && merged.is_empty() && self.is_of(member);
        plain && member.roles.is_empty() && told.is_none_or(|roles| roles.is_empty())
    }

    /// The session of this member, from now on.
    fn session(&self, member: &MemberId, is_new: bool) -> NewSession {
        self.setbacks.look(&self.clock);
        let now = self.clock.now();
        let at = self.revocations.earliest_login(member, &self.appid, now);
        let session = Session {
            session_id: SessionId::new_v7(at),
            member_id: member.clone(),
            // Of this login: a member who was merged has several.
            appid: self.appid.clone(),
            openid: self.openid.clone(),
            created_at: at,
            expires_at: now.plus(self.session_ttl),
        };
        NewSession {
            refresh: RefreshHash(self.refresh.first(&session.session_id).hash()),
            refresh_expires_at: now.plus(self.refresh_ttl).min(session.expires_at),
            code: self.code,
            code_expires_at: now.plus(CODE_MEMORY),
            is_new,
            session_key: self.session_key.clone(),
            access_until: now.plus(self.access_life),
            max_sessions: self.max_sessions,
            session,
        }
    }
}
