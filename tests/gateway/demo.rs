//! `wxgate demo`: the main job on a bare machine, exactly as it prints itself.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::{Exit, Process};

const ANYWHERE: [&str; 7] = ["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--internal", "127.0.0.1:0"];

/// The demo, and all that it printed.
async fn demo(folder: &TempDir, more: &[&str]) -> (Process, Vec<String>) {
    let mut demo = Process::wxgate_in(folder.path(), &[&ANYWHERE, more].concat());
    demo.line(|line| line.contains("ctrl-c").then_some(())).await;
    let lines = demo.output().stdout;
    (demo, lines)
}

/// Runs the lines that are to be tried in one shell, as somebody who pastes them does; what each comment's lines printed.
async fn tried(lines: &[String]) -> Vec<(String, String)> {
    let begin = lines.iter().position(|line| line.starts_with("Try it")).expect("the lines to try") + 1;
    let mut script =
        "command -v curl >/dev/null || { echo 'curl is missing: install it (apt-get install curl)' >&2; exit 9; }\n"
            .to_owned();
    for line in lines[begin..].iter().take_while(|line| !line.starts_with("Stop with")) {
        match line.strip_prefix("# ") {
            Some(comment) => script.push_str(&format!("echo '=== {comment}'\n")),
            None => script.push_str(&format!("{line}\n")),
        }
    }
    let folder = TempDir::new().unwrap();
    let mut shell = Process::shell(folder.path(), &script);
    let exit = shell.exit().await;
    let output = shell.output();
    assert_eq!((exit, output.stderr.is_empty()), (Exit::Code(0), true), "{output:#?}");
    let mut steps: Vec<(String, String)> = Vec::new();
    for line in output.stdout {
        match (line.strip_prefix("=== "), steps.last_mut()) {
            (Some(step), _) => steps.push((step.to_owned(), String::new())),
            (None, Some((_, printed))) => printed.push_str(&format!("{line}\n")),
            (None, None) => panic!("before the first comment: {line}"),
        }
    }
    steps
}

#[tokio::test]
async fn every_line_that_the_demo_prints_does_what_it_says() {
    let folder = TempDir::new().unwrap();
    let (mut demo, lines) = demo(&folder, &[]).await;
    let steps = tried(&lines).await;
    let printed = |n: usize| -> Vec<Value> {
        let (step, printed) = &steps[n];
        let lines = printed.lines().filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{step}: {e}: {printed}"))).collect()
    };
    assert_eq!(steps.len(), 9, "{steps:#?}");
    assert_eq!(steps[0].1, "", "the code is kept for the next line");
    let login = &printed(1)[0];
    assert_eq!((&login["token_type"], &login["is_new"]), (&json!("Bearer"), &json!(true)));
    let openid = login["openid"].as_str().unwrap();
    let hello = &printed(2)[0];
    assert_eq!((&hello["openid"], &hello["message"]), (&json!(openid), &json!(format!("hello, {openid}"))));
    assert_eq!((&hello["path"], &hello["authorization"]), (&json!("/api/hello"), &Value::Null));
    assert_eq!(printed(3)[0]["code"], "token_missing");
    let made_up = &printed(4)[0];
    assert_eq!((&made_up["openid"], &made_up["path"]), (&Value::Null, &json!("/public/hello")));
    assert_eq!(printed(5)[0]["member"], login["member"]);
    let said = &printed(6)[0];
    assert_eq!((&said["active"], &said["openid"]), (&json!(true), &json!(openid)));
    let refreshed = &printed(7)[0];
    assert_eq!(refreshed["openid"], openid);
    assert_ne!(refreshed["refresh_token"], login["refresh_token"]);
    let logout = printed(8);
    assert_eq!((&logout[0], &logout[1]["code"]), (&json!(204), &json!("token_revoked")));

    demo.terminate();
    assert_eq!(demo.exit().await, Exit::Code(0));
}

#[tokio::test]
async fn the_demo_shows_its_addresses_and_they_answer() {
    let folder = TempDir::new().unwrap();
    let (_demo, lines) = demo(&folder, &[]).await;
    let address = |name: &str| {
        let line = lines.iter().find(|line| line.trim_start().starts_with(name)).unwrap();
        line[line.find("http://").unwrap()..].split(' ').next().unwrap().to_owned()
    };
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (name, path) in [("gateway", "/healthz"), ("admin", "/readyz"), ("WeChat", "/_sim/calls"), ("sample", "/x")] {
        let answer = client.get(format!("{}{path}", address(name))).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{name}");
    }
    let metadata = client.get(format!("{}/.well-known/oauth-authorization-server", address("gateway"))).send().await;
    let metadata: Value = metadata.unwrap().json().await.unwrap();
    assert_eq!(metadata["issuer"], address("gateway"), "who follows the metadata gets there");
}

#[tokio::test]
async fn a_demo_leaves_nothing_behind_unless_a_folder_was_named() {
    let folder = TempDir::new().unwrap();
    let configuration = |lines: &[String]| {
        let line = lines.iter().find(|line| line.trim_start().starts_with("configuration")).unwrap();
        std::path::PathBuf::from(line.split_whitespace().nth(1).unwrap())
    };
    let (mut demo_, lines) = demo(&folder, &[]).await;
    let made = configuration(&lines);
    assert!(made.exists());
    demo_.terminate();
    assert_eq!(demo_.exit().await, Exit::Code(0));
    assert!(!made.parent().unwrap().exists());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    for round in 0..2 {
        let (mut demo_, lines) = demo(&folder, &["--data", "kept"]).await;
        assert_eq!(configuration(&lines), folder.path().canonicalize().unwrap().join("kept/gateway.toml"));
        let steps = tried(&lines).await;
        let is_new = serde_json::from_str::<Value>(&steps[1].1).unwrap()["is_new"].clone();
        assert_eq!(is_new, round == 0, "alice is known in the second round");
        demo_.terminate();
        assert_eq!(demo_.exit().await, Exit::Code(0));
    }
}
