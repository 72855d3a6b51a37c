//! Tunnels between two ends in memory, on a clock that jumps to the next timer.

use std::sync::Mutex as StdMutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;

const IDLE_LIMIT: Duration = Duration::from_secs(60);
const OVER: Ending = Ending { code: 4001, reason: "token_expired" };

struct Ends {
    client: DuplexStream,
    upstream: DuplexStream,
    end: oneshot::Sender<Ending>,
    totals: Arc<StdMutex<Option<Totals>>>,
    task: JoinHandle<()>,
}

/// A running tunnel whose pipes hold `room` bytes each.
fn tunnel(room: usize, websocket: bool, early: &[u8], late: &'static [u8]) -> Ends {
    let (client, ours) = duplex(room);
    let (upstream, theirs) = duplex(room);
    let (end, ended) = oneshot::channel();
    let limits = Limits { idle: IDLE_LIMIT, total: None };
    let mut tunnel = Tunnel::new(theirs, Bytes::from_static(late), websocket, limits);
    tunnel.ended_by(ended);
    let totals = Arc::new(StdMutex::new(None));
    let seen = Arc::clone(&totals);
    tunnel.at_end(move |totals| *seen.lock().unwrap() = Some(*totals));
    let task = tokio::spawn(tunnel.run(ours, early.to_vec()));
    Ends { client, upstream, end, totals, task }
}

impl Ends {
    /// Waits for its end; what went through.
    async fn totals(self) -> Totals {
        self.task.await.unwrap();
        self.totals.lock().unwrap().unwrap()
    }
}

async fn read(stream: &mut DuplexStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

async fn rest(stream: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn bytes_pass_both_ways_and_what_came_with_the_heads_comes_first() {
    let mut ends = tunnel(64, false, b"early ", b"late ");
    ends.client.write_all(b"up").await.unwrap();
    ends.upstream.write_all(b"down").await.unwrap();
    assert_eq!(read(&mut ends.upstream, 8).await, b"early up");
    assert_eq!(read(&mut ends.client, 9).await, b"late down");
    // Half-closed: what comes back still passes.
    ends.client.shutdown().await.unwrap();
    assert_eq!(rest(&mut ends.upstream).await, b"");
    ends.upstream.write_all(b"last").await.unwrap();
    ends.upstream.shutdown().await.unwrap();
    assert_eq!(rest(&mut ends.client).await, b"last");
    assert_eq!(ends.totals().await, Totals { from_client: 8, to_client: 13, ended: "client" });
}

#[tokio::test(start_paused = true)]
async fn megabytes_pass_in_order_through_narrow_pipes() {
    let ends = tunnel(1000, true, b"", b"");
    let (mut client_read, mut client_write) = tokio::io::split(ends.client);
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let (mut echo_read, mut echo_write) = tokio::io::split(ends.upstream);
    let echo = tokio::spawn(async move {
        tokio::io::copy(&mut echo_read, &mut echo_write).await.unwrap();
        echo_write.shutdown().await.unwrap();
    });
    let sent = data.clone();
    let sender = tokio::spawn(async move {
        client_write.write_all(&sent).await.unwrap();
        client_write.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    client_read.read_to_end(&mut back).await.unwrap();
    assert!(back == data);
    sender.await.unwrap();
    echo.await.unwrap();
    ends.task.await.unwrap();
    let totals = ends.totals.lock().unwrap().take().unwrap();
    assert_eq!((totals.from_client, totals.to_client), (3_000_000, 3_000_000));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_stops_the_upstream_and_is_cut_off_in_the_end() {
    let mut ends = tunnel(1000, false, b"", b"");
    let data = vec![7; 1_000_000];
    // Talks on, so that the tunnel as a whole is not silent.
    let (_client_read, mut client_write) = tokio::io::split(ends.client);
    let talk = tokio::spawn(async move {
        while client_write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(IDLE_LIMIT / 4).await;
        }
    });
    let (mut upstream_read, mut upstream_write) = tokio::io::split(ends.upstream);
    let listen = tokio::spawn(async move { while upstream_read.read_u8().await.is_ok() {} });
    let started = Instant::now();
    assert!(upstream_write.write_all(&data).await.is_err(), "it was taken");
    assert!(started.elapsed() >= IDLE_LIMIT && started.elapsed() < IDLE_LIMIT * 2, "{:?}", started.elapsed());
    ends.task.await.unwrap();
    let totals = ends.totals.lock().unwrap().take().unwrap();
    assert_eq!((totals.to_client, totals.ended), (1000, "idle_timeout"));
    talk.await.unwrap();
    listen.await.unwrap();
    ends.end = oneshot::channel().0;
}

#[tokio::test(start_paused = true)]
async fn silence_in_both_directions_ends_it() {
    let mut ends = tunnel(64, true, b"", b"");
    let started = Instant::now();
    for _ in 0..5 {
        tokio::time::sleep(IDLE_LIMIT * 3 / 4).await;
        ends.client.write_all(b"x").await.unwrap();
        read(&mut ends.upstream, 1).await;
    }
    assert_eq!(rest(&mut ends.client).await, b"\x88\x0e\x03\xe9idle_timeout");
    let silent = started.elapsed() - 5 * (IDLE_LIMIT * 3 / 4);
    assert!(silent >= IDLE_LIMIT && silent < IDLE_LIMIT + Duration::from_secs(2), "{silent:?}");
    drop(ends.client);
    ends.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_stands_between_frames() {
    let mut ends = tunnel(64, true, b"", b"");
    // One whole frame, and the first half of the next.
    ends.upstream.write_all(b"\x82\x01a\x82\x04bc").await.unwrap();
    assert_eq!(read(&mut ends.client, 7).await, b"\x82\x01a\x82\x04bc");
    ends.end.send(OVER).unwrap();
    tokio::task::yield_now().await;
    // The other half, and a frame that comes too late.
    ends.upstream.write_all(b"de\x82\x04late").await.unwrap();
    assert_eq!(rest(&mut ends.client).await, b"de\x88\x0f\x0f\xa1token_expired");
    drop(ends.client);
    ends.task.await.unwrap();
    assert_eq!(ends.totals.lock().unwrap().unwrap().ended, "token_expired");
}

#[tokio::test(start_paused = true)]
async fn no_close_frame_is_put_inside_a_frame_that_does_not_end() {
    let mut ends = tunnel(64, true, b"", b"");
    let giant = b"\x82\x7f\x00\x00\x00\x00\x40\x00\x00\x00begin";
    ends.upstream.write_all(giant).await.unwrap();
    assert_eq!(read(&mut ends.client, giant.len()).await, giant);
    let started = Instant::now();
    ends.end.send(OVER).unwrap();
    assert_eq!(rest(&mut ends.client).await, b"");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    drop(ends.client);
    ends.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_behind_the_upstreams_own_close_frame_nor_on_what_is_no_websocket() {
    for (websocket, said) in [(true, &b"\x88\x02\x03\xe8"[..]), (false, b"\x01")] {
        let mut ends = tunnel(64, websocket, b"", b"");
        ends.upstream.write_all(said).await.unwrap();
        assert_eq!(read(&mut ends.client, said.len()).await, said);
        ends.end.send(OVER).unwrap();
        assert_eq!(rest(&mut ends.client).await, b"");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_gone_has_its_last_word() {
    let mut ends = tunnel(64, true, b"", b"");
    ends.upstream.write_all(b"\x88\x02\x03\xe8").await.unwrap();
    drop(ends.upstream);
    ends.client.write_all(b"nobody reads this").await.unwrap();
    assert_eq!(rest(&mut ends.client).await, b"\x88\x02\x03\xe8");
    drop(ends.client);
    ends.task.await.unwrap();
    assert_eq!(ends.totals.lock().unwrap().unwrap().ended, "upstream");
}

#[tokio::test(start_paused = true)]
async fn the_total_time_ends_it_however_much_moves() {
    let (mut client, ours) = duplex(64);
    let (mut upstream, theirs) = duplex(64);
    let started = Instant::now();
    let limits = Limits { idle: IDLE_LIMIT, total: Some(started + Duration::from_secs(5)) };
    let task = tokio::spawn(Tunnel::new(theirs, Bytes::new(), true, limits).run(ours, Vec::new()));
    let talk = tokio::spawn(async move {
        while upstream.write_all(b"\x82\x00").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(900)).await;
        }
    });
    let said = rest(&mut client).await;
    assert!(said.ends_with(b"\x88\x0f\x03\xe9total_timeout"), "{}", said.len());
    assert!(started.elapsed() < Duration::from_secs(7));
    drop(client);
    task.await.unwrap();
    talk.await.unwrap();
}
