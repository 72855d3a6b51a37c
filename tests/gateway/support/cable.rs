//! A cable between a gateway and its store, which a test can cut and mend.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Cable {
    address: SocketAddr,
    whole: watch::Sender<bool>,
    open: Arc<Mutex<Vec<AbortHandle>>>,
    _tasks: JoinSet<()>,
}

impl Cable {
    /// To this port on loopback.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (whole, is_whole) = watch::channel(true);
        let open = Arc::<Mutex<Vec<AbortHandle>>>::default();
        let (opened, mut tasks) = (Arc::clone(&open), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                if !*is_whole.borrow() {
                    continue; // dropped: the other side sees it closed
                }
                let handle = connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
                opened.lock().unwrap().push(handle);
            }
        });
        Self { address, whole, open, _tasks: tasks }
    }

    /// This end of it.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Nothing passes any more.
    pub(crate) fn cut(&self) {
        self.whole.send_replace(false);
        for connection in self.open.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// New connections pass again.
    pub(crate) fn mend(&self) {
        self.whole.send_replace(true);
    }
}
