//! Whether a member follows the official account that they logged in to: asked of WeChat, remembered for ten minutes.
//!
//! It is decoration of `GET {base}/me`: when WeChat does not say, the answer does without, and WeChat is left alone for a
//! minute.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::AppKind;
use crate::ids::{AppId, OpenId};
use crate::store::Session;

use super::Auth;
use super::single_flight::SingleFlight;

/// How long an answer stands.
const MEMORY: Duration = Duration::from_secs(600);

/// How long nobody asks again after none came.
const PAUSE: Duration = Duration::from_secs(60);

/// People remembered at once; beyond it the oldest go.
const MAX: usize = 1 << 15;

type Person = (AppId, OpenId);

/// What is known of followers. Outlives a reload.
#[derive(Debug, Default)]
pub struct Followers {
    /// Held for a few lines.
    known: Mutex<Known>,
    asked: Arc<SingleFlight<Person, Option<bool>>>,
}

#[derive(Debug, Default)]
struct Known {
    people: HashMap<Person, (Option<bool>, Timestamp)>,
    order: VecDeque<Person>,
}

/// Whether the caller follows the official account of this session; `None` when that is not known, or it is of no
/// official account.
pub(super) async fn subscribed(auth: &Arc<Auth>, session: &Session) -> Option<bool> {
    let app = auth.apps.iter().find(|app| app.appid == session.appid)?;
    if app.kind != AppKind::OfficialAccount {
        return None;
    }
    let person = (session.appid.clone(), session.openid.clone());
    if let Some(known) = auth.followers.get(&person, auth.clock.now()) {
        return known;
    }
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
    fn get(&self, person: &Person, now: Timestamp) -> Option<Option<bool>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (answer, at) = known.people.get(person)?;
        let stands = if answer.is_some() { MEMORY } else { PAUSE };
        (now.since(*at) < stands).then_some(*answer)
    }

    fn set(&self, person: Person, answer: Option<bool>, now: Timestamp) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.people.insert(person.clone(), (answer, now)).is_none() {
            known.order.push_back(person);
        }
        if known.order.len() > MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.people.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(n: usize) -> Person {
        (AppId::parse("wxa").unwrap(), OpenId::parse(&format!("o{n}")).unwrap())
    }

    #[test]
    fn an_answer_stands_for_ten_minutes_and_none_for_one() {
        let (followers, now) = (Followers::default(), Timestamp::from_secs(1000));
        followers.set(person(1), Some(false), now);
        followers.set(person(2), None, now);
        assert_eq!(followers.get(&person(1), now.plus(MEMORY - PAUSE)), Some(Some(false)));
        assert_eq!(followers.get(&person(1), now.plus(MEMORY)), None);
        assert_eq!((followers.get(&person(2), now), followers.get(&person(2), now.plus(PAUSE))), (Some(None), None));
    }

    #[test]
    fn its_memory_is_bounded() {
        let (followers, now) = (Followers::default(), Timestamp::from_secs(1000));
        for n in 0..=MAX {
            followers.set(person(n), Some(true), now);
        }
        assert_eq!(followers.get(&person(0), now), None);
        assert_eq!(followers.known.lock().unwrap().people.len(), MAX);
    }
}
