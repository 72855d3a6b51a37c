//! `POST /wxa/business/getuserphonenumber` (official page "Get phone number").

use std::sync::Arc;

use axum::extract::{Query, State};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::answer::{Answer, Params, json_body};
use super::people;
use super::world::World;

pub(super) async fn getuserphonenumber(
    State(world): State<Arc<World>>,
    Query(params): Query<Params>,
    method: Method,
    body: Bytes,
) -> Answer {
    Answer(phone_info(&world, &params, &method, &body))
}

fn phone_info(world: &World, params: &Params, method: &Method, body: &[u8]) -> Result<Value, i64> {
    let now = world.clock.now();
    let mut state = world.lock();
    let appid = state.tokens.check(params.get("access_token"), now)?;
    let body = json_body(method, body)?;
    let code = body.get("code").and_then(Value::as_str).filter(|code| !code.is_empty()).ok_or(41008)?;
    let asked = body.get("openid").and_then(Value::as_str).filter(|openid| !openid.is_empty());
    let owner = state.phone_codes.owner(code).map(|user| people::openid(user, &appid));
    if asked.is_some() && asked != owner.as_deref() {
        return Err(40029);
    }
    // The page lists no "used" for this call: a bad and a used code are both 40029.
    let user = state.phone_codes.redeem(code, &appid, now).map_err(|e| if e == 40163 { 40029 } else { e })?;
    let number = people::phone_number(&user);
    // A number, as in the official example, although the page calls it a string.
    let info = json!({"phoneNumber": number, "purePhoneNumber": number, "countryCode": 86,
        "watermark": {"timestamp": now.secs(), "appid": appid.as_str()}});
    Ok(json!({"errcode": 0, "errmsg": "ok", "phone_info": info}))
}
