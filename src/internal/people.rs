//! What services ask about people: their data, decrypted, and the keys of their encrypted channel.
//!
//! Both are answered by `auth`, as for the person; the session_key stays inside.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::StatusCode;
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::problem::{Code, Problem};
use crate::wechat::encrypt_key;

use super::relay::Caller;
use super::{Answer, json as answer, refused};

/// Largest body that is read, bytes: as much as the same data may have on the public listener.
pub(super) const MAX_BODY: usize = 256 * 1024;

type Read = Result<Bytes, BytesRejection>;

/// `POST /open-data`: `{appid?, openid, encryptedData, iv}` → the decrypted JSON.
pub(super) async fn open_data(State(gateway): State<Arc<Gateway>>, body: Read) -> Answer {
    let made = async {
        let body = whole(body)?;
        let snapshot = gateway.current();
        let person = snapshot.auth().person(&body)?;
        snapshot.auth().open_data_of(&person, &body).await
    };
    finish(made.await.map(Value::Object))
}

/// `POST /encrypt-keys`: `{appid?, openid}` → WeChat's `key_info_list`. For services that list WeChat's path.
pub(super) async fn encrypt_keys(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    body: Read,
) -> Answer {
    let made = async {
        caller.may_call(encrypt_key::PATH)?;
        let body = whole(body)?;
        let snapshot = gateway.current();
        let person = snapshot.auth().person(&body)?;
        let keys = snapshot.auth().encrypt_keys_of(&person).await?;
        Ok(json!({ "key_info_list": keys }))
    };
    finish(made.await)
}

fn whole(body: Read) -> Result<Bytes, Problem> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::BodyTooLarge, "This endpoint reads at most 256 KiB."),
        _ => Problem::new(Code::InvalidRequest, "The request body broke off."),
    })
}

fn finish(made: Result<Value, Problem>) -> Answer {
    match made {
        Ok(document) => answer(&document),
        Err(problem) => refused(problem),
    }
}
