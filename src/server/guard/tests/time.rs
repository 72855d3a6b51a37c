//! How long the guard waits, and for what.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::{advance, sleep, timeout};

use super::super::*;
use super::support::{Flag, LIMITS};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);

fn guarded() -> (DuplexStream, Guard<DuplexStream, Flag>, Flag) {
    let (client, stream) = duplex(64 * 1024);
    let flag = Flag::default();
    (client, Guard::new(stream, LIMITS, flag.clone()), flag)
}

/// What comes next, and after how long.
async fn next(guard: &mut Guard<DuplexStream, Flag>) -> (Vec<u8>, Duration) {
    let start = Instant::now();
    let mut space = [0; 4096];
    let len = guard.read(&mut space).await.unwrap();
    (space[..len].to_vec(), start.elapsed().max(Duration::ZERO))
}

/// The timer ticks in milliseconds, rounded up.
#[track_caller]
fn about(took: Duration, expected: Duration) {
    assert!(took >= expected && took <= expected + Duration::from_millis(2), "{took:?}, not {expected:?}");
}

/// Reads the request and answers it, after a while.
async fn answer(guard: &mut Guard<DuplexStream, Flag>, flag: &Flag) {
    assert_eq!(next(guard).await.0, GET);
    assert!(flag.busy.replace(false));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_left_after_head_timeout() {
    let (_client, mut guard, _) = guarded();
    let (bytes, took) = next(&mut guard).await;
    assert!(bytes.is_empty());
    about(took, LIMITS.head_timeout);
}

#[tokio::test(start_paused = true)]
async fn the_first_head_has_head_timeout_from_the_accept() {
    let (mut client, mut guard, _) = guarded();
    advance(SECOND * 4).await;
    client.write_all(&GET[..9]).await.unwrap();
    let (bytes, took) = next(&mut guard).await;
    assert_eq!(bytes, Refusal::RequestTimeout.stand_in());
    about(took, LIMITS.head_timeout - SECOND * 4);
    // The connection stays open for the answer.
    assert!(timeout(SECOND * 600, next(&mut guard)).await.is_err());
    assert!(guard.has_unread());
}

/// Row 102: a byte now and then does not help.
#[tokio::test(start_paused = true)]
async fn a_dripping_head_is_late_all_the_same() {
    let (mut client, mut guard, flag) = guarded();
    client.write_all(GET).await.unwrap();
    answer(&mut guard, &flag).await;
    let drip = async {
        sleep(SECOND * 30).await;
        for byte in GET {
            if client.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(SECOND).await;
        }
    };
    let (_, (bytes, took)) = tokio::join!(timeout(SECOND * 50, drip), next(&mut guard));
    assert_eq!(bytes, Refusal::RequestTimeout.stand_in());
    // Idle for 30 s, then from the first byte.
    about(took, SECOND * 30 + LIMITS.head_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_head_in_time_passes_and_idleness_is_counted_from_the_answer() {
    let (mut client, mut guard, flag) = guarded();
    client.write_all(&GET[..9]).await.unwrap();
    assert!(timeout(SECOND * 9, next(&mut guard)).await.is_err());
    client.write_all(&GET[9..]).await.unwrap();
    answer(&mut guard, &flag).await;
    // The timer of the head is still set; it does not end the idle connection.
    let (bytes, took) = next(&mut guard).await;
    assert!(bytes.is_empty());
    about(took, LIMITS.keep_alive);
    assert!(guard.has_unread(), "the end came from us: something may be on its way");
}

#[tokio::test(start_paused = true)]
async fn each_request_starts_keep_alive_anew() {
    let (mut client, mut guard, flag) = guarded();
    for _ in 0..5 {
        client.write_all(GET).await.unwrap();
        answer(&mut guard, &flag).await;
        assert!(timeout(LIMITS.keep_alive - SECOND, next(&mut guard)).await.is_err());
    }
    about(next(&mut guard).await.1, SECOND);
}

#[tokio::test(start_paused = true)]
async fn silence_while_an_answer_is_made_is_patience() {
    let (mut client, mut guard, flag) = guarded();
    client.write_all(GET).await.unwrap();
    assert_eq!(next(&mut guard).await.0, GET);
    assert!(timeout(SECOND * 3600, next(&mut guard)).await.is_err());
    flag.busy.set(false);
    about(next(&mut guard).await.1, LIMITS.keep_alive);
}

#[tokio::test(start_paused = true)]
async fn a_next_head_that_hangs_is_late_even_behind_an_answer_under_way() {
    let (mut client, mut guard, _) = guarded();
    client.write_all(&[GET, b"GET"].concat()).await.unwrap();
    assert_eq!(next(&mut guard).await.0, GET);
    let (bytes, took) = next(&mut guard).await;
    assert_eq!(bytes, Refusal::RequestTimeout.stand_in());
    about(took, LIMITS.head_timeout);
}

#[tokio::test(start_paused = true)]
async fn silence_in_a_body_is_not_judged_here() {
    let (mut client, mut guard, flag) = guarded();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n").await.unwrap();
    next(&mut guard).await;
    flag.busy.set(false);
    assert!(timeout(SECOND * 3600, next(&mut guard)).await.is_err());
    client.write_all(b"abc").await.unwrap();
    assert_eq!(next(&mut guard).await.0, b"abc");
    about(next(&mut guard).await.1, LIMITS.keep_alive);
}

#[tokio::test(start_paused = true)]
async fn an_empty_line_alone_asks_for_nothing() {
    for line in [&b"\r"[..], b"\r\n"] {
        let (mut client, mut guard, flag) = guarded();
        client.write_all(&[GET, line].concat()).await.unwrap();
        answer(&mut guard, &flag).await;
        let (bytes, took) = next(&mut guard).await;
        assert!(bytes.is_empty(), "no answer that the client might take for that of its next request");
        about(took, LIMITS.head_timeout);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unread_answer_breaks_off_and_is_not_idleness_before() {
    let (client, stream) = duplex(64);
    let limits = Limits { keep_alive: SECOND, ..LIMITS };
    let (mut client, mut guard) = (client, Guard::new(stream, limits, Flag::default()));
    client.write_all(GET).await.unwrap();
    let mut space = [0; 64];
    assert_eq!(guard.read(&mut space).await.unwrap(), GET.len());
    guard.busy.busy.set(false);
    let start = Instant::now();
    assert!(timeout(SECOND * 50, guard.write_all(&[0; 200])).await.is_err());
    assert!(timeout(SECOND * 5, guard.read(&mut space)).await.is_err(), "the answer is still being taken");
    let error = guard.write_all(&[0; 200]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    about(start.elapsed(), WRITE_STALL);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_has_write_stall_for_each_part() {
    let (client, stream) = duplex(64);
    let (mut client, mut guard) = (client, Guard::new(stream, LIMITS, Flag::default()));
    let read = async {
        let mut space = [0; 64];
        for _ in 0..4 {
            sleep(WRITE_STALL - SECOND).await;
            client.read_exact(&mut space).await.unwrap();
        }
    };
    let (written, ()) = tokio::join!(guard.write_all(&[0; 256]), read);
    written.unwrap();
}

/// Row 31: what is still on its way after a refusal is thrown away for a moment, within a limit.
#[tokio::test(start_paused = true)]
async fn the_end_is_gentle_only_when_something_is_unread() {
    let (mut client, mut guard, flag) = guarded();
    client.write_all(GET).await.unwrap();
    answer(&mut guard, &flag).await;
    let start = Instant::now();
    guard.shutdown().await.unwrap();
    about(start.elapsed(), Duration::ZERO);

    let (mut client, mut guard, _) = guarded();
    client.write_all(&[b"GET\n".as_slice(), &[b'x'; 20_000]].concat()).await.unwrap();
    assert_eq!(next(&mut guard).await.0, Refusal::InvalidRequest.stand_in());
    let start = Instant::now();
    guard.shutdown().await.unwrap();
    about(start.elapsed(), LINGER);

    let (mut client, mut guard, _) = guarded();
    client.write_all(b"GET\n").await.unwrap();
    assert_eq!(next(&mut guard).await.0, Refusal::InvalidRequest.stand_in());
    let flood = async { while client.write_all(&[0; 4096]).await.is_ok() {} };
    let start = Instant::now();
    let (ended, sent) = tokio::join!(async { (guard.shutdown().await, drop(guard)).0 }, timeout(SECOND * 5, flood));
    ended.unwrap();
    sent.expect("the flood has met a closed connection");
    about(start.elapsed(), Duration::ZERO);
}
