//! `/api/members`, `/api/sessions` and what else the admin listener shows.

use http::Method;
use serde_json::{Value, json};

use crate::support::gateway::{APPID, Gateway, ROUTES, SECRET};

async fn ids(gateway: &Gateway, query: &str) -> Vec<String> {
    let page = gateway.shown(&format!("/api/members?{query}")).await;
    page["members"].as_array().unwrap().iter().map(|m| m["openid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn members_are_listed_page_by_page_and_found_by_what_is_known_of_them() {
    let gateway = Gateway::start().await;
    let mut people = Vec::new();
    for n in 0..5 {
        people.push(gateway.login(&format!("user{n}")).await);
    }
    people.reverse();
    let openids: Vec<_> = people.iter().map(|member| member.openid().to_owned()).collect();
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = gateway.shown(&format!("/api/members?limit=2&after={after}")).await;
        all.extend(page["members"].as_array().unwrap().iter().map(|m| m["openid"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(all, openids, "newest first");

    let alice = &people[0];
    gateway.change(alice, json!({ "nickname": "爱丽丝 & co", "roles": ["vip"], "banned": true })).await;
    let own = [alice.openid().to_owned()];
    let nickname = percent_encoding::utf8_percent_encode("爱丽丝 &", percent_encoding::NON_ALPHANUMERIC);
    let unionid = alice.answer["unionid"].as_str().unwrap();
    for query in [
        format!("openid={}", alice.openid()),
        format!("unionid={unionid}"),
        format!("nickname={nickname}"),
        "role=vip".to_owned(),
        "banned=true".to_owned(),
    ] {
        assert_eq!(ids(&gateway, &query).await, own, "{query}");
    }
    assert_eq!(ids(&gateway, &format!("app={APPID}")).await.len(), 5);
    for bad in ["role=vip&app=wx1", "limit=0", "rolle=vip", "after=x", "banned=no", "role=a&role=b"] {
        let answer = gateway.admin(Method::GET, &format!("/api/members?{bad}"), None).await;
        assert_eq!(answer.code(), "invalid_request", "{bad}");
    }
}

#[tokio::test]
async fn a_phone_number_is_masked_but_in_an_export_that_asks_for_it() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.meddle("UPDATE members SET phone = '13812345678'");
    let shown = gateway.shown(&format!("/api/members/{}", alice.id())).await;
    assert_eq!((&shown["phone"], &shown["sessions"]), (&json!("138****5678"), &json!(1)));
    assert_eq!(ids(&gateway, "phone=13812345678").await, [alice.openid()]);
    assert_eq!(gateway.shown("/api/members").await["members"][0]["phone"], "138****5678");
    for (query, phone) in [("", "138****5678"), ("?show=phone", "13812345678")] {
        let export = gateway.admin(Method::GET, &format!("/api/members/export{query}"), None).await;
        assert_eq!(export.headers["content-type"], "application/x-ndjson");
        let line: Value = serde_json::from_str(export.body.trim()).unwrap();
        assert_eq!((&line["phone"], &line["member_id"]), (&json!(phone), &json!(alice.id())));
    }
    let actions: Vec<_> = gateway.audit().iter().map(|line| line["action"].as_str().unwrap().to_owned()).collect();
    assert_eq!(actions, ["members.export", "members.export", "members.export-phones", "members.export-phones"]);
    assert!(!gateway.log.text().contains("13812345678"));
}

#[tokio::test]
async fn an_export_has_every_member_once_also_when_there_are_many() {
    let gateway = Gateway::start().await;
    gateway.meddle(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 1233)
         INSERT INTO members (member_id, appid, openid, created_at, last_login_at)
         SELECT printf('member-%05d', i), 'wx0123456789abcdef', printf('o%05d', i), 1, 1 FROM n",
    );
    let export = gateway.admin(Method::GET, "/api/members/export", None).await;
    let ids: std::collections::HashSet<_> = export.body.lines().map(|line| line.to_owned()).collect();
    assert_eq!((ids.len(), export.body.lines().count()), (1234, 1234));
    assert!(export.body.ends_with('\n'));
    let counted = gateway.shown("/api/stats").await;
    assert_eq!((&counted["members"], &counted["members_is_exact"]), (&json!(1234), &json!(true)));
}

#[tokio::test]
async fn sessions_are_listed_by_member_and_by_app() {
    let gateway = Gateway::start().await;
    let (phone, tablet, bob) = (gateway.login("alice").await, gateway.login("alice").await, gateway.login("bob").await);
    let page = gateway.shown(&format!("/api/sessions?member={}", phone.id())).await;
    let listed: std::collections::HashSet<_> =
        page["sessions"].as_array().unwrap().iter().map(|s| s["session_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(listed, std::collections::HashSet::from([phone.session(), tablet.session()]));
    assert_eq!((&page["count"], &page["count_is_exact"]), (&json!(2), &json!(true)));
    let first = gateway.shown(&format!("/api/sessions?app={APPID}&limit=2")).await;
    let next = first["next"].as_str().unwrap();
    let second = gateway.shown(&format!("/api/sessions?app={APPID}&limit=2&after={next}")).await;
    assert_eq!((first["sessions"].as_array().unwrap().len(), second["sessions"].as_array().unwrap().len()), (2, 1));
    let _ = bob;
    for bad in ["", "member=x&app=y", "app=wx1&limit=9999"] {
        assert_eq!(gateway.admin(Method::GET, &format!("/api/sessions?{bad}"), None).await.code(), "invalid_request");
    }
    for bad in [json!({}), json!({ "session": "a", "app": "b" }), json!({ "member": "nobody" }), json!({ "ap": "x" })] {
        let answer = gateway.admin(Method::POST, "/api/sessions/revoke", Some(bad)).await;
        assert_eq!(answer.code(), "invalid_request");
    }
}

#[tokio::test]
async fn every_change_is_written_down_with_who_and_what_and_no_raw_openid() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    gateway.change(&alice, json!({ "roles": ["vip"] })).await;
    gateway.change(&alice, json!({ "banned": true, "reason": "spam" })).await;
    gateway.revoke(json!({ "app": APPID })).await;
    gateway.admin(Method::DELETE, &format!("/api/members/{}", alice.id()), None).await;
    let lines = gateway.audit();
    let told: Vec<_> =
        lines.iter().map(|line| (line["action"].as_str().unwrap(), line["outcome"].as_str().unwrap())).collect();
    let twice = |action| [(action, "begun"), (action, "done")];
    let actions = ["members.set-roles", "members.ban", "sessions.revoke-app", "members.erase"];
    assert_eq!(told, actions.map(twice).concat());
    assert_eq!(lines[0]["about"], json!({ "roles": ["vip"] }));
    assert_eq!(lines[4]["about"], json!({ "app": APPID }));
    assert!(lines[0]["person"].is_string() && lines[0]["person"] == lines[2]["person"]);
    let text = serde_json::to_string(&lines).unwrap();
    assert!(!text.contains(alice.openid()), "{text}");
}

#[tokio::test]
async fn the_configuration_is_shown_without_secrets_and_upstreams_with_their_servers() {
    let gateway = Gateway::start().await;
    let shown = gateway.shown("/api/config").await;
    assert_eq!(shown["config"]["app"][0]["appid"], APPID);
    assert_eq!(shown["config"]["route"].as_array().unwrap().len(), 3);
    assert!(!shown.to_string().contains(SECRET) && shown["config"]["app"][0]["secret"] == "(hidden)");
    gateway.rewrite(|text| text.replace("/public/*", "/other/*")).await;
    let shown = gateway.shown("/api/config").await;
    assert_eq!((&shown["generation"], &shown["config"]["route"][2]["path"]), (&json!(2), &json!("/other/*")));
    let upstreams = gateway.shown("/api/upstreams").await;
    let server = &upstreams["upstreams"][0]["servers"][0];
    assert_eq!((&upstreams["upstreams"][0]["name"], &server["up"]), (&json!("echo"), &json!(true)));
    assert_eq!(server["server"], gateway.upstream.address().to_string());
}

#[tokio::test]
async fn nothing_of_it_is_for_whoever_has_no_admin_token() {
    let gateway = Gateway::with(ROUTES).await;
    let alice = gateway.login("alice").await;
    let token = gateway.admin_token();
    for path in
        ["/api/members", "/api/members/export", "/api/sessions?app=x", "/api/config", "/api/stats", "/api/upstreams"]
    {
        let url = gateway.admin_url(path);
        for (bearer, origin, status) in [
            (None, None, 401),
            (Some(alice.token()), None, 401),
            (Some(token.as_str()), Some("http://evil.example"), 403),
        ] {
            let mut request = gateway.client().get(&url);
            if let Some(bearer) = bearer {
                request = request.bearer_auth(bearer);
            }
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            assert_eq!(request.send().await.unwrap().status(), status, "{path}");
        }
        assert_eq!(gateway.get(path, Some(&token)).await.status, 401, "it opens nothing on the public listener");
    }
}
