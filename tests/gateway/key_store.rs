//! Keys in the store of sessions, sealed with a master key: any number of instances agree on them, and no folder is shared.

use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use wxgate::cli::serve::Running;
use wxgate::clock::{Clock, Timestamp};
use wxgate::config::{self, Environment};
use wxgate::gateway::KeysInStore;
use wxgate::telemetry::{Format, LogWriter};
use wxgate::token::rotation::{LEAD, LEAD_AT_ONCE};

use crate::key_rotation::command;
use crate::support::DEADLINE;
use crate::support::cable::Cable;
use crate::support::gateway::{Answer, Gateway, Member, ROUTES, START};
use crate::support::postgres::PostgresServer;
use crate::support::process::{Exit, Output, Process};
use crate::support::redis::{RedisServers, cli};

/// Two master keys.
const ONE: &str = "planted-q7Xc0vM4rT9bZ2kLd8sWfYh3";
const TWO: &str = "planted-Hy5Nu1pEo6Gj3aRi0tKb7xVm";

const SECOND: Duration = Duration::from_secs(1);

static MEMBERS: LazyLock<PostgresServer> = LazyLock::new(PostgresServer::start);
static REDIS: LazyLock<RedisServers> = LazyLock::new(RedisServers::single);

fn keys(master_key: &str) -> String {
    format!("token.keys = \"store\"\ntoken.master_key = \"{master_key}\"\n")
}

/// Sessions in this Redis under a prefix of the test's own.
fn sessions_in(redis: &RedisServers) -> String {
    format!("store.sessions = \"{}?prefix={}\"\n", redis.url(), uuid::Uuid::now_v7().simple())
}

fn kid(member: &Member) -> String {
    jsonwebtoken::decode_header(member.token()).unwrap().kid.unwrap()
}

async fn published(gateway: &Gateway) -> HashSet<String> {
    let document = gateway.get("/.well-known/jwks.json", None).await.json();
    document["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// Logs `user` in at this instance, at the WeChat that is everybody's: the first one's.
async fn login(gateway: &Gateway, first: &Gateway, user: &str) -> Member {
    let answer = gateway.post("/auth/login", &json!({ "code": first.wechat.issue_code(None, user) })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    Member { answer: answer.json() }
}

async fn accepts(gateway: &Gateway, member: &Member) -> bool {
    gateway.get("/api/x", Some(member.token())).await.status == 200
}

async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let wait = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("never {what}"));
}

/// Starts a gateway that is expected to refuse; why it does.
async fn refusal(folder: &Path, change: impl FnOnce(String) -> String) -> String {
    let text = change(std::fs::read_to_string(folder.join("gateway.toml")).unwrap());
    let config = config::parse(text, &folder.join("gateway.toml"), &Environment::of([])).unwrap();
    let log = LogWriter::to(Format::Json, Box::new(std::io::sink()));
    let started = Running::start(config, Clock::manual(Timestamp::from_secs(START)), log).await;
    format!("{:#}", started.expect_err("it started"))
}

/// Everything in the folder of a gateway, as one heap of bytes.
fn bytes_in(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => all.extend(bytes_in(&entry.path())),
            // It names the master key, as text.
            _ if entry.file_name().to_string_lossy().ends_with(".toml") => {}
            kind if kind.is_file() => all.extend(std::fs::read(entry.path()).unwrap()),
            _ => {}
        }
    }
    all
}

fn contains(all: &[u8], text: &str) -> bool {
    all.windows(text.len()).any(|window| window == text.as_bytes())
}

async fn admin_import(folder: &Path, arguments: &[&str]) -> (Exit, Output) {
    let arguments = [&["keys", "import"], arguments, &["--config", "gateway.toml"]].concat();
    let mut process = Process::wxgate_in(folder, &arguments);
    (process.exit().await, process.output())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_share_their_keys_and_no_folder() {
    let members = MEMBERS.url_of_new_schema(&format!("s{}", uuid::Uuid::now_v7().simple()));
    let members = format!("store.members = \"{members}\"\n");
    let text = format!("{}{}{members}{ROUTES}", keys(ONE), sessions_in(&REDIS));
    let first = Gateway::with(&text).await;
    let second = first.beside(&text).await;
    assert_eq!(published(&first).await, published(&second).await);
    let (alice, bob) = (first.login("alice").await, login(&second, &first, "bob").await);
    assert!(accepts(&second, &alice).await && accepts(&first, &bob).await);
    // The refresh secret is one as well: shown to either, a token has one successor.
    let shown = json!({ "refresh_token": alice.refresh() });
    let (one, two) =
        (first.post("/auth/refresh", &shown).await.json(), second.post("/auth/refresh", &shown).await.json());
    assert!(one["refresh_token"].is_string());
    assert_eq!(one["refresh_token"], two["refresh_token"]);
    for gateway in [&first, &second] {
        assert!(!gateway.dir.path().join("keys").exists());
        assert!(gateway.dir.path().join("data/audit.log").exists(), "what is this machine's own has a place");
        assert!(!gateway.log.text().contains("planted-"), "{}", gateway.log.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_is_known_to_the_other_instance_before_it_signs() {
    let text = format!("{}{}{ROUTES}", keys(ONE), sessions_in(&REDIS));
    let first = Gateway::with(&text).await;
    let second = first.beside(&text).await;
    let before = first.login("alice").await;
    for (now, lead) in [(false, LEAD), (true, LEAD_AT_ONCE + SECOND)] {
        let signs = kid(&first.login("alice").await);
        let answer = first.admin(Method::POST, "/api/keys/rotate", Some(json!({ "now": now }))).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let known = published(&first).await;
        // Nobody tells the second one: it looks.
        until("seen by the other", async || published(&second).await == known).await;
        for gateway in [&first, &second] {
            assert_eq!(kid(&login(gateway, &first, "alice").await), signs, "it does not sign yet");
        }
        for gateway in [&first, &second] {
            gateway.clock.advance(lead);
        }
        for gateway in [&second, &first] {
            gateway.inner().tend_keys().await.unwrap();
            let after = login(gateway, &first, "alice").await;
            assert!(known.contains(&kid(&after)) && kid(&after) != signs);
            assert!(accepts(&first, &after).await && accepts(&second, &after).await);
        }
        assert!(accepts(&second, &before).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_cannot_read_the_keys_calls_no_token_of_a_new_key_bad() {
    let cable = Cable::to(REDIS.servers[0].port).await;
    let (direct, prefix) = (REDIS.servers[0].port, uuid::Uuid::now_v7().simple().to_string());
    let members = MEMBERS.url_of_new_schema(&format!("s{}", uuid::Uuid::now_v7().simple()));
    let service = "[[internal.service]]\nname = \"orders\"\ntoken = \"planted-service-token-77\"\n";
    let at = |port: u16| {
        let sessions = format!("store.sessions = \"redis://127.0.0.1:{port}?prefix={prefix}\"\n");
        format!("{}{sessions}store.members = \"{members}\"\n{ROUTES}{service}", keys(ONE))
    };
    let first = Gateway::with(&at(direct)).await;
    let second = first.beside(&at(cable.port())).await;
    let before = first.login("alice").await;
    assert!(accepts(&second, &before).await);

    cable.cut();
    assert!(second.inner().tend_keys().await.is_err());
    first.inner().rotate_keys(true).await.unwrap();
    first.clock.advance(LEAD_AT_ONCE + SECOND);
    second.clock.advance(LEAD_AT_ONCE + SECOND);
    first.inner().tend_keys().await.unwrap();
    let after = first.login("alice").await;
    assert!(accepts(&first, &after).await && kid(&after) != kid(&before));
    let unknown = second.get("/api/x", Some(after.token())).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (503, "store_unavailable"), "{}", unknown.body);
    assert!(unknown.headers.contains_key("retry-after"));
    let logout = second.client().post(second.url("/auth/logout")).bearer_auth(after.token());
    assert_eq!(
        Answer::of(logout.send().await.unwrap()).await.code(),
        "store_unavailable",
        "nor does it say that it did"
    );
    let asked = second.client().post(second.internal_url("/introspect")).bearer_auth("planted-service-token-77");
    let asked = Answer::of(crate::opaque::form(asked, after.token()).send().await.unwrap()).await;
    assert_eq!(asked.code(), "store_unavailable", "inactive might be remembered");
    // What it can know, it still says.
    assert!(accepts(&second, &before).await);
    let forged = format!("{}AAAA", &before.token()[..before.token().len() - 4]);
    assert_eq!(second.get("/api/x", Some(&forged)).await.code(), "token_invalid");

    cable.mend();
    until("accepted", async || accepts(&second, &after).await).await;
    let stranger = Gateway::start().await.login("carol").await;
    let refused = second.get("/api/x", Some(stranger.token())).await;
    assert_eq!((refused.status, refused.code().as_str()), (401, "token_invalid"), "the keys are known again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_first_starts_at_once_agree_on_one_ring() {
    let text = format!("{}{}{ROUTES}", keys(ONE), sessions_in(&REDIS));
    let gateways = join_all((0..20).map(|_| Gateway::with(&text))).await;
    let ring = published(&gateways[0]).await;
    assert_eq!(ring.len(), 1);
    let alice = gateways[0].login("alice").await;
    for gateway in &gateways {
        assert_eq!(published(gateway).await, ring);
        assert!(accepts(gateway, &alice).await);
        assert_eq!(kid(&gateway.login("bob").await), kid(&alice));
    }
    // They go on agreeing when all of them are told to rotate at once.
    let rotate = |gateway: &'_ Gateway| {
        let inner = std::sync::Arc::clone(gateway.inner());
        async move { inner.rotate_keys(false).await.unwrap() }
    };
    join_all(gateways.iter().take(5).map(rotate)).await;
    let ring = published(&gateways[0]).await;
    assert_eq!(ring.len(), 2, "one new key, whoever made it");
    for gateway in &gateways[1..5] {
        gateway.inner().tend_keys().await.unwrap();
        assert_eq!(published(gateway).await, ring);
    }
}

#[tokio::test]
async fn in_a_file_of_one_machine_they_outlive_a_restart_and_lie_there_sealed() {
    let gateway = Gateway::with(&format!("{}{ROUTES}", keys(ONE))).await;
    let alice = gateway.login("alice").await;
    let gateway = gateway.restart(&format!("{}{ROUTES}", keys(ONE))).await;
    assert!(accepts(&gateway, &alice).await);
    assert_eq!(gateway.refresh(&alice).await.status, 200);
    let ring = gateway.inner().kept().keys.shelf().files();
    assert!(ring.keys().any(|name| name.ends_with(".pem")) && ring.contains_key("refresh.key"));
    let folder = gateway.end().await;
    let all = bytes_in(folder.path());
    assert!(contains(&all, "wxkb"), "the sealed record is there");
    for (name, file) in &ring {
        if name == "store.birth" {
            continue; // its mark is in the database anyway
        }
        let lines = file.content.split(|b| *b == b'\n').filter(|line| line.len() >= 16 && !line.starts_with(b"-----"));
        for line in lines {
            assert!(!all.windows(line.len()).any(|window| window == line), "a line of {name} lies there in clear");
        }
    }
    assert!(!contains(&all, "planted-q7Xc"), "nor the master key");
}

#[tokio::test]
async fn a_wrong_master_key_is_refused_at_start_and_makes_no_new_ring() {
    let gateway = Gateway::with(&format!("{}{ROUTES}", keys(ONE))).await;
    let alice = gateway.login("alice").await;
    let folder = gateway.end().await;
    let why = refusal(folder.path(), |text| text.replace(ONE, TWO)).await;
    assert!(why.contains("sealed with another master key") && why.contains("set token.master_key"), "{why}");
    assert!(!why.contains("planted-"), "{why}");
    let gateway = Gateway::in_dir(folder, &format!("{}{ROUTES}", keys(ONE))).await;
    assert!(accepts(&gateway, &alice).await, "the ring is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_key_is_changed_instance_by_instance_and_nobody_is_signed_out() {
    let sessions = sessions_in(&REDIS);
    let with = |keys: &str| format!("{keys}{sessions}{ROUTES}");
    let both = format!("{}token.previous_master_key = \"{ONE}\"\n", keys(TWO));
    let first = Gateway::with(&with(&keys(ONE))).await;
    let alice = first.login("alice").await;
    let second = first.beside(&with(&both)).await;
    assert!(accepts(&second, &alice).await);
    // The one that has the old one alone follows what the other does.
    let answer = second.admin(Method::POST, "/api/keys/rotate", None).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let known = published(&second).await;
    until("followed", async || published(&first).await == known).await;
    let first = first.restart(&with(&both)).await;
    let third = first.beside(&with(&keys(TWO))).await;
    for gateway in [&first, &second, &third] {
        assert!(accepts(gateway, &alice).await);
        assert_eq!(published(gateway).await, known);
    }
    let folder = third.end().await;
    let why = refusal(folder.path(), |text| text.replace(TWO, ONE)).await;
    assert!(why.contains("sealed with another master key"), "the old one opens nothing any more: {why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_away_the_keys_in_force_stay_and_a_store_that_lost_them_gets_them_back() {
    let mut redis = RedisServers::single();
    let text = format!("{}{}{ROUTES}", keys(ONE), sessions_in(&redis));
    let gateway = Gateway::with(&text).await;
    let alice = gateway.login("alice").await;
    let ring = published(&gateway).await;
    gateway.clock.advance(SECOND);
    redis.servers[0].kill();
    assert!(gateway.inner().tend_keys().await.is_err());
    assert!(accepts(&gateway, &alice).await, "verified by the ring that is held");
    assert_eq!(published(&gateway).await, ring);

    redis.servers[0].lose();
    redis.servers[0].run();
    let port = redis.servers[0].port;
    until("put back", async || cli(port, &["keys", "*key-bundle"]).contains("key-bundle")).await;
    let second = gateway.beside(&text).await;
    assert_eq!(published(&second).await, ring, "the same keys, though the store had lost everything");
    // What was logged out before is forgotten there, so older logins end; new ones are good everywhere.
    until("refused", async || !accepts(&gateway, &alice).await).await;
    assert!(!accepts(&second, &alice).await);
    gateway.clock.advance(SECOND);
    second.clock.advance(2 * SECOND);
    let again = gateway.login("alice").await;
    assert!(accepts(&second, &again).await);
}

#[tokio::test]
async fn what_was_in_a_folder_is_brought_in_and_nobody_is_signed_out() {
    let routes = format!("token.rotate_every = \"0s\"\n{ROUTES}");
    let gateway = Gateway::with(&format!("token.keys = \"data/keys\"\n{routes}")).await;
    let alice = gateway.login("alice").await;
    let folder = gateway.end().await;
    let to_store =
        |text: String| text.replace("keys = \"data/keys\"", &format!("keys = \"store\"\nmaster_key = \"{ONE}\""));
    // Forgotten, it would be a new deployment: the start says what to do.
    let why = refusal(folder.path(), to_store).await;
    assert!(why.contains("wxgate keys import --from"), "{why}");
    let (exit, output) = admin_import(folder.path(), &["--from", "data/keys"]).await;
    assert_eq!(exit, Exit::Code(1), "as long as token.keys is a folder: {output:#?}");

    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, to_store(std::fs::read_to_string(&path).unwrap())).unwrap();
    let (exit, output) = admin_import(folder.path(), &["--from", "nowhere"]).await;
    assert!(exit == Exit::Code(1) && output.stderr[0].contains("is no folder of keys"), "{output:#?}");
    let (exit, output) = admin_import(folder.path(), &["--from", "data/keys"]).await;
    assert_eq!(exit, Exit::Code(0), "{output:#?}");
    for name in ["ring.json", "refresh.key", "sealing.key", "log.key", "store.birth", ".pem"] {
        assert!(output.stdout[0].contains(name) && !output.stdout[0].contains("admin.token"), "{name}: {output:#?}");
    }
    let (exit, output) = admin_import(folder.path(), &["--from", "data/keys"]).await;
    assert!(exit == Exit::Code(1) && output.stderr[0].contains("there are keys in the store already"), "{output:#?}");

    std::fs::remove_dir_all(folder.path().join("data/keys")).unwrap();
    let gateway = Gateway::in_dir(folder, &format!("{}{routes}", keys(ONE))).await;
    assert!(accepts(&gateway, &alice).await);
    assert_eq!(gateway.refresh(&alice).await.status, 200, "the refresh secret came along");
    let kept = gateway.inner().kept();
    let (appid, openid) = (alice.answer["appid"].as_str().unwrap(), alice.openid());
    let (appid, openid) = (wxgate::ids::AppId::parse(appid).unwrap(), wxgate::ids::OpenId::parse(openid).unwrap());
    let sealed = kept.sessions.session_keys(&appid, &openid).await.unwrap();
    kept.vault.unseal(&sealed[0].sealed, &appid, &openid).expect("and so did the sealing key");
}

#[tokio::test]
async fn keys_of_a_folder_take_the_place_of_others_when_that_is_asked_for() {
    // The ring of a folder, and a gateway that has one of its own in the store.
    let folder = Gateway::with(&format!("token.keys = \"data/keys\"\n{ROUTES}")).await;
    let by_folder = folder.login("alice").await;
    let folder = folder.end().await;
    let gateway = Gateway::with(&format!("{}{ROUTES}", keys(ONE))).await;
    let by_store = gateway.login("bob").await;
    let from = folder.path().join("data/keys");
    let from = from.to_str().unwrap();
    let (exit, output) = admin_import(gateway.dir.path(), &["--from", from, "--replace"]).await;
    let said = output.stderr.join(" ");
    assert!(exit == Exit::Code(1) && said.contains("a gateway is running on this database"), "{output:#?}");
    assert!(accepts(&gateway, &by_store).await);

    let home = gateway.end().await;
    let (exit, output) = admin_import(home.path(), &["--replace"]).await;
    assert_ne!(exit, Exit::Code(0), "--replace of what? {output:#?}");
    let (exit, output) = admin_import(home.path(), &["--from", from]).await;
    assert!(exit == Exit::Code(1) && output.stderr.join(" ").contains("add --replace"), "{output:#?}");
    let (exit, output) = admin_import(home.path(), &["--from", from, "--replace"]).await;
    assert_eq!(exit, Exit::Code(0), "{output:#?}");
    assert!(output.stdout[0].contains("ring.json") && !output.stdout.join(" ").contains("planted-"), "{output:#?}");
    std::fs::remove_dir_all(folder.path()).unwrap();

    let gateway = Gateway::in_dir(home, &format!("{}{ROUTES}", keys(ONE))).await;
    assert_eq!(published(&gateway).await, HashSet::from([kid(&by_folder)]), "those of the folder, and no other");
    assert_eq!(kid(&gateway.login("carol").await), kid(&by_folder), "it signs");
    let refused = gateway.get("/api/x", Some(by_store.token())).await;
    assert_eq!((refused.status, refused.code().as_str()), (401, "token_invalid"), "as --replace warns");
    assert_eq!(gateway.refresh(&by_store).await.status, 401);
}

#[tokio::test]
async fn operators_do_with_keys_in_the_store_what_they_do_with_a_folder() {
    let gateway = Gateway::with(&format!("{}{ROUTES}", keys(ONE))).await;
    let alice = gateway.login("alice").await;
    let (exit, output) = command(&gateway, &["keys", "list"]).await;
    assert_eq!((exit, output.stdout.len()), (Exit::Code(0), 2), "{output:#?}");
    assert!(output.stdout[0].contains(&kid(&alice)) && output.stdout[0].contains("active"), "{output:#?}");
    let (exit, output) = command(&gateway, &["token", "admin"]).await;
    assert_eq!((exit, output.stdout), (Exit::Code(0), vec![gateway.admin_token()]));
    let (exit, output) = command(&gateway, &["backup", "copy"]).await;
    assert!(
        exit == Exit::Code(0) && output.stdout.iter().any(|line| line.contains("keep the master key")),
        "{output:#?}"
    );

    // The database is the gateway's alone, so the key takes the way through it, and is readable by nobody on the way.
    let secret = "planted-hs256-secret-4f1d0a9be7732c58";
    std::fs::write(gateway.dir.path().join("the-key"), secret).unwrap();
    let (exit, output) = command(&gateway, &["keys", "import", "the-key", "--hs256"]).await;
    assert_eq!(exit, Exit::Code(0), "{output:#?}");
    assert!(output.stdout[0].starts_with("HS256 key ") && output.stdout[0].contains("the store"), "{output:#?}");
    std::fs::write(gateway.dir.path().join("the-key"), "short").unwrap();
    let (exit, output) = command(&gateway, &["keys", "import", "the-key", "--hs256"]).await;
    assert!(exit == Exit::Code(1) && output.stderr[0].contains("32 bytes"), "{output:#?}");
    let (_, output) = command(&gateway, &["keys", "list"]).await;
    assert!(output.stdout.iter().any(|line| line.contains("HS256")), "{output:#?}");
    for body in [json!({}), json!({ "sealed": "no base64!" }), json!({ "sealed": "d3hrYg==" })] {
        let answer = gateway.admin(Method::POST, "/api/keys/import", Some(body)).await;
        assert_eq!(answer.code(), "invalid_request");
    }
    let audit: Vec<Value> = gateway.audit();
    assert!(audit.iter().any(|line| line.to_string().contains("keys.import")), "{audit:?}");
    let all = format!("{}{audit:?}", gateway.log.text());
    assert!(!all.contains("planted-") && !all.contains(&gateway.admin_token()), "{all}");
    assert!(!contains(&bytes_in(&gateway.dir.path().join("copy")), secret), "sealed in a backup, too");

    // An operator's shell without the variable is told what is missing.
    let path = gateway.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(ONE, "${WXGATE_TEST_NO_SUCH_MASTER_KEY}")).unwrap();
    let (exit, output) = command(&gateway, &["keys", "list"]).await;
    assert!(exit == Exit::Code(1) && output.stderr[0].contains("set the environment variable"), "{output:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_brought_into_a_shared_store_signs_when_every_instance_has_it() {
    let text = format!("{}{}{ROUTES}", keys(ONE), sessions_in(&REDIS));
    let first = Gateway::with(&text).await;
    let second = first.beside(&text).await;
    let before = first.login("alice").await;
    let elsewhere = Gateway::start().await;
    let own = elsewhere.dir.path().join(format!("keys/ES256-{}.pem", kid(&elsewhere.login("carol").await)));
    let beside =
        KeysInStore::open(&first.inner().current().config, &first.clock).await.unwrap().expect("Redis is nobody's");
    let imported = beside.import(&std::fs::read(own).unwrap(), false).await.unwrap();
    assert_eq!(
        (imported.replaced, imported.signs_at),
        (Some(kid(&before)), Some(first.clock.now().plus(LEAD_AT_ONCE + SECOND)))
    );
    for gateway in [&first, &second] {
        until("known", async || published(gateway).await.contains(&imported.kid)).await;
        assert_eq!(kid(&login(gateway, &first, "alice").await), kid(&before), "it does not sign yet");
    }
    for gateway in [&first, &second] {
        gateway.clock.advance(LEAD_AT_ONCE + SECOND);
    }
    for gateway in [&second, &first] {
        gateway.inner().tend_keys().await.unwrap();
        let after = login(gateway, &first, "alice").await;
        assert_eq!(kid(&after), imported.kid);
        assert!(accepts(&first, &after).await && accepts(&second, &after).await && accepts(&second, &before).await);
    }
}

#[tokio::test]
async fn a_start_without_the_store_says_so() {
    let dir = TempDir::new().unwrap();
    let gone = RedisServers::single();
    let text = format!("{}{}{ROUTES}", keys(ONE), sessions_in(&gone));
    let gateway = Gateway::in_dir(dir, &text).await;
    let folder = gateway.end().await;
    drop(gone);
    let why = refusal(folder.path(), |text| text).await;
    assert!(why.contains("Redis at 127.0.0.1") && why.contains("check `[store] sessions`"), "{why}");
}
