//! A few threads that read, each with a connection of its own: a slow read holds up neither the writer nor an async
//! thread. WAL lets them read while the writer writes.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Limits;
use super::fault::Failure;
use crate::store::Error;

type Query = Box<dyn FnOnce(&Connection) + Send>;

/// The handle of the reading threads. Dropped, it waits for them.
pub(super) struct Readers {
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Query>>,
    threads: Vec<JoinHandle<()>>,
    deadline: Duration,
}

impl Readers {
    pub(super) fn start(connections: Vec<Connection>, limits: Limits) -> io::Result<Self> {
        let (queue, queries) = mpsc::channel(limits.queue);
        // The thread that waits for the next query holds the lock; the others wait for the lock. Held for one receive.
        let queries = Arc::new(Mutex::new(queries));
        let mut readers = Self { queue: Some(queue), threads: Vec::new(), deadline: limits.deadline };
        for db in connections {
            let queries = Arc::clone(&queries);
            let thread = thread::Builder::new().name("store-reader".into()).spawn(move || serve(&db, &queries))?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// Runs `work` on one of the connections. A query whose caller has gone, or whose deadline passed, is not run.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let query: Query = Box::new(move |db| {
            if !reply.is_closed() {
                let _ = reply.send(work(db));
            }
        });
        let answered = timeout(self.deadline, async {
            let queue = self.queue.as_ref().ok_or(Failure::Stopped)?;
            queue.send(query).await.map_err(|_| Failure::Stopped)?;
            answer.await.map_err(|_| Failure::Stopped)?
        });
        answered.await.unwrap_or_else(|_| Err(Failure::Late.into()))
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(db: &Connection, queries: &Mutex<mpsc::Receiver<Query>>) {
    loop {
        let query = queries.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(query) = query else { return };
        // A panic must not end the thread; its caller sees that the reply never comes.
        let _ = catch_unwind(AssertUnwindSafe(|| query(db)));
    }
}
