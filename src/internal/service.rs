//! Which service asks: by the token that it shows, or by the address that it comes from.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::PROXY_AUTHORIZATION;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::config::{Proof, Service};
use crate::credential;
use crate::problem::{Code, Problem};

/// Why somebody is no service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stranger {
    /// Nothing shown, and an address that is nobody's.
    #[error("no token was shown, and no service comes from this address")]
    Unknown,
    /// A name or a token that is nobody's.
    #[error("the token that was shown is no service's")]
    Wrong,
    /// What was shown can be read in more than one way, or not at all.
    #[error("the credentials cannot be read")]
    Unreadable,
}

impl From<Stranger> for Problem {
    fn from(stranger: Stranger) -> Self {
        let detail = "This listener is for the services of [[internal.service]]: show the service's token as \
                      `Authorization: Bearer`, or as the password of `Proxy-Authorization: Basic`.";
        match stranger {
            Stranger::Unknown => Self::new(Code::TokenMissing, detail),
            Stranger::Wrong | Stranger::Unreadable => Self::new(Code::TokenInvalid, detail).caused_by(stranger),
        }
    }
}

/// What somebody shows for himself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    name: Option<String>,
    token: Zeroizing<Vec<u8>>,
}

/// `Proxy-Authorization: Basic base64(name:token)`, else `Authorization: Bearer token`.
///
/// # Errors
/// When one of the headers cannot be read, or stands there twice.
pub(super) fn shown(headers: &HeaderMap) -> Result<Option<Shown>, Stranger> {
    if let Some(shown) = shown_to_proxy(headers)? {
        return Ok(Some(shown));
    }
    let token = credential::bearer(headers, false).map_err(|_| Stranger::Unreadable)?;
    Ok(token.map(|token| Shown { name: None, token: Zeroizing::new(token.to_vec()) }))
}

/// `Proxy-Authorization` alone.
///
/// # Errors
/// As [`shown`].
pub(super) fn shown_to_proxy(headers: &HeaderMap) -> Result<Option<Shown>, Stranger> {
    let mut all = headers.get_all(PROXY_AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(Stranger::Unreadable);
    }
    let (scheme, encoded) = value.as_bytes().split_at_checked(6).ok_or(Stranger::Unreadable)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return Err(Stranger::Unreadable);
    }
    let pair = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| Stranger::Unreadable)?);
    let colon = memchr::memchr(b':', &pair).ok_or(Stranger::Unreadable)?;
    let name = std::str::from_utf8(&pair[..colon]).map_err(|_| Stranger::Unreadable)?.to_owned();
    Ok(Some(Shown { name: Some(name), token: Zeroizing::new(pair[colon + 1..].to_vec()) }))
}

/// The service that this is. Whoever shows something is judged by that alone: a wrong token is not made good by an
/// address.
///
/// # Errors
/// When it is none.
pub(super) fn known<'a>(services: &'a [Service], shown: Option<&Shown>, from: IpAddr) -> Result<&'a Service, Stranger> {
    let from = from.to_canonical();
    match shown {
        None => services
            .iter()
            .find(|service| match &service.proof {
                Proof::From(networks) => networks.iter().any(|network| network.contains(&from)),
                Proof::Token(_) => false,
            })
            .ok_or(Stranger::Unknown),
        Some(shown) => {
            let mut found = None;
            // All of them, so that the time does not tell which one came close.
            for service in services {
                let Proof::Token(token) = &service.proof else { continue };
                let same: bool = token.expose().as_bytes().ct_eq(&shown.token).into();
                if same && shown.name.as_ref().is_none_or(|name| *name == service.name) {
                    found = Some(service);
                }
            }
            found.ok_or(Stranger::Wrong)
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::ids::Secret;

    fn services() -> Vec<Service> {
        let token = |name: &str, token: &str| Service {
            name: name.to_owned(),
            proof: Proof::Token(Secret::new(token.to_owned())),
            wechat: Vec::new(),
        };
        let local = Service {
            name: "local".to_owned(),
            proof: Proof::From(vec!["10.0.0.0/8".parse().unwrap()]),
            wechat: Vec::new(),
        };
        vec![token("orders", "orders-token-0123"), token("stock", "stock:token-01234"), local]
    }

    fn headers(authorization: Option<&str>, proxy: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [(AUTHORIZATION, authorization), (PROXY_AUTHORIZATION, proxy)] {
            if let Some(value) = value {
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
        }
        headers
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    fn who(headers: &HeaderMap, from: &str) -> Result<String, Stranger> {
        let shown = shown(headers)?;
        known(&services(), shown.as_ref(), from.parse().unwrap()).map(|service| service.name.clone())
    }

    #[test]
    fn a_service_is_known_by_its_token_or_by_its_address() {
        for (authorization, proxy, from, expected) in [
            (Some("Bearer orders-token-0123"), None, "192.0.2.1", "orders"),
            (None, Some(basic("stock:stock:token-01234")), "192.0.2.1", "stock"),
            (None, Some(basic("orders:orders-token-0123")), "10.1.2.3", "orders"),
            (None, None, "10.1.2.3", "local"),
            (None, None, "::ffff:10.1.2.3", "local"),
        ] {
            let headers = headers(authorization, proxy.as_deref());
            assert_eq!(who(&headers, from).as_deref(), Ok(expected), "{headers:?}");
        }
    }

    #[test]
    fn everybody_else_is_a_stranger() {
        for (authorization, proxy, from, expected) in [
            (None, None, "192.0.2.1", Stranger::Unknown),
            (Some("Bearer orders-token-0124"), None, "192.0.2.1", Stranger::Wrong),
            (Some("Bearer "), None, "192.0.2.1", Stranger::Wrong),
            (Some("Bearer wrong"), None, "10.1.2.3", Stranger::Wrong),
            (None, Some(basic("stock:orders-token-0123")), "192.0.2.1", Stranger::Wrong),
            (None, Some(basic("local:")), "10.1.2.3", Stranger::Wrong),
            (None, Some(basic("orders")), "192.0.2.1", Stranger::Unreadable),
            (None, Some("Basic %%".to_owned()), "10.1.2.3", Stranger::Unreadable),
            (None, Some("Bearer orders-token-0123".to_owned()), "192.0.2.1", Stranger::Unreadable),
        ] {
            let headers = headers(authorization, proxy.as_deref());
            assert_eq!(who(&headers, from), Err(expected), "{headers:?}");
        }
        let mut twice = headers(None, Some(&basic("orders:orders-token-0123")));
        twice.append(PROXY_AUTHORIZATION, HeaderValue::from_static("Basic eA=="));
        assert_eq!(who(&twice, "192.0.2.1"), Err(Stranger::Unreadable));
    }
}
