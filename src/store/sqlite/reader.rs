//! A few threads that read, each with a connection of its own: a slow read holds up neither the writer nor an async
//! thread. WAL lets them read while the writer writes.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::Limits;
use super::fault::Failure;
use crate::store::Error;

type Query = Box<dyn FnOnce(&Connection) + Send>;

/// The handle of the reading threads. Dropped, it waits for them.
pub(super) struct Readers {
    queue: Arc<Queue>,
    /// For as many queries as may wait.
    room: Arc<Semaphore>,
    threads: Vec<JoinHandle<()>>,
    deadline: Duration,
}

/// What is to be read. A channel of one receiver would have the threads wait for each other, and a query wake two of them.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    queries: VecDeque<Query>,
    /// Threads that wait for a query, and were not woken for one.
    asleep: usize,
    closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, query: Query) {
        let mut state = self.state();
        state.queries.push_back(query);
        if let Some(others) = state.asleep.checked_sub(1) {
            state.asleep = others;
            drop(state);
            self.more.notify_one();
        }
    }

    /// The next query; `None` when there will be none any more.
    fn take(&self) -> Option<Query> {
        let mut state = self.state();
        loop {
            if let Some(query) = state.queries.pop_front() {
                return Some(query);
            }
            if state.closed {
                return None;
            }
            state.asleep += 1;
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        self.state().closed = true;
        self.more.notify_all();
    }
}

impl Readers {
    pub(super) fn start(connections: Vec<Connection>, limits: Limits) -> io::Result<Self> {
        let (queue, room) = (Arc::new(Queue::default()), Arc::new(Semaphore::new(limits.queue)));
        let mut readers = Self { queue, room, threads: Vec::new(), deadline: limits.deadline };
        for db in connections {
            let queue = Arc::clone(&readers.queue);
            let thread = thread::Builder::new().name("store-reader".into()).spawn(move || serve(&db, &queue))?;
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
        let answered = timeout(self.deadline, async {
            let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| Failure::Stopped)?;
            self.queue.put(Box::new(move |db| {
                drop(room);
                if !reply.is_closed() {
                    let _ = reply.send(work(db));
                }
            }));
            answer.await.map_err(|_| Failure::Stopped)?
        });
        answered.await.unwrap_or_else(|_| Err(Failure::Late.into()))
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(db: &Connection, queue: &Queue) {
    while let Some(query) = queue.take() {
        // A panic must not end the thread; its caller sees that the reply never comes.
        let _ = catch_unwind(AssertUnwindSafe(|| query(db)));
    }
}
