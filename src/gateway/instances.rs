//! What other instances have revoked, in force here within a second.
//!
//! The shared store keeps a stream of it; this task asks for what is new a few times a second, from where it was. So nothing is
//! lost when a connection breaks: the next answer holds all that was told meanwhile, and where that is no longer known,
//! everything is read anew. A store that has come back empty bears another birth mark; then every login before now is refused.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::auth::ending;
use crate::clock::{Clock, MAX_SKEW};
use crate::store::shared::{News, Shared};
use crate::store::{self, Sessions};
use crate::token::revocation::Revocations;

use super::key_shelf::KeyShelf;
use super::{Error, birth};

/// How often others are asked for news. A revocation is in force within this time and the store's answer.
const ASK: Duration = Duration::from_millis(200);

/// Where this instance is in the news of all.
#[derive(Debug)]
pub(super) struct Instances {
    shared: Arc<dyn Shared>,
    sessions: Weak<dyn Sessions>,
    revocations: Weak<Revocations>,
    clock: Clock,
    /// Where the birth mark is recorded.
    keys: Arc<KeyShelf>,
    birth_mark: String,
    position: Option<String>,
}

impl Instances {
    /// Takes the place from which news will be read. Called before revocations are loaded, so that none falls in between.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn begin(
        shared: &Arc<dyn Shared>,
        sessions: &Arc<dyn Sessions>,
        revocations: &Arc<Revocations>,
        (keys, birth_mark): (Arc<KeyShelf>, String),
        clock: &Clock,
    ) -> Result<Option<Self>, store::Error> {
        let Some(news) = shared.news(None).await? else { return Ok(None) };
        revocations.freshness().begin(clock);
        Ok(Some(Self {
            shared: Arc::clone(shared),
            sessions: Arc::downgrade(sessions),
            revocations: Arc::downgrade(revocations),
            clock: clock.clone(),
            keys,
            birth_mark,
            position: news.position,
        }))
    }

    /// Goes on asking until the gateway is dropped.
    pub(super) fn start(mut self) {
        tokio::spawn(async move {
            let mut tick = interval(ASK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut cut_off = false;
            loop {
                tick.tick().await;
                let (Some(sessions), Some(revocations)) = (self.sessions.upgrade(), self.revocations.upgrade()) else {
                    return;
                };
                let asked = self.ask(&*sessions, &revocations).await;
                match (&asked, cut_off) {
                    (Err(error), false) => {
                        tracing::warn!(%error, "the shared store is away: what others revoke is not heard");
                    }
                    (Ok(()), true) => tracing::info!("the shared store is back, and all that was revoked is known"),
                    _ => {}
                }
                cut_off = asked.is_err();
            }
        });
    }

    async fn ask(&mut self, sessions: &dyn Sessions, revocations: &Revocations) -> Result<(), store::Error> {
        loop {
            let asked_at = self.clock.steady();
            let Some(news) = self.shared.news(self.position.as_deref()).await? else { return Ok(()) };
            let News { birth_mark, position, notices, more } = news;
            if birth_mark != self.birth_mark {
                self.begin_anew(&birth_mark, revocations).await;
            }
            match notices {
                Some(notices) => notices.iter().for_each(|notice| ending::apply(revocations, notice)),
                None => ending::resync(sessions, revocations, self.clock.now()).await?,
            }
            self.position = position;
            // Not before the end of the news: what stands there may be the logout of whoever asks next.
            if !more {
                revocations.freshness().hear(asked_at);
                return Ok(());
            }
        }
    }

    /// It is another store, or the same one without its memory.
    async fn begin_anew(&mut self, birth_mark: &str, revocations: &Revocations) {
        let now = self.clock.now();
        let recorded = self.keys.change_here(|shelf| birth::epoch(shelf, birth_mark, now).map_err(Error::KeyFile));
        let epoch = recorded.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the new birth mark of the store cannot be recorded; this start heeds it");
            Some(now.plus(MAX_SKEW))
        });
        // None: whoever recorded it first knows of no older one, and has other keys than what is to be refused.
        revocations.revoke_all(epoch.unwrap_or(now));
        birth_mark.clone_into(&mut self.birth_mark);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::clock::Timestamp;
    use crate::config;
    use crate::ids::SessionId;
    use crate::store::shared::{Charge, Purpose};
    use crate::store::sqlite::Sqlite;
    use crate::store::{Error, Notice, Revoked};

    const TURN: Duration = Duration::from_secs(10);

    /// News in pages, or nothing; each answer takes a [`TURN`].
    #[derive(Debug)]
    struct Pages(Mutex<VecDeque<Option<News>>>, Clock);

    fn away() -> Error {
        Error::Damaged("away")
    }

    #[async_trait]
    impl Shared for Pages {
        async fn claim(&self, _: Purpose, _: &[u8], _: &[u8], _: Duration) -> Result<bool, Error> {
            Err(away())
        }

        async fn put(&self, _: Purpose, _: &[u8], _: &[u8], _: Duration) -> Result<(), Error> {
            Err(away())
        }

        async fn get(&self, _: Purpose, _: &[u8]) -> Result<Option<Vec<u8>>, Error> {
            Err(away())
        }

        async fn take(&self, _: Purpose, _: &[u8]) -> Result<Option<Vec<u8>>, Error> {
            Err(away())
        }

        async fn release(&self, _: Purpose, _: &[u8], _: &[u8]) -> Result<(), Error> {
            Err(away())
        }

        async fn news(&self, _: Option<&str>) -> Result<Option<News>, Error> {
            self.1.advance(TURN);
            self.0.lock().unwrap().pop_front().unwrap().map(Some).ok_or_else(away)
        }

        async fn charge(&self, _: &[Charge]) -> Result<Option<Vec<Duration>>, Error> {
            Err(away())
        }
    }

    fn page(session: &str, more: bool) -> Option<News> {
        let session_id = SessionId::parse(session).unwrap();
        let notice = Notice::Session(Revoked { session_id, until: Timestamp::from_secs(9999) });
        let position = Some(session.to_owned());
        Some(News { birth_mark: "mark".to_owned(), position, notices: Some(vec![notice]), more })
    }

    #[tokio::test]
    async fn news_are_read_to_their_end_before_all_is_taken_for_known() {
        let folder = tempfile::tempdir().unwrap();
        let sessions: Arc<dyn Sessions> = Sqlite::open(&folder.path().join("wxgate.db")).unwrap();
        let revocations = Arc::new(Revocations::new());
        let clock = Clock::manual(Timestamp::from_secs(1000));
        let first = Some(News { birth_mark: "mark".to_owned(), position: None, notices: None, more: false });
        let pages = [first, page("a", true), None, page("b", true), page("c", false)];
        let shared: Arc<dyn Shared> = Arc::new(Pages(Mutex::new(pages.into()), clock.clone()));
        let keys = config::Keys::Folder(folder.path().to_owned());
        let recorded = (Arc::new(KeyShelf::new(&keys, &sessions, &clock).unwrap()), "mark".to_owned());
        let begun = Instances::begin(&shared, &sessions, &revocations, recorded, &clock).await.unwrap();
        let (mut instances, fresh) = (begun.unwrap(), revocations.freshness());
        assert_eq!(fresh.age(), Some(Duration::ZERO));

        // It breaks off after a page: what it held counts, and nothing more is taken for known.
        instances.ask(&*sessions, &revocations).await.unwrap_err();
        assert_eq!((instances.position.as_deref(), revocations.len(), fresh.age()), (Some("a"), 1, Some(2 * TURN)));
        instances.ask(&*sessions, &revocations).await.unwrap();
        assert_eq!((instances.position.as_deref(), revocations.len()), (Some("c"), 3));
        assert_eq!(fresh.age(), Some(TURN), "as of when the last page was asked for");
    }
}
