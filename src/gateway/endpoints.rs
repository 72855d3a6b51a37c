//! Takes calls of the gateway's own endpoints from a worker to the control runtime, and the answers back.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tower::Service;

use crate::auth::CallInfo;
use crate::body::Body;
use crate::pipeline::dispatch::Awaited;
use crate::pipeline::{Exchange, Request, Response};
use crate::problem::{Code, Problem};

/// Largest body that an endpoint reads, bytes: the largest legitimate one is a few KiB of encrypted open data.
const MAX_BODY: usize = 256 * 1024;

/// How long that body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an endpoint may take in all: above every deadline inside (WeChat 5 s, store 5 s), so that those speak first.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(60);

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    router: Router,
    control: Handle,
    permits: Arc<Semaphore>,
}

impl Endpoints {
    pub(super) fn new(router: Router, control: Handle, permits: &Arc<Semaphore>) -> Self {
        Self { router, control, permits: Arc::clone(permits) }
    }
}

impl Service<Request> for Endpoints {
    type Response = Response;
    type Error = Infallible;
    type Future = Awaited;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Awaited {
        let exchange = match Exchange::of(&request) {
            Ok(exchange) => Arc::clone(exchange),
            Err(missing) => return Box::pin(std::future::ready(Ok(missing.into_response("")))),
        };
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            let problem = Problem::new(Code::Overloaded, "Too many logins at once: try again in a moment.");
            return Box::pin(std::future::ready(Ok(exchange.refuse(problem))));
        };
        let router = self.router.clone();
        let info = CallInfo { request_id: exchange.id().clone(), client: exchange.client() };
        // A task of its own: when the client goes away in the middle of a login, the login is finished all the same.
        let task = self.control.spawn(async move {
            let _permit = permit;
            tokio::time::timeout(ENDPOINT_TIMEOUT, answer(router, request, info)).await
        });
        Box::pin(async move {
            Ok(match task.await {
                Ok(Ok(Ok(response))) => response,
                Ok(Ok(Err(problem))) => exchange.refuse(problem),
                Ok(Err(_)) => exchange.refuse(Problem::internal("an endpoint took too long")),
                Err(failed) => exchange.refuse(Problem::internal(failed)),
            })
        })
    }
}

async fn answer(mut router: Router, request: Request, info: CallInfo) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let body = read(&parts.headers, body).await?;
    parts.extensions.insert(info);
    let Ok(response) = router.call(http::Request::from_parts(parts, axum::body::Body::from(body))).await;
    let (parts, body) = response.into_parts();
    // Endpoints answer from memory; taken whole, the worker gets it in one piece.
    let body = body.collect().await.map_err(Problem::internal)?.to_bytes();
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// The whole body, within its limits.
async fn read(headers: &http::HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Code::BodyTooLarge, "An endpoint reads at most 256 KiB.");
    let announced = headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BODY) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::new(Code::InvalidRequest, "The request body broke off.").caused_by(error)),
        Err(_) => Err(Problem::new(Code::RequestTimeout, "The request body did not arrive in time.")),
    }
}
