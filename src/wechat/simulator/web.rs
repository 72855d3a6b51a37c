//! Web login: the two pages that a browser is sent to, and the calls about whoever comes back (official pages "Web page
//! authorisation", "Website app login", "Get basic user information").
//!
//! There is nobody to ask, so the pages answer at once, for the user whom `POST /_sim/browser` has named.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::LOCATION;
use http::{HeaderValue, StatusCode, Uri};
use serde_json::{Value, json};

use super::answer::{Answer, Params};
use super::bounded::Bounded;
use super::people;
use super::random;
use super::world::World;
use crate::clock::Timestamp;
use crate::ids::AppId;

/// Life of a code: inside WeChat, and of a website.
const PAGE_CODE: Duration = Duration::from_secs(5 * 60);
const WEBSITE_CODE: Duration = Duration::from_secs(10 * 60);

/// Life of a person's own access token.
const TOKEN: Duration = Duration::from_secs(7200);

const MAX: usize = 100_000;

/// Longest state, bytes.
const MAX_STATE: usize = 128;

/// Users whose names end so are shown the page in snapshot mode.
const SNAPSHOT: &str = "-snapshot";

/// Users whose names end so do not follow the official account.
const STRANGER: &str = "-stranger";

/// The parameters of either page, in the only order that is taken.
const PARAMETERS: [&str; 5] = ["appid", "redirect_uri", "response_type", "scope", "state"];

/// Who was let through, for which app and scope.
#[derive(Debug, Clone)]
struct Grant {
    user: String,
    appid: AppId,
    scope: &'static str,
    expires: Timestamp,
    used: bool,
}

/// Codes and tokens of web logins, and who sits before the browser.
#[derive(Debug)]
pub(super) struct Web {
    /// Who is before the browser, and whether they refuse.
    pub(super) browser: (String, bool),
    codes: Bounded<String, Grant>,
    tokens: Bounded<String, Grant>,
    /// Users by openid: those who came back with a code that was exchanged.
    known: Bounded<String, String>,
}

impl Web {
    pub(super) fn new() -> Self {
        let (codes, tokens, known) = (Bounded::new(MAX), Bounded::new(MAX), Bounded::new(MAX));
        Self { browser: ("alice".to_owned(), false), codes, tokens, known }
    }
}

pub(super) async fn authorize(State(world): State<Arc<World>>, uri: Uri) -> Response {
    let scope = |asked: &str| ["snsapi_base", "snsapi_userinfo"].into_iter().find(|scope| *scope == asked);
    back(&world, &uri, PAGE_CODE, scope)
}

pub(super) async fn qrconnect(State(world): State<Arc<World>>, uri: Uri) -> Response {
    back(&world, &uri, WEBSITE_CODE, |asked| (asked == "snsapi_login").then_some("snsapi_login"))
}

fn back(world: &World, uri: &Uri, life: Duration, scope: impl Fn(&str) -> Option<&'static str>) -> Response {
    match location(world, uri, life, scope) {
        Ok(location) => (StatusCode::FOUND, [(LOCATION, location)]).into_response(),
        // WeChat shows a page with a number of its own.
        Err(wrong) => (StatusCode::BAD_REQUEST, wrong).into_response(),
    }
}

fn location(
    world: &World,
    uri: &Uri,
    life: Duration,
    scope: impl Fn(&str) -> Option<&'static str>,
) -> Result<HeaderValue, &'static str> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| "the query cannot be read")?;
    if !pairs.iter().map(|(name, _)| name.as_str()).eq(PARAMETERS) {
        return Err("the parameters are appid, redirect_uri, response_type, scope, state, in this order");
    }
    let [appid, redirect_uri, response_type, asked, state] = [0, 1, 2, 3, 4].map(|n: usize| pairs[n].1.as_str());
    let appid = AppId::parse(appid).map_err(|_| "10012: appid")?;
    let scope = scope(asked).ok_or("10005: scope")?;
    if response_type != "code" {
        return Err("response_type is code");
    }
    if state.len() > MAX_STATE || !state.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err("state has letters and digits, 128 at most");
    }
    if !redirect_uri.starts_with("http://") && !redirect_uri.starts_with("https://") {
        return Err("10003: redirect_uri");
    }
    let now = world.clock.now();
    let mut everything = world.lock();
    let (user, refuses) = everything.web.browser.clone();
    let join = if redirect_uri.contains('?') { '&' } else { '?' };
    let to = match refuses {
        true => format!("{redirect_uri}{join}state={state}"),
        false => {
            let code = URL_SAFE_NO_PAD.encode(random::<24>());
            let grant = Grant { user, appid, scope, expires: now.plus(life), used: false };
            everything.web.codes.insert(code.clone(), grant);
            format!("{redirect_uri}{join}code={code}&state={state}")
        }
    };
    HeaderValue::from_str(&to).map_err(|_| "10003: redirect_uri")
}

pub(super) async fn access_token(State(world): State<Arc<World>>, Query(params): Query<Params>) -> Answer {
    Answer(exchange(&world, &params))
}

fn exchange(world: &World, params: &Params) -> Result<Value, i64> {
    let appid = params.require("appid", 41002)?;
    let secret = params.require("secret", 41004)?;
    let code = params.require("code", 41008)?;
    if params.get("grant_type") != "authorization_code" {
        return Err(40002);
    }
    let now = world.clock.now();
    let mut state = world.lock();
    let appid = state.apps.check(appid, secret)?;
    let grant = state.web.codes.get_mut(code).filter(|grant| grant.appid == appid).ok_or(40029)?;
    if std::mem::replace(&mut grant.used, true) {
        return Err(40163);
    }
    if now >= grant.expires {
        return Err(42003);
    }
    let grant = Grant { expires: now.plus(TOKEN), ..grant.clone() };
    let openid = people::openid(&grant.user, &appid);
    let token = URL_SAFE_NO_PAD.encode(random::<48>());
    let mut answer = json!({
        "access_token": token,
        "expires_in": TOKEN.as_secs(),
        "refresh_token": URL_SAFE_NO_PAD.encode(random::<48>()),
        "openid": openid,
        "scope": grant.scope,
    });
    if grant.scope != "snsapi_base"
        && let Some(unionid) = people::unionid(&grant.user)
    {
        answer["unionid"] = unionid.into();
    }
    if grant.user.ends_with(SNAPSHOT) {
        answer["is_snapshotuser"] = 1.into();
    }
    state.web.known.insert(openid, grant.user.clone());
    state.web.tokens.insert(token, grant);
    Ok(answer)
}

pub(super) async fn userinfo(State(world): State<Arc<World>>, Query(params): Query<Params>) -> Answer {
    Answer(profile(&world, &params))
}

fn profile(world: &World, params: &Params) -> Result<Value, i64> {
    let token = params.require("access_token", 41001)?;
    let asked = params.require("openid", 41009)?;
    let state = world.lock();
    let grant = state.web.tokens.get(token).ok_or(40001)?;
    if world.clock.now() >= grant.expires {
        return Err(42001);
    }
    if grant.scope == "snsapi_base" {
        return Err(48001);
    }
    let openid = people::openid(&grant.user, &grant.appid);
    if openid != asked {
        return Err(40003);
    }
    let mut answer = json!({
        "openid": openid,
        "nickname": grant.user,
        "sex": 0,
        "language": "",
        "city": "",
        "province": "",
        "country": "",
        "headimgurl": "https://thirdwx.qlogo.cn/mmopen/vi_32/simulated/132",
        "privilege": [],
    });
    if let Some(unionid) = people::unionid(&grant.user) {
        answer["unionid"] = unionid.into();
    }
    Ok(answer)
}

pub(super) async fn follower(State(world): State<Arc<World>>, Query(params): Query<Params>) -> Answer {
    Answer(subscription(&world, &params))
}

fn subscription(world: &World, params: &Params) -> Result<Value, i64> {
    let state = world.lock();
    let appid = state.tokens.check(params.get("access_token"), world.clock.now())?;
    let openid = params.require("openid", 41009)?;
    let user = state.web.known.get(openid).filter(|user| people::openid(user, &appid) == openid).ok_or(40003)?;
    if user.ends_with(STRANGER) {
        return Ok(json!({"subscribe": 0, "openid": openid}));
    }
    Ok(json!({"subscribe": 1, "openid": openid, "subscribe_time": world.clock.now().secs(), "remark": "", "groupid": 0,
        "tagid_list": [], "subscribe_scene": "ADD_SCENE_QR_CODE", "qr_scene": 0, "qr_scene_str": ""}))
}
