//! The composition root: configuration + what lives on → what answers requests.
//!
//! Everything that depends on `gateway.toml` hangs off one immutable [`Snapshot`] behind one pointer; a request uses the
//! one that it met first to its end. A reload makes the next snapshot from the new file and from [`Kept`], which is the
//! list of all that outlives a reload, and swaps. On any fault nothing is swapped.

mod birth;
mod copy;
mod deliver;
mod endpoints;
pub mod explain;
mod figures;
mod forward_auth;
mod inspect;
mod instances;
mod kept;
mod key_care;
mod key_import;
mod key_shelf;
mod lookup;
mod rehearsal;
mod release;
mod reload;
mod renewal;
mod reseal;
mod secure;
mod shared_limits;
mod spans;
mod stores;
mod subscriptions;
mod tls;
mod to_proxy;
mod token_shelf;
mod worker;

#[cfg(test)]
mod simulation;

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;

use crate::acme::Managed;
use crate::auth::cookie::Cookies;
use crate::auth::hook::Hook;
use crate::auth::{self, Auth};
use crate::clock::Clock;
use crate::config::{Config, LimitBy, TokenFormat, WebResult};
use crate::credential::cookie::names;
use crate::metrics::Shard;
use crate::pipeline::assertion;
use crate::pipeline::authenticate::{AuthenticateLayer, Authenticator};
use crate::pipeline::client_addr::ClientAddrLayer;
use crate::pipeline::cors::CorsLayer;
use crate::pipeline::dispatch::Dispatch;
use crate::pipeline::handle::Opaque;
use crate::pipeline::hygiene::HygieneLayer;
use crate::pipeline::identity::IdentityLayer;
use crate::pipeline::limit::{LimitLayer, Limits};
use crate::pipeline::pages::PagesLayer;
use crate::pipeline::principal::Principal;
use crate::pipeline::renew::{RenewLayer, Renewing};
use crate::pipeline::route::{RouteLayer, Routes};
use crate::pipeline::shed::Turnstile;
use crate::pipeline::tenure;
use crate::pipeline::trace::{Observer, TraceLayer};
use crate::pipeline::{Steps, stack};
use crate::proxy::{Forwarder, Upstream};
use crate::telemetry::LogWriter;
use crate::telemetry::export::Spans;
use crate::telemetry::span::Sampler;
use crate::token::assertion::Asserter;
use crate::token::cache::{DEFAULT_CAPACITY, VerifiedCache};
use crate::token::handle::Handles;
use crate::token::keys::KeyRing;
use crate::token::mint::Minter;
use crate::token::recent::RecentlyVerified;
use crate::token::verify::Verifier;
use crate::wechat;

pub use crate::acme::{ALPN as ACME_ALPN, WELL_KNOWN as ACME_WELL_KNOWN};
pub use crate::pipeline::connection::Connection;
pub use crate::pipeline::shed::Passage;
pub use crate::pipeline::trace::{Inbound, Traced};
pub use copy::Copying;
pub use endpoints::Room;
pub use forward_auth::Demand;
pub use inspect::Inspection;
pub use kept::Kept;
pub use key_import::{KeysInStore, MoveError, Moved, sealed as sealed_key};
pub use key_shelf::{Error as ShelfError, KeyShelf, masters};
pub use rehearsal::rehearse;
pub use release::holder;
pub use reload::{ReloadError, Reloaded};
pub use worker::{ConnectionLimits, Worker};

use endpoints::Endpoints;
use lookup::Reader;
use renewal::Renewer;
use reseal::Resealer;
use secure::Secure;
use to_proxy::ToProxy;
use worker::WorkerStack;

/// Why a gateway cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The signing keys.
    #[error("keys: {0}")]
    Keys(#[from] crate::token::keys::Error),
    /// The refresh secret.
    #[error("keys: {0}")]
    Refresh(#[from] crate::token::refresh::Error),
    /// The sealing key.
    #[error("keys: {0}")]
    Vault(#[from] crate::store::vault::Error),
    /// Another key file.
    #[error("keys: {0}")]
    KeyFile(#[source] std::io::Error),
    /// Where the keys are.
    #[error(transparent)]
    KeyShelf(#[from] key_shelf::Error),
    /// The database.
    #[error("store: {0}")]
    Store(#[from] crate::store::sqlite::OpenError),
    /// Redis.
    #[error("store: {0}")]
    Redis(#[from] crate::store::redis::OpenError),
    /// Postgres.
    #[error("store: {0}")]
    Postgres(#[from] crate::store::postgres::OpenError),
    /// What was revoked before the start cannot be read; without it, ended sessions would come back.
    #[error("store: live revocations cannot be read: {0}")]
    Revocations(#[source] crate::store::Error),
    /// The client for the login hook.
    #[error("login hook: {0}")]
    Hook(#[source] reqwest::Error),
    /// TLS of the public listener.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// What an authority issued, beside the keys.
    #[error("acme: {0}")]
    Acme(#[source] std::io::Error),
    /// The client for the OpenTelemetry collector.
    #[error("telemetry: {0}")]
    Telemetry(#[source] reqwest::Error),
    /// The client for WeChat.
    #[error("wechat: {0}")]
    WeChat(#[from] wechat::Error),
}

/// One configuration in force, with all that is made from it. Immutable.
#[derive(Debug)]
pub struct Snapshot {
    /// As checked.
    pub config: Config,
    /// 1 at the start, one more with each reload.
    pub generation: u64,
    ring: Arc<KeyRing>,
    verifier: Arc<Verifier>,
    cache: Arc<VerifiedCache<Principal>>,
    asserter: Arc<Asserter>,
    upstreams: Arc<[Arc<Upstream>]>,
    limits: Limits,
    wechat: wechat::Client,
    auth: Arc<Auth>,
    router: Router,
    tls: Option<Arc<rustls::ServerConfig>>,
    managed: Option<Arc<Managed>>,
    secure: Secure,
    spans: Option<Arc<Spans>>,
}

impl Snapshot {
    fn new(config: Config, kept: &Kept, generation: u64) -> Result<Self, Error> {
        let ring = Arc::new(KeyRing::open(kept.keys.shelf(), config.token.algorithm, &kept.clock)?);
        let verifier = Arc::new(Verifier::new(Arc::clone(&ring), &config.token, kept.clock.clone()));
        kept.revocations.freshness().set_limit(config.token.max_staleness);
        let limits = Limits::new(&config, &kept.limits, &kept.in_flight);
        let hook = config.login.hook.as_ref().map(|hook| Hook::new(hook, Arc::clone(&kept.hook)));
        let by_app = config.login.limit.is_some_and(|limit| limit.by == LimitBy::App);
        let upstreams: Arc<[Arc<Upstream>]> =
            config.upstreams.iter().map(|section| Upstream::new(section, &kept.backends)).collect();
        let wechat = wechat::Client::with_circuits(&config.wechat, Arc::clone(&kept.circuits))?;
        let minter = Minter::new(Arc::clone(&ring), &config.token, kept.clock.clone());
        let handles = Arc::new(Handles::new(&kept.refresh, &config.token, kept.clock.clone()));
        let auth = Auth {
            merge_by_unionid: config.login.merge_by_unionid,
            max_sessions: config.login.max_sessions,
            hook: hook.transpose().map_err(Error::Hook)?,
            login_limit: limits.login.clone().filter(|_| by_app),
            section: config.token.clone(),
            apps: config.apps.clone(),
            base: config.server.base.clone(),
            clock: kept.clock.clone(),
            members: Arc::clone(&kept.members),
            sessions: Arc::clone(&kept.sessions),
            joint: kept.joint.clone(),
            shared: Arc::clone(&kept.shared),
            vault: Arc::clone(&kept.vault),
            open_base: config.wechat.open_base.clone(),
            wechat: wechat.clone(),
            access_tokens: Arc::clone(&kept.access_tokens),
            ring: Arc::clone(&ring),
            minter: match config.token.format {
                TokenFormat::Jwt => minter,
                TokenFormat::Opaque => minter.issuing(Arc::clone(&handles)),
            },
            verifier: Arc::clone(&verifier),
            handles,
            lookups: Arc::clone(&kept.lookups),
            refresh: kept.refresh.clone(),
            revocations: Arc::clone(&kept.revocations),
            renewals: Arc::clone(&kept.renewals),
            metrics: Arc::clone(&kept.metrics),
            logins: Arc::clone(&kept.logins),
            setbacks: Arc::clone(&kept.setbacks),
            pushes: Arc::clone(&kept.pushes),
            deliver: deliver::to(&config.upstreams, &upstreams),
            exchanges: Arc::clone(&kept.exchanges),
            web: Arc::clone(&kept.web),
            followers: Arc::clone(&kept.followers),
            decryptions: Arc::clone(&limits.decrypt),
            cookies: Cookies::new(&config.token, &config.apps),
        };
        let auth = Arc::new(auth);
        let managed = match &config.server.tls.acme {
            Some(section) => {
                let folder = config.token.keys.local().join("acme");
                Some(kept.authority.manage(section, &folder, &kept.clock).map_err(Error::Acme)?)
            }
            None => None,
        };
        Ok(Self {
            router: auth::router(Arc::clone(&auth), &config.server.base, config.login.wafer2.as_deref()),
            auth,
            upstreams,
            wechat,
            // A new cache with each snapshot: what was verified by another ring or policy is verified again.
            cache: Arc::new(VerifiedCache::new(DEFAULT_CAPACITY, assertion::WEIGHT * asserted(&config))),
            asserter: Arc::new(Asserter::new(Arc::clone(&ring), &config.token, kept.clock.clone())),
            tls: tls::config(&config.server.tls, managed.clone(), config.server.http2)?,
            managed,
            secure: Secure::new(&config),
            spans: kept.tracing.spans(config.telemetry.otlp.as_ref())?,
            limits,
            config,
            generation,
            ring,
            verifier,
        })
    }

    /// The signing keys in force.
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Checks access tokens; what was revoked is not known to it.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The client for WeChat.
    pub fn wechat(&self) -> &wechat::Client {
        &self.wechat
    }

    /// What the endpoints work with, for those who ask on somebody's behalf.
    pub fn auth(&self) -> &Arc<Auth> {
        &self.auth
    }

    /// The upstreams, in the order of the file.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }
}

/// For how many upstreams a caller may have an assertion.
fn asserted(config: &Config) -> usize {
    let upstreams: HashSet<usize> = config.routes.iter().filter(|r| r.assertion).filter_map(|r| r.upstream).collect();
    upstreams.len()
}

/// A gateway. Sockets are `server`'s business.
#[derive(Debug)]
pub struct Gateway {
    snapshot: ArcSwap<Snapshot>,
    kept: Kept,
    control: tokio::runtime::Handle,
    /// Counters of what is decided on the control runtime.
    shard: Arc<Shard>,
    reloading: tokio::sync::Mutex<()>,
}

impl Gateway {
    /// Opens keys and store and makes the first snapshot. Must be called on the control runtime, on which endpoints and
    /// background work will run.
    ///
    /// # Errors
    /// Any [`Error`]; nothing is left running then.
    pub async fn open(config: Config, clock: Clock, log: LogWriter) -> Result<Arc<Self>, Error> {
        let kept = Kept::open(&config, clock, log).await?;
        Self::begin(config, kept).await
    }

    /// Makes the first snapshot over what was opened, and starts what goes on in the background.
    async fn begin(config: Config, kept: Kept) -> Result<Arc<Self>, Error> {
        key_care::prepare(&config.token, &kept).await?;
        let snapshot = Snapshot::new(config, &kept, 1)?;
        let gateway = Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            shard: kept.metrics.shard(),
            kept,
            control: tokio::runtime::Handle::current(),
            reloading: tokio::sync::Mutex::default(),
        });
        gateway.register_metrics();
        gateway.kept.start_sweeping();
        let kept = &gateway.kept;
        tenure::watch(&kept.sockets, &kept.streams, &kept.revocations, &kept.renewals, &kept.clock);
        gateway.start_key_care();
        Resealer::new(kept).start();
        Ok(gateway)
    }

    /// The configuration in force, with what is made from it.
    pub fn current(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// What outlives reloads.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// From now on the health answers say that this instance is going away; everything else goes on.
    pub fn start_leaving(&self) {
        self.kept.leaving.store(true, std::sync::atomic::Ordering::Release);
    }

    /// From now on answers say that their connection ends, and open sockets and event streams are ended.
    pub fn start_draining(&self) {
        self.start_leaving();
        self.kept.draining.store(true, std::sync::atomic::Ordering::Release);
        self.kept.sockets.drain();
        self.kept.streams.drain();
    }

    /// Whether it says that it is going away.
    pub fn is_leaving(&self) -> bool {
        self.kept.leaving.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Whether its connections end.
    pub fn is_draining(&self) -> bool {
        self.kept.draining.load(std::sync::atomic::Ordering::Acquire)
    }

    fn stack(
        &self,
        snapshot: &Arc<Snapshot>,
        observer: &Arc<Observer>,
        forwarder: &Forwarder,
        turnstile: &Turnstile,
    ) -> WorkerStack {
        turnstile.aim(snapshot.config.server.shed_above);
        observer.spans.store(snapshot.spans.clone());
        let sampler = snapshot.config.telemetry.otlp.as_ref().map(|otlp| Sampler::new(otlp.sample));
        let trace = TraceLayer::new(Arc::clone(observer), sampler);
        let steps = Steps {
            pages: PagesLayer::new(&snapshot.config.error_pages),
            client_addr: ClientAddrLayer::new(&snapshot.config.server.trusted_proxies),
            hygiene: HygieneLayer::new(snapshot.config.login.wafer2.as_deref()),
            // A table per worker: handing out a route costs no cache line that another core writes.
            route: RouteLayer::new(Arc::new(Routes::counted(&snapshot.config, &snapshot.limits, &observer.shard))),
            limit_before: LimitLayer::before(
                &snapshot.config,
                &snapshot.limits,
                self.kept.clock.clone(),
                &observer.shard,
            ),
            limit_after: LimitLayer::after(self.kept.clock.clone()),
            authenticate: AuthenticateLayer::new(self.authenticator(
                snapshot,
                &observer.shard,
                RecentlyVerified::new(Arc::clone(&snapshot.cache)),
            )),
            cors: Self::endpoint_cors(&snapshot.config),
            renew: RenewLayer(self.renewing(snapshot)),
            identity: IdentityLayer {
                asserter: Arc::clone(&snapshot.asserter),
                subscriptions: self.subscriptions(snapshot),
            },
        };
        let endpoints = Endpoints::new(
            snapshot.router.clone(),
            self.control.clone(),
            self.kept.endpoint_room.clone(),
            Arc::clone(&self.kept.metrics),
        );
        let proxy = ToProxy::new(
            forwarder.clone(),
            Arc::clone(&snapshot.upstreams),
            Arc::clone(&self.kept.sockets),
            snapshot.config.server.max_sockets_per_member,
            &observer.shard,
        );
        stack(&trace, &steps, Dispatch::new(endpoints, proxy, Arc::clone(&self.kept.leaving)))
    }

    /// Pages of the web logins' origins speak to the endpoints.
    pub(super) fn endpoint_cors(config: &Config) -> CorsLayer {
        let web = || config.apps.iter().filter_map(|app| app.web.as_ref());
        let mut origins: Vec<String> = web().flat_map(|web| web.origins.iter().cloned()).collect();
        origins.sort_unstable();
        origins.dedup();
        CorsLayer::new(origins, web().any(|web| web.result == WebResult::Cookie))
    }

    fn renewing(&self, snapshot: &Snapshot) -> Option<Renewing> {
        let by = Arc::new(Renewer { auth: Arc::clone(&snapshot.auth), control: self.control.clone() });
        let within = snapshot.config.token.renew_within?;
        Some(Renewing { within, by, revocations: Arc::clone(&self.kept.revocations), clock: self.kept.clock.clone() })
    }

    fn authenticator(
        &self,
        snapshot: &Snapshot,
        shard: &Arc<Shard>,
        cache: RecentlyVerified<Principal>,
    ) -> Authenticator {
        Authenticator {
            verifier: Arc::clone(&snapshot.verifier),
            cache,
            opaque: Some(Opaque {
                handles: Arc::clone(&snapshot.auth.handles),
                callers: Arc::new(Reader { lookups: Arc::clone(&self.kept.lookups), control: self.control.clone() }),
            }),
            revocations: Arc::clone(&self.kept.revocations),
            renewals: Arc::clone(&self.kept.renewals),
            pseudonyms: self.kept.pseudonyms.clone(),
            clock: self.kept.clock.clone(),
            shard: Arc::clone(shard),
            accept_bare: snapshot.config.token.accept_bare,
            cookies: names(snapshot.config.token.is_secure()),
        }
    }
}
