//! A pushed message to its upstream: the same way as a request, with the identity headers of a push.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::Instant;

use crate::auth::push::{DEADLINE, Deliver, Delivery, Reply};
use crate::body::Body;
use crate::config;
use crate::pipeline::identity;
use crate::problem::{Code, Problem};
use crate::proxy::{Forwarder, Limits, Outbound, Upstream};

/// Largest reply, bytes; WeChat's own limit for one is 2 KiB of text.
const MAX_REPLY: usize = 64 * 1024;

/// Longest silence in a body; [`DEADLINE`] comes first.
const IDLE: Duration = DEADLINE;

/// The way to these upstreams.
pub(super) fn to(sections: &[config::Upstream], upstreams: &Arc<[Arc<Upstream>]>) -> Deliver {
    let hosts: Vec<Option<HeaderValue>> = sections
        .iter()
        .map(|section| HeaderValue::from_str(section.servers.first()?.authority.as_str()).ok())
        .collect();
    let upstreams = Arc::clone(upstreams);
    Deliver::new(move |delivery| {
        let upstream = upstreams.get(delivery.upstream).cloned();
        let host = hosts.get(delivery.upstream).cloned().flatten();
        Box::pin(async move {
            let (Some(upstream), Some(host)) = (upstream, host) else {
                return Err(Problem::internal("a push names an upstream that is not there"));
            };
            send(delivery, upstream, host).await
        })
    })
}

async fn send(delivery: Delivery, upstream: Arc<Upstream>, host: HeaderValue) -> Result<Reply, Problem> {
    let mut request =
        Request::post(delivery.path.as_str()).body(Body::from(delivery.body)).map_err(Problem::internal)?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    identity::inject_push(headers, &delivery.appid, delivery.openid.as_ref());
    let total = Some(DEADLINE);
    let limits = Limits { response_head: DEADLINE, idle: IDLE, total, max_body: u64::MAX, min_body_rate: 0 };
    // A connection for each: pushes are few, and one that is not kept cannot have gone stale.
    let outbound = Outbound {
        now: Instant::now(),
        request: Box::new(request),
        upstream,
        limits,
        affinity: 0,
        upgrade: None,
        retry: None,
        witness: None,
    };
    let (parts, body) = Forwarder::new().forward(outbound).await?.into_parts();
    if !parts.status.is_success() {
        let cause = format!("a push was answered {}", parts.status);
        return Err(Problem::new(Code::UpstreamFailed, "The service did not take the message.").caused_by(cause));
    }
    let body: Bytes = match Limited::new(body, MAX_REPLY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(cause) => {
            return Err(Problem::new(Code::UpstreamFailed, "The service gave no valid answer.").caused_by(cause));
        }
    };
    Ok(Reply { content_type: parts.headers.get(CONTENT_TYPE).cloned(), body })
}
