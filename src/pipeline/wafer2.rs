//! The headers of clients that were written for the wafer2 SDK, where `[login] wafer2` lets them in.
//!
//! Their names lie in the namespace that [`super::hygiene`] empties, so they are read just before it: the login material
//! into an extension, on the path of that login alone, and `X-WX-Skey` into `Authorization`, where every later step looks.
//! One spelling counts; the others are removed like any header of that namespace.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use crate::credential::Wafer2;
use crate::ids::Secret;

const CODE: HeaderName = HeaderName::from_static("x-wx-code");
const ENCRYPTED_DATA: HeaderName = HeaderName::from_static("x-wx-encrypted-data");
const IV: HeaderName = HeaderName::from_static("x-wx-iv");
const SKEY: HeaderName = HeaderName::from_static("x-wx-skey");

/// Takes what such a client sent to where this gateway reads it; `login` is the path of its login.
pub fn lift<B>(request: &mut http::Request<B>, login: &str) {
    if request.uri().path() == login {
        let text = |name: &HeaderName| {
            let mut all = request.headers().get_all(name).iter();
            // Sent twice it is nothing: which one is meant cannot be known.
            let (one, another) = (all.next()?, all.next());
            Some(Secret::new(one.to_str().ok().filter(|_| another.is_none())?.to_owned()))
        };
        let shown = Wafer2 { code: text(&CODE), encrypted_data: text(&ENCRYPTED_DATA), iv: text(&IV) };
        request.extensions_mut().insert(shown);
    } else if request.headers().contains_key(SKEY) {
        authorize(request.headers_mut());
    }
}

/// The headers of such a client as later steps are to see them, where there is no request: for forward-auth.
pub fn with_skey(headers: &HeaderMap) -> Cow<'_, HeaderMap> {
    if !headers.contains_key(SKEY) {
        return Cow::Borrowed(headers);
    }
    let mut headers = headers.clone();
    authorize(&mut headers);
    Cow::Owned(headers)
}

/// Each `X-WX-Skey` becomes an `Authorization`. Where another token stands there already, or two are shown, there are two
/// headers afterwards, which is what `ambiguous_token` is made of.
fn authorize(headers: &mut HeaderMap) {
    let shown: Vec<HeaderValue> = headers.get_all(SKEY).iter().filter(|skey| !skey.is_empty()).cloned().collect();
    for skey in shown {
        let Ok(mut value) = HeaderValue::from_bytes(&[b"Bearer ", skey.as_bytes()].concat()) else { continue };
        value.set_sensitive(true);
        let same = |other: &HeaderValue| {
            other == skey
                || other
                    .as_bytes()
                    .split_at_checked(7)
                    .is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case(b"bearer ") && token == skey.as_bytes())
        };
        let mut all = headers.get_all(AUTHORIZATION).iter();
        match (all.next(), all.next()) {
            (Some(only), None) if same(only) => headers.insert(AUTHORIZATION, value).is_some(),
            _ => headers.append(AUTHORIZATION, value),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;
    use crate::credential;

    const LOGIN: &str = "/wafer2/login";

    fn lifted(path: &str, headers: &[(&str, &'static str)]) -> http::Request<Body> {
        let mut request = http::Request::new(Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        lift(&mut request, LOGIN);
        request
    }

    #[test]
    fn a_skey_is_the_token_and_two_different_ones_are_two() {
        for (headers, token) in [
            (&[("x-wx-skey", "abc")][..], Ok(Some("abc"))),
            (&[("x-wx-skey", "abc"), ("authorization", "bearer abc")], Ok(Some("abc"))),
            (&[("x-wx-skey", "abc"), ("authorization", "abc")], Ok(Some("abc"))),
            (&[("x-wx-skey", "abc"), ("x-wx-skey", "abc")], Ok(Some("abc"))),
            (&[("x-wx-skey", "")], Ok(None)),
            (&[("x-wx-skey", ""), ("authorization", "Bearer abc")], Ok(Some("abc"))),
            (&[("x_wx_skey", "abc")], Ok(None)),
            (&[("x-wx-skey", "abc"), ("authorization", "Bearer other")], Err(())),
            (&[("x-wx-skey", "abc"), ("authorization", "Basic abc")], Err(())),
            (&[("x-wx-skey", "abc"), ("x-wx-skey", "other")], Err(())),
            (&[("authorization", "Bearer abc"), ("authorization", "Bearer abc"), ("x-wx-skey", "abc")], Err(())),
        ] {
            let request = lifted("/api/x", headers);
            let read = credential::bearer(request.headers(), false).map_err(|_| ());
            assert_eq!(read, token.map(|token| token.map(str::as_bytes)), "{headers:?}");
            assert!(request.extensions().get::<Wafer2>().is_none());
        }
    }

    #[test]
    fn login_material_is_read_on_its_own_path_only_and_in_one_spelling() {
        let shown = |headers| lifted(LOGIN, headers).extensions().get::<Wafer2>().cloned().unwrap();
        assert_eq!(shown(&[("x-wx-code", "c")]).code.unwrap().expose(), "c");
        assert!(shown(&[("x_wx_code", "c")]).code.is_none());
        assert!(shown(&[("x-wx-code", "c"), ("x-wx-code", "d")]).code.is_none());
        assert!(lifted("/api/x", &[("x-wx-code", "c")]).extensions().get::<Wafer2>().is_none());
    }
}
