//! Where an access token stands in a request: `Authorization`, or on routes that say so a [`cookie`], and never the URL.
//!
//! Reads only; whether the token is good is `token::verify`'s business.

pub mod cookie;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::ids::Secret;

/// More than one token, or two `Authorization` headers: which one is meant cannot be known (RFC 6750, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ambiguous;

/// What a client of the wafer2 SDK shows to log in, as it came. Request extension, on the path of that login.
#[derive(Debug, Clone, Default)]
pub struct Wafer2 {
    /// Of `wx.login`.
    pub code: Option<Secret<String>>,
    /// Of `wx.getUserInfo`.
    pub encrypted_data: Option<Secret<String>>,
    /// The same.
    pub iv: Option<Secret<String>>,
}

/// The token of a request, unchecked: `Authorization: Bearer <token>`, or with `accept_bare` also
/// `Authorization: <token>`, as many existing mini programs send it. Other schemes count as no token. An empty token is a
/// token (a bad one).
///
/// # Errors
/// When there is more than one `Authorization` header.
pub fn bearer(headers: &HeaderMap, accept_bare: bool) -> Result<Option<&[u8]>, Ambiguous> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(Ambiguous);
    }
    Ok(token(value.as_bytes(), accept_bare))
}

/// The same of the value of one `Authorization`.
pub fn token(value: &[u8], accept_bare: bool) -> Option<&[u8]> {
    if let Some((scheme, token)) = value.split_at_checked(7)
        && scheme.eq_ignore_ascii_case(b"bearer ")
    {
        return Some(token);
    }
    if value.eq_ignore_ascii_case(b"bearer") {
        return Some(b"");
    }
    let is_bare = accept_bare && !value.is_empty() && !value.contains(&b' ');
    is_bare.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(values: &[&'static str], accept_bare: bool) -> Result<Option<String>, Ambiguous> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        bearer(&headers, accept_bare).map(|t| t.map(|t| String::from_utf8_lossy(t).into_owned()))
    }

    #[test]
    fn only_bearer_is_read() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bEARER abc", Some("abc")),
            ("Bearer  abc", Some(" abc")),
            ("Bearer abc def", Some("abc def")),
            ("Bearer", Some("")),
            ("Bearer ", Some("")),
            ("Basic abc", None),
            ("abc.def.ghi", None),
            ("Bearerabc", None),
            ("", None),
        ] {
            assert_eq!(read(&[value], false).unwrap().as_deref(), expected, "{value:?}");
        }
    }

    #[test]
    fn a_bare_token_is_read_when_the_admin_said_so() {
        assert_eq!(read(&["abc.def.ghi"], true).unwrap().as_deref(), Some("abc.def.ghi"));
        assert_eq!(read(&["Basic abc"], true).unwrap(), None);
        assert_eq!(read(&["Bearer abc"], true).unwrap().as_deref(), Some("abc"));
    }

    #[test]
    fn two_headers_are_ambiguous_even_when_equal() {
        assert_eq!(read(&["Bearer a", "Bearer a"], false), Err(Ambiguous));
        assert_eq!(read(&["Basic a", "Bearer a"], false), Err(Ambiguous));
        assert_eq!(read(&[], false), Ok(None));
    }
}
