//! That it does what every store does: on one server and on a cluster of three. And that instances hear of each other.

#[path = "../../../../tests/gateway/support/redis.rs"]
mod server;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Redis;
use super::simulated::HERE;
use crate::clock::Timestamp;
use crate::config::SessionsStore;
use crate::config::database;
use crate::ids::{MemberId, SessionId};
use crate::store::shared::{News, Shared};
use crate::store::{NewRoles, Notice, Revoked, Sessions, held};
use server::RedisServers;

/// A store of its own in the servers that all tests of this process share.
async fn store_in(servers: &'static RedisServers) -> Arc<Redis> {
    let prefix = uuid::Uuid::now_v7().simple().to_string();
    let url = format!("{}?prefix={prefix}", servers.url());
    let SessionsStore::Redis(address) = database::sessions(&url, Path::new("/")).unwrap() else { panic!("{url}") };
    Redis::open(&address).await.unwrap()
}

async fn on_one_server() -> Arc<Redis> {
    static SERVERS: OnceLock<RedisServers> = OnceLock::new();
    store_in(SERVERS.get_or_init(RedisServers::single)).await
}

/// What the simulation takes for a Redis: it does what Redis does.
async fn on_the_simulated_server() -> Arc<Redis> {
    let prefix = uuid::Uuid::now_v7().simple().to_string();
    let url = format!("redis://{HERE}?prefix={prefix}");
    let SessionsStore::Redis(address) = database::sessions(&url, Path::new("/")).unwrap() else { panic!("{url}") };
    Redis::open(&address).await.unwrap()
}

async fn on_a_cluster() -> Arc<Redis> {
    static SERVERS: OnceLock<RedisServers> = OnceLock::new();
    store_in(SERVERS.get_or_init(RedisServers::cluster)).await
}

mod contract_on_one_server {
    use super::*;
    crate::store::contract::sessions_contract!(async { (on_one_server().await as Arc<dyn Sessions>, ()) });
}

mod contract_on_a_cluster {
    use super::*;
    crate::store::contract::sessions_contract!(async { (on_a_cluster().await as Arc<dyn Sessions>, ()) });
}

mod contract_on_the_simulated_server {
    use super::*;
    crate::store::contract::sessions_contract!(async { (on_the_simulated_server().await as Arc<dyn Sessions>, ()) });
}

mod contract_of_shared_on_the_simulated_server {
    use super::*;
    crate::store::contract::shared_contract!(async { (on_the_simulated_server().await as Arc<dyn Shared>, ()) });
}

mod contract_of_shared_on_one_server {
    use super::*;
    crate::store::contract::shared_contract!(async { (on_one_server().await as Arc<dyn Shared>, ()) });
}

mod contract_of_shared_on_a_cluster {
    use super::*;
    crate::store::contract::shared_contract!(async { (on_a_cluster().await as Arc<dyn Shared>, ()) });
}

/// Where one instance is in the news, and what it hears.
struct Hearer(Arc<Redis>, Option<String>);

impl Hearer {
    async fn hear(&mut self) -> Option<Vec<Notice>> {
        let News { position, notices, .. } = self.0.news(self.1.as_deref()).await.unwrap().unwrap();
        self.1 = position;
        notices
    }
}

#[tokio::test]
async fn each_instance_hears_everything_once_and_reads_anew_when_its_place_is_gone() {
    let store = on_one_server().await;
    let start = Timestamp::from_secs(1_763_688_000);
    let mut hearer = Hearer(Arc::clone(&store), None);
    assert_eq!(hearer.hear().await, None, "the first time there is everything to read");
    assert_eq!(hearer.hear().await, Some(Vec::new()));
    let session = SessionId::parse("s").unwrap();
    let roles = NewRoles {
        member_id: MemberId::parse("m").unwrap(),
        roles: vec!["vip".to_owned(), "a b".to_owned()],
        at: start,
        until: start.plus(Duration::from_secs(60)),
    };
    store.end(&session, start, start.plus(Duration::from_secs(60))).await.unwrap();
    store.announce_roles(roles.clone()).await.unwrap();
    let ended = Revoked { session_id: session, until: start.plus(Duration::from_secs(60)) };
    assert_eq!(hearer.hear().await, Some(vec![Notice::Session(ended), Notice::Roles(roles)]));
    assert_eq!(hearer.hear().await, Some(Vec::new()));
    // As after a failover to a replica that had not got it.
    hearer.1 = Some("1-1".to_owned());
    assert_eq!(hearer.hear().await, None);
    assert_eq!(hearer.hear().await, Some(Vec::new()));
}
