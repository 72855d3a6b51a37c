//! Signing keys, and what a token is worth: `/api/keys`, `/api/keys/rotate`, `/api/token/inspect`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ids::Secret;
use crate::problem::{Code, Problem};
use crate::token::keys::Entry;

use super::{Admin, Answer, json_answer, refused, to_its_end};

/// All keys of the ring, with what each is for; nothing of a key itself.
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Answer {
    json_answer(StatusCode::OK, &ring(&admin))
}

fn ring(admin: &Admin) -> Value {
    let snapshot = admin.gateway.current();
    let keys: Vec<Value> = snapshot.ring().entries().iter().map(describe).collect();
    json!({ "algorithm": snapshot.config.token.algorithm.name(), "keys": keys })
}

fn describe(entry: &Entry) -> Value {
    let mut document = json!({
        "kid": entry.key.kid(),
        "algorithm": entry.key.algorithm().name(),
        "state": entry.state,
        "since": entry.since.to_string(),
        "created_at": entry.created_at.to_string(),
    });
    if let Some(at) = entry.signs_at {
        document["signs_at"] = json!(at.to_string());
    }
    document
}

#[derive(Deserialize, Default)]
struct Rotate {
    #[serde(default)]
    now: bool,
}

/// Has a new key take over: `{now?}`. The ring as it is then.
pub(super) async fn rotate(State(admin): State<Arc<Admin>>, body: Bytes) -> Answer {
    let asked = if body.trim_ascii().is_empty() { Ok(Rotate::default()) } else { serde_json::from_slice(&body) };
    let Ok(Rotate { now }) = asked else {
        return refused(Problem::new(Code::InvalidRequest, "Send nothing, or {\"now\": true}."));
    };
    to_its_end(async move {
        let begun = match admin.audit.begin("keys.rotate", now.then_some("now")).await {
            Ok(begun) => begun,
            Err(problem) => return refused(problem),
        };
        match admin.gateway.rotate_keys(now).await {
            Ok(steps) => {
                begun.end(&format!("done: {} steps", steps.len())).await;
                json_answer(StatusCode::OK, &ring(&admin))
            }
            Err(error) => {
                begun.end("failed").await;
                refused(Problem::internal(error))
            }
        }
    })
    .await
}

#[derive(Deserialize)]
struct Inspect {
    token: String,
}

/// What a token is and whether it is good: `{token}`. Changes nothing.
pub(super) async fn inspect(State(admin): State<Arc<Admin>>, body: Bytes) -> Answer {
    let Ok(Inspect { token }) = serde_json::from_slice(&body) else {
        return refused(Problem::new(Code::InvalidRequest, "Send {\"token\": \"…\"}."));
    };
    let token = Secret::new(token);
    match admin.gateway.inspect(token.expose().trim()).await {
        Ok(inspection) => json_answer(StatusCode::OK, &json!(inspection)),
        Err(problem) => refused(problem),
    }
}
