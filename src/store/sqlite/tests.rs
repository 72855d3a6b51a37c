//! What is particular to SQLite: group commit, what a fault does to the jobs around it, files that are not whole, one
//! process at a time. That it does what every store does is at the end.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::{Limits, OpenError, Sqlite};
use crate::store::contract::{app, at, key, login, person, refresh, token};
use crate::store::{Error, Members, Rotation, Sessions, SignIn};

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/wxgate.db");
    (folder, path)
}

async fn with<S: ?Sized>(cast: fn(Arc<Sqlite>) -> Arc<S>) -> (Arc<S>, TempDir) {
    let (folder, path) = folder();
    (cast(Sqlite::open(&path).unwrap()), folder)
}

/// Holds the writer inside a job, runs `meanwhile`, lets it go.
async fn while_the_writer_is_busy<T>(store: &Arc<Sqlite>, meanwhile: impl Future<Output = T>) -> T {
    let (entered, has_entered) = tokio::sync::oneshot::channel();
    let (go, wait) = mpsc::channel::<()>();
    let busy = Arc::clone(store);
    let job = tokio::spawn(async move {
        busy.write(move |_| {
            entered.send(()).unwrap();
            wait.recv().ok();
            Ok(())
        })
        .await
    });
    has_entered.await.unwrap();
    let result = meanwhile.await;
    drop(go);
    let _ = job.await.unwrap();
    result
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_that_arrive_together_share_a_commit() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    let logins = while_the_writer_is_busy(&store, async {
        let logins: Vec<_> = (0..100)
            .map(|n| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { store.open(login(&format!("member{n}"), at(0))).await })
            })
            .collect();
        while store.queue_depth() < 100 {
            tokio::task::yield_now().await;
        }
        logins
    })
    .await;
    for one in logins {
        one.await.unwrap().unwrap();
    }
    assert_eq!(store.jobs(), 101);
    assert_eq!(store.commits(), 2, "the one that was busy, and one for all that waited");
    assert_eq!(store.queue_depth(), 0);
}

#[tokio::test]
async fn a_job_that_fails_or_panics_takes_no_other_job_with_it() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    store.open(login("alice", at(0))).await.unwrap();
    let (good, twice, panicking, good_too) = while_the_writer_is_busy(&store, async {
        let spawn = |name: &str| {
            let (store, new) = (Arc::clone(&store), login(name, at(0)));
            tokio::spawn(async move { store.open(new).await })
        };
        let (good, twice) = (spawn("bob"), spawn("alice"));
        let panicking = {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                store
                    .write::<(), _>(|db| {
                        db.execute("DELETE FROM sessions", [])?;
                        panic!("a test panics in a job")
                    })
                    .await
            })
        };
        let good_too = spawn("carol");
        while store.queue_depth() < 4 {
            tokio::task::yield_now().await;
        }
        (good, twice, panicking, good_too)
    })
    .await;
    assert!(good.await.unwrap().is_ok());
    assert!(matches!(twice.await.unwrap(), Err(Error::Damaged(_))));
    assert!(matches!(panicking.await.unwrap(), Err(Error::Unavailable(_))));
    assert!(good_too.await.unwrap().is_ok());
    for name in ["alice-0", "bob-0", "carol-0"] {
        assert!(store.find_by_refresh(token(name), at(1)).await.unwrap().is_some(), "{name}");
    }
}

#[tokio::test]
async fn a_commit_that_fails_acknowledges_nobody() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    // A deferred constraint is looked at by COMMIT only, and fails it as a disk would.
    store
        .write(|db| {
            Ok(db.execute_batch(
                "CREATE TEMP TABLE parent (id INTEGER PRIMARY KEY);
                 CREATE TEMP TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED);",
            )?)
        })
        .await
        .unwrap();
    let (orphan, innocent) = while_the_writer_is_busy(&store, async {
        let broken = Arc::clone(&store);
        let orphan =
            tokio::spawn(async move { broken.write(|db| Ok(db.execute("INSERT INTO child VALUES (7)", [])?)).await });
        let other = Arc::clone(&store);
        let innocent = tokio::spawn(async move { other.open(login("alice", at(0))).await });
        while store.queue_depth() < 2 {
            tokio::task::yield_now().await;
        }
        (orphan, innocent)
    })
    .await;
    assert!(orphan.await.unwrap().is_err());
    assert!(innocent.await.unwrap().is_err());
    assert!(store.find_by_refresh(token("alice-0"), at(1)).await.unwrap().is_none());
    store.open(login("alice", at(0))).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_logins_and_recovers_by_itself() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    let limit = |pages: i64| {
        let store = &store;
        async move {
            let set = move |db: &Connection| Ok(db.pragma_update(None, "max_page_count", pages)?);
            store.write(set).await.unwrap();
        }
    };
    limit(1).await; // SQLite takes it as "no more pages than now"
    let mut accepted = 0;
    let refused = loop {
        match store.open(login(&format!("member{accepted}"), at(0))).await {
            Ok(()) => accepted += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
    Sessions::ping(&*store).await.unwrap();
    limit(i64::from(u32::MAX >> 1)).await;
    store.open(login(&format!("member{accepted}"), at(0))).await.unwrap();
    for n in 0..=accepted {
        let found = store.find_by_refresh(token(&format!("member{n}-0")), at(1)).await.unwrap();
        assert!(found.is_some(), "member{n}");
    }
}

#[tokio::test]
async fn a_job_that_waited_too_long_is_refused_and_never_done() {
    let (_folder, path) = folder();
    let limits = Limits { deadline: Duration::from_millis(50), queue: 1, ..Limits::default() };
    let store = Sqlite::open_within(&path, limits).unwrap();
    while_the_writer_is_busy(&store, async {
        let (queued, without_room) = tokio::join!(store.open(login("alice", at(0))), store.open(login("bob", at(0))));
        assert!(matches!(queued, Err(Error::Unavailable(_))));
        assert!(matches!(without_room, Err(Error::Unavailable(_))));
        // Reading goes on meanwhile.
        assert!(store.find_by_refresh(token("alice-0"), at(1)).await.unwrap().is_none());
    })
    .await;
    Sessions::ping(&*store).await.unwrap();
    for name in ["alice-0", "bob-0"] {
        assert!(store.find_by_refresh(token(name), at(1)).await.unwrap().is_none(), "{name}");
    }
}

#[tokio::test]
async fn the_disk_as_a_crash_leaves_it_holds_all_that_was_answered() {
    let (folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    let mark = store.birth_mark().to_owned();
    for n in 0..20 {
        store.open(login(&format!("member{n}"), at(0))).await.unwrap();
    }
    store.rotate(token("member0-0"), token("member0-1"), refresh(at(10))).await.unwrap();
    // The files while the store is open are what a killed process leaves behind: nothing was moved or closed.
    let crashed = copy(&path, folder.path(), "crashed", usize::MAX);
    let store = Sqlite::open(&crashed).unwrap();
    assert_eq!(store.birth_mark(), mark);
    for n in 0..20 {
        assert!(store.find_by_refresh(token(&format!("member{n}-0")), at(20)).await.unwrap().is_some(), "{n}");
    }
    let again = store.rotate(token("member0-0"), token("member0-1"), refresh(at(20))).await.unwrap();
    assert!(matches!(again, Rotation::Rotated { .. }));
}

#[tokio::test]
async fn a_log_torn_anywhere_gives_whole_logins_up_to_some_point_and_none_after() {
    let (folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    for n in 0..8 {
        store.open(login(&format!("member{n}"), at(0))).await.unwrap();
    }
    let length = usize::try_from(fs::metadata(with_ending(&path, "-wal")).unwrap().len()).unwrap();
    for part in 0..12 {
        let torn = copy(&path, folder.path(), &format!("torn{part}"), length * part / 12 + 13 * part);
        let store = Sqlite::open(&torn).unwrap();
        let mut survived = Vec::new();
        for n in 0..8 {
            let name = format!("member{n}");
            let session = store.find_by_refresh(token(&format!("{name}-0")), at(1)).await.unwrap();
            let keys = store.session_keys(&app("wx1"), &person(&name)).await.unwrap();
            assert_eq!(session.is_some(), keys == [key(&name, at(0))], "a login is there as a whole or not at all");
            survived.push(session.is_some());
        }
        assert!(survived.is_sorted_by(|a, b| a >= b), "{survived:?}");
    }
}

#[tokio::test]
async fn a_store_that_was_closed_opens_with_all_it_had_and_frees_its_lock() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    let who = SignIn { appid: app("wx1"), openid: person("alice"), unionid: None, at: at(0) };
    let (member, _) = store.sign_in(who).await.unwrap();
    drop(store);
    let store = Sqlite::open(&path).unwrap();
    assert_eq!(Members::find(&*store, &member.member_id).await.unwrap(), Some(member));
}

#[test]
fn a_second_gateway_on_the_same_database_is_told_who_has_it() {
    let (folder, path) = folder();
    let _first = Sqlite::open(&path).unwrap();
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for name in [&path, &link] {
        let error = Sqlite::open(name).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    }
}

#[test]
fn database_and_directory_are_made_for_the_owner_only() {
    let (_folder, path) = folder();
    let _store = Sqlite::open(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for ending in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&with_ending(&path, ending)), 0o600, "{ending}");
    }
}

#[test]
fn a_database_that_others_can_read_is_closed_to_them() {
    let (_folder, path) = folder();
    drop(Sqlite::open(&path).unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let _store = Sqlite::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_file_that_is_not_whole_is_refused_and_left_as_it_is() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    for n in 0..50 {
        store.open(login(&format!("member{n}"), at(0))).await.unwrap();
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    let scribbled = {
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4096].fill(0xa5);
        bytes
    };
    let beheaded = [&[0; 16][..], &whole[16..]].concat();
    let cut_in_a_page = whole[..whole.len() - 100].to_vec();
    let cut_in_half = whole[..whole.len() / 8192 * 4096].to_vec();
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("ten bytes", whole[..10].to_vec()),
        ("header only", whole[..100].to_vec()),
        ("cut in a page", cut_in_a_page),
        ("cut in half", cut_in_half),
        ("scribbled", scribbled),
        ("beheaded", beheaded),
        ("text", b"this is not a database, it is a shopping list".to_vec()),
    ] {
        fs::write(&path, &bytes).unwrap();
        let error = Sqlite::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().contains("restore it from a backup"), "{what}: {error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{what}");
    }
    fs::write(&path, &whole).unwrap();
    Sqlite::open(&path).unwrap();
}

#[test]
fn a_log_without_its_database_is_refused() {
    let (_folder, path) = folder();
    drop(Sqlite::open(&path).unwrap());
    fs::rename(&path, with_ending(&path, "-wal")).unwrap();
    let error = Sqlite::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
}

#[test]
fn a_start_that_was_cut_off_while_making_the_database_does_not_stop_the_next() {
    let (_folder, path) = folder();
    fs::create_dir(path.parent().unwrap()).unwrap();
    for ending in [".new", ".new-wal"] {
        fs::write(with_ending(&path, ending), "half").unwrap();
    }
    Sqlite::open(&path).unwrap();
    assert!(!with_ending(&path, ".new").exists());
}

#[test]
fn a_database_of_another_program_or_a_newer_build_is_refused_untouched() {
    let (_folder, path) = folder();
    fs::create_dir(path.parent().unwrap()).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE shopping (item)").unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(Sqlite::open(&path).unwrap_err(), OpenError::Foreign { .. }));
    assert_eq!(fs::read(&path).unwrap(), before);

    fs::remove_file(&path).unwrap();
    drop(Sqlite::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Sqlite::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
}

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
        Ok(insert.execute([bad])?)
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
        "sessions WHERE expires_at <= ?",
        "refresh_tokens t JOIN sessions s ON s.session_id = t.session_id WHERE t.hash = ? AND s.expires_at > ?",
        "refresh_tokens WHERE expires_at <= ?",
        "codes WHERE hash = ?",
        "codes WHERE expires_at <= ?",
        "session_keys WHERE appid = ? AND openid = ?",
        "revocations WHERE until > ?",
        "revocations WHERE until <= ?",
    ] {
        let plan = move |db: &Connection| {
            let mut explain = db.prepare(&format!("EXPLAIN QUERY PLAN SELECT * FROM {question}"))?;
            let count = explain.parameter_count();
            let steps = explain.query_map(rusqlite::params_from_iter(vec![0; count]), |row| row.get(3))?;
            Ok(steps.collect::<rusqlite::Result<Vec<String>>>()?)
        };
        let plan = store.read(plan).await.unwrap();
        assert!(plan.iter().all(|step| step.starts_with("SEARCH")), "{question}: {plan:?}");
    }
}

/// Copies the database as it lies on the disk, its log cut to `log` bytes.
fn copy(path: &Path, into: &Path, name: &str, log: usize) -> PathBuf {
    let copied = into.join(name);
    fs::copy(path, &copied).unwrap();
    let bytes = fs::read(with_ending(path, "-wal")).unwrap();
    fs::write(with_ending(&copied, "-wal"), &bytes[..log.min(bytes.len())]).unwrap();
    copied
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

mod contract_of_members {
    use super::*;
    crate::store::contract::members_contract!(with::<dyn Members>(|store| store));
}

mod contract_of_sessions {
    use super::*;
    crate::store::contract::sessions_contract!(with::<dyn Sessions>(|store| store));
}
