//! `format = "opaque"` on several instances, and while the store is away.

use http::Method;
use serde_json::json;

use crate::opaque::form;
use crate::support::DEADLINE;
use crate::support::gateway::{Answer, Gateway, Member, ROUTES};
use crate::support::postgres::PostgresServer;
use crate::support::redis::RedisServers;

async fn api(gateway: &Gateway, member: &Member) -> Answer {
    gateway.get("/api/x", Some(member.token())).await
}

async fn until(gateway: &Gateway, member: &Member, status: u16) -> Answer {
    let wait = async {
        loop {
            let answer = api(gateway, member).await;
            if answer.status == status {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("never {status}"))
}

/// Two instances on one Redis and one Postgres, whose access tokens are handles.
struct Two {
    first: Gateway,
    second: Gateway,
    _stores: (RedisServers, PostgresServer),
}

impl Two {
    async fn start() -> Self {
        let (redis, postgres) = (RedisServers::single(), PostgresServer::start());
        let members = postgres.url_of_new_schema("members");
        let top =
            format!("token.format = \"opaque\"\nstore.sessions = \"{}\"\nstore.members = \"{members}\"\n", redis.url());
        let text = format!("{top}{ROUTES}");
        let first = Gateway::with(&text).await;
        let second = first.beside(&text).await;
        Self { first, second, _stores: (redis, postgres) }
    }
}

fn assert_away(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (503, "store_unavailable"), "{}", answer.body);
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_of_one_instance_is_good_on_the_other_and_ends_on_both() {
    let Two { first, second, _stores } = Two::start().await;
    let (alice, bob) = (first.login("alice").await, first.login("bob").await);
    assert_eq!((api(&first, &alice).await.status, api(&second, &alice).await.status), (200, 200));
    let next = second.post("/auth/refresh", &json!({ "refresh_token": alice.refresh() })).await;
    let next = Member { answer: next.json() };
    assert_eq!((api(&first, &next).await.status, api(&second, &next).await.status), (200, 200));

    // Ended on one: known there at once, on the other within a second, also where it was read before.
    let request = second.client().post(second.url("/auth/logout")).bearer_auth(next.token());
    assert_eq!(request.send().await.unwrap().status(), 204);
    assert_eq!(api(&second, &next).await.code(), "token_revoked");
    for member in [&alice, &next] {
        assert_eq!(until(&first, member, 401).await.code(), "token_revoked");
    }

    // Roles that are changed on one are in force on the other, for handles that were read before.
    assert_eq!(api(&second, &bob).await.status, 200);
    first.change(&bob, json!({ "roles": ["vip"] })).await;
    let wait = async {
        loop {
            assert_eq!(api(&second, &bob).await.status, 200);
            if second.upstream.requests().last().unwrap().all("x-wxgate-roles") == ["vip"] {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("the roles never arrived");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_broke_off_on_one_instance_is_finished_on_the_other() {
    let Two { first, second, _stores } = Two::start().await;
    let (alice, bob) = (first.login("alice").await, first.login("bob").await);
    // As far as it got: the member is gone, the caller's own session is there so that the caller can ask again.
    let id = wxgate::ids::MemberId::parse(alice.id()).unwrap();
    assert_eq!(first.inner().kept().members.erase(&id).await.unwrap().len(), 1);
    let refused = second.get("/auth/me", Some(alice.token())).await;
    assert_eq!(refused.code(), "token_revoked", "it is good for nothing else");
    let erase = async |member: &Member| {
        let request = second.client().delete(second.url("/auth/me")).bearer_auth(member.token());
        Answer::of(request.send().await.unwrap()).await
    };
    let answer = erase(&alice).await;
    assert_eq!(answer.status, 204, "{}", answer.body);
    assert_eq!(second.refresh(&alice).await.code(), "token_revoked");
    assert_eq!(until(&first, &alice, 401).await.code(), "token_revoked");
    assert_eq!(erase(&alice).await.code(), "token_revoked", "now it is done");
    // Neither a banned member nor one who is logged out gets in this way.
    second.change(&bob, json!({ "banned": true })).await;
    assert_eq!(erase(&bob).await.code(), "token_revoked");
    let kept = second.inner().kept().members.find(&wxgate::ids::MemberId::parse(bob.id()).unwrap()).await.unwrap();
    assert!(kept.is_some(), "the ban is not forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_those_that_were_read_go_on_and_the_others_are_503() {
    let mut redis = RedisServers::single();
    let service = "[[internal.service]]\nname = \"orders\"\ntoken = \"planted-service-token-77\"\n";
    let text = format!("token.format = \"opaque\"\nstore.sessions = \"{}\"\n{ROUTES}{service}", redis.url());
    let gateway = Gateway::with(&text).await;
    let (known, unknown, ended) =
        (gateway.login("alice").await, gateway.login("bob").await, gateway.login("carol").await);
    assert_eq!(api(&gateway, &known).await.status, 200);
    let request = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(ended.token());
    assert_eq!(request.send().await.unwrap().status(), 204);
    for _ in 0..2 {
        redis.servers[0].kill();
        assert_eq!(api(&gateway, &known).await.status, 200);
        assert_away(&api(&gateway, &unknown).await);
        assert_away(&gateway.get("/optional/x", Some(unknown.token())).await);
        assert_eq!(gateway.get("/public/x", Some(unknown.token())).await.status, 200, "nobody reads it there");
        assert_eq!(api(&gateway, &ended).await.code(), "token_revoked", "that is known without the store");
        let forged = format!("wxs_{}", "A".repeat(99));
        assert_eq!(gateway.get("/api/x", Some(&forged)).await.code(), "token_invalid");
        assert_away(&gateway.get("/auth/me", Some(unknown.token())).await);
        let request = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(unknown.token());
        assert_away(&Answer::of(request.send().await.unwrap()).await);
        let request =
            gateway.client().post(gateway.internal_url("/introspect")).bearer_auth("planted-service-token-77");
        assert_away(&Answer::of(form(request, unknown.token()).send().await.unwrap()).await);
        let inspected =
            gateway.admin(Method::POST, "/api/token/inspect", Some(json!({ "token": unknown.token() }))).await;
        assert_away(&inspected);
        redis.servers[0].run();
        // A failure is not remembered.
        let fresh = async {
            loop {
                let code = gateway.wechat.issue_code(None, "dave");
                let answer = gateway.post("/auth/login", &json!({ "code": code })).await;
                if answer.status == 200 {
                    return Member { answer: answer.json() };
                }
            }
        };
        let dave = tokio::time::timeout(DEADLINE, fresh).await.expect("logins never worked again");
        until(&gateway, &dave, 200).await;
    }
    until(&gateway, &unknown, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_holds_up_nobody_who_is_known() {
    let redis = RedisServers::single();
    let text = format!("token.format = \"opaque\"\nstore.sessions = \"{}\"\n{ROUTES}", redis.url());
    let gateway = Gateway::with(&text).await;
    let (known, unknown) = (gateway.login("alice").await, gateway.login("bob").await);
    assert_eq!(api(&gateway, &known).await.status, 200);
    redis.servers[0].freeze(true);
    let waiting = api(&gateway, &unknown);
    let others = async {
        for _ in 0..50 {
            assert_eq!(api(&gateway, &known).await.status, 200);
        }
    };
    // Whichever is done first: the others need not wait for the one that hangs.
    let (answer, ()) = tokio::join!(waiting, others);
    assert_away(&answer);
    redis.servers[0].freeze(false);
    until(&gateway, &unknown, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_on_a_server_that_is_away_are_503_too() {
    let mut postgres = PostgresServer::start();
    let text = format!("token.format = \"opaque\"\nstore.members = \"{}\"\n{ROUTES}", postgres.url());
    let gateway = Gateway::with(&text).await;
    let (known, unknown) = (gateway.login("alice").await, gateway.login("bob").await);
    assert_eq!(api(&gateway, &known).await.status, 200);
    postgres.kill();
    assert_away(&api(&gateway, &unknown).await);
    assert_eq!(api(&gateway, &known).await.status, 200);
    postgres.run();
    until(&gateway, &unknown, 200).await;
}
