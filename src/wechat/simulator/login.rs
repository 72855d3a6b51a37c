//! `GET /sns/jscode2session` (official page "Mini program login credential check (code2Session)").

use std::sync::Arc;

use axum::extract::{Query, State};
use serde_json::{Value, json};

use super::answer::{Answer, Params};
use super::people;
use super::world::World;

/// Codes that begin so are never used up and name their user: `demo-alice`.
const REUSABLE: &str = "demo-";

/// Reads the query string only: parameters in a POST body are missing parameters, as with WeChat (41002).
pub(super) async fn jscode2session(State(world): State<Arc<World>>, Query(params): Query<Params>) -> Answer {
    Answer(exchange(&world, &params))
}

fn exchange(world: &World, params: &Params) -> Result<Value, i64> {
    let appid = params.require("appid", 41002)?;
    let secret = params.require("secret", 41004)?;
    let js_code = params.require("js_code", 41008)?;
    if params.get("grant_type") != "authorization_code" {
        return Err(40002);
    }
    let mut state = world.lock();
    let appid = state.apps.check(appid, secret)?;
    let user = match js_code.strip_prefix(REUSABLE) {
        Some("") => return Err(40029),
        Some(user) => user.to_owned(),
        None => state.login_codes.redeem(js_code, &appid, world.clock.now())?,
    };
    let session_key = state.people.rotate(&user, &appid);
    let mut answer = json!({"session_key": session_key.text(), "openid": people::openid(&user, &appid)});
    if let Some(unionid) = people::unionid(&user) {
        answer["unionid"] = unionid.into();
    }
    Ok(answer)
}
