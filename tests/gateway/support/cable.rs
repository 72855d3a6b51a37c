//! A cable between a gateway and its store, which a test can cut, hold and mend.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// What is sent arrives nowhere, and nothing is closed.
    Held,
    Cut,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Cable {
    address: SocketAddr,
    state: watch::Sender<State>,
    open: Arc<Mutex<Vec<AbortHandle>>>,
    _tasks: JoinSet<()>,
}

impl Cable {
    /// To this port on loopback.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, state) = watch::channel(State::Whole);
        let open = Arc::<Mutex<Vec<AbortHandle>>>::default();
        let (opened, mut tasks) = (Arc::clone(&open), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                if *state.borrow() == State::Cut {
                    continue; // dropped: the other side sees it closed
                }
                let mut state = state.clone();
                let handle = connections.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let mut copying = pin!(copy_bidirectional(&mut near, &mut far));
                    loop {
                        let held = *state.borrow_and_update() == State::Held;
                        tokio::select! {
                            _ = &mut copying, if !held => return,
                            changed = state.changed() => if changed.is_err() { return },
                        }
                    }
                });
                opened.lock().unwrap().push(handle);
            }
        });
        Self { address, state: tell, open, _tasks: tasks }
    }

    /// This end of it.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Nothing passes any more.
    pub(crate) fn cut(&self) {
        self.state.send_replace(State::Cut);
        for connection in self.open.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Nothing passes any more, and nobody is told.
    pub(crate) fn hold(&self) {
        self.state.send_replace(State::Held);
    }

    /// New connections pass again, and those that were held.
    pub(crate) fn mend(&self) {
        self.state.send_replace(State::Whole);
    }
}
