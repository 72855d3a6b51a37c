//! The shape that `docs/ARCHITECTURE.md` promises, checked on the text of `src/` and `tests/`: who imports whom, what may
//! be written where, how long a file may be, what it may not be called.

use std::fmt;
use std::path::Path;

use super::support::source::Source;

/// Modules that everybody may import, and that know nobody but `ids`.
const LEAVES: &[&str] =
    &["ids", "clock", "body", "credential", "http1", "keyfile", "limiter", "metrics", "telemetry", "tunnel", "waiting"];

/// Who may import whom: a module, and what it may import besides itself. `*` stands for [`LEAVES`], `a::b` for that part
/// of `a` alone. The order is bottom to top; nothing imports upwards.
const IMPORTS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("ids", &["clock"]),
    ("body", &[]),
    ("http1", &[]),
    // A file in a bundle says when it was written.
    ("keyfile", &["ids", "clock"]),
    ("limiter", &[]),
    ("metrics", &["ids"]),
    ("telemetry", &["ids"]),
    ("credential", &["ids"]),
    ("tunnel", &[]),
    ("waiting", &[]),
    ("config", &["ids"]),
    ("token", &["*", "config"]),
    ("store", &["*", "config"]),
    // Keys in files are the business of `token` and `store` alone.
    ("wechat", &["ids", "clock", "body", "metrics", "telemetry", "config"]),
    // It does not know who the user is.
    ("proxy", &["ids", "clock", "body", "http1", "metrics", "telemetry", "tunnel", "waiting", "config"]),
    ("problem", &["ids", "body", "credential", "limiter", "token", "store", "wechat", "proxy"]),
    ("acme", &["*", "config"]),
    ("auth", &["*", "config", "token", "store", "wechat", "problem"]),
    // Its inner services (endpoints, proxy) arrive as arguments.
    ("pipeline", &["*", "config", "token", "problem"]),
    ("gateway", &["*", "config", "token", "store", "wechat", "proxy", "problem", "acme", "auth", "pipeline"]),
    ("internal", &["*", "config", "token", "store", "wechat", "problem", "gateway"]),
    ("admin", &["*", "token::keys", "store", "problem", "gateway"]),
    // The routers of the other listeners arrive as arguments.
    ("server", &["*", "config", "gateway"]),
    ("cli", &["*", "gateway", "server", "internal", "admin", "config", "token::keys", "wechat", "pipeline", "problem"]),
    ("main", &["cli", "gateway", "server", "admin", "config", "token::keys", "wechat"]),
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] =
    &["utils", "util", "helpers", "helper", "common", "constants", "types", "prelude", "manager", "context"];

/// Longest file, lines.
const MAX_LINES: usize = 500;

/// Words of SQL that begin a statement.
const SQL: &[&str] = &[
    "SELECT ",
    "INSERT INTO ",
    "INSERT OR ",
    "UPDATE ",
    "DELETE FROM ",
    "CREATE TABLE ",
    "CREATE INDEX ",
    "CREATE UNIQUE ",
    "ALTER TABLE ",
    "DROP TABLE ",
    "PRAGMA ",
    "BEGIN IMMEDIATE",
];

/// One thing to put right.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// What is wrong with one file; `file` is its path from the repository's root, with `/`.
fn violations(file: &str, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report = |line: usize, what: String| found.push(Violation { file: file.to_owned(), line, what });

    let lines = text.lines().count();
    if lines > MAX_LINES {
        report(lines, format!("{lines} lines, more than {MAX_LINES}: split it by reason to change"));
    }
    let stem = file.rsplit('/').next().unwrap_or(file).trim_end_matches(".rs");
    if EMPTY_NAMES.contains(&stem) {
        report(1, format!("`{stem}` says nothing: name the file after the noun that it holds"));
    }
    let Some(inside) = file.strip_prefix("src/") else { return found };

    let source = Source::read(text);
    if inside != "clock.rs" {
        for line in source.lines_with("SystemTime::now") {
            report(line, "`SystemTime::now` outside clock.rs: take a `clock::Clock`".into());
        }
    }
    if matches!(stem, "tests" | "contract") || inside.contains("/tests/") || inside == "lib.rs" {
        return found;
    }
    for (line, what) in imports(inside, &source) {
        report(line, what);
    }
    for (line, text) in &source.strings {
        if let Some(what) = misplaced(inside, text) {
            report(*line, what);
        }
    }
    found
}

/// Imports that the table forbids.
fn imports(inside: &str, source: &Source) -> Vec<(usize, String)> {
    let (top, below) = inside.split_once('/').unwrap_or((inside.trim_end_matches(".rs"), "mod.rs"));
    let Some((_, allowed)) = IMPORTS.iter().find(|(module, _)| *module == top) else {
        return vec![(1, format!("module `{top}` is not in the import table: give it a row, and one in the document"))];
    };
    // As many `super` as lead from this file to the crate root.
    let depth = below.trim_end_matches("/mod.rs").trim_end_matches("mod.rs").split('/').filter(|s| !s.is_empty());
    let to_root = vec!["super"; depth.count() + 1].join("::");

    let mut wrong = Vec::new();
    for (line, path) in source.paths_from(&["crate", "wxgate", &to_root]) {
        let target = path.first().map_or("", String::as_str);
        // A `super` beyond the root means an inline module, which is deeper than its file.
        if target == top || target == "super" {
            continue;
        }
        let fits = |entry: &str| match entry {
            "*" => LEAVES.contains(&target),
            _ => entry.split("::").zip(path.iter().map(String::as_str).chain([""])).all(|(want, got)| want == got),
        };
        if !allowed.iter().any(|entry| fits(entry)) {
            let path = path.join("::");
            let list =
                if allowed.is_empty() { "nothing".into() } else { allowed.join(", ").replace('*', "the leaves") };
            wrong.push((
                line,
                format!(
                    "`{top}` imports `crate::{path}`, and may import {list}: pass it in as an argument, or move it"
                ),
            ));
        }
    }
    if matches!(top, "token" | "store" | "wechat" | "proxy") && !below.starts_with("simulator") {
        let axum = source.lines_with("axum::");
        wrong.extend(
            axum.map(|line| (line, format!("`{top}` uses axum: HTTP endpoints belong to auth, internal or admin"))),
        );
    }
    wrong
}

/// Why this text may not stand in this file.
fn misplaced(inside: &str, text: &str) -> Option<String> {
    let within = |folders: &[&str]| {
        folders.iter().any(|f| inside.strip_prefix(f).is_some_and(|rest| rest.starts_with(['/', '.'])))
    };
    let lower = text.to_ascii_lowercase();
    let official = ["https://api.weixin.qq.com", "https://open.weixin.qq.com"].iter().find(|url| lower.contains(**url));
    if let Some(url) = official
        && !within(&["config", "wechat"])
    {
        return Some(format!("`{url}` outside config and wechat: use the base of `[wechat]`"));
    }
    if lower.starts_with("x-wx-") && !within(&["pipeline", "http1/forbidden", "wechat/simulator", "cli/sample"]) {
        return Some(format!(
            "identity header `{text}` outside pipeline/: take the name from there, or pass the values in"
        ));
    }
    let statement = text.trim_start();
    if !within(&["store"]) && SQL.iter().any(|word| statement.starts_with(word)) {
        return Some("SQL outside store/: ask the store through its trait".into());
    }
    None
}

/// Every `.rs` file below `folder`, as path from the root and text.
fn files(root: &Path, folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_source_keeps_to_the_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all: Vec<_> = ["src", "tests", "benches"].iter().flat_map(|folder| files(root, folder)).collect();
    assert!(all.iter().any(|(file, _)| file == "src/lib.rs"), "src/ was not found");
    let wrong: Vec<String> =
        all.iter().flat_map(|(file, text)| violations(file, text)).map(|v| v.to_string()).collect();
    assert!(wrong.is_empty(), "docs/ARCHITECTURE.md says otherwise:\n{}", wrong.join("\n"));
}

#[test]
fn the_import_table_points_down_only() {
    for (row, (module, allowed)) in IMPORTS.iter().enumerate() {
        for entry in allowed.iter().filter(|entry| **entry != "*") {
            let target = entry.split("::").next().unwrap();
            let at = IMPORTS.iter().position(|(m, _)| *m == target).expect(target);
            // `main` and `cli` are the top: nothing else may be imported from a row further down the list.
            assert!(at < row, "`{module}` may import `{entry}`, which stands above it");
        }
    }
}

#[test]
fn the_table_in_the_document_is_the_one_that_is_checked() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/ARCHITECTURE.md")).unwrap();
    for (module, allowed) in IMPORTS {
        let list: Vec<String> =
            allowed.iter().map(|e| if *e == "*" { "leaves".into() } else { format!("`{e}`") }).collect();
        let row = format!("| `{module}` | {} |", if list.is_empty() { "–".into() } else { list.join(", ") });
        assert!(document.contains(&row), "docs/ARCHITECTURE.md lacks the row\n{row}");
    }
}

/// A planted violation: the file, its text, and what the report must say.
#[test]
fn a_planted_violation_is_caught() {
    let long = "\n".repeat(MAX_LINES + 1);
    for (file, text, said) in [
        (
            "src/proxy/pool.rs",
            "//! a\nuse crate::token::Claims;",
            "src/proxy/pool.rs:2: `proxy` imports `crate::token::Claims`",
        ),
        ("src/proxy/pool.rs", "use crate::{ids::AppId, store};", "`proxy` imports `crate::store`"),
        ("src/auth/login.rs", "fn f(p: &crate::pipeline::Principal) {}", "`auth` imports `crate::pipeline::Principal`"),
        ("src/body.rs", "use crate::ids::AppId;", "may import nothing"),
        ("src/wechat/client.rs", "use super::super::store::Member;", "`wechat` imports `crate::store::Member`"),
        ("src/wechat/simulator/login.rs", "use super::super::super::auth;", "`wechat` imports `crate::auth`"),
        ("src/wechat/client.rs", "use crate::keyfile;", "`wechat` imports `crate::keyfile`"),
        ("src/admin/api.rs", "use crate::token::mint;", "`admin` imports `crate::token::mint`"),
        ("src/main.rs", "use wxgate::store;", "`main` imports `crate::store`"),
        ("src/store/sqlite.rs", "use axum::Router;", "`store` uses axum"),
        ("src/sidecar.rs", "", "`sidecar` is not in the import table"),
        ("src/token/utils.rs", "", "`utils` says nothing"),
        ("tests/gateway/support/common.rs", "", "`common` says nothing"),
        ("tests/gateway/login.rs", &long, "501 lines"),
        ("src/token/mint.rs", "let n = std::time::SystemTime::now();", "outside clock.rs"),
        (
            "src/auth/login.rs",
            "\nlet u = \"https://api.weixin.qq.com/sns\";",
            "src/auth/login.rs:2: `https://api.weixin",
        ),
        ("src/auth/login.rs", "const Q: &str = r#\"\n  SELECT 1\"#;", "SQL outside store/"),
        ("src/proxy/headers.rs", "const H: &str = \"X-WX-OPENID\";", "identity header `X-WX-OPENID`"),
    ] {
        let reports: Vec<String> = violations(file, text).iter().map(ToString::to_string).collect();
        assert!(reports.len() == 1 && reports[0].contains(said), "{file}: wanted {said:?}, got {reports:#?}");
    }
}

#[test]
fn what_is_allowed_is_left_alone() {
    for (file, text) in [
        ("src/token/keys.rs", "use crate::keyfile; use crate::config::{Algorithm, Token}; use super::mint;"),
        ("src/token/mod.rs", "use crate::token::mint; //! [`crate::pipeline`] and \"https://api.weixin.qq.com\""),
        ("src/proxy/forward.rs", "use super::pool;\n#[cfg(test)]\nmod tests { use crate::token::Claims; }"),
        ("src/store/contract.rs", "use crate::auth;"),
        ("src/store/sqlite.rs", "const Q: &str = \"SELECT 1\";"),
        ("src/admin/api.rs", "use crate::token::keys::Ring;"),
        ("src/config/value.rs", "const BASE: &str = \"https://api.weixin.qq.com\";"),
        ("src/wechat/simulator.rs", "use axum::Router; const H: &str = \"x-wx-source\";"),
        ("src/pipeline/identity.rs", "const H: &str = \"x-wx-openid\";"),
        ("src/clock.rs", "SystemTime::now()"),
        ("tests/gateway/identity.rs", "const H: &str = \"x-wx-openid\"; use wxgate::store;"),
    ] {
        assert_eq!(violations(file, text), [], "{file}");
    }
}
