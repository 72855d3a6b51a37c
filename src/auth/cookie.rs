//! Cookie carriage at the endpoints: tokens of pages, which no script of theirs can read.
//!
//! The web login of an app with `web_result = "cookie"` ends with two cookies, the access and the refresh token. `refresh`
//! without a token in its body rotates them, `logout` takes them away, and every endpoint that wants a caller reads the
//! first. Where no app is configured so, no cookie is read.

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, Response};

use crate::body::Body;
use crate::config::{self, WebResult};
use crate::credential::Ambiguous;
use crate::credential::cookie::{self, Names, Origins};
use crate::ids::Secret;
use crate::problem::{Code, Problem};
use crate::token::refresh::RefreshToken;

use super::call::Call;

/// How cookies are written and read here.
#[derive(Debug)]
pub struct Cookies {
    names: Names,
    secure: bool,
    enabled: bool,
    origins: Origins,
    /// Seconds: as long as the refresh token may live. The tokens themselves know better when they end.
    max_age: u64,
}

/// The cookies of a call.
#[derive(Debug, Default)]
pub(super) struct Shown<'a> {
    pub(super) access: Option<&'a [u8]>,
    pub(super) refresh: Option<&'a [u8]>,
}

impl Cookies {
    /// For these apps.
    pub fn new(section: &config::Token, apps: &[config::App]) -> Self {
        let (own, secure) = (section.origin(), section.is_secure());
        let web = || apps.iter().filter_map(|app| app.web.as_ref());
        let origins = web().flat_map(|web| &web.origins).map(String::as_str);
        Self {
            names: cookie::names(secure),
            secure,
            enabled: web().any(|web| web.result == WebResult::Cookie),
            origins: Origins::new(origins.chain([own.as_str()])),
            max_age: section.refresh_ttl.as_secs(),
        }
    }

    /// The tokens in the cookies of a call.
    ///
    /// # Errors
    /// `origin_forbidden`, when the call may change something and no page of ours made it; `ambiguous_token`.
    pub(super) fn shown<'a>(&self, call: &'a Call) -> Result<Shown<'a>, Problem> {
        if !self.enabled {
            return Ok(Shown::default());
        }
        let headers = call.headers();
        let (access, refresh) = (cookie::read(headers, self.names.access)?, cookie::read(headers, self.names.refresh)?);
        let acts = !call.method().is_safe();
        if (access.is_some() || refresh.is_some()) && !self.origins.admit(headers, acts) {
            let detail =
                "With a cookie, only pages of the gateway's own origin and of the `origins` of its apps may do this.";
            return Err(Problem::new(Code::OriginForbidden, detail));
        }
        Ok(Shown { access, refresh })
    }

    /// The cookie of an access token.
    ///
    /// # Errors
    /// `internal`; tokens of ours can stand in a cookie.
    pub fn access(&self, token: &Secret<String>) -> Result<HeaderValue, Problem> {
        self.written(self.names.access, token.expose(), self.max_age, "Lax")
    }

    /// Sets both cookies.
    ///
    /// # Errors
    /// As [`Cookies::access`].
    pub(super) fn set(
        &self,
        headers: &mut HeaderMap,
        token: &Secret<String>,
        refresh: &RefreshToken,
    ) -> Result<(), Problem> {
        let refresh = refresh.expose();
        headers.append(SET_COOKIE, self.access(token)?);
        headers.append(SET_COOKIE, self.written(self.names.refresh, refresh.expose(), self.max_age, "Strict")?);
        Ok(())
    }

    /// Takes both cookies away.
    pub(super) fn clear(&self, response: &mut Response<Body>) {
        for (name, same_site) in [(self.names.access, "Lax"), (self.names.refresh, "Strict")] {
            response.headers_mut().extend(self.written(name, "", 0, same_site).map(|cookie| (SET_COOKIE, cookie)));
        }
    }

    fn written(&self, name: &str, value: &str, max_age: u64, same_site: &str) -> Result<HeaderValue, Problem> {
        let secure = if self.secure { "; Secure" } else { "" };
        let text = format!("{name}={value}; Path=/; Max-Age={max_age}{secure}; HttpOnly; SameSite={same_site}");
        let mut cookie = HeaderValue::try_from(text).map_err(Problem::internal)?;
        cookie.set_sensitive(true);
        Ok(cookie)
    }
}

/// The one token that is shown in two places: the same in both, or in one alone.
///
/// # Errors
/// `ambiguous_token`, when they differ.
pub(super) fn one<'a>(here: Option<&'a [u8]>, there: Option<&'a [u8]>) -> Result<Option<&'a [u8]>, Problem> {
    match (here, there) {
        (Some(here), Some(there)) if here != there => Err(Ambiguous.into()),
        (here, there) => Ok(here.or(there)),
    }
}
