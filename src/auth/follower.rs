//! Whether a member follows the official account that they logged in to: asked of WeChat, remembered for ten minutes.
//!
//! It decorates `GET {base}/me`, which waits for it, and requests to upstreams, which do not: they carry what is known, and
//! what is not known, or is old, is asked meanwhile. When WeChat does not say, both do without, and WeChat is left alone for
//! a minute. A pushed `subscribe` or `unsubscribe` is known at once.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::runtime::Handle;

use crate::clock::Timestamp;
use crate::config::{App, AppKind};
use crate::ids::{AppId, OpenId};

use super::Auth;
use super::single_flight::SingleFlight;

/// How long an answer stands.
const MEMORY: Duration = Duration::from_secs(600);

/// How long nobody asks again after none came.
const PAUSE: Duration = Duration::from_secs(60);

/// People remembered at once.
const MAX: u64 = 1 << 15;

type Person = (AppId, OpenId);

/// What is known of followers. Outlives a reload.
#[derive(Debug)]
pub struct Followers {
    known: Cache<Person, Known>,
    asked: Arc<SingleFlight<Person, Option<bool>>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// `None` when WeChat did not say, or was not heard yet.
    answer: Option<bool>,
    /// When it is time to ask (again).
    until: Timestamp,
    /// Whether somebody is asking: then `answer` is the one before.
    asking: bool,
}

impl Default for Followers {
    fn default() -> Self {
        Self { known: Cache::new(MAX), asked: Arc::default() }
    }
}

/// Whether this person follows the official account; `None` when WeChat does not say, or it is no official account.
pub(super) async fn subscribed(auth: &Arc<Auth>, appid: &AppId, openid: &OpenId) -> Option<bool> {
    let app = official_account(auth, appid)?;
    let person = (appid.clone(), openid.clone());
    match auth.followers.get(&person, auth.clock.now()) {
        Some(known) if !known.asking => known.answer,
        _ => ask(auth, app, person).await,
    }
}

/// What is known of it without waiting. What is not known, or is old, is asked on `control`, so that a later request knows.
pub fn glance(auth: &Arc<Auth>, control: &Handle, appid: &AppId, openid: &OpenId) -> Option<bool> {
    official_account(auth, appid)?;
    let (person, now) = ((appid.clone(), openid.clone()), auth.clock.now());
    if let Some(known) = auth.followers.get(&person, now) {
        return known.answer;
    }
    let before = auth.followers.known.get(&person).and_then(|known| known.answer);
    auth.followers.known.insert(person.clone(), Known { answer: before, until: now.plus(PAUSE), asking: true });
    let auth = Arc::clone(auth);
    control.spawn(async move {
        let app = official_account(&auth, &person.0)?;
        ask(&auth, app, person).await
    });
    before
}

fn official_account<'a>(auth: &'a Auth, appid: &AppId) -> Option<&'a App> {
    auth.apps.iter().find(|app| app.appid == *appid && app.kind == AppKind::OfficialAccount)
}

async fn ask(auth: &Arc<Auth>, app: &App, person: Person) -> Option<bool> {
    let (flight, asking) = (Arc::clone(&auth.followers.asked), Arc::clone(auth));
    let (app, key) = (app.clone(), person.clone());
    let ask = || async move {
        let (auth, (_, openid)) = (asking, &key);
        let ask = |token| {
            let (wechat, app) = (&auth.wechat, &app);
            async move { wechat.is_follower(&app.appid, &token, openid).await }
        };
        let answer = auth.access_tokens.call(&auth.wechat, &app, ask).await;
        let answer = answer.inspect_err(|error| tracing::warn!(%error, "WeChat does not say who follows")).ok();
        auth.followers.set(key.clone(), answer, auth.clock.now());
        answer
    };
    flight.run(person, ask).await.0.flatten()
}

impl Followers {
    /// What WeChat has said by itself.
    pub(super) fn told(&self, appid: &AppId, openid: &OpenId, follows: bool, now: Timestamp) {
        self.set((appid.clone(), openid.clone()), Some(follows), now);
    }

    /// What need not be asked at `now`.
    fn get(&self, person: &Person, now: Timestamp) -> Option<Known> {
        self.known.get(person).filter(|known| now < known.until)
    }

    fn set(&self, person: Person, answer: Option<bool>, now: Timestamp) {
        let stands = if answer.is_some() { MEMORY } else { PAUSE };
        self.known.insert(person, Known { answer, until: now.plus(stands), asking: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(n: u64) -> Person {
        (AppId::parse("wxa").unwrap(), OpenId::parse(&format!("o{n}")).unwrap())
    }

    #[test]
    fn an_answer_stands_for_ten_minutes_and_none_for_one() {
        let (followers, now) = (Followers::default(), Timestamp::from_secs(1000));
        followers.set(person(1), Some(false), now);
        followers.set(person(2), None, now);
        let get = |n, at| followers.get(&person(n), at).map(|known| known.answer);
        assert_eq!(get(1, now.plus(MEMORY - PAUSE)), Some(Some(false)));
        assert_eq!(get(1, now.plus(MEMORY)), None);
        assert_eq!((get(2, now), get(2, now.plus(PAUSE))), (Some(None), None));
    }

    #[test]
    fn its_memory_is_bounded() {
        let (followers, now) = (Followers::default(), Timestamp::from_secs(1000));
        for n in 0..2 * MAX {
            followers.set(person(n), Some(true), now);
        }
        followers.known.run_pending_tasks();
        assert!(followers.known.entry_count() <= MAX);
    }
}
