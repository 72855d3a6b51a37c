//! `[login] hook`: the business service has a say in who logs in.

use serde_json::{Value, json};

use crate::support::gateway::{Answer, Gateway, Member, ROUTES, claims};
use crate::support::upstream::{After, Upstream};

/// One answer of the hook.
fn says(status: u16, body: &str) -> (String, After) {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n");
    (format!("{head}Connection: close\r\n\r\n{body}"), After::Close)
}

async fn asking(hook: &Upstream, more: &str) -> Gateway {
    let routes = format!("{ROUTES}\n[[route]]\npath = \"/staff/*\"\nupstream = \"echo\"\nroles = [\"vip\"]\n");
    Gateway::with(&format!("{routes}\n[login]\nhook = {{ url = \"{}/login\"{more} }}\n", hook.url())).await
}

async fn log_in(gateway: &Gateway, user: &str) -> Answer {
    let code = gateway.wechat.issue_code(None, user);
    gateway.post("/auth/login", &json!({ "code": code })).await
}

async fn seen(gateway: &Gateway, member: &Member, header: &str) -> Vec<String> {
    assert_eq!(gateway.get("/api/x", Some(member.token())).await.status, 200);
    gateway.upstream.requests().pop().unwrap().all(header).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_hook_is_told_who_it_is_and_gives_roles_claims_and_an_id_of_its_own() {
    let answer = r#"{"roles":["vip"],"claims":{"tier":"gold"},"user_id":"u-17"}"#;
    let hook = Upstream::scripted([says(200, answer), says(200, answer)]).await;
    let gateway = asking(&hook, "").await;
    let alice = gateway.login("alice").await;
    let asked = hook.requests().pop().unwrap();
    assert!(asked.request_line.starts_with("POST /login "), "{}", asked.request_line);
    let question: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(
        question,
        json!({
            "appid": alice.answer["appid"], "openid": alice.openid(), "unionid": alice.answer["unionid"],
            "member_id": alice.id(), "is_new": true,
        })
    );
    assert_eq!(alice.answer["member"]["roles"], json!(["vip"]));
    let said = claims(alice.token());
    assert_eq!((&said["tier"], &said["user_id"], &said["roles"]), (&json!("gold"), &json!("u-17"), &json!(["vip"])));
    assert_eq!(said["sub"], alice.id());
    assert_eq!(seen(&gateway, &alice, "x-wxgate-user").await, ["u-17"]);
    assert_eq!(seen(&gateway, &alice, "x-wxgate-roles").await, ["vip"]);
    assert_eq!(gateway.get("/staff/x", Some(alice.token())).await.status, 200);

    let refreshed = Member { answer: gateway.refresh(&alice).await.json() };
    assert_eq!(claims(refreshed.token())["tier"], "gold", "a refresh says the same and asks nobody");
    assert_eq!(hook.requests().len(), 1);
    gateway.login("alice").await;
    let question: Value = serde_json::from_str(&hook.requests().pop().unwrap().body).unwrap();
    assert_eq!(question["is_new"], false);
}

#[tokio::test]
async fn roles_of_the_hook_stand_beside_those_of_operators_and_go_when_it_says_so() {
    let hook = Upstream::scripted([says(200, r#"{"roles":["vip"]}"#), says(200, "{}")]).await;
    let gateway = asking(&hook, "").await;
    let first = gateway.login("alice").await;
    let shown = gateway.change(&first, json!({ "roles": ["ops"] })).await;
    assert_eq!(shown["roles"], json!(["ops", "vip"]));
    let second = gateway.login("alice").await;
    assert_eq!(second.answer["member"]["roles"], json!(["ops"]));
    assert_eq!(seen(&gateway, &first, "x-wxgate-roles").await, ["ops"], "in the older token, too");
}

#[tokio::test]
async fn roles_that_the_hook_took_are_gone_also_when_that_could_not_be_told_at_first() {
    let hook = Upstream::scripted([says(200, r#"{"roles":["vip"]}"#), says(200, "{}"), says(200, "{}")]).await;
    let gateway = asking(&hook, "").await;
    let older = gateway.login("alice").await;
    assert_eq!(seen(&gateway, &older, "x-wxgate-roles").await, ["vip"]);
    gateway.meddle("CREATE TRIGGER fault BEFORE INSERT ON role_changes BEGIN SELECT RAISE(ABORT, 'a fault'); END");
    assert_eq!(log_in(&gateway, "alice").await.status, 500);
    gateway.meddle("DROP TRIGGER fault");
    let again = gateway.login("alice").await;
    assert_eq!(again.answer["member"]["roles"], json!([]));
    assert!(seen(&gateway, &older, "x-wxgate-roles").await.is_empty(), "in the older token, too");
}

#[tokio::test]
async fn a_refusal_reaches_the_client_with_its_message_and_opens_no_session() {
    let hook = Upstream::scripted([says(403, r#"{"message":"仅限会员"}"#), says(403, "")]).await;
    let gateway = asking(&hook, ", on_failure = \"allow\"").await;
    let answer = log_in(&gateway, "alice").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "login_refused"));
    assert_eq!(answer.json()["detail"], "仅限会员");
    let answer = log_in(&gateway, "bob").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "login_refused"));
    let members = gateway.shown("/api/members").await;
    for member in members["members"].as_array().unwrap() {
        let id = member["member_id"].as_str().unwrap();
        assert_eq!(gateway.shown(&format!("/api/sessions?member={id}")).await["count"], 0);
    }
}

#[tokio::test]
async fn a_hook_that_fails_refuses_unless_it_may_be_done_without() {
    let bad = || {
        [
            says(500, "{}"),
            says(200, "[]"),
            says(200, r#"{"claims":{"sub":"admin"}}"#),
            says(200, r#"{"roles":["a,b"]}"#),
            says(302, "{}"),
            (String::new(), After::Close),
        ]
    };
    let refusing = Upstream::scripted(bad()).await;
    let gateway = asking(&refusing, "").await;
    for (n, code) in ["upstream_failed"; 5].into_iter().chain(["upstream_unavailable"]).enumerate() {
        let answer = log_in(&gateway, "alice").await;
        assert_eq!(answer.code(), code, "answer {n}");
        assert!(!answer.body.contains("hook") && !answer.body.contains("127.0.0.1"), "{}", answer.body);
    }
    let allowing = Upstream::scripted(bad()).await;
    let gateway = asking(&allowing, ", on_failure = \"allow\"").await;
    for _ in 0..6 {
        let alice = gateway.login("alice").await;
        assert!(claims(alice.token()).get("roles").is_none());
    }
}

#[tokio::test]
async fn a_hook_that_does_not_answer_costs_its_deadline_and_after_ten_faults_it_is_left_alone() {
    let silent = Upstream::scripted((0..12).map(|_| (String::new(), After::KeepOpen))).await;
    let gateway = asking(&silent, ", timeout = \"50ms\"").await;
    for _ in 0..10 {
        let answer = log_in(&gateway, "alice").await;
        assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"));
    }
    let asked = silent.connections();
    let answer = log_in(&gateway, "alice").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "upstream_unavailable"));
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(silent.connections(), asked, "it was not asked");
    assert_eq!(gateway.metric("wxgate_login_hook_total{outcome=\"skipped\"}").await, 1.);
}

#[tokio::test]
async fn a_banned_member_is_refused_before_the_hook_is_asked() {
    let hook = Upstream::scripted([says(200, "{}")]).await;
    let gateway = asking(&hook, "").await;
    let alice = gateway.login("alice").await;
    gateway.change(&alice, json!({ "banned": true })).await;
    assert_eq!(log_in(&gateway, "alice").await.code(), "member_banned");
    assert_eq!(hook.requests().len(), 1);
}

#[tokio::test]
async fn a_client_cannot_say_who_it_is_to_the_service() {
    let hook = Upstream::scripted([says(200, "{}")]).await;
    let gateway = asking(&hook, "").await;
    let alice = gateway.login("alice").await;
    let request = gateway.client().get(gateway.url("/api/x")).bearer_auth(alice.token());
    request.header("X-Wxgate-User", "forged").header("x_wxgate_user", "forged").send().await.unwrap();
    let seen = gateway.upstream.requests().pop().unwrap();
    assert!(!seen.headers.iter().any(|(_, value)| value == "forged"));
}
