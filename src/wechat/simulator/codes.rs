//! Single-use codes: those of `wx.login`, and those of the phone button. Five minutes, one use, one app.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::bounded::Bounded;
use super::random;
use crate::clock::Timestamp;
use crate::ids::AppId;

/// Life of a code (official page "wx.login").
const TTL: Duration = Duration::from_secs(5 * 60);

/// Codes that are remembered at once.
const MAX_CODES: usize = 100_000;

#[derive(Debug)]
struct Code {
    user: String,
    /// The only app that may redeem it; `None`: any.
    appid: Option<AppId>,
    expires: Timestamp,
    used: bool,
}

/// The codes of one kind.
#[derive(Debug)]
pub(super) struct Codes {
    issued: Bounded<String, Code>,
    /// What WeChat answers when another app shows the code.
    foreign: i64,
}

impl Codes {
    /// `foreign` is the errcode for a code of another app.
    pub(super) fn new(foreign: i64) -> Self {
        Self { issued: Bounded::new(MAX_CODES), foreign }
    }

    /// A new code, 32 characters.
    pub(super) fn issue(&mut self, user: &str, appid: Option<&AppId>, now: Timestamp) -> String {
        self.issued.forget_while(|code| code.expires <= now);
        let text = URL_SAFE_NO_PAD.encode(random::<24>());
        let code = Code { user: user.to_owned(), appid: appid.cloned(), expires: now.plus(TTL), used: false };
        self.issued.insert(text.clone(), code);
        text
    }

    /// Uses the code up and says whose it was; or the errcode: 40029, 40163, or the one for a foreign app.
    pub(super) fn redeem(&mut self, text: &str, appid: &AppId, now: Timestamp) -> Result<String, i64> {
        let code = self.issued.get_mut(text).filter(|code| now < code.expires).ok_or(40029)?;
        if code.appid.as_ref().is_some_and(|owner| owner != appid) {
            return Err(self.foreign);
        }
        if std::mem::replace(&mut code.used, true) {
            return Err(40163);
        }
        Ok(code.user.clone())
    }

    /// Whose code this is, without using it.
    pub(super) fn owner(&self, text: &str) -> Option<&str> {
        self.issued.get(text).map(|code| code.user.as_str())
    }
}
