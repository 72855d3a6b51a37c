//! The keys that seal WeChat's session keys in the store: another one takes over, and nobody notices.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use wxgate::store::vault::keys::{KEEP, LEAD};

use crate::key_rotation::command;
use crate::support::DEADLINE;
use crate::support::gateway::{Answer, Gateway, Member, ROUTES};
use crate::support::process::Exit;
use crate::support::redis::RedisServers;

const SERVICE: &str = "planted-service-token-79";
const HOUR: Duration = Duration::from_secs(3600);

async fn gateway(top: &str) -> Gateway {
    let service = format!("[[internal.service]]\nname = \"orders\"\ntoken = \"{SERVICE}\"\n");
    Gateway::with(&format!("{top}token.rotate_every = \"0s\"\n{ROUTES}{service}")).await
}

/// A service has the gateway decrypt what this user's phone encrypts now.
async fn decrypts(gateway: &Gateway, member: &Member, user: &str) {
    let mut data = gateway.encrypted(user, json!({ "step": 7 }));
    data["openid"] = member.openid().into();
    let request = gateway.client().post(gateway.internal_url("/open-data")).bearer_auth(SERVICE).json(&data);
    let answer = Answer::of(request.send().await.unwrap()).await;
    assert_eq!((answer.status, answer.json()["step"].clone()), (200, json!(7)), "{user}: {}", answer.body);
}

/// By which keys records in the store are sealed: each person's newest.
fn seals(gateway: &Gateway) -> Vec<String> {
    let db = rusqlite::Connection::open(gateway.dir.path().join("wxgate.db")).unwrap();
    let mut query = db.prepare("SELECT lower(hex(substr(newest, 1, 8))) FROM session_keys ORDER BY openid").unwrap();
    query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

fn lines(gateway: &Gateway) -> usize {
    std::fs::read_to_string(gateway.dir.path().join("keys/sealing.key")).unwrap().lines().count()
}

async fn sealing(gateway: &Gateway) -> Vec<Value> {
    gateway.shown("/api/keys").await["sealing"].as_array().unwrap().clone()
}

async fn rotate(gateway: &Gateway, now: bool) {
    let body = json!({ "sealing": true, "now": now });
    let answer = gateway.admin(Method::POST, "/api/keys/rotate", Some(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("never {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_on_top_of_the_file_seals_after_a_reload_and_the_old_ones_open_while_traffic_goes_on() {
    let gateway = gateway("").await;
    let alice = gateway.login("alice").await;
    let old = seals(&gateway);
    let path = gateway.dir.path().join("keys/sealing.key");
    let before = std::fs::read_to_string(&path).unwrap();
    let data = gateway.encrypted("alice", json!({ "step": 7 }));
    let ask = || gateway.post_as(&alice, "/auth/open-data", &data);
    let traffic = async {
        for _ in 0..3 {
            for answer in join_all((0..20).map(|_| ask())).await {
                assert_eq!(answer.status, 200, "{}", answer.body);
            }
        }
    };
    let change = async {
        wxgate::keyfile::write(&path, format!("{}\n{before}", "ab".repeat(32)).as_bytes()).unwrap();
        gateway.inner().reload().await.unwrap();
    };
    tokio::join!(traffic, change);
    // One that was there is opened by the old key and sealed by the new one when it is used; so is what comes later.
    assert_eq!(ask().await.status, 200);
    let bob = gateway.login("bob").await;
    let new = seals(&gateway);
    assert!(new.len() == 2 && new[0] == new[1] && new[0] != old[0], "{old:?} {new:?}");
    decrypts(&gateway, &bob, "bob").await;

    // A file that holds something else changes nothing.
    std::fs::write(&path, "rubbish\n").unwrap();
    let refused = gateway.inner().reload().await.unwrap_err().to_string();
    assert!(refused.contains("sealing.key") && refused.contains("line 1"), "{refused}");
    assert_eq!(ask().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_takes_over_by_command_all_records_follow_and_the_old_one_goes() {
    let gateway = gateway("").await;
    let users: Vec<String> = (0..30).map(|n| format!("user-{n}")).collect();
    let mut members = Vec::new();
    for user in &users {
        members.push(gateway.login(user).await);
    }
    let old = seals(&gateway)[0].clone();
    rotate(&gateway, false).await;
    let listed = sealing(&gateway).await;
    let states: Vec<&Value> = listed.iter().map(|key| &key["state"]).collect();
    assert_eq!((states, &listed[1]["id"]), (vec![&json!("next"), &json!("active")], &json!(old)));
    assert_eq!(listed[0]["seals_from"], "2026-11-21T00:10:00Z");
    gateway.login("late").await;
    assert!(seals(&gateway).iter().all(|key| *key == old), "it does not seal yet");

    gateway.clock.advance(LEAD);
    let new = listed[0]["id"].as_str().unwrap();
    decrypts(&gateway, &members[3], &users[3]).await;
    let by_new = |gateway: &Gateway| seals(gateway).iter().filter(|key| *key == new).count();
    assert_eq!(by_new(&gateway), 1, "what is used is sealed anew");

    // The others when no instance can seal by the old one any more.
    gateway.clock.advance(HOUR);
    until("sealed by the new key", || by_new(&gateway) == 31).await;
    gateway.until_metric("wxgate_resealed_total", 30).await;
    assert_eq!(lines(&gateway), 2, "it is kept: the folder may serve another store");
    gateway.clock.advance(KEEP);
    until("without the old key", || lines(&gateway) == 1).await;
    gateway.inner().reload().await.unwrap();
    for (member, user) in members.iter().zip(&users) {
        decrypts(&gateway, member, user).await;
    }
    assert!(gateway.audit().iter().any(|line| line["action"] == "keys.rotate.sealing"), "{:?}", gateway.audit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_does_in_redis() {
    let redis = RedisServers::single();
    let gateway = gateway(&format!("store.sessions = \"{}\"\n", redis.url())).await;
    let mut members = Vec::new();
    for n in 0..20 {
        members.push(gateway.login(&format!("user-{n}")).await);
    }
    rotate(&gateway, true).await;
    gateway.clock.advance(HOUR);
    gateway.until_metric("wxgate_resealed_total", 20).await;
    gateway.clock.advance(KEEP);
    until("without the old key", || lines(&gateway) == 1).await;
    gateway.inner().reload().await.unwrap();
    for (n, member) in members.iter().enumerate() {
        decrypts(&gateway, member, &format!("user-{n}")).await;
    }
}

#[tokio::test]
async fn a_key_of_age_is_replaced_without_a_command() {
    let gateway = Gateway::with(&format!("token.rotate_every = \"30d\"\n{ROUTES}")).await;
    gateway.inner().tend_keys().await.unwrap();
    assert_eq!(lines(&gateway), 1);
    gateway.clock.advance(32 * 24 * HOUR);
    gateway.inner().tend_keys().await.unwrap();
    assert_eq!(lines(&gateway), 2);
    assert_eq!(sealing(&gateway).await[0]["state"], "next");
    gateway.clock.advance(LEAD);
    assert_eq!(sealing(&gateway).await[0]["state"], "active");
}

#[tokio::test]
async fn an_operator_rotates_the_sealing_key_and_leaves_the_others_alone() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let before = gateway.shown("/api/keys").await["keys"].clone();
    let (exit, output) = command(&gateway, &["keys", "rotate", "--sealing"]).await;
    assert_eq!(exit, Exit::Code(0), "{output:#?}");
    assert_eq!(output.stdout.len(), 3, "{output:#?}");
    assert!(output.stdout[1].starts_with("seals ") && output.stdout[1].contains("next"), "{output:#?}");
    assert!(output.stdout[1].ends_with("seals from 2026-11-21T00:10:00Z"), "{output:#?}");
    assert!(output.stdout[2].contains("active"), "{output:#?}");
    assert_eq!(gateway.shown("/api/keys").await["keys"], before);
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200);
    // Nothing of a key is shown.
    let file = std::fs::read_to_string(gateway.dir.path().join("keys/sealing.key")).unwrap();
    let shown = gateway.shown("/api/keys").await.to_string();
    assert!(file.lines().all(|line| !shown.contains(&line[..16]) && !gateway.log.text().contains(&line[..16])));
    let (exit, output) = command(&gateway, &["keys", "rotate", "--sealing", "--now"]).await;
    assert!(exit == Exit::Code(0) && output.stdout[1].contains("active"), "{output:#?}");
}
