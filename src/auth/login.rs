//! `POST /auth/login`: the code of `wx.login`, or the ticket of a web login → a session, a member, a token pair.
//!
//! One exchange with WeChat per (appid, code), however many requests race: a code is single-use, so a second exchange could
//! only hide the first one's outcome behind `40163`. A client that lost the answer and sends the same code again within
//! [`REPEAT`] gets the same session and refresh token; later it is `code_used`, and WeChat is not asked again.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::extract::State;
use http::Response;
use serde::Deserialize;

use crate::body::Body;
use crate::clock::{MAX_SKEW, Timestamp};
use crate::config;
use crate::ids::{AppId, Secret, SessionId};
use crate::problem::{Code, Problem};
use crate::store::shared::Purpose;
use crate::store::{CodeHash, Member, NewSession, RefreshHash, SealedKey, Session, SignIn, UsedCode};
use crate::wechat::Code2Session;
use crate::wechat::open_data::Owner;

use super::Auth;
use super::answer::{self, Way};
use super::call::Call;
use super::exclusive::exclusively;
use super::opening::admit;
use super::profile::Profile;
use super::session_keys;
use super::single_flight::SingleFlight;
use super::user_data::UserData;

/// How long the same code yields the same session.
pub const REPEAT: Duration = Duration::from_secs(60);

/// How long a used code is remembered: longer than any code lives at WeChat (5 minutes; 10 for websites).
pub(super) const CODE_MEMORY: Duration = Duration::from_secs(600);

/// Longest login code that is looked at, bytes. WeChat's have 32.
const MAX_CODE: usize = 512;

/// Logins under way.
pub type Logins = SingleFlight<[u8; 32], Result<LoggedIn, Problem>>;

/// What a login led to.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    pub(super) session: Session,
    pub(super) member: Member,
    pub(super) is_new: bool,
    refresh_expires_at: Timestamp,
}

impl LoggedIn {
    /// The login that has just opened this session.
    pub(super) fn new(auth: &Auth, member: Member, new: NewSession) -> Self {
        auth.metrics.logins.inc();
        let NewSession { session, is_new, refresh_expires_at, .. } = new;
        Self { session, member, is_new, refresh_expires_at }
    }
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    code: String,
    ticket: Option<String>,
    appid: Option<String>,
}

/// The handler.
pub async fn login(State(auth): State<Arc<Auth>>, call: Call) -> Response<axum::body::Body> {
    let made = handle(auth, &call).await;
    call.answer(made)
}

async fn handle(auth: Arc<Auth>, call: &Call) -> Result<Response<Body>, Problem> {
    let request: Request = call.json()?;
    if let Some(ticket) = request.ticket {
        if !request.code.is_empty() {
            return Err(Problem::new(Code::InvalidRequest, "Send `code` or `ticket`, not both."));
        }
        let outcome = by_ticket(&auth, &Secret::new(ticket), request.appid.as_deref()).await?;
        return answered(&auth, &outcome);
    }
    let code = checked_code(request.code)?;
    let shown = UserData::of(call)?;
    let app = find_app(&auth.apps, request.appid.as_deref())?.clone();
    answered(&auth, &log_in(&auth, app, code, shown).await?)
}

/// The login of this code, or the outcome of the one that is under way or was made a moment ago.
///
/// # Errors
/// Those of a login.
pub(super) async fn log_in(
    auth: &Arc<Auth>,
    app: config::App,
    code: Secret<String>,
    shown: UserData,
) -> Result<LoggedIn, Problem> {
    if app.kind != config::AppKind::MiniProgram {
        return Err(Problem::new(
            Code::InvalidRequest,
            "A code of wx.login belongs to a mini program, and this app is none: send the `ticket` of a web login.",
        ));
    }
    if let Some(limit) = &auth.login_limit {
        limit.take_named(&app.appid.as_str(), auth.clock.steady())?;
    }
    let hash = code_hash(&app.appid, code.expose());
    let logins = Arc::clone(&auth.logins);
    let (outcome, started) = logins
        .run(hash.0, || {
            let auth = Arc::clone(auth);
            async move {
                let lease = lease(&auth);
                let made = || async { again(&auth, hash).await };
                let work = once(&auth, &app, &code, hash, &shown);
                exclusively(&*auth.shared, (Purpose::Code, &hash.0), lease, made, work).await
            }
        })
        .await;
    let outcome = outcome.ok_or_else(|| {
        auth.metrics.panics.inc();
        Problem::internal("the login panicked")
    })??;
    if !started {
        auth.metrics.login_repeats.inc();
    }
    Ok(outcome)
}

fn answered(auth: &Auth, outcome: &LoggedIn) -> Result<Response<Body>, Problem> {
    let refresh = auth.refresh.first(&outcome.session.session_id);
    let (session, member) = (&outcome.session, &outcome.member);
    answer::tokens(auth, session, member, &refresh, outcome.refresh_expires_at, outcome.is_new, Way::Body)
}

/// The session of a web login; its ticket is used up.
async fn by_ticket(auth: &Auth, ticket: &Secret<String>, appid: Option<&str>) -> Result<LoggedIn, Problem> {
    if appid.is_some() {
        find_app(&auth.apps, appid)?;
    }
    let refused = || Problem::new(Code::CodeInvalid, "Start the web login again: a ticket is good once, for 60 s.");
    let now = auth.clock.now();
    let ticket = auth.web.tickets.take(ticket.expose()).await?.ok_or_else(refused)?;
    let outcome = resume(auth, &ticket.session_id, ticket.is_new, now, refused).await?;
    if appid.is_some_and(|appid| appid != outcome.session.appid.as_str()) {
        return Err(refused());
    }
    Ok(outcome)
}

pub(super) fn checked_code(code: String) -> Result<Secret<String>, Problem> {
    if code.is_empty() || code.len() > MAX_CODE {
        return Err(Problem::new(Code::InvalidRequest, "A code must be sent as the client API gave it."));
    }
    Ok(Secret::new(code))
}

/// The app that is meant: the one that is named, or the only one there is.
pub(super) fn find_app<'a>(apps: &'a [config::App], appid: Option<&str>) -> Result<&'a config::App, Problem> {
    match (appid, apps) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Problem::new(Code::InvalidRequest, "This gateway serves several apps: send `appid` too.")),
        (Some(appid), apps) => apps
            .iter()
            .find(|app| app.appid.as_str() == appid)
            .ok_or_else(|| Problem::new(Code::UnknownApp, "This gateway does not serve an app of this appid.")),
    }
}

/// What the store knows a code by: the code itself is not kept.
pub(super) fn code_hash(appid: &AppId, code: &str) -> CodeHash {
    hash(&[appid.as_str(), code])
}

/// As [`code_hash`], of a web login: its code has stood in a URL, and nobody gets a session by showing it again.
pub(super) fn web_code_hash(appid: &AppId, code: &str) -> CodeHash {
    hash(&["web login", appid.as_str(), code])
}

fn hash(parts: &[&str]) -> CodeHash {
    let mut context = digest::Context::new(&digest::SHA256);
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            context.update(b"\0");
        }
        context.update(part.as_bytes());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    CodeHash(hash)
}

/// What this code led to, here or at another instance.
async fn again(auth: &Auth, hash: CodeHash) -> Result<Option<LoggedIn>, Problem> {
    let now = auth.clock.now();
    match auth.sessions.used_code(&hash, now).await? {
        Some(used) => repeat(auth, &used, now).await.map(Some),
        None => Ok(None),
    }
}

/// Longer than an exchange with WeChat and the writing of what came of it may take.
pub(super) fn lease(auth: &Auth) -> Duration {
    2 * auth.wechat.timeout() + Duration::from_secs(10)
}

/// The login itself; runs once per code at a time, when nothing is known of it.
async fn once(
    auth: &Arc<Auth>,
    app: &config::App,
    code: &Secret<String>,
    hash: CodeHash,
    shown: &UserData,
) -> Result<LoggedIn, Problem> {
    let now = auth.clock.now();
    let identity = auth.wechat.code2session(&app.appid, &app.secret, code.expose()).await?;
    session_keys::prepare(auth, &app.appid, &identity.openid).await?;
    let sealed = auth.vault.seal(identity.session_key.text().as_bytes(), &app.appid, &identity.openid);
    // Ordered by when the exchange began, so that one that WeChat answered late does not replace a newer key.
    let session_key = SealedKey { sealed, exchanged_at: now };
    let profile = match verified(auth, &app.appid, &identity, shown).await {
        Ok(profile) => profile,
        Err(problem) => {
            auth.sessions.keep_key(&app.appid, &identity.openid, session_key).await?;
            return Err(problem);
        }
    };
    let person = SignIn {
        appid: app.appid.clone(),
        openid: identity.openid.clone(),
        unionid: identity.unionid.or_else(|| profile.unionid.clone()),
        at: auth.clock.now(),
        merge: auth.merge_by_unionid,
    };
    admit(auth, person, &profile, hash, Some(session_key)).await
}

/// The profile in what the client brought along. It was made with the key of this code, or with the one before it.
async fn verified(auth: &Auth, appid: &AppId, identity: &Code2Session, shown: &UserData) -> Result<Profile, Problem> {
    if shown.is_empty() {
        return Ok(Profile::default());
    }
    let mut keys = vec![identity.session_key.clone()];
    keys.extend(session_keys::kept(auth, appid, &identity.openid).await?);
    let owner = Owner { appid, openid: &identity.openid };
    Ok(Profile::of(&shown.verify(&keys, &owner, auth.clock.now())?))
}

/// The code was used here before: the same session again, while that can only mean a lost answer.
async fn repeat(auth: &Auth, used: &UsedCode, now: Timestamp) -> Result<LoggedIn, Problem> {
    let used_up = || Problem::new(Code::CodeUsed, "Call wx.login again: a code is good for one login.");
    // It may be longer ago than the clock says, where that was set back; by no clock that is right it will be that far ahead.
    let doubtful = auth.setbacks.look(&auth.clock).is_some_and(|until| used.used_at <= until);
    if doubtful || used.used_at > now.plus(2 * MAX_SKEW) || now.since(used.used_at) >= REPEAT {
        return Err(used_up());
    }
    let outcome = resume(auth, &used.session_id, used.is_new, now, used_up).await?;
    auth.metrics.login_repeats.inc();
    Ok(outcome)
}

/// A session that was opened a moment ago, unless it has ended since.
async fn resume(
    auth: &Auth,
    session_id: &SessionId,
    is_new: bool,
    now: Timestamp,
    gone: impl Fn() -> Problem,
) -> Result<LoggedIn, Problem> {
    let session = auth.sessions.find(session_id, now).await?.ok_or_else(&gone)?;
    if auth.is_over(&session) {
        return Err(gone());
    }
    // What is answered again has to be the token that was answered then: after the loss of a store that had the keys in it, two
    // instances differ about them until both have read the new ones.
    let first = RefreshHash(auth.refresh.first(session_id).hash());
    if auth.sessions.find_by_refresh(first, now).await?.is_none() {
        // It may have ended in between.
        auth.sessions.find(session_id, now).await?.ok_or_else(&gone)?;
        let cause = "the session was opened under other keys than those of this instance";
        return Err(Problem::new(Code::StoreUnavailable, "Try again later.").retry_after(1).caused_by(cause));
    }
    let member = auth.members.find(&session.member_id).await?.ok_or_else(&gone)?;
    if member.banned {
        return Err(Problem::new(Code::MemberBanned, "This member may not log in."));
    }
    let refresh_expires_at = session.created_at.plus(auth.section.refresh_ttl).min(session.expires_at);
    Ok(LoggedIn { session, member, is_new, refresh_expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(appid: &str) -> config::App {
        config::App {
            appid: AppId::parse(appid).unwrap(),
            kind: config::AppKind::MiniProgram,
            secret: Secret::new("s".to_owned()),
            push: None,
            access_token: config::AccessTokenLine::Stable,
            web: None,
        }
    }

    #[test]
    fn the_only_app_need_not_be_named() {
        let (one, two) = (vec![app("wxa")], vec![app("wxa"), app("wxb")]);
        assert_eq!(find_app(&one, None).unwrap().appid.as_str(), "wxa");
        assert_eq!(find_app(&two, Some("wxb")).unwrap().appid.as_str(), "wxb");
        assert_eq!(find_app(&two, None).unwrap_err().code(), Code::InvalidRequest);
        assert_eq!(find_app(&one, Some("wxb")).unwrap_err().code(), Code::UnknownApp);
    }

    #[test]
    fn a_code_of_one_app_is_not_that_of_another() {
        let (a, b) = (AppId::parse("wxa").unwrap(), AppId::parse("wxab").unwrap());
        assert_ne!(code_hash(&a, "bcode"), code_hash(&b, "code"));
        assert_eq!(code_hash(&a, "c"), code_hash(&a, "c"));
    }
}
