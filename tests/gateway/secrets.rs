//! Nothing secret is ever said: not in logs of any level, not to operators, not in problems, not in `Debug`.

use http::Method;
use serde_json::{Value, json};
use wxgate::ids::AppId;
use wxgate::wechat::simulator::Fault;

use crate::support::gateway::{APPID, Gateway, SECRET};
use crate::support::place::Place;
use crate::support::process::Exit;
use crate::support::raw::Client;

const CODE2SESSION: &str = "/sns/jscode2session";
const KEY: &str = "tiihtNczf5v6AKRyjwEUhQ==";

/// What must not be seen, each with its name.
#[derive(Debug, Default)]
struct Planted(Vec<(String, String)>);

impl Planted {
    fn add(&mut self, name: &str, secret: &str) {
        assert!(secret.len() >= 8, "{name} is too short to be searched for");
        self.0.push((name.to_owned(), secret.to_owned()));
    }

    /// A whole token answer: its tokens, also the part that makes each worth something.
    fn add_tokens(&mut self, answer: &Value) {
        let access = answer["access_token"].as_str().unwrap();
        self.add("access token's signature", access.rsplit('.').next().unwrap());
        self.add("access token's claims", access.split('.').nth(1).unwrap());
        self.add("refresh token", answer["refresh_token"].as_str().unwrap());
        self.add("openid", answer["openid"].as_str().unwrap());
        self.add("unionid", answer["unionid"].as_str().unwrap());
    }

    #[track_caller]
    fn assert_absent(&self, place: &str, text: &str) {
        for (name, secret) in &self.0 {
            assert!(!text.contains(secret.as_str()), "{name} is in {place}: {text}");
        }
    }
}

#[tokio::test]
async fn a_day_of_logins_and_faults_leaves_no_secret_in_logs_metrics_or_problems() {
    let place = Place::new("").await;
    let mut served = place.serve_with(&[("WXGATE_LOG", "trace")]).await;
    let caller = served.caller();
    let mut planted = Planted::default();
    planted.add("app secret", SECRET);
    let mut problems = Vec::new();
    let appid = AppId::parse(APPID).unwrap();
    let code = |user: &str| place.wechat.issue_code(None, user);

    // A good day.
    let first_code = code("alice");
    planted.add("code", &first_code);
    let alice = caller.login(&first_code).await.unwrap();
    caller.login(&first_code).await.unwrap();
    planted.add_tokens(&alice.answer);
    let user = place.wechat.user("alice", &appid);
    planted.add("session_key", user.session_key.unwrap().text());
    planted.add("phone number", &user.phone_number);
    assert_eq!(caller.get("/api/x", alice.token()).await.unwrap().status, 200);
    assert_eq!(caller.get("/api/x", alice.token()).await.unwrap().status, 200);
    assert_eq!(caller.get("/auth/me", alice.token()).await.unwrap().status, 200);
    let name = json!({ "nickname": "Alice Liddell" });
    caller.ask(Method::PUT, "/auth/me", Some(alice.token()), &name).await.unwrap();
    let fresh = caller.refresh(alice.refresh()).await.unwrap().json();
    planted.add_tokens(&fresh);
    let later = caller.refresh(fresh["refresh_token"].as_str().unwrap()).await.unwrap().json();
    planted.add_tokens(&later);

    // A bad one.
    problems.push(caller.refresh(alice.refresh()).await.unwrap());
    problems.push(caller.get("/api/x", alice.token()).await.unwrap());
    problems.push(caller.get("/optional/x", &format!("{}x", alice.token())).await.unwrap());
    problems.push(caller.get(&format!("/nowhere?access_token={}", alice.token()), "x").await.unwrap());
    for wrong in [
        json!({ "code": [first_code] }),
        json!({ "code": first_code, "appid": first_code }),
        json!({ "refresh_token": [alice.refresh()] }),
    ] {
        for path in ["/auth/login", "/auth/refresh", "/auth/logout"] {
            problems.push(caller.ask(Method::POST, path, None, &wrong).await.unwrap());
        }
    }
    let errmsg = format!("invalid appsecret {SECRET} of {KEY} rid: 6f12ab34-0c1d2e3f-4a5b6c7d");
    let quoting = json!({ "errcode": 40125, "errmsg": errmsg });
    let half = json!({ "openid": 7, "session_key": KEY, "unionid": "planted-unionid-0001" });
    let faults = [
        Fault::Body(quoting.to_string().into_bytes()),
        Fault::Body(half.to_string().into_bytes()),
        Fault::Body(format!("<html>{KEY}</html>").into_bytes()),
        Fault::Redirect(format!("{}/?secret={SECRET}", place.wechat.api_base())),
        Fault::Status(500),
        Fault::Reset,
    ];
    planted.add("session_key of a bad answer", KEY);
    planted.add("unionid of a bad answer", "planted-unionid-0001");
    for fault in faults {
        place.wechat.fault(CODE2SESSION, 1, fault);
        let spent = code("bob");
        planted.add("code", &spent);
        let body = json!({ "code": spent });
        problems.push(caller.ask(Method::POST, &format!("/auth/login?code={spent}"), None, &body).await.unwrap());
    }
    let bob = caller.login(&code("bob")).await.unwrap();
    planted.add_tokens(&bob.answer);
    caller.ask(Method::DELETE, "/auth/me", Some(bob.token()), &Value::Null).await.unwrap();
    problems.push(caller.get("/auth/me", bob.token()).await.unwrap());
    for problem in &problems {
        assert!(problem.status >= 400, "{}", problem.body);
        planted.assert_absent("a problem", &problem.body);
    }

    // Somebody who wants to write into the log.
    let hostile = [
        "GET /api/%22%7D%7B%22message%22%3A%22forged%22 HTTP/1.1\r\nHost: a\r\nUser-Agent: \"}\r\n\r\n"
            .as_bytes()
            .to_vec(),
        b"GET /api/a\"},{\"message\":\"forged\" HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: \x1b[2J\x1b[31mforged\r\n\r\n".to_vec(),
        b"GET /\xe2\x80\xa8forged HTTP/1.1\r\nHost: a\r\nUser-Agent: \xff\xfe\r\n\r\n".to_vec(),
        b"GET /x%0d%0a{\"message\":\"forged\"} HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\"b\r\n\r\n".to_vec(),
        b"FORGED\"}\x0b /x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
    ];
    for bytes in hostile {
        let mut client = Client::connect(served.address()).await;
        client.send(bytes).await;
        client.finish().await;
        let _ = client.until_closed().await;
    }

    for page in ["/metrics", "/readyz", "/api/nothing"] {
        planted.assert_absent(page, &served.admin(page).await.body);
    }
    let keys = place.path().join("data/keys");
    planted.add("admin token", std::fs::read_to_string(keys.join("admin.token")).unwrap().trim());
    planted.add("sealing key", std::fs::read_to_string(keys.join("sealing.key")).unwrap().trim());
    let of_process = |name: &str| std::fs::read(format!("/proc/{}/{name}", served.process.id())).unwrap();
    let limits = String::from_utf8(of_process("limits")).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let [soft, hard] = [5, 6].map(|n| cores.split_whitespace().nth(n - 1).unwrap().parse::<u32>().unwrap());
    assert!(soft <= 1 && hard <= 1, "a crash would write all of them to disk: {cores}");
    let words = of_process("cmdline");
    planted.assert_absent("what everybody on the machine can read", &String::from_utf8_lossy(&words));
    served.process.terminate();
    assert_eq!(served.process.exit().await, Exit::Code(0));
    let output = served.process.output();
    assert!(output.stdout.is_empty(), "{:#?}", output.stdout);

    let mut requests = 0;
    for line in &output.stderr {
        planted.assert_absent("the log", line);
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_ne!(line["message"], "forged", "{line}");
        if line["message"] == "request" {
            requests += 1;
            assert!(!line["path"].as_str().unwrap().contains('?'), "{line}");
            let person = line.get("person").and_then(Value::as_str);
            assert!(person.is_none_or(|p| p.len() == 16 && p.bytes().all(|b| b.is_ascii_hexdigit())), "{line}");
        }
    }
    assert!(requests >= 35, "only {requests} requests are in the log");
    let levels: Vec<&str> = ["TRACE", "DEBUG", "INFO", "WARN"]
        .into_iter()
        .filter(|level| output.stderr.iter().any(|line| line.contains(&format!("\"level\":\"{level}\""))))
        .collect();
    assert!(levels.contains(&"TRACE") && levels.contains(&"WARN"), "the log was not at its most talkative: {levels:?}");
}

#[tokio::test]
async fn what_the_parts_say_of_themselves_holds_no_secret() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200);
    let mut planted = Planted::default();
    planted.add("app secret", SECRET);
    planted.add_tokens(&alice.answer);
    let user = gateway.wechat.user("alice", &AppId::parse(APPID).unwrap());
    planted.add("session_key", user.session_key.as_ref().unwrap().text());
    let appid = AppId::parse(APPID).unwrap();
    let openid = wxgate::ids::OpenId::parse(alice.openid()).unwrap();
    let session_keys = gateway.inner().kept().sessions.session_keys(&appid, &openid).await.unwrap();
    assert_eq!(session_keys.len(), 1);
    planted.assert_absent("what is stored of it", &String::from_utf8_lossy(&session_keys[0].sealed));
    let said = format!("{:?} {:#?} {:?}", gateway.inner(), gateway.inner().current().config, session_keys);
    assert!(said.contains(APPID), "it says something: {said}");
    planted.assert_absent("Debug", &said);
}

#[tokio::test]
async fn the_same_person_has_the_same_pseudonym_and_another_one_another() {
    let gateway = Gateway::start().await;
    let mut names = Vec::new();
    for (n, user) in ["alice", "alice", "bob"].into_iter().enumerate() {
        let member = gateway.login(user).await;
        gateway.get(&format!("/api/visit{n}"), Some(member.token())).await;
        let line = gateway.log.until_line(|line| line["path"] == format!("/api/visit{n}")).await;
        assert_eq!((&line["member"], &line["status"]), (&json!(member.id()), &json!(200)));
        names.push(line["person"].as_str().unwrap().to_owned());
    }
    assert_eq!(names[0], names[1]);
    assert_ne!(names[0], names[2]);
}
