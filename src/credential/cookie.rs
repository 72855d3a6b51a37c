//! Tokens of web pages: cookies that only the gateway reads, and which pages may use them.
//!
//! A cookie is sent by the browser, whoever made it send a request. So a request that may change something, or that opens
//! a WebSocket, must say that a page of a listed origin made it: `Origin`, compared as a whole, or where a browser sends
//! none, `Sec-Fetch-Site: same-origin` (Fetch standard, "Origin header"; W3C Fetch Metadata). `SameSite` stands in front of
//! that and is not relied on: a host next door is the same site.

use http::header::{COOKIE, HeaderName, ORIGIN};
use http::{HeaderMap, HeaderValue};

use super::Ambiguous;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the names of all our cookies have in common.
const OURS: &[u8] = b"wxgate-";

/// The names of the cookies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// Of the access token.
    pub access: &'static str,
    /// Of the refresh token.
    pub refresh: &'static str,
}

/// Over `https` nobody but this host can set them (`__Host-`: RFC 6265bis, section 4.1.3.2). Over plain `http`, which is for
/// loopback alone, browsers take no such name.
pub const fn names(secure: bool) -> Names {
    if secure {
        Names { access: "__Host-wxgate-token", refresh: "__Host-wxgate-refresh" }
    } else {
        Names { access: "wxgate-token", refresh: "wxgate-refresh" }
    }
}

/// The value of the cookie of this name.
///
/// # Errors
/// When there are two that differ.
pub fn read<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a [u8]>, Ambiguous> {
    let mut values = pairs(headers).filter(|(known, _)| *known == name.as_bytes()).map(|(_, value)| value);
    let first = values.next();
    if values.any(|other| Some(other) != first) { Err(Ambiguous) } else { Ok(first) }
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.get_all(COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|b| *b == b';')).filter_map(pair)
}

fn pair(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.trim_ascii();
    let at = memchr::memchr(b'=', text)?;
    Some((text[..at].trim_ascii_end(), text[at + 1..].trim_ascii_start()))
}

/// Takes our cookies out of what goes to an upstream; those of others stay, in their order.
pub fn remove(headers: &mut HeaderMap) {
    if !headers.get_all(COOKIE).iter().any(|line| memchr::memmem::find(line.as_bytes(), OURS).is_some()) {
        return;
    }
    let is_foreign = |text: &&[u8]| {
        let name = pair(text).map_or(*text, |(name, _)| name).trim_ascii();
        !name.strip_prefix(b"__Host-").unwrap_or(name).starts_with(OURS)
    };
    let kept: Vec<HeaderValue> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| {
            let parts: Vec<&[u8]> =
                line.as_bytes().split(|b| *b == b';').filter(is_foreign).map(<[u8]>::trim_ascii).collect();
            HeaderValue::from_bytes(&parts.join(&b"; "[..])).ok().filter(|line| !line.is_empty())
        })
        .collect();
    headers.remove(COOKIE);
    for line in kept {
        headers.append(COOKIE, line);
    }
}

/// Pages that may act with a cookie.
#[derive(Debug, Clone, Default)]
pub struct Origins(Vec<HeaderValue>);

impl Origins {
    /// Pages of exactly these origins, each as a browser writes it.
    pub fn new<'a>(origins: impl IntoIterator<Item = &'a str>) -> Self {
        Self(origins.into_iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect())
    }

    /// Whether a request with these headers comes from such a page, or only reads (`acts` is false).
    pub fn admit(&self, headers: &HeaderMap, acts: bool) -> bool {
        if !acts {
            return true;
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (Some(origin), None) => self.0.contains(origin),
            (None, _) => {
                let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
                sites.next().is_some_and(|site| site == "same-origin") && sites.next().is_none()
            }
            (Some(_), Some(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let name = names(true).access;
        for (lines, found) in [
            (&["__Host-wxgate-token=a.b.c"][..], Some("a.b.c")),
            (&["x=1; __Host-wxgate-token=t;y=2"], Some("t")),
            (&["x=1", "__Host-wxgate-token=t"], Some("t")),
            (&["__Host-wxgate-token=t; __Host-wxgate-token=t"], Some("t")),
            (&["__Host-wxgate-token="], Some("")),
            (&["wxgate-token=t"], None),
            (&["x__Host-wxgate-token=t"], None),
            (&["__host-wxgate-token=t"], None),
            (&["__Host-wxgate-token"], None),
            (&[], None),
        ] {
            let headers = headers(&COOKIE, lines);
            assert_eq!(read(&headers, name).unwrap(), found.map(str::as_bytes), "{lines:?}");
        }
        let two = headers(&COOKIE, &["__Host-wxgate-token=a; __Host-wxgate-token=b"]);
        assert_eq!(read(&two, name), Err(Ambiguous));
    }

    #[test]
    fn ours_are_taken_out_and_those_of_others_stay() {
        for (lines, kept) in [
            (&["a=1; b=2"][..], &["a=1; b=2"][..]),
            (&["a=1; __Host-wxgate-token=t; b=2"], &["a=1; b=2"]),
            (&["__Host-wxgate-token=t", "b=2"], &["b=2"]),
            (&["wxgate-token=t;wxgate-refresh=r;__Host-wxgate-web-00=x"], &[]),
            (&["wxgate-token", " wxgate-token =t"], &[]),
            (&["theme=wxgate-dark"], &["theme=wxgate-dark"]),
        ] {
            let mut headers = headers(&COOKIE, lines);
            remove(&mut headers);
            assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), kept, "{lines:?}");
        }
    }

    #[test]
    fn only_listed_pages_act_with_a_cookie() {
        let ours = Origins::new(["https://api.example.com", "https://m.example.com"]);
        for (origins, admitted) in [
            (&["https://m.example.com"][..], true),
            (&["https://api.example.com"], true),
            (&["https://evil.example.com"], false),
            (&["https://m.example.com.evil.org"], false),
            (&["http://m.example.com"], false),
            (&["https://m.example.com:8443"], false),
            (&["null"], false),
            (&[""], false),
            (&["https://m.example.com", "https://m.example.com"], false),
            (&[], false),
        ] {
            let headers = headers(&ORIGIN, origins);
            assert_eq!(ours.admit(&headers, true), admitted, "{origins:?}");
            assert!(ours.admit(&headers, false), "reading is not acting");
        }
        for (site, admitted) in [("same-origin", true), ("same-site", false), ("cross-site", false), ("none", false)] {
            assert_eq!(ours.admit(&headers(&SEC_FETCH_SITE, &[site]), true), admitted, "{site}");
        }
        let mut lying = headers(&SEC_FETCH_SITE, &["same-origin"]);
        lying.insert(ORIGIN, HeaderValue::from_static("https://evil.example.com"));
        assert!(!ours.admit(&lying, true));
    }
}
