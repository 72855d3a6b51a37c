//! Hostile WebSocket clients: a frame that announces a gigabyte, a flood of frames, a message that never ends. A tunnel holds no
//! frame, so none of it costs memory, others are served, and the ends of tokens and of the gateway are in force all the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::DEADLINE;
use crate::support::gateway::Gateway;
use crate::support::process::Exit;
use crate::support::raw::{Client, exchange};
use crate::support::served::{PUBLIC, Served};

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An empty ping of a client, with its mask.
const PING: [u8; 6] = [0x89, 0x80, 1, 2, 3, 4];

/// A service that takes WebSockets, says nothing, and counts what it hears once it is told to listen.
struct Service {
    address: SocketAddr,
    heard: Arc<AtomicU64>,
    listen: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Service {
    async fn start(listens: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<AtomicU64>::default();
        let listen = watch::Sender::new(listens);
        let mut tasks = JoinSet::new();
        let (count, told) = (Arc::clone(&heard), listen.subscribe());
        tasks.spawn(async move {
            let mut sockets = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sockets.spawn(hear(stream, Arc::clone(&count), told.clone()));
            }
        });
        Self { address, heard, listen, _tasks: tasks }
    }

    async fn until_heard(&self, bytes: u64) {
        let wait = async {
            while self.heard.load(Ordering::Relaxed) < bytes {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{:?} of {bytes} bytes", self.heard));
    }

    fn tables(&self, auth: &str) -> String {
        let address = self.address;
        format!(
            "[[upstream]]\nname = \"sockets\"\nservers = [\"http://{address}\"]\n\
             [[route]]\npath = \"/ws/*\"\nupstream = \"sockets\"\nauth = \"{auth}\"\n{PUBLIC}"
        )
    }
}

async fn hear(mut stream: TcpStream, heard: Arc<AtomicU64>, mut told: watch::Receiver<bool>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    if stream.write_all(ACCEPTED.as_bytes()).await.is_err() || told.wait_for(|listens| *listens).await.is_err() {
        return;
    }
    let mut room = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = stream.read(&mut room).await {
        heard.fetch_add(n as u64, Ordering::Relaxed);
    }
}

async fn open(address: SocketAddr, headers: &str) -> Client {
    let mut client = Client::connect(address).await;
    client.send(format!("GET /ws/x HTTP/1.1\r\nHost: a\r\n{headers}{HANDSHAKE}\r\n")).await;
    assert_eq!(client.response().await.unwrap().status, 101);
    client
}

/// The code and the reason of the close frame that comes next, and then the end.
async fn closed(client: &mut Client) -> (u16, String) {
    let frame = client.until_closed().await.unwrap();
    assert!(frame.len() >= 4 && frame[0] == 0x88 && usize::from(frame[1]) == frame.len() - 2, "{frame:x?}");
    (u16::from_be_bytes([frame[2], frame[3]]), String::from_utf8(frame[4..].to_vec()).unwrap())
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn healthy(address: SocketAddr) {
    assert_eq!(exchange(address, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_frame_that_announces_a_gigabyte_costs_what_has_come_of_it() {
    const SOCKETS: usize = 100;
    let service = Service::start(true).await;
    let mut served = Served::start("workers = 1", &service.tables("none")).await;
    // What the first ones take that is not theirs.
    drop(open(served.address, "").await);
    healthy(served.address).await;
    let before = resident(served.process.id());
    let mut clients = Vec::new();
    for _ in 0..SOCKETS {
        let mut client = open(served.address, "").await;
        // Binary, masked, 2^30 bytes (RFC 6455, section 5.2), of which ten come.
        client.send([0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 9, 9, 9, 9]).await;
        client.send([7; 10]).await;
        clients.push(client);
    }
    service.until_heard((SOCKETS * 24) as u64).await;
    let after = resident(served.process.id());
    assert!(after < before + 32 * 1024, "{before} KiB before, {after} KiB with {SOCKETS} gigabytes announced");
    healthy(served.address).await;
    // In the middle of their frames they are told of the end like all others, and nobody waits for the rest.
    served.process.terminate();
    for client in &mut clients {
        assert_eq!(closed(client).await, (1001, "draining".to_owned()));
    }
    assert_eq!(served.process.exit().await, Exit::Code(0));
    assert_eq!(service.heard.load(Ordering::Relaxed), (SOCKETS * 24) as u64, "no byte was made up to fill them");
}

#[tokio::test]
async fn a_flood_of_frames_stands_in_the_sender_and_not_in_memory() {
    const MOST: u64 = 512 << 20;
    let service = Service::start(false).await;
    let served = Served::start("workers = 1", &service.tables("none")).await;
    healthy(served.address).await;
    let before = resident(served.process.id());
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(format!("GET /ws/x HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    let (sent, over) = (Arc::<AtomicU64>::default(), watch::Sender::new(false));
    let flood = {
        let (sent, mut over) = (Arc::clone(&sent), over.subscribe());
        tokio::spawn(async move {
            let pings: Vec<u8> = PING.iter().copied().cycle().take(6 * 8192).collect();
            let mut at = 0;
            while sent.load(Ordering::Relaxed) < MOST {
                tokio::select! {
                    wrote = stream.write(&pings[at..]) => {
                        let wrote = wrote.unwrap();
                        at = (at + wrote) % pings.len();
                        sent.fetch_add(wrote as u64, Ordering::Relaxed);
                    }
                    _ = over.wait_for(|over| *over) => break,
                }
            }
            stream.shutdown().await.unwrap();
            stream
        })
    };
    // Others are served meanwhile, and when a hundred of them have been while not a byte more was taken, it stands.
    let (mut seen, mut same) = (0, 0);
    while same < 100 {
        healthy(served.address).await;
        let now = sent.load(Ordering::Relaxed);
        same = if now == seen && now > 0 { same + 1 } else { 0 };
        seen = now;
    }
    assert!(seen < MOST, "nothing holds it back");
    let after = resident(served.process.id());
    assert!(after < before + 16 * 1024, "{before} KiB before, {after} KiB with {seen} bytes on their way");
    over.send_replace(true);
    service.listen.send_replace(true);
    // Left open, because of what it has not read: closed, the kernel would reset it, and throw away what is on its way.
    let _stream = flood.await.unwrap();
    service.until_heard(sent.load(Ordering::Relaxed)).await;
    assert_eq!(service.heard.load(Ordering::Relaxed), sent.load(Ordering::Relaxed), "and not a frame is lost");
}

#[tokio::test]
async fn a_message_that_never_ends_ends_with_its_session() {
    let service = Service::start(true).await;
    let gateway = Gateway::with(&service.tables("required")).await;
    let alice = gateway.login("alice").await;
    let mut client = open(gateway.address(), &format!("Authorization: Bearer {}\r\n", alice.token())).await;
    // The first fragment of a text, and then one more, and one more.
    client.send([0x01, 0x81, 0, 0, 0, 0, b'a']).await;
    let fragments: Vec<u8> = [0x00, 0x81, 0, 0, 0, 0, b'a'].iter().copied().cycle().take(7 * 10_000).collect();
    for _ in 0..10 {
        client.send(&fragments).await;
    }
    service.until_heard(7 * 100_001).await;
    let logout = gateway.client().post(gateway.url("/auth/logout")).bearer_auth(alice.token()).send().await.unwrap();
    assert_eq!(logout.status(), 204);
    assert_eq!(closed(&mut client).await, (4001, "token_revoked".to_owned()));
    gateway.until_metric_is("wxgate_open_sockets{route=\"/ws/*\"}", 0.0).await;
}
