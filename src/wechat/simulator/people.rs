//! The people of the simulator: who they are in which app, and their session_keys.
//!
//! Anybody exists as soon as they are named. What identifies them is computed from the name, so that it is the same after
//! a restart; session_keys are random and live in memory.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::bounded::Bounded;
use super::random;
use crate::ids::AppId;
use crate::wechat::SessionKey;

/// People that are remembered; a few hundred bytes each.
const MAX_PEOPLE: usize = 100_000;

/// Users whose names end so have no unionid, like those of an app that is bound to no Open Platform account.
const NO_UNIONID: &str = "-nounion";

/// The openid of `user` in `appid`: `o` and 27 characters, the length of the official samples.
pub(super) fn openid(user: &str, appid: &AppId) -> String {
    derive(&["openid", user, appid.as_str()])
}

/// The unionid of `user`, the same in all apps.
pub(super) fn unionid(user: &str) -> Option<String> {
    (!user.ends_with(NO_UNIONID)).then(|| derive(&["unionid", user]))
}

/// The phone number of `user`, in the shape of a mainland number.
pub(super) fn phone_number(user: &str) -> String {
    let hash = digest::digest(&digest::SHA256, user.as_bytes());
    let number = hash.as_ref().iter().take(8).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    format!("138{:08}", number % 100_000_000)
}

fn derive(parts: &[&str]) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in parts {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    format!("o{}", &URL_SAFE_NO_PAD.encode(hash.finish())[..27])
}

/// One person in one app, who has logged in at least once.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) user: String,
    pub(super) appid: AppId,
    pub(super) current: SessionKey,
    /// The key before the current one; WeChat no longer knows it.
    pub(super) previous: Option<SessionKey>,
}

/// Everybody who has logged in.
#[derive(Debug)]
pub(super) struct People {
    by_openid: Bounded<String, Person>,
    /// Keys that a client has from `wx.login` while its code was not exchanged yet.
    promised: Bounded<String, SessionKey>,
    /// The app in which each user logged in last: where a request that names none is meant for.
    last_app: Bounded<String, AppId>,
}

impl People {
    pub(super) fn new() -> Self {
        Self {
            by_openid: Bounded::new(MAX_PEOPLE),
            promised: Bounded::new(MAX_PEOPLE),
            last_app: Bounded::new(MAX_PEOPLE),
        }
    }

    /// Gives `user` a new session_key in `appid`. The old one dies: one person has one key per app.
    pub(super) fn rotate(&mut self, user: &str, appid: &AppId) -> SessionKey {
        let openid = openid(user, appid);
        let promised = if self.by_openid.get(&openid).is_none() { self.promised.get(&openid).cloned() } else { None };
        let current = promised.unwrap_or_else(|| SessionKey::from_bytes(random()));
        match self.by_openid.get_mut(&openid) {
            Some(person) => person.previous = Some(std::mem::replace(&mut person.current, current.clone())),
            None => {
                let person =
                    Person { user: user.to_owned(), appid: appid.clone(), current: current.clone(), previous: None };
                self.by_openid.insert(openid, person);
            }
        }
        self.last_app.insert(user.to_owned(), appid.clone());
        current
    }

    /// `user` called `wx.login` in `appid`. Whoever has no key yet has one from now on: their first exchange will give it.
    pub(super) fn promise(&mut self, user: &str, appid: &AppId) {
        let openid = openid(user, appid);
        if self.by_openid.get(&openid).is_none() && self.promised.get(&openid).is_none() {
            self.promised.insert(openid, SessionKey::from_bytes(random()));
        }
    }

    /// The key that the client of this person encrypts with.
    pub(super) fn session_key(&self, openid: &str) -> Option<SessionKey> {
        let current = self.by_openid.get(openid).map(|person| &person.current);
        current.or_else(|| self.promised.get(openid)).cloned()
    }

    pub(super) fn find(&self, openid: &str) -> Option<&Person> {
        self.by_openid.get(openid)
    }

    pub(super) fn last_app(&self, user: &str) -> Option<&AppId> {
        self.last_app.get(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::OpenId;

    #[test]
    fn a_person_is_the_same_each_time_and_another_in_each_app() {
        let (a, b) = (AppId::parse("wxa").unwrap(), AppId::parse("wxb").unwrap());
        assert_eq!(openid("alice", &a), openid("alice", &a));
        assert_ne!(openid("alice", &a), openid("alice", &b));
        assert_ne!(openid("alice", &a), openid("bob", &a));
        assert_eq!(openid("alice", &a).len(), 28);
        assert!(OpenId::parse(&openid("any name\r\n", &a)).is_ok());
        assert!(unionid("alice").is_some() && unionid("alice-nounion").is_none());
        assert_eq!(phone_number("alice").len(), 11);
    }
}
