//! Promise 4: what is one kind of token is no other, wherever it is shown (RFC 8725, section 3.12).

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::support::gateway::{APPID, Answer, Gateway};
use crate::web::Browser;

const SERVICE: &str = "planted-service-token-31";

const TABLES: &str = r#"
app.kind = "official-account"
app.origins = ["https://m.example.com"]

[[route]]
path = "/api/*"
upstream = "echo"
cookie = true
assertion = true

[[internal.service]]
name = "orders"
token = "planted-service-token-31"
"#;

/// What there is to show.
const KINDS: [&str; 9] = [
    "access token",
    "refresh token",
    "assertion",
    "ticket",
    "state",
    "cookie of a state",
    "id of a session",
    "token of a service",
    "token of the admin",
];

/// Where it can be shown, and what is good there.
const PLACES: [(&str, &[&str]); 11] = [
    ("a route", &["access token"]),
    ("the cookie of a route", &["access token"]),
    ("me", &["access token"]),
    ("verify", &["access token"]),
    ("introspection", &["access token", "refresh token"]),
    ("refresh", &["refresh token"]),
    ("login", &["ticket"]),
    ("the state of a callback", &["state"]),
    ("the cookie of a callback", &["cookie of a state"]),
    ("the services' listener", &["token of a service"]),
    ("the admin's listener", &["token of the admin"]),
];

/// A gateway, one of each kind that is good, and what else a callback needs.
struct Scene {
    gateway: Gateway,
    kinds: Vec<String>,
    browser: Browser,
    callback: String,
}

impl Scene {
    async fn new() -> Self {
        let gateway = Gateway::with(TABLES).await;
        gateway.wechat.browse_as("alice", false);
        let mut browser = Browser::default();
        let body = json!({ "ticket": browser.ticket(&gateway, APPID).await });
        let tokens = gateway.post("/auth/login", &body).await.json();
        let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
        let access = text("access_token");
        assert_eq!(gateway.get("/api/x", Some(&access)).await.status, 200);
        let assertion = gateway.upstream.requests()[0].all("x-wxgate-assertion")[0].to_owned();
        let ticket = browser.ticket(&gateway, APPID).await;
        // The way back from WeChat, with a code that is good.
        let mut browser = Browser::default();
        let callback = browser.consent(&gateway, APPID, "https://m.example.com/").await;
        let state = callback.split('&').chain(callback.split('?')).find_map(|part| part.strip_prefix("state="));
        let state = state.unwrap().split('&').next().unwrap().to_owned();
        let cookie = browser.cookies.values().next().unwrap().clone();
        let member = crate::support::gateway::Member { answer: tokens.clone() };
        let kinds = vec![
            access,
            text("refresh_token"),
            assertion,
            ticket,
            state,
            cookie,
            member.session(),
            SERVICE.to_owned(),
            gateway.admin_token(),
        ];
        Self { gateway, kinds, browser, callback }
    }

    fn of(&self, kind: &str) -> &str {
        &self.kinds[KINDS.iter().position(|known| *known == kind).unwrap()]
    }

    /// Whether `shown` is taken at this place.
    async fn takes(&self, place: &str, shown: &str) -> bool {
        let (gateway, client) = (&self.gateway, self.gateway.client());
        let request = match place {
            "a route" => client.get(gateway.url("/api/x")).bearer_auth(shown),
            "the cookie of a route" => {
                client.get(gateway.url("/api/x")).header("cookie", format!("__Host-wxgate-token={shown}"))
            }
            "me" => client.get(gateway.url("/auth/me")).bearer_auth(shown),
            "verify" => {
                let service = reqwest::header::HeaderValue::from_str(&basic("orders", SERVICE)).unwrap();
                let request = client.get(gateway.internal_url("/verify")).bearer_auth(shown);
                request.header("proxy-authorization", service)
            }
            "introspection" => {
                let request = client.post(gateway.internal_url("/introspect")).bearer_auth(SERVICE);
                form(request, shown)
            }
            "refresh" => client.post(gateway.url("/auth/refresh")).json(&json!({ "refresh_token": shown })),
            "login" => client.post(gateway.url("/auth/login")).json(&json!({ "ticket": shown })),
            "the state of a callback" | "the cookie of a callback" => {
                let mut browser = self.browser.clone();
                let path = match place {
                    "the state of a callback" => self.callback.replace(self.of("state"), shown),
                    _ => {
                        browser.cookies.values_mut().for_each(|value| shown.clone_into(value));
                        self.callback.clone()
                    }
                };
                return browser.get(gateway, &path, &[]).await.status == 302;
            }
            "the services' listener" => {
                let request = client.post(gateway.internal_url("/introspect")).bearer_auth(shown);
                form(request, self.of("access token"))
            }
            _ => client.get(gateway.admin_url("/api/keys")).bearer_auth(shown),
        };
        let answer = Answer::of(request.send().await.unwrap()).await;
        answer.status == 200 && (place != "introspection" || answer.json()["active"] == true)
    }
}

fn form(request: reqwest::RequestBuilder, token: &str) -> reqwest::RequestBuilder {
    let token = percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC);
    request.header("content-type", "application/x-www-form-urlencoded").body(format!("token={token}"))
}

fn basic(name: &str, token: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{token}")))
}

/// As it is, or with a part of another: cut at the dots, or anywhere.
fn spliced(first: &str, second: &str, parts: usize, at: usize) -> String {
    match parts {
        0 => first.to_owned(),
        1 | 2 => {
            let (head, tail): (Vec<&str>, Vec<&str>) = (first.split('.').collect(), second.split('.').collect());
            let tail = tail.into_iter().skip(parts);
            head.into_iter().take(parts).chain(tail).collect::<Vec<_>>().join(".")
        }
        3 => {
            let (cut, from) = (at % (first.len() + 1), at % (second.len() + 1));
            format!("{}{}", &first[..cut], &second[from..])
        }
        _ => format!("{first}.{second}"),
    }
}

#[test]
fn no_token_of_one_kind_is_good_as_another() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let scene = runtime.block_on(Scene::new());
    let before = scene.gateway.upstream.requests().len();
    for (place, good) in PLACES {
        for kind in KINDS.iter().filter(|kind| !good.contains(kind)) {
            assert!(!runtime.block_on(scene.takes(place, scene.of(kind))), "{kind} at {place}");
        }
    }
    // Nor is anything that is put together of two kinds.
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let shown = (0..PLACES.len(), 0..KINDS.len(), 0..KINDS.len(), 0..5_usize, any::<u16>());
    let result = runner.run(&shown, |(place, first, second, parts, at)| {
        let text = spliced(&scene.kinds[first], &scene.kinds[second], parts, at.into());
        let (place, good) = PLACES[place];
        // A splice may come out as what is good there.
        prop_assume!(!good.iter().any(|kind| scene.of(kind) == text) && !text.is_empty());
        let taken = runtime.block_on(scene.takes(place, &text));
        prop_assert!(!taken, "{} and {} at {place}, {parts} parts, {at}", KINDS[first], KINDS[second]);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    assert_eq!(scene.gateway.upstream.requests().len(), before, "nothing was forwarded");
    // What ends a session takes no other kind for it either.
    for kind in KINDS.iter().filter(|kind| !["access token", "refresh token"].contains(kind)) {
        let client = scene.gateway.client();
        let revoke = form(client.post(scene.gateway.url("/auth/revoke")), scene.of(kind));
        let logout = client.post(scene.gateway.url("/auth/logout")).bearer_auth(scene.of(kind));
        assert_eq!(runtime.block_on(revoke.send()).unwrap().status(), 200, "it says nothing");
        assert_eq!(runtime.block_on(logout.send()).unwrap().status(), 401, "{kind}");
    }
    // None of this used up what is good, and each is good where it belongs.
    for (place, good) in PLACES {
        // The callback is used up by its state.
        for kind in good.iter().filter(|kind| **kind != "cookie of a state") {
            assert!(runtime.block_on(scene.takes(place, scene.of(kind))), "{kind} at {place}");
        }
    }
}
