//! `GET {base}/web/{appid}/start?redirect=URL`: the browser goes to WeChat.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderValue, Response, StatusCode};

use crate::auth::Auth;
use crate::auth::call::Call;
use crate::body::Body;
use crate::config;
use crate::problem::{Code, Problem};
use crate::wechat::web_login::authorize_url;

use super::redirect;

/// A query as it came.
pub(super) type Shown = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// The handler.
pub async fn start(
    State(auth): State<Arc<Auth>>,
    Path(appid): Path<String>,
    query: Shown,
    call: Call,
) -> Response<axum::body::Body> {
    let made = handle(&auth, &appid, query);
    call.answer(made)
}

fn handle(auth: &Auth, appid: &str, query: Shown) -> Result<Response<Body>, Problem> {
    let (app, web) = find(auth, appid)?;
    let query = parameters(query)?;
    let redirect =
        only(&query, "redirect")?.filter(|url| redirect::is_allowed(url, &web.origins)).ok_or_else(|| {
            let detail = "`redirect` must be a whole URL of at most 1024 bytes, of one of the `origins` of this app.";
            Problem::new(Code::InvalidRequest, detail)
        })?;
    let issued = auth.web.states.issue(&app.appid, redirect, is_secure(auth), auth.clock.now())?;
    let issuer = auth.section.issuer.trim_end_matches('/');
    let callback = format!("{issuer}{}/web/{}/callback", auth.base, app.appid.as_str());
    let page = authorize_url(&auth.open_base, &app.appid, web.scope, &callback, &issued.state);
    see(&page, issued.set_cookie)
}

/// The app of this appid, where it has a web login.
pub(super) fn find<'a>(auth: &'a Auth, appid: &str) -> Result<(&'a config::App, &'a config::WebLogin), Problem> {
    let app = auth.apps.iter().find(|app| app.appid.as_str() == appid);
    app.and_then(|app| Some((app, app.web.as_ref()?)))
        .ok_or_else(|| Problem::new(Code::RouteNotFound, "There is no web login for this appid."))
}

pub(super) fn parameters(query: Shown) -> Result<Vec<(String, String)>, Problem> {
    let Query(pairs) = query.map_err(|_| Problem::new(Code::InvalidRequest, "The query cannot be read."))?;
    Ok(pairs)
}

/// The value of this name, which may stand there once.
pub(super) fn only<'a>(query: &'a [(String, String)], name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = query.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Problem::new(Code::InvalidRequest, "Each parameter may stand in the query once.")),
    }
}

/// Whether browsers reach the gateway by `https`, so that its cookies can be what they should be.
pub(super) fn is_secure(auth: &Auth) -> bool {
    auth.section.issuer.starts_with("https://")
}

/// 302 to `url`. What was in ours (a code, a state) is not told to whoever is there.
pub(super) fn see(url: &str, set_cookie: HeaderValue) -> Result<Response<Body>, Problem> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_str(url).map_err(Problem::internal)?);
    headers.insert(SET_COOKIE, set_cookie);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}
