//! Clients that were written for the wafer2 SDK: their login and their token, where the option is on, and nowhere else.

use std::path::Path;

use serde_json::json;
use wxgate::config::{self, Environment};
use wxgate::ids::AppId;

use crate::support::gateway::{APPID, Answer, Gateway, OTHER_APP, OTHER_APPID, ROUTES};

const LOGIN: &str = "/wafer2/login";

async fn with_wafer2() -> Gateway {
    Gateway::with(&format!("[login]\nwafer2 = \"{LOGIN}\"\n{ROUTES}")).await
}

async fn get(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = gateway.client().get(gateway.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request.send().await.unwrap()).await
}

async fn skey(gateway: &Gateway, user: &str) -> String {
    let code = gateway.wechat.issue_code(None, user);
    let answer = get(gateway, LOGIN, &[("X-WX-Code", &code)]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["data"]["skey"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_old_client_logs_in_with_its_headers() {
    let gateway = with_wafer2().await;
    let code = gateway.wechat.issue_code(Some(&AppId::parse(APPID).unwrap()), "alice");
    let data = gateway.user_info("alice");
    let headers = [
        ("X-WX-Code", code.as_str()),
        ("X-WX-Encrypted-Data", data["encryptedData"].as_str().unwrap()),
        ("X-WX-IV", data["iv"].as_str().unwrap()),
    ];
    let answer = get(&gateway, LOGIN, &headers).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["code"]), (200, &json!(0)), "{}", answer.body);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let user = gateway.wechat.user("alice", &AppId::parse(APPID).unwrap());
    let info = &body["data"]["userinfo"];
    assert_eq!((&info["openId"], &info["nickName"]), (&json!(user.openid), &json!("alice")));
    assert_eq!(info["unionId"], json!(user.unionid));
    assert!(info["avatarUrl"].as_str().unwrap().starts_with("https://"));
    assert!(!answer.body.contains(user.session_key.unwrap().text()));
    // A lost answer can be asked for again, by POST too: the same session.
    let again = gateway.client().post(gateway.url(LOGIN)).header("X-WX-Code", &code).send().await.unwrap();
    assert_eq!(Answer::of(again).await.json()["data"]["userinfo"]["openId"], user.openid);
    assert_eq!(gateway.wechat.calls().count("/sns/jscode2session"), 1);
    assert!(!gateway.log.text().contains(&code));
}

#[tokio::test]
async fn a_skey_is_the_access_token_on_routes_and_endpoints() {
    let gateway = with_wafer2().await;
    let (alice, bob) = (skey(&gateway, "alice").await, skey(&gateway, "bob").await);
    let openid = gateway.wechat.user("alice", &AppId::parse(APPID).unwrap()).openid;
    let echoed = get(&gateway, "/api/x", &[("X-WX-Skey", &alice), ("X-WX-Openid", "oEvil")]).await;
    assert_eq!(echoed.status, 200, "{}", echoed.body);
    assert!(echoed.body.contains(&openid) && !echoed.body.contains("oEvil") && !echoed.body.contains(&alice));
    assert_eq!(get(&gateway, "/auth/me", &[("x-wx-skey", &alice)]).await.json()["member"]["openid"], openid);
    let (bearer, other) = (format!("Bearer {alice}"), format!("Bearer {bob}"));
    for (headers, status, code) in [
        (&[("X-WX-Skey", alice.as_str()), ("Authorization", bearer.as_str())][..], 200, ""),
        (&[("X-WX-Skey", &alice), ("Authorization", &other)], 400, "ambiguous_token"),
        (&[("X-WX-Skey", &alice), ("X-WX-Skey", &bob)], 400, "ambiguous_token"),
        (&[("X-WX-Skey", "nonsense")], 401, "token_invalid"),
        (&[("X_WX_SKEY", &alice)], 401, "token_missing"),
        (&[], 401, "token_missing"),
    ] {
        let answer = get(&gateway, "/api/x", headers).await;
        assert_eq!(answer.status, status, "{code}");
        assert!(status == 200 || answer.code() == code, "{code}");
    }
    // An upstream sees neither of them, on no kind of route.
    let public = get(&gateway, "/public/x", &[("X-WX-Skey", &alice), ("X-WX-Code", "c")]).await;
    assert!(!public.body.contains(&alice) && !public.body.to_lowercase().contains("x-wx-"), "{}", public.body);
    // A logout ends it.
    get(&gateway, "/auth/me", &[("X-WX-Skey", &alice)]).await;
    gateway.client().post(gateway.url("/auth/logout")).header("X-WX-Skey", &alice).send().await.unwrap();
    assert_eq!(get(&gateway, "/api/x", &[("X-WX-Skey", &alice)]).await.code(), "token_revoked");
}

#[tokio::test]
async fn without_the_option_nothing_of_it_is_there() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    assert_eq!(get(&gateway, LOGIN, &[("X-WX-Code", "demo-alice")]).await.code(), "route_not_found");
    assert_eq!(get(&gateway, "/api/x", &[("X-WX-Skey", alice.token())]).await.code(), "token_missing");
    let both = [("X-WX-Skey", "other"), ("Authorization", &*format!("Bearer {}", alice.token()))];
    assert_eq!(get(&gateway, "/api/x", &both).await.status, 200);
}

#[tokio::test]
async fn a_login_that_is_none_is_a_problem() {
    let gateway = with_wafer2().await;
    let code = gateway.wechat.issue_code(None, "alice");
    for (headers, status, wanted) in [
        (&[][..], 400, "invalid_request"),
        (&[("X-WX-Code", "")], 400, "invalid_request"),
        (&[("X-WX-Code", &*code), ("X-WX-Code", &*code)], 400, "invalid_request"),
        (&[("X-WX-Code", &*code), ("X-WX-IV", "AAAA")], 400, "invalid_request"),
        (&[("X-WX-Code", "unknown")], 401, "code_invalid"),
    ] {
        let answer = get(&gateway, LOGIN, headers).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, wanted), "{headers:?}");
    }
    let put = gateway.client().put(gateway.url(LOGIN)).send().await.unwrap();
    assert_eq!(put.status(), 405);
}

#[tokio::test]
async fn with_several_apps_the_address_that_wechat_adds_says_which() {
    let gateway = Gateway::with(&format!("[login]\nwafer2 = \"{LOGIN}\"\n{OTHER_APP}{ROUTES}")).await;
    let page = |appid: &str| format!("https://servicewechat.com/{appid}/12/page-frame.html");
    let login = async |referer: Option<String>| {
        let code = gateway.wechat.issue_code(Some(&AppId::parse(OTHER_APPID).unwrap()), "alice");
        let mut headers = vec![("X-WX-Code", code.as_str())];
        headers.extend(referer.as_deref().map(|page| ("Referer", page)));
        get(&gateway, LOGIN, &headers).await
    };
    assert_eq!(login(Some(page(OTHER_APPID))).await.status, 200);
    assert_eq!(login(Some(page(APPID))).await.code(), "code_invalid");
    assert_eq!(login(Some(page("wxelsewhere"))).await.code(), "unknown_app");
    assert_eq!(login(None).await.code(), "invalid_request");
}

#[test]
fn its_path_is_nobody_elses() {
    let check = |path: &str| {
        let text = format!(
            "[token]\nissuer = \"https://a.example\"\n[login]\nwafer2 = \"{path}\"\n[[app]]\nappid = \"{APPID}\"\n\
             secret = \"s3cret-s3cret-s3cret\"\n[[upstream]]\nname = \"o\"\nservers = [\"http://127.0.0.1:1\"]\n\
             [[route]]\npath = \"/old/login\"\nupstream = \"o\"\n[[route]]\npath = \"/*\"\nupstream = \"o\"\n\
             [[static]]\npath = \"/a.txt\"\nbody = \"a\"\n"
        );
        config::parse(text, Path::new("gateway.toml"), &Environment::of([])).map(|config| config.login.wafer2)
    };
    assert_eq!(check(LOGIN).unwrap().as_deref(), Some(LOGIN));
    for path in
        ["/auth/wafer2", "/healthz", "/.well-known/x", "/openapi.json", "/old/login", "/a.txt", "/", "/a/*", "x"]
    {
        let faults = check(path).unwrap_err();
        let keys: Vec<_> = faults.faults.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, ["login.wafer2"], "{path}: {faults}");
    }
    assert!(check("/{x}").is_err() && check("/a:b").is_err());
}

#[tokio::test]
async fn its_logins_count_towards_the_limit_of_logins() {
    let limit = "limit = { by = \"ip\", rate = \"1/h\", burst = 2 }";
    let gateway = Gateway::with(&format!("[login]\nwafer2 = \"{LOGIN}\"\n{limit}\n{ROUTES}")).await;
    gateway.login("alice").await;
    skey(&gateway, "alice").await;
    let code = gateway.wechat.issue_code(None, "alice");
    let answer = get(&gateway, LOGIN, &[("X-WX-Code", &code)]).await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"));
}

#[tokio::test]
async fn forward_auth_reads_a_skey_where_the_option_is_on() {
    let service = "\n[[internal.service]]\nname = \"front\"\nfrom = [\"127.0.0.1/32\"]\n";
    for on in [true, false] {
        let login = if on { format!("[login]\nwafer2 = \"{LOGIN}\"\n") } else { String::new() };
        let gateway = Gateway::with(&format!("{login}{ROUTES}{service}")).await;
        let alice = gateway.login("alice").await;
        let verify = async |headers: &[(&str, &str)]| {
            let mut request = gateway.client().get(gateway.internal_url("/verify"));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = Answer::of(request.send().await.unwrap()).await;
            (answer.status, answer.headers.get("x-wx-openid").map(|openid| openid.to_str().unwrap().to_owned()))
        };
        let passed = (200, Some(alice.openid().to_owned()));
        let skey = ("x-wx-skey", alice.token());
        assert_eq!(verify(&[skey]).await, if on { passed.clone() } else { (401, None) });
        let bearer = format!("Bearer {}", alice.token());
        assert_eq!(verify(&[skey, ("authorization", &bearer)]).await, passed);
        let other = format!("{bearer}x");
        assert_eq!(verify(&[skey, ("authorization", &other)]).await, (if on { 400 } else { 401 }, None));
    }
}
