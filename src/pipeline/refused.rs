//! Answers what the guard refused (`server/guard.rs`).
//!
//! The guard passes on a stand-in request for `wxgate://refused/CODE`, a target that no client can send; here it
//! becomes the problem of that code, with an id and a log line like any other answer.

use std::convert::Infallible;
use std::task::{Context, Poll};

use http::HeaderValue;
use http::header::CONNECTION;
use tower::{Layer, Service};

use crate::problem::{Code, Problem};

use super::{Decided, Request, Response};

/// The scheme of stand-in targets.
const SCHEME: &str = "wxgate";

/// Makes [`Refused`].
#[derive(Debug, Clone, Copy)]
pub struct RefusedLayer;

impl<S> Layer<S> for RefusedLayer {
    type Service = Refused<S>;

    fn layer(&self, inner: S) -> Refused<S> {
        Refused { inner }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct Refused<S> {
    inner: S,
}

impl<S> Service<Request> for Refused<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Decided<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let uri = request.uri();
        if uri.scheme_str() != Some(SCHEME) {
            return Decided::passed(self.inner.call(request));
        }
        let code = Code::from_name(uri.path().trim_start_matches('/')).unwrap_or(Code::InvalidRequest);
        let problem = Problem::new(code, detail(code));
        let mut response = request.exchange.refuse(problem);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        Decided::answered(response)
    }
}

fn detail(code: Code) -> &'static str {
    match code {
        Code::UriTooLong => "The request target is over the limit of this gateway ([server] max_uri).",
        Code::HeadersTooLarge => "The request head is over the limit of this gateway ([server] max_head, 100 fields).",
        Code::RequestTimeout => "The request head did not arrive in time ([server] head_timeout).",
        Code::NotImplemented => "CONNECT, TRACE, `*` and transfer codings other than chunked are not implemented.",
        Code::VersionNotSupported => "Use HTTP/1.1.",
        _ => "The request head is not HTTP/1.1 as RFC 9112 writes it, or could be read in more than one way.",
    }
}
