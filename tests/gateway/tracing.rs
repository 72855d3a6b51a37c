//! Traces: which requests are recorded, what is told of them, and a collector that is not well.

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::support::collector::{Collector, attribute};
use crate::support::gateway::{Gateway, ROUTES};
use crate::support::process::Exit;
use crate::support::raw;
use crate::support::served::{PUBLIC, Served};
use crate::support::switch::Switch;
use crate::support::upstream::Upstream;

/// `[telemetry]` for this collector.
fn telemetry(collector: &Collector, sample: &str) -> String {
    format!("[telemetry]\notlp = {{ endpoint = \"{}\", sample = {sample} }}\n", collector.url())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The span of the request, and those of its attempts in their order.
fn told(spans: &[Span]) -> (&Span, Vec<&Span>) {
    let (requests, mut attempts): (Vec<&Span>, Vec<&Span>) =
        spans.iter().partition(|span| span.kind == SpanKind::Server as i32);
    attempts.sort_by_key(|span| span.start_time_unix_nano);
    assert_eq!(requests.len(), 1, "{spans:#?}");
    (requests[0], attempts)
}

#[tokio::test]
async fn a_recorded_request_is_told_with_its_attempt_and_the_service_knows_its_parent() {
    let collector = Collector::start(&[]).await;
    let gateway = Gateway::with(&format!("{}{ROUTES}", telemetry(&collector, "1"))).await;
    let alice = gateway.login("alice").await;
    let login = collector.until_spans(1).await;
    assert_eq!(told(&login.spans).0.name, "POST endpoint");
    let answer = gateway.get(&format!("/api/of/{}?secret=query", alice.openid()), Some(alice.token())).await;
    assert_eq!(answer.status, 200);

    let sent = collector.until_spans(3).await;
    let (request, attempts) = told(&sent.spans[1..]);
    let [attempt] = attempts.as_slice() else { panic!("one attempt") };
    let arrived = &gateway.upstream.requests()[0];
    let id = arrived.all("x-request-id")[0];
    assert_eq!(hex(&request.trace_id), id, "the request id is the trace id");
    assert_eq!(arrived.all("traceparent"), [format!("00-{id}-{}-01", hex(&attempt.span_id))]);
    assert_eq!((&attempt.trace_id, &attempt.parent_span_id), (&request.trace_id, &request.span_id));
    assert!(request.parent_span_id.is_empty());
    assert!(request.start_time_unix_nano <= attempt.start_time_unix_nano);
    assert!(attempt.end_time_unix_nano <= request.end_time_unix_nano);
    assert!((&request.status, &attempt.status) == (&None, &None));

    assert_eq!(request.name, "GET /api/*");
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/api/*"),
        ("http.response.status_code", "200"),
        ("url.scheme", "http"),
        ("wxgate.request_id", id),
        ("wxgate.upstream", "echo"),
        ("wxgate.attempts", "1"),
        ("error.type", ""),
    ] {
        assert_eq!(attribute(&request.attributes, key), value, "{key}");
    }
    assert_eq!((attempt.name.as_str(), attempt.kind), ("GET", SpanKind::Client as i32));
    let server = gateway.upstream.address();
    for (key, value) in [
        ("server.address", server.ip().to_string()),
        ("server.port", server.port().to_string()),
        ("http.response.status_code", "200".to_owned()),
        ("http.request.resend_count", String::new()),
    ] {
        assert_eq!(attribute(&attempt.attributes, key), value, "{key}");
    }
    assert_eq!(attribute(&sent.resource, "service.name"), "wxgate");
    assert_eq!(attribute(&sent.resource, "service.version"), env!("CARGO_PKG_VERSION"));
    for body in &sent.bodies {
        let text = String::from_utf8_lossy(body);
        for secret in [alice.openid(), alice.token(), alice.id(), "secret=query"] {
            assert!(!text.contains(secret), "{secret} is in a span");
        }
    }
}

#[tokio::test]
async fn a_trusted_proxy_decides_what_is_recorded_and_nobody_else_does() {
    let collector = Collector::start(&[]).await;
    let top = "server.trusted_proxies = [\"127.0.0.1\"]\n";
    let gateway = Gateway::with(&format!("{top}{}{ROUTES}", telemetry(&collector, "0"))).await;
    let ask = async |gateway: &Gateway, flags: &str| {
        let trace = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        let request = format!("GET /public/x HTTP/1.1\r\nHost: a\r\ntraceparent: {trace}\r\ntracestate: a=b\r\n\r\n");
        assert_eq!(raw::exchange(gateway.address(), request).await.unwrap().status, 200);
        let arrived = gateway.upstream.requests().pop().unwrap();
        (arrived.all("traceparent")[0].to_owned(), arrived.all("tracestate").join(","))
    };
    let (parent, _) = ask(&gateway, "00").await;
    assert_eq!(parent, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "as it came");
    assert_eq!(gateway.get("/public/x", None).await.status, 200);
    let (parent, state) = ask(&gateway, "01").await;

    let sent = collector.until_spans(2).await;
    let (request, attempts) = told(&sent.spans);
    assert_eq!(hex(&request.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(hex(&request.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(parent, format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", hex(&attempts[0].span_id)));
    assert_eq!(state, "a=b");

    // The same words from somebody else are nothing.
    gateway.rewrite(|text| text.replace("trusted_proxies = [\"127.0.0.1\"]\n", "")).await;
    let (parent, state) = ask(&gateway, "01").await;
    assert!(!parent.contains("4bf92f35") && parent.ends_with("-00"), "{parent}");
    assert_eq!((state.as_str(), collector.sent().spans.len()), ("", 2));
}

#[tokio::test]
async fn each_attempt_is_told_and_those_that_failed_are_errors() {
    let collector = Collector::start(&[]).await;
    let (bad, good) = (Switch::start().await, Switch::start().await);
    bad.say(503);
    let gateway = Gateway::with(&format!(
        "{}[[upstream]]\nname = \"shop\"\nservers = [\"http://{}\", \"http://{}\"]\nbalance = \"round-robin\"\n\
         [[route]]\npath = \"/shop/{{id}}\"\nupstream = \"shop\"\nauth = \"none\"\nretry = {{}}\n",
        telemetry(&collector, "1.0"),
        bad.authority(),
        good.authority(),
    ))
    .await;
    // Both are asked first in turn.
    while bad.requests() == 0 {
        assert_eq!(gateway.get("/shop/x", None).await.status, 200);
    }
    let wanted = 2 * good.requests() + bad.requests();
    let sent = collector.until_spans(wanted).await;
    let twice = sent.spans.iter().find(|span| attribute(&span.attributes, "wxgate.attempts") == "2").unwrap();
    let mut attempts: Vec<&Span> = sent.spans.iter().filter(|span| span.parent_span_id == twice.span_id).collect();
    attempts.sort_by_key(|span| span.start_time_unix_nano);
    let [failed, answered] = attempts.as_slice() else { panic!("two attempts") };
    assert_eq!(failed.status.as_ref().map(|status| status.code), Some(2));
    assert!(answered.status.is_none());
    assert_eq!(attribute(&failed.attributes, "server.port"), bad.authority().rsplit(':').next().unwrap());
    assert_eq!(attribute(&answered.attributes, "http.request.resend_count"), "1");
    assert_eq!(attribute(&answered.attributes, "http.response.status_code"), "200");
}

#[tokio::test]
async fn refusals_and_failures_are_told_by_their_code() {
    let collector = Collector::start(&[]).await;
    let away = Upstream::echo().await.url();
    let gateway = Gateway::with(&format!(
        "{}{ROUTES}[[upstream]]\nname = \"away\"\nservers = [\"{away}\"]\n\
         [[route]]\npath = \"/away\"\nupstream = \"away\"\nauth = \"none\"\n",
        telemetry(&collector, "1"),
    ))
    .await;
    for (path, status, code, route, error) in [
        ("/api/x", 401, "token_missing", "/api/*", false),
        ("/nowhere/secret", 404, "route_not_found", "-", false),
        ("/a%2fb", 400, "ambiguous_path", "-", false),
        ("/away", 503, "upstream_unavailable", "/away", true),
    ] {
        let before = collector.sent().spans.len();
        assert_eq!(gateway.get(path, None).await.status, status);
        let spans = if path == "/away" { 2 } else { 1 };
        let sent = collector.until_spans(before + spans).await;
        let (request, attempts) = told(&sent.spans[before..]);
        assert_eq!(attribute(&request.attributes, "error.type"), code);
        assert_eq!((request.name.as_str(), request.status.is_some()), (format!("GET {route}").as_str(), error));
        assert!(attempts.iter().all(|attempt| attempt.status.is_some()));
    }
    // Health checks are nobody's trace, and a method of a client's own invention is no name.
    assert_eq!(gateway.get("/healthz", None).await.status, 200);
    let before = collector.sent().spans.len();
    let answer = raw::exchange(gateway.address(), "INVENTED /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(answer.status, 404);
    let sent = collector.until_spans(before + 1).await;
    assert_eq!(told(&sent.spans[before..]).0.name, "_OTHER -");
}

#[tokio::test]
async fn a_collector_that_is_away_is_told_about_once_and_gets_what_waited_when_it_is_back() {
    let collector = Collector::start(&[503, 429]).await;
    let mut served = Served::start("", &format!("{}{PUBLIC}", telemetry(&collector, "1"))).await;
    let ask = "GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n";
    for _ in 0..3 {
        assert_eq!(raw::exchange(served.address, ask).await.unwrap().status, 200);
    }
    let sent = collector.until_spans(6).await;
    assert_eq!(sent.spans.len(), 6, "nothing was sent twice");
    served.logged(&["the OpenTelemetry collector takes spans again"]).await;
    let lines = served.process.output().stderr;
    let told = lines.iter().filter(|line| line.contains("the OpenTelemetry collector takes no spans")).count();
    assert_eq!(told, 1, "{lines:#?}");
    let page = reqwest::get(format!("http://{}/metrics", served.admin)).await.unwrap().text().await.unwrap();
    for line in ["{outcome=\"exported\"} 3", "{outcome=\"failed\"} 0", "{outcome=\"dropped\"} 0"] {
        assert!(page.contains(&format!("wxgate_otlp_requests_total{line}\n")), "{page}");
    }
}

#[tokio::test]
async fn what_a_collector_refuses_for_good_is_counted_and_not_repeated() {
    let collector = Collector::start(&[400]).await;
    let gateway = Gateway::with(&format!("{}{ROUTES}", telemetry(&collector, "1"))).await;
    assert_eq!(gateway.get("/public/x", None).await.status, 200);
    gateway.until_metric_is("wxgate_otlp_requests_total{outcome=\"failed\"}", 1.).await;
    assert_eq!(gateway.get("/public/x", None).await.status, 200);
    assert_eq!(collector.until_spans(2).await.spans.len(), 2);
    let picky = Collector::rejecting(2, &[]).await;
    gateway.rewrite(|text| text.replace(&collector.url(), &picky.url())).await;
    assert_eq!(gateway.get("/public/x", None).await.status, 200);
    gateway.until_metric_is("wxgate_otlp_requests_total{outcome=\"failed\"}", 2.).await;
    assert_eq!(collector.sent().spans.len(), 2, "the other collector has the place of the first");
}

#[tokio::test]
async fn nobody_listens_and_requests_go_on_as_before() {
    let collector = Collector::start(&[]).await;
    let tables = format!("{}{PUBLIC}", telemetry(&collector, "1"));
    drop(collector);
    let mut served = Served::start("", &tables).await;
    for _ in 0..20 {
        let answer = raw::exchange(served.address, "GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(answer.status, 200);
    }
    served.logged(&["the OpenTelemetry collector takes no spans", "WARN"]).await;
    served.process.terminate();
    assert_eq!(served.process.exit().await, Exit::Code(0), "the end waits for nobody");
}

#[tokio::test]
async fn the_end_of_the_gateway_sends_what_is_left_with_the_headers_of_the_file() {
    let collector = Collector::start(&[]).await;
    let mut gateway = Gateway::with(&format!(
        "[telemetry]\notlp = {{ endpoint = \"{}/v1/traces/\", sample = 1, service_name = \"shop-gateway\", \
         headers = [\"Authorization: Bearer planted-collector-token\", \"X-Scope-OrgID: shop\"] }}\n{ROUTES}",
        collector.url()
    ))
    .await;
    assert_eq!(gateway.get("/public/x", None).await.status, 200);
    let said = format!("{:?}", gateway.inner().current().config);
    assert!(said.contains("shop-gateway") && !said.contains("planted-collector-token"), "{said}");
    let shown = gateway.inner().current().config.shown.json().to_string();
    assert!(shown.contains("shop-gateway") && !shown.contains("planted-collector-token"), "{shown}");
    gateway.log.until_line(|line| line["path"] == "/public/x").await;
    gateway.stop().await;
    let sent = collector.sent();
    assert_eq!(sent.spans.len(), 2);
    assert_eq!(attribute(&sent.resource, "service.name"), "shop-gateway");
    assert_eq!(sent.headers[0]["authorization"], "Bearer planted-collector-token");
    assert_eq!(sent.headers[0]["x-scope-orgid"], "shop");
    assert!(!gateway.log.text().contains("planted-collector-token"));
}

#[tokio::test]
async fn a_part_of_the_requests_is_recorded_and_without_a_collector_none() {
    let collector = Collector::start(&[]).await;
    let gateway = Gateway::with(&format!("{}{ROUTES}", telemetry(&collector, "0.5"))).await;
    for _ in 0..200 {
        assert_eq!(gateway.get("/public/x", None).await.status, 200);
    }
    let sampled =
        gateway.upstream.requests().iter().filter(|request| request.all("traceparent")[0].ends_with("-01")).count();
    // 12 standard deviations.
    assert!((15..=185).contains(&sampled), "{sampled} of 200");
    collector.until_spans(2 * sampled).await;
    gateway.rewrite(|text| text.replace("otlp = ", "# otlp = ")).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/public/x", None).await.status, 200);
    }
    let unsampled = gateway.upstream.requests()[200..].iter().all(|r| r.all("traceparent")[0].ends_with("-00"));
    assert!(unsampled);
    assert_eq!(collector.sent().spans.len(), 2 * sampled);
}
