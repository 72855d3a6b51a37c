//! The one HTTP error: `application/problem+json` (RFC 9457).
//!
//! Both halves stand here: the catalogue of codes with their status and title (contract, section 5), and the table
//! *domain error → problem*, matched exhaustively, so that one place says what a stranger may learn. The cause of a
//! 5xx travels beside the response for the log and never in it.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::body::Body;
use crate::{credential, limiter, proxy, store, token, wechat};

macro_rules! catalogue {
    ($($variant:ident = $code:literal, $status:literal, $title:literal;)*) => {
        /// Why a request was refused; the `code` member of a problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = concat!($title, " (", stringify!($status), ")")] $variant,)*
        }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in `code` and `type`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The short text, the same for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// The code of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

catalogue! {
    InvalidRequest = "invalid_request", 400, "The request is not valid";
    UnknownApp = "unknown_app", 400, "This appid is not configured";
    SignatureMismatch = "signature_mismatch", 400, "The signature does not fit the data";
    DecryptFailed = "decrypt_failed", 400, "The data could not be decrypted";
    AmbiguousPath = "ambiguous_path", 400, "The path can be read in more than one way";
    AmbiguousToken = "ambiguous_token", 400, "More than one token was sent";
    TokenMissing = "token_missing", 401, "A token is needed";
    TokenInvalid = "token_invalid", 401, "The token is not valid";
    TokenExpired = "token_expired", 401, "The token has expired";
    TokenRevoked = "token_revoked", 401, "The token was revoked";
    RefreshInvalid = "refresh_invalid", 401, "The refresh token is not valid";
    RefreshReused = "refresh_reused", 401, "The refresh token was used before";
    CodeInvalid = "code_invalid", 401, "The login code is not valid";
    CodeUsed = "code_used", 401, "The login code was used before";
    SessionKeyStale = "session_key_stale", 401, "No session_key is known: log in again";
    Forbidden = "forbidden", 403, "Not allowed";
    MemberBanned = "member_banned", 403, "This member is banned";
    LoginRefused = "login_refused", 403, "The login was refused";
    LoginBlocked = "login_blocked", 403, "WeChat blocked this login";
    OriginForbidden = "origin_forbidden", 403, "This origin is not allowed";
    RouteNotFound = "route_not_found", 404, "Nothing is here";
    MethodNotAllowed = "method_not_allowed", 405, "This method is not allowed here";
    RequestTimeout = "request_timeout", 408, "The request did not arrive in time";
    BodyTooLarge = "body_too_large", 413, "The body is too large";
    UriTooLong = "uri_too_long", 414, "The request target is too long";
    RateLimited = "rate_limited", 429, "Too many requests";
    WechatRateLimited = "wechat_rate_limited", 429, "WeChat limits the rate of logins";
    HeadersTooLarge = "headers_too_large", 431, "The request head is too large";
    Internal = "internal", 500, "Something went wrong";
    NotImplemented = "not_implemented", 501, "Not implemented";
    UpstreamFailed = "upstream_failed", 502, "The service gave no valid answer";
    WechatFailed = "wechat_failed", 502, "WeChat gave no valid answer";
    UpstreamUnavailable = "upstream_unavailable", 503, "The service is unavailable";
    Overloaded = "overloaded", 503, "The gateway is overloaded";
    Draining = "draining", 503, "The gateway is shutting down";
    StoreUnavailable = "store_unavailable", 503, "The store is unavailable";
    WechatUnavailable = "wechat_unavailable", 503, "WeChat is unavailable";
    UpstreamTimeout = "upstream_timeout", 504, "The service did not answer in time";
    WechatTimeout = "wechat_timeout", 504, "WeChat did not answer in time";
    VersionNotSupported = "version_not_supported", 505, "This HTTP version is not supported";
}

/// Seconds that a client is asked to wait when nothing better is known.
const DEFAULT_RETRY_AFTER_SECS: u64 = 1;

/// A refusal on its way to the client. Cheap to clone: all who wait for one login get the same.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    retry_after: u64,
    allow: Option<HeaderValue>,
    limit: Option<Box<limiter::Refusal>>,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Problem {
    /// A problem whose detail says what to do. Nothing secret and, for a 5xx, nothing of the inside belongs in `detail`.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = DEFAULT_RETRY_AFTER_SECS;
        Self { code, detail: detail.into(), retry_after, allow: None, limit: None, cause: None }
    }

    /// Keeps the cause for the log.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(Arc::from(cause.into()));
        self
    }

    /// Sets `Retry-After`, seconds (sent with 429 and 503 only).
    #[must_use]
    pub fn retry_after(mut self, secs: u64) -> Self {
        self.retry_after = secs;
        self
    }

    /// Sets `Allow` (RFC 9110, section 15.5.6).
    #[must_use]
    pub fn allow(mut self, methods: HeaderValue) -> Self {
        self.allow = Some(methods);
        self
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// For the log: every cause, outermost first, joined by colons.
    pub fn cause_chain(&self) -> Option<String> {
        let mut next: Option<&dyn std::error::Error> = Some(self.cause.as_deref()?);
        let mut text = String::new();
        while let Some(error) = next {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error.to_string());
            next = error.source();
        }
        Some(text)
    }

    /// The response; `instance` is the request id. What the log must know rides on it as an extension ([`Refused`]).
    pub fn into_response(self, instance: &str) -> Response<Body> {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let document = json!({
            "type": format!("urn:wxgate:problem:{}", self.code.name()),
            "title": self.code.title(),
            "status": status.as_u16(),
            "detail": self.detail,
            "instance": instance,
            "code": self.code.name(),
        });
        let cause = self.cause_chain();
        let mut response = Response::new(Body::from(document.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, self.challenge());
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_after.max(1)));
            }
            _ => {}
        }
        if let Some(allow) = self.allow {
            headers.insert(http::header::ALLOW, allow);
        }
        if let Some(limit) = self.limit {
            headers.insert(HeaderName::from_static("ratelimit-policy"), limit.policy);
            headers.insert(HeaderName::from_static("ratelimit"), limit.state);
        }
        response.extensions_mut().insert(Refused { code: self.code, cause });
        response
    }

    /// RFC 6750, section 3: no error code when no token was sent, else `invalid_token`.
    fn challenge(&self) -> HeaderValue {
        match self.code {
            Code::TokenMissing => HeaderValue::from_static("Bearer realm=\"wxgate\""),
            code => HeaderValue::from_str(&format!(
                "Bearer realm=\"wxgate\", error=\"invalid_token\", error_description=\"{}\"",
                code.title()
            ))
            .unwrap_or(HeaderValue::from_static("Bearer")),
        }
    }
}

/// Response extension: why this is a refusal. Read by the log and the metrics, never sent.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The code.
    pub code: Code,
    /// What caused it, for the log.
    pub cause: Option<String>,
}

/// Refusals of the pipeline and the endpoints that several places make.
impl Problem {
    /// No credentials on something that needs them.
    pub fn token_missing() -> Self {
        Self::new(Code::TokenMissing, "Send `Authorization: Bearer <access_token>`; POST /auth/login gives one.")
    }

    /// The token, or its session, was ended before its time.
    pub fn token_revoked() -> Self {
        Self::new(Code::TokenRevoked, "This session has ended: log in again.")
    }

    /// Something that must not happen did; the text is for the log alone.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Code::Internal, "").caused_by(cause)
    }
}

impl From<credential::Ambiguous> for Problem {
    fn from(_: credential::Ambiguous) -> Self {
        Self::new(Code::AmbiguousToken, "Send one token, once: in one Authorization header, or in the cookie.")
    }
}

impl From<token::access::Error> for Problem {
    fn from(error: token::access::Error) -> Self {
        match error {
            token::access::Error::Unverified(error) => error.into(),
            token::access::Error::Revoked => Self::token_revoked(),
            token::access::Error::Stale | token::access::Error::KeysMissed => {
                Self::new(Code::StoreUnavailable, "Try again later.").retry_after(STORE_RETRY_SECS).caused_by(error)
            }
        }
    }
}

impl From<limiter::Refusal> for Problem {
    fn from(refusal: limiter::Refusal) -> Self {
        let mut problem = Self::new(Code::RateLimited, "Too many requests: wait for as long as Retry-After says.")
            .retry_after(limiter::seconds(refusal.wait));
        problem.limit = Some(Box::new(refusal));
        problem
    }
}

impl From<token::verify::Error> for Problem {
    fn from(error: token::verify::Error) -> Self {
        use token::verify::Error as E;
        match error {
            E::Expired => Self::new(Code::TokenExpired, "Refresh the token with POST /auth/refresh."),
            E::Malformed | E::UnknownKey | E::Algorithm | E::Type | E::Signature | E::Claim(_) => {
                Self::new(Code::TokenInvalid, "This is not a valid access token of this gateway: log in again.")
                    .caused_by(error)
            }
        }
    }
}

impl From<token::mint::Error> for Problem {
    fn from(error: token::mint::Error) -> Self {
        use token::mint::Error as E;
        match error {
            E::SessionOver => Self::token_revoked(),
            E::Role | E::TooLong | E::Unsigned(_) | E::Unissued(_) => Self::internal(error),
        }
    }
}

impl From<token::refresh::Malformed> for Problem {
    fn from(_: token::refresh::Malformed) -> Self {
        Self::new(Code::RefreshInvalid, "This is not a refresh token of this gateway: log in again.")
    }
}

/// Seconds after which a client may ask again when the store is away.
const STORE_RETRY_SECS: u64 = 5;

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(_) => {
                Self::new(Code::StoreUnavailable, "Try again later.").retry_after(STORE_RETRY_SECS).caused_by(error)
            }
            store::Error::Damaged(_) => Self::internal(error),
        }
    }
}

impl From<store::vault::Error> for Problem {
    fn from(error: store::vault::Error) -> Self {
        Self::internal(error)
    }
}

/// Seconds to the next minute at most: WeChat counts logins per minute.
const WECHAT_MINUTE_SECS: u64 = 60;

impl From<wechat::Error> for Problem {
    fn from(error: wechat::Error) -> Self {
        use wechat::{Error as E, Meaning as M};
        let (code, detail, retry) = match &error {
            E::Errcode(errcode) => match errcode.meaning {
                M::BadCode => (Code::CodeInvalid, "Call wx.login again and send its new code.", 0),
                M::UsedCode => (Code::CodeUsed, "Call wx.login again: a code is good for one login.", 0),
                M::Blocked => {
                    (Code::LoginBlocked, "WeChat classes this user as high risk. Trying again will not help.", 0)
                }
                M::Restricted => (Code::LoginBlocked, "WeChat has restricted this user or account.", 0),
                M::RateLimited => (Code::WechatRateLimited, "Wait a minute before the next try.", WECHAT_MINUTE_SECS),
                M::Busy => (Code::WechatUnavailable, "WeChat is busy: start again, with a new code, in a moment.", 1),
                M::QuotaExceeded => {
                    (Code::WechatUnavailable, "WeChat takes no more calls at the moment.", WECHAT_MINUTE_SECS)
                }
                M::Configuration(_) | M::OurFault | M::AccessToken | M::SignatureInvalid | M::Other => {
                    (Code::WechatFailed, "WeChat refused what the gateway asked of it.", 0)
                }
            },
            E::CircuitOpen { retry_after } => {
                let secs = retry_after.as_millis().div_ceil(1000);
                (Code::WechatUnavailable, "WeChat is failing: try again later.", u64::try_from(secs).unwrap_or(1))
            }
            E::Connect(_) => (Code::WechatUnavailable, "WeChat cannot be reached: try again in a moment.", 1),
            E::Timeout => (Code::WechatTimeout, "WeChat did not answer in time: start again with a new code.", 0),
            E::Transport(_) | E::Answer(_) => {
                (Code::WechatFailed, "WeChat gave no usable answer: start again with a new code.", 0)
            }
        };
        Self::new(code, detail).retry_after(retry).caused_by(error)
    }
}

impl From<proxy::Error> for Problem {
    fn from(error: proxy::Error) -> Self {
        use proxy::Error as E;
        let mut retry = DEFAULT_RETRY_AFTER_SECS;
        let (code, detail) = match &error {
            E::CircuitOpen(span) => {
                retry = span.as_secs();
                (Code::UpstreamUnavailable, "The service is failing: try again later.")
            }
            E::TooManyRequests | E::QueueFull | E::QueueTimeout => {
                (Code::Overloaded, "The service has too much to do: try again in a moment.")
            }
            E::Resolve(_) | E::Connect(_) | E::ConnectTimeout => {
                (Code::UpstreamUnavailable, "The service cannot be reached: try again in a moment.")
            }
            E::ResponseHeadTimeout | E::TotalTimeout => (Code::UpstreamTimeout, "The service took too long."),
            E::Tls(_) | E::Closed(_) | E::Protocol(_) | E::ResponseBodyBroken(_) | E::ResponseBodyIdle => {
                (Code::UpstreamFailed, "The service gave no valid answer.")
            }
            E::RequestBodyAborted(_) => (Code::InvalidRequest, "The request body broke off."),
            E::RequestBodyTooLarge => (Code::BodyTooLarge, "The request body is over the limit of this route."),
            E::RequestBodyIdle => (Code::RequestTimeout, "The request body did not arrive in time."),
        };
        Self::new(code, detail).retry_after(retry).caused_by(error)
    }
}
