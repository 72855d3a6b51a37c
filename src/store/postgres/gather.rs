//! Calls that arrive together share one statement: one round trip, and one wait for the server's disk.
//!
//! Two tasks for each kind of call take all that has queued up, run it as one statement, and answer each caller with its own
//! row. A call that finds a task free goes at once, by itself; whoever comes meanwhile goes with the next. A statement that the
//! server refuses has changed nothing (a deadlock with a merge, say): then each call is made by itself, so that nobody gets
//! what came of another's.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deadpool_postgres::{Object, Pool};
use futures_util::FutureExt as _;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::DEADLINE;
use super::fault::Failure;
use crate::store::Error;

/// Statements of one kind under way at a time: one runs while the other waits for the disk.
const LANES: usize = 2;

/// Calls that share one statement at most.
const MOST: usize = 256;

/// Calls that may wait; a caller beyond that waits for room, within its deadline.
const QUEUE: usize = 1024;

/// An answer for each of several calls.
pub(super) type Gathering<A> = Vec<Option<Result<A, Error>>>;

/// A call that many can make in one statement.
pub(super) trait Together: Send + Sync + 'static {
    /// What one caller says.
    type Wish: Send + Sync + 'static;
    /// What it gets.
    type Answer: Send + 'static;

    /// All of them in one statement: an answer for each, in their order. `None`, never for the first, for one that has to be
    /// made by itself, after these.
    fn together(
        client: &Object,
        wishes: &[Self::Wish],
    ) -> impl Future<Output = Result<Gathering<Self::Answer>, tokio_postgres::Error>> + Send;
}

/// Statements that were run, and calls in them.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) statements: AtomicU64,
    pub(super) calls: AtomicU64,
}

/// The way in for calls of one kind. Its tasks end with it.
pub(super) struct Gathered<T: Together> {
    queue: mpsc::Sender<Call<T>>,
    counted: Arc<Counted>,
}

struct Call<T: Together> {
    wish: T::Wish,
    reply: oneshot::Sender<Result<T::Answer, Error>>,
}

impl<T: Together> Gathered<T> {
    pub(super) fn start(pool: &Pool) -> Self {
        let (queue, calls) = mpsc::channel(QUEUE);
        let (calls, counted) = (Arc::new(Mutex::new(calls)), Arc::<Counted>::default());
        for _ in 0..LANES {
            tokio::spawn(serve::<T>(pool.clone(), Arc::clone(&calls), Arc::clone(&counted)));
        }
        Self { queue, counted }
    }

    /// Makes the call, with those that wait as well. The caller bounds it.
    pub(super) async fn call(&self, wish: T::Wish) -> Result<T::Answer, Error> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Call { wish, reply }).await.map_err(|_| Failure::Broken)?;
        answer.await.map_err(|_| Failure::Late)?
    }

    pub(super) fn counted(&self) -> &Counted {
        &self.counted
    }
}

async fn serve<T: Together>(pool: Pool, calls: Arc<Mutex<mpsc::Receiver<Call<T>>>>, counted: Arc<Counted>) {
    loop {
        let mut batch = Vec::new();
        if calls.lock().await.recv_many(&mut batch, MOST).await == 0 {
            return;
        }
        batch.retain(|call| !call.reply.is_closed());
        // Whatever ends it early (the deadline, a panic), those who wait see that nobody is left to answer.
        let _ = AssertUnwindSafe(timeout(DEADLINE, answer(&pool, batch, &counted))).catch_unwind().await;
    }
}

async fn answer<T: Together>(pool: &Pool, batch: Vec<Call<T>>, counted: &Counted) {
    if batch.is_empty() {
        return;
    }
    let client = match pool.get().await {
        Ok(client) => Lent(Some(client)),
        Err(error) => return refuse(batch, error.into()),
    };
    let Some(connection) = &client.0 else { return };
    let (wishes, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|call| (call.wish, call.reply)).unzip();
    counted.statements.fetch_add(1, Ordering::Relaxed);
    counted.calls.fetch_add(wishes.len() as u64, Ordering::Relaxed);
    let outcome = T::together(connection, &wishes).await;
    let is_sound = outcome.is_ok();
    let answers = match outcome {
        Ok(answers) => answers,
        // Refused by the server, so undone as a whole.
        Err(error) if error.code().is_some() && wishes.len() > 1 => wishes.iter().map(|_| None).collect(),
        Err(error) => {
            let left = wishes.into_iter().zip(replies).map(|(wish, reply)| Call { wish, reply }).collect();
            return refuse::<T>(left, error.into());
        }
    };
    let mut later = Vec::<Call<T>>::new();
    for ((wish, reply), answer) in wishes.into_iter().zip(replies).zip(answers) {
        match answer {
            Some(answer) => drop(reply.send(answer)),
            None => later.push(Call { wish, reply }),
        }
    }
    for Call { wish, reply } in later {
        counted.statements.fetch_add(1, Ordering::Relaxed);
        let alone =
            T::together(connection, std::slice::from_ref(&wish)).await.map(|mut answers| answers.pop().flatten());
        let answer = alone.map_err(Error::from).and_then(|answer| answer.unwrap_or(Err(Failure::Shared.into())));
        let _ = reply.send(answer);
    }
    if is_sound {
        client.give_back();
    }
}

/// The cause is one value and the calls are many: the first gets it, the others learn that they shared.
fn refuse<T: Together>(batch: Vec<Call<T>>, cause: Error) {
    let mut cause = Some(cause);
    for call in batch {
        let _ = call.reply.send(Err(cause.take().unwrap_or_else(|| Failure::Shared.into())));
    }
}

/// A connection that goes back to the pool only when all went well: what was broken off may hang in it.
struct Lent(Option<Object>);

impl Lent {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(suspect) = self.0.take() {
            drop(Object::take(suspect));
        }
    }
}
