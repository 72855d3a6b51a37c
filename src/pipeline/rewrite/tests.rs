use std::path::Path;
use std::sync::LazyLock;

use http::Method;
use proptest::prelude::*;

use super::*;
use crate::config::{Config, Environment, parse};
use crate::limiter::Tables;
use crate::pipeline::in_flight;
use crate::pipeline::limit::Limits;
use crate::pipeline::path::canonical_target;
use crate::pipeline::route::{Matched, Routes};

const CONFIG: &str = r#"
[token]
issuer = "https://api.example.com"
[[app]]
appid = "wx0123456789abcdef"
secret = "0123456789abcdef"
[[upstream]]
name = "echo"
servers = ["http://127.0.0.1:1"]
[[route]]
path = "/plain/*"
upstream = "echo"
[[route]]
path = "/strip/*"
upstream = "echo"
strip_prefix = "/strip"
[[route]]
path = "/prefix/*"
upstream = "echo"
rewrite = { path = "/new/base/*" }
[[route]]
path = "/top/*"
upstream = "echo"
rewrite = { path = "/*" }
[[route]]
path = "/a/{one}/b/{two}"
upstream = "echo"
rewrite = { path = "/{two}/by/{one}" }
[[route]]
path = "/deep/{one}/*"
upstream = "echo"
rewrite = { path = "/v2/{one}/x/{one}/*" }
[[route]]
path = "/fixed"
upstream = "echo"
rewrite = { path = "/else/where/" }
"#;

fn config() -> Config {
    parse(CONFIG, Path::new("/nowhere/gateway.toml"), &Environment::of([])).unwrap()
}

/// What is forwarded for a path as a client sends it; `None` when it is refused or matches nothing.
fn sent(routes: &Routes, path: &str) -> Option<(String, String)> {
    let target: PathAndQuery = path.parse().ok()?;
    let target = canonical_target(&target).ok()?.unwrap_or(target);
    let Ok(Matched::Route(route)) = routes.find("a", target.path(), &Method::GET) else { return None };
    let sent = forwarded(&route.policy, &target).expect("canonical segments make a canonical path");
    Some((route.policy.path.text.clone(), sent.unwrap_or(target).as_str().to_owned()))
}

static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let config = config();
    Routes::new(&config, &Limits::new(&config, &Tables::default(), &in_flight::Tables::default()))
});

#[test]
fn a_path_is_rewritten_by_prefix_and_by_segment() {
    for (path, expected) in [
        ("/plain/x", "/plain/x"),
        ("/strip/x?q=1", "/x?q=1"),
        ("/strip", "/"),
        ("/strip/", "/"),
        ("/prefix", "/new/base"),
        ("/prefix/", "/new/base/"),
        ("/prefix/x/y/?q=%2F", "/new/base/x/y/?q=%2F"),
        ("/prefix/%E8%AE%A2", "/new/base/%E8%AE%A2"),
        ("/top", "/"),
        ("/top/", "/"),
        ("/top//x", "/x"),
        ("/a/1/b/2", "/2/by/1"),
        ("/a/1/b/%3b", "/%3B/by/1"),
        ("/deep/1", "/v2/1/x/1"),
        ("/deep/1/", "/v2/1/x/1/"),
        ("/deep/1/../2/y", "/v2/2/x/2/y"),
        ("/fixed?a", "/else/where/?a"),
    ] {
        assert_eq!(sent(&ROUTES, path).map(|(_, sent)| sent).as_deref(), Some(expected), "{path}");
    }
}

/// What an upstream may get for a canonical path, said in another way: by hand, per route.
fn expected(route: &str, path: &str) -> String {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let rest = |n: usize| parts[n.min(parts.len())..].iter().fold(String::new(), |all, part| all + "/" + part);
    let path = match route {
        "/strip/*" | "/top/*" => rest(1),
        "/prefix/*" => format!("/new/base{}", rest(1)),
        "/a/{one}/b/{two}" => format!("/{}/by/{}", parts[3], parts[1]),
        "/deep/{one}/*" => format!("/v2/{0}/x/{0}{1}", parts[1], rest(2)),
        "/fixed" => "/else/where/".to_owned(),
        _ => path.to_owned(),
    };
    if path.is_empty() { "/".to_owned() } else { path }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Promise 2: what is forwarded is the path that was authorised, after the route's own rewrite and nothing else; it
    /// has one reading, and it never begins with two slashes.
    #[test]
    fn the_path_that_was_authorised_is_the_path_that_is_forwarded(
        head in "/(plain|strip|prefix|root|a|deep|fixed)",
        tail in "(/|//|/\\.|/\\.\\.|/%2e%2E|/[a-z0-9]{1,3}|/b|/%E8%AE%A2|/%25|/%41|/\\*|/[a-z%;:@.]{0,4}){0,6}",
        query in "(\\?[a-z/.%&=]{0,8})?"
    ) {
        let text = format!("{head}{tail}{query}");
        if let Some((route, sent)) = sent(&ROUTES, &text) {
            let target: PathAndQuery = text.parse().unwrap();
            let authorised = canonical_target(&target).unwrap().unwrap_or(target);
            let (path, sent_query) = sent.split_once('?').map_or((sent.as_str(), None), |(p, q)| (p, Some(q)));
            prop_assert_eq!(path, expected(&route, authorised.path()));
            prop_assert_eq!(sent_query, authorised.query());
            prop_assert_eq!(canonical(path).unwrap(), path);
            prop_assert!(!path.starts_with("//"));
        }
    }
}
