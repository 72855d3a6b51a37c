//! The schema, as a list of steps that only goes forward.
//!
//! `user_version` says how many steps a file has seen. Each step is one transaction together with its number, so that a
//! crash leaves the step done or not done. A step that was released is never edited: a change is a new step.

use rusqlite::{Connection, TransactionBehavior};

/// `application_id` of our files ("wxga"): tells them from any other SQLite database.
pub(super) const APPLICATION_ID: i32 = 0x7778_6761;

const STEPS: &[&str] = &[FIRST, ACCESS_TOKENS, ACCESS_UNTIL, DIRECTORY, KEY_BUNDLE];

/// Newest version that this build knows.
pub(super) fn newest() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// Version of the file.
pub(super) fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Takes the file to [`newest`], step by step.
pub(super) fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    run(db, STEPS)
}

fn run(db: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    let done = usize::try_from(version(db)?).unwrap_or(0);
    for (index, step) in steps.iter().enumerate().skip(done) {
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", i64::try_from(index + 1).unwrap_or(i64::MAX))?;
        transaction.commit()?;
    }
    Ok(())
}

// Times are milliseconds since 1970. `STRICT` refuses a value of another type than its column's. Tables whose key is a
// hash or an id are `WITHOUT ROWID`: one tree instead of two, one page less to write. Every lookup and every sweep
// below has its index; `tests` asks SQLite for its plans.
const FIRST: &str = "
CREATE TABLE origin (
    birth_mark TEXT NOT NULL
) STRICT;
INSERT INTO origin VALUES (lower(hex(randomblob(16))));

CREATE TABLE members (
    member_id     TEXT NOT NULL PRIMARY KEY,
    appid         TEXT NOT NULL,
    openid        TEXT NOT NULL,
    unionid       TEXT,
    nickname      TEXT NOT NULL DEFAULT '',
    avatar_url    TEXT NOT NULL DEFAULT '',
    phone         TEXT NOT NULL DEFAULT '',
    roles         TEXT NOT NULL DEFAULT '[]',  -- JSON array of strings
    banned        INTEGER NOT NULL DEFAULT 0 CHECK (banned IN (0, 1)),
    created_at    INTEGER NOT NULL,
    last_login_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX members_by_openid ON members (appid, openid);
CREATE INDEX members_by_unionid ON members (unionid) WHERE unionid IS NOT NULL;

CREATE TABLE sessions (
    session_id TEXT NOT NULL PRIMARY KEY,
    member_id  TEXT NOT NULL,
    appid      TEXT NOT NULL,
    openid     TEXT,                           -- NULL once the session was ended: the person is forgotten
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ended      INTEGER NOT NULL DEFAULT 0 CHECK (ended IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_member ON sessions (member_id, appid) WHERE ended = 0;
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- One row per token that was ever issued and would not have expired yet, so that reuse of any generation is noticed.
CREATE TABLE refresh_tokens (
    hash       BLOB NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    session_id TEXT NOT NULL,
    issued_at  INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER,
    successor  BLOB CHECK (length(successor) = 32),
    CHECK ((used_at IS NULL) = (successor IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

CREATE TABLE codes (
    hash       BLOB NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    session_id TEXT NOT NULL,
    used_at    INTEGER NOT NULL,
    is_new     INTEGER NOT NULL CHECK (is_new IN (0, 1)),
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX codes_by_expiry ON codes (expires_at);

-- Both keys of a person in one row: a login reads and writes one page.
CREATE TABLE session_keys (
    appid       TEXT NOT NULL,
    openid      TEXT NOT NULL,
    newest      BLOB NOT NULL,
    newest_at   INTEGER NOT NULL,
    previous    BLOB,
    previous_at INTEGER,
    PRIMARY KEY (appid, openid)
) STRICT, WITHOUT ROWID;

CREATE TABLE revocations (
    session_id TEXT NOT NULL PRIMARY KEY,
    until      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX revocations_by_end ON revocations (until);
";

const ACCESS_TOKENS: &str = "
-- One row per app and line of tokens: the newest.
CREATE TABLE access_tokens (
    appid      TEXT NOT NULL,
    line       TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (appid, line)
) STRICT, WITHOUT ROWID;
";

// How long the access tokens lived that were minted before is not known, but none outlives its session.
const ACCESS_UNTIL: &str = "
-- When the last access token of the session has expired, at the latest.
ALTER TABLE sessions ADD COLUMN access_until INTEGER NOT NULL DEFAULT 0;
UPDATE sessions SET access_until = expires_at;
";

// What an operator lists, searches and ends, and what overrides tokens. A member id begins with the time (UUIDv7), so
// that its order is that of registration.
const DIRECTORY: &str = "
-- A row with `alias_of` is one more app and openid of that member, and holds nothing else of him.
ALTER TABLE members ADD COLUMN alias_of TEXT;
ALTER TABLE members ADD COLUMN ban_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE members ADD COLUMN hook_roles TEXT NOT NULL DEFAULT '[]';  -- JSON array of strings; `roles` are the operators'
ALTER TABLE members ADD COLUMN user_id TEXT;
ALTER TABLE members ADD COLUMN claims TEXT NOT NULL DEFAULT '';        -- JSON object
CREATE INDEX members_by_alias ON members (alias_of) WHERE alias_of IS NOT NULL;
CREATE INDEX members_by_app ON members (appid, member_id);
CREATE INDEX members_by_openid_alone ON members (openid);
CREATE INDEX members_by_phone ON members (phone) WHERE phone <> '';
-- In a column of its own: of an expression SQLite does not search the pair with the id, and thousands share one nickname.
ALTER TABLE members ADD COLUMN nickname_folded TEXT NOT NULL GENERATED ALWAYS AS (lower(nickname)) VIRTUAL;
CREATE INDEX members_by_nickname ON members (nickname_folded, member_id) WHERE nickname <> '';
CREATE INDEX members_banned ON members (member_id) WHERE banned = 1;

-- Every role of every member, whoever gave it.
CREATE TABLE member_roles (
    role      TEXT NOT NULL,
    member_id TEXT NOT NULL,
    PRIMARY KEY (role, member_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX member_roles_by_member ON member_roles (member_id);
INSERT INTO member_roles SELECT DISTINCT r.value, m.member_id FROM members m, json_each(m.roles) r;

DROP INDEX sessions_by_member;
CREATE INDEX sessions_of_member ON sessions (member_id, session_id) WHERE ended = 0;
CREATE INDEX sessions_of_app ON sessions (appid, session_id) WHERE ended = 0;

CREATE TABLE epochs (
    of    TEXT NOT NULL CHECK (of IN ('member', 'app')),
    id    TEXT NOT NULL,
    at    INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (of, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX epochs_by_end ON epochs (until);

-- Roles that were changed, until the last token with others has expired.
CREATE TABLE role_changes (
    member_id TEXT NOT NULL PRIMARY KEY,
    roles     TEXT NOT NULL,                   -- JSON array of strings
    at        INTEGER NOT NULL,
    until     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX role_changes_by_end ON role_changes (until);
";

const KEY_BUNDLE: &str = "
-- The keys of the deployment, sealed, where `[token] keys` is \"store\".
CREATE TABLE key_bundle (
    one    INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    sealed BLOB NOT NULL
) STRICT;
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_done_once_and_a_failing_one_leaves_the_version_before_it() {
        let mut db = Connection::open_in_memory().unwrap();
        let good = "CREATE TABLE a (x) STRICT_TYPO";
        run(&mut db, &["CREATE TABLE a (x)", "CREATE TABLE b (x); INSERT INTO missing VALUES (1)"]).unwrap_err();
        assert_eq!(version(&db).unwrap(), 1);
        assert!(db.prepare("SELECT * FROM b").is_err(), "the half of the failed step is undone");

        run(&mut db, &[good, "CREATE TABLE b (x)"]).unwrap();
        assert_eq!(version(&db).unwrap(), 2);
    }

    #[test]
    fn a_session_of_an_older_file_counts_on_access_tokens_that_live_as_long_as_it_does() {
        let mut db = Connection::open_in_memory().unwrap();
        run(&mut db, &STEPS[..2]).unwrap();
        let insert =
            "INSERT INTO sessions (session_id, member_id, appid, created_at, expires_at) VALUES ('s', 'm', 'a', 1, 9)";
        db.execute_batch(insert).unwrap();
        migrate(&mut db).unwrap();
        let until: i64 = db.query_row("SELECT access_until FROM sessions", [], |row| row.get(0)).unwrap();
        assert_eq!(until, 9);
    }

    #[test]
    fn members_of_an_older_file_are_found_by_their_roles() {
        let mut db = Connection::open_in_memory().unwrap();
        run(&mut db, &STEPS[..3]).unwrap();
        let insert = "INSERT INTO members (member_id, appid, openid, roles, created_at, last_login_at)
             VALUES ('m', 'a', 'o', '[\"admin\",\"vip\"]', 1, 1), ('n', 'a', 'p', '[]', 1, 1)";
        db.execute_batch(insert).unwrap();
        migrate(&mut db).unwrap();
        let mut roles = db.prepare("SELECT role, member_id FROM member_roles ORDER BY role").unwrap();
        let roles = roles.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let roles: Vec<(String, String)> = roles.collect::<Result<_, _>>().unwrap();
        assert_eq!(roles, [("admin".into(), "m".into()), ("vip".into(), "m".into())]);
    }

    #[test]
    fn a_new_file_gets_the_newest_version_and_a_birth_mark_of_its_own() {
        let mark = || {
            let mut db = Connection::open_in_memory().unwrap();
            migrate(&mut db).unwrap();
            migrate(&mut db).unwrap();
            assert_eq!(version(&db).unwrap(), newest());
            super::super::birth_mark(&db).unwrap()
        };
        let (first, second) = (mark(), mark());
        assert_eq!(first.len(), 32);
        assert_ne!(first, second);
    }
}
