//! `GET {base}/web/{appid}/callback?code&state`: the browser comes back from WeChat.
//!
//! First the state; until it is known to be good nobody is sent anywhere. Then the code, exchanged once. A person who
//! refused comes back without a code, and goes back with `error=access_denied`.

use std::sync::Arc;

use axum::extract::{Path, State};
use http::Response;
use http::header::SET_COOKIE;

use crate::auth::Auth;
use crate::auth::answer::access_token;
use crate::auth::call::Call;
use crate::auth::login::{LoggedIn, checked_code, web_code_hash};
use crate::auth::opening::admit;
use crate::auth::profile::Profile;
use crate::body::Body;
use crate::config::{self, WebResult, WebScope};
use crate::ids::Secret;
use crate::problem::{Code, Problem};
use crate::store::SignIn;
use crate::wechat::{self, Meaning};

use super::redirect;
use super::start::{Shown, find, is_secure, only, parameters, see};
use super::state::Returned;
use super::ticket::Ticket;

/// The handler.
pub async fn callback(
    State(auth): State<Arc<Auth>>,
    Path(appid): Path<String>,
    query: Shown,
    call: Call,
) -> Response<axum::body::Body> {
    let made = handle(&auth, &appid, query, &call).await;
    call.answer(made)
}

async fn handle(auth: &Arc<Auth>, appid: &str, query: Shown, call: &Call) -> Result<Response<Body>, Problem> {
    let (app, web) = find(auth, appid)?;
    let query = parameters(query)?;
    let (state, code) = (only(&query, "state")?.unwrap_or_default(), only(&query, "code")?);
    let now = auth.clock.now();
    let returned = auth.web.states.read(&app.appid, state, call.headers(), is_secure(auth), now)?;
    auth.web.states.use_up(&returned).await?;
    // The list may have changed since the start.
    if !redirect::is_allowed(&returned.redirect, &web.origins) {
        return Err(Problem::new(Code::InvalidRequest, "The page to return to is no longer allowed."));
    }
    let url = match code.filter(|code| !code.is_empty()) {
        None => redirect::with(&returned.redirect, "error", "access_denied"),
        Some(code) => match enter(auth, app, web, checked_code(code.to_owned())?).await {
            Ok(logged_in) => return entered(auth, web, &logged_in, &returned).await,
            Err(problem) => return Ok(over(problem, &returned, call)),
        },
    };
    see(&url, returned.clear_cookie)
}

/// Back to the page, with what the app is configured to yield.
async fn entered(
    auth: &Auth,
    web: &config::WebLogin,
    logged_in: &LoggedIn,
    returned: &Returned,
) -> Result<Response<Body>, Problem> {
    let LoggedIn { session, member, is_new, .. } = logged_in;
    match web.result {
        WebResult::Ticket => {
            let ticket = Ticket { session_id: session.session_id.clone(), is_new: *is_new };
            let ticket = auth.web.tickets.give(&ticket).await?;
            see(&redirect::with(&returned.redirect, "ticket", ticket.expose()), returned.clear_cookie.clone())
        }
        WebResult::Cookie => {
            let mut response = see(&returned.redirect, returned.clear_cookie.clone())?;
            let minted = access_token(auth, session, member)?;
            auth.cookies.set(response.headers_mut(), &minted.token, &auth.refresh.first(&session.session_id))?;
            Ok(response)
        }
    }
}

/// The problem, and the cookie goes: this login is over.
fn over(problem: Problem, returned: &Returned, call: &Call) -> Response<Body> {
    let mut response = call.refuse(problem);
    response.headers_mut().insert(SET_COOKIE, returned.clear_cookie.clone());
    response
}

/// The login itself: who it is, what they show of themselves, a session.
async fn enter(
    auth: &Arc<Auth>,
    app: &config::App,
    web: &config::WebLogin,
    code: Secret<String>,
) -> Result<LoggedIn, Problem> {
    if let Some(limit) = &auth.login_limit {
        limit.take_named(&app.appid.as_str(), auth.clock.steady())?;
    }
    let who = auth.wechat.web_identity(&app.appid, &app.secret, code.expose()).await.map_err(of_a_page)?;
    if who.is_snapshot {
        let detail = "WeChat shows this page in snapshot mode, without a user: open it in full and log in there.";
        return Err(Problem::new(Code::LoginRefused, detail));
    }
    let profile = match web.scope {
        WebScope::Base => Profile::default(),
        WebScope::UserInfo | WebScope::Login => {
            let shown = auth.wechat.web_profile(&app.appid, &who).await.map_err(of_a_page)?;
            Profile::new(&shown.nickname, &shown.headimgurl, shown.unionid)
        }
    };
    let person = SignIn {
        appid: app.appid.clone(),
        openid: who.openid,
        unionid: who.unionid.or_else(|| profile.unionid.clone()),
        at: auth.clock.now(),
        merge: auth.merge_by_unionid,
    };
    admit(auth, person, &profile, web_code_hash(&app.appid, code.expose()), None).await
}

/// WeChat's refusals of a code ask for something else here than in a mini program.
fn of_a_page(error: wechat::Error) -> Problem {
    match error.meaning() {
        Some(Meaning::BadCode) => Problem::new(Code::CodeInvalid, "Start the web login again.").caused_by(error),
        Some(Meaning::UsedCode) => Problem::new(Code::CodeUsed, "Start the web login again.").caused_by(error),
        _ => error.into(),
    }
}
