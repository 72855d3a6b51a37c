//! What would be done with a request: the request path itself, with nothing behind it.
//!
//! The layers are those of [`pipeline::decisions`](crate::pipeline::decisions) and the dispatch is the real one; in the
//! place of endpoints and proxy stand [`Witnessed`] services that write down what reaches them. The caller shows a token
//! that a key made for this one question has signed. No socket, store or key of the gateway is opened.

use std::convert::Infallible;
use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::header::{AUTHORIZATION, HOST};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Uri};
use tokio::time::Instant;
use tower::Service;

use crate::body::Body;
use crate::clock::Clock;
use crate::config::{Algorithm, Config};
use crate::credential::cookie;
use crate::ids::{AppId, MemberId, OpenId, SessionId};
use crate::limiter::Tables;
use crate::metrics::Metrics;
use crate::pipeline::authenticate::{AuthenticateLayer, Authenticator};
use crate::pipeline::client_addr::ClientAddrLayer;
use crate::pipeline::connection::Connection;
use crate::pipeline::dispatch::{Awaited, Dispatch, ToUpstream};
use crate::pipeline::hygiene::HygieneLayer;
use crate::pipeline::identity::IdentityLayer;
use crate::pipeline::in_flight;
use crate::pipeline::limit::{LimitLayer, Limits};
use crate::pipeline::pages::PagesLayer;
use crate::pipeline::renew::RenewLayer;
use crate::pipeline::route::{RouteLayer, Routes};
use crate::pipeline::trace::RequestIds;
use crate::pipeline::{Decisions, Exchange, Request, Response, Steps, decisions};
use crate::telemetry::Pseudonyms;
use crate::token::Grant;
use crate::token::assertion::Asserter;
use crate::token::keys::KeyRing;
use crate::token::mint::Minter;
use crate::token::recent::RecentlyVerified;
use crate::token::revocation::Revocations;
use crate::token::verify::Verifier;

use super::Gateway;

/// A request that is asked about.
#[derive(Debug)]
pub struct Question {
    /// Its method.
    pub method: Method,
    /// Its URL, or its path alone, on the host of the issuer then.
    pub url: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Whose token it carries; `None` is no token.
    pub caller: Option<Caller>,
    /// The address it comes from.
    pub from: IpAddr,
}

/// A caller that is asked about.
#[derive(Debug)]
pub struct Caller {
    /// The openid.
    pub openid: OpenId,
    /// The app.
    pub appid: AppId,
    /// The roles.
    pub roles: Vec<String>,
}

/// What would become of it.
#[derive(Debug)]
pub struct Explained {
    /// The request as it came in.
    pub before: HeaderMap,
    /// What the steps have found out.
    pub exchange: Arc<Exchange>,
    /// The request that would go to an upstream, if it would.
    pub forwarded: Option<Box<http::Request<Body>>>,
    /// The answer; of an upstream's, nothing is known.
    pub answer: Response,
}

/// Asks the request path of this configuration.
///
/// # Errors
/// When no key can be made, or the question makes no request.
pub async fn explain(config: &Config, question: Question) -> anyhow::Result<Explained> {
    let folder = tempfile::tempdir()?;
    let clock = Clock::system();
    let mut token = config.token.clone();
    token.algorithm = Algorithm::Es256;
    let ring = Arc::new(KeyRing::open(folder.path(), token.algorithm, &clock)?);
    let mut request = request(config, &question)?;
    if let Some(caller) = &question.caller {
        let now = clock.now();
        let minted = Minter::new(Arc::clone(&ring), &token, clock.clone()).mint(&Grant {
            member_id: MemberId::new_v7(),
            session_id: SessionId::new_v7(now),
            appid: caller.appid.clone(),
            openid: caller.openid.clone(),
            unionid: None,
            roles: caller.roles.clone(),
            auth_time: now,
            session_expires_at: now.plus(token.session_ttl),
            user_id: None,
            claims: Default::default(),
        })?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", minted.token.expose()))?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
    }
    let https = question.url.scheme() != Some(&Scheme::HTTP);
    let connection = Arc::new(Connection::new(SocketAddr::new(question.from, 0), https));
    let exchange = Arc::new(Exchange::new(connection, RequestIds::new().next(), Instant::now()));
    let before = request.headers().clone();
    let request = Request { http: request, exchange: Arc::clone(&exchange) };

    let seen = Seen::default();
    let verifier = Arc::new(Verifier::new(Arc::clone(&ring), &token, clock.clone()));
    let asserter = Arc::new(Asserter::new(ring, &token, clock.clone()));
    let Ok(answer) = path(config, (verifier, asserter), &clock, &seen).call(request).await;
    let forwarded = seen.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(Explained { before, exchange, forwarded, answer })
}

fn request(config: &Config, question: &Question) -> anyhow::Result<Box<http::Request<Body>>> {
    let issuer: Uri = config.token.issuer.parse()?;
    let host = question.url.authority().or(issuer.authority()).map_or("", |authority| authority.as_str());
    let target = question.url.path_and_query().map_or("/", |target| target.as_str());
    let mut request = http::Request::builder().method(question.method.clone()).uri(target).body(Body::empty())?;
    *request.headers_mut() = question.headers.clone();
    if !request.headers().contains_key(HOST) {
        request.headers_mut().insert(HOST, HeaderValue::from_str(host)?);
    }
    Ok(Box::new(request))
}

/// The request path, but for what lies around it (log, metrics) and behind it.
fn path(
    config: &Config,
    (verifier, asserter): (Arc<Verifier>, Arc<Asserter>),
    clock: &Clock,
    seen: &Seen,
) -> Decisions<Dispatch<Witnessed, Witnessed>> {
    let limits = Limits::new(config, &Tables::default(), &in_flight::Tables::default());
    let shard = Metrics::default().shard();
    let authenticator = Authenticator {
        verifier,
        cache: RecentlyVerified::none(Arc::default()),
        // Whose they are, no store is asked here: the caller of a question has a JWT.
        opaque: None,
        revocations: Arc::new(Revocations::new()),
        pseudonyms: Pseudonyms::new(&[0; 32]),
        clock: clock.clone(),
        shard: Arc::clone(&shard),
        renewals: Arc::default(),
        accept_bare: config.token.accept_bare,
        cookies: cookie::names(config.token.is_secure()),
    };
    let witnessed = Witnessed(seen.clone());
    let steps = Steps {
        pages: PagesLayer::default(),
        client_addr: ClientAddrLayer::new(&config.server.trusted_proxies),
        hygiene: HygieneLayer::new(config.login.wafer2.as_deref()),
        route: RouteLayer::new(Arc::new(Routes::new(config, &limits))),
        cors: Gateway::endpoint_cors(config),
        limit_before: LimitLayer::before(config, &limits, clock.clone(), &shard),
        limit_after: LimitLayer::after(clock.clone()),
        authenticate: AuthenticateLayer::new(authenticator),
        renew: RenewLayer::default(),
        // Who follows what is asked of WeChat, and nobody is asked here.
        identity: IdentityLayer { asserter, subscriptions: None },
    };
    decisions(&steps, Dispatch::new(witnessed.clone(), witnessed, Arc::default()))
}

#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<Option<Box<http::Request<Body>>>>>);

/// Stands where endpoints and upstreams are.
#[derive(Debug, Clone)]
struct Witnessed(Seen);

impl Service<ToUpstream> for Witnessed {
    type Response = Response;
    type Error = Infallible;
    type Future = Awaited;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut to: ToUpstream) -> Awaited {
        to.gather();
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(to.request);
        Box::pin(ready(Ok(Response::default())))
    }
}

/// An endpoint decides for itself.
impl Service<Request> for Witnessed {
    type Response = Response;
    type Error = Infallible;
    type Future = Awaited;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Awaited {
        Box::pin(ready(Ok(Response::default())))
    }
}
