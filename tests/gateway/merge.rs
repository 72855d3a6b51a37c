//! `[login] merge_by_unionid`: one member for all who have one unionid, across apps and kinds of apps.

use serde_json::json;
use wxgate::ids::AppId;

use crate::support::gateway::{APPID, Gateway, Member, OTHER_APP, OTHER_APPID, ROUTES};
use crate::web;

fn tables() -> String {
    format!("{ROUTES}{OTHER_APP}\n[login]\nmerge_by_unionid = true\n")
}

async fn in_app(gateway: &Gateway, appid: &str, user: &str) -> Member {
    let appid = AppId::parse(appid).unwrap();
    let code = gateway.wechat.issue_code(Some(&appid), user);
    let answer = gateway.post("/auth/login", &json!({ "appid": appid, "code": code })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    Member { answer: answer.json() }
}

async fn seen(gateway: &Gateway, member: &Member) -> [String; 3] {
    assert_eq!(gateway.get("/api/x", Some(member.token())).await.status, 200);
    let request = gateway.upstream.requests().pop().unwrap();
    ["x-wxgate-member", "x-wx-openid", "x-wx-appid"].map(|name| request.all(name).join("|"))
}

#[tokio::test]
async fn one_person_in_two_apps_is_one_member_with_an_openid_for_each() {
    let gateway = Gateway::with(&tables()).await;
    let (here, there) = (in_app(&gateway, APPID, "alice").await, in_app(&gateway, OTHER_APPID, "alice").await);
    assert_eq!(here.answer["is_new"], true);
    assert_eq!((&there.answer["is_new"], there.id()), (&json!(false), here.id()));
    assert_ne!(there.openid(), here.openid());
    assert_eq!(there.answer["member"]["openid"], there.openid(), "the token's own");
    assert_eq!(there.answer["member"]["appid"], OTHER_APPID);
    for member in [&here, &there] {
        let appid = member.answer["appid"].as_str().unwrap();
        assert_eq!(seen(&gateway, member).await, [here.id(), member.openid(), appid]);
        let refreshed = gateway.refresh(member).await.json();
        assert_eq!(refreshed["member"]["openid"], member.openid());
    }
    let bob = in_app(&gateway, APPID, "bob").await;
    assert_ne!(bob.id(), here.id());
}

#[tokio::test]
async fn without_it_they_are_two_members() {
    let gateway = Gateway::with(&format!("{ROUTES}{OTHER_APP}")).await;
    let (here, there) = (in_app(&gateway, APPID, "alice").await, in_app(&gateway, OTHER_APPID, "alice").await);
    assert_ne!(here.id(), there.id());
}

#[tokio::test]
async fn who_was_two_members_before_becomes_one_with_the_ban_and_the_roles_of_both() {
    let gateway = Gateway::with(&format!("{ROUTES}{OTHER_APP}")).await;
    let older = in_app(&gateway, APPID, "alice").await;
    let newer = in_app(&gateway, OTHER_APPID, "alice").await;
    gateway.change(&older, json!({ "roles": ["admin"] })).await;
    gateway.change(&newer, json!({ "roles": ["vip"] })).await;
    let gateway = gateway.restart(&tables()).await;
    let again = in_app(&gateway, OTHER_APPID, "alice").await;
    assert_eq!(again.id(), older.id(), "the older one survives");
    assert_eq!(again.answer["member"]["roles"], json!(["admin", "vip"]));
    let shown = gateway.shown(&format!("/api/members/{}", newer.id())).await;
    assert_eq!((&shown["member_id"], shown["identities"].as_array().unwrap().len()), (&json!(older.id()), 2));
    // The session of before the merge carries the alias, and is the member's all the same.
    assert_eq!(gateway.get("/auth/me", Some(newer.token())).await.json()["member"]["member_id"], older.id());
    gateway.change(&older, json!({ "banned": true })).await;
    for member in [&older, &newer, &again] {
        assert_eq!(gateway.get("/api/x", Some(member.token())).await.status, 401);
    }
}

#[tokio::test]
async fn a_merge_with_a_banned_member_ends_the_sessions_of_the_other() {
    let gateway = Gateway::with(&format!("{ROUTES}{OTHER_APP}")).await;
    let older = in_app(&gateway, APPID, "alice").await;
    let newer = in_app(&gateway, OTHER_APPID, "alice").await;
    gateway.change(&newer, json!({ "banned": true, "reason": "spam" })).await;
    let gateway = gateway.restart(&tables()).await;
    assert_eq!(gateway.get("/api/x", Some(older.token())).await.status, 200);
    let appid = AppId::parse(APPID).unwrap();
    let code = gateway.wechat.issue_code(Some(&appid), "alice");
    let answer = gateway.post("/auth/login", &json!({ "appid": appid, "code": code })).await;
    assert_eq!(answer.code(), "member_banned");
    assert_eq!(gateway.get("/api/x", Some(older.token())).await.status, 401);
}

/// A login that fails because of a fault of the store at this place, which is gone afterwards.
async fn fails(gateway: &Gateway, appid: &str, table: &str) {
    let sql = format!("CREATE TRIGGER fault BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'a fault'); END");
    gateway.meddle(&sql);
    let code = gateway.wechat.issue_code(Some(&AppId::parse(appid).unwrap()), "alice");
    assert_eq!(gateway.post("/auth/login", &json!({ "appid": appid, "code": code })).await.status, 500);
    gateway.meddle("DROP TRIGGER fault");
}

#[tokio::test]
async fn what_could_not_be_told_of_a_merge_is_told_at_the_next_login() {
    let gateway = Gateway::with(&format!("{ROUTES}{OTHER_APP}")).await;
    let older = in_app(&gateway, APPID, "alice").await;
    let newer = in_app(&gateway, OTHER_APPID, "alice").await;
    gateway.change(&older, json!({ "roles": ["admin"] })).await;
    let gateway = gateway.restart(&tables()).await;
    fails(&gateway, OTHER_APPID, "role_changes").await;
    let again = in_app(&gateway, OTHER_APPID, "alice").await;
    assert_eq!(again.id(), older.id(), "they were merged");
    assert_eq!(gateway.get("/api/x", Some(newer.token())).await.status, 200);
    let request = gateway.upstream.requests().pop().unwrap();
    assert_eq!(request.all("x-wxgate-roles"), ["admin"], "the token of before the merge");
}

#[tokio::test]
async fn a_ban_that_came_with_a_merge_ends_sessions_also_after_a_fault() {
    let gateway = Gateway::with(&format!("{ROUTES}{OTHER_APP}")).await;
    let older = in_app(&gateway, APPID, "alice").await;
    let newer = in_app(&gateway, OTHER_APPID, "alice").await;
    gateway.change(&newer, json!({ "banned": true })).await;
    let gateway = gateway.restart(&tables()).await;
    fails(&gateway, APPID, "epochs").await;
    let code = gateway.wechat.issue_code(Some(&AppId::parse(APPID).unwrap()), "alice");
    let answer = gateway.post("/auth/login", &json!({ "appid": APPID, "code": code })).await;
    assert_eq!(answer.code(), "member_banned");
    // Not by this instance's memory alone.
    let gateway = gateway.restart(&tables()).await;
    assert_eq!(gateway.get("/api/x", Some(older.token())).await.code(), "token_revoked");
}

#[tokio::test]
async fn thirty_logins_at_once_in_two_apps_are_one_member() {
    let gateway = Gateway::with(&tables()).await;
    let logins = (0..30).map(|n| in_app(&gateway, if n % 2 == 0 { APPID } else { OTHER_APPID }, "alice"));
    let members = futures_util::future::join_all(logins).await;
    let ids: std::collections::HashSet<_> = members.iter().map(|member| member.id().to_owned()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(members.iter().filter(|member| member.answer["is_new"] == true).count(), 1);
}

#[tokio::test]
async fn a_login_of_a_page_is_the_same_member_as_one_of_a_mini_program() {
    let gateway = web::gateway("snsapi_userinfo").await;
    let page = web::log_in(&gateway, APPID, "alice").await;
    let site = web::log_in(&gateway, OTHER_APPID, "alice").await;
    assert_ne!(page.id(), site.id());
    gateway.rewrite(|text| format!("{text}\n[login]\nmerge_by_unionid = true\n")).await;
    let site = web::log_in(&gateway, OTHER_APPID, "alice").await;
    assert_eq!(site.id(), page.id());
}

#[tokio::test]
async fn who_erases_himself_is_gone_in_every_app() {
    let gateway = Gateway::with(&tables()).await;
    let (here, there) = (in_app(&gateway, APPID, "alice").await, in_app(&gateway, OTHER_APPID, "alice").await);
    let erase = gateway.client().delete(gateway.url("/auth/me")).bearer_auth(there.token()).send().await.unwrap();
    assert_eq!(erase.status(), 204);
    for member in [&here, &there] {
        assert_eq!(gateway.get("/api/x", Some(member.token())).await.status, 401);
    }
    let back = in_app(&gateway, APPID, "alice").await;
    assert!(back.answer["is_new"] == true && back.id() != here.id());
}
