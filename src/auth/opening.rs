//! From a person whom WeChat has named to a session: sign-in, ban, profile, roles, hook, and the session itself.
//!
//! Where members and sessions are in one database, most people need one transaction for all of it.

use std::sync::Arc;

use crate::ids::{AppId, MemberId, OpenId, SessionId};
use crate::problem::{Code, Problem};
use crate::store::joint::{Joint, Opened};
use crate::store::{CodeHash, NewSession, RefreshHash, SealedKey, Session, SignIn, SignedIn};

use super::Auth;
use super::login::{CODE_MEMORY, LoggedIn};
use super::profile::Profile;
use super::welcome::{Written, still_welcome};

/// What a session is opened for.
#[derive(Debug, Clone)]
struct Opening {
    appid: AppId,
    openid: OpenId,
    code: CodeHash,
    /// A web login has none.
    session_key: Option<SealedKey>,
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
    let opening = Opening { appid: person.appid.clone(), openid: person.openid.clone(), code, session_key };
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
    let member = if profile.is_empty() { member } else { profile.store(auth, &own).await?.unwrap_or(member) };
    let member = auth.with_roles_in_force(member, &own).await?;
    let member = auth.ask_hook(member, is_new, (&opening.appid, &opening.openid)).await?;
    let new = opening.session(auth, &member.member_id, is_new);
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
        let (auth, opening) = (Arc::clone(auth), opening.clone());
        move |signed_in: &SignedIn| {
            let SignedIn { member, is_new, .. } = signed_in;
            nothing_else_follows(&auth, signed_in).then(|| opening.session(&auth, &member.member_id, *is_new))
        }
    };
    let (signed_in, opened) = auth.settled(joint.log_in(person, Box::new(grant))).await?;
    let Some(opened) = opened else { return Ok(Err(signed_in)) };
    note_ended(auth, &opened);
    // Nobody has banned or erased the person in between: whoever does it now finds the session.
    Ok(Ok(LoggedIn::new(auth, signed_in.member, opened.new)))
}

/// The person is not banned, and has no roles of which somebody has to be told.
fn nothing_else_follows(auth: &Auth, SignedIn { member, merged, .. }: &SignedIn) -> bool {
    let told = auth.revocations.roles().of(&member.member_id);
    !member.banned && merged.is_empty() && member.roles.is_empty() && told.is_none_or(|roles| roles.is_empty())
}

/// Sessions that ended to make room are over here, too.
fn note_ended(auth: &Auth, Opened { new, ended }: &Opened) {
    for oldest in ended {
        auth.revocations.revoke_session(oldest, new.access_until);
        auth.metrics.logouts.inc();
    }
}

impl Opening {
    /// The session of this member, from now on.
    fn session(&self, auth: &Auth, member: &MemberId, is_new: bool) -> NewSession {
        auth.setbacks.look(&auth.clock);
        let now = auth.clock.now();
        let at = auth.revocations.earliest_login(member, &self.appid, now);
        let session = Session {
            session_id: SessionId::new_v7(at),
            member_id: member.clone(),
            // Of this login: a member who was merged has several.
            appid: self.appid.clone(),
            openid: self.openid.clone(),
            created_at: at,
            expires_at: now.plus(auth.section.session_ttl),
        };
        NewSession {
            refresh: RefreshHash(auth.refresh.first(&session.session_id).hash()),
            refresh_expires_at: now.plus(auth.section.refresh_ttl).min(session.expires_at),
            code: self.code,
            code_expires_at: now.plus(CODE_MEMORY),
            is_new,
            session_key: self.session_key.clone(),
            access_until: auth.access_until(now),
            max_sessions: auth.max_sessions,
            session,
        }
    }
}
