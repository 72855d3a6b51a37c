use std::path::Path;

use super::*;
use crate::config::{Environment, parse};

const BASE: &str = r#"
[server]
trusted_proxies = ["10.0.0.0/8"]
max_body = "1MiB"
[internal]
[[internal.service]]
name = "orders"
token = "0123456789abcdef"
[token]
issuer = "https://api.example.com"
access_ttl = "1h"
max_staleness = "90m"
[[app]]
appid = "wx0123456789abcdef"
secret = "0123456789abcdef"
[[upstream]]
name = "a"
servers = ["http://127.0.0.1:1"]
[[upstream]]
name = "b"
servers = ["http://127.0.0.1:2"]
[[route]]
path = "/api/*"
upstream = "b"
auth = "optional"
roles = ["staff", "boss"]
allow = ["10.0.0.0/8"]
limit = { by = "openid", rate = "20/s", burst = 40 }
cors = { origins = ["https://m.example.com"] }
headers = { request = { set = ["X-Key: one"] } }
[[route]]
path = "/shop/{id}"
upstream = "a"
methods = ["GET"]
"#;

fn config(text: &str) -> Config {
    let path = Path::new("/nowhere/gateway.toml");
    parse(text, path, &Environment::of([])).unwrap_or_else(|faults| panic!("{faults}"))
}

/// The lines of a change that puts `to` in the place of `from`.
fn changed(from: &str, to: &str) -> Vec<String> {
    assert!(BASE.contains(from), "{from}");
    diff(&config(BASE), &config(&BASE.replacen(from, to, 1))).iter().map(ToString::to_string).collect()
}

#[test]
fn each_change_is_told_with_its_direction() {
    for (from, to, expected) in [
        ("auth = \"optional\"", "auth = \"required\"", "tighter [[route]] /api/*: auth optional -> required"),
        ("[\"staff\", \"boss\"]", "[\"boss\"]", "tighter [[route]] /api/*: roles -\"staff\""),
        ("[\"staff\", \"boss\"]", "[]", "looser  [[route]] /api/*: roles -\"staff\" -\"boss\""),
        ("[\"staff\", \"boss\"]", "[\"staff\", \"guest\"]", "neutral [[route]] /api/*: roles +\"guest\" -\"boss\""),
        ("allow = [\"10.0.0.0/8\"]", "allow = []", "looser  [[route]] /api/*: allow -10.0.0.0/8"),
        ("allow = [", "deny = [\"10.1.0.0/16\"]\nallow = [", "tighter [[route]] /api/*: deny +10.1.0.0/16"),
        (
            "\"20/s\"",
            "\"10/s\"",
            "tighter [[route]] /api/*: limit 20 per 1s, burst 40, by openid -> 10 per 1s, burst 40, by openid",
        ),
        (
            "burst = 40",
            "burst = 50",
            "looser  [[route]] /api/*: limit 20 per 1s, burst 40, by openid -> 20 per 1s, burst 50, by openid",
        ),
        (
            "\"openid\"",
            "\"ip\"",
            "neutral [[route]] /api/*: limit 20 per 1s, burst 40, by openid -> 20 per 1s, burst 40, by ip",
        ),
        ("limit = { by", "# limit = { by", "looser  [[route]] /api/*: limit removed"),
        (
            "https://m.",
            "https://n.",
            "neutral [[route]] /api/*: cors origins +\"https://n.example.com\" -\"https://m.example.com\"",
        ),
        ("cors = {", "# cors = {", "tighter [[route]] /api/*: cors on -> off"),
        ("X-Key: one", "X-Key: two", "neutral [[route]] /api/*: a value in headers changed"),
        ("upstream = \"b\"", "upstream = \"a\"", "neutral [[route]] /api/*: upstream b -> a"),
        ("auth = \"opt", "timeout = \"5s\"\nauth = \"opt", "tighter [[route]] /api/*: timeout 30s -> 5s"),
        ("auth = \"opt", "compress = true\nauth = \"opt", "neutral [[route]] /api/*: compress changed"),
        ("auth = \"opt", "forward_token = true\nauth = \"opt", "looser  [[route]] /api/*: forward_token off -> on"),
        ("\"1MiB\"", "\"2MiB\"", "looser  [server] max_body 1048576 -> 2097152"),
        ("trusted_proxies = [", "trusted_proxies = [\"fd00::/8\", ", "looser  [server] trusted_proxies +fd00::/8"),
        ("[server]", "[server]\nworkers = 3", "neutral [server] workers changed"),
        ("\"1h\"", "\"30m\"", "tighter [token] access_ttl 1h -> 30m"),
        (
            "https://api.",
            "https://new.",
            "neutral [token] issuer https://api.example.com -> https://new.example.com: every session ends",
        ),
        ("secret = \"0123456789abcdef\"", "secret = \"other\"", "neutral [[app]] wx0123456789abcdef: secret changed"),
        (
            "token = \"0123456789abcdef\"",
            "token = \"fedcba9876543210\"",
            "neutral [[internal.service]] orders: token changed",
        ),
        (
            "name = \"orders\"",
            "wechat = [\"/a/*\"]\nname = \"orders\"",
            "looser  [[internal.service]] orders: wechat +\"/a/*\"",
        ),
        ("http://127.0.0.1:2", "http://127.0.0.1:3", "neutral [[upstream]] b: servers changed"),
        (
            "[server]",
            "[admin]\nlisten = \"0.0.0.0:9090\"\n[server]",
            "looser  [admin] listen 127.0.0.1:9090 -> 0.0.0.0:9090",
        ),
    ] {
        assert_eq!(changed(from, to), [expected], "{from} -> {to}");
    }
}

#[test]
fn routes_that_come_and_go_are_told_with_what_they_take_from_others() {
    let route = |path: &str, more: &str| format!("[[route]]\npath = \"{path}\"\nupstream = \"a\"\n{more}");
    for (added, expected) in [
        (route("/new", ""), "looser  [[route]] /new added"),
        (route("/api/admin", ""), "neutral [[route]] /api/admin added: it takes over from a route that matched before"),
        (
            route("/*", "host = [\"a.example.com\"]"),
            "neutral [[route]] /* [a.example.com] added: it takes over from a route that matched before",
        ),
        (route("/shop/{id}", "methods = [\"PUT\"]"), "looser  [[route]] /shop/{id} [PUT] added"),
        (route("/shop/{id}/x", ""), "looser  [[route]] /shop/{id}/x added"),
    ] {
        let (before, after) = (config(BASE), config(&format!("{BASE}{added}")));
        assert_eq!(diff(&before, &after).iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
        let back = diff(&after, &before);
        let effect = if expected.starts_with("looser") { Effect::Tighter } else { Effect::Neutral };
        assert_eq!((back.len(), back[0].effect), (1, effect), "{back:?}");
    }
}

#[test]
fn the_order_and_the_comments_of_a_file_are_no_change() {
    assert_eq!(changed("[server]", "# a comment\n[server]"), Vec::<String>::new());
    let moved = BASE
        .replace("name = \"a\"", "name = \"x\"")
        .replace("name = \"b\"", "name = \"a\"")
        .replace("name = \"x\"", "name = \"b\"");
    let moved = moved.replace(":1\"", ":x\"").replace(":2\"", ":1\"").replace(":x\"", ":2\"");
    assert!(diff(&config(BASE), &config(&moved)).is_empty());
}

/// No key can change without a line: each line of the complete example is taken out in turn.
#[test]
fn nothing_changes_silently() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config/complete.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let env = Environment::of([("WX_SECRET", "0123456789abcdef"), ("HOST", "api.example.com")]);
    let whole = parse(&text, &path, &env).unwrap();
    let mut compared = 0;
    for (n, line) in text.lines().enumerate().filter(|(_, line)| line.contains(" = ")) {
        let without: String =
            text.lines().enumerate().filter(|(m, _)| *m != n).map(|(_, line)| format!("{line}\n")).collect();
        let Ok(without) = parse(&without, &path, &env) else { continue };
        let same = |config: &Config| Config { digest: 0, ..config.clone() };
        if format!("{:?}", same(&whole)) != format!("{:?}", same(&without)) {
            compared += 1;
            assert!(!diff(&whole, &without).is_empty(), "{line}");
        }
    }
    assert!(compared > 40, "only {compared} lines were compared");
}

#[test]
fn nothing_secret_is_shown() {
    for (from, to) in [
        ("0123456789abcdef\"\n[token]", "planted-secret-value\"\n[token]"),
        ("X-Key: one", "X-Key: planted-secret-value"),
    ] {
        let lines = changed(from, to);
        assert!(!lines.is_empty() && !lines.concat().contains("planted"), "{lines:?}");
    }
}
