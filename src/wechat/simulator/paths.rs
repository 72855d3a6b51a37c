//! WeChat's paths, and what every call of them goes through: a fault, if one is planned, and the call log.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::any;
use http::StatusCode;

use super::answer::{Params, Refused};
use super::calls::Call;
use super::world::World;
use super::{access_token, control, login, phone, session, web};

/// WeChat's paths as the router and the call log know them. All take any method: WeChat answers a wrong one with an
/// errcode of the call.
const LOGIN: &str = "/sns/jscode2session";
const TOKEN: &str = "/cgi-bin/token";
const STABLE_TOKEN: &str = "/cgi-bin/stable_token";
const CHECK_SESSION: &str = "/wxa/checksession";
const RESET_SESSION: &str = "/wxa/resetusersessionkey";
const ENCRYPT_KEY: &str = "/wxa/business/getuserencryptkey";
const PHONE: &str = "/wxa/business/getuserphonenumber";
const AUTHORIZE: &str = "/connect/oauth2/authorize";
const QRCONNECT: &str = "/connect/qrconnect";
const WEB_TOKEN: &str = "/sns/oauth2/access_token";
const WEB_PROFILE: &str = "/sns/userinfo";
const FOLLOWER: &str = "/cgi-bin/user/info";

const ALL: [&str; 12] = [
    LOGIN,
    TOKEN,
    STABLE_TOKEN,
    CHECK_SESSION,
    RESET_SESSION,
    ENCRYPT_KEY,
    PHONE,
    AUTHORIZE,
    QRCONNECT,
    WEB_TOKEN,
    WEB_PROFILE,
    FOLLOWER,
];

const UNKNOWN: &str = "(unknown)";

pub(super) fn router(world: Arc<World>) -> Router {
    let wechat = Router::new()
        .route(LOGIN, any(login::jscode2session))
        .route(TOKEN, any(access_token::token))
        .route(STABLE_TOKEN, any(access_token::stable_token))
        .route(CHECK_SESSION, any(session::checksession))
        .route(RESET_SESSION, any(session::resetusersessionkey))
        .route(ENCRYPT_KEY, any(session::getuserencryptkey))
        .route(PHONE, any(phone::getuserphonenumber))
        .route(AUTHORIZE, any(web::authorize))
        .route(QRCONNECT, any(web::qrconnect))
        .route(WEB_TOKEN, any(web::access_token))
        .route(WEB_PROFILE, any(web::userinfo))
        .route(FOLLOWER, any(web::follower))
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(middleware::from_fn_with_state(Arc::clone(&world), observe));
    control::router().fallback_service(wechat.with_state(Arc::clone(&world))).with_state(world)
}

async fn observe(State(world): State<Arc<World>>, request: Request, next: Next) -> Response {
    let asked = request.uri().path();
    let path = ALL.into_iter().find(|path| *path == asked).unwrap_or(UNKNOWN);
    let method = request.method().as_str().to_owned();
    let params = Query::<Params>::try_from_uri(request.uri()).ok();
    let appid = params.map(|Query(params)| params.get("appid").to_owned()).filter(|appid| !appid.is_empty());

    let fault = world.lock().faults.take(asked);
    let answer = match fault.as_ref().and_then(|fault| fault.replace()) {
        Some(answer) => answer,
        None => next.run(request).await,
    };
    world.lock().calls.add(Call {
        at: world.clock.now().to_string(),
        method,
        path,
        appid,
        status: answer.status().as_u16(),
        errcode: answer.extensions().get::<Refused>().map(|refused| refused.0),
        fault: fault.is_some(),
    });
    match fault {
        Some(fault) => fault.spoil(answer).await,
        None => answer,
    }
}
