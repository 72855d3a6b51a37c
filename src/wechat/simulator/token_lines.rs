//! The two lines of access tokens, isolated from each other: classic and stable (official pages "Get interface call
//! credential", "Get stable interface call credential").

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::bounded::Bounded;
use super::random;
use crate::clock::Timestamp;
use crate::ids::AppId;

/// Life of a token, `expires_in` of a new one.
const TTL: Duration = Duration::from_secs(7200);

/// How long an old and a new token are both good.
const OVERLAP: Duration = Duration::from_secs(5 * 60);

/// Forced refreshes of the stable line: so many in a day, so far apart.
const FORCED_PER_DAY: usize = 20;
const FORCED_APART: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Tokens, and lines, that are remembered.
const MAX_TOKENS: usize = 10_000;

/// Which line a token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Line {
    Classic,
    Stable,
}

/// A token as the caller gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) text: String,
    /// Seconds left.
    pub(super) expires_in: u64,
}

#[derive(Debug)]
struct Issued {
    appid: AppId,
    good_until: Timestamp,
    /// A newer token took its place before its time.
    retired: bool,
}

#[derive(Debug, Default)]
struct Current {
    text: String,
    expires: Timestamp,
    /// When the last refreshes were forced, oldest first.
    forced: VecDeque<Timestamp>,
}

/// All tokens.
#[derive(Debug)]
pub(super) struct TokenLines {
    issued: Bounded<String, Issued>,
    current: Bounded<(AppId, Line), Current>,
}

impl TokenLines {
    pub(super) fn new() -> Self {
        Self { issued: Bounded::new(MAX_TOKENS), current: Bounded::new(MAX_TOKENS) }
    }

    /// `GET /cgi-bin/token`: a new token at each call; the one before stays good for five minutes.
    pub(super) fn classic(&mut self, appid: &AppId, now: Timestamp) -> Granted {
        self.retire(appid, Line::Classic, now.plus(OVERLAP));
        self.mint(appid, Line::Classic, now)
    }

    /// `POST /cgi-bin/stable_token`: the same token until five minutes before its end, then the next one while the old one
    /// lives out its time. `force` kills the present one, within limits; beyond them nothing is refreshed.
    pub(super) fn stable(&mut self, appid: &AppId, force: bool, now: Timestamp) -> Granted {
        let key = (appid.clone(), Line::Stable);
        if self.current.get(&key).is_none() {
            return self.mint(appid, Line::Stable, now);
        }
        if force && self.may_force(&key, now) {
            self.retire(appid, Line::Stable, now);
            return self.mint(appid, Line::Stable, now);
        }
        match self.current.get(&key) {
            Some(current) if current.expires.since(now) > OVERLAP => {
                Granted { text: current.text.clone(), expires_in: current.expires.since(now).as_secs() }
            }
            _ => self.mint(appid, Line::Stable, now),
        }
    }

    /// The app that this token speaks for; else 41001, 40014, 40001 or 42001.
    pub(super) fn check(&self, text: &str, now: Timestamp) -> Result<AppId, i64> {
        match self.issued.get(text) {
            _ if text.is_empty() => Err(41001),
            None if text.len() < TOKEN_LEN => Err(40014),
            None => Err(40001),
            Some(token) if now < token.good_until => Ok(token.appid.clone()),
            Some(token) if token.retired => Err(40001),
            Some(_) => Err(42001),
        }
    }

    fn may_force(&mut self, key: &(AppId, Line), now: Timestamp) -> bool {
        let Some(current) = self.current.get_mut(key) else { return false };
        while current.forced.front().is_some_and(|at| now.since(*at) >= DAY) {
            current.forced.pop_front();
        }
        let rested = current.forced.back().is_none_or(|at| now.since(*at) >= FORCED_APART);
        let allowed = rested && current.forced.len() < FORCED_PER_DAY;
        if allowed {
            current.forced.push_back(now);
        }
        allowed
    }

    fn retire(&mut self, appid: &AppId, line: Line, good_until: Timestamp) {
        let Some(current) = self.current.get(&(appid.clone(), line)) else { return };
        if let Some(token) = self.issued.get_mut(&current.text) {
            token.good_until = token.good_until.min(good_until);
            token.retired = true;
        }
    }

    fn mint(&mut self, appid: &AppId, line: Line, now: Timestamp) -> Granted {
        let text = URL_SAFE_NO_PAD.encode(random::<{ TOKEN_LEN / 4 * 3 }>());
        let expires = now.plus(TTL);
        self.issued.insert(text.clone(), Issued { appid: appid.clone(), good_until: expires, retired: false });
        let key = (appid.clone(), line);
        match self.current.get_mut(&key) {
            Some(current) => (current.text, current.expires) = (text.clone(), expires),
            None => self.current.insert(key, Current { text: text.clone(), expires, forced: VecDeque::new() }),
        }
        Granted { text, expires_in: TTL.as_secs() }
    }
}

/// Characters of a token: about as long as WeChat's.
const TOKEN_LEN: usize = 136;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn at(secs: u64) -> Timestamp {
        START.plus(Duration::from_secs(secs))
    }

    fn app() -> AppId {
        AppId::parse("wxa").unwrap()
    }

    #[test]
    fn a_classic_token_outlives_its_successor_by_five_minutes() {
        let mut tokens = TokenLines::new();
        let first = tokens.classic(&app(), START);
        let second = tokens.classic(&app(), at(10));
        assert_ne!(first, second);
        assert_eq!(tokens.check(&first.text, at(309)), Ok(app()));
        assert_eq!(tokens.check(&first.text, at(310)), Err(40001));
        assert_eq!(tokens.check(&second.text, at(7209)), Ok(app()));
        assert_eq!(tokens.check(&second.text, at(7210)), Err(42001));
    }

    #[test]
    fn a_stable_token_repeats_until_five_minutes_before_its_end() {
        let mut tokens = TokenLines::new();
        let first = tokens.stable(&app(), false, START);
        assert_eq!(first.expires_in, 7200);
        let again = tokens.stable(&app(), false, at(6000));
        assert_eq!((again.text, again.expires_in), (first.text.clone(), 1200));
        let next = tokens.stable(&app(), false, at(6900));
        assert_ne!(next.text, first.text);
        assert_eq!(tokens.check(&first.text, at(7199)), Ok(app()));
        assert_eq!(tokens.check(&next.text, at(7199)), Ok(app()));
    }

    #[test]
    fn the_lines_do_not_touch_each_other() {
        let mut tokens = TokenLines::new();
        let stable = tokens.stable(&app(), false, START);
        tokens.classic(&app(), START);
        tokens.classic(&app(), START);
        assert_eq!(tokens.check(&stable.text, at(1000)), Ok(app()));
    }

    #[test]
    fn a_forced_refresh_kills_the_token_at_once_but_only_so_often() {
        let mut tokens = TokenLines::new();
        let first = tokens.stable(&app(), false, START);
        let second = tokens.stable(&app(), true, START);
        assert_eq!(tokens.check(&first.text, START), Err(40001));
        assert_eq!(tokens.stable(&app(), true, at(29)).text, second.text, "30 s apart");
        for n in 1..20 {
            tokens.stable(&app(), true, at(30 * n));
        }
        let last = tokens.stable(&app(), false, at(600));
        assert_eq!(tokens.stable(&app(), true, at(630)).text, last.text, "20 a day");
    }

    #[test]
    fn what_was_never_issued_is_refused() {
        let tokens = TokenLines::new();
        assert_eq!(tokens.check("", START), Err(41001));
        assert_eq!(tokens.check("short", START), Err(40014));
        assert_eq!(tokens.check(&"a".repeat(TOKEN_LEN), START), Err(40001));
    }
}
