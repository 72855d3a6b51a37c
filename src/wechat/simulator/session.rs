//! `GET /wxa/checksession` and `GET /wxa/resetusersessionkey` (official pages "Check login state (checkSessionKey)",
//! "Reset login state").

use std::sync::Arc;

use axum::extract::{Query, State};
use serde_json::json;
use subtle::ConstantTimeEq as _;

use super::answer::{Answer, Params};
use super::world::{State as Everything, World};
use crate::ids::AppId;

pub(super) async fn checksession(State(world): State<Arc<World>>, Query(params): Query<Params>) -> Answer {
    let state = world.lock();
    Answer(check(&world, &state, &params).map(|_| json!({"errcode": 0, "errmsg": "ok"})))
}

pub(super) async fn resetusersessionkey(State(world): State<Arc<World>>, Query(params): Query<Params>) -> Answer {
    let mut state = world.lock();
    let user = check(&world, &state, &params);
    Answer(user.map(|(user, appid)| {
        let session_key = state.people.rotate(&user, &appid);
        let openid = params.get("openid");
        json!({"errcode": 0, "errmsg": "ok", "openid": openid, "session_key": session_key.text()})
    }))
}

/// Whose key signed the empty message. Whatever is wrong with openid, key or signature is 87009: the page documents no
/// other failure, so nothing may rely on telling a stale key from a wrong computation.
fn check(world: &World, state: &Everything, params: &Params) -> Result<(String, AppId), i64> {
    let appid = state.tokens.check(params.get("access_token"), world.clock.now())?;
    if params.get("sig_method") != "hmac_sha256" {
        return Err(87008);
    }
    let person = state.people.find(params.get("openid")).filter(|person| person.appid == appid).ok_or(87009)?;
    let expected = person.current.sign(b"");
    match bool::from(expected.as_bytes().ct_eq(params.get("signature").as_bytes())) {
        true => Ok((person.user.clone(), appid)),
        false => Err(87009),
    }
}
