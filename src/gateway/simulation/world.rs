//! What one seed makes: the hosts, what they hold, and the time that all of them have.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, MAX_SKEW, Timestamp};
use crate::config::{self, Config, Environment};
use crate::gateway::key_care;
use crate::keyfile::{self, Shelf};
use crate::store::redis::simulated::{Defect, Server};
use crate::store::vault::Vault;
use crate::telemetry::{Format, LogWriter};
use crate::token::refresh::RefreshSecret;

use super::asked;
use super::book::Book;
use super::dice::Dice;
use super::far::{Far, Request};

/// One step of everybody's time.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// When each seed begins.
const START: Timestamp = Timestamp::from_secs(1_763_688_000);

/// Short, so that a few seconds of a seed reach what takes hours elsewhere.
pub(super) const GRACE: u64 = 3_000;
pub(super) const MAX_STALENESS: u64 = 4_000;
const TEXT: &str = "[token]\nissuer = \"https://api.example.com\"\naccess_ttl = \"90s\"\n\
    refresh_ttl = \"10m\"\nrefresh_grace = \"3s\"\nsession_ttl = \"1h\"\nmax_staleness = \"4s\"\n\
    [store]\nmembers = \"postgres://wxgate:secret@far/wxgate\"\nsessions = \"redis://store:6379\"\n\
    [wechat]\napi_base = \"http://far\"\n[[app]]\nappid = \"wx0123456789abcdef\"\nsecret = \"a-secret-of-an-app\"\n";

/// Where the keys are: in a folder that all have, or sealed in the store.
const IN_FOLDER: &str = "keys = \"keys\"\n";
const IN_STORE: &str = "keys = \"store\"\nmaster_key = \"q7Xc0vM4rT9bZ2kLd8sWfYh3Nu1pEo6G\"\n";

/// How far the gateways' clocks are from the right time in every other seed, ms: well within what is promised
/// ([`MAX_SKEW`]) between two of them.
const SKEW: u64 = 2_000;
const _: () = assert!(2 * SKEW < MAX_SKEW.as_millis() as u64);

/// Sets what a seed says of its world apart from what happens in it.
const OF_WORLD: u64 = 0x0077_6f72_6c64;

/// The hosts' names.
pub(super) const STORE: &str = "store";
pub(super) const FAR: &str = "far";
pub(super) const PHONES: &str = "phones";

pub(super) fn gateway_name(n: usize) -> String {
    format!("gateway{n}")
}

/// Everything that outlives the crash of a host.
pub(super) struct World {
    pub(super) gateways: usize,
    /// Of each gateway.
    pub(super) clocks: Vec<Clock>,
    store_clock: Clock,
    pub(super) store: Server,
    pub(super) far: Mutex<Far>,
    /// What is on its way to the far host.
    pub(super) requests: Mutex<HashMap<u64, Request>>,
    pub(super) config: Config,
    pub(super) log: LogWriter,
    book: Mutex<Book>,
    millis: AtomicU64,
    events: AtomicU64,
    _home: tempfile::TempDir,
}

impl World {
    pub(super) fn new(seed: u64, dice: &mut Dice, defect: Option<Defect>) -> Arc<Self> {
        let mut kind = Dice::new(seed ^ OF_WORLD);
        let skew = asked("WXGATE_TEST_SKEW").unwrap_or(if kind.one_in(2) { SKEW } else { 0 });
        let (home, in_store) = (folder(), kind.one_in(2));
        if !in_store {
            copy_keys(home.path());
        }
        let store_clock = Clock::manual(START);
        // Now and then news are so short that whoever was away has to read everything anew.
        let told = if dice.one_in(3) { 4 } else { 10_000 };
        let gateways = 2 + usize::from(dice.one_in(3));
        Arc::new(Self {
            gateways,
            clocks: (0..gateways).map(|_| skewed(skew, dice)).collect(),
            store: Server::new(store_clock.clone(), told, defect),
            store_clock,
            far: Mutex::default(),
            requests: Mutex::default(),
            config: config_in(home.path(), if in_store { IN_STORE } else { IN_FOLDER }),
            log: LOG.clone(),
            book: Mutex::new(Book::new(2 * skew)),
            millis: AtomicU64::new(0),
            events: AtomicU64::new(0),
            _home: home,
        })
    }

    /// Milliseconds since the beginning.
    pub(super) fn now(&self) -> u64 {
        self.millis.load(Ordering::Relaxed)
    }

    /// A number that is greater with each call: the order of what happens.
    pub(super) fn next(&self) -> u64 {
        self.events.fetch_add(1, Ordering::Relaxed)
    }

    /// One step of time has passed.
    pub(super) fn tick(&self) {
        self.millis.fetch_add(u64::try_from(TICK.as_millis()).unwrap(), Ordering::Relaxed);
        self.clocks.iter().chain([&self.store_clock]).for_each(|clock| clock.advance(TICK));
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A gateway's clock, at most `skew` ms from the right time.
fn skewed(skew: u64, dice: &mut Dice) -> Clock {
    let off = match skew {
        0 => 0,
        skew => dice.between(0, 2 * skew + 1),
    };
    Clock::manual(START.plus(Duration::from_millis(off)).minus(Duration::from_millis(skew)))
}

/// Puts [`KEYS`] where all gateways of a seed read them.
fn copy_keys(home: &Path) {
    let to = home.join("keys");
    keyfile::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(KEYS.path().join("keys")).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
    }
}

static LOG: LazyLock<LogWriter> = LazyLock::new(|| LogWriter::to(Format::Text, Box::new(std::io::sink())));

/// Keys that all seeds share: to make them takes longer than a seed.
static KEYS: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = folder();
    let config = config_in(folder.path(), IN_FOLDER);
    let clock = Clock::manual(START.minus(Duration::from_secs(3600)));
    let shelf = Shelf::from(config.token.keys.local());
    key_care::made(&config.token, &shelf, &clock).unwrap();
    Vault::open(&shelf, &clock).unwrap();
    RefreshSecret::open(&shelf).unwrap();
    folder
});

/// In memory, where there is such a place: files are synced often.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let of_system = std::env::temp_dir();
    tempfile::tempdir_in(if memory.is_dir() { memory } else { &of_system }).unwrap()
}

fn config_in(folder: &Path, keys: &str) -> Config {
    let file: PathBuf = folder.join("gateway.toml");
    let text = TEXT.replacen("[token]\n", &format!("[token]\n{keys}"), 1);
    config::parse(text, &file, &Environment::of([])).unwrap_or_else(|faults| panic!("{faults:?}"))
}
