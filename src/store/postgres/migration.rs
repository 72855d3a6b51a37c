//! The schema, as a list of steps that only goes forward.
//!
//! The number of steps that were done stands in `wxgate_schema`. All that is missing is done in one transaction, under a
//! lock of the whole database, so that of several instances that start at once one does it and the others find it done. A
//! step that was released is never edited: a change is a new step.

use deadpool_postgres::Object;

use super::OpenError;

/// Key of the lock ("wxgate" in ASCII). Held until the transaction ends.
const LOCK: i64 = 0x7778_6761_7465;

const STEPS: &[&str] = &[FIRST];

// Times are milliseconds since 1970. Ids are compared byte by byte, whatever the language of the database. A member id
// begins with the time (UUIDv7), so that its order is that of registration.
const FIRST: &str = r#"
-- A row with `alias_of` is one more app and openid of that member, and holds nothing else of him.
CREATE TABLE members (
    member_id       TEXT COLLATE "C" PRIMARY KEY,
    appid           TEXT COLLATE "C" NOT NULL,
    openid          TEXT COLLATE "C" NOT NULL,
    unionid         TEXT COLLATE "C",
    alias_of        TEXT COLLATE "C",
    nickname        TEXT NOT NULL DEFAULT '',
    nickname_folded TEXT COLLATE "C" NOT NULL GENERATED ALWAYS AS (lower(nickname COLLATE "C")) STORED,
    avatar_url      TEXT NOT NULL DEFAULT '',
    phone           TEXT COLLATE "C" NOT NULL DEFAULT '',
    roles           TEXT[] NOT NULL DEFAULT '{}',  -- the operators'
    hook_roles      TEXT[] NOT NULL DEFAULT '{}',
    user_id         TEXT,
    claims          TEXT NOT NULL DEFAULT '',      -- JSON object
    banned          BOOLEAN NOT NULL DEFAULT FALSE,
    ban_reason      TEXT NOT NULL DEFAULT '',
    created_at      BIGINT NOT NULL,
    last_login_at   BIGINT NOT NULL
);
CREATE UNIQUE INDEX members_by_person ON members (appid, openid);
CREATE INDEX members_by_app ON members (appid, member_id);
CREATE INDEX members_by_openid ON members (openid, member_id);
CREATE INDEX members_by_unionid ON members (unionid, member_id) WHERE unionid IS NOT NULL;
CREATE INDEX members_by_alias ON members (alias_of, member_id) WHERE alias_of IS NOT NULL;
CREATE INDEX members_by_phone ON members (phone, member_id) WHERE phone <> '';
CREATE INDEX members_by_nickname ON members (nickname_folded, member_id) WHERE nickname <> '';
CREATE INDEX members_on_their_own ON members (member_id) WHERE alias_of IS NULL;
CREATE INDEX members_banned ON members (member_id) WHERE banned;

-- Every role of every member, whoever gave it.
CREATE TABLE member_roles (
    role      TEXT COLLATE "C" NOT NULL,
    member_id TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (role, member_id)
);
CREATE INDEX member_roles_by_member ON member_roles (member_id);
"#;

/// Newest version that this build knows.
fn newest() -> i32 {
    i32::try_from(STEPS.len()).unwrap_or(i32::MAX)
}

/// Takes the tables to [`newest`].
pub(super) async fn migrate(client: &mut Object) -> Result<(), OpenError> {
    run(client, STEPS).await
}

async fn run(client: &mut Object, steps: &[&str]) -> Result<(), OpenError> {
    let transaction = client.transaction().await.map_err(OpenError::Schema)?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await.map_err(OpenError::Schema)?;
    transaction
        .batch_execute("CREATE TABLE IF NOT EXISTS wxgate_schema (version INTEGER NOT NULL)")
        .await
        .map_err(OpenError::Schema)?;
    let found = transaction.query_opt("SELECT version FROM wxgate_schema", &[]).await.map_err(OpenError::Schema)?;
    let found: i32 = found.map_or(Ok(0), |row| row.try_get(0)).map_err(OpenError::Schema)?;
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    if done > steps.len() {
        return Err(OpenError::TooNew { found, newest: newest() });
    }
    for step in &steps[done..] {
        transaction.batch_execute(step).await.map_err(OpenError::Schema)?;
    }
    if done < steps.len() {
        transaction.execute("DELETE FROM wxgate_schema", &[]).await.map_err(OpenError::Schema)?;
        let version = i32::try_from(steps.len()).unwrap_or(i32::MAX);
        transaction
            .execute("INSERT INTO wxgate_schema (version) VALUES ($1)", &[&version])
            .await
            .map_err(OpenError::Schema)?;
    }
    transaction.commit().await.map_err(OpenError::Schema)
}

#[cfg(test)]
mod tests {
    use super::super::tests::database;
    use super::*;

    async fn version(client: &Object) -> i32 {
        client.query_one("SELECT version FROM wxgate_schema", &[]).await.unwrap().get(0)
    }

    #[tokio::test]
    async fn of_instances_that_start_at_once_one_makes_the_tables() {
        let address = database().await;
        let opened = (0..8).map(|_| super::super::Postgres::open(&address));
        for opened in futures_util::future::join_all(opened).await {
            let client = opened.unwrap().client().await.unwrap();
            assert_eq!(version(&client).await, newest());
        }
    }

    #[tokio::test]
    async fn each_step_is_done_once_and_a_failing_one_undoes_all_of_its_start() {
        let address = database().await;
        let postgres = super::super::Postgres::open(&address).await.unwrap();
        let mut client = postgres.client().await.unwrap();
        let more = [FIRST, "CREATE TABLE a (x INT)", "CREATE TABLE a (x INT)"];
        assert!(matches!(run(&mut client, &more).await, Err(OpenError::Schema(_))));
        assert_eq!(version(&client).await, 1);
        assert!(client.query("SELECT * FROM a", &[]).await.is_err());
        run(&mut client, &more[..2]).await.unwrap();
        assert_eq!(version(&client).await, 2);
    }

    #[tokio::test]
    async fn tables_of_a_newer_version_are_refused_and_left_alone() {
        let address = database().await;
        let postgres = super::super::Postgres::open(&address).await.unwrap();
        let client = postgres.client().await.unwrap();
        client.execute("UPDATE wxgate_schema SET version = 1000", &[]).await.unwrap();
        let refused = super::super::Postgres::open(&address).await.unwrap_err();
        assert!(refused.to_string().contains("version 1000"), "{refused}");
        assert_eq!(version(&client).await, 1000);
    }
}
