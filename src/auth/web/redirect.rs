//! Where a browser may be sent back to: a URL of a listed origin, and nothing that another parser could read as another.

use percent_encoding::percent_decode_str;

/// Longest URL to return to, bytes. It travels in a cookie.
const MAX: usize = 1024;

/// What a browser would repair or drop, or that no URL holds unescaped (RFC 3986, appendix A).
const UNSAFE: &[char] = &['\\', '"', '<', '>', '^', '`', '{', '|', '}'];

/// Parameters that are ours to set: the page must not take somebody else's ticket for the one that it waits for.
const OURS: [&str; 2] = ["ticket", "error"];

/// Whether `url` may be returned to. An origin is `scheme://host[:port]`, so a URL that begins with one and goes on with
/// a path, a query, a fragment or nothing has no room for a user name, another host or another port.
pub fn is_allowed(url: &str, origins: &[String]) -> bool {
    url.len() <= MAX
        && url.bytes().all(|b| b.is_ascii_graphic())
        && !url.contains(UNSAFE)
        && origins.iter().filter_map(|origin| url.strip_prefix(origin.as_str())).any(is_rest)
}

fn is_rest(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['/', '?', '#'])
}

/// `url` with `name=value` in its query, in place of whatever stood there under a name of ours; its fragment stays.
pub fn with(url: &str, name: &str, value: &str) -> String {
    let (rest, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_ours = |pair: &&str| {
        let key = pair.split('=').next().unwrap_or_default();
        OURS.iter().any(|ours| percent_decode_str(key).eq(ours.bytes()))
    };
    let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !is_ours(pair)).collect();
    let own = format!("{name}={value}");
    pairs.push(&own);
    // An origin alone has two slashes; a browser would put the third.
    let slash = if path.matches('/').count() < 3 { "/" } else { "" };
    format!("{path}{slash}?{}{fragment}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origins() -> Vec<String> {
        vec!["https://m.example.com".into(), "https://shop.example.com:8443".into(), "http://127.0.0.1:3000".into()]
    }

    #[test]
    fn only_urls_of_a_listed_origin_are_allowed() {
        for good in [
            "https://m.example.com",
            "https://m.example.com/",
            "https://m.example.com?a=b",
            "https://m.example.com/a/b?c=d@e:f//g#/h?i",
            "https://m.example.com#x",
            "https://shop.example.com:8443/%E4%B8%AD",
            "http://127.0.0.1:3000/a",
        ] {
            assert!(is_allowed(good, &origins()), "{good}");
        }
        for bad in [
            "",
            "/",
            "/a",
            "//evil.example",
            "//m.example.com",
            "///m.example.com",
            "https:evil.example",
            "https:m.example.com",
            "https:/m.example.com",
            "https:///m.example.com",
            "https:\\\\m.example.com",
            "/\\evil.example",
            "\\\\evil.example",
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "https://evil.example",
            "https://evil.example/https://m.example.com",
            "https://m.example.com.evil.example",
            "https://m.example.comevil.example",
            "https://m.example.com@evil.example",
            "https://m.example.com:443@evil.example/",
            "https://m.example.com:pass@evil.example",
            "https://user@m.example.com",
            "https://m.example.com\\@evil.example",
            "https://m.example.com\\.evil.example",
            "https://m.example.com/a\\b",
            "https://evil.example#@m.example.com",
            "https://m.example.com:8443",
            "https://m.example.com:443/",
            "https://m.example.com.",
            "https://m.example.com%2f@evil.example",
            "https://shop.example.com",
            "https://shop.example.com:84430",
            "http://m.example.com",
            "HTTPS://m.example.com",
            "https://M.example.com",
            "https://m.example.com\t/",
            "https://m.example.com/\r\nSet-Cookie: a=b",
            "https://m.exam\nple.com/",
            "\thttps://m.example.com/",
            " https://m.example.com/",
            "https://m.example.com/ ",
            "https://m.example.com/\0",
            "https://m.example.com/\u{4e2d}",
            "https://m\u{3002}example.com",
        ] {
            assert!(!is_allowed(bad, &origins()), "{bad:?}");
        }
        assert!(!is_allowed("https://m.example.com/", &[]));
        assert!(!is_allowed(&format!("https://m.example.com/{}", "a".repeat(MAX)), &origins()));
    }

    #[test]
    fn what_is_ours_takes_the_place_of_what_was_there() {
        for (url, expected) in [
            ("https://a.b", "https://a.b/?ticket=1"),
            ("https://a.b#c", "https://a.b/?ticket=1#c"),
            ("https://a.b?c=d", "https://a.b/?c=d&ticket=1"),
            ("https://a.b/c", "https://a.b/c?ticket=1"),
            ("https://a.b/c?d=e&f#g?h", "https://a.b/c?d=e&f&ticket=1#g?h"),
            ("https://a.b/c?ticket=2&d=e&error=x", "https://a.b/c?d=e&ticket=1"),
            ("https://a.b/c?%74icket=2&ticket&tickets=3", "https://a.b/c?tickets=3&ticket=1"),
        ] {
            assert_eq!(with(url, "ticket", "1"), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_allowed_has_a_listed_origin_for_a_browser_too(
            start in "(https://m\\.example\\.com|https://|//|http://127\\.0\\.0\\.1:3000|https:)",
            rest in "([@:/\\\\?#.\\t\\n%a-z0-9\\[\\]]|evil\\.example|m\\.example\\.com){0,12}",
        ) {
            let url = format!("{start}{rest}");
            if is_allowed(&url, &origins()) {
                let read = reqwest::Url::parse(&with(&url, "ticket", "1")).unwrap();
                prop_assert!(origins().contains(&read.origin().ascii_serialization()), "{url}");
                prop_assert!(read.username().is_empty() && read.password().is_none());
                prop_assert!(read.query_pairs().any(|(name, value)| name == "ticket" && value == "1"), "{url}");
            }
        }
    }
}
