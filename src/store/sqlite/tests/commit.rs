//! Group commit, and what a fault does to the jobs around it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rusqlite::Connection;

use super::folder;
use crate::store::contract::{at, code, login, token};
use crate::store::sqlite::{Limits, Sqlite};
use crate::store::{Error, Sessions};

/// Holds the writer inside a job, runs `meanwhile`, lets it go.
pub(super) async fn while_the_writer_is_busy<T>(store: &Arc<Sqlite>, meanwhile: impl Future<Output = T>) -> T {
    let (entered, has_entered) = tokio::sync::oneshot::channel();
    let mut entered = Some(entered);
    let (go, wait) = mpsc::channel::<()>();
    let busy = Arc::clone(store);
    let job = tokio::spawn(async move {
        busy.write(move |_| {
            entered.take().unwrap().send(()).unwrap();
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
async fn jobs_are_run_again_only_behind_one_that_failed_and_had_changed_something() {
    let (_folder, path) = folder();
    let store = Sqlite::open(&path).unwrap();
    store.open(login("alice", at(0))).await.unwrap();
    for (failing, runs) in [("SELECT * FROM nothing", 1), ("DELETE FROM codes; SELECT * FROM nothing", 2)] {
        let run = Arc::new(AtomicU32::new(0));
        let commits = store.commits();
        let (counting, failing) = while_the_writer_is_busy(&store, async {
            let (counted, counter) = (Arc::clone(&run), Arc::clone(&store));
            let counting = tokio::spawn(async move {
                let counted = move |_: &Connection| Ok(counted.fetch_add(1, Ordering::SeqCst));
                counter.write(counted).await
            });
            let other = Arc::clone(&store);
            let failing = tokio::spawn(async move { other.write(move |db| Ok(db.execute_batch(failing)?)).await });
            while store.queue_depth() < 2 {
                tokio::task::yield_now().await;
            }
            (counting, failing)
        })
        .await;
        assert!(counting.await.unwrap().is_ok() && failing.await.unwrap().is_err());
        assert_eq!(run.load(Ordering::SeqCst), runs);
        assert_eq!(store.commits(), commits + 2, "the one that was busy, and the two that came together");
    }
    assert!(store.used_code(&code("alice"), at(1)).await.unwrap().is_some(), "what failed was taken back");
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
            Ok(_) => accepted += 1,
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

/// `cargo test --lib -- --ignored --nocapture durable_logins`
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement, not a test"]
async fn durable_logins_per_second() {
    for callers in [1, 16, 64, 256] {
        let (_folder, path) = folder();
        let store = Sqlite::open(&path).unwrap();
        let each = 4096 / callers.max(16);
        let begin = std::time::Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|caller| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    for n in 0..each {
                        store.open(login(&format!("member{caller}-{n}"), at(0))).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let rate = f64::from(callers * each) / begin.elapsed().as_secs_f64();
        println!("{callers} callers: {rate:.0} opens/s, {} jobs in {} commits", store.jobs(), store.commits());
    }
}
