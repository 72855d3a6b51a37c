//! The one thread that writes, with group commit.
//!
//! It takes all jobs that have queued up, runs them as one transaction, commits (which waits for the disk), and only
//! then answers them all: a wait for the disk is shared by every job that arrived during the one before. One that fails
//! does not take the others with it: when it has changed something, all of them are run again, each with a savepoint of its
//! own. So a job may be run twice, and must not do anything but to the database. When the commit fails, every job
//! of the transaction fails: nothing is acknowledged that is not on disk.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Limits;
use super::fault::Failure;
use crate::store::Error;

/// The handle of the writing thread. Dropped, it lets the queue run dry and waits for the thread.
pub(super) struct Writer {
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
    deadline: Duration,
}

#[derive(Default)]
struct Counters {
    commits: AtomicU64,
    jobs: AtomicU64,
}

impl Writer {
    pub(super) fn start(db: Connection, limits: Limits) -> io::Result<Self> {
        let (queue, mut jobs) = mpsc::channel::<Box<dyn Job>>(limits.queue);
        let counters = Arc::new(Counters::default());
        let counted = Arc::clone(&counters);
        let thread = thread::Builder::new().name("store-writer".into()).spawn(move || {
            let mut batch = Vec::with_capacity(limits.batch);
            while jobs.blocking_recv_many(&mut batch, limits.batch) > 0 {
                commit(&db, std::mem::take(&mut batch), &counted);
            }
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), counters, deadline: limits.deadline })
    }

    /// Runs `work` in the next transaction and returns its result once that is committed. A job whose caller has gone,
    /// or whose deadline passed before its turn, is not run.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Pending { work, result: None, reply });
        let answered = timeout(self.deadline, async {
            let queue = self.queue.as_ref().ok_or(Failure::Stopped)?;
            queue.send(job).await.map_err(|_| Failure::Stopped)?;
            answer.await.map_err(|_| Failure::Stopped)?
        });
        answered.await.unwrap_or_else(|_| Err(Failure::Late.into()))
    }

    pub(super) fn commits(&self) -> u64 {
        self.counters.commits.load(Ordering::Relaxed)
    }

    pub(super) fn jobs(&self) -> u64 {
        self.counters.jobs.load(Ordering::Relaxed)
    }

    pub(super) fn queue_depth(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A queued piece of work whose answer is held back until the commit.
trait Job: Send {
    /// Whether somebody still waits for it.
    fn is_wanted(&self) -> bool;
    /// Does it and keeps the result; true when the result is to be kept in the database too.
    fn run(&mut self, db: &Connection) -> bool;
    /// The transaction is on disk: hands the result out.
    fn answer(self: Box<Self>);
    /// The transaction is not: hands `cause` out, unless the job itself had failed before.
    fn refuse(self: Box<Self>, cause: Error);
}

struct Pending<T, F> {
    work: F,
    result: Option<Result<T, Error>>,
    reply: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> Job for Pending<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> Result<T, Error> + Send,
{
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run(&mut self, db: &Connection) -> bool {
        self.result = None;
        self.result = Some((self.work)(db));
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>) {
        // No result means that the work panicked; its error is the reply that never comes.
        if let Some(result) = self.result {
            let _ = self.reply.send(result);
        }
    }

    fn refuse(self: Box<Self>, cause: Error) {
        let result = match self.result {
            Some(Err(own)) => Err(own),
            _ => Err(cause),
        };
        let _ = self.reply.send(result);
    }
}

/// Runs `batch` as one transaction, then answers.
fn commit(db: &Connection, mut batch: Vec<Box<dyn Job>>, counters: &Counters) {
    batch.retain(|job| job.is_wanted());
    if batch.is_empty() {
        return;
    }
    let kept = match together(db, &mut batch) {
        Ok(None) => each_by_itself(db, &mut batch),
        Ok(Some(kept)) => Ok(kept),
        Err(cause) => Err(cause),
    };
    match kept {
        Ok(kept) => {
            counters.commits.fetch_add(1, Ordering::Relaxed);
            counters.jobs.fetch_add(kept, Ordering::Relaxed);
            batch.into_iter().for_each(Job::answer);
        }
        Err(cause) => {
            roll_back(db);
            // The cause is one value and the jobs are many: the first gets it, the others learn that they shared.
            let mut cause = Some(cause);
            for job in batch {
                job.refuse(cause.take().unwrap_or_else(|| Failure::RolledBack.into()));
            }
        }
    }
}

/// Runs all jobs and commits; returns how many were kept. `None` when one failed that had changed something: then nothing was
/// kept, and all have to be run again.
fn together(db: &Connection, batch: &mut [Box<dyn Job>]) -> Result<Option<u64>, Error> {
    step(db, "BEGIN IMMEDIATE")?;
    let mut kept = 0;
    for job in batch {
        let before = db.total_changes();
        let is_kept = run(job, db);
        // SQLite answers some faults (disk full, failed write) by rolling everything back.
        if db.is_autocommit() || (!is_kept && db.total_changes() != before) {
            roll_back(db);
            return Ok(None);
        }
        kept += u64::from(is_kept);
    }
    step(db, "COMMIT")?;
    Ok(Some(kept))
}

/// As [`together`], with a savepoint for each job, so that what a job has changed that fails can be taken back. That costs a copy of
/// every page that it touches.
fn each_by_itself(db: &Connection, batch: &mut [Box<dyn Job>]) -> Result<u64, Error> {
    step(db, "BEGIN IMMEDIATE")?;
    let mut kept = 0;
    for job in batch {
        step(db, "SAVEPOINT job")?;
        if run(job, db) {
            kept += 1;
        } else if db.is_autocommit() {
            // SQLite answers some faults (disk full, failed write) by rolling everything back, the others' work too.
            return Err(Failure::RolledBack.into());
        } else {
            step(db, "ROLLBACK TO job")?;
        }
        step(db, "RELEASE job")?;
    }
    step(db, "COMMIT")?;
    Ok(kept)
}

/// A panic must not end the thread that everybody depends on.
fn run(job: &mut Box<dyn Job>, db: &Connection) -> bool {
    catch_unwind(AssertUnwindSafe(|| job.run(db))).unwrap_or(false)
}

/// Ends the transaction that is open, if there is one.
fn roll_back(db: &Connection) {
    if !db.is_autocommit() {
        // Fails only when SQLite has rolled back by itself, which is what is wanted.
        let _ = step(db, "ROLLBACK");
    }
}

fn step(db: &Connection, sql: &str) -> rusqlite::Result<()> {
    db.prepare_cached(sql)?.execute([]).map(drop)
}
