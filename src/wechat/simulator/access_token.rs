//! `GET /cgi-bin/token` and `POST /cgi-bin/stable_token` (official pages "Get interface call credential", "Get stable
//! interface call credential").

use std::sync::Arc;

use axum::extract::{Query, State};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::answer::{Answer, Params, json_body};
use super::token_lines::Granted;
use super::world::World;

const GRANT_TYPE: &str = "client_credential";

pub(super) async fn token(State(world): State<Arc<World>>, Query(params): Query<Params>) -> Answer {
    Answer(classic(&world, &params).map(|granted| answer(&granted)))
}

fn classic(world: &World, params: &Params) -> Result<Granted, i64> {
    if params.get("grant_type") != GRANT_TYPE {
        return Err(40002);
    }
    let appid = params.require("appid", 41002)?;
    let secret = params.require("secret", 41004)?;
    let mut state = world.lock();
    let appid = state.apps.check(appid, secret)?;
    Ok(state.tokens.classic(&appid, world.clock.now()))
}

pub(super) async fn stable_token(State(world): State<Arc<World>>, method: Method, body: Bytes) -> Answer {
    Answer(stable(&world, &method, &body).map(|granted| answer(&granted)))
}

fn stable(world: &World, method: &Method, body: &[u8]) -> Result<Granted, i64> {
    let body = json_body(method, body)?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).filter(|value| !value.is_empty());
    if text("grant_type") != Some(GRANT_TYPE) {
        return Err(40002);
    }
    let appid = text("appid").ok_or(41002)?;
    let secret = text("secret").ok_or(41004)?;
    let force = body.get("force_refresh").and_then(Value::as_bool).unwrap_or(false);
    let mut state = world.lock();
    let appid = state.apps.check(appid, secret)?;
    Ok(state.tokens.stable(&appid, force, world.clock.now()))
}

fn answer(granted: &Granted) -> Value {
    json!({"access_token": granted.text, "expires_in": granted.expires_in})
}
