//! Which servers of an upstream are asked: health checks, ejection, and all of them when half are out.

use crate::support::DEADLINE;
use crate::support::gateway::Gateway;
use crate::support::switch::Switch;

/// An upstream of these servers with a public route to it.
fn shop(name: &str, servers: &[&Switch], more: &str) -> String {
    let urls: Vec<String> = servers.iter().map(|server| format!("\"http://{}\"", server.authority())).collect();
    let urls = urls.join(", ");
    format!(
        "[[upstream]]\nname = \"{name}\"\nservers = [{urls}]\nbalance = \"round-robin\"\n{more}\n\
         [[route]]\npath = \"/{name}/*\"\nupstream = \"{name}\"\nauth = \"none\"\n"
    )
}

const FAST: &str = r#"health = { path = "/healthz", interval = "10ms", timeout = "5s", healthy = 2, unhealthy = 2 }"#;

fn up(name: &str, server: &Switch) -> String {
    format!("wxgate_backend_up{{upstream=\"{name}\",backend=\"{}\"}}", server.authority())
}

async fn three() -> [Switch; 3] {
    [Switch::start().await, Switch::start().await, Switch::start().await]
}

async fn get(gateway: &Gateway, path: &str, n: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..n {
        statuses.push(gateway.get(path, None).await.status);
    }
    statuses
}

#[tokio::test]
async fn a_server_whose_checks_fail_is_not_asked_until_they_pass_again() {
    let [a, b, c] = three().await;
    let gateway = Gateway::with(&shop("shop", &[&a, &b, &c], FAST)).await;
    gateway.until_metric_is(&up("shop", &b), 1.).await;
    b.say(503);
    gateway.until_metric_is(&up("shop", &b), 0.).await;
    assert_eq!(get(&gateway, "/shop/x", 20).await, [200; 20]);
    assert_eq!((b.requests(), a.requests() + c.requests()), (0, 20));
    b.say(204);
    gateway.until_metric_is(&up("shop", &b), 1.).await;
    get(&gateway, "/shop/x", 9).await;
    assert_eq!(b.requests(), 3);
}

#[tokio::test]
async fn when_half_of_the_servers_are_down_all_are_asked() {
    let [a, b, _] = three().await;
    let gateway = Gateway::with(&shop("shop", &[&a, &b], FAST)).await;
    b.reset();
    gateway.until_metric_is(&up("shop", &b), 0.).await;
    b.say(200);
    // Whatever its probes say by now: half is not enough to leave it out.
    assert_eq!(get(&gateway, "/shop/x", 10).await, [200; 10]);
    assert_eq!((a.requests(), b.requests()), (5, 5));
}

#[tokio::test]
async fn checks_go_on_over_a_reload_and_end_when_they_are_removed() {
    let [a, b, c] = three().await;
    let tables = format!("{}{}", shop("shop", &[&a, &b, &c], FAST), shop("other", &[&c], FAST));
    let gateway = Gateway::with(&tables).await;
    b.say(500);
    gateway.until_metric_is(&up("shop", &b), 0.).await;
    gateway.rewrite(|text| text.replace("path = \"/shop/*\"", "path = \"/shop/*\"\ntimeout = \"7s\"")).await;
    assert!(gateway.metric(&up("shop", &b)).await < 1., "what was known is still known");

    gateway.rewrite(|text| text.replacen(FAST, "", 1)).await;
    assert!(gateway.metric(&up("shop", &b)).await > 0., "nobody says otherwise");
    let ended = async {
        loop {
            let (before, going_on) = (b.probes(), c.probes());
            while c.probes() < going_on + 10 {
                tokio::task::yield_now().await;
            }
            if b.probes() == before {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.expect("the checks that were removed end");
}

#[tokio::test]
async fn a_server_that_fails_five_times_in_a_row_is_ejected() {
    for broken in
        [|server: &Switch| server.say(502), |server: &Switch| server.say(500), |server: &Switch| server.reset()]
    {
        let [a, b, c] = three().await;
        let gateway = Gateway::with(&shop("shop", &[&a, &b, &c], "")).await;
        broken(&b);
        let statuses = get(&gateway, "/shop/x", 15).await;
        assert_eq!(statuses.iter().filter(|status| **status >= 500).count(), 5, "{statuses:?}");
        assert_eq!(get(&gateway, "/shop/x", 20).await, [200; 20]);
        assert_eq!(b.requests(), 5);
        assert!(gateway.metric(&up("shop", &b)).await < 1.);
        let ejections = up("shop", &b).replace("backend_up", "backend_ejections_total");
        assert_eq!(gateway.metric(&ejections).await, 1.);
    }
}

#[tokio::test]
async fn answers_that_are_the_callers_fault_eject_nobody() {
    let [a, b, c] = three().await;
    let gateway = Gateway::with(&shop("shop", &[&a, &b, &c], "")).await;
    for status in [400, 404, 429, 501] {
        b.say(status);
        get(&gateway, "/shop/x", 24).await;
    }
    assert_eq!(b.requests(), 32);
}

#[tokio::test]
async fn a_good_answer_between_failures_counts() {
    let [a, b, c] = three().await;
    let gateway = Gateway::with(&shop("shop", &[&a, &b, &c], "")).await;
    for round in 0..6 {
        b.say(if round % 2 == 0 { 503 } else { 200 });
        get(&gateway, "/shop/x", 12).await;
    }
    assert_eq!(b.requests(), 24);
}
