//! `kill -9` under load: what was answered is on disk, whatever the moment.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::DEADLINE;
use crate::support::gateway::Member;
use crate::support::place::{Caller, Place, Served};
use crate::support::postgres::PostgresServer;
use crate::support::process::Exit;
use crate::support::redis::RedisServers;

/// What clients have been told so far.
#[derive(Debug)]
struct Told<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Told<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Told<T> {
    fn nothing() -> Self {
        Self(Arc::default())
    }

    fn add(&self, what: T) {
        self.0.lock().unwrap().push(what);
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    async fn until(&self, n: usize) {
        let wait = async {
            while self.count() < n {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("fewer than {n} answers came"));
    }
}

async fn killed(mut served: Served) {
    served.process.kill();
    assert_eq!(served.process.exit().await, Exit::Signal(9));
}

/// Starts the gateway again; says how long it took to be ready.
async fn started(place: &Place) -> (Served, Duration) {
    let begun = Instant::now();
    let served = place.serve().await;
    (served, begun.elapsed())
}

async fn logged_in(place: &Place, caller: &Caller, n: usize) -> Vec<Member> {
    let codes: Vec<String> = (0..n).map(|n| place.wechat.issue_code(None, &format!("user{n}"))).collect();
    join_all(codes.iter().map(|code| async { caller.login(code).await.expect("an answer") })).await
}

async fn no_login_is_lost(place: Place) {
    let place = Arc::new(place);
    let mut all = Vec::new();
    let (mut served, _) = started(&place).await;
    for round in 0..rounds(5) {
        let told = Told::nothing();
        let mut clients = JoinSet::new();
        let begun = Instant::now();
        for client in 0..16 {
            let (place, caller, told) = (Arc::clone(&place), served.caller(), told.clone());
            clients.spawn(async move {
                for n in 0.. {
                    let code = place.wechat.issue_code(None, &format!("user{client}-{n}-{round}"));
                    let Some(member) = caller.login(&code).await else { return };
                    told.add(member);
                }
            });
        }
        told.until(60).await;
        let rate = told.count() as f64 / begun.elapsed().as_secs_f64();
        killed(served).await;
        while clients.join_next().await.is_some() {}
        let answered = told.take();

        let (again, took) = started(&place).await;
        served = again;
        println!("round {round}: {} logins at {rate:.0}/s, ready again after {took:?}", answered.len());
        let caller = served.caller();
        let refreshed = join_all(answered.iter().map(|member| caller.refresh(member.refresh()))).await;
        for (member, answer) in answered.iter().zip(refreshed) {
            let answer = answer.expect("an answer");
            assert_eq!(answer.status, 200, "round {round}: the login of {} is lost: {}", member.id(), answer.body);
            assert_eq!(answer.json()["member_id"], member.id());
        }
        all.extend(answered);
    }
    // And those of the first rounds have outlived every later death.
    let caller = served.caller();
    let known = join_all(all.iter().map(|member| caller.get("/auth/me", member.token()))).await;
    assert!(known.iter().all(|answer| answer.as_ref().is_some_and(|answer| answer.status == 200)));
}

async fn old_or_new_token_works(place: Place) {
    let (mut served, _) = started(&place).await;
    for round in 0..rounds(3) {
        let caller = served.caller();
        let members = logged_in(&place, &caller, 60).await;
        let told = Told::nothing();
        let mut clients = JoinSet::new();
        for (n, member) in members.iter().cloned().enumerate() {
            let (caller, told) = (caller.clone(), told.clone());
            clients.spawn(async move {
                if let Some(answer) = caller.refresh(member.refresh()).await {
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    told.add((n, Member { answer: answer.json() }));
                }
            });
        }
        told.until(15).await;
        killed(served).await;
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        let answered = told.take();

        served = started(&place).await.0;
        let caller = served.caller();
        for (n, member) in members.iter().enumerate() {
            let shown = answered.iter().find(|(of, _)| *of == n).map_or(member, |(_, fresh)| fresh);
            let answer = caller.refresh(shown.refresh()).await.expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        println!("round {round}: {} of {} refreshes answered, none lost", answered.len(), members.len());
    }
}

async fn ended_stays_ended(place: Place) {
    let (mut served, _) = started(&place).await;
    for round in 0..rounds(3) {
        let caller = served.caller();
        let members = logged_in(&place, &caller, 60).await;
        let told = Told::nothing();
        let mut clients = JoinSet::new();
        for (n, member) in members.into_iter().enumerate() {
            let (caller, told) = (caller.clone(), told.clone());
            clients.spawn(async move {
                let by_refresh = json!({ "refresh_token": member.refresh() });
                let token = Some(member.token());
                let ended = match n % 3 {
                    0 => caller.ask(Method::POST, "/auth/logout", token, &Value::Null).await,
                    1 => caller.ask(Method::POST, "/auth/logout", None, &by_refresh).await,
                    _ => caller.ask(Method::DELETE, "/auth/me", token, &Value::Null).await,
                };
                if let Some(answer) = ended {
                    assert_eq!(answer.status, 204, "{}", answer.body);
                    told.add(member);
                }
            });
        }
        told.until(15).await;
        killed(served).await;
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }

        served = started(&place).await.0;
        let caller = served.caller();
        let answered = told.take();
        println!("round {round}: {} ends answered", answered.len());
        for member in answered {
            let proxied = caller.get("/api/x", member.token()).await.expect("an answer");
            assert_eq!((proxied.status, proxied.code().as_str()), (401, "token_revoked"));
            let refreshed = caller.refresh(member.refresh()).await.expect("an answer");
            assert_eq!((refreshed.status, refreshed.code().as_str()), (401, "token_revoked"));
        }
    }
    assert!(place.upstream.requests().is_empty());
}

/// Rounds of a test: as many as it says, or as somebody asks for who has the time.
#[expect(clippy::disallowed_methods, reason = "a test may be asked for more than it does by itself")]
pub(crate) fn rounds(usual: usize) -> usize {
    std::env::var("WXGATE_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Longer than the slowest machine takes to come back.
const GRACE: &str = "refresh_grace = \"10m\"";

/// Servers of a test's own; they outlive the gateway.
async fn on_servers(token: &str) -> (Place, (PostgresServer, RedisServers)) {
    let (members, sessions) = (PostgresServer::start(), RedisServers::single());
    (Place::with_stores(token, &members.url(), &sessions.url()).await, (members, sessions))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answered_login_is_lost_when_the_gateway_is_killed() {
    no_login_is_lost(Place::new("").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answered_login_is_lost_when_the_gateway_is_killed_with_redis_and_postgres() {
    let (place, _servers) = on_servers("").await;
    no_login_is_lost(place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_death_in_the_middle_of_a_refresh_the_old_token_or_the_new_one_works() {
    old_or_new_token_works(Place::new(GRACE).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_death_in_the_middle_of_a_refresh_the_old_token_or_the_new_one_works_with_redis_and_postgres() {
    let (place, _servers) = on_servers(GRACE).await;
    old_or_new_token_works(place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_as_ended_stays_ended() {
    ended_stays_ended(Place::new("").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_as_ended_stays_ended_with_redis_and_postgres() {
    let (place, _servers) = on_servers("").await;
    ended_stays_ended(place).await;
}

#[tokio::test]
async fn a_death_in_the_middle_of_the_first_start_does_not_stop_the_next() {
    let place = Place::new("").await;
    for _ in 0..5 {
        let mut process = crate::support::process::Process::wxgate_in(place.path(), &["serve"]);
        // As soon as there is a key directory: somewhere between the first key and the database.
        let begun = async {
            while !place.path().join("data/keys").exists() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, begun).await.expect("it starts");
        process.kill();
        process.exit().await;
    }
    let served = place.serve().await;
    let code = place.wechat.issue_code(None, "alice");
    served.caller().login(&code).await.expect("an answer");
}
