//! Answers in WeChat's manner: HTTP 200 and `text/plain` even for errors, the number in `errcode`, and a trace id at the
//! end of `errmsg` (official page "Server API troubleshooting").

use std::collections::HashMap;

use axum::response::{IntoResponse, Response};
use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::random;
use crate::wechat::session_key::hex;

/// What a call of WeChat gives: an object, or an errcode.
#[derive(Debug)]
pub(super) struct Answer(pub(super) Result<Value, i64>);

/// Response extension: the errcode that was answered. Read by the call log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused(pub(super) i64);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self.0 {
            Ok(value) => text_plain(&value),
            Err(errcode) => {
                let errmsg = format!("{} rid: {}", message(errcode), rid());
                let mut response = text_plain(&json!({"errcode": errcode, "errmsg": errmsg}));
                response.extensions_mut().insert(Refused(errcode));
                response
            }
        }
    }
}

fn text_plain(value: &Value) -> Response {
    let mut response = Response::new(value.to_string().into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// A trace id of today's shape, such as `6f12ab34-0c1d2e3f-4a5b6c7d`.
fn rid() -> String {
    let hex = hex(&random::<12>());
    format!("6{}-{}-{}", &hex[1..8], &hex[8..16], &hex[16..24])
}

/// The text that WeChat puts beside a number, as far as it is known; nobody should rely on it.
const fn message(errcode: i64) -> &'static str {
    match errcode {
        -1 => "system error",
        40001 => "invalid credential, access_token is invalid or not latest",
        40002 => "invalid grant_type",
        40003 => "invalid openid",
        40013 => "invalid appid",
        40014 => "invalid access_token",
        40029 => "invalid code",
        40125 => "invalid appsecret",
        40163 => "code been used",
        40164 => "invalid ip 127.0.0.1, not in whitelist",
        40226 => "code blocked",
        41001 => "access_token missing",
        41002 => "appid missing",
        41004 => "appsecret missing",
        41008 => "missing code",
        41009 => "missing openid",
        42001 => "access_token expired",
        42003 => "code expired",
        43002 => "require POST method",
        44002 => "empty post data",
        45009 => "reach max api daily quota limit",
        45011 => "api minute-quota reach limit, must slower, retry next minute",
        47001 => "data format error",
        48001 => "api unauthorized",
        87008 => "invalid sig_method",
        87009 => "invalid signature",
        _ => "error",
    }
}

/// A query string or form as WeChat reads it: what is missing is empty.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Params(HashMap<String, String>);

impl Params {
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The value, or `errcode` when it is missing or empty.
    pub(super) fn require(&self, name: &str, errcode: i64) -> Result<&str, i64> {
        match self.get(name) {
            "" => Err(errcode),
            value => Ok(value),
        }
    }
}

/// The JSON object of a POST; else 43002, 44002 or 47001.
pub(super) fn json_body(method: &Method, body: &[u8]) -> Result<Map<String, Value>, i64> {
    if method != Method::POST {
        return Err(43002);
    }
    if body.is_empty() {
        return Err(44002);
    }
    serde_json::from_slice(body).map_err(|_| 47001)
}
