//! The route's policy and the caller → let in, or 403.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tower::{Layer, Service};

use crate::config::Auth;
use crate::ids::AppId;
use crate::problem::{Code, Problem};
use crate::token::Claims;

use super::route::Matched;
use super::{Decided, Request, Response, refuse};

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// Nobody is logged in, and the route asks for a member, a role or an app.
    Anonymous,
    /// None of the roles that the route asks for.
    Role,
    /// Another app than the route is for.
    App,
}

/// Whether there is a caller where one is required, who has any of these roles and comes from any of these apps; empty is
/// no condition.
///
/// # Errors
/// The first condition that he does not meet.
pub fn authorize(auth: Auth, roles: &[String], apps: &[AppId], caller: Option<&Claims>) -> Result<(), Denial> {
    // `authenticate` has seen to it that somebody is there where somebody must be; if it has not, nobody is let in.
    if roles.is_empty() && apps.is_empty() && (auth != Auth::Required || caller.is_some()) {
        return Ok(());
    }
    let caller = caller.ok_or(Denial::Anonymous)?;
    if !apps.is_empty() && !apps.contains(&caller.appid) {
        return Err(Denial::App);
    }
    if !roles.is_empty() && !roles.iter().any(|role| caller.roles.contains(role)) {
        return Err(Denial::Role);
    }
    Ok(())
}

impl From<Denial> for Problem {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Anonymous => Problem::new(Code::TokenMissing, "This route is for members only: log in."),
            Denial::Role => Problem::new(Code::Forbidden, "This route asks for a role that the member does not have."),
            Denial::App => Problem::new(Code::Forbidden, "This route is not open to this app."),
        }
    }
}

/// Makes [`Authorize`].
#[derive(Debug, Clone, Copy)]
pub struct AuthorizeLayer;

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize { inner }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct Authorize<S> {
    inner: S,
}

impl<S> Service<Request> for Authorize<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Decided<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let exchange = &request.exchange;
        let decision = exchange.matched().and_then(|matched| match matched {
            Matched::Route(route) => {
                let caller = exchange.principal.get().map(|p| &p.claims);
                let policy = &route.policy;
                authorize(policy.auth, &policy.roles, &policy.apps, caller).map_err(Problem::from)
            }
            Matched::Endpoint | Matched::Health | Matched::Static(_) => Ok(()),
        });
        match decision {
            Ok(()) => Decided::passed(self.inner.call(request)),
            Err(problem) => refuse(&request, problem),
        }
    }
}
