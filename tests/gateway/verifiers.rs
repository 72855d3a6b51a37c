//! Tokens and assertions in the hands of libraries that services use: PyJWT and jose, with the published keys alone.
//!
//! `scripts/test.sh` installs them and runs these tests: `WXGATE_PYTHON` is an interpreter that has PyJWT, `WXGATE_JOSE` a
//! folder in whose node_modules jose is.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wxgate::clock::Clock;

use crate::support::gateway::Gateway;

const ROUTES: &str = "[[route]]\npath = \"/signed\"\nupstream = \"echo\"\nassertion = true\n";

/// Good ones of each algorithm, and what must be refused.
async fn cases() -> (Vec<Gateway>, Vec<Value>) {
    let (mut gateways, mut cases) = (Vec::new(), Vec::new());
    for algorithm in ["ES256", "EdDSA", "RS256", "HS256"] {
        let gateway = Gateway::with(&format!("token.algorithm = \"{algorithm}\"\n{ROUTES}")).await;
        // The libraries know the true time alone.
        let (now, ours) = (Clock::system().now(), gateway.clock.now());
        gateway.clock.advance(now.since(ours));
        gateway.clock.set_back(ours.since(now));
        let alice = gateway.login("alice").await;
        assert_eq!(gateway.get("/signed", Some(alice.token())).await.status, 200);
        let assertion = gateway.upstream.requests()[0].all("x-wxgate-assertion")[0].to_owned();
        let mut case = |name: &str, jwt: &str, typ: &str, aud: &str, good: bool| {
            cases.push(json!({
                "name": format!("{algorithm}, {name}"), "jwks": gateway.url("/.well-known/jwks.json"), "jwt": jwt,
                "typ": typ, "iss": "https://api.example.com", "aud": aud, "good": good,
            }));
        };
        let (at, own) = ("at+jwt", "wxgate-assertion+jwt");
        // A shared secret is published nowhere.
        case("access token", alice.token(), at, "wxgate", algorithm != "HS256");
        case("assertion", &assertion, own, "echo", true);
        case("assertion of another upstream", &assertion, own, "orders", false);
        case("access token as an assertion", alice.token(), own, "wxgate", false);
        case("assertion as an access token", &assertion, at, "echo", false);
        let (message, signature) = assertion.rsplit_once('.').unwrap();
        let changed = if signature.starts_with('A') { "B" } else { "A" };
        case("changed signature", &format!("{message}.{changed}{}", &signature[1..]), own, "echo", false);
        gateways.push(gateway);
    }
    (gateways, cases)
}

async fn judged_by(program: &str, script: &str) {
    let (_gateways, cases) = cases().await;
    let script = format!("{}/tests/verifiers/{script}", env!("CARGO_MANIFEST_DIR"));
    let program = program.to_owned();
    let run = move || {
        let mut command = Command::new(program);
        let mut child = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(json!(cases).to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
#[ignore = "needs PyJWT: scripts/test.sh runs it"]
#[expect(clippy::disallowed_methods, reason = "scripts/test.sh says where it has installed it")]
async fn pyjwt_accepts_what_is_ours_and_nothing_else() {
    let python = std::env::var("WXGATE_PYTHON").expect("WXGATE_PYTHON names a Python with PyJWT");
    judged_by(&python, "verify.py").await;
}

#[tokio::test]
#[ignore = "needs jose: scripts/test.sh runs it"]
#[expect(clippy::disallowed_methods, reason = "scripts/test.sh says where it has installed it")]
async fn jose_accepts_what_is_ours_and_nothing_else() {
    std::env::var("WXGATE_JOSE").expect("WXGATE_JOSE names a folder with jose");
    judged_by("node", "verify.mjs").await;
}
