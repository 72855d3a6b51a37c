//! The session_keys of a person: those that are kept, and a fresh one by `login_code`.
//!
//! The newest and the one before it are kept, because a second `wx.login` while data is under way is the commonest reason
//! why it cannot be decrypted. Each is sealed; here, and nowhere else, they are opened.

use std::sync::Arc;

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::config;
use crate::ids::{AppId, OpenId, Secret};
use crate::problem::{Code, Problem};
use crate::store::shared::Purpose;
use crate::store::{CodeHash, SealedKey, Session};
use crate::token::Claims;
use crate::wechat::SessionKey;

use super::Auth;
use super::call::Call;
use super::exclusive::exclusively;
use super::login::{REPEAT, checked_code, code_hash, lease};
use super::single_flight::SingleFlight;
use super::welcome::{Written, still_welcome};

/// Exchanges of `login_code` under way: whose it was, and the key.
pub type Exchanges = SingleFlight<[u8; 32], Result<(OpenId, SealedKey), Problem>>;

/// `login_code` of a request.
#[derive(Deserialize)]
struct LoginCode {
    login_code: Option<String>,
}

/// Who asks for data, and through which app.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    pub(super) session: Session,
    pub(super) app: &'a config::App,
}

/// The caller of a call that decrypts or asks WeChat: logged in, within the limit.
///
/// # Errors
/// `token_*`, `rate_limited`, `unknown_app`.
pub(super) async fn asker<'a>(auth: &'a Auth, call: &Call) -> Result<Asker<'a>, Problem> {
    let claims: Claims = call.caller(auth).await?;
    let now = auth.clock.now();
    take(auth, &claims.appid, &claims.openid)?;
    let session = auth.sessions.find(&claims.session_id, now).await?.ok_or_else(Problem::token_revoked)?;
    let app = auth.apps.iter().find(|app| app.appid == session.appid);
    let app =
        app.ok_or_else(|| Problem::new(Code::UnknownApp, "This gateway no longer serves the app of this login."))?;
    Ok(Asker { session, app })
}

/// Counts one call that decrypts, or asks WeChat, about this person: his own, or one of a service.
///
/// # Errors
/// `rate_limited`.
pub(super) fn take(auth: &Auth, appid: &AppId, openid: &OpenId) -> Result<(), Problem> {
    Ok(auth.decryptions.take((appid, openid), auth.clock.steady())?)
}

/// Exchanges the request's `login_code`, if it has one, and keeps the key. No session is opened.
///
/// # Errors
/// Those of a login; `code_invalid` when the code is of somebody else.
pub(super) async fn renew(auth: &Arc<Auth>, asker: &Asker<'_>, call: &Call) -> Result<(), Problem> {
    let Some(code) = call.json_or_empty::<Option<LoginCode>>()?.and_then(|request| request.login_code) else {
        return Ok(());
    };
    let code = checked_code(code)?;
    let (session, now) = (&asker.session, auth.clock.now());
    let hash = code_hash(&session.appid, code.expose());
    if let Some(used) = auth.sessions.used_code(&hash, now).await? {
        // It has just logged this person in, so its key is here already.
        let opened = auth.sessions.find(&used.session_id, now).await?;
        let same = opened.is_some_and(|opened| opened.openid == session.openid) && now.since(used.used_at) < REPEAT;
        let used_up = || Problem::new(Code::CodeUsed, "Call wx.login again: a code is good for one exchange.");
        return if same { Ok(()) } else { Err(used_up()) };
    }
    let exchanges = Arc::clone(&auth.exchanges);
    let (outcome, _) = exchanges.run(hash.0, || exchange(Arc::clone(auth), asker.app.clone(), code, hash)).await;
    let (openid, key) = outcome.ok_or_else(|| Problem::internal("the exchange panicked"))??;
    if openid != session.openid {
        return Err(Problem::new(Code::CodeInvalid, "`login_code` is of another user: call wx.login again."));
    }
    prepare(auth, &session.appid, &session.openid).await?;
    auth.sessions.keep_key(&session.appid, &session.openid, key).await?;
    still_welcome(auth, session, Written::Key).await
}

/// One exchange on all instances together: what it led to is shared for a while.
async fn exchange(
    auth: Arc<Auth>,
    app: config::App,
    code: Secret<String>,
    hash: CodeHash,
) -> Result<(OpenId, SealedKey), Problem> {
    let made = || async {
        let made = auth.shared.get(Purpose::Exchange, &hash.0).await?;
        Ok(made.and_then(|made| read(&made)))
    };
    let work = async {
        let exchanged_at = auth.clock.now();
        let identity = auth.wechat.code2session(&app.appid, &app.secret, code.expose()).await?;
        let sealed = auth.vault.seal(identity.session_key.text().as_bytes(), &app.appid, &identity.openid);
        let made = (identity.openid, SealedKey { sealed, exchanged_at });
        auth.shared.put(Purpose::Exchange, &hash.0, &written(&made), REPEAT).await?;
        Ok(made)
    };
    exclusively(&*auth.shared, (Purpose::Code, &hash.0), lease(&auth), made, work).await
}

/// The outcome of an exchange as it is shared: openid, beginning, sealed key.
fn written((openid, key): &(OpenId, SealedKey)) -> Vec<u8> {
    let mut text = format!("{} {} ", openid.as_str(), key.exchanged_at.millis()).into_bytes();
    text.extend_from_slice(&key.sealed);
    text
}

fn read(text: &[u8]) -> Option<(OpenId, SealedKey)> {
    let mut parts = text.splitn(3, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(parts.next()?).ok();
    let (openid, exchanged_at) = (OpenId::parse(word()?).ok()?, Timestamp::from_millis(word()?.parse().ok()?));
    Some((openid, SealedKey { sealed: parts.next()?.to_owned(), exchanged_at }))
}

/// The keys of a person, newest first; empty when none is kept. One that does not open (its sealing key is gone, its row
/// was tampered with) is left out: the next login puts a good one in its place.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn kept(auth: &Auth, appid: &AppId, openid: &OpenId) -> Result<Vec<SessionKey>, Problem> {
    let sealed = auth.sessions.session_keys(appid, openid).await?;
    reseal(auth, appid, openid, &sealed).await;
    let open = |key: SealedKey| {
        let opened = auth.vault.unseal(&key.sealed, appid, openid);
        let opened: Zeroizing<Vec<u8>> =
            opened.inspect_err(|error| tracing::error!(%error, "a kept session_key does not open")).ok()?;
        SessionKey::parse(std::str::from_utf8(&opened).ok()?).ok()
    };
    Ok(sealed.into_iter().filter_map(open).collect())
}

/// Seals anew what was sealed by an older key. What cannot be is left as it is: it opens as before, or never did.
async fn reseal(auth: &Auth, appid: &AppId, openid: &OpenId, keys: &[SealedKey]) {
    for key in keys {
        let Ok(Some(fresh)) = auth.vault.reseal(&key.sealed, appid, openid) else { continue };
        if let Err(error) = auth.sessions.reseal_key(appid, openid, &key.sealed, fresh).await {
            tracing::debug!(%error, "a session_key could not be sealed anew; the next use tries again");
        }
    }
}

/// To be called before a key is kept: WeChat returns the same one for several logins in a row, and a store knows it again by its
/// record, which is another one under another sealing key.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn prepare(auth: &Auth, appid: &AppId, openid: &OpenId) -> Result<(), Problem> {
    if auth.vault.has_old() {
        let sealed = auth.sessions.session_keys(appid, openid).await?;
        reseal(auth, appid, openid, &sealed).await;
    }
    Ok(())
}

/// As [`kept`], where one is needed.
///
/// # Errors
/// `session_key_stale` when there is none.
pub(super) async fn needed(auth: &Auth, appid: &AppId, openid: &OpenId) -> Result<Vec<SessionKey>, Problem> {
    let keys = kept(auth, appid, openid).await?;
    if keys.is_empty() { Err(stale()) } else { Ok(keys) }
}

/// There is no session_key, or WeChat holds another one.
pub(super) fn stale() -> Problem {
    Problem::new(Code::SessionKeyStale, "Call wx.login and log in again, then ask the user again.")
}
