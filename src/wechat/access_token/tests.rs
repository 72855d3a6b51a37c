//! Access tokens against the simulator, over sockets.

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::config::{AppKind, section};
use crate::wechat::simulator::{Fault, Simulator, SimulatorConfig};
use crate::wechat::{Circuits, Errcode};

/// Survives a restart as a store does.
#[derive(Debug, Default)]
struct Shelf(Mutex<HashMap<Key, Granted>>);

#[async_trait]
impl Keep for Shelf {
    async fn load(&self, appid: &AppId, line: AccessTokenLine) -> Option<Granted> {
        self.0.lock().unwrap().get(&(appid.clone(), line)).cloned()
    }

    async fn save(&self, appid: &AppId, line: AccessTokenLine, granted: &Granted) {
        self.0.lock().unwrap().insert((appid.clone(), line), granted.clone());
    }

    async fn claim(&self, _: &AppId, _: AccessTokenLine, _: &[u8]) -> bool {
        true
    }

    async fn release(&self, _: &AppId, _: AccessTokenLine, _: &[u8]) {}
}

struct World {
    wechat: Simulator,
    client: Client,
    clock: Clock,
    app: App,
    shelf: Arc<Shelf>,
    tokens: Arc<AccessTokens>,
}

impl World {
    async fn start(line: AccessTokenLine) -> Self {
        let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let wechat = Simulator::start(SimulatorConfig { listen, clock: clock.clone(), apps: None }).await.unwrap();
        let section =
            section::WeChat { api_base: wechat.api_base(), open_base: String::new(), timeout: Duration::from_secs(20) };
        let circuits = Arc::new(Circuits::new(clock.clone(), Arc::default()));
        let client = Client::with_circuits(&section, circuits).unwrap();
        let app = App {
            appid: AppId::parse("wxa").unwrap(),
            kind: AppKind::MiniProgram,
            push: None,
            secret: Secret::new("app-secret".to_owned()),
            access_token: line,
            web: None,
        };
        let shelf = Arc::new(Shelf::default());
        let tokens = Arc::new(AccessTokens::new(clock.clone(), Arc::clone(&shelf) as Arc<dyn Keep>));
        Self { wechat, client, clock, app, shelf, tokens }
    }

    async fn get(&self) -> Result<AccessToken, Error> {
        self.tokens.get(&self.client, &self.app).await
    }

    fn restart(&mut self) {
        let keep = Arc::clone(&self.shelf) as Arc<dyn Keep>;
        self.tokens = Arc::new(AccessTokens::new(self.clock.clone(), keep));
    }

    fn fetched(&self) -> u64 {
        self.wechat.calls().count(STABLE_PATH) + self.wechat.calls().count(CLASSIC_PATH)
    }

    /// Waits for a renewal in the background.
    async fn until_renewed(&self, old: &AccessToken) -> AccessToken {
        loop {
            let token = self.get().await.unwrap();
            if token != *old {
                return token;
            }
            tokio::task::yield_now().await;
        }
    }

    /// A call that WeChat refuses the first `times` with this errcode; returns how often it was made.
    async fn call(&self, errcode: i64, times: u32) -> (Result<(), Error>, u32) {
        let made = std::cell::Cell::new(0);
        let outcome = self.tokens.call(&self.client, &self.app, |_| {
            made.set(made.get() + 1);
            let n = made.get();
            async move { if n <= times { Err(Error::Errcode(Errcode::new(errcode, ""))) } else { Ok(()) } }
        });
        let outcome = outcome.await;
        (outcome, made.get())
    }
}

#[tokio::test]
async fn five_hundred_who_need_it_at_once_are_one_call_to_wechat() {
    for line in [AccessTokenLine::Stable, AccessTokenLine::Classic] {
        let world = World::start(line).await;
        for round in 1..=2 {
            let all = futures_util::future::join_all((0..500).map(|_| world.get())).await;
            let first = all[0].as_ref().unwrap();
            assert!(all.iter().all(|token| token.as_ref().unwrap() == first));
            assert_eq!(world.fetched(), round);
            world.clock.advance(Duration::from_secs(7200));
        }
    }
}

#[tokio::test]
async fn it_is_renewed_before_its_end_and_nobody_waits() {
    let world = World::start(AccessTokenLine::Stable).await;
    let first = world.get().await.unwrap();
    world.clock.advance(Duration::from_secs(7200 - 301));
    assert_eq!(world.get().await.unwrap(), first);
    assert_eq!(world.fetched(), 1);
    world.clock.advance(Duration::from_secs(2));
    world.wechat.fault(STABLE_PATH, 1, Fault::Delay(Duration::from_millis(200)));
    assert_eq!(world.get().await.unwrap(), first, "the old one at once");
    world.until_renewed(&first).await;
    assert_eq!(world.fetched(), 2);
}

#[tokio::test]
async fn a_renewal_that_fails_leaves_the_old_one_in_use_and_is_tried_again_later() {
    let world = World::start(AccessTokenLine::Stable).await;
    let first = world.get().await.unwrap();
    world.clock.advance(Duration::from_secs(7000));
    world.wechat.fault(STABLE_PATH, 1, Fault::Status(502));
    for _ in 0..50 {
        assert_eq!(world.get().await.unwrap(), first);
        while world.tokens.failures() == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(world.fetched(), 2, "not again at once");
    world.clock.advance(PAUSE);
    world.until_renewed(&first).await;
}

#[tokio::test]
async fn a_restart_fetches_nothing() {
    let mut world = World::start(AccessTokenLine::Classic).await;
    let first = world.get().await.unwrap();
    world.restart();
    assert_eq!(world.get().await.unwrap(), first);
    assert_eq!(world.fetched(), 1);
    world.clock.advance(Duration::from_secs(7200));
    world.restart();
    assert_ne!(world.get().await.unwrap(), first, "one that has ended is not taken");
}

#[tokio::test]
async fn the_lines_are_kept_apart() {
    let mut world = World::start(AccessTokenLine::Stable).await;
    let stable = world.get().await.unwrap();
    world.app.access_token = AccessTokenLine::Classic;
    assert_ne!(world.get().await.unwrap(), stable);
    world.app.access_token = AccessTokenLine::Stable;
    assert_eq!(world.get().await.unwrap(), stable);
}

#[tokio::test]
async fn a_refused_token_is_replaced_and_the_call_made_once_more() {
    for errcode in [40001, 40014, 42001] {
        let world = World::start(AccessTokenLine::Stable).await;
        let (outcome, made) = world.call(errcode, 1).await;
        assert!(outcome.is_ok());
        assert_eq!((made, world.fetched()), (2, 2), "{errcode}");
    }
}

#[tokio::test]
async fn a_call_that_is_refused_twice_is_not_made_a_third_time() {
    let world = World::start(AccessTokenLine::Stable).await;
    let (outcome, made) = world.call(40001, 9).await;
    assert_eq!(outcome.unwrap_err().meaning(), Some(Meaning::AccessToken));
    assert_eq!((made, world.fetched()), (2, 2));
}

#[tokio::test]
async fn another_errcode_repeats_nothing() {
    let world = World::start(AccessTokenLine::Stable).await;
    for errcode in [-1, 40029, 40013, 45009, 48001] {
        let (outcome, made) = world.call(errcode, 9).await;
        assert!(outcome.is_err());
        assert_eq!((made, world.fetched()), (1, 1), "{errcode}");
    }
}

#[tokio::test]
async fn a_token_that_is_refused_again_and_again_does_not_use_up_the_quota() {
    let world = World::start(AccessTokenLine::Classic).await;
    for _ in 0..100 {
        world.call(40001, 9).await.0.unwrap_err();
    }
    assert_eq!(world.fetched(), 1 + u64::from(REPLACED_A_MINUTE));
    world.clock.advance(MINUTE);
    assert!(world.call(40001, 1).await.0.is_ok());
}

#[tokio::test]
async fn a_refused_token_that_somebody_has_replaced_already_is_not_dropped_again() {
    let world = World::start(AccessTokenLine::Classic).await;
    let old = world.get().await.unwrap();
    assert!(world.tokens.refused(&world.app, &old));
    let new = world.get().await.unwrap();
    assert!(world.tokens.refused(&world.app, &old), "ask again, there is another");
    assert_eq!(world.get().await.unwrap(), new);
    assert_eq!(world.fetched(), 2);
}

#[tokio::test]
async fn a_fetch_that_fails_fails_for_all_who_wait_and_the_next_one_starts_anew() {
    let world = World::start(AccessTokenLine::Stable).await;
    world.wechat.fault(STABLE_PATH, 1, Fault::Errcode(40164));
    let all = futures_util::future::join_all((0..50).map(|_| world.get())).await;
    assert!(all.iter().all(|outcome| matches!(outcome, Err(Error::Errcode(Errcode { code: 40164, .. })))));
    assert_eq!(world.fetched(), 1);
    assert!(world.get().await.is_ok());
}

#[tokio::test]
async fn a_busy_wechat_is_asked_again() {
    let world = World::start(AccessTokenLine::Stable).await;
    world.wechat.fault(STABLE_PATH, 2, Fault::Errcode(-1));
    assert!(world.get().await.is_ok());
    assert_eq!(world.fetched(), 3);
}

#[tokio::test]
async fn an_odd_answer_is_no_token() {
    let long = format!("{{\"access_token\":\"{}\",\"expires_in\":7200}}", "a".repeat(MAX_TOKEN + 1));
    for body in [
        "{}",
        r#"{"access_token":"","expires_in":7200}"#,
        r#"{"access_token":7,"expires_in":7200}"#,
        r#"{"access_token":"a b","expires_in":7200}"#,
        r#"{"access_token":"a","expires_in":0}"#,
        r#"{"access_token":"a","expires_in":-1}"#,
        r#"{"access_token":"a","expires_in":1e99}"#,
        r#"{"access_token":"a"}"#,
        &long,
    ] {
        let world = World::start(AccessTokenLine::Stable).await;
        world.wechat.fault(STABLE_PATH, 1, Fault::Body(body.into()));
        assert!(matches!(world.get().await, Err(Error::Answer(_))), "{body}");
    }
}

#[tokio::test]
async fn no_token_and_no_secret_is_shown() {
    let world = World::start(AccessTokenLine::Stable).await;
    let token = world.get().await.unwrap();
    let shown = format!("{token:?} {:?} {:?}", world.tokens, world.shelf);
    assert!(!shown.contains(token.expose()) && !shown.contains("app-secret"), "{shown}");
}
