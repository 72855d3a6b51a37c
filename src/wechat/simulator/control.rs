//! `/_sim/…`: the simulator's own endpoints, which WeChat does not have. They stand in for the user's phone and for the
//! operator of the test.
//!
//! Bodies are JSON whatever their content type says, so that plain `curl -d` works.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::answer::Params;
use super::fault::Fault;
use super::people;
use super::push::Push;
use super::world::World;
use crate::ids::AppId;

/// Longest user name, bytes. Any bytes will do, for the sake of tests.
const MAX_USER: usize = 128;

pub(super) fn router() -> Router<Arc<World>> {
    Router::new()
        .route("/_sim/code", get(code))
        .route("/_sim/user-info", post(user_info))
        .route("/_sim/phone", post(phone))
        .route("/_sim/open-data", post(open_data))
        .route("/_sim/push", post(push))
        .route("/_sim/browser", post(browser))
        .route("/_sim/faults", post(plan_faults).delete(clear_faults))
        .route("/_sim/calls", get(calls))
}

/// A request that cannot be served, in words for the person who made it.
struct Wrong(StatusCode, String);

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

fn wrong(text: impl Into<String>) -> Wrong {
    Wrong(StatusCode::BAD_REQUEST, text.into())
}

fn not_logged_in() -> Wrong {
    Wrong(StatusCode::CONFLICT, "this user has no session_key yet: exchange a code first".to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Who {
    user: String,
    appid: Option<String>,
    /// For `open-data` only.
    data: Option<Map<String, Value>>,
}

impl Who {
    /// The app that is named, else the one the user logged in to last, else the only one.
    fn app(&self, world: &World) -> Result<AppId, Wrong> {
        check_user(&self.user)?;
        if let Some(appid) = &self.appid {
            return AppId::parse(appid).map_err(|fault| wrong(format!("appid {fault}")));
        }
        let state = world.lock();
        let found = state.people.last_app(&self.user).or_else(|| state.apps.only());
        found.cloned().ok_or_else(|| wrong("which app? say appid, or log this user in first"))
    }
}

fn check_user(user: &str) -> Result<(), Wrong> {
    match user.len() {
        1..=MAX_USER => Ok(()),
        _ => Err(wrong(format!("user is a name of 1 to {MAX_USER} bytes"))),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Wrong> {
    serde_json::from_slice(body).map_err(|fault| wrong(format!("the body is not the JSON that is expected: {fault}")))
}

/// What `wx.login` gives. Without `appid` the code is good for any app.
async fn code(State(world): State<Arc<World>>, Query(params): Query<Params>) -> Result<Json<Value>, Wrong> {
    let user = params.get("user");
    check_user(user)?;
    let appid = match params.get("appid") {
        "" => None,
        appid => Some(AppId::parse(appid).map_err(|fault| wrong(format!("appid {fault}")))?),
    };
    let code = world.issue_code(user, appid.as_ref());
    Ok(Json(json!({"code": code})))
}

async fn user_info(State(world): State<Arc<World>>, body: Bytes) -> Result<Response, Wrong> {
    let who: Who = read(&body)?;
    let appid = who.app(&world)?;
    world.user_info(&who.user, &appid).map(|info| Json(info).into_response()).ok_or_else(not_logged_in)
}

async fn phone(State(world): State<Arc<World>>, body: Bytes) -> Result<Response, Wrong> {
    let who: Who = read(&body)?;
    let appid = who.app(&world)?;
    Ok(Json(world.phone(&who.user, &appid)).into_response())
}

async fn open_data(State(world): State<Arc<World>>, body: Bytes) -> Result<Response, Wrong> {
    let mut who: Who = read(&body)?;
    let data = who.data.take().ok_or_else(|| wrong("data is missing: the object to encrypt"))?;
    let appid = who.app(&world)?;
    world.open_data(&who.user, &appid, data).map(|sealed| Json(sealed).into_response()).ok_or_else(not_logged_in)
}

/// Sends a message push to `url`, signed (and encrypted) as WeChat does; answers what came back.
async fn push(State(world): State<Arc<World>>, body: Bytes) -> Result<Json<Value>, Wrong> {
    let push: Push = read(&body)?;
    let who = Who { user: push.user.clone(), appid: push.appid.clone(), data: None };
    let appid = who.app(&world)?;
    let openid = people::openid(&who.user, &appid);
    let signed = push.sign(&world, &appid, &openid).ok_or_else(|| wrong("aes_key must be an EncodingAESKey"))?;
    let answer = signed.send().await;
    answer.map(Json).map_err(|fault| wrong(format!("the push was not answered: {}", fault.without_url())))
}

/// Who is before the browser from now on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Browser {
    user: String,
    #[serde(default)]
    refuses: bool,
}

async fn browser(State(world): State<Arc<World>>, body: Bytes) -> Result<StatusCode, Wrong> {
    let browser: Browser = read(&body)?;
    check_user(&browser.user)?;
    world.lock().web.browser = (browser.user, browser.refuses);
    Ok(StatusCode::NO_CONTENT)
}

/// One effect, and where it strikes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    /// One of WeChat's paths, or `*`.
    path: String,
    #[serde(default = "once")]
    times: u32,
    errcode: Option<i64>,
    status: Option<u16>,
    body: Option<String>,
    redirect: Option<String>,
    body_bytes: Option<u64>,
    header_bytes: Option<usize>,
    delay_ms: Option<u64>,
    drip_ms: Option<u64>,
    #[serde(default)]
    cut: bool,
    #[serde(default)]
    hang: bool,
    #[serde(default)]
    reset: bool,
}

const fn once() -> u32 {
    1
}

impl Plan {
    fn fault(&self) -> Result<Fault, Wrong> {
        let effects = [
            self.errcode.map(Fault::Errcode),
            self.status.map(Fault::Status),
            self.body.clone().map(|body| Fault::Body(body.into_bytes())),
            self.redirect.clone().map(Fault::Redirect),
            self.body_bytes.map(Fault::HugeBody),
            self.header_bytes.map(Fault::HugeHeader),
            self.delay_ms.map(|ms| Fault::Delay(Duration::from_millis(ms))),
            self.drip_ms.map(|ms| Fault::Drip(Duration::from_millis(ms))),
            self.cut.then_some(Fault::Cut),
            self.hang.then_some(Fault::Hang),
            self.reset.then_some(Fault::Reset),
        ];
        let mut effects = effects.into_iter().flatten();
        match (effects.next(), effects.next()) {
            (Some(fault), None) => Ok(fault),
            _ => Err(wrong(
                "say exactly one of errcode, status, body, redirect, body_bytes, header_bytes, delay_ms, drip_ms, \
                 cut, hang, reset",
            )),
        }
    }
}

async fn plan_faults(State(world): State<Arc<World>>, body: Bytes) -> Result<StatusCode, Wrong> {
    let plan: Plan = read(&body)?;
    let fault = plan.fault()?;
    world.lock().faults.plan(&plan.path, plan.times, fault);
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_faults(State(world): State<Arc<World>>) -> StatusCode {
    world.lock().faults.clear();
    StatusCode::NO_CONTENT
}

async fn calls(State(world): State<Arc<World>>) -> Response {
    let calls = world.lock().calls.clone();
    Json(calls).into_response()
}
