//! That it does what every store does: on one server and on a cluster of three.

#[path = "../../../../tests/gateway/support/redis.rs"]
mod server;

use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;

use super::Redis;
use crate::config::SessionsStore;
use crate::config::database;
use crate::store::{Sessions, held};
use server::RedisServers;

/// A store of its own in the servers that all tests of this process share.
async fn store_in(servers: &'static RedisServers) -> (Arc<dyn Sessions>, ()) {
    let prefix = uuid::Uuid::now_v7().simple().to_string();
    let url = format!("{}?prefix={prefix}", servers.url());
    let SessionsStore::Redis(address) = database::sessions(&url, Path::new("/")).unwrap() else { panic!("{url}") };
    (Redis::open(&address).await.unwrap(), ())
}

async fn on_one_server() -> (Arc<dyn Sessions>, ()) {
    static SERVERS: OnceLock<RedisServers> = OnceLock::new();
    store_in(SERVERS.get_or_init(RedisServers::single)).await
}

async fn on_a_cluster() -> (Arc<dyn Sessions>, ()) {
    static SERVERS: OnceLock<RedisServers> = OnceLock::new();
    store_in(SERVERS.get_or_init(RedisServers::cluster)).await
}

mod contract_on_one_server {
    use super::on_one_server;
    crate::store::contract::sessions_contract!(on_one_server());
}

mod contract_on_a_cluster {
    use super::on_a_cluster;
    crate::store::contract::sessions_contract!(on_a_cluster());
}
