//! That it does what every store does: on one server and on a cluster of three. And that instances hear of each other
//! ([`hearing`]), and what a crash in the middle leaves ([`broken_off`]).

mod broken_off;
mod hearing;

#[path = "../../../../tests/gateway/support/redis.rs"]
mod server;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::Redis;
use super::simulated::HERE;
use crate::config::SessionsStore;
use crate::config::database;
use crate::store::shared::Shared;
use crate::store::{Sessions, held};
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
