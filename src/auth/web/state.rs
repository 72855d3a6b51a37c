//! The `state` of a web login: made here, brought back once, by the same browser, within ten minutes.
//!
//! It is time, a random id and an HMAC over both, the app and the cookie that the browser got with it; the cookie holds
//! a secret of this login and the URL to return to. WeChat takes letters and digits only, so it is hexadecimal. So a state is worth nothing in another browser, for another app or
//! with another URL, and nothing has to be remembered until it comes back. That it came back is remembered: in this
//! process, bounded, and when the bound is reached a login is refused rather than an old state forgotten.
//!
//! Over `https` the cookie is `Secure` and has the `__Host-` prefix, so that no other host can set it. Over plain `http`,
//! which the configuration allows for loopback alone, browsers take no such cookie: there it has neither.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use crate::clock::Timestamp;
use crate::ids::AppId;
use crate::problem::{Code, Problem};
use crate::store::shared::{Purpose, Shared};

/// How long the browser may take.
pub const LIFE: Duration = Duration::from_secs(600);

/// How far ahead of ours the clock of the instance that made it may be.
const AHEAD: Duration = Duration::from_secs(60);

const TIME: usize = 8;
const ID: usize = 16;
const MAC: usize = 32;

type Id = [u8; ID];

/// Makes and takes back states.
pub(in crate::auth) struct States {
    key: hmac::Key,
    shared: Arc<dyn Shared>,
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("States(…)")
    }
}

/// A new state, and the cookie that goes with it.
pub(super) struct Issued {
    pub(super) state: String,
    pub(super) set_cookie: HeaderValue,
}

/// A state that has come back.
pub(super) struct Returned {
    /// Where the browser wants to go.
    pub(super) redirect: String,
    /// Takes the cookie away.
    pub(super) clear_cookie: HeaderValue,
    id: Id,
}

impl States {
    pub(super) fn new(key: &[u8], shared: Arc<dyn Shared>) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), shared }
    }

    /// A state for a login to `appid` that ends at `redirect`. `secure` says whether the public URL is `https`.
    pub(super) fn issue(&self, appid: &AppId, redirect: &str, secure: bool, now: Timestamp) -> Result<Issued, Problem> {
        let (mut id, mut secret) = ([0; ID], [0; ID]);
        rand::fill(&mut id).and_then(|()| rand::fill(&mut secret)).map_err(Problem::internal)?;
        let value = format!("{}{}", hex(&secret), URL_SAFE_NO_PAD.encode(redirect));
        let time = now.millis().to_be_bytes();
        let mac = self.sign(appid, &time, &id, &value);
        let set_cookie = cookie(&name(&id, secure), &value, LIFE.as_secs(), secure)?;
        Ok(Issued { state: [hex(&time), hex(&id), hex(mac.as_ref())].concat(), set_cookie })
    }

    /// Reads a state that `headers` came with: ours, of this app, of this browser, in time. Whether it was used before
    /// is asked by [`States::use_up`].
    pub(super) fn read(
        &self,
        appid: &AppId,
        state: &str,
        headers: &HeaderMap,
        secure: bool,
        now: Timestamp,
    ) -> Result<Returned, Problem> {
        self.check(appid, state, headers, secure, now).ok_or_else(refused)
    }

    fn check(&self, appid: &AppId, state: &str, headers: &HeaderMap, secure: bool, now: Timestamp) -> Option<Returned> {
        let bytes: [u8; TIME + ID + MAC] = unhex(state)?;
        let (time, rest) = bytes.split_first_chunk::<TIME>()?;
        let (id, mac) = rest.split_first_chunk::<ID>()?;
        let name = name(id, secure);
        let value = only_cookie(headers, &name)?;
        hmac::verify(&self.key, &message(appid, time, id, value), mac).ok()?;
        let made = Timestamp::from_millis(i64::from_be_bytes(*time));
        if now.since(made) >= LIFE || made.since(now) > AHEAD {
            return None;
        }
        let redirect = URL_SAFE_NO_PAD.decode(value.get(2 * ID..)?).ok()?;
        Some(Returned {
            redirect: String::from_utf8(redirect).ok()?,
            clear_cookie: cookie(&name, "", 0, secure).ok()?,
            id: *id,
        })
    }

    /// Remembers that this state came back, for all instances.
    ///
    /// # Errors
    /// `invalid_request` when it had come back before, `store_unavailable` when no more can be remembered.
    pub(super) async fn use_up(&self, returned: &Returned) -> Result<(), Problem> {
        match self.shared.claim(Purpose::State, &returned.id, b"", LIFE + AHEAD).await? {
            true => Ok(()),
            false => Err(refused()),
        }
    }

    fn sign(&self, appid: &AppId, time: &[u8; TIME], id: &Id, cookie: &str) -> hmac::Tag {
        hmac::sign(&self.key, &message(appid, time, id, cookie))
    }
}

/// What is signed. Every part but the last has its length fixed or written down.
fn message(appid: &AppId, time: &[u8; TIME], id: &Id, cookie: &str) -> Vec<u8> {
    let appid = appid.as_str().as_bytes();
    let length = (appid.len() as u64).to_be_bytes();
    [b"wxgate: web state\0".as_slice(), time, id, &length, appid, cookie.as_bytes()].concat()
}

/// One and the same for every state that is not good, so that nothing is learned by trying.
fn refused() -> Problem {
    let detail = "This login was not started in this browser, took longer than 10 minutes, or is over: start it again.";
    Problem::new(Code::InvalidRequest, detail)
}

/// Each login has a cookie of its own, so that two windows do not end each other's.
fn name(id: &Id, secure: bool) -> String {
    let prefix = if secure { "__Host-" } else { "" };
    format!("{prefix}wxgate-web-{}", hex(&id[..4]))
}

fn cookie(name: &str, value: &str, max_age: u64, secure: bool) -> Result<HeaderValue, Problem> {
    let secure = if secure { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("{name}={value}; Path=/; Max-Age={max_age}{secure}; HttpOnly; SameSite=Lax"))
        .map_err(Problem::internal)
}

/// The cookie of this name; none when there are two, since which is meant cannot be known.
fn only_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut found = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim_ascii().split_once('='))
        .filter(|(known, _)| *known == name)
        .map(|(_, value)| value);
    let first = found.next();
    if found.next().is_some() { None } else { first }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The bytes of lower-case hexadecimal of exactly this length.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::store::shared::Memory;

    const STATE_LEN: usize = 2 * (TIME + ID + MAC);
    const NOW: Timestamp = Timestamp::from_secs(1_000_000);
    const URL: &str = "https://m.example.com/a?b=c";

    fn states(key: &[u8]) -> States {
        States::new(key, Arc::new(Memory::new(Clock::manual(NOW))))
    }

    fn app(appid: &str) -> AppId {
        AppId::parse(appid).unwrap()
    }

    /// The headers of the browser that got this cookie.
    fn browser(issued: &Issued) -> HeaderMap {
        let cookie = issued.set_cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(&format!("a=b; {cookie}; c=d")).unwrap())])
    }

    #[test]
    fn a_state_is_alphanumeric_and_short_enough_for_wechat() {
        let issued = states(b"k").issue(&app("wxa"), URL, true, NOW).unwrap();
        assert_eq!(issued.state.len(), STATE_LEN);
        const { assert!(STATE_LEN <= 128) };
        assert!(issued.state.bytes().all(|b| b.is_ascii_alphanumeric()));
        let cookie = issued.set_cookie.to_str().unwrap();
        assert!(cookie.starts_with("__Host-wxgate-web-"), "{cookie}");
        assert!(cookie.ends_with("; Path=/; Max-Age=600; Secure; HttpOnly; SameSite=Lax"), "{cookie}");
        let plain = states(b"k").issue(&app("wxa"), URL, false, NOW).unwrap().set_cookie;
        let plain = plain.to_str().unwrap();
        assert!(plain.starts_with("wxgate-web-") && !plain.contains("Secure"), "{plain}");
    }

    #[test]
    fn a_state_is_good_for_its_browser_its_app_and_ten_minutes() {
        let ours = states(b"k");
        let issued = ours.issue(&app("wxa"), URL, true, NOW).unwrap();
        let good = browser(&issued);
        let read = |appid: &str, state: &str, headers: &HeaderMap, now| {
            ours.read(&app(appid), state, headers, true, now).map(|returned| returned.redirect).ok()
        };
        let last = NOW.plus(LIFE - Duration::from_millis(1));
        assert_eq!(read("wxa", &issued.state, &good, NOW).as_deref(), Some(URL));
        assert_eq!(read("wxa", &issued.state, &good, last).as_deref(), Some(URL));
        assert_eq!(read("wxa", &issued.state, &good, NOW.plus(LIFE)), None);
        assert_eq!(read("wxa", &issued.state, &good, NOW.minus(AHEAD + AHEAD)), None);
        assert_eq!(read("wxb", &issued.state, &good, NOW), None);
        assert_eq!(read("wxa", &issued.state, &HeaderMap::new(), NOW), None);
        assert_eq!(read("wxa", &issued.state.to_uppercase(), &good, NOW), None);
        let other = ours.issue(&app("wxa"), URL, true, NOW).unwrap();
        assert_eq!(read("wxa", &issued.state, &browser(&other), NOW), None);
        assert_eq!(read("wxa", &other.state, &good, NOW), None);
        assert!(states(b"other").read(&app("wxa"), &issued.state, &good, true, NOW).is_err());
        let mut twice = good.clone();
        twice.append(COOKIE, good[COOKIE].clone());
        assert_eq!(read("wxa", &issued.state, &twice, NOW), None);
    }

    #[test]
    fn no_changed_character_of_state_or_cookie_passes() {
        let states = states(b"k");
        let issued = states.issue(&app("wxa"), URL, true, NOW).unwrap();
        let good = browser(&issued);
        for at in 0..STATE_LEN {
            let mut changed = issued.state.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(states.read(&app("wxa"), &changed, &good, true, NOW).is_err(), "{at}");
        }
        for bad in ["", "0", &issued.state[1..], &format!("{}00", issued.state), &"é".repeat(56)] {
            assert!(states.read(&app("wxa"), bad, &good, true, NOW).is_err(), "{bad}");
        }
        let line = good[COOKIE].to_str().unwrap();
        let value = line.find("wxgate-web-").unwrap() + "wxgate-web-00000000=".len();
        for at in value..line.len() - "; c=d".len() {
            let mut changed = line.to_owned().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = HeaderMap::from_iter([(COOKIE, HeaderValue::from_bytes(&changed).unwrap())]);
            assert!(states.read(&app("wxa"), &issued.state, &changed, true, NOW).is_err(), "{at}");
        }
    }

    #[tokio::test]
    async fn a_state_is_used_once() {
        let clock = Clock::manual(NOW);
        let states = States::new(b"k", Arc::new(Memory::new(clock.clone())));
        let returned =
            |n: u8| Returned { redirect: String::new(), clear_cookie: HeaderValue::from_static(""), id: [n; ID] };
        states.use_up(&returned(1)).await.unwrap();
        states.use_up(&returned(2)).await.unwrap();
        // As long as any instance may still take it for good.
        clock.advance(LIFE + AHEAD - Duration::from_millis(1));
        assert_eq!(states.use_up(&returned(1)).await.unwrap_err().code(), Code::InvalidRequest);
    }
}
