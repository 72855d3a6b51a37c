//! A call that somebody else makes, with the app's access token: for services that have none of their own.
//!
//! The body goes both ways as it comes. An answer is looked at only as far as a refused token can hide in it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};

use super::access_token::AccessToken;
use super::client::classify;
use super::{Client, Error, Meaning, answer};
use crate::body::Body;
use crate::ids::AppId;

/// Deadline of one call, uploads and downloads of media included.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An answer that says that the token was refused is shorter than this, bytes.
const SHORT: usize = 8 * 1024;

/// A body on its way to WeChat.
#[derive(Debug)]
pub enum Upload {
    /// Here as a whole.
    Whole(Bytes),
    /// Still arriving.
    Streamed(Body),
}

/// What is called.
#[derive(Debug, Clone)]
pub struct Call {
    /// The app.
    pub appid: AppId,
    /// The entry of the service's list that allows it.
    pub allowed: String,
    /// The method.
    pub method: Method,
    /// The path at WeChat; letters, digits, `_`, `-`, `.` and `/` only.
    pub path: String,
    /// The query as it came, without a token.
    pub query: String,
    /// `Content-Type` and `Content-Length` of the body.
    pub headers: HeaderMap,
}

/// What WeChat answered.
#[derive(Debug)]
pub struct Relayed {
    /// Its status.
    pub status: StatusCode,
    /// What is passed on of its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Body,
    /// The error that it names, or that its status is, when it is a short one.
    pub error: Option<Error>,
}

impl Relayed {
    fn named(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Whether the access token was refused.
    pub fn refused_token(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.meaning() == Some(Meaning::AccessToken))
    }
}

impl Client {
    /// Makes `call` once, unless the circuit of its app and list entry is open. An upload that is streamed has no circuit: it
    /// may break off through the fault of whoever sends it.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::Timeout`], [`Error::Transport`], [`Error::CircuitOpen`]; an errcode is an answer like any
    /// other here.
    pub async fn relay(&self, call: &Call, body: Upload, token: &AccessToken) -> Result<Relayed, Error> {
        match body {
            Upload::Whole(body) => {
                let making = self.make(call, Body::from(body), token);
                self.circuits()
                    .watch(&call.appid, format!("relay {}", call.allowed).into(), making, Relayed::named)
                    .await
            }
            Upload::Streamed(body) => {
                self.circuits().count(&call.appid, self.make(call, body, token), Relayed::named).await
            }
        }
    }

    async fn make(&self, call: &Call, body: Body, token: &AccessToken) -> Result<Relayed, Error> {
        let url = match call.query.as_str() {
            "" => self.url(&call.path),
            query => self.url(&format!("{}?{query}", call.path)),
        };
        let stream = body.into_data_stream();
        let request = self.http().request(call.method.clone(), url).query(&[("access_token", token.expose())]);
        let request = request.headers(call.headers.clone()).timeout(TIMEOUT);
        let request = match call.headers.contains_key(CONTENT_LENGTH) {
            true => request.body(reqwest::Body::wrap_stream(stream)),
            false => request,
        };
        let response = request.send().await.map_err(classify)?;
        if response.status().is_redirection() {
            return Err(Error::Transport("a redirect"));
        }
        let status = response.status();
        let mut headers = HeaderMap::new();
        for name in [CONTENT_TYPE, CONTENT_DISPOSITION, CONTENT_LENGTH] {
            headers.extend(response.headers().get(&name).cloned().map(|value| (name, value)));
        }
        let mut rest = response.bytes_stream();
        let mut start = BytesMut::new();
        let mut whole = true;
        while let Some(chunk) = rest.next().await {
            start.extend_from_slice(&chunk.map_err(classify)?);
            if start.len() > SHORT {
                whole = false;
                break;
            }
        }
        let start: Bytes = start.freeze();
        // Passed on as it is, but no answer of a WeChat that is well.
        let unwell = status.is_server_error().then_some(Error::Transport("a status of 5xx"));
        if whole {
            let error = match answer::parse(&start) {
                Err(error @ Error::Errcode(_)) => Some(error),
                _ => unwell,
            };
            return Ok(Relayed { status, headers, body: Body::from(start), error });
        }
        // Errors of the body hold the URL, and with it the token.
        let rest = rest.map(|chunk| chunk.map_err(classify));
        let chunks = stream::once(async { Ok(start) }).chain(rest).map(|chunk| chunk.map(http_body::Frame::data));
        Ok(Relayed { status, headers, body: Body::boxed(StreamBody::new(chunks)), error: unwell })
    }
}
