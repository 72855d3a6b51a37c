//! One core: its thread, its runtime, its sockets, its upstream connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::gateway::{Gateway, Worker};

use super::connection;
use super::descriptors;
use super::drain::{Drain, Watch};
use super::listen::{accept, accepting};
use super::redirect;

/// How often a worker hands over log lines and closes upstream connections that nobody uses.
const TICK: Duration = Duration::from_millis(200);

/// How often a worker looks how long a request would wait for it.
const LOOK: Duration = Duration::from_millis(50);

/// Connections beyond the most that still get one answer each, as a part of the most: whoever asks whether this instance is
/// well must be told, also when others hold all of it. Beyond these they wait in the kernel's queue.
const BEYOND: usize = 8;

/// What a listening socket is for.
#[derive(Debug, Clone, Copy)]
pub enum Door {
    /// Requests.
    Public,
    /// Clients on plain HTTP that shall come by https.
    Redirect,
}

/// A running worker.
#[derive(Debug)]
pub struct Handle {
    thread: Option<JoinHandle<()>>,
    done: oneshot::Receiver<()>,
    kill: Option<oneshot::Sender<()>>,
}

impl Handle {
    /// Waits until the worker has nothing left to do, or makes it stop at `end`. True when it finished by itself.
    pub async fn finished(mut self, end: Instant) -> bool {
        let finished = tokio::time::timeout_at(end, &mut self.done).await.is_ok();
        if !finished && let Some(kill) = self.kill.take() {
            let _ = kill.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        finished
    }
}

/// Starts worker `n` on these sockets.
///
/// # Errors
/// When the runtime or the thread cannot be made.
pub fn start(
    n: usize,
    gateway: &Arc<Gateway>,
    listeners: Vec<(Door, TcpListener)>,
    drain: Watch,
    share: Share,
) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worker = Arc::new(gateway.worker());
    let (done_tx, done) = oneshot::channel();
    let (kill, killed) = oneshot::channel();
    let thread = std::thread::Builder::new().name(format!("worker-{n}")).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = run(&worker, listeners, drain, share) => {}
                _ = killed => {}
            }
        });
        // Connections that are left end with the runtime, in whatever state they are. A name that is being resolved is not
        // waited for: it cannot be interrupted, and takes as long as it likes.
        runtime.shutdown_background();
        worker.flush();
        let _ = done_tx.send(());
    })?;
    Ok(Handle { thread: Some(thread), done, kill: Some(kill) })
}

/// Serves all sockets until the drain is over.
async fn run(worker: &Arc<Worker>, listeners: Vec<(Door, TcpListener)>, mut drain: Watch, share: Share) {
    // Connections watch a drain of this worker: whatever a watch locks when it is polled, no other core ever touches.
    let own = Drain::new();
    let mut loops = JoinSet::new();
    for (door, listener) in listeners {
        match accepting(listener) {
            Ok(listener) => {
                loops.spawn(serve(Arc::clone(worker), door, listener, own.watch(), share));
            }
            Err(error) => tracing::error!(%error, "a listening socket cannot be used"),
        }
    }
    let looking = tokio::spawn(look(Arc::clone(worker))).abort_handle();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut told = false;
    loop {
        tokio::select! {
            ended = loops.join_next() => if ended.is_none() {
                looking.abort();
                return;
            },
            () = drain.started(), if !told => {
                told = true;
                own.start();
            }
            _ = tick.tick() => worker.tick(),
        }
    }
}

/// Measures how long a request would wait: how late the timer is, and how long it takes until everything that was ready
/// before has had its turn.
async fn look(worker: Arc<Worker>) {
    let mut due = tokio::time::interval(LOOK);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let since = due.tick().await;
        tokio::task::yield_now().await;
        worker.waited(since.elapsed());
    }
}

/// What one worker may have of the process's connections.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// File descriptors of the process.
    pub descriptors: u64,
    /// Workers that share them.
    pub workers: usize,
}

impl Share {
    /// The most connections of this worker. The kernel spreads them evenly, if not quite.
    fn most(self, worker: &Worker) -> usize {
        descriptors::connections(self.descriptors, worker.max_connections()).div_ceil(self.workers.max(1))
    }
}

/// Accepts until the drain, then waits for the connections.
async fn serve(worker: Arc<Worker>, door: Door, listener: tokio::net::TcpListener, mut drain: Watch, share: Share) {
    let mut connections = JoinSet::new();
    let stop = drain.clone();
    loop {
        let most = share.most(&worker);
        // Of all its listeners.
        let open = usize::try_from(worker.shard().connections.get()).unwrap_or(0).max(connections.len());
        // With none of its own it would never hear that there is room again.
        let room = connections.is_empty() || open < most + most.div_ceil(BEYOND);
        tokio::select! {
            biased;
            () = drain.started() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (stream, peer) = accept(&listener), if room => {
                begin(&mut connections, door, (stream, peer), &worker, &stop, open >= most);
            }
        }
    }
    // What stands in the kernel's queue was promised an answer: closing the socket would reset it.
    while let Some((stream, peer)) = accept(&listener).now_or_never() {
        begin(&mut connections, door, (stream, peer), &worker, &stop, false);
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Starts to serve a connection.
fn begin(
    connections: &mut JoinSet<()>,
    door: Door,
    (stream, peer): (TcpStream, SocketAddr),
    worker: &Arc<Worker>,
    drain: &Watch,
    crowded: bool,
) {
    let (worker, drain) = (Arc::clone(worker), drain.clone());
    // Boxed, because a task moves what it runs some times over: when it is made, when it ends, when it is joined.
    match door {
        Door::Public => connections.spawn(Box::pin(connection::serve(stream, peer, worker, drain, crowded))),
        Door::Redirect => connections.spawn(Box::pin(redirect::serve(stream, peer, worker, drain))),
    };
}
