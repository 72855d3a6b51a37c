//! One core: its thread, its runtime, its sockets, its upstream connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::gateway::{Gateway, Worker};

use super::connection;
use super::crew::{Crew, Passed, Seat};
use super::descriptors;
use super::drain::{Drain, Watch};
use super::listen::{accept, accepting};
use super::redirect;

/// How often a worker hands over log lines and closes upstream connections that nobody uses.
const TICK: Duration = Duration::from_millis(200);

/// How often a worker looks how long a request waits for it.
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

/// Starts worker `n` on these sockets; `crew` is the worker among the others, with what they pass to it.
///
/// # Errors
/// When the runtime or the thread cannot be made.
pub(super) fn start(
    n: usize,
    gateway: &Arc<Gateway>,
    listeners: Vec<(Door, TcpListener)>,
    crew: (Crew, UnboundedReceiver<Passed>),
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
                () = run(&worker, listeners, crew, drain, share) => {}
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
async fn run(
    worker: &Arc<Worker>,
    listeners: Vec<(Door, TcpListener)>,
    (crew, inbox): (Crew, UnboundedReceiver<Passed>),
    mut drain: Watch,
    share: Share,
) {
    // Connections watch a drain of this worker: whatever a watch locks when it is polled, no other core ever touches.
    let own = Drain::new();
    let mut loops = JoinSet::new();
    for (door, listener) in listeners {
        match accepting(listener) {
            Ok(listener) => {
                let own = At { worker: Arc::clone(worker), crew: crew.clone(), drain: own.watch(), share };
                loops.spawn(serve(own, door, listener));
            }
            Err(error) => tracing::error!(%error, "a listening socket cannot be used"),
        }
    }
    loops.spawn(take(Arc::clone(worker), inbox, own.watch(), share));
    // So that the others hear that nothing is passed any more once nobody accepts here.
    drop(crew);
    let looking = tokio::spawn(look(Arc::clone(worker))).abort_handle();
    let turning = {
        let worker = Arc::clone(worker);
        tokio::spawn(async move { worker.turn().await }).abort_handle()
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut told = false;
    loop {
        tokio::select! {
            ended = loops.join_next() => if ended.is_none() {
                looking.abort();
                turning.abort();
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

/// Measures how long a request waits: how late the timer is, and how long it takes until everything that was ready before has
/// had its turn; and what is asked in front.
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

/// What a socket of a worker is served with.
struct At {
    worker: Arc<Worker>,
    crew: Crew,
    drain: Watch,
    share: Share,
}

/// Accepts until the drain, then waits for the connections.
async fn serve(at: At, door: Door, listener: tokio::net::TcpListener) {
    let At { worker, crew, mut drain, share } = at;
    let mut connections = JoinSet::new();
    let stop = drain.clone();
    loop {
        let most = share.most(&worker);
        // Of all its listeners.
        let open = open(&worker, &connections);
        // With none of its own it would never hear that there is room again.
        let room = connections.is_empty() || open < most + most.div_ceil(BEYOND);
        tokio::select! {
            biased;
            () = drain.started() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (stream, peer) = accept(&listener), if room => {
                let seat = crew.seat();
                if !crew.is_elsewhere(&seat) {
                    begin(&mut connections, door, (stream, peer), seat, &worker, &stop, open >= most);
                } else if let Some((stream, seat)) = pass(&crew, door, stream, peer, seat) {
                    begin(&mut connections, door, (stream, peer), seat, &worker, &stop, open >= most);
                }
            }
        }
    }
    // What stands in the kernel's queue was promised an answer: closing the socket would reset it.
    while let Some((stream, peer)) = accept(&listener).now_or_never() {
        begin(&mut connections, door, (stream, peer), crew.own_seat(), &worker, &stop, false);
    }
    drop((listener, crew));
    while connections.join_next().await.is_some() {}
}

/// Passes a connection to the worker at which it has its place; gives it back, with a place here, when that is gone.
fn pass(crew: &Crew, door: Door, stream: TcpStream, peer: SocketAddr, seat: Seat) -> Option<(TcpStream, Seat)> {
    let stream = stream.into_std().ok()?;
    let Err(passed) = crew.pass(Passed { door, stream, peer, seat }) else { return None };
    Some((TcpStream::from_std(passed.stream).ok()?, crew.own_seat()))
}

/// Serves what other workers pass on, until none of them accepts any more, then waits for the connections.
async fn take(worker: Arc<Worker>, mut inbox: UnboundedReceiver<Passed>, drain: Watch, share: Share) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            passed = inbox.recv() => {
                let Some(Passed { door, stream, peer, seat }) = passed else { break };
                let Ok(stream) = TcpStream::from_std(stream) else { continue };
                let crowded = open(&worker, &connections) >= share.most(&worker);
                begin(&mut connections, door, (stream, peer), seat, &worker, &drain, crowded);
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Open connections of a worker.
fn open(worker: &Worker, connections: &JoinSet<()>) -> usize {
    usize::try_from(worker.shard().connections.get()).unwrap_or(0).max(connections.len())
}

/// Starts to serve a connection.
fn begin(
    connections: &mut JoinSet<()>,
    door: Door,
    (stream, peer): (TcpStream, SocketAddr),
    seat: Seat,
    worker: &Arc<Worker>,
    drain: &Watch,
    crowded: bool,
) {
    let (worker, drain) = (Arc::clone(worker), drain.clone());
    // Boxed, because a task moves what it runs some times over: when it is made, when it ends, when it is joined.
    match door {
        Door::Public => connections.spawn(Box::pin(connection::serve(stream, (peer, seat), worker, drain, crowded))),
        Door::Redirect => connections.spawn(Box::pin(redirect::serve(stream, (peer, seat), worker, drain))),
    };
}
