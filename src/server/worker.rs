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
use super::drain::{Drain, Watch};
use super::listen::accept;
use super::redirect;

/// How often a worker hands over log lines and closes upstream connections that nobody uses.
const TICK: Duration = Duration::from_millis(200);

/// Most connections of clients on one worker. Beyond it the oldest wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 50_000;

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
) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worker = Arc::new(gateway.worker());
    let (done_tx, done) = oneshot::channel();
    let (kill, killed) = oneshot::channel();
    let thread = std::thread::Builder::new().name(format!("worker-{n}")).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = run(&worker, listeners, drain) => {}
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
async fn run(worker: &Arc<Worker>, listeners: Vec<(Door, TcpListener)>, mut drain: Watch) {
    // Connections watch a drain of this worker: whatever a watch locks when it is polled, no other core ever touches.
    let own = Drain::new();
    let mut loops = JoinSet::new();
    for (door, listener) in listeners {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                loops.spawn(serve(Arc::clone(worker), door, listener, own.watch()));
            }
            Err(error) => tracing::error!(%error, "a listening socket cannot be used"),
        }
    }
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut told = false;
    loop {
        tokio::select! {
            ended = loops.join_next() => if ended.is_none() { return },
            () = drain.started(), if !told => {
                told = true;
                own.start();
            }
            _ = tick.tick() => worker.tick(),
        }
    }
}

/// Accepts until the drain, then waits for the connections.
async fn serve(worker: Arc<Worker>, door: Door, listener: tokio::net::TcpListener, mut drain: Watch) {
    let mut connections = JoinSet::new();
    let stop = drain.clone();
    loop {
        tokio::select! {
            biased;
            () = drain.started() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (stream, peer) = accept(&listener), if connections.len() < MAX_CONNECTIONS => {
                begin(&mut connections, door, stream, peer, &worker, &stop);
            }
        }
    }
    // What stands in the kernel's queue was promised an answer: closing the socket would reset it.
    while let Some((stream, peer)) = accept(&listener).now_or_never() {
        begin(&mut connections, door, stream, peer, &worker, &stop);
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Starts to serve a connection.
fn begin(
    connections: &mut JoinSet<()>,
    door: Door,
    stream: TcpStream,
    peer: SocketAddr,
    worker: &Arc<Worker>,
    drain: &Watch,
) {
    let (worker, drain) = (Arc::clone(worker), drain.clone());
    match door {
        Door::Public => connections.spawn(connection::serve(stream, peer, worker, drain)),
        Door::Redirect => connections.spawn(redirect::serve(stream, peer, worker, drain)),
    };
}
