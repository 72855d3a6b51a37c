//! Stores on servers that go away and come back: what needs no store goes on, the rest says so, and nothing is restarted.

use serde_json::json;
use tokio::time::timeout;

use crate::support::DEADLINE;
use crate::support::cable::Cable;
use crate::support::gateway::{Answer, Gateway, Member, ROUTES};
use crate::support::place::Place;
use crate::support::postgres::PostgresServer;
use crate::support::process::{Exit, Process};
use crate::support::redis::RedisServers;

async fn refresh(gateway: &Gateway, member: &Member) -> Answer {
    gateway.post("/auth/refresh", &json!({ "refresh_token": member.refresh() })).await
}

async fn login(gateway: &Gateway) -> Answer {
    let code = gateway.wechat.issue_code(None, "bob");
    gateway.post("/auth/login", &json!({ "code": code })).await
}

/// Logins and refreshes are refused as they should be, and forwarding goes on.
async fn is_away(gateway: &Gateway, member: &Member) {
    for answer in [login(gateway).await, refresh(gateway, member).await] {
        assert_eq!((answer.status, answer.code().as_str()), (503, "store_unavailable"));
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(gateway.get("/api/x", Some(member.token())).await.status, 200);
}

/// Waits until logins are answered again; returns how long it took.
async fn until_back(gateway: &Gateway) -> std::time::Duration {
    let begun = std::time::Instant::now();
    let wait = async {
        while login(gateway).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, wait).await.expect("logins never worked again");
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_dies_and_comes_back() {
    let mut servers = RedisServers::single();
    let gateway = Gateway::with(&format!("store.sessions = \"{}\"\n{ROUTES}", servers.url())).await;
    let member = gateway.login("alice").await;
    for _ in 0..3 {
        servers.servers[0].kill();
        is_away(&gateway, &member).await;
        servers.servers[0].run();
        println!("logins {:?} after Redis was back", until_back(&gateway).await);
    }
    let kept = refresh(&gateway, &member).await;
    assert_eq!(kept.status, 200, "what was answered has outlived Redis: {}", kept.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_hangs_and_goes_on() {
    let servers = RedisServers::single();
    let gateway = Gateway::with(&format!("store.sessions = \"{}\"\n{ROUTES}", servers.url())).await;
    let member = gateway.login("alice").await;
    servers.servers[0].freeze(true);
    is_away(&gateway, &member).await;
    servers.servers[0].freeze(false);
    until_back(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_dies_and_comes_back() {
    let mut server = PostgresServer::start();
    let gateway = Gateway::with(&format!("store.members = \"{}\"\n{ROUTES}", server.url())).await;
    let member = gateway.login("alice").await;
    for _ in 0..2 {
        server.kill();
        is_away(&gateway, &member).await;
        server.run();
        println!("logins {:?} after Postgres was back", until_back(&gateway).await);
    }
    let me = gateway.get("/auth/me", Some(member.token())).await;
    assert_eq!(me.json()["member"]["member_id"], member.id(), "{}", me.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_hangs_and_goes_on() {
    let server = PostgresServer::start();
    let cable = Cable::to(server.port()).await;
    let url = server.url().replace(&server.port().to_string(), &cable.port().to_string());
    let gateway = Gateway::with(&format!("store.members = \"{url}\"\n{ROUTES}")).await;
    let member = gateway.login("alice").await;
    cable.hold();
    // More than there are connections: they have their deadline together, not one after the other.
    let logins = futures_util::future::join_all((0..40).map(|_| login(&gateway)));
    let (logins, ()) = tokio::join!(timeout(DEADLINE, logins), is_away(&gateway, &member));
    for answer in logins.expect("an answer to each, in time") {
        assert_eq!((answer.status, answer.code().as_str()), (503, "store_unavailable"));
    }
    cable.mend();
    until_back(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_over_from_redis_and_no_login_is_lost() {
    let mut servers = RedisServers::sentinel();
    let gateway = Gateway::with(&format!("store.sessions = \"{}?wait=1\"\n{ROUTES}", servers.url())).await;
    let member = gateway.login("alice").await;
    servers.servers[0].kill();
    let wait = async {
        while gateway.get("/auth/me", Some(member.token())).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(2 * DEADLINE, wait).await.expect("the replica knows the session and takes over");
    assert_eq!(login(&gateway).await.code(), "store_unavailable", "there is no replica that could hold it");
    servers.servers[0].run();
    until_back(&gateway).await;
}

#[tokio::test]
async fn a_redis_that_answers_before_it_has_written_is_named_at_start() {
    let servers = RedisServers::single_with("--appendfsync everysec");
    let place = Place::with_stores("", "sqlite:data/wxgate.db", &servers.url()).await;
    let mut process = Process::wxgate_in(place.path(), &["serve"]);
    process.line(|line| (line.contains("appendfsync everysec") && line.contains("WARN")).then_some(())).await;
}

#[tokio::test]
async fn a_redis_that_would_throw_logouts_away_is_refused() {
    let servers = RedisServers::single_with("--maxmemory 100mb --maxmemory-policy allkeys-lru");
    let place = Place::with_stores("", "sqlite:data/wxgate.db", &servers.url()).await;
    let mut process = Process::wxgate_in(place.path(), &["serve"]);
    process.line(|line| line.contains("maxmemory-policy noeviction").then_some(())).await;
    assert_eq!(process.exit().await, Exit::Code(1));
}
