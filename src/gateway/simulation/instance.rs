//! A gateway as it is, but for its sockets: our composition, endpoints, store and background work, on a simulated host.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tower::ServiceExt as _;
use turmoil::net::TcpListener;

use crate::auth::CallInfo;
use crate::auth::operate::MemberChange;
use crate::config::SessionsStore;
use crate::gateway::kept::Kept;
use crate::gateway::stores::Stores;
use crate::gateway::{Demand, Gateway};
use crate::ids::MemberId;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::store::redis::Redis;

use super::far::Near;
use super::world::World;

pub(super) const PORT: u16 = 80;

/// How soon a supervisor starts it again when it could not start.
const AGAIN: Duration = Duration::from_millis(300);

/// Runs until the host crashes.
pub(super) async fn run(world: Arc<World>, n: usize) -> turmoil::Result {
    let gateway = loop {
        match open(&world, n).await {
            Ok(gateway) => break gateway,
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    };
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let gateway = Arc::clone(&gateway);
        let service = service_fn(move |request| {
            // As on the control runtime: what was begun is finished, also when whoever asked goes away.
            let task = tokio::spawn(answer(Arc::clone(&gateway), request));
            async move { Ok::<_, Infallible>(task.await.expect("an endpoint does not panic")) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn open(world: &Arc<World>, n: usize) -> anyhow::Result<Arc<Gateway>> {
    let config = world.config.clone();
    let SessionsStore::Redis(address) = &config.store.sessions else { anyhow::bail!("sessions are in Redis here") };
    let redis = Redis::open(address).await?;
    let stores = Stores {
        members: Arc::new(Near(Arc::clone(world))),
        birth_mark: redis.birth_mark().to_owned(),
        sessions: Arc::clone(&redis) as _,
        joint: None,
        shared: redis,
        embedded: Vec::new(),
    };
    let clock = world.clocks[n].clone();
    let kept = Kept::over(stores, Arc::new(Metrics::default()), &config, clock, world.log.clone()).await?;
    Ok(Gateway::begin(config, kept).await?)
}

async fn answer(gateway: Arc<Gateway>, request: Request<Incoming>) -> Response<Full<bytes::Bytes>> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return empty(StatusCode::BAD_REQUEST) };
    let path = parts.uri.path().to_owned();
    let mut words = path.split('/').skip(1);
    if words.next() != Some("sim") {
        let mut request = Request::from_parts(parts, axum::body::Body::from(body.to_bytes()));
        request
            .extensions_mut()
            .insert(CallInfo { request_id: HeaderValue::from_static("sim"), client: IpAddr::from([127, 0, 0, 1]) });
        let Ok(response) = gateway.current().router.clone().oneshot(request).await;
        return whole(response).await;
    }
    let (what, id, roles) = (words.next(), words.next().and_then(|id| MemberId::parse(id).ok()), words.next());
    let done = match (what, id) {
        (Some("check"), _) => gateway.identify(&parts.headers, &Demand::default()).await.map(|identity| {
            let roles = identity.get("x-wxgate-roles").and_then(|roles| roles.to_str().ok()).unwrap_or_default();
            roles.to_owned()
        }),
        (Some(what), Some(id)) => {
            let roles = || roles.into_iter().filter(|role| !role.is_empty()).map(ToOwned::to_owned).collect();
            let change = match what {
                "ban" => MemberChange { banned: Some(true), ..MemberChange::default() },
                "unban" => MemberChange { banned: Some(false), ..MemberChange::default() },
                _ => MemberChange { roles: Some(roles()), ..MemberChange::default() },
            };
            gateway.current().auth.change_member(&id, &change).await.map(|_| String::new())
        }
        _ => {
            let apps = &gateway.current().config.apps;
            gateway.current().auth.end_app(&apps[0].appid).await.map(|_| String::new())
        }
    };
    match done {
        Ok(text) => Response::new(Full::from(text)),
        Err(problem) => refused(problem).await,
    }
}

async fn refused(problem: Problem) -> Response<Full<bytes::Bytes>> {
    whole(problem.into_response("sim")).await
}

async fn whole<B>(response: Response<B>) -> Response<Full<bytes::Bytes>>
where
    B: http_body::Body<Data = bytes::Bytes>,
{
    let (parts, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => Response::from_parts(parts, Full::from(body.to_bytes())),
        Err(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn empty(status: StatusCode) -> Response<Full<bytes::Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
