//! What stands in the tables, and how it is found.

use std::collections::HashSet;

use rusqlite::{Connection, StatementStatus};

use super::folder;
use crate::store::contract::{ACCESS_TTL, REFRESH_TTL, SESSION_TTL, START, app, at, login, person, refresh, token};
use crate::store::sqlite::rotation::SHOWN;
use crate::store::sqlite::{Sqlite, epochs, member_list, sessions};
use crate::store::{Error, Revoked, Sessions};

#[tokio::test]
async fn damage_that_shows_while_running_is_named_damage() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    let session = login("alice", at(0)).session;
    let bad = session.session_id.clone();
    let write = move |db: &Connection| {
        let mut insert = db.prepare_cached(
            "INSERT INTO sessions (session_id, member_id, appid, openid, created_at, expires_at)
             VALUES (?1, 'm', 'wx1', 'a b', 0, 9e15)",
        )?;
        Ok(insert.execute([&bad])?)
    };
    store.write(write).await.unwrap();
    let error = Sessions::find(&*store, &session.session_id, at(1)).await.unwrap_err();
    assert!(matches!(error, Error::Damaged(_)), "{error}");
    assert!(!format!("{error:?}").contains("a b"));
}

#[test]
fn an_ended_session_keeps_no_trace_of_the_person() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    runtime.block_on(async {
        let new = login("oVeryPersonalOpenId", at(0));
        let id = new.session.session_id.clone();
        store.open(new).await.unwrap();
        store.end(&id, at(1), at(2)).await.unwrap();
        store.erase_keys(&app("wx1"), &person("oVeryPersonalOpenId")).await.unwrap();
    });
    let left: i64 = runtime
        .block_on(
            store.read(|db| Ok(db.query_row("SELECT count(*) FROM sessions WHERE openid NOTNULL", [], |r| r.get(0))?)),
        )
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn no_lookup_and_no_sweep_reads_a_whole_table() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    for question in [
        "members WHERE member_id = ?",
        "members WHERE appid = ? AND openid = ?",
        "members WHERE unionid = ?",
        "sessions WHERE session_id = ? AND ended = 0 AND expires_at > ?",
        "sessions WHERE member_id = ? AND appid = ? AND ended = 0 AND expires_at > ?",
        "members WHERE alias_of = ?",
        "members WHERE member_id IN (SELECT coalesce(alias_of, member_id) FROM members WHERE unionid = ?)",
        "member_roles WHERE member_id = ?",
        "epochs WHERE until > ?",
        "epochs WHERE until <= ?",
        "role_changes WHERE until > ?",
        "role_changes WHERE until <= ?",
        "sessions WHERE expires_at <= ?",
        "refresh_tokens t JOIN sessions s ON s.session_id = t.session_id WHERE t.hash = ? AND s.expires_at > ?",
        "refresh_tokens WHERE expires_at <= ?",
        "codes WHERE hash = ?",
        "codes WHERE expires_at <= ?",
        "session_keys WHERE appid = ? AND openid = ?",
        "access_tokens WHERE appid = ? AND line = ?",
        "revocations WHERE until > ?",
        "revocations WHERE until <= ?",
    ] {
        let plan = plan(&store, format!("SELECT * FROM {question}")).await;
        assert!(plan.iter().all(|step| step.starts_with("SEARCH") || step.starts_with("LIST SUBQUERY")), "{plan:?}");
    }
}

async fn plan(store: &Sqlite, statement: String) -> Vec<String> {
    let plan = move |db: &Connection| {
        let mut explain = db.prepare(&format!("EXPLAIN QUERY PLAN {statement}"))?;
        let count = explain.parameter_count();
        let steps = explain.query_map(rusqlite::params_from_iter(vec![0; count]), |row| row.get(3))?;
        Ok(steps.collect::<rusqlite::Result<Vec<String>>>()?)
    };
    store.read(plan).await.unwrap()
}

#[tokio::test]
async fn no_list_reads_more_than_its_page_and_none_is_sorted() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    for question in member_list::QUESTIONS.into_iter().chain(sessions::QUESTIONS) {
        for statement in
            [format!("SELECT * {question} LIMIT 9"), format!("SELECT count(*) FROM (SELECT 1 {question} LIMIT 9)")]
        {
            let plan = plan(&store, statement).await;
            let reads =
                plan.iter().filter(|step| !step.starts_with("CO-ROUTINE") && !step.starts_with("SCAN (subquery"));
            let reads: Vec<_> = reads.collect();
            assert!(!reads.is_empty() && reads.iter().all(|step| step.starts_with("SEARCH")), "{question}: {plan:?}");
        }
    }
    // Each begins where the last page ended, not at the beginning of what it lists.
    for (question, bound) in [
        (member_list::QUESTIONS[0], "member_id<?"),
        (member_list::QUESTIONS[2], "appid=? AND member_id<?"),
        (member_list::QUESTIONS[6], "role=? AND member_id<?"),
        (member_list::QUESTIONS[7], ">("),
        (sessions::QUESTIONS[0], "member_id=? AND session_id<?"),
        (sessions::QUESTIONS[1], "appid=? AND session_id<?"),
    ] {
        let plan = plan(&store, format!("SELECT * {question} LIMIT 9")).await;
        assert!(plan[0].contains(bound), "{question}: {plan:?}");
    }
    let revoked = plan(&store, sessions::REVOKED.to_owned()).await;
    assert!(revoked.len() == 1 && revoked[0].contains("revocations_by_end ((until,session_id)>("), "{revoked:?}");
    let plan = plan(&store, epochs::END_OF_APP.to_owned()).await;
    assert!(plan.iter().any(|step| step.contains("appid=? AND session_id<?")), "{plan:?}");
    assert!(!plan.iter().any(|step| step.starts_with("SCAN")), "{plan:?}");
}

#[tokio::test]
async fn many_revocations_are_read_page_by_page_and_none_is_left_out() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    let many = 2 * i64::from(sessions::READ_AT_ONCE) + 1;
    store
        .write(move |db| {
            // Three ends, so that pages begin and end in the middle of one.
            let fill = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
                 INSERT INTO revocations SELECT 's' || n, ?2 + n % 3 FROM n";
            Ok(db.execute(fill, (many, at(600)))?)
        })
        .await
        .unwrap();
    let of = |revoked: Vec<Revoked>| revoked.into_iter().map(|one| one.session_id).collect::<HashSet<_>>().len() as i64;
    let all = store.revoked(at(599)).await.unwrap();
    assert_eq!((all.len() as i64, of(all)), (many, many));
    // What ends now is over.
    let later = store.revoked(at(600)).await.unwrap();
    assert_eq!(of(later), many - many / 3);
}

#[tokio::test]
async fn a_sweep_counts_the_rows_that_went() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    let ended = login("bob", START);
    let id = ended.session.session_id.clone();
    store.open(login("alice", START)).await.unwrap();
    store.open(ended).await.unwrap();
    store.rotate(token("alice-0"), token("alice-1"), refresh(at(60))).await.unwrap();
    store.end(&id, START, at(600)).await.unwrap();
    assert_eq!(store.sweep(at(299)).await.unwrap(), 0);
    assert_eq!(store.sweep(at(300)).await.unwrap(), 2, "two codes");
    assert_eq!(store.sweep(START.plus(ACCESS_TTL)).await.unwrap(), 1, "the revocation");
    assert_eq!(store.sweep(START.plus(REFRESH_TTL)).await.unwrap(), 2, "the first refresh token of each");
    assert_eq!(store.sweep(START.plus(SESSION_TTL)).await.unwrap(), 3, "the successor and both sessions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_of_more_than_one_batch_takes_all() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    let logins: Vec<_> = (0..1100)
        .map(|n| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move { store.open(login(&format!("member{n}"), START)).await.unwrap() })
        })
        .collect();
    for one in logins {
        one.await.unwrap();
    }
    assert_eq!(store.sweep(START.plus(SESSION_TTL)).await.unwrap(), 3 * 1100);
    assert_eq!(store.sweep(START.plus(SESSION_TTL)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_statement_is_made_once_whatever_it_is_asked_about() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    for n in 0..10 {
        store.open(login(&format!("member{n}"), at(n))).await.unwrap();
        let (shown, successor) = (token(&format!("member{n}-0")), token(&format!("member{n}-1")));
        store.rotate(shown, successor, refresh(at(n + 1))).await.unwrap();
    }
    let made_again = store.write(|db| Ok(db.prepare_cached(SHOWN)?.get_status(StatementStatus::RePrepare))).await;
    assert_eq!(made_again.unwrap(), 0);
}
