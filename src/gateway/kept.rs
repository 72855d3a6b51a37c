//! What outlives a reload: all of it, in one place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::acme::Authority;
use crate::auth::ending;
use crate::auth::follower::Followers;
use crate::auth::hook::HookHealth;
use crate::auth::login::Logins;
use crate::auth::lookup::Lookups;
use crate::auth::push::Pushes;
use crate::auth::session_keys::Exchanges;
use crate::auth::web::WebLogins;
use crate::clock::{Clock, Setbacks, Timestamp};
use crate::config::{Config, SessionsStore};
use crate::ids::AppId;
use crate::keyfile::Shelf;
use crate::limiter::Tables;
use crate::metrics::{Metrics, label};
use crate::pipeline::dispatch::Draining;
use crate::pipeline::in_flight;
use crate::pipeline::sockets::Sockets;
use crate::pipeline::streams::Streams;
use crate::proxy::Backends;
use crate::store::joint::Joint;
use crate::store::shared::Shared;
use crate::store::sqlite::Sqlite;
use crate::store::vault::{self, Vault};
use crate::store::{Members, Sessions};
use crate::telemetry::{LogWriter, Pseudonyms};
use crate::token::refresh::RefreshSecret;
use crate::token::renewal::Renewals;
use crate::token::revocation::Revocations;
use crate::wechat::{AccessTokens, Circuits};

use super::endpoints::Room;
use super::instances::Instances;
use super::key_shelf::{self, KeyShelf};
use super::shared_limits::SharedLimits;
use super::spans::Tracing;
use super::stores::{self, Stores};
use super::token_shelf::TokenShelf;
use super::{Error, birth};

/// How often expired rows and revocations are deleted, and memory is compared with the store.
const SWEEP: Duration = Duration::from_secs(60);

/// File of the key that people's names in logs are made with.
pub(super) const LOG_KEY: &str = "log.key";

/// The long-lived parts.
#[derive(Debug)]
pub struct Kept {
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where log lines go.
    pub log: LogWriter,
    /// Who is a member.
    pub members: Arc<dyn Members>,
    /// Members and sessions, where they are in one database.
    pub joint: Option<Arc<dyn Joint>>,
    /// Who is logged in.
    pub sessions: Arc<dyn Sessions>,
    /// Those of them that are files of this process alone.
    pub embedded: Vec<Arc<Sqlite>>,
    /// Where the keys are.
    pub keys: Arc<KeyShelf>,
    /// What instances have in common.
    pub shared: Arc<dyn Shared>,
    /// Seals session_key.
    pub vault: Arc<Vault>,
    /// Makes refresh tokens.
    pub refresh: RefreshSecret,
    /// Tokens that ended before their time.
    pub revocations: Arc<Revocations>,
    /// Whom opaque tokens stand for.
    pub lookups: Arc<Lookups>,
    /// Sessions that got newer tokens.
    pub renewals: Arc<Renewals>,
    /// Logins under way.
    pub logins: Arc<Logins>,
    /// Whether the clock was set back.
    pub setbacks: Arc<Setbacks>,
    /// Pushed messages that were delivered.
    pub pushes: Arc<Pushes>,
    /// Exchanges of `login_code` under way.
    pub exchanges: Arc<Exchanges>,
    /// Web logins under way.
    pub web: Arc<WebLogins>,
    /// Who follows which official account.
    pub followers: Arc<Followers>,
    /// How the login hook fares.
    pub hook: Arc<HookHealth>,
    /// What is known of WeChat's health.
    pub circuits: Arc<Circuits>,
    /// The apps' credentials at WeChat.
    pub access_tokens: Arc<AccessTokens>,
    /// People's names in logs.
    pub pseudonyms: Pseudonyms,
    /// Who has used what how often.
    pub limits: Arc<Tables>,
    /// What is under way on routes that limit it.
    pub in_flight: Arc<in_flight::Tables>,
    /// Servers of upstreams: addresses, load.
    pub backends: Backends,
    /// Certificates that an authority issues.
    pub authority: Authority,
    /// Connections that have left HTTP.
    pub sockets: Arc<Sockets>,
    /// Answers that go on.
    pub streams: Arc<Streams>,
    /// Whether the health answers say that the gateway is going away.
    pub leaving: Draining,
    /// Whether its connections end.
    pub draining: Draining,
    /// Room for calls of endpoints.
    pub endpoint_room: Room,
    /// Where recorded requests go.
    pub tracing: Tracing,
}

impl Kept {
    /// Opens keys and store, and loads what was revoked.
    pub(super) async fn open(config: &Config, clock: Clock, log: LogWriter) -> Result<Self, Error> {
        key_shelf::make_folder(&config.token.keys)?;
        let metrics = Arc::new(Metrics::default());
        let stores = stores::open(&config.store, &metrics, &clock).await?;
        Self::over(stores, metrics, config, clock, log).await
    }

    /// As [`Kept::open`], over stores that are open.
    pub(super) async fn over(
        stores: Stores,
        metrics: Arc<Metrics>,
        config: &Config,
        clock: Clock,
        log: LogWriter,
    ) -> Result<Self, Error> {
        let Stores { members, sessions, joint, shared, embedded, birth_mark } = stores;
        let keys = Arc::new(KeyShelf::new(&config.token.keys, &sessions, &clock)?);
        let now = clock.now();
        let epoch = keys.change_here(|shelf| made(shelf, &birth_mark, now)).await?;
        let limits = Arc::<Tables>::default();
        register_limits(&metrics, &limits);
        let tracing = Tracing::default();
        tracing.register(&metrics);
        let hook = Arc::<HookHealth>::default();
        register_hook(&metrics, &hook);
        let revocations = Arc::new(Revocations::new());
        if let Some(epoch) = epoch {
            revocations.revoke_all(epoch);
        }
        revocations.freshness().set_limit(config.token.max_staleness);
        let recorded = (Arc::clone(&keys), birth_mark);
        let instances = Instances::begin(&shared, &sessions, &revocations, recorded, &clock).await;
        let instances = instances.map_err(Error::Revocations)?;
        ending::resync(&*sessions, &revocations, clock.now()).await.map_err(Error::Revocations)?;
        if let Some(instances) = instances {
            instances.start();
        }
        let vault = Arc::new(Vault::open(keys.shelf(), &clock)?);
        let shelf =
            TokenShelf { sessions: Arc::clone(&sessions), shared: Arc::clone(&shared), vault: Arc::clone(&vault) };
        let access_tokens = Arc::new(AccessTokens::new(clock.clone(), Arc::new(shelf)));
        let circuits = Arc::new(Circuits::new(clock.clone(), Arc::clone(&metrics)));
        register_wechat(&metrics, &circuits, &access_tokens, &clock);
        let refresh = RefreshSecret::open(keys.shelf())?;
        if matches!(config.store.sessions, SessionsStore::Redis(_)) {
            SharedLimits::start(&limits, &shared, &clock, &refresh, &metrics);
        }
        let lookups = Arc::new(Lookups::new(&members, &sessions, &revocations, &clock));
        register_lookups(&metrics, &lookups);
        Ok(Self {
            lookups,
            vault,
            web: Arc::new(WebLogins::new(&refresh, &shared)),
            followers: Arc::default(),
            exchanges: Arc::default(),
            hook,
            circuits,
            authority: Authority::default(),
            access_tokens,
            refresh,
            pseudonyms: Pseudonyms::new(&log_key(keys.shelf()).map_err(Error::KeyFile)?),
            sockets: Sockets::new(Arc::clone(&revocations)),
            streams: Streams::new(Arc::clone(&revocations)),
            renewals: Arc::default(),
            clock,
            metrics,
            log,
            members,
            joint,
            sessions,
            embedded,
            keys,
            shared,
            revocations,
            logins: Arc::default(),
            setbacks: Arc::default(),
            limits,
            in_flight: Arc::default(),
            pushes: Arc::default(),
            backends: Backends::new(),
            leaving: Arc::new(AtomicBool::new(false)),
            draining: Arc::new(AtomicBool::new(false)),
            endpoint_room: Room::default(),
            tracing,
        })
    }

    /// Deletes what has expired, now and then, until the gateway is dropped.
    pub(super) fn start_sweeping(&self) {
        let (sessions, revocations) = (Arc::downgrade(&self.sessions), Arc::downgrade(&self.revocations));
        let clock = self.clock.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(SWEEP);
            loop {
                tick.tick().await;
                let (Some(sessions), Some(revocations)) = (sessions.upgrade(), revocations.upgrade()) else { return };
                match ending::sweep(&*sessions, &revocations, clock.now()).await {
                    Ok(0) => {}
                    Ok(rows) => tracing::debug!(rows, "expired rows deleted"),
                    Err(error) => tracing::warn!(%error, "expired rows could not be deleted; trying again later"),
                }
            }
        });
    }
}

/// Makes what a first start makes, all but the signing keys; notes which store this is. Returns before when no login counts.
fn made(shelf: &Shelf, birth_mark: &str, now: Timestamp) -> Result<Option<Timestamp>, Error> {
    let epoch = birth::epoch(shelf, birth_mark, now).map_err(Error::KeyFile)?;
    vault::keys::make(shelf, now)?;
    RefreshSecret::open(shelf)?;
    log_key(shelf).map_err(Error::KeyFile)?;
    Ok(epoch)
}

/// The key for names in logs; made on the first start.
pub(super) fn log_key(shelf: &Shelf) -> std::io::Result<Zeroizing<Vec<u8>>> {
    match shelf.read(LOG_KEY) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut fresh = Zeroizing::new([0; 32]);
            rand::fill(fresh.as_mut_slice())
                .map_err(|_| std::io::Error::other("the system gives no random numbers"))?;
            shelf.write_new(LOG_KEY, fresh.as_slice())
        }
        other => other,
    }
}

#[allow(clippy::cast_precision_loss)] // counts and seconds far from 2^53
fn register_wechat(metrics: &Metrics, circuits: &Arc<Circuits>, tokens: &Arc<AccessTokens>, clock: &Clock) {
    // Weak, because the circuits hold the metrics.
    let of_circuits = |read: fn(&Circuits) -> u64| {
        let circuits = Arc::downgrade(circuits);
        move || circuits.upgrade().map(|c| (String::new(), read(&c) as f64)).into_iter().collect::<Vec<_>>()
    };
    let opened = of_circuits(Circuits::opened);
    metrics.register("wxgate_wechat_circuit_opened_total", "counter", "Circuits that opened.", opened);
    let refused = of_circuits(Circuits::refused);
    metrics.register("wxgate_wechat_circuit_refused_total", "counter", "Calls not made: open circuit.", refused);
    let list = Arc::downgrade(circuits);
    metrics.register(
        "wxgate_wechat_circuit_open",
        "gauge",
        "1 while calls are not made, by app and call.",
        move || {
            let list = list.upgrade().map(|circuits| circuits.list()).unwrap_or_default();
            let label = |appid: &AppId, call: &str| format!("{{app=\"{}\",call=\"{call}\"}}", appid.as_str());
            list.iter().map(|(appid, call, open)| (label(appid, call), f64::from(u8::from(*open)))).collect()
        },
    );
    let quotas = Arc::downgrade(circuits);
    metrics.register(
        "wxgate_wechat_quota_total",
        "counter",
        "Times that WeChat said that an app has called too much, by errcode.",
        move || {
            let list = quotas.upgrade().map(|circuits| circuits.quotas().list()).unwrap_or_default();
            list.iter().map(|(app, code, n)| (format!("{{app=\"{app}\",errcode=\"{code}\"}}"), *n as f64)).collect()
        },
    );
    let of_tokens = |read: fn(&AccessTokens) -> u64| {
        let tokens = Arc::clone(tokens);
        move || vec![(String::new(), read(&tokens) as f64)]
    };
    let fetched = of_tokens(AccessTokens::fetches);
    metrics.register("wxgate_access_token_fetches_total", "counter", "Access tokens that WeChat gave.", fetched);
    let failed = of_tokens(AccessTokens::failures);
    metrics.register("wxgate_access_token_failures_total", "counter", "Fetches that failed.", failed);
    let refused = of_tokens(AccessTokens::refusals);
    metrics.register("wxgate_access_token_refused_total", "counter", "Tokens in use that WeChat refused.", refused);
    let (tokens, clock) = (Arc::clone(tokens), clock.clone());
    metrics.register(
        "wxgate_access_token_seconds_left",
        "gauge",
        "Life of the token that is held, by app.",
        move || {
            let now = clock.now();
            let label = |appid: &AppId| format!("{{app=\"{}\"}}", appid.as_str());
            tokens.ends().iter().map(|(appid, end)| (label(appid), end.since(now).as_secs() as f64)).collect()
        },
    );
}

#[allow(clippy::cast_precision_loss)] // counts far from 2^53
fn register_limits(metrics: &Metrics, tables: &Arc<Tables>) {
    let of = Arc::clone(tables);
    metrics.register("wxgate_limit_decisions_total", "counter", "Requests that a limit counted, by rule.", move || {
        let line = |rule: &str, by, decision, n: u64| {
            (format!("{{rule={},by=\"{by}\",decision=\"{decision}\"}}", label(rule)), n as f64)
        };
        let figures = of.figures().into_iter();
        figures
            .flat_map(|((rule, by), f)| [line(&rule, by, "allowed", f.allowed), line(&rule, by, "refused", f.refused)])
            .collect()
    });
    let of = Arc::clone(tables);
    let help = "Callers that a limit forgot early, for want of room.";
    metrics.register("wxgate_limit_evictions_total", "counter", help, move || {
        let figures = of.figures().into_iter();
        figures.map(|((rule, by), f)| (format!("{{rule={},by=\"{by}\"}}", label(&rule)), f.evicted as f64)).collect()
    });
}

#[allow(clippy::cast_precision_loss)] // counts far from 2^53
fn register_lookups(metrics: &Metrics, lookups: &Arc<Lookups>) {
    let figure = |read: fn(&Lookups) -> u64| {
        let lookups = Arc::clone(lookups);
        move || vec![(String::new(), read(&lookups) as f64)]
    };
    let (reads, failures, known) = (figure(Lookups::reads), figure(Lookups::failures), figure(Lookups::len));
    metrics.register("wxgate_opaque_reads_total", "counter", "Opaque tokens that were read from the store.", reads);
    metrics.register("wxgate_opaque_failures_total", "counter", "Opaque tokens that could not be read.", failures);
    metrics.register("wxgate_opaque_known", "gauge", "Opaque tokens that are known without the store.", known);
}

#[allow(clippy::cast_precision_loss)] // counts far from 2^53
fn register_hook(metrics: &Metrics, hook: &Arc<HookHealth>) {
    let hook = Arc::clone(hook);
    metrics.register(
        "wxgate_login_hook_total",
        "counter",
        "Logins that the hook was asked about, by outcome.",
        move || {
            let counts = &hook.counts;
            let line =
                |outcome: &str, n: &AtomicU64| (format!("{{outcome=\"{outcome}\"}}"), n.load(Ordering::Relaxed) as f64);
            vec![
                line("allowed", &counts.allowed),
                line("refused", &counts.refused),
                line("failed", &counts.failed),
                line("skipped", &counts.skipped),
            ]
        },
    );
}
