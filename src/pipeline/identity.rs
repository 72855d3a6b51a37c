//! Tells the upstream who the caller is: the header names of WeChat CloudRun, and our own.
//!
//! `hygiene` has removed whatever a client sent under these names; what stands here is the only value. The only file that
//! knows the names.

use std::convert::Infallible;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue};
use tower::{Layer, Service};

use crate::credential::cookie;
use crate::http1::lines;
use crate::ids::{AppId, OpenId};
use crate::problem::Problem;
use crate::token::Claims;
use crate::token::assertion::Asserter;

use super::principal::Principal;
use super::route::Matched;
use super::{Decided, Request, Response, refuse};

const OPENID: HeaderName = HeaderName::from_static("x-wx-openid");
const APPID: HeaderName = HeaderName::from_static("x-wx-appid");
const UNIONID: HeaderName = HeaderName::from_static("x-wx-unionid");
const SOURCE: HeaderName = HeaderName::from_static("x-wx-source");
const MEMBER: HeaderName = HeaderName::from_static("x-wxgate-member");
const ROLES: HeaderName = HeaderName::from_static("x-wxgate-roles");
const USER: HeaderName = HeaderName::from_static("x-wxgate-user");
const SESSION: HeaderName = HeaderName::from_static("x-wxgate-session");
const ASSERTION: HeaderName = HeaderName::from_static("x-wxgate-assertion");
const SUBSCRIBED: HeaderName = HeaderName::from_static("x-wxgate-subscribed");

/// What CloudRun sends for calls of a mini program; its presence is the documented proof that the gateway carried the call.
const WX_CLIENT: &str = "wx_client";

/// For a pushed message. Services that were written for CloudRun look at the presence alone.
const WX_PUSH: HeaderValue = HeaderValue::from_static("wx_push");

/// All names under which a caller's identity is told, but for the assertion: that has an upstream's name in it.
pub const NAMES: [HeaderName; 9] = [OPENID, APPID, UNIONID, SOURCE, MEMBER, ROLES, USER, SESSION, SUBSCRIBED];

/// A caller's headers.
fn fields(caller: &Principal) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let fields = [
        (OPENID, Some(caller.openid.clone())),
        (APPID, Some(caller.appid.clone())),
        (UNIONID, caller.unionid.clone()),
        (SOURCE, Some(HeaderValue::from_static(WX_CLIENT))),
        (MEMBER, Some(caller.member.clone())),
        (ROLES, caller.roles.clone()),
        (USER, caller.user.clone()),
        (SESSION, Some(caller.session.clone())),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?)))
}

/// Sets the caller's headers.
pub fn inject(headers: &mut HeaderMap, caller: &Principal) {
    for (name, value) in fields(caller) {
        headers.insert(name, value);
    }
}

/// `token`, and right behind it the same as lines; and where the values stand, in the order of [`fields`]. What the claims do not
/// say has no line and stands nowhere.
pub(super) fn record(token: &[u8], claims: &Claims) -> (Bytes, [Range<usize>; 8]) {
    let roles = claims.roles.join(",");
    let fields = [
        (OPENID, claims.openid.as_str()),
        (APPID, claims.appid.as_str()),
        (UNIONID, claims.unionid.as_ref().map_or("", |unionid| unionid.as_str())),
        (SOURCE, WX_CLIENT),
        (MEMBER, claims.member_id.as_str()),
        (ROLES, &roles),
        (USER, claims.user_id.as_ref().map_or("", |user| user.as_str())),
        (SESSION, claims.session_id.as_str()),
    ];
    // Kept for long, so without room that it does not need.
    let said = fields.iter().filter(|(_, value)| !value.is_empty());
    let room: usize = said.map(|(name, value)| lines::length(name, value)).sum();
    let mut bytes = Vec::with_capacity(token.len() + room);
    bytes.extend_from_slice(token);
    let places =
        fields.map(|(name, value)| if value.is_empty() { 0..0 } else { lines::push_text(&mut bytes, &name, value) });
    (bytes.into(), places)
}

/// Who follows which official account.
pub trait Subscriptions: Debug + Send + Sync {
    /// What is known, without waiting, of a caller's subscription to the official account that they logged in to. `None`
    /// when nothing is, or the app is no official account.
    fn subscribed(&self, appid: &AppId, openid: &OpenId) -> Option<bool>;
}

/// Tells whether the caller follows the official account: `true` or `false`.
pub fn inject_subscribed(headers: &mut HeaderMap, subscribed: bool) {
    headers.insert(SUBSCRIBED, HeaderValue::from_static(if subscribed { "true" } else { "false" }));
}

/// Sets the headers of a message that WeChat pushed: no client called, so no member and no session.
pub fn inject_push(headers: &mut HeaderMap, appid: &AppId, openid: Option<&OpenId>) {
    let value = |text: &str| HeaderValue::from_str(text).ok();
    headers.insert(SOURCE, WX_PUSH);
    headers.extend(value(appid.as_str()).map(|appid| (APPID, appid)));
    headers.extend(openid.and_then(|openid| value(openid.as_str())).map(|openid| (OPENID, openid)));
}

/// Makes [`InjectIdentity`].
#[derive(Debug, Clone)]
pub struct IdentityLayer {
    /// Makes assertions.
    pub asserter: Arc<Asserter>,
    /// Asked for each caller; none where no official account is configured.
    pub subscriptions: Option<Arc<dyn Subscriptions>>,
}

impl<S> Layer<S> for IdentityLayer {
    type Service = InjectIdentity<S>;

    fn layer(&self, inner: S) -> InjectIdentity<S> {
        let (asserter, subscriptions) = (Arc::clone(&self.asserter), self.subscriptions.clone());
        InjectIdentity { inner, asserter, subscriptions }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct InjectIdentity<S> {
    inner: S,
    asserter: Arc<Asserter>,
    subscriptions: Option<Arc<dyn Subscriptions>>,
}

impl<S> InjectIdentity<S> {
    /// What is known of the caller into the headers, if the request goes to an upstream.
    fn write(&self, request: &mut Request) -> Result<(), Problem> {
        let exchange = Arc::clone(&request.exchange);
        let Some(Matched::Route(route)) = exchange.matched.get() else { return Ok(()) };
        let headers = request.headers_mut();
        // Where it stands beside the headers, it is not passed on.
        if route.policy.forward_token {
            exchange.gather_authorization(headers);
        } else if exchange.authorization().is_none() {
            headers.remove(AUTHORIZATION);
        }
        cookie::remove(headers);
        if let Some(caller) = exchange.principal.get() {
            if route.in_lines {
                exchange.identified.store(true, Ordering::Relaxed);
            } else {
                inject(headers, caller);
            }
            let (appid, openid) = (&caller.claims.appid, &caller.claims.openid);
            if let Some(subscribed) = self.subscriptions.as_ref().and_then(|who| who.subscribed(appid, openid)) {
                inject_subscribed(headers, subscribed);
            }
            if route.policy.assertion
                && let Some(upstream) = route.policy.upstream
            {
                let name = &route.upstream_name;
                headers.insert(ASSERTION, caller.assertions.get(&caller.claims, upstream, name, &self.asserter)?);
            }
        }
        Ok(())
    }
}

impl<S> Service<Request> for InjectIdentity<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Decided<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match self.write(&mut request) {
            Ok(()) => Decided::passed(self.inner.call(request)),
            Err(problem) => refuse(&request, problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ids::{AppId, MemberId, OpenId, SessionId, UnionId};
    use crate::telemetry::Pseudonyms;
    use crate::token::recent::HasToken as _;

    fn claims() -> Claims {
        Claims {
            member_id: MemberId::parse("m1").unwrap(),
            session_id: SessionId::parse("s1").unwrap(),
            appid: AppId::parse("wxapp").unwrap(),
            openid: OpenId::parse("oPerson").unwrap(),
            unionid: None,
            roles: Vec::new(),
            user_id: None,
            jti: None,
            auth_time: None,
            issued_at: Timestamp::from_secs(1),
            expires_at: Timestamp::from_secs(2),
        }
    }

    fn injected(claims: Claims) -> HeaderMap {
        let mut headers = HeaderMap::new();
        inject(&mut headers, &Principal::new(b"t", claims, &Pseudonyms::new(&[0; 32])).unwrap());
        headers
    }

    #[test]
    fn lines_say_what_headers_say() {
        let mut known = claims();
        known.unionid = Some(UnionId::parse("uPerson").unwrap());
        known.roles = vec!["admin".to_owned(), "ops".to_owned()];
        known.user_id = crate::ids::UserId::parse("u-17").ok();
        for claims in [claims(), known] {
            let caller = Principal::new(b"a.token.s", claims.clone(), &Pseudonyms::new(&[0; 32])).unwrap();
            assert_eq!(caller.member_id(), claims.member_id.as_str());
            assert_eq!((caller.token(), &caller.kept_token()[..]), (&b"a.token.s"[..], &b"a.token.s"[..]));
            for secret in ["a.token.s", "oPerson", "uPerson", "u-17"] {
                assert!(!format!("{caller:?}").contains(secret), "{secret}");
            }
            assert_eq!(lines::tests::read(caller.lines()), injected(claims));
        }
    }

    #[test]
    fn an_unknown_unionid_and_no_roles_are_no_headers() {
        let headers = injected(claims());
        assert_eq!(headers["x-wx-openid"], "oPerson");
        assert_eq!(headers["x-wx-source"], "wx_client");
        assert_eq!(headers.len(), 5);
    }

    #[test]
    fn each_header_has_its_own_value() {
        let mut claims = claims();
        claims.unionid = Some(UnionId::parse("uPerson").unwrap());
        claims.roles = vec!["admin".to_owned(), "ops".to_owned()];
        claims.user_id = crate::ids::UserId::parse("u-17").ok();
        let headers = injected(claims);
        for (name, value) in [
            ("x-wx-openid", "oPerson"),
            ("x-wx-appid", "wxapp"),
            ("x-wx-unionid", "uPerson"),
            ("x-wxgate-member", "m1"),
            ("x-wxgate-session", "s1"),
            ("x-wxgate-roles", "admin,ops"),
            ("x-wxgate-user", "u-17"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
    }
}
