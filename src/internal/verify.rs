//! `/verify`: forward-auth for nginx `auth_request`, Traefik ForwardAuth and Caddy `forward_auth`.
//!
//! The front proxy sends the client's `Authorization` here and lets the request in on 200, with the identity headers of
//! the answer; 401 and 403 it hands to the client. `/verify/optional` lets in who shows no token, too. The query may ask
//! for more, `roles=a,b` and `apps=wx…` (any of), and never for less: Caddy sends the client's own query along unless it
//! is told to send another. `X-Forwarded-Method`, `-Host` and `-Uri` name the request in the log and decide nothing:
//! nginx passes on what a client sent under these names.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, Response};

use crate::gateway::{Demand, Gateway};
use crate::ids::AppId;
use crate::problem::{Code, Problem};
use crate::token::is_name;

use super::{Answer, refused};

type Asked = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// The handler of `/verify`: members.
pub(super) async fn required(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, query: Asked) -> Answer {
    verify(&gateway, &headers, query, false).await
}

/// The handler of `/verify/optional`: members, by name, and everybody who shows no token.
pub(super) async fn optional(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, query: Asked) -> Answer {
    verify(&gateway, &headers, query, true).await
}

async fn verify(gateway: &Gateway, headers: &HeaderMap, query: Asked, optional: bool) -> Answer {
    let decided = match query {
        Ok(Query(query)) => match demand(&query, optional) {
            Ok(demand) => gateway.identify(headers, &demand).await,
            Err(problem) => Err(problem),
        },
        Err(_) => Err(bad_query()),
    };
    log(headers, decided.as_ref().err());
    match decided {
        Ok(identity) => {
            let mut response = Response::new(axum::body::Body::empty());
            *response.headers_mut() = identity;
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(problem) => {
            gateway.kept().metrics.problem(problem.code().name());
            refused(problem)
        }
    }
}

fn bad_query() -> Problem {
    Problem::new(
        Code::InvalidRequest,
        "The query of the front proxy may say roles=NAME,NAME and apps=APPID,APPID, each once; it must not be the client's \
         (Caddy: `uri /verify?`).",
    )
}

/// What the query asks for. What is not understood is refused: a condition that is misspelt must not be left out.
fn demand(query: &[(String, String)], optional: bool) -> Result<Demand, Problem> {
    let (mut roles, mut apps) = (None, None);
    for (name, value) in query {
        let repeated = match name.as_str() {
            "roles" => roles.replace(list(value, |role| is_name(role).then(|| role.to_owned()))?).is_some(),
            "apps" => apps.replace(list(value, |appid| AppId::parse(appid).ok())?).is_some(),
            _ => return Err(bad_query()),
        };
        if repeated {
            return Err(bad_query());
        }
    }
    Ok(Demand { optional, roles: roles.unwrap_or_default(), apps: apps.unwrap_or_default() })
}

/// A list of at least one.
fn list<T>(value: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Problem> {
    value.split(',').map(|item| parse(item).ok_or_else(bad_query)).collect()
}

fn log(headers: &HeaderMap, refused: Option<&Problem>) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Without its query, in which somebody may have put a token.
    let path = text("x-forwarded-uri").split('?').next().unwrap_or_default();
    tracing::debug!(
        method = ?text("x-forwarded-method"),
        host = ?text("x-forwarded-host"),
        ?path,
        refused = refused.map_or("", |problem| problem.code().name()),
        "forward-auth"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &[(&str, &str)]) -> Option<Demand> {
        let query: Vec<_> = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        demand(&query, false).ok()
    }

    #[test]
    fn a_query_says_what_is_asked() {
        let nothing = of(&[]).unwrap();
        assert!(!nothing.optional && nothing.roles.is_empty() && nothing.apps.is_empty());
        let all = of(&[("roles", "staff,ops"), ("apps", "wxapp")]).unwrap();
        assert_eq!(
            (all.roles, all.apps),
            (vec!["staff".to_owned(), "ops".to_owned()], vec![AppId::parse("wxapp").unwrap()])
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for query in [
            &[("role", "staff")][..],
            &[("roles", "")],
            &[("roles", "staff,")],
            &[("roles", "a b")],
            &[("roles", "staff"), ("roles", "ops")],
            &[("apps", "")],
            &[("auth", "optional")],
        ] {
            assert!(of(query).is_none(), "{query:?}");
        }
    }
}
