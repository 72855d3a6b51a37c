//! That it does what every store of members does, and what is particular to Postgres.

mod gathered;

#[path = "../../../../tests/gateway/support/postgres.rs"]
mod server;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::Postgres;
use crate::config::{self, MembersStore, database};
use crate::store::{Members, held};
use server::PostgresServer;

/// Tables of its own, in the server that all tests of this process share.
pub(super) async fn database() -> config::Postgres {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    database_in(SERVER.get_or_init(PostgresServer::start))
}

/// Tables in this server.
pub(super) fn database_in(server: &PostgresServer) -> config::Postgres {
    let url = server.url_of_new_schema(&format!("s{}", uuid::Uuid::now_v7().simple()));
    let MembersStore::Postgres(address) = database::members(&url, Path::new("/")).unwrap() else { panic!("{url}") };
    address
}

async fn store() -> (Arc<dyn Members>, ()) {
    (Postgres::open(&database().await).await.unwrap(), ())
}

mod contract_of_members {
    use super::store;
    crate::store::contract::members_contract!(store());
}
