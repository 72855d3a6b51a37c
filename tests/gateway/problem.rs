//! Refusals: one shape for all, an id that leads to the log, and nothing of the inside.

use http::Method;
use serde_json::json;
use wxgate::wechat::simulator::Fault;

use crate::support::gateway::{Answer, Gateway};
use crate::support::upstream::Upstream;

async fn ask(gateway: &Gateway, method: Method, path: &str, token: Option<&str>, body: &str) -> Answer {
    let mut request = gateway.client().request(method, gateway.url(path)).body(body.to_owned());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn every_refusal_has_the_same_shape_and_its_id_is_in_the_log() {
    let gateway = Gateway::start().await;
    gateway.wechat.fault("/sns/jscode2session", 1, Fault::Errcode(40125));
    let refusals = [
        ask(&gateway, Method::POST, "/auth/login", None, "").await,
        ask(&gateway, Method::POST, "/auth/login", None, r#"{"code":"x","appid":"wx1"}"#).await,
        ask(&gateway, Method::POST, "/auth/login", None, r#"{"code":"x"}"#).await,
        ask(&gateway, Method::POST, "/auth/refresh", None, r#"{"refresh_token":"x"}"#).await,
        ask(&gateway, Method::GET, "/auth/login", None, "").await,
        ask(&gateway, Method::GET, "/nowhere", None, "").await,
        ask(&gateway, Method::GET, "/api/x", None, "").await,
        ask(&gateway, Method::GET, "/api/x", Some("x"), "").await,
        ask(&gateway, Method::GET, "/api/a%2Fb", None, "").await,
    ];
    let mut ids = Vec::new();
    for refusal in refusals {
        let code = refusal.code();
        let problem = refusal.json();
        let mut names: Vec<&str> = problem.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["code", "detail", "instance", "status", "title", "type"], "{problem}");
        assert_eq!(problem["type"], format!("urn:wxgate:problem:{code}"));
        assert!(!problem["title"].as_str().unwrap().is_empty());
        assert_eq!(refusal.headers["cache-control"], "no-store");
        assert!(!refusal.headers.contains_key("server"), "no banner");
        let id = problem["instance"].as_str().unwrap().to_owned();
        let line = gateway.log.until_line(|line| line["id"] == id.as_str()).await;
        assert_eq!((&line["code"], &line["status"]), (&json!(code), &problem["status"]));
        ids.push(id);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 9, "each has an id of its own");
}

#[tokio::test]
async fn what_went_wrong_inside_is_for_the_log_alone() {
    let gone = Upstream::echo().await;
    let address = gone.address();
    drop(gone);
    let tables = format!(
        "[[upstream]]\nname = \"gone\"\nservers = [\"http://{address}\"]\n\
         [[route]]\npath = \"/gone\"\nupstream = \"gone\"\nauth = \"none\"\n"
    );
    let gateway = Gateway::with(&tables).await;
    let unavailable = ask(&gateway, Method::GET, "/gone", None, "").await;
    assert_eq!((unavailable.status, unavailable.code().as_str()), (503, "upstream_unavailable"));
    assert!(unavailable.headers.contains_key("retry-after"));
    gateway.wechat.fault("/sns/jscode2session", 1, Fault::Body(b"<html>internal-host-17</html>".to_vec()));
    let failed = ask(&gateway, Method::POST, "/auth/login", None, r#"{"code":"x"}"#).await;
    assert_eq!((failed.status, failed.code().as_str()), (502, "wechat_failed"));
    let port = address.port().to_string();
    for inside in [port.as_str(), "127.0.0.1", "refused", "errcode", "internal-host", "sqlite", "src/", "JSON object"] {
        assert!(!unavailable.body.contains(inside) && !failed.body.contains(inside), "{inside}");
    }
    let causes = [("upstream_unavailable", "refused"), ("wechat_failed", "not a JSON object")];
    for (code, cause) in causes {
        let line = gateway.log.until_line(|line| line["code"] == code).await;
        assert!(line["cause"].as_str().is_some_and(|text| text.contains(cause)), "{line}");
    }
}

#[tokio::test]
async fn refusals_are_counted_by_code() {
    let gateway = Gateway::start().await;
    for _ in 0..3 {
        gateway.get("/api/x", None).await;
    }
    gateway.until_metric("wxgate_problems_total{code=\"token_missing\"}", 3).await;
    let page = gateway.client().get(gateway.admin_url("/metrics")).send().await.unwrap().text().await.unwrap();
    // A backend's address comes from the configuration.
    for line in page.lines().filter(|line| !line.starts_with("wxgate_backend_")) {
        assert!(!line.contains("/api/x") && !line.contains("127.0.0.1"), "a label that a client chooses: {line}");
    }
}
