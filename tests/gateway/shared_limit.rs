//! Limits in common: what several processes on one Redis let happen together.

use std::net::SocketAddr;
use std::path::Path;

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::support::DEADLINE;
use crate::support::process::Process;
use crate::support::raw::{self, Response};
use crate::support::redis::{RedisServers, cli};
use crate::support::served::ready;
use crate::support::upstream::Upstream;

/// One of several gateways that share keys and Redis.
struct Instance {
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    _folder: TempDir,
}

impl Instance {
    async fn start(shared: &Path, redis: &str, upstream: &Upstream, limit: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let text = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [token]\nissuer = \"https://api.example.com\"\nkeys = \"{}\"\n\
             [store]\nmembers = \"sqlite:wxgate.db\"\nsessions = \"{redis}\"\n\
             [wechat]\napi_base = \"{}\"\n[login]\nlimit = {{ by = \"ip\", {limit}, scope = \"shared\" }}\n\
             [[app]]\nappid = \"wx0123456789abcdef\"\nsecret = \"a-secret-of-an-app\"\n\
             [[upstream]]\nname = \"echo\"\nservers = [\"{}\"]\n\
             [[route]]\npath = \"/public/*\"\nupstream = \"echo\"\nauth = \"none\"\n\
             limit = {{ by = \"ip\", {limit}, scope = \"shared\" }}\n",
            shared.display(),
            upstream.url(),
            upstream.url()
        );
        std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
        let mut process = Process::wxgate_in(folder.path(), &["serve"]);
        let (address, admin) = process.line(ready).await;
        Self { process, address, admin, _folder: folder }
    }

    async fn get(&self) -> Response {
        raw::exchange(self.address, "GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap()
    }

    async fn login(&self) -> u16 {
        let body = "{\"code\":\"nobody-knows-it\"}";
        let head = "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        raw::exchange(self.address, request).await.unwrap().status
    }

    /// How many of `n` requests, one after the other, were let through.
    async fn admitted(&self, n: usize) -> usize {
        let mut admitted = 0;
        for _ in 0..n {
            match self.get().await.status {
                200 => admitted += 1,
                429 => {}
                other => panic!("{other}"),
            }
        }
        admitted
    }

    /// Waits until a line of its metrics page has this value.
    async fn until(&self, name: &str, value: usize) {
        let wait = async {
            loop {
                let page = reqwest::get(format!("http://{}/metrics", self.admin)).await.unwrap().text().await.unwrap();
                if page.lines().any(|line| line == format!("{name} {value}")) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{name} was never {value}"));
    }

    async fn until_settled(&self, events: usize) {
        self.until("wxgate_limit_shared_total{outcome=\"settled\"}", events).await;
    }
}

/// Two instances, with what they share.
struct Two {
    first: Instance,
    second: Instance,
    redis: RedisServers,
    _upstream: Upstream,
    _keys: TempDir,
}

async fn two(limit: &str) -> Two {
    let (redis, upstream, keys) = (RedisServers::single(), Upstream::echo().await, TempDir::new().unwrap());
    let shared = keys.path().join("keys");
    let first = Instance::start(&shared, &redis.url(), &upstream, limit).await;
    let second = Instance::start(&shared, &redis.url(), &upstream, limit).await;
    Two { first, second, redis, _upstream: upstream, _keys: keys }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_instance_lets_through_is_gone_at_the_other() {
    let Two { first, second, redis, _upstream, _keys } = two("rate = \"1/h\", burst = 20").await;
    assert_eq!(first.admitted(12).await, 12);
    first.until_settled(12).await;
    // Until it has asked for this caller once, it knows of nothing; from then on it knows of all.
    assert_eq!(second.admitted(1).await, 1);
    second.until_settled(1).await;
    assert_eq!(second.admitted(20).await, 7, "20 in all");
    second.until_settled(8).await;
    let refused = second.get().await;
    assert_eq!(refused.status, 429);
    let number = |text: &str| text.parse::<u64>().unwrap();
    let wait = number(refused.headers.get("retry-after").unwrap());
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert_eq!(refused.headers.get("ratelimit").unwrap(), format!("\"ip\";r=0;t={wait}"));
    assert_eq!(refused.headers.get("ratelimit-policy").unwrap(), "\"ip\";q=20;w=72000");
    // The first has room for what it knows of; one is enough to tell it better, and that one is owed, too.
    assert_eq!(first.admitted(1).await, 1);
    first.until_settled(13).await;
    let refused = first.get().await;
    let wait = number(refused.headers.get("retry-after").unwrap());
    assert!(refused.status == 429 && (7100..=7200).contains(&wait), "{wait}");

    // Logins have a bucket of their own; WeChat knows no such code.
    assert_ne!(first.login().await, 429);
    first.until_settled(14).await;
    // And nobody is named in Redis.
    let port = redis.servers[0].port;
    let keys = cli(port, &["keys", "*:limit:*"]);
    assert_eq!(keys.lines().count(), 2, "{keys}");
    assert!(!keys.contains("127.0.0.1") && !keys.contains("public"), "{keys}");
    let life: u64 = cli(port, &["ttl", keys.lines().next().unwrap()]).trim().parse().unwrap();
    assert!(life <= 22 * 3600, "a bucket goes when it is full again: {life}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_at_both_is_never_more_than_a_burst_of_each_and_is_paid_for() {
    let Two { first, second, redis: _redis, _upstream, _keys } = two("rate = \"1/h\", burst = 30").await;
    let flood = async |instance: &Instance| {
        let answers = join_all((0..100).map(|_| instance.get())).await;
        answers.iter().filter(|answer| answer.status == 200).count()
    };
    let (one, other) = tokio::join!(flood(&first), flood(&second));
    println!("{one} and {other} of a burst of 30 were let through");
    assert!((30..=60).contains(&(one + other)), "{one} and {other}");
    first.until_settled(one).await;
    second.until_settled(other).await;
    // Each has heard of what was there when its last was charged.
    let (more, still) = (first.admitted(5).await, second.admitted(5).await);
    assert!(more + still <= 2, "{more} and {still}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_each_counts_for_itself_and_with_it_they_count_together_again() {
    let Two { mut first, second, mut redis, _upstream, _keys } = two("rate = \"1/h\", burst = 10").await;
    redis.servers[0].kill();
    assert_eq!(first.admitted(1).await, 1);
    first.until("wxgate_limit_alone", 1).await;
    first.until("wxgate_limit_shared_total{outcome=\"alone\"}", 1).await;
    let said = |line: &str| line.contains("limits in common cannot be settled").then_some(());
    first.process.line(said).await;
    assert_eq!(first.admitted(5).await, 5, "it goes on");
    redis.servers[0].run();
    // What it owed since the last failure is settled when Redis is back.
    first.until("wxgate_limit_alone", 0).await;
    first.process.line(|line| line.contains("limits in common are settled again").then_some(())).await;
    assert_eq!(first.process.output().stderr.iter().filter(|line| said(line).is_some()).count(), 1, "said once");
    assert_eq!(first.admitted(10).await, 4, "10 here in any case");
    assert!(second.admitted(1).await == 1);
    second.until("wxgate_limit_alone", 0).await;
    let more = second.admitted(20).await;
    assert!(more <= 9, "{more}");
}
