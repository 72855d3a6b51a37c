//! One call of an endpoint: headers, body, who calls, and how to answer.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequest;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response};
use serde::de::DeserializeOwned;

use crate::body::Body;
use crate::credential::{self, Wafer2};
use crate::problem::{Code, Problem};
use crate::token::Claims;

use super::Auth;
use super::cookie::one;

/// What the pipeline knows of a call. Request extension, set by the gateway before the router.
#[derive(Debug, Clone)]
pub struct CallInfo {
    /// `instance` of problems.
    pub request_id: HeaderValue,
    /// The client's address.
    pub client: IpAddr,
}

/// One call. The body was read, and its size checked, before the router was asked.
#[derive(Debug)]
pub struct Call {
    info: CallInfo,
    method: Method,
    headers: HeaderMap,
    wafer2: Option<Wafer2>,
    body: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = Infallible;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, Infallible> {
        let (parts, body) = request.into_parts();
        let info = parts
            .extensions
            .get::<CallInfo>()
            .cloned()
            .unwrap_or(CallInfo { request_id: HeaderValue::from_static(""), client: IpAddr::from([0, 0, 0, 0]) });
        let wafer2 = parts.extensions.get::<Wafer2>().cloned();
        let request = axum::extract::Request::from_parts(http::Request::new(()).into_parts().0, body);
        // In memory already, so this cannot fail for want of a client.
        let body = Bytes::from_request(request, state).await.unwrap_or_default();
        Ok(Self { info, method: parts.method, headers: parts.headers, wafer2, body })
    }
}

impl Call {
    /// The client's address.
    pub fn client(&self) -> IpAddr {
        self.info.client
    }

    /// The request's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// What a client of the wafer2 SDK showed, on the path of its login.
    pub fn wafer2(&self) -> Option<&Wafer2> {
        self.wafer2.as_ref()
    }

    /// The raw body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The JSON body; unknown members are ignored.
    ///
    /// # Errors
    /// `invalid_request`, when it is not JSON of this shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        read_json(&self.body)
    }

    /// As [`Call::json`], where an empty body means an empty object.
    ///
    /// # Errors
    /// As [`Call::json`].
    pub fn json_or_empty<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.body.trim_ascii().is_empty() { Ok(T::default()) } else { self.json() }
    }

    /// The claims of the caller's access token, which must be good.
    ///
    /// # Errors
    /// `token_*`, `ambiguous_token`; `store_unavailable`, when only a store that is away knows the token's session.
    pub async fn caller(&self, auth: &Auth) -> Result<Claims, Problem> {
        auth.access(self.token(auth)?).await
    }

    /// As [`Call::caller`], also where all but the caller's own session is erased already.
    ///
    /// # Errors
    /// As there.
    pub async fn caller_to_erase(&self, auth: &Auth) -> Result<Claims, Problem> {
        auth.access_to_erase(self.token(auth)?).await
    }

    fn token(&self, auth: &Auth) -> Result<&[u8], Problem> {
        let shown = credential::bearer(&self.headers, auth.section.accept_bare)?;
        one(shown, auth.cookies.shown(self)?.access)?.ok_or_else(Problem::token_missing)
    }

    /// The answer: what the handler made, or its problem with this call's id.
    pub fn answer(&self, made: Result<Response<Body>, Problem>) -> Response<axum::body::Body> {
        made.unwrap_or_else(|problem| self.refuse(problem)).map(axum::body::Body::new)
    }

    /// This problem with this call's id.
    pub fn refuse(&self, problem: Problem) -> Response<Body> {
        problem.into_response(self.info.request_id.to_str().unwrap_or_default())
    }
}

/// The JSON object of a body; unknown members are ignored.
///
/// # Errors
/// `invalid_request`, when it is not JSON of this shape.
pub fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // serde would take an array for the members in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::new(Code::InvalidRequest, "The body must be a JSON object."));
    }
    serde_json::from_slice(body).map_err(|error| {
        // Of serde's messages only the place is passed on: the rest could quote what the client sent.
        let detail = format!(
            "The body must be a JSON object with the members of this endpoint, as text; see line {}, column {}.",
            error.line(),
            error.column()
        );
        Problem::new(Code::InvalidRequest, detail)
    })
}
