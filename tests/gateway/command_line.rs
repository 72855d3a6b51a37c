//! The commands: what they print, and how they end.

use serde_json::Value;
use tempfile::TempDir;

use crate::support::place::Place;
use crate::support::process::{Exit, Output, Process};

async fn run_in(folder: &TempDir, args: &[&str]) -> (Exit, Output) {
    let mut process = Process::wxgate_in(folder.path(), args);
    let exit = process.exit().await;
    (exit, process.output())
}

async fn run(args: &[&str]) -> (Exit, Output) {
    run_in(&TempDir::new().unwrap(), args).await
}

fn folder_with(config: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("gateway.toml"), config).unwrap();
    folder
}

const FAULTY: &str = r#"
[server]
lisen = ["127.0.0.1:0"]
[token]
issuer = "not a url"
access_ttl = "two hours"
[[app]]
appid = "wx0123456789abcdef"
secret = "${NOT_SET_ANYWHERE}"
[[route]]
path = "/api/*"
upstream = "nobody"
"#;

#[tokio::test]
async fn version_and_help_are_no_fault() {
    let (exit, output) = run(&["--version"]).await;
    assert_eq!(
        (exit, output.stdout.join("\n")),
        (Exit::Code(0), concat!("wxgate ", env!("CARGO_PKG_VERSION")).to_owned())
    );
    let (exit, output) = run(&["--help"]).await;
    assert_eq!(exit, Exit::Code(0));
    let help = output.stdout.join("\n");
    for command in ["serve", "demo", "check", "reload", "simulate", "schema", "keys", "token"] {
        assert!(help.contains(&format!("  {command} ")), "{command} is not in {help}");
        let (exit, output) = run(&[command, "--help"]).await;
        assert_eq!((exit, output.stderr.is_empty()), (Exit::Code(0), true), "{command}");
    }
}

#[tokio::test]
async fn wrong_usage_is_64_and_said_on_standard_error() {
    let wrong: [&[&str]; 6] = [
        &[],
        &["frobnicate"],
        &["serve", "--nothing"],
        &["demo", "--listen", "nowhere"],
        &["keys"],
        &["keys", "import"],
    ];
    for args in wrong {
        let (exit, output) = run(args).await;
        assert_eq!(exit, Exit::Code(64), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}: {output:#?}");
    }
}

#[tokio::test]
async fn every_fault_of_a_configuration_is_told_at_once_by_every_command_that_reads_it() {
    let folder = folder_with(FAULTY);
    let commands: [&[&str]; 4] = [&["check"], &["serve"], &["reload"], &["keys", "import", "gateway.toml"]];
    for command in commands {
        let (exit, output) = run_in(&folder, command).await;
        assert_eq!((exit, output.stdout.is_empty()), (Exit::Code(64), true), "{command:?}: {output:#?}");
        let said = output.stderr.join("\n");
        let faults = ["server.lisen", "token.issuer", "token.access_ttl", "app[0].secret", "route[0].upstream"];
        for fault in faults {
            // A variable of the service's environment is not missed by those who only ask where things are.
            let told = fault != "app[0].secret" || matches!(command[0], "check" | "serve");
            assert_eq!(said.contains(fault), told, "{command:?}: {fault} in {said}");
        }
        assert!(said.contains("gateway.toml:3:") && said.contains("listen"), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "and nothing was made");
}

#[tokio::test]
async fn a_configuration_that_is_not_there_is_64() {
    for command in ["check", "serve", "reload"] {
        let (exit, output) = run(&[command]).await;
        assert_eq!(exit, Exit::Code(64), "{command}");
        assert!(output.stderr.join("\n").contains("gateway.toml"), "{output:#?}");
    }
}

#[tokio::test]
async fn check_says_that_a_good_file_is_good_and_touches_nothing() {
    let place = Place::new("").await;
    let (exit, output) = run_in(&place.dir, &["check", "--config", "gateway.toml"]).await;
    assert_eq!((exit, output.stderr.is_empty()), (Exit::Code(0), true), "{output:#?}");
    assert_eq!(output.stdout, ["gateway.toml is valid: 1 app, 1 upstream, 3 routes"]);
    assert!(!place.path().join("data").exists());
}

#[tokio::test]
async fn the_schema_is_one_json_document() {
    let (exit, output) = run(&["schema"]).await;
    assert_eq!(exit, Exit::Code(0));
    let schema: Value = serde_json::from_str(&output.stdout.join("\n")).unwrap();
    assert_eq!(schema["type"], "object");
}

#[tokio::test]
async fn a_taken_port_is_1_and_the_address_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let place = Place::new("").await;
    let path = place.path().join("gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    for (what, changed) in [
        ("public", text.replacen("[\"127.0.0.1:0\"]", &format!("[\"{address}\"]"), 1)),
        ("admin", text.replacen("listen = \"127.0.0.1:0\"", &format!("listen = \"{address}\""), 1)),
    ] {
        assert_ne!(changed, text);
        std::fs::write(&path, changed).unwrap();
        let (exit, output) = run_in(&place.dir, &["serve"]).await;
        let said = output.stderr.join("\n");
        assert_eq!(exit, Exit::Code(1), "{what}: {said}");
        assert!(said.contains(&address) && said.to_lowercase().contains("in use"), "{what}: {said}");
        assert!(!said.contains("stack backtrace") && !said.contains("panicked"), "{what}: {said}");
    }
}

#[tokio::test]
async fn a_gateway_that_is_told_to_stop_ends_with_0() {
    let place = Place::new("").await;
    let mut served = place.serve().await;
    served.process.terminate();
    assert_eq!(served.process.exit().await, Exit::Code(0));
}

#[tokio::test]
async fn the_simulator_says_where_it_is_and_every_line_it_prints_works() {
    let folder = TempDir::new().unwrap();
    let mut simulator = Process::wxgate_in(folder.path(), &["simulate", "--listen", "127.0.0.1:0"]);
    // The last line; all others are there then.
    simulator.line(|line| line.contains("/_sim/calls").then_some(())).await;
    let lines = simulator.output().stdout;
    assert!(lines[0].starts_with("WeChat simulator on http://127.0.0.1:"), "{lines:#?}");
    let mut ran = 0;
    for line in lines.iter().filter(|line| line.trim_start().starts_with("curl ")) {
        let mut shell = Process::shell(folder.path(), line);
        let exit = shell.exit().await;
        assert_eq!(exit, Exit::Code(0), "{line}: {:#?} (is curl installed?)", shell.output());
        ran += 1;
    }
    assert_eq!(ran, 6);
    simulator.terminate();
    assert_eq!(simulator.exit().await, Exit::Code(0));
}
