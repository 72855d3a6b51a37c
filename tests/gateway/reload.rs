//! A new configuration in force without a lost request, or nothing changes; and the operators' listener, which can ask
//! for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::DEADLINE;
use crate::support::gateway::{Gateway, ROUTES};
use crate::support::process::{Exit, Process};
use crate::support::raw::{Client, exchange};
use crate::support::served::{PUBLIC, Served};

const OTHER: &str = "[[route]]\npath = \"/other/*\"\nupstream = \"echo\"\nauth = \"none\"\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// Changes the file of a gateway in this process.
fn edit(gateway: &Gateway, change: impl Fn(String) -> String) {
    let path = gateway.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, change(text)).unwrap();
}

async fn api(gateway: &Gateway, lines: &str) -> (u16, Value) {
    let admin = gateway.admin_url("").trim_start_matches("http://").parse().unwrap();
    let request = format!("POST /api/reload HTTP/1.1\r\nHost: {admin}\r\n{lines}Content-Length: 0\r\n\r\n");
    let answer = exchange(admin, request).await.unwrap();
    (answer.status, answer.json())
}

fn admin_token(gateway: &Gateway) -> String {
    std::fs::read_to_string(gateway.dir.path().join("keys/admin.token")).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_save_puts_the_new_file_in_force() {
    let mut served = Served::start("", PUBLIC).await;
    let mut client = Client::connect(served.address).await;
    client.send(get("/other/x")).await;
    assert_eq!(client.response().await.unwrap().status, 404);
    served.save("", OTHER);
    served.logged(&["configuration reloaded", "\"generation\":2"]).await;
    client.send(get("/other/x")).await;
    assert_eq!(client.response().await.unwrap().status, 200, "a connection that is kept sees the new routes");
    client.send(get("/public/x")).await;
    assert_eq!(client.response().await.unwrap().status, 404);
    // As editors and mounted volumes do it: a new file in the place of the old one.
    let new = served.file().with_extension("new");
    std::fs::write(&new, served.text("", PUBLIC)).unwrap();
    std::fs::rename(new, served.file()).unwrap();
    served.logged(&["configuration reloaded", "\"generation\":3"]).await;
    client.send(get("/public/x")).await;
    assert_eq!(client.response().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_but_a_log_line_and_a_metric() {
    let mut served = Served::start("", PUBLIC).await;
    served.save("", "[[route]]\npath = \"no slash\"\nupstream = \"nobody\"\n");
    served.logged(&["the new configuration was refused", "nobody", "path"]).await;
    assert_eq!(exchange(served.address, get("/public/x")).await.unwrap().status, 200);
    let metrics = exchange(served.admin, get("/metrics").replace("Host: a", "Host: localhost")).await.unwrap();
    assert!(metrics.text().contains("wxgate_reload_faults_total 1"), "{}", metrics.text());
    assert!(metrics.text().contains("wxgate_config_generation 1"), "{}", metrics.text());
    served.save("", OTHER);
    served.logged(&["configuration reloaded", "\"generation\":2"]).await;
    assert_eq!(exchange(served.address, get("/other/x")).await.unwrap().status, 200);
}

#[tokio::test]
async fn sighup_reloads_also_when_nothing_was_saved() {
    let mut served = Served::start("", PUBLIC).await;
    served.process.hang_up();
    served.logged(&["configuration reloaded", "\"generation\":2"]).await;
    assert_eq!(exchange(served.address, get("/public/x")).await.unwrap().status, 200);
}

#[tokio::test]
async fn wxgate_reload_tells_what_changed_or_the_faults() {
    let served = Served::start("", PUBLIC).await;
    // The command reads where to ask in a file of its own, since port 0 in the gateway's tells it nothing.
    let here = served.file().with_file_name("command.toml");
    let listen = |text: String| {
        text.replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{}\"", served.admin))
    };
    std::fs::write(&here, listen(served.text("", PUBLIC))).unwrap();
    let folder = here.parent().unwrap();
    let command = || Process::wxgate_in(folder, &["reload", "--config", "command.toml"]);

    let mut same = command();
    assert_eq!(same.exit().await, Exit::Code(0));
    assert!(same.output().stdout[0].contains("reloaded"), "{:?}", same.output());

    served.save("", "[[route]]\npath = \"/public/*\"\nupstream = \"nobody\"\nauth = \"sometimes\"\n");
    let mut faulty = command();
    assert_eq!(faulty.exit().await, Exit::Code(64));
    let said = faulty.output().stderr.join("\n");
    assert!(said.contains("upstream") && said.contains("auth"), "every fault is told: {said}");
    assert_eq!(exchange(served.address, get("/public/x")).await.unwrap().status, 200);

    served.save("", &format!("{PUBLIC}{OTHER}"));
    let mut changed = command();
    assert_eq!(changed.exit().await, Exit::Code(0));
    assert_eq!(exchange(served.address, get("/other/x")).await.unwrap().status, 200);

    std::fs::write(&here, "[server]\nnonsense = 1\n").unwrap();
    assert_eq!(command().exit().await, Exit::Code(64));
}

#[tokio::test]
async fn wxgate_reload_without_a_gateway_says_so() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let served = Served::start("", PUBLIC).await;
    let text = served
        .text("", PUBLIC)
        .replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{nobody}\""));
    let file = served.file().with_file_name("command.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = Process::wxgate_in(file.parent().unwrap(), &["reload", "--config", "command.toml"]);
    assert_eq!(command.exit().await, Exit::Code(1));
    assert!(command.output().stderr.join("\n").contains("no gateway answers"), "{:?}", command.output());
}

#[tokio::test]
async fn what_only_a_restart_can_change_is_refused_by_name() {
    let gateway = Gateway::with(&format!("server.workers = 2\n{ROUTES}")).await;
    let bearer = format!("Authorization: Bearer {}\r\n", admin_token(&gateway));
    let original = std::fs::read_to_string(gateway.dir.path().join("gateway.toml")).unwrap();
    for (from, to, key) in [
        ("listen = [\"127.0.0.1:0\"]", "listen = [\"127.0.0.2:0\"]", "server.listen"),
        ("workers = 2", "workers = 3", "server.workers"),
        ("[admin]\nlisten = \"127.0.0.1:0\"", "[admin]\nlisten = \"127.0.0.2:0\"", "admin.listen"),
        ("keys = \"keys\"", "keys = \"keys2\"", "token.keys"),
        ("members = \"sqlite:wxgate.db\"", "members = \"sqlite:other.db\"", "store.members"),
        ("sessions = \"sqlite:wxgate.db\"", "sessions = \"sqlite:other.db\"", "store.sessions"),
    ] {
        assert!(original.contains(from), "{from}");
        edit(&gateway, |_| original.replace(from, to).replace("/public/*", "/other/*"));
        let (status, answer) = api(&gateway, &bearer).await;
        assert_eq!(status, 422, "{key}: {answer}");
        assert!(answer["faults"].to_string().contains(key), "{key}: {answer}");
        assert_eq!(gateway.get("/public/x", None).await.status, 200, "{key}");
    }
    assert!(!gateway.dir.path().join("keys2").exists() && !gateway.dir.path().join("other.db").exists());
    edit(&gateway, |_| original.clone());
    assert_eq!(api(&gateway, &bearer).await.0, 200);
}

#[tokio::test]
async fn the_operators_interface_says_what_changed() {
    let gateway = Gateway::start().await;
    let bearer = format!("Authorization: Bearer {}\r\n", admin_token(&gateway));
    edit(&gateway, |text| {
        text.replace("/public/*", "/other/*").replace("upstream = \"echo\"\nauth = \"optional\"", "upstream = \"echo\"")
    });
    let (status, answer) = api(&gateway, &bearer).await;
    assert_eq!((status, &answer["generation"]), (200, &2.into()));
    let changes = answer["changes"].to_string();
    for change in [
        "looser  [[route]] /other/* added",
        "tighter [[route]] /public/* removed",
        "tighter [[route]] /optional/*: auth optional -> required",
    ] {
        assert!(changes.contains(change), "{change} in {changes}");
    }
    // A route that was closed to the caller is closed at once, on a connection that is kept, too.
    assert_eq!(gateway.get("/optional/x", None).await.code(), "token_missing");
    assert_eq!(gateway.get("/public/x", None).await.code(), "route_not_found");
}

#[tokio::test]
async fn a_request_in_flight_keeps_the_configuration_that_it_met() {
    let gateway = Gateway::start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send(get("/public/hold")).await;
    gateway.upstream.until_requests(1).await;
    edit(&gateway, |text| text.replace("/public/*", "/other/*"));
    gateway.inner().reload().await.unwrap();
    gateway.upstream.release(1);
    assert_eq!(client.response().await.unwrap().status, 200);
    client.send(get("/public/x")).await;
    assert_eq!(client.response().await.unwrap().status, 404);
}

#[tokio::test]
async fn tokens_stay_good_over_a_reload() {
    let gateway = Gateway::start().await;
    let alice = gateway.login("alice").await;
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200);
    gateway.inner().reload().await.unwrap();
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.status, 200);
    let body = serde_json::json!({ "refresh_token": alice.refresh() });
    assert_eq!(gateway.post("/auth/logout", &body).await.status, 204);
    gateway.inner().reload().await.unwrap();
    assert_eq!(gateway.get("/api/x", Some(alice.token())).await.code(), "token_revoked", "what was revoked stays so");
}

#[tokio::test]
async fn an_old_configuration_is_gone_from_memory() {
    let gateway = Gateway::start().await;
    let mut snapshots = Vec::new();
    let alice = gateway.login("alice").await;
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for n in 0..8 {
        let (address, over, token) = (gateway.address(), Arc::clone(&over), alice.token().to_owned());
        clients.push(tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                let path = if n % 2 == 0 { "/api/stream/70000" } else { "/public/x" };
                client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n")).await;
                let answer = client.response().await.unwrap_or_else(|e| panic!("after {count} answers: {e}"));
                assert_eq!((answer.status, answer.headers.get("connection")), (200, None));
                count += 1;
            }
            count
        }));
    }
    for n in 0..20 {
        snapshots.push(Arc::downgrade(&gateway.inner().current()));
        let before = gateway.upstream.requests().len();
        edit(&gateway, |text| format!("{text}\n[[static]]\npath = \"/s{n}\"\nbody = \"{n}\"\n"));
        let reloaded = gateway.inner().reload().await.unwrap();
        assert_eq!(reloaded.generation, n + 2);
        assert_eq!(gateway.get(&format!("/s{n}"), None).await.body, n.to_string());
        gateway.upstream.until_requests(before + 8).await;
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    // As soon as each worker has looked at the new one.
    let gone = async {
        while snapshots.iter().any(|snapshot| snapshot.strong_count() > 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.expect("an old configuration stays in memory");
}

/// What a process holds: open files that are no sockets, sockets, and KiB of memory.
fn holds(pid: u32) -> (usize, usize, usize) {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links: Vec<_> = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok()).collect();
    let sockets = links.iter().filter(|link| link.to_string_lossy().starts_with("socket:")).count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
    (links.len() - sockets, sockets, memory.parse().unwrap())
}

/// In the first hundred reloads the allocator spreads by some 7 MiB, and by nothing in the next three hundred. Eighty
/// configurations that stayed, each with its clients for WeChat and their list of authorities, would be several times as much.
const MOST_GROWTH_KIB: usize = 16 * 1024;

#[tokio::test]
async fn a_hundred_reloads_under_load_lose_no_request_and_leave_nothing_behind() {
    let served = Served::start("workers = 2", PUBLIC).await;
    let token = std::fs::read_to_string(served.file().with_file_name("keys").join("admin.token")).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let (address, over, answered) = (served.address, Arc::clone(&over), Arc::clone(&answered));
            tokio::spawn(async move {
                let (mut client, mut count) = (Client::connect(address).await, 0);
                while !over.load(Ordering::Relaxed) {
                    client.send(get(if n % 2 == 0 { "/public/stream/70000" } else { "/public/x" })).await;
                    let answer = client.response().await.unwrap_or_else(|e| panic!("after {count} answers: {e}"));
                    assert_eq!((answer.status, answer.headers.get("connection")), (200, None));
                    count += 1;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                count
            })
        })
        .collect();
    let mut warm = (0, 0, 0);
    for n in 0..100 {
        let tables = format!("{PUBLIC}[[static]]\npath = \"/s{n}\"\nbody = \"{n}\"\n");
        served.save("workers = 2", &tables);
        let before = answered.load(Ordering::Relaxed);
        let ask = format!(
            "POST /api/reload HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            served.admin,
            token.trim()
        );
        let answer = exchange(served.admin, ask).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(exchange(served.address, get(&format!("/s{n}"))).await.unwrap().text(), n.to_string());
        let going_on = async {
            while answered.load(Ordering::Relaxed) < before + 8 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, going_on).await.expect("the load goes on");
        if n == 19 {
            warm = holds(served.process.id());
        }
    }
    // The last file that was saved may still be being read: what is held for long is not.
    let held = async {
        loop {
            let held = holds(served.process.id());
            if held.0 <= warm.0 {
                return held;
            }
            tokio::task::yield_now().await;
        }
    };
    let held = tokio::time::timeout(DEADLINE, held).await;
    let (files, sockets, memory) = held.unwrap_or_else(|_| holds(served.process.id()));
    println!("files {} -> {files}, sockets {} -> {sockets}, KiB {} -> {memory}", warm.0, warm.1, warm.2);
    assert!(files <= warm.0, "open files {} -> {files}", warm.0);
    // Each client may have a connection to the service, and the last questions may not be closed yet.
    assert!(sockets <= warm.1 + 12, "sockets {} -> {sockets}", warm.1);
    assert!(memory <= warm.2 + MOST_GROWTH_KIB, "KiB {} -> {memory}", warm.2);
    over.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn the_operators_interface_is_for_operators_alone() {
    let gateway = Gateway::start().await;
    let token = admin_token(&gateway);
    let alice = gateway.login("alice").await;
    let admin: std::net::SocketAddr = gateway.admin_url("").trim_start_matches("http://").parse().unwrap();
    for (path, lines, status, code) in [
        ("POST /api/reload", String::new(), 401, "token_missing"),
        ("POST /api/reload", "Authorization: Bearer wrong\r\n".to_owned(), 401, "token_invalid"),
        ("POST /api/reload", "Authorization: Bearer \r\n".to_owned(), 401, "token_invalid"),
        ("POST /api/reload", format!("Authorization: Basic {token}\r\n"), 401, "token_missing"),
        ("POST /api/reload", format!("Authorization: {token}\r\n"), 401, "token_missing"),
        ("POST /api/reload", format!("Cookie: token={token}\r\n"), 401, "token_missing"),
        ("POST /api/reload", format!("Authorization: Bearer {}\r\n", alice.token()), 401, "token_invalid"),
        ("POST /api/reload", format!("Authorization: Bearer {}\r\n", &token[..token.len() - 1]), 401, "token_invalid"),
        (
            "POST /api/reload",
            format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
            400,
            "ambiguous_token",
        ),
        ("GET /api/nothing", String::new(), 401, "token_missing"),
        ("GET /nothing", format!("Authorization: Bearer {token}\r\n"), 404, "route_not_found"),
        (
            "POST /api/reload",
            format!("Authorization: Bearer {token}\r\nOrigin: https://evil.example\r\n"),
            403,
            "origin_forbidden",
        ),
        ("POST /api/reload", format!("Authorization: Bearer {token}\r\nOrigin: null\r\n"), 403, "origin_forbidden"),
        ("GET /metrics", "Origin: http://127.0.0.1:1\r\n".to_owned(), 403, "origin_forbidden"),
    ] {
        let request = format!("{path} HTTP/1.1\r\nHost: {admin}\r\n{lines}Content-Length: 0\r\n\r\n");
        let answer = exchange(admin, request).await.unwrap();
        assert_eq!((answer.status, &answer.json()["code"]), (status, &code.into()), "{path} {lines}");
        assert_eq!(answer.headers.get("access-control-allow-origin"), None);
        assert_eq!(answer.headers.get("www-authenticate").is_some(), status == 401);
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9090"] {
        let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = exchange(admin, request("/api/reload")).await.unwrap();
        assert_eq!((answer.status, &answer.json()["code"]), (403, &"origin_forbidden".into()), "{host}");
        // What is open is asked by name: a scraper knows the gateway by that of its container.
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(exchange(admin, request(path)).await.unwrap().status, 200, "{host}{path}");
        }
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(
            exchange(admin, get(path).replace("Host: a", "Host: localhost")).await.unwrap().status,
            200,
            "{path}"
        );
    }
    assert_eq!(gateway.inner().current().generation, 1, "nobody has reloaded");
    let same_origin = format!("Authorization: Bearer {token}\r\nOrigin: http://{admin}\r\n");
    assert_eq!(api(&gateway, &same_origin).await.0, 200);
}
