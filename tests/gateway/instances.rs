//! Several gateways on one Redis: what one does is in force on all.

use std::sync::LazyLock;

use futures_util::future::join_all;
use serde_json::json;

use crate::push::{TOKEN, signed};
use crate::support::DEADLINE;
use crate::support::cable::Cable;
use crate::support::gateway::{APPID, Answer, Gateway, Member, ROUTES, START};
use crate::support::postgres::PostgresServer;
use crate::support::redis::{RedisServers, cli};
use crate::support::upstream::{After, Upstream};

static MEMBERS: LazyLock<PostgresServer> = LazyLock::new(PostgresServer::start);
static ONE: LazyLock<RedisServers> = LazyLock::new(RedisServers::single);
static CLUSTER: LazyLock<RedisServers> = LazyLock::new(RedisServers::cluster);

/// Sessions in Redis under a prefix of the test's own.
fn sessions(url: &str) -> String {
    format!("store.sessions = \"{url}?prefix={}\"\n", uuid::Uuid::now_v7().simple())
}

fn members() -> String {
    format!("store.members = \"{}\"\n", MEMBERS.url_of_new_schema(&format!("s{}", uuid::Uuid::now_v7().simple())))
}

/// Two gateways that share Redis, Postgres, keys and WeChat. The first is to outlive the second.
async fn two(top: &str, tables: &str) -> (Gateway, Gateway) {
    let text = format!("{}{top}{tables}", members());
    let first = Gateway::with(&text).await;
    let second = first.beside(&text).await;
    (first, second)
}

async fn get(gateway: &Gateway, member: &Member) -> Answer {
    gateway.get("/api/x", Some(member.token())).await
}

/// Waits until the gateway refuses this member's token so.
async fn until_refused(gateway: &Gateway, member: &Member, code: &str) -> Answer {
    let wait = async {
        loop {
            let answer = get(gateway, member).await;
            if answer.status != 200 && answer.code() == code {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("never refused with {code}"))
}

async fn until_accepted(gateway: &Gateway, member: &Member) {
    let wait = async {
        while get(gateway, member).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("never accepted");
}

async fn logout(gateway: &Gateway, member: &Member) {
    let request = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(member.token());
    assert_eq!(request.send().await.unwrap().status(), 204);
}

async fn a_life_on_both(url: &str) {
    let (first, second) = two(&sessions(url), ROUTES).await;
    let member = first.login("alice").await;
    assert_eq!(get(&second, &member).await.status, 200);
    let again = second.post("/auth/refresh", &json!({ "refresh_token": member.refresh() })).await;
    let again = Member { answer: again.json() };
    assert_eq!(again.session(), member.session());
    assert_eq!(get(&first, &again).await.status, 200);
    let begun = std::time::Instant::now();
    logout(&second, &again).await;
    until_refused(&first, &member, "token_revoked").await;
    println!("a logout was in force on the other instance after {:?}", begun.elapsed());
    assert_eq!(get(&second, &again).await.code(), "token_revoked");
    let over = first.post("/auth/refresh", &json!({ "refresh_token": again.refresh() })).await;
    assert_eq!(over.code(), "token_revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lives_on_two_instances_and_its_end_is_in_force_on_both() {
    a_life_on_both(&ONE.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_does_on_a_cluster() {
    a_life_on_both(&CLUSTER.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_code_that_races_at_two_instances_is_exchanged_once() {
    let (first, second) = two(&sessions(&ONE.url()), ROUTES).await;
    let code = first.wechat.issue_code(None, "alice");
    let body = json!({ "code": code });
    let logins = (0..30).map(|n| if n % 2 == 0 { &first } else { &second }).map(|g| g.post("/auth/login", &body));
    let answers = join_all(logins).await;
    let sessions: std::collections::HashSet<String> = answers
        .into_iter()
        .map(|answer| {
            assert_eq!(answer.status, 200, "{}", answer.body);
            Member { answer: answer.json() }.session()
        })
        .collect();
    assert_eq!(sessions.len(), 1);
    assert_eq!(first.wechat.calls().count("/sns/jscode2session"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_refresh_token_that_races_at_two_instances_yields_one_successor() {
    let (first, second) = two(&sessions(&ONE.url()), ROUTES).await;
    let member = first.login("alice").await;
    let body = json!({ "refresh_token": member.refresh() });
    let uses = (0..30).map(|n| if n % 2 == 0 { &first } else { &second }).map(|g| g.post("/auth/refresh", &body));
    let successors: std::collections::HashSet<String> = join_all(uses)
        .await
        .into_iter()
        .map(|answer| {
            assert_eq!(answer.status, 200, "{}", answer.body);
            answer.json()["refresh_token"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(successors.len(), 1);
}

/// What the service behind the gateway is told of the member's roles.
async fn roles(gateway: &Gateway, member: &Member) -> String {
    assert_eq!(get(gateway, member).await.status, 200);
    gateway.upstream.requests().last().unwrap().all("x-wxgate-roles").join("|")
}

async fn until_roles(gateway: &Gateway, member: &Member, wanted: &str) {
    let wait = async {
        while roles(gateway, member).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("the roles were never {wanted:?}"));
}

/// How far the clocks of two instances may lie apart without a token being refused for it.
const SKEW: std::time::Duration = std::time::Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_change_of_roles_that_comes_last_counts_whatever_the_clocks_say() {
    let (first, second) = two(&sessions(&ONE.url()), ROUTES).await;
    let alice = first.login("alice").await;
    second.clock.advance(SKEW);
    second.change(&alice, json!({ "roles": ["admin"] })).await;
    until_roles(&first, &alice, "admin").await;
    // This one's clock is behind.
    first.change(&alice, json!({ "roles": [] })).await;
    assert_eq!(roles(&first, &alice).await, "");
    until_roles(&second, &alice, "").await;
    assert_eq!(roles(&first, &alice).await, "", "and it stays so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kick_spares_no_session_that_was_opened_where_the_clock_is_ahead() {
    let (first, second) = two(&sessions(&ONE.url()), ROUTES).await;
    second.clock.advance(SKEW);
    let code = first.wechat.issue_code(None, "alice");
    let alice = Member { answer: second.post("/auth/login", &json!({ "code": code })).await.json() };
    assert_eq!(get(&first, &alice).await.status, 200);
    assert_eq!(first.revoke(json!({ "member": alice.id() })).await, 1);
    assert_eq!(get(&first, &alice).await.code(), "token_revoked");
    until_refused(&second, &alice, "token_revoked").await;
    assert_eq!(second.refresh(&alice).await.code(), "token_revoked");
    let later = first.login("alice").await;
    assert_eq!((get(&first, &later).await.status, get(&second, &later).await.status), (200, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_signs_at_once_is_known_everywhere_before_it_signs() {
    let tables = format!("{}{ROUTES}", sessions(&ONE.url()));
    let first = Gateway::with(&tables).await;
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(first.dir.path().join("keys"), dir.path().join("keys")).unwrap();
    let second = Gateway::in_dir(dir, &tables).await;
    let kid = |member: &Member| jsonwebtoken::decode_header(member.token()).unwrap().kid;
    let before = first.login("alice").await;
    first.inner().rotate_keys(true).await.unwrap();
    assert_eq!(kid(&first.login("alice").await), kid(&before), "the others have not seen it yet");
    let seen = async {
        while second.get("/.well-known/jwks.json", None).await.json()["keys"].as_array().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, seen).await.expect("the other instance never looked");
    let lead = wxgate::token::rotation::LEAD_AT_ONCE + std::time::Duration::from_secs(1);
    first.clock.advance(lead);
    first.inner().tend_keys().await.unwrap();
    let after = first.login("alice").await;
    assert_ne!(kid(&after), kid(&before));
    assert_eq!(get(&second, &after).await.status, 200, "with its first request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_was_cut_off_catches_up() {
    let cable = Cable::to(ONE.servers[0].port).await;
    let prefix = uuid::Uuid::now_v7().simple().to_string();
    let members = members();
    let at = |port: u16| format!("{members}store.sessions = \"redis://127.0.0.1:{port}?prefix={prefix}\"\n{ROUTES}");
    let first = Gateway::with(&at(ONE.servers[0].port)).await;
    let second = first.beside(&at(cable.port())).await;
    let (alice, bob) = (first.login("alice").await, first.login("bob").await);
    assert_eq!((get(&second, &alice).await.status, get(&second, &bob).await.status), (200, 200));
    cable.cut();
    logout(&first, &alice).await;
    assert_eq!(second.post("/auth/login", &json!({ "code": "x" })).await.code(), "store_unavailable");
    assert_eq!(get(&second, &alice).await.status, 200, "it cannot know");
    cable.mend();
    until_refused(&second, &alice, "token_revoked").await;
    assert_eq!(get(&second, &bob).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_cut_off_for_too_long_refuses_and_goes_on_afterwards() {
    let cable = Cable::to(ONE.servers[0].port).await;
    let url = format!("redis://127.0.0.1:{}", cable.port());
    let gateway = Gateway::with(&format!("{}token.max_staleness = \"5m\"\n{ROUTES}", sessions(&url))).await;
    let member = gateway.login("alice").await;
    cable.cut();
    gateway.clock.advance(std::time::Duration::from_secs(299));
    assert_eq!(get(&gateway, &member).await.status, 200);
    gateway.clock.advance(std::time::Duration::from_secs(2));
    let refused = until_refused(&gateway, &member, "store_unavailable").await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(gateway.get("/public/x", None).await.status, 200, "what asks nobody goes on");
    cable.mend();
    until_accepted(&gateway, &member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_has_lost_everything_ends_what_was_before_also_after_a_restart() {
    let servers = RedisServers::single();
    let tables = format!("store.sessions = \"{}\"\n{ROUTES}", servers.url());
    let gateway = Gateway::with(&tables).await;
    let before = gateway.login("alice").await;
    gateway.clock.advance(std::time::Duration::from_secs(1));
    cli(servers.servers[0].port, &["flushall"]);
    until_refused(&gateway, &before, "token_revoked").await;
    gateway.clock.advance(std::time::Duration::from_secs(1));
    let after = gateway.login("alice").await;
    assert_eq!(get(&gateway, &after).await.status, 200);
    let gateway = gateway.restart(&tables).await;
    assert_eq!(get(&gateway, &before).await.code(), "token_revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_spares_nobody_who_logged_in_where_the_clock_is_ahead_and_stops_nobody_where_it_is_behind() {
    let servers = RedisServers::single();
    let tables = format!("{}store.sessions = \"{}\"\n{ROUTES}", members(), servers.url());
    let first = Gateway::with(&tables).await;
    // One folder of keys, which both have.
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(first.dir.path().join("keys"), dir.path().join("keys")).unwrap();
    let second = Gateway::in_dir(dir, &tables).await;
    second.clock.advance(wxgate::clock::MAX_SKEW);
    let before = second.login("alice").await;
    assert_eq!((get(&first, &before).await.status, get(&second, &before).await.status), (200, 200));
    first.clock.advance(std::time::Duration::from_millis(1));
    second.clock.advance(std::time::Duration::from_millis(1));
    cli(servers.servers[0].port, &["flushall"]);
    for gateway in [&first, &second] {
        until_refused(gateway, &before, "token_revoked").await;
    }
    for gateway in [&first, &second] {
        let after = gateway.login("alice").await;
        assert_eq!((get(&first, &after).await.status, get(&second, &after).await.status), (200, 200));
        assert_eq!(first.refresh(&after).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_pushed_to_two_instances_is_delivered_once() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let service = Upstream::scripted([(answer.to_owned(), After::Close)]).await;
    let app = format!("app.push = {{ token = \"{TOKEN}\", upstream = \"push\", path = \"/wechat/push\" }}\n");
    let upstream = format!("[[upstream]]\nname = \"push\"\nservers = [\"http://{}\"]\n", service.address());
    let (first, second) = two(&format!("{}{app}", sessions(&ONE.url())), &format!("{ROUTES}{upstream}")).await;
    let body = json!({ "FromUserName": "oPerson", "CreateTime": START, "MsgType": "text", "MsgId": 7 }).to_string();
    for (gateway, nonce) in [(&first, "1"), (&second, "1"), (&second, "2"), (&first, "2")] {
        let url = gateway.url(&format!("/auth/push/{APPID}{}", signed(START, nonce, None)));
        let answer = Answer::of(gateway.client().post(url).body(body.clone()).send().await.unwrap()).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "success"));
    }
    assert_eq!(service.requests().len(), 1);
}
