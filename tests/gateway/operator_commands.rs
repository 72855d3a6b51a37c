//! `wxgate sessions`, `wxgate members` and `wxgate backup` against a running gateway.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::gateway::{APPID, Gateway, Member, ROUTES};
use crate::support::process::{Exit, Process};

/// Runs a command against this gateway; its lines and how it ended.
async fn wxgate(gateway: &Gateway, args: &[&str]) -> (Vec<String>, String, Exit) {
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let address = gateway.admin_url("").replace("http://", "");
    let listen = format!("[admin]\nlisten = \"{address}\"");
    let own = gateway.dir.path().join("command.toml");
    std::fs::write(&own, text.replace("[admin]\nlisten = \"127.0.0.1:0\"", &listen)).unwrap();
    let args: Vec<_> = args.iter().copied().chain(["--config", "command.toml"]).collect();
    let mut process = Process::wxgate_in(gateway.dir.path(), &args);
    let exit = process.exit().await;
    let output = process.output();
    (output.stdout, output.stderr.join("\n"), exit)
}

async fn done(gateway: &Gateway, args: &[&str]) -> Vec<String> {
    let (out, err, exit) = wxgate(gateway, args).await;
    assert_eq!(exit, Exit::Code(0), "{args:?}: {err}");
    out
}

fn as_json(lines: &[String]) -> Value {
    serde_json::from_str(&lines.join("\n")).unwrap()
}

async fn status(gateway: &Gateway, member: &Member) -> u16 {
    gateway.get("/api/x", Some(member.token())).await.status
}

#[tokio::test]
async fn members_are_listed_shown_and_changed() {
    let gateway = Gateway::start().await;
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let lines = done(&gateway, &["members", "set", alice.id(), "--roles", "vip, ops", "--nickname", "爱丽丝"]).await;
    assert!(lines.iter().any(|line| line.starts_with("roles") && line.ends_with("ops,vip")), "{lines:?}");
    let lines = done(&gateway, &["members", "list"]).await;
    assert!(lines[0].starts_with("MEMBER") && lines.len() == 3, "{lines:?}");
    assert!(lines[1].starts_with(bob.id()) && lines[2].contains("爱丽丝"), "{lines:?}");
    let found = as_json(&done(&gateway, &["members", "list", "--role", "vip", "--json"]).await);
    assert_eq!(found["members"][0]["member_id"], alice.id());
    let first = done(&gateway, &["members", "list", "--limit", "1"]).await;
    let after = first[2].strip_prefix("more: --after ").unwrap();
    let second = done(&gateway, &["members", "list", "--limit", "1", "--after", after]).await;
    assert!(second[1].starts_with(alice.id()), "{second:?}");

    done(&gateway, &["members", "set", alice.id(), "--ban", "spam"]).await;
    assert_eq!((status(&gateway, &alice).await, status(&gateway, &bob).await), (401, 200));
    let shown = as_json(&done(&gateway, &["members", "show", alice.id(), "--json"]).await);
    assert_eq!((&shown["banned"], &shown["ban_reason"], &shown["sessions"]), (&json!(true), &json!("spam"), &json!(0)));
    done(&gateway, &["members", "set", alice.id(), "--unban", "--roles", ""]).await;
    let shown = as_json(&done(&gateway, &["members", "show", alice.id(), "--json"]).await);
    assert_eq!((&shown["banned"], &shown["roles"]), (&json!(false), &json!([])));

    let (_, err, exit) = wxgate(&gateway, &["members", "show", "nobody"]).await;
    assert_eq!(exit, Exit::Code(1));
    assert!(err.contains("There is no member of this id"), "{err}");
    let (_, _, exit) = wxgate(&gateway, &["members", "set", alice.id()]).await;
    assert_eq!(exit, Exit::Code(64), "nothing to do is a slip");
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let gateway = Gateway::start().await;
    let (phone, tablet) = (gateway.login("alice").await, gateway.login("alice").await);
    let bob = gateway.login("bob").await;
    let lines = done(&gateway, &["sessions", "list", "--member", phone.id()]).await;
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with(&phone.session())), "{lines:?}");
    assert_eq!(done(&gateway, &["sessions", "revoke", &phone.session()]).await, ["ended: 1"]);
    assert_eq!((status(&gateway, &phone).await, status(&gateway, &tablet).await), (401, 200));
    assert_eq!(done(&gateway, &["sessions", "revoke", "--member", phone.id()]).await, ["ended: 1"]);
    let listed = as_json(&done(&gateway, &["sessions", "list", "--app", APPID, "--json"]).await);
    assert_eq!(listed["sessions"][0]["session_id"], bob.session());
    gateway.clock.advance(std::time::Duration::from_millis(1));
    assert_eq!(done(&gateway, &["sessions", "revoke", "--app", APPID]).await, ["ended: 1"]);
    assert_eq!(status(&gateway, &bob).await, 401);
    let (_, _, exit) = wxgate(&gateway, &["sessions", "revoke"]).await;
    assert_eq!(exit, Exit::Code(64));
}

#[tokio::test]
async fn a_backup_of_a_running_gateway_is_whole_and_can_be_restored() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let gone = gateway.login("bob").await;
    gateway.revoke(json!({ "member": gone.id() })).await;
    gateway.change(&alice, json!({ "nickname": "爱丽丝", "roles": ["vip"] })).await;
    // Somebody logs in all the time while it is made.
    let logins = async {
        for n in 0..40 {
            gateway.login(&format!("user{n}")).await;
        }
    };
    let args = ["backup", "copy"];
    let (lines, ()) = tokio::join!(done(&gateway, &args), logins);
    assert!(lines.iter().any(|line| line.starts_with("wxgate.db: ")), "{lines:?}");
    let later = gateway.login("carol").await;
    let copy = gateway.dir.path().join("copy");
    for (path, mode) in [("", 0o700), ("wxgate.db", 0o600), ("keys", 0o700), ("keys/admin.token", 0o600)] {
        let found = std::fs::metadata(copy.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path}");
    }
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names(&copy.join("keys")), names(&gateway.dir.path().join("keys")));
    assert!(!names(gateway.dir.path()).iter().any(|name| name.to_string_lossy().contains(".copy-")), "nothing is left");
    let (_, err, exit) = wxgate(&gateway, &args).await;
    assert_eq!(exit, Exit::Code(1));
    assert!(err.contains("is not empty"), "{err}");
    assert!(gateway.audit().iter().any(|line| line["action"] == "backup" && line["outcome"] == "done"));

    let restored = tempfile::tempdir().unwrap();
    std::fs::rename(copy.join("wxgate.db"), restored.path().join("wxgate.db")).unwrap();
    std::fs::rename(copy.join("keys"), restored.path().join("keys")).unwrap();
    let again = Gateway::in_dir(restored, ROUTES).await;
    assert_eq!(status(&again, &alice).await, 200, "its tokens are good");
    assert_eq!(again.refresh(&alice).await.status, 200, "its sessions are there");
    assert_eq!(again.me(&alice).await["nickname"], "爱丽丝");
    assert_eq!(status(&again, &gone).await, 401, "what was revoked stays so");
    assert_eq!(again.get("/auth/me", Some(later.token())).await.code(), "token_revoked", "later is not in it");
    let encrypted = gateway.encrypted("alice", json!({ "step": 7 }));
    let data = again.post_as(&alice, "/auth/open-data", &encrypted).await;
    assert_eq!((data.status, &data.json()["step"]), (200, &json!(7)), "its session_key opens");
}

#[tokio::test]
async fn without_a_gateway_the_commands_say_so() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Gateway::start().await;
    let text = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    let text = text.replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{nobody}\""));
    std::fs::write(gateway.dir.path().join("away.toml"), text).unwrap();
    for args in [&["members", "list"][..], &["sessions", "list", "--member", "m"], &["backup", "copy"]] {
        let args: Vec<_> = args.iter().copied().chain(["--config", "away.toml"]).collect();
        let mut process = Process::wxgate_in(gateway.dir.path(), &args);
        assert_eq!(process.exit().await, Exit::Code(1));
        assert!(process.output().stderr.join("\n").contains("no gateway answers"), "{:?}", process.output());
    }
}
