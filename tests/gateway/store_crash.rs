//! `kill -9` of a store alone, under load, while the gateway lives: what was answered is there when the store is back.

use std::sync::{Arc, Mutex};

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::crash::rounds;
use crate::support::DEADLINE;
use crate::support::gateway::{Answer, Gateway, Member, ROUTES};
use crate::support::postgres::PostgresServer;
use crate::support::redis::RedisServers;

/// Clients at once.
const CLIENTS: usize = 16;

async fn log_in(gateway: &Gateway, user: &str) -> Answer {
    let code = gateway.wechat.issue_code(None, user);
    gateway.post("/auth/login", &json!({ "code": code })).await
}

/// A good answer, or `None` where the store was away. Nothing else may come.
fn good(answer: Answer, status: u16) -> Option<Answer> {
    let is_away = answer.status == 503 && answer.code() == "store_unavailable";
    assert!(is_away || answer.status == status, "{} {}", answer.status, answer.body);
    (!is_away).then_some(answer)
}

/// Has clients live one life after the other, kills the store in the middle of it, and returns what each had been told when the
/// store is back and logins work again.
async fn told_when_killed<T: Send + 'static, F: Future<Output = (Option<T>, bool)> + Send + 'static>(
    gateway: &Arc<Gateway>,
    life: impl Fn(Arc<Gateway>, String) -> F + Send + Clone + 'static,
    round: usize,
    kill: impl FnOnce(),
    run: impl FnOnce(),
) -> Vec<T> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (gateway, life, told) = (Arc::clone(gateway), life.clone(), Arc::clone(&told));
        clients.spawn(async move {
            for n in 0.. {
                let (known, goes_on) = life(Arc::clone(&gateway), format!("user{round}-{client}-{n}")).await;
                told.lock().unwrap().extend(known);
                if !goes_on {
                    return;
                }
            }
        });
    }
    let wait = async {
        while told.lock().unwrap().len() < 2 * CLIENTS {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, wait).await.expect("answers come");
    tokio::task::block_in_place(kill);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    tokio::task::block_in_place(run);
    let back = async {
        while good(log_in(gateway, "somebody").await, 200).is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, back).await.expect("logins work again");
    std::mem::take(&mut told.lock().unwrap())
}

/// What somebody knows of their session.
enum Session {
    Open(Member),
    Ended(Member),
}

/// Login, refresh, and every other time the end.
async fn session(gateway: Arc<Gateway>, user: String) -> (Option<Session>, bool) {
    let Some(answer) = good(log_in(&gateway, &user).await, 200) else { return (None, false) };
    let member = Member { answer: answer.json() };
    let Some(answer) = good(gateway.refresh(&member).await, 200) else { return (Some(Session::Open(member)), false) };
    let member = Member { answer: answer.json() };
    if user.ends_with(['0', '2', '4', '6', '8']) {
        return (Some(Session::Open(member)), true);
    }
    // Without an answer nothing is known.
    let Some(_) = good(gateway.post_as(&member, "/auth/logout", &json!({})).await, 204) else { return (None, false) };
    (Some(Session::Ended(member)), true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answered_login_refresh_or_logout_is_lost_when_redis_is_killed() {
    let mut servers = RedisServers::single();
    let gateway = Gateway::with(&format!("store.sessions = \"{}\"\n{ROUTES}", servers.url())).await;
    let gateway = Arc::new(gateway);
    for round in 0..rounds(3) {
        let server = Mutex::new(&mut servers.servers[0]);
        let (kill, run) = (|| server.lock().unwrap().kill(), || server.lock().unwrap().run());
        let told = told_when_killed(&gateway, session, round, kill, run).await;
        let ended = told.iter().filter(|session| matches!(session, Session::Ended(_))).count();
        println!("round {round}: {} sessions answered, {ended} of them ended, none lost", told.len());
        for session in told {
            match session {
                // The last token that was answered; where the answer to a refresh was lost, it is in its grace.
                Session::Open(member) => {
                    let answer = gateway.refresh(&member).await;
                    assert_eq!(answer.status, 200, "round {round}: {}", answer.body);
                }
                Session::Ended(member) => {
                    let proxied = gateway.get("/api/x", Some(member.token())).await;
                    let refreshed = gateway.refresh(&member).await;
                    let codes = (proxied.code(), refreshed.code());
                    assert_eq!(codes, ("token_revoked".to_owned(), "token_revoked".to_owned()), "round {round}");
                }
            }
        }
    }
}

/// What somebody, or an operator, knows of a member.
struct Known {
    user: String,
    member: Member,
    /// `None` where the answer was lost.
    nickname: Option<String>,
    banned: bool,
}

/// Registration, a profile, and every other time a ban.
async fn member(gateway: Arc<Gateway>, user: String) -> (Option<Known>, bool) {
    let Some(answer) = good(log_in(&gateway, &user).await, 200) else { return (None, false) };
    let mut known = Known { user, member: Member { answer: answer.json() }, nickname: None, banned: false };
    let nickname = format!("{} 昵称", known.user);
    let me = gateway.client().put(gateway.url("/auth/me")).bearer_auth(known.member.token());
    let answer = Answer::of(me.json(&json!({ "nickname": nickname })).send().await.unwrap()).await;
    let Some(_) = good(answer, 200) else { return (Some(known), false) };
    known.nickname = Some(nickname);
    if known.user.ends_with(['0', '2', '4', '6', '8']) {
        return (Some(known), true);
    }
    let path = format!("/api/members/{}", known.member.id());
    let Some(_) = good(gateway.admin(Method::PUT, &path, Some(json!({ "banned": true }))).await, 200) else {
        return (None, false);
    };
    known.banned = true;
    (Some(known), true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answered_registration_profile_or_ban_is_lost_when_postgres_is_killed() {
    let server = Mutex::new(PostgresServer::start());
    let url = server.lock().unwrap().url();
    let gateway = Arc::new(Gateway::with(&format!("store.members = \"{url}\"\n{ROUTES}")).await);
    for round in 0..rounds(3) {
        let (kill, run) = (|| server.lock().unwrap().kill(), || server.lock().unwrap().run());
        let told = told_when_killed(&gateway, member, round, kill, run).await;
        let banned = told.iter().filter(|known| known.banned).count();
        println!("round {round}: {} members answered, {banned} of them banned, none lost", told.len());
        for known in told {
            let again = log_in(&gateway, &known.user).await;
            if known.banned {
                assert_eq!(again.code(), "member_banned", "round {round}: {}", again.body);
                continue;
            }
            assert_eq!(again.status, 200, "round {round}: {}", again.body);
            let again = again.json();
            let same = (&again["member_id"], &again["is_new"]);
            assert_eq!(same, (&Value::from(known.member.id()), &Value::from(false)), "round {round}");
            if let Some(nickname) = known.nickname {
                assert_eq!(again["member"]["nickname"], nickname, "round {round}");
            }
        }
    }
}
