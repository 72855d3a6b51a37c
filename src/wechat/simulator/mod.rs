//! A server that behaves like WeChat's API, as far as the gateway calls it.
//!
//! It speaks WeChat's own paths with their quirks: JSON labelled `text/plain`, HTTP 200 on errors, single-use codes of five
//! minutes, session_keys that rotate at each exchange, access tokens that overlap. Beside them, `/_sim/…` plays the phone
//! of the user (a code as `wx.login` gives it, encrypted data) and plans faults. `docs/simulator.md` says how true it is.
//!
//! A call passes `serve` (the connection), `paths` (fault, call log) and the file of its endpoint: `login`,
//! `access_token`, `session`, `phone`, `web`; all of them share the `world`. Tests use the same server, in their own
//! process, with a clock of their own ([`Simulator`]).

mod access_token;
mod answer;
mod apps;
mod bounded;
mod calls;
mod client_side;
mod codes;
mod control;
mod fault;
mod login;
mod paths;
mod people;
mod phone;
mod push;
mod serve;
mod session;
mod token_lines;
mod web;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::apps::Apps;
use self::world::World;
use crate::clock::Clock;
use crate::ids::{AppId, Secret};
use crate::wechat::SessionKey;

pub use self::calls::{Call, Calls};
pub use self::client_side::{Phone, Sealed, UserInfo};
pub use self::fault::Fault;

/// What a simulator is started with.
#[derive(Debug, Clone)]
pub struct SimulatorConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Decides when codes and tokens expire.
    pub clock: Clock,
    /// The apps and their AppSecrets. `None` accepts any `wx…` and takes the first secret shown for it as the right one.
    pub apps: Option<Vec<(AppId, Secret<String>)>>,
}

/// A running simulator. Dropped, it stops at once; [`Simulator::stop`] lets it finish its answers first.
#[derive(Debug)]
pub struct Simulator {
    addr: SocketAddr,
    world: Arc<World>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Somebody as one app sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// 28 characters, always the same for this name and app.
    pub openid: String,
    /// The same in all apps; `None` when the name ends in `-nounion`.
    pub unionid: Option<String>,
    /// 11 digits, always the same for this name.
    pub phone_number: String,
    /// The key of the latest exchange; `None` before the first.
    pub session_key: Option<SessionKey>,
    /// The key before, which WeChat no longer knows.
    pub previous_session_key: Option<SessionKey>,
}

impl Simulator {
    /// Binds and serves.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(config: SimulatorConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let addr = listener.local_addr()?;
        let world = Arc::new(World::new(config.clock, Apps::new(config.apps)));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve::serve(listener, paths::router(Arc::clone(&world)), stopped));
        Ok(Self { addr, world, stop, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What `[wechat] api_base` has to say to reach it.
    pub fn api_base(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Finishes what is being answered (for a second at most), then closes everything.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // Fails only if the task panicked; it is over either way.
        let _ = (&mut self.task).await;
    }

    /// What `wx.login` gives `user`; `None` makes a code that is good for any app.
    pub fn issue_code(&self, appid: Option<&AppId>, user: &str) -> String {
        self.world.issue_code(user, appid)
    }

    /// Who `name` is in `appid`.
    pub fn user(&self, name: &str, appid: &AppId) -> User {
        let openid = people::openid(name, appid);
        let state = self.world.lock();
        let person = state.people.find(&openid);
        User {
            unionid: people::unionid(name),
            phone_number: people::phone_number(name),
            session_key: person.map(|person| person.current.clone()),
            previous_session_key: person.and_then(|person| person.previous.clone()),
            openid,
        }
    }

    /// What `wx.getUserInfo` returns; `None` before the user's first exchange,
    /// unless a code for this very app was issued.
    pub fn user_info(&self, user: &str, appid: &AppId) -> Option<UserInfo> {
        self.world.user_info(user, appid)
    }

    /// What the phone button returns.
    pub fn phone(&self, user: &str, appid: &AppId) -> Phone {
        self.world.phone(user, appid)
    }

    /// `data` with a watermark, encrypted with the user's current key; `None` before the first exchange.
    pub fn open_data(&self, user: &str, appid: &AppId, data: Map<String, Value>) -> Option<Sealed> {
        self.world.open_data(user, appid, data)
    }

    /// Gives the user a new session_key that the gateway does not know, as a login through another server does.
    pub fn rotate_session_key(&self, user: &str, appid: &AppId) -> SessionKey {
        self.world.lock().people.rotate(user, appid)
    }

    /// From now on `user` is before the browser that comes to a login page, and consents, or `refuses`.
    pub fn browse_as(&self, user: &str, refuses: bool) {
        self.world.lock().web.browser = (user.to_owned(), refuses);
    }

    /// Plans `fault` for the next `times` calls of `path`; `*` is any path.
    pub fn fault(&self, path: &str, times: u32, fault: Fault) {
        self.world.lock().faults.plan(path, times, fault);
    }

    /// Forgets the faults that have not struck yet.
    pub fn clear_faults(&self) {
        self.world.lock().faults.clear();
    }

    /// What was asked so far.
    pub fn calls(&self) -> Calls {
        self.world.lock().calls.clone()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Random bytes for codes, keys and tokens.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = aws_lc_rs::rand::fill(&mut bytes);
    debug_assert!(filled.is_ok(), "the library ends the process before it gives this error");
    bytes
}

#[cfg(test)]
mod tests;
