//! `gateway.toml`: every fault at once, each with its line, its key and what to write; and the shipped file as promised.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use wxgate::config::file::schema;
use wxgate::config::{
    AccessTokenLine, Algorithm, AppKind, Auth, Balance, Config, Environment, Faults, HostPattern, Keys, Limit, LimitBy,
    MembersStore, Proof, RetryOn, SessionsStore, WebScope, parse,
};

/// What must never be seen in a fault, and stands in the environment of every test here.
const SECRET: &str = "hunter2";

fn environment() -> Environment {
    Environment::of([("WX_SECRET", "0123456789abcdef"), ("LEAK", SECRET), ("HOST", "api.example.com"), ("EMPTY", "")])
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn shipped() -> String {
    fs::read_to_string(repository("gateway.toml")).unwrap()
}

fn read(text: impl AsRef<[u8]>) -> Result<Config, Faults> {
    parse(text, &repository("gateway.toml"), &environment())
}

#[test]
fn every_fault_is_reported_at_once_with_line_key_and_remedy() {
    let folder = repository("tests/data/config");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(!files.is_empty());
    let mut differences = String::new();
    for path in files {
        let expected = fs::read_to_string(path.with_extension("faults")).expect("each NAME.toml has its NAME.faults");
        let said = match parse(fs::read(&path).unwrap(), &path, &environment()) {
            Ok(_) => String::new(),
            Err(faults) => format!("{faults}\n").replace(&format!("{}/", folder.display()), ""),
        };
        if said != expected {
            writeln!(differences, "--- {}\n{said}", path.display()).unwrap();
        }
    }
    assert!(differences.is_empty(), "these faults differ from the expected ones:\n{differences}");
}

#[test]
fn no_fault_shows_what_a_variable_or_an_address_hides() {
    for entry in fs::read_dir(repository("tests/data/config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml")
            && let Err(faults) = parse(fs::read(&path).unwrap(), &path, &environment())
        {
            assert!(!format!("{faults} {faults:?}").contains(SECRET), "{faults}");
        }
    }
}

#[test]
fn the_shipped_file_loads() {
    let config = read(shipped()).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.apps.len(), 1);
    assert!(!format!("{config:?}").contains("0123456789abcdef\""), "the AppSecret is visible in Debug");
}

#[test]
fn the_defaults_written_in_the_shipped_file_are_those_of_the_code() {
    let mut written = String::new();
    let mut defaults = 0;
    for line in shipped().lines() {
        match line.strip_prefix('#').filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase())) {
            Some(default) => {
                defaults += 1;
                writeln!(written, "{default}").unwrap();
            }
            None => writeln!(written, "{line}").unwrap(),
        }
    }
    assert!(defaults > 30, "only {defaults} defaults are written out");
    let mut written = read(written).unwrap_or_else(|faults| panic!("{faults}"));
    let shipped = read(shipped()).unwrap();
    // The texts differ, on purpose; what they mean must not.
    written.digest = shipped.digest;
    assert_eq!(format!("{written:#?}"), format!("{shipped:#?}"));
}

#[test]
fn the_shipped_file_shows_every_key() {
    let (schema, shipped) = (schema(), shipped());
    let tables = schema["properties"].as_object().unwrap();
    for (table, property) in tables {
        assert!(shipped.contains(&format!("[{table}]")), "{table}");
        let def = property["$ref"].as_str().or(property["items"]["$ref"].as_str());
        let def = def.map_or(property, |def| &schema["$defs"][def.rsplit('/').next().unwrap()]);
        for (key, property) in def["properties"].as_object().unwrap() {
            let item = property["items"]["$ref"].as_str().and_then(|name| name.rsplit('/').next());
            // A list of nothing but tables.
            if item.is_some_and(|name| schema["$defs"][name]["properties"].is_object()) {
                assert!(shipped.contains(&format!("[[{table}.{key}]]")), "{table}.{key}");
                continue;
            }
            let shown = shipped.lines().any(|line| {
                let line = line.trim_start_matches(['#', ' ']);
                line.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with(" = "))
            });
            assert!(shown, "{table}.{key}");
        }
    }
}

#[test]
fn a_command_that_has_no_master_key_reads_the_rest_and_one_that_has_it_sees_it_nowhere() {
    let text = shipped()
        .replace("#keys = \"data/keys\"", "keys = \"store\"\nmaster_key = \"${WXGATE_TEST_NO_SUCH_MASTER_KEY}\"");
    let config = parse(&text, &repository("gateway.toml"), &Environment::incomplete()).unwrap();
    assert_eq!(config.token.keys, Keys::Store { master_key: None, previous: None, local: repository("data") });
    let key = "9f86d081884c7d659a2feaa0c55ad015";
    let environment = Environment::of([("WXGATE_TEST_NO_SUCH_MASTER_KEY", key), ("WX_SECRET", "s")]);
    let config = parse(&text, &repository("gateway.toml"), &environment).unwrap();
    let Keys::Store { master_key: Some(master_key), .. } = &config.token.keys else { panic!("no master key") };
    assert_eq!(master_key.expose(), key);
    assert!(!format!("{config:?} {}", config.shown.json()).contains(key));
}

#[test]
fn every_key_says_what_it_says() {
    let path = repository("tests/data/config/complete.toml");
    let config = parse(fs::read(&path).unwrap(), &path, &environment()).unwrap_or_else(|faults| panic!("{faults}"));
    let seconds = |duration: Duration| duration.as_secs_f64();

    let server = &config.server;
    assert_eq!(server.listen, ["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()]);
    assert_eq!((server.workers.get(), server.base.as_str(), &server.health_path), (2, "/api/auth", &None));
    assert_eq!(server.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "::1/128"]);
    assert_eq!(
        (seconds(server.head_timeout), seconds(server.keep_alive), seconds(server.drain_timeout)),
        (5., 90., 0.)
    );
    assert_eq!((seconds(server.drain_min), seconds(server.takeover_timeout)), (4., 7.));
    assert_eq!((server.max_head, server.max_uri, server.max_body), (16384, 4096, 0));
    assert_eq!(config.admin.listen, "0.0.0.0:9090".parse().unwrap());
    let internal = config.internal.unwrap();
    assert_eq!(internal.listen, "127.0.0.1:9081".parse().unwrap());
    let [orders, front] = internal.services.as_slice() else { panic!("two services") };
    let Proof::Token(token) = &orders.proof else { panic!("a token") };
    assert_eq!((orders.name.as_str(), token.expose().as_str()), ("orders", "0123456789abcdef"));
    assert_eq!(
        orders.wechat.iter().map(|path| path.text.as_str()).collect::<Vec<_>>(),
        ["/cgi-bin/message/*", "/wxa/getwxacode"]
    );
    assert!(front.wechat.is_empty());
    let Proof::From(networks) = &front.proof else { panic!("networks") };
    assert_eq!(networks.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "::1/128"]);

    let token = &config.token;
    assert_eq!(token.issuer, "https://api.example.com/gateway");
    assert_eq!(token.audience, ["wxgate", "https://api.example.com"]);
    assert_eq!((token.algorithm, token.accept_bare), (Algorithm::EdDsa, true));
    assert_eq!(token.keys, Keys::Folder("/var/lib/wxgate/keys".into()));
    assert_eq!(token.rotate_every, None);
    assert_eq!((seconds(token.access_ttl), seconds(token.refresh_ttl)), (3600., 7. * 86400.));
    assert_eq!((seconds(token.refresh_grace), seconds(token.session_ttl)), (0., 90. * 86400.));
    assert_eq!(seconds(token.max_staleness), 300.);
    assert_eq!(config.store.members, MembersStore::Sqlite(repository("tests/data/config/members.db")));
    assert_eq!(config.store.sessions, SessionsStore::Sqlite("/var/lib/wxgate/sessions.db".into()));
    assert_eq!((config.wechat.api_base.as_str(), seconds(config.wechat.timeout)), ("http://127.0.0.1:9100", 2.));

    let otlp = config.telemetry.otlp.as_ref().unwrap();
    assert_eq!(otlp.endpoint, "https://collector.example.com/base/v1/traces");
    assert_eq!((otlp.sample, otlp.service_name.as_str(), seconds(otlp.timeout)), (0.25, "shop", 3.));
    assert_eq!(otlp.headers, [("x-key".parse().unwrap(), "0123456789abcdef".parse().unwrap())]);

    let [first, second] = config.apps.as_slice() else { panic!("two apps") };
    assert_eq!((first.kind, first.secret.expose().as_str()), (AppKind::Website, "0123456789abcdef"));
    assert_eq!((second.kind, second.secret.expose().as_str()), (AppKind::OfficialAccount, "prefix-0123456789abcdef"));

    let push = second.push.as_ref().unwrap();
    assert_eq!((push.token.expose().as_str(), push.upstream, push.path.as_str()), ("Token1", 0, "/wechat/push"));
    assert!(first.push.is_none() && push.aes_key.is_some());
    assert_eq!((first.access_token, second.access_token), (AccessTokenLine::Classic, AccessTokenLine::Stable));
    let [website, account] = [first, second].map(|app| app.web.as_ref().unwrap());
    assert_eq!(website.origins, ["https://m.example.com", "http://127.0.0.1:3000"]);
    assert_eq!((website.scope, account.scope), (WebScope::Login, WebScope::UserInfo));
    assert_eq!(account.origins, ["https://m.example.com:8443"]);
    let limit = config.login.decrypt_limit;
    assert_eq!((limit.rate.count.get(), seconds(limit.rate.per), limit.burst.get()), (30, 60., 5));

    let orders = &config.upstreams[0];
    assert_eq!(
        (orders.name.as_str(), orders.balance, seconds(orders.connect_timeout)),
        ("orders", Balance::HashOpenid, 0.5)
    );
    assert_eq!(
        orders.servers.iter().map(|s| (s.host.as_str(), s.port)).collect::<Vec<_>>(),
        [("orders", 80), ("::1", 3001)]
    );

    let health = orders.health.as_ref().unwrap();
    assert_eq!((health.path.as_str(), seconds(health.interval), seconds(health.timeout)), ("/healthz?deep=1", 1., 0.5));
    assert_eq!((health.healthy, health.unhealthy), (1, 5));

    let route = &config.routes[0];
    assert_eq!(route.path.segments.len(), 3);
    assert_eq!(
        route.hosts,
        [HostPattern::Exact("api.example.com".into()), HostPattern::Suffix(".shop.example.com".into())]
    );
    assert_eq!((route.methods.len(), route.upstream, route.auth), (2, Some(0), Auth::Optional));
    assert_eq!((route.roles[0].as_str(), route.apps[0].as_str()), ("staff", "wxdemo123"));
    assert_eq!((seconds(route.timeout), seconds(route.idle_timeout)), (10., 300.));
    assert_eq!((route.total_timeout, route.max_body), (Some(Duration::from_secs(600)), 1 << 30));
    let cors = route.cors.as_ref().unwrap();
    assert_eq!(cors.origins, ["https://m.example.com", "http://localhost:8080"]);
    assert_eq!((cors.methods[0].as_str(), cors.headers[0].as_str(), cors.expose[0].as_str()), ("PUT", "x-a", "x-b"));
    assert_eq!((cors.credentials, seconds(cors.max_age)), (true, 3600.));
    let retry = route.retry.as_ref().unwrap();
    assert_eq!((retry.attempts, &retry.on), (3, &vec![RetryOn::Reset, RetryOn::Unavailable]));
    assert_eq!((retry.methods[0].as_str(), retry.per_try), ("POST", Some(Duration::from_secs(2))));
    let limit = |limit: Option<Limit>| limit.map(|l| (l.by, l.rate.count.get(), l.rate.per.as_secs(), l.burst.get()));
    assert_eq!(limit(route.limit), Some((LimitBy::Member, 20, 1, 40)));
    assert_eq!(limit(config.login.limit), Some((LimitBy::App, 5, 60, 5)), "the burst is the rate's number");
    assert_eq!((route.strip_prefix.as_deref(), route.forward_token, route.assertion), (Some("/v1"), true, true));
    assert_eq!(config.routes[1].max_body, server.max_body, "a route takes the server's limit unless it says otherwise");
    assert_eq!((config.statics[0].path.as_str(), &config.statics[0].body[..]), ("/MP_verify_abc.txt", &b"abc"[..]));
}

#[test]
fn what_is_left_out_has_a_safe_default() {
    let config = read(shipped()).unwrap();
    assert_eq!(config.server.listen, ["0.0.0.0:8080".parse().unwrap()]);
    assert_eq!(
        (config.server.head_timeout, config.server.keep_alive),
        (Duration::from_secs(10), Duration::from_secs(75))
    );
    assert!(config.admin.listen.ip().is_loopback() && config.internal.is_none());
    assert!(config.server.trusted_proxies.is_empty());
    assert!(config.login.limit.is_none() && config.routes[0].limit.is_none());
    assert_eq!((config.token.algorithm, config.token.accept_bare), (Algorithm::Es256, false));
    assert_eq!(config.token.rotate_every, Some(Duration::from_secs(90 * 86_400)));
    assert_eq!(
        (config.routes[0].auth, config.routes[0].forward_token, config.routes[0].assertion),
        (Auth::Required, false, false)
    );
}

#[test]
fn a_text_nested_beyond_reason_is_a_fault() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}{}", "[".repeat(10_000), "]".repeat(10_000)),
        format!("{}a = 1", "a.".repeat(10_000)),
        format!("[{}a]", "a.".repeat(10_000)),
        "a = { a = ".repeat(10_000),
    ] {
        assert!(!read(text).unwrap_err().faults.is_empty());
    }
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let config = read(shipped()).unwrap();
    assert_eq!(config.source, repository("gateway.toml"));
    assert_eq!(config.token.keys, Keys::Folder(repository("data/keys")));
}

#[test]
fn a_text_that_is_not_utf8_is_a_fault_of_its_line() {
    let faults = read(b"[server]\n\xff").unwrap_err();
    assert_eq!(faults.faults.first().unwrap().line, Some(2));
}

/// What must hold of any text whatever.
fn is_judged(text: &[u8]) -> Result<(), TestCaseError> {
    let Err(faults) = read(text) else { return Ok(()) };
    let lines = String::from_utf8_lossy(text).lines().count().max(1);
    prop_assert!(!faults.faults.is_empty());
    for fault in &faults.faults {
        prop_assert!(fault.line.is_none_or(|line| (1..=lines).contains(&line)), "{faults}");
        prop_assert!(!fault.what.contains("the reader does not"), "{faults}");
    }
    prop_assert_eq!(faults.to_string().lines().count(), faults.faults.len(), "a fault is one line");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_configuration_or_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        is_judged(&bytes)?;
    }

    #[test]
    fn anything_that_looks_like_toml_is_a_configuration_or_a_fault(
        lines in proptest::collection::vec(
            r#"(\[{1,2}(server|token|app|route|login|internal|x)(\.[a-z]{1,3})?\]{1,2}|(listen|path|secret|workers|max_body|limit|host|"") = ("[/*{}a-z%$]{0,6}"|-?[0-9]{1,20}|0x[0-9a-f]{1,4}|[0-9]\.[0-9]|true|\[("[a-z]"(, )?|1, |\{\}){0,3}\]|\{( [a-z]{1,4} = 1)?\}|[a-z]{0,3}))"#,
            0..12,
        )
    ) {
        is_judged(lines.join("\n").as_bytes())?;
    }

    #[test]
    fn the_shipped_file_with_any_line_lost_repeated_or_garbled_is_judged(
        pick in any::<proptest::sample::Index>(),
        column in any::<proptest::sample::Index>(),
        kind in 0..4,
        garbage in any::<char>(),
    ) {
        let shipped = shipped();
        let mut lines: Vec<String> =
            shipped.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")).map(|line| {
                line.trim_start_matches('#').to_owned()
            }).collect();
        let n = pick.index(lines.len());
        match kind {
            0 => drop(lines.remove(n)),
            1 => lines.insert(n, lines[n].clone()),
            2 => {
                let places: Vec<usize> = lines[n].char_indices().map(|(at, _)| at).collect();
                if let Some(&at) = places.get(column.index(places.len().max(1))) {
                    let end = at + lines[n][at..].chars().next().map_or(0, char::len_utf8);
                    lines[n].replace_range(at..end, garbage.encode_utf8(&mut [0; 4]));
                }
            }
            _ => lines.truncate(n),
        }
        is_judged(lines.join("\n").as_bytes())?;
    }
}
