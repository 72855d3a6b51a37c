//! `/auth/me`: who am I, what am I called, forget me.

use http::Method;
use serde_json::{Value, json};

use crate::support::gateway::{APPID, Answer, Gateway, Member, OTHER_APPID, ROUTES};

async fn me(gateway: &Gateway, method: Method, token: Option<&str>, body: Option<&Value>) -> Answer {
    let mut request = gateway.client().request(method, gateway.url("/auth/me"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn a_member_reads_who_they_are_and_what_session_this_is() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let answer = gateway.get("/auth/me", Some(alice.token())).await;
    assert_eq!((answer.status, answer.headers["cache-control"].to_str().unwrap()), (200, "no-store"));
    let told = answer.json();
    assert_eq!(told["member"], alice.answer["member"]);
    assert_eq!(told["session"]["created_at"], "2026-11-21T00:00:00Z");
    assert_eq!(told["session"]["expires_at"], "2027-05-20T00:00:00Z");
    assert!(told["session"]["id"].as_str().is_some_and(|id| id.len() == 36));
}

#[tokio::test]
async fn nobody_else_is_told_anything() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let wrong = [(None, "token_missing"), (Some("x"), "token_invalid"), (Some(alice.refresh()), "token_invalid")];
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        for (token, code) in wrong {
            let answer = me(&gateway, method.clone(), token, Some(&json!({ "nickname": "Eve" }))).await;
            assert_eq!((answer.status, answer.code().as_str()), (401, code), "{method}");
        }
    }
    assert_eq!(gateway.get("/auth/me", Some(alice.token())).await.json()["member"]["nickname"], "");
}

#[tokio::test]
async fn a_member_chooses_name_and_picture_and_keeps_what_is_not_sent() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let put = async |body: Value| me(&gateway, Method::PUT, Some(alice.token()), Some(&body)).await;
    let named = put(json!({ "nickname": "爱丽丝 🐇", "unknown": [1] })).await;
    assert_eq!((named.status, &named.json()["nickname"]), (200, &json!("爱丽丝 🐇")));
    let pictured = put(json!({ "avatar_url": "https://wx.qlogo.cn/a/132" })).await.json();
    assert_eq!(pictured["nickname"], "爱丽丝 🐇");
    let nothing = put(json!({})).await.json();
    assert_eq!(nothing, pictured);
    let cleared = put(json!({ "nickname": "", "avatar_url": null })).await.json();
    assert_eq!((&cleared["nickname"], &cleared["avatar_url"]), (&json!(""), &json!("https://wx.qlogo.cn/a/132")));

    let gateway = gateway.restart(ROUTES).await;
    assert_eq!(gateway.get("/auth/me", Some(alice.token())).await.json()["member"], cleared);
}

#[tokio::test]
async fn what_cannot_be_a_name_or_a_picture_changes_nothing() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let wrong = [
        json!({ "nickname": "n".repeat(65) }),
        json!({ "nickname": "line\nbreak" }),
        json!({ "nickname": "nul\u{0}" }),
        json!({ "nickname": "escape\u{1b}[31m" }),
        json!({ "nickname": 7 }),
        json!({ "nickname": ["a"] }),
        json!({ "nickname": "good", "avatar_url": "javascript:alert(1)" }),
        json!({ "avatar_url": "data:text/html,x" }),
        json!({ "avatar_url": "//evil.example/x" }),
        json!({ "avatar_url": "https://" }),
        json!({ "avatar_url": format!("https://a/{}", "x".repeat(1024)) }),
        json!({ "avatar_url": {} }),
        json!(["good", ""]),
        json!("good"),
        Value::Null,
    ];
    for body in wrong {
        let answer = me(&gateway, Method::PUT, Some(alice.token()), Some(&body)).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{body}");
    }
    assert_eq!(me(&gateway, Method::PUT, Some(alice.token()), None).await.status, 400);
    assert_eq!(gateway.get("/auth/me", Some(alice.token())).await.json()["member"], alice.answer["member"]);
    let longest = json!({ "nickname": "微".repeat(64) });
    assert_eq!(me(&gateway, Method::PUT, Some(alice.token()), Some(&longest)).await.status, 200);
}

#[tokio::test]
async fn what_a_member_is_not_free_to_choose_is_ignored() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    let grab = json!({ "member_id": "x", "openid": "x", "roles": ["admin"], "phone": "1", "appid": "x" });
    let answer = me(&gateway, Method::PUT, Some(alice.token()), Some(&grab)).await;
    assert_eq!((answer.status, &answer.json()), (200, &alice.answer["member"]));
}

#[tokio::test]
async fn who_asks_to_be_forgotten_is_gone_on_every_device_and_comes_back_as_somebody_new() {
    let gateway = Gateway::start().await;
    let code = gateway.wechat.issue_code(None, "alice");
    let login = gateway.post("/auth/login", &json!({ "code": code })).await;
    let (phone, tablet, bob) =
        (Member { answer: login.json() }, gateway.login("alice").await, gateway.login("bob").await);
    let named = json!({ "nickname": "Alice", "avatar_url": "https://a/b" });
    assert_eq!(me(&gateway, Method::PUT, Some(phone.token()), Some(&named)).await.status, 200);
    let erased = me(&gateway, Method::DELETE, Some(phone.token()), None).await;
    assert_eq!((erased.status, erased.body.as_str()), (204, ""));

    let gone = |gateway: Gateway| async {
        for device in [&phone, &tablet] {
            assert_eq!(gateway.get("/api/x", Some(device.token())).await.code(), "token_revoked");
            assert_eq!(gateway.get("/auth/me", Some(device.token())).await.code(), "token_revoked");
            let refresh = gateway.post("/auth/refresh", &json!({ "refresh_token": device.refresh() })).await;
            assert_eq!(refresh.code(), "token_revoked");
        }
        let repeated = gateway.post("/auth/login", &json!({ "code": code })).await;
        assert_eq!(repeated.code(), "code_used");
        assert_eq!(gateway.get("/auth/me", Some(bob.token())).await.status, 200);
        gateway
    };
    let gateway = gone(gateway).await;
    let gateway = gone(gateway.restart(ROUTES).await).await;

    let back = gateway.login("alice").await;
    assert_eq!(back.answer["is_new"], true);
    assert_ne!(back.id(), phone.id());
    assert_eq!((&back.answer["member"]["nickname"], back.openid()), (&json!(""), phone.openid()));
}

#[tokio::test]
async fn a_request_to_be_forgotten_that_failed_can_be_repeated() {
    let gateway = Gateway::start().await;
    let (phone, tablet) = (gateway.login("alice").await, gateway.login("alice").await);
    gateway.meddle("CREATE TRIGGER fault BEFORE DELETE ON members BEGIN SELECT raise(FAIL, 'planned'); END");
    let failed = me(&gateway, Method::DELETE, Some(phone.token()), None).await;
    assert_eq!((failed.status, failed.code().as_str()), (500, "internal"));
    assert_eq!(gateway.get("/api/x", Some(tablet.token())).await.code(), "token_revoked");
    gateway.meddle("DROP TRIGGER fault");
    assert_eq!(me(&gateway, Method::DELETE, Some(phone.token()), None).await.status, 204);
    assert_eq!(gateway.get("/api/x", Some(phone.token())).await.code(), "token_revoked");
}

#[tokio::test]
async fn a_login_that_was_written_while_its_member_was_erased_goes_with_them() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.meddle(
        "CREATE TRIGGER race AFTER DELETE ON members BEGIN
            INSERT INTO sessions (session_id, member_id, appid, openid, created_at, expires_at)
            VALUES ('late', old.member_id, old.appid, old.openid, 0, 9000000000000000);
            INSERT INTO session_keys (appid, openid, newest, newest_at) VALUES (old.appid, old.openid, x'00', 0);
         END",
    );
    assert_eq!(me(&gateway, Method::DELETE, Some(alice.token()), None).await.status, 204);
    assert_nobody(&gateway, alice.openid()).await;
}

#[tokio::test]
async fn a_first_login_in_another_app_while_the_member_is_erased_goes_with_them() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    // As one that is merged by unionid: behind the question who they are, and before they are gone.
    gateway.meddle(&format!(
        "CREATE TRIGGER race AFTER DELETE ON session_keys WHEN old.appid = '{APPID}' BEGIN
            INSERT INTO members (member_id, appid, openid, created_at, last_login_at, alias_of)
            SELECT 'alias', '{OTHER_APPID}', 'oOther-alice', 0, 0, member_id FROM members WHERE openid = old.openid;
            INSERT INTO sessions (session_id, member_id, appid, openid, created_at, expires_at)
            SELECT 'late', member_id, '{OTHER_APPID}', 'oOther-alice', 0, 9000000000000000 FROM members WHERE openid = old.openid;
            INSERT INTO session_keys (appid, openid, newest, newest_at) VALUES ('{OTHER_APPID}', 'oOther-alice', x'00', 0);
         END"
    ));
    assert_eq!(me(&gateway, Method::DELETE, Some(alice.token()), None).await.status, 204);
    let db = rusqlite::Connection::open(gateway.dir.path().join("wxgate.db")).unwrap();
    let count =
        |what: &str| db.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("sessions WHERE session_id = 'late' AND ended = 1"), 1, "it was written, and has ended");
    assert_eq!((count("sessions WHERE ended = 0"), count("session_keys"), count("members")), (0, 0, 0));
}

#[tokio::test]
async fn a_login_whose_member_was_erased_under_way_leaves_nothing() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    // Who has roles is signed in first, and gets a session in another transaction; so does everybody where members and sessions
    // are in different stores.
    gateway.change(&alice, json!({ "roles": ["vip"] })).await;
    gateway.meddle(
        "CREATE TRIGGER race AFTER INSERT ON sessions BEGIN
            DELETE FROM members WHERE member_id = new.member_id;
            UPDATE sessions SET ended = 1, openid = NULL WHERE member_id = new.member_id AND session_id <> new.session_id;
            DELETE FROM session_keys;
         END",
    );
    let login =
        async || gateway.post("/auth/login", &json!({ "code": gateway.wechat.issue_code(None, "alice") })).await;
    let refused = login().await;
    assert_eq!((refused.status, refused.code().as_str()), (401, "token_revoked"));
    assert_nobody(&gateway, alice.openid()).await;
    gateway.meddle("DROP TRIGGER race");
    let back = login().await;
    assert_eq!((back.status, &back.json()["is_new"]), (200, &json!(true)));

    gateway.change(&gateway.login("alice").await, json!({ "roles": ["vip"] })).await;
    gateway.meddle("CREATE TRIGGER race AFTER INSERT ON sessions BEGIN UPDATE members SET banned = 1; END");
    let banned = login().await;
    assert_eq!(banned.code(), "member_banned");
}

#[tokio::test]
async fn a_key_of_a_member_who_was_erased_under_way_is_not_kept() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.meddle("CREATE TRIGGER race AFTER INSERT ON session_keys BEGIN DELETE FROM members; END");
    let code = gateway.wechat.issue_code(None, "alice");
    let mut body = gateway.user_info("alice");
    body["login_code"] = json!(code);
    let answer = gateway.post_as(&alice, "/auth/profile", &body).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "token_revoked"));
    assert_eq!(keys_of(&gateway, alice.openid()).await, 0);
}

/// How many session_keys are kept of a person.
async fn keys_of(gateway: &Gateway, openid: &str) -> usize {
    let appid = wxgate::ids::AppId::parse(APPID).unwrap();
    let openid = wxgate::ids::OpenId::parse(openid).unwrap();
    gateway.inner().kept().sessions.session_keys(&appid, &openid).await.unwrap().len()
}

/// No live session and no key of this person is left.
async fn assert_nobody(gateway: &Gateway, openid: &str) {
    assert_eq!(keys_of(gateway, openid).await, 0);
    let db = rusqlite::Connection::open(gateway.dir.path().join("wxgate.db")).unwrap();
    let live = db.query_row("SELECT count(*) FROM sessions WHERE openid = ?1", [openid], |row| row.get::<_, i64>(0));
    assert_eq!(live.unwrap(), 0);
}

#[tokio::test]
async fn nothing_of_the_person_is_left_in_the_database() {
    let gateway = Gateway::start().await;
    let bob = gateway.login("bob").await;
    let alice = gateway.login("alice").await;
    let named = json!({ "nickname": "Alice-of-the-database" });
    assert_eq!(me(&gateway, Method::PUT, Some(alice.token()), Some(&named)).await.status, 200);
    assert_eq!(me(&gateway, Method::DELETE, Some(alice.token()), None).await.status, 204);
    let store = gateway.inner().kept().sessions.clone();
    let (appid, openid) =
        (wxgate::ids::AppId::parse(APPID).unwrap(), wxgate::ids::OpenId::parse(alice.openid()).unwrap());
    assert!(store.session_keys(&appid, &openid).await.unwrap().is_empty());
    drop(store);
    let dir = gateway.end().await;
    let file = std::fs::read(dir.path().join("wxgate.db")).unwrap();
    let holds = |text: &str| file.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds(bob.openid()));
    for left in [alice.openid(), alice.answer["unionid"].as_str().unwrap(), "Alice-of-the-database"] {
        assert!(!holds(left), "{left}");
    }
}
