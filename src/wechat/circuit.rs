//! Circuit breakers: a WeChat that fails again and again is left alone for a moment.
//!
//! There is one circuit for each app and call, because WeChat's faults come so: one call is down, one app is throttled; what
//! services call through the relay has one for each app and entry of a service's list. It
//! opens after [`LIMIT`] outages in a row: no connection, no answer in time, a broken exchange, a status other than 2xx,
//! errcode -1. Every other errcode is an answer and closes it, whatever it says about a user, a code or our settings. An
//! open circuit refuses for [`REST`]; then one call goes through as a probe, and its outcome decides.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::quota::Quotas;
use super::{Error, Meaning};
use crate::clock::{Clock, Timestamp};
use crate::ids::AppId;
use crate::metrics::{Counter, Metrics};

/// Outages in a row that open a circuit.
pub const LIMIT: u32 = 10;

/// How long an open circuit refuses before it lets a probe through.
pub const REST: Duration = Duration::from_secs(5);

type Key = (AppId, Cow<'static, str>);

/// All circuits of a gateway. Outlives reloads: an outage does not end because a file was saved.
pub struct Circuits {
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Held for a few lines. One entry for each configured app and call that was made: bounded by the configuration.
    circuits: Mutex<HashMap<Key, Circuit>>,
    opened: Counter,
    refused: Counter,
    quotas: Quotas,
    /// Outlives the clients, which are made on any thread.
    #[cfg(test)]
    pub(super) played: Option<Arc<dyn super::client::played::Played>>,
}

#[derive(Debug, Clone, Copy)]
enum Circuit {
    Closed {
        outages: u32,
    },
    Open {
        since: Timestamp,
    },
    /// A probe is under way.
    Probing {
        since: Timestamp,
    },
}

impl Circuits {
    /// None open. Counts calls and failures in `metrics`.
    pub fn new(clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self {
            clock,
            metrics,
            circuits: Mutex::default(),
            opened: Counter::default(),
            refused: Counter::default(),
            quotas: Quotas::default(),
            #[cfg(test)]
            played: super::client::played::here(),
        }
    }

    /// Makes `call`, which goes to `path` for `appid`, unless its circuit is open.
    ///
    /// # Errors
    /// [`Error::CircuitOpen`] when the call was not made; else its own.
    pub async fn run<T>(
        &self,
        appid: &AppId,
        path: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.watch(appid, path.into(), call, |_| None).await
    }

    /// As [`Circuits::run`], for a call whose result may itself hold the error that WeChat names.
    ///
    /// # Errors
    /// As [`Circuits::run`].
    pub async fn watch<T>(
        &self,
        appid: &AppId,
        path: Cow<'static, str>,
        call: impl Future<Output = Result<T, Error>>,
        named: impl Fn(&T) -> Option<&Error>,
    ) -> Result<T, Error> {
        let mut pass = self.enter(appid, path)?;
        let outcome = self.count(appid, call, &named).await;
        let error = outcome.as_ref().map_or_else(Some, named);
        pass.settle(error.is_some_and(is_outage));
        outcome
    }

    /// Makes `call` whatever the circuits say, and says nothing to them: for one that may fail through somebody else's fault.
    ///
    /// # Errors
    /// Its own.
    pub async fn count<T>(
        &self,
        appid: &AppId,
        call: impl Future<Output = Result<T, Error>>,
        named: impl Fn(&T) -> Option<&Error>,
    ) -> Result<T, Error> {
        self.metrics.wechat_calls.inc();
        let outcome = call.await;
        if let Some(error) = outcome.as_ref().map_or_else(Some, named) {
            self.metrics.wechat_failures.inc();
            self.quotas.note(appid, error);
        }
        outcome
    }

    /// How often WeChat said that an app has called too much.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// How often a circuit has opened.
    pub fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// How many calls were refused by an open one.
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Each circuit: its app, its call, and whether it is open.
    pub fn list(&self) -> Vec<(AppId, Cow<'static, str>, bool)> {
        let circuits = self.lock();
        circuits
            .iter()
            .map(|((appid, path), c)| (appid.clone(), path.clone(), !matches!(c, Circuit::Closed { .. })))
            .collect()
    }

    fn enter(&self, appid: &AppId, path: Cow<'static, str>) -> Result<Pass<'_>, Error> {
        let now = self.clock.now();
        let key = (appid.clone(), path);
        let mut circuits = self.lock();
        let circuit = circuits.entry(key.clone()).or_insert(Circuit::Closed { outages: 0 });
        let probe = match circuit {
            Circuit::Closed { .. } => false,
            Circuit::Open { since } | Circuit::Probing { since } if now < *since => {
                // The clock was set back: without this the circuit would stay open until it has caught up.
                *since = now;
                return Err(self.refuse(REST));
            }
            Circuit::Open { since } if now.since(*since) >= REST => {
                *circuit = Circuit::Probing { since: now };
                true
            }
            Circuit::Open { since } => return Err(self.refuse(REST - now.since(*since))),
            Circuit::Probing { .. } => return Err(self.refuse(Duration::from_secs(1))),
        };
        Ok(Pass { circuits: self, key, probe, settled: false })
    }

    fn refuse(&self, retry_after: Duration) -> Error {
        self.refused.inc();
        Error::CircuitOpen { retry_after }
    }

    fn settle(&self, key: &Key, probe: bool, outage: bool) {
        let now = self.clock.now();
        let mut circuits = self.lock();
        let Some(circuit) = circuits.get_mut(key) else { return };
        let next = match *circuit {
            // Also when the answer is that of a call that had begun before: WeChat is there.
            Circuit::Closed { .. } if !outage => Circuit::Closed { outages: 0 },
            Circuit::Open { .. } | Circuit::Probing { .. } if !outage => {
                tracing::info!(app = key.0.as_str(), call = &*key.1, "WeChat answers again");
                Circuit::Closed { outages: 0 }
            }
            Circuit::Closed { outages } if outages + 1 < LIMIT => Circuit::Closed { outages: outages + 1 },
            Circuit::Closed { .. } => {
                self.opened.inc();
                tracing::warn!(app = key.0.as_str(), call = &*key.1, "WeChat fails again and again: left alone");
                Circuit::Open { since: now }
            }
            Circuit::Probing { .. } if probe => Circuit::Open { since: now },
            // What began before the circuit opened says nothing new.
            as_it_is @ (Circuit::Open { .. } | Circuit::Probing { .. }) => as_it_is,
        };
        *circuit = next;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Circuit>> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Circuits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

/// Whether this says that WeChat is not there, rather than what it thinks of the call.
fn is_outage(error: &Error) -> bool {
    match error {
        Error::Connect(_) | Error::Timeout | Error::Transport(_) => true,
        Error::Errcode(errcode) => errcode.meaning == Meaning::Busy,
        Error::Answer(_) | Error::CircuitOpen { .. } => false,
    }
}

/// A call under way. Dropped without an outcome (the caller has gone), a probe gives its turn to the next call.
struct Pass<'a> {
    circuits: &'a Circuits,
    key: Key,
    probe: bool,
    settled: bool,
}

impl Pass<'_> {
    fn settle(&mut self, outage: bool) {
        self.settled = true;
        self.circuits.settle(&self.key, self.probe, outage);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.settled || !self.probe {
            return;
        }
        if let Some(circuit @ Circuit::Probing { .. }) = self.circuits.lock().get_mut(&self.key) {
            *circuit = Circuit::Open { since: self.circuits.clock.now().minus(REST) };
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::wechat::Errcode;

    const CALL: &str = "/sns/jscode2session";

    struct World {
        clock: Clock,
        circuits: Circuits,
    }

    impl World {
        fn new() -> Self {
            let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
            Self { circuits: Circuits::new(clock.clone(), Arc::default()), clock }
        }

        fn call(&self, path: &'static str, outcome: Result<(), Error>) -> Result<(), Error> {
            let app = AppId::parse("wxa").unwrap();
            self.circuits.run(&app, path, async { outcome }).now_or_never().unwrap()
        }

        fn outages(&self, n: u32) {
            for _ in 0..n {
                assert!(matches!(self.call(CALL, Err(Error::Timeout)), Err(Error::Timeout)));
            }
        }

        fn retry_after(&self) -> Option<u64> {
            match self.call(CALL, Ok(())) {
                Err(Error::CircuitOpen { retry_after }) => Some(retry_after.as_secs()),
                _ => None,
            }
        }
    }

    fn errcode(code: i64) -> Error {
        Error::Errcode(Errcode::new(code, ""))
    }

    #[test]
    fn outages_in_a_row_open_it_and_a_good_probe_closes_it() {
        let world = World::new();
        world.outages(LIMIT);
        assert_eq!(world.retry_after(), Some(5));
        world.clock.advance(Duration::from_secs(3));
        assert_eq!(world.retry_after(), Some(2));
        world.clock.advance(Duration::from_secs(2));
        assert_eq!(world.retry_after(), None, "the probe");
        world.outages(LIMIT - 1);
        assert_eq!(world.retry_after(), None, "closed, and counted from zero");
        assert_eq!((world.circuits.opened(), world.circuits.refused()), (1, 2));
    }

    #[test]
    fn a_bad_probe_keeps_it_open() {
        let world = World::new();
        world.outages(LIMIT);
        world.clock.advance(REST);
        world.outages(1);
        assert_eq!(world.retry_after(), Some(5));
        world.clock.advance(REST);
        assert_eq!(world.retry_after(), None);
    }

    #[test]
    fn every_kind_of_outage_counts_and_no_errcode_about_a_user_does() {
        let outages = [Error::Connect(None), Error::Timeout, Error::Transport("a status other than 2xx"), errcode(-1)];
        for outage in outages {
            let world = World::new();
            for _ in 0..LIMIT {
                let _ = world.call(CALL, Err(outage.clone()));
            }
            assert!(world.retry_after().is_some(), "{outage:?}");
        }
        let world = World::new();
        for code in [40029, 40163, 40226, 45011, 45009, 40013, 40125, 40001, 87009] {
            for _ in 0..LIMIT {
                assert!(matches!(world.call(CALL, Err(errcode(code))), Err(Error::Errcode(_))));
            }
        }
        for _ in 0..LIMIT {
            let _ = world.call(CALL, Err(Error::Answer("it is empty")));
        }
        assert_eq!(world.retry_after(), None);
    }

    #[test]
    fn an_answer_between_outages_starts_the_count_anew() {
        let world = World::new();
        world.outages(LIMIT - 1);
        let _ = world.call(CALL, Err(errcode(40029)));
        world.outages(LIMIT - 1);
        assert_eq!(world.retry_after(), None);
    }

    #[test]
    fn another_call_and_another_app_have_circuits_of_their_own() {
        let world = World::new();
        world.outages(LIMIT);
        assert!(world.call("/wxa/checksession", Ok(())).is_ok());
        let other = AppId::parse("wxb").unwrap();
        assert!(world.circuits.run(&other, CALL, async { Ok(()) }).now_or_never().unwrap().is_ok());
        assert!(world.retry_after().is_some());
    }

    #[test]
    fn one_probe_at_a_time_and_one_that_is_given_up_lets_the_next_one_go() {
        let world = World::new();
        let app = AppId::parse("wxa").unwrap();
        world.outages(LIMIT);
        world.clock.advance(REST);
        let mut probe = Box::pin(world.circuits.run(&app, CALL, std::future::pending::<Result<(), Error>>()));
        assert!(probe.as_mut().now_or_never().is_none());
        assert_eq!(world.retry_after(), Some(1), "the probe is under way");
        drop(probe);
        assert_eq!(world.retry_after(), None);
    }

    #[test]
    fn a_late_outage_of_an_earlier_call_changes_nothing_and_a_late_answer_closes_it() {
        let world = World::new();
        let app = AppId::parse("wxa").unwrap();
        let (tell, told) = tokio::sync::oneshot::channel::<Result<(), Error>>();
        let mut early = Box::pin(world.circuits.run(&app, CALL, async { told.await.unwrap() }));
        assert!(early.as_mut().now_or_never().is_none());
        world.outages(LIMIT);
        tell.send(Ok(())).unwrap();
        assert!(early.now_or_never().unwrap().is_ok());
        assert_eq!(world.retry_after(), None);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_it_open() {
        let world = World::new();
        world.outages(LIMIT);
        world.clock.set_back(Duration::from_secs(3600));
        assert!(world.retry_after().is_some());
        world.clock.advance(REST);
        assert_eq!(world.retry_after(), None);
    }
}
