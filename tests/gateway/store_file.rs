//! The files that the gateway keeps: for the owner alone, one gateway at a time, and refused when they are not whole.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::support::gateway::{Gateway, Member, ROUTES};
use crate::support::place::Place;
use crate::support::process::{Exit, Process};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Starts the gateway, which must fail; what it says.
async fn failed_start(place: &Place) -> String {
    let mut process = Process::wxgate_in(place.path(), &["serve"]);
    let exit = process.exit().await;
    let output = process.output();
    assert_eq!(exit, Exit::Code(1), "{output:#?}");
    assert!(output.stdout.is_empty(), "{output:#?}");
    let said = output.stderr.join("\n");
    assert!(!said.contains("panicked") && !said.contains("wxgate is ready"), "{said}");
    said
}

/// A place where somebody has logged in, stopped.
async fn used() -> Place {
    let place = Place::new("").await;
    let mut served = place.serve().await;
    for n in 0..20 {
        let code = place.wechat.issue_code(None, &format!("user{n}"));
        served.caller().login(&code).await.expect("an answer");
    }
    served.process.terminate();
    assert_eq!(served.process.exit().await, Exit::Code(0));
    place
}

#[tokio::test]
async fn database_and_keys_are_for_the_owner_alone() {
    let place = Place::new("").await;
    let _served = place.serve().await;
    let data = place.path().join("data");
    assert_eq!((mode(&data.join("keys")), mode(&data)), (0o700, 0o700));
    let mut names = Vec::new();
    for folder in [&data, &data.join("keys")] {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                assert_eq!(mode(&entry.path()), 0o600, "{}", entry.path().display());
                names.push(entry.file_name().into_string().unwrap());
            }
        }
    }
    for expected in ["wxgate.db", "admin.token", "refresh.key", "sealing.key", "log.key", "ring.json", "store.birth"] {
        assert!(names.iter().any(|name| name == expected), "{expected} is not among {names:?}");
    }
}

#[tokio::test]
async fn a_database_that_is_not_whole_stops_the_start_and_is_left_as_it_is() {
    let place = used().await;
    let path = place.path().join("data/wxgate.db");
    let whole = std::fs::read(&path).unwrap();
    let scribbled = {
        let mut bytes = whole.clone();
        bytes[4096..8192].fill(0xa5);
        bytes
    };
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("scribbled", scribbled),
        ("something else", b"a shopping list".to_vec()),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let said = failed_start(&place).await;
        assert!(said.contains("wxgate.db is damaged") && said.contains("restore it from a backup"), "{what}: {said}");
        assert!(std::fs::read(&path).unwrap() == bytes, "{what}: the file was changed");
    }
    std::fs::write(&path, &whole).unwrap();
    place.serve().await;
}

#[tokio::test]
async fn a_key_that_others_may_read_or_that_is_damaged_stops_the_start() {
    let place = used().await;
    let key = place.path().join("data/keys/refresh.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = failed_start(&place).await;
    assert!(said.contains("refresh.key") && said.contains("chmod 600"), "{said}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["refresh.key", "sealing.key", "ring.json", "store.birth", "admin.token"] {
        let path = place.path().join("data/keys").join(name);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, b"half").unwrap();
        let said = failed_start(&place).await;
        assert!(said.contains(name), "{name}: {said}");
        std::fs::write(&path, whole).unwrap();
    }
    place.serve().await;
}

#[tokio::test]
async fn a_full_disk_refuses_logins_and_harms_nobody_who_is_in() {
    let place = Place::new("").await;
    let mut served = place.serve_with_disk_of(1200).await;
    let caller = served.caller();
    let login = async |n: usize| {
        let body = json!({ "code": place.wechat.issue_code(None, &format!("user{n}")) });
        caller.ask(Method::POST, "/auth/login", None, &body).await.expect("an answer")
    };
    let mut members = Vec::new();
    let refused = loop {
        let answer = login(members.len()).await;
        if answer.status != 200 {
            break answer;
        }
        members.push(Member { answer: answer.json() });
        assert!(members.len() < 1000, "the disk is never full");
    };
    assert!(members.len() > 5, "{}", refused.body);
    assert_eq!((refused.status, refused.code().as_str()), (503, "store_unavailable"));
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(login(1001).await.status, 503);
    for member in &members {
        assert_eq!(caller.get("/api/x", member.token()).await.expect("an answer").status, 200);
    }
    assert_eq!(caller.get("/auth/me", members[0].token()).await.expect("an answer").status, 200);
    served.process.terminate();
    assert_eq!(served.process.exit().await, Exit::Code(0));

    // With room again everything that was answered is there, and the gateway takes logins.
    let served = place.serve().await;
    for member in &members {
        assert_eq!(served.caller().refresh(member.refresh()).await.expect("an answer").status, 200);
    }
    served.caller().login(&place.wechat.issue_code(None, "user1001")).await.expect("an answer");
}

#[tokio::test]
async fn a_second_gateway_on_the_same_database_is_told_so() {
    let place = Place::new("").await;
    let _first = place.serve().await;
    let said = failed_start(&place).await;
    assert!(said.contains("is in use by another gateway"), "{said}");
}

#[tokio::test]
async fn a_database_that_was_lost_takes_every_login_along() {
    let gateway = Gateway::start().await;
    gateway.clock.set_back(Duration::from_secs(3600));
    let (alice, bob) = (gateway.login("alice").await, gateway.login("bob").await);
    let gateway = gateway.restart(ROUTES).await;
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200, "the same database changes nothing");
    let dir = gateway.end().await;
    std::fs::remove_file(dir.path().join("wxgate.db")).unwrap();
    let mut gateway = Gateway::in_dir(dir, ROUTES).await;
    let new = gateway.login("alice").await;
    for _ in 0..2 {
        for lost in [&alice, &bob] {
            let answer = gateway.get("/api/x", Some(lost.token())).await;
            assert_eq!((answer.status, answer.code().as_str()), (401, "token_revoked"));
        }
        assert_eq!(gateway.get("/api/x", Some(new.token())).await.status, 200);
        gateway = gateway.restart(ROUTES).await;
    }
}

#[tokio::test]
async fn a_gateway_that_never_recorded_its_database_keeps_its_logins() {
    let gateway = Gateway::start().await;
    gateway.clock.set_back(Duration::from_secs(3600));
    let alice = gateway.login("alice").await;
    let dir = gateway.end().await;
    std::fs::remove_file(dir.path().join("keys/store.birth")).unwrap();
    let gateway = Gateway::in_dir(dir, ROUTES).await;
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200);
}
