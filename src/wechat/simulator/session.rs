//! `GET /wxa/checksession`, `GET /wxa/resetusersessionkey` and `GET /wxa/business/getuserencryptkey` (official pages "Check
//! login state (checkSessionKey)", "Reset login state", "Get user encryptKey").

use std::sync::Arc;

use aws_lc_rs::digest;
use axum::extract::{Query, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use subtle::ConstantTimeEq as _;

use super::answer::{Answer, Params};
use super::world::{State as Everything, World};
use crate::ids::AppId;
use crate::wechat::session_key::hex;

/// Life of a key of the encrypted channel, seconds.
const KEY_LIFE: u64 = 3600;

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

/// The keys of this hour and of the two before it. Computed from the person and the hour: what a phone would have to know.
pub(super) async fn getuserencryptkey(State(world): State<Arc<World>>, Query(params): Query<Params>) -> Answer {
    let state = world.lock();
    let now = u64::try_from(world.clock.now().secs()).unwrap_or_default();
    Answer(check(&world, &state, &params).map(|(user, appid)| {
        let hour = now / KEY_LIFE;
        let keys: Vec<_> = (0..3)
            .map(|ago| {
                let version = hour.saturating_sub(ago);
                let parts = format!("encrypt_key\0{}\0{user}\0{version}", appid.as_str());
                let hash = digest::digest(&digest::SHA256, parts.as_bytes());
                let (key, iv) = hash.as_ref().split_at(16);
                json!({
                    "encrypt_key": STANDARD.encode(key),
                    "iv": hex(&iv[..8]),
                    "version": version,
                    "expire_in": ((version + 1) * KEY_LIFE).saturating_sub(now),
                    "create_time": version * KEY_LIFE,
                })
            })
            .collect();
        json!({"errcode": 0, "errmsg": "ok", "key_info_list": keys})
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
