//! Signing and sealing keys, and what a token is worth: `/api/keys`, `/api/keys/rotate`, `/api/keys/import`,
//! `/api/token/inspect`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::gateway::{Error, ShelfError};
use crate::ids::Secret;
use crate::problem::{Code, Problem};
use crate::store::vault::keys::Described;
use crate::token::keys::{self, Entry, Imported};

use super::{Admin, Answer, json_answer, refused, to_its_end};

/// All keys of the ring, and all that seal, with what each is for; nothing of a key itself.
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Answer {
    json_answer(StatusCode::OK, &ring(&admin))
}

fn ring(admin: &Admin) -> Value {
    let snapshot = admin.gateway.current();
    let keys: Vec<Value> = snapshot.ring().entries().iter().map(describe).collect();
    let sealing: Vec<Value> = admin.gateway.kept().vault.list().iter().map(describe_sealing).collect();
    json!({ "algorithm": snapshot.config.token.algorithm.name(), "keys": keys, "sealing": sealing })
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

fn describe_sealing(key: &Described) -> Value {
    let mut document = json!({ "id": key.id, "state": key.state });
    for (name, at) in [("created_at", key.made_at), ("seals_from", key.seals_from)] {
        if let Some(at) = at {
            document[name] = json!(at.to_string());
        }
    }
    document
}

#[derive(Deserialize, Default)]
struct Rotate {
    #[serde(default)]
    now: bool,
    /// The key that seals session keys in the store, not one that signs.
    #[serde(default)]
    sealing: bool,
}

/// Has a new key take over: `{now?, sealing?}`. The ring as it is then.
pub(super) async fn rotate(State(admin): State<Arc<Admin>>, body: Bytes) -> Answer {
    let asked = if body.trim_ascii().is_empty() { Ok(Rotate::default()) } else { serde_json::from_slice(&body) };
    let Ok(Rotate { now, sealing }) = asked else {
        let what = "Send nothing, or {\"now\": true, \"sealing\": true}, or one of the two.";
        return refused(Problem::new(Code::InvalidRequest, what));
    };
    to_its_end(async move {
        let what = if sealing { "keys.rotate.sealing" } else { "keys.rotate" };
        let begun = match admin.audit.begin(what, now.then_some("now")).await {
            Ok(begun) => begun,
            Err(problem) => return refused(problem),
        };
        let rotated = match sealing {
            true => admin.gateway.rotate_sealing(now).await.map(|_| 1),
            false => admin.gateway.rotate_keys(now).await.map(|steps| steps.len()),
        };
        match rotated {
            Ok(steps) => {
                begun.end(&format!("done: {steps} steps")).await;
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
struct Import {
    /// The key, sealed with the master key of the deployment; base64.
    sealed: String,
}

/// Takes a key into the ring that is in the store: `{sealed}`, as `wxgate keys import` makes it.
pub(super) async fn import(State(admin): State<Arc<Admin>>, body: Bytes) -> Answer {
    let asked = serde_json::from_slice::<Import>(&body).ok();
    let Some(sealed) = asked.and_then(|asked| STANDARD.decode(asked.sealed).ok()) else {
        let what = "Send {\"sealed\": \"…\"}; `wxgate keys import` does.";
        return refused(Problem::new(Code::InvalidRequest, what));
    };
    if !admin.gateway.kept().keys.is_in_store() {
        let what = "The keys of this gateway are in a folder: `wxgate keys import` writes there itself.";
        return refused(Problem::new(Code::NotImplemented, what));
    }
    to_its_end(async move {
        let begun = match admin.audit.begin("keys.import", None).await {
            Ok(begun) => begun,
            Err(problem) => return refused(problem),
        };
        match admin.gateway.import_key(&sealed).await {
            Ok(Imported { algorithm, kid, replaced, signs_at }) => {
                begun.end(&format!("done: {} key {kid}", algorithm.name())).await;
                let signs_at = signs_at.map(|at| at.to_string());
                let document =
                    json!({ "algorithm": algorithm.name(), "kid": kid, "replaced": replaced, "signs_at": signs_at });
                json_answer(StatusCode::OK, &document)
            }
            // Says why, and nothing of the key.
            Err(Error::Keys(keys::Error::Unfit(fault))) => {
                begun.end("refused: the key is not fit").await;
                refused(Problem::new(Code::InvalidRequest, format!("The key was not taken: {fault}.")))
            }
            Err(Error::KeyShelf(ShelfError::Sealed(error))) => {
                begun.end("refused: the key does not open").await;
                refused(Problem::new(Code::InvalidRequest, format!("The key that was sent {error}.")))
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
