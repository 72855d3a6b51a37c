//! Which bytes pass.

use super::super::*;
use super::support::{Flag, LIMITS, Script, cut, drain, pass, split_stand_in};

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &[u8] = b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &[u8] =
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nT: v\r\n\r\n";
const BAD: &[u8] = b"GET /evil HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Asserts what passes of `data`, whole, byte by byte, cut at any place, and into small and large rooms.
#[track_caller]
fn passes(data: &[u8], expected: &[u8], refusal: Option<Refusal>, ended: bool) {
    let check = |reads: Vec<Vec<u8>>, room| {
        let seen = pass(reads.clone(), room);
        let (bytes, stand_in) = split_stand_in(&seen.bytes);
        let cuts: Vec<_> = reads.iter().map(Vec::len).collect();
        assert_eq!(bytes.escape_ascii().to_string(), expected.escape_ascii().to_string(), "reads of {cuts:?}");
        assert_eq!((stand_in, seen.ended), (refusal, ended), "reads of {cuts:?}");
    };
    for room in [8192, 7, 1] {
        check(vec![data.to_vec()], room);
        check(data.chunks(1).map(<[u8]>::to_vec).collect(), room);
    }
    for at in 0..data.len() {
        check(cut(data, &[at]), 8192);
    }
}

#[test]
fn valid_requests_pass_unchanged_however_they_are_split() {
    for data in [GET, POST, CHUNKED] {
        passes(data, data, None, true);
    }
    let pipelined = [GET, POST, CHUNKED, GET, CHUNKED, POST, GET].concat();
    passes(&pipelined, &pipelined, None, true);
}

#[test]
fn a_refusal_leaves_what_came_before_it_whole_and_is_the_last_that_is_read() {
    passes(BAD, b"", Some(Refusal::InvalidRequest), false);
    for before in [GET, POST, CHUNKED] {
        passes(&[before, BAD].concat(), before, Some(Refusal::InvalidRequest), false);
        passes(&[before, BAD, GET].concat(), before, Some(Refusal::InvalidRequest), false);
        passes(&[before, b"OPTIONS * HTTP/1.1\r\n\r\n", GET].concat(), before, Some(Refusal::NotImplemented), false);
    }
}

#[test]
fn bytes_after_a_body_are_a_head_and_nothing_else() {
    let hidden = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    // Row 14: with the length too short, the rest of the body must be a head of its own.
    let short = [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{\"a".as_slice(), b"\"}", hidden].concat();
    passes(&short, &short[..short.len() - hidden.len() - 2], Some(Refusal::InvalidRequest), false);
    // With the length right, what looks like a head is data.
    let data =
        [format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", hidden.len()).as_bytes(), hidden].concat();
    passes(&[&data, BAD].concat(), &data, Some(Refusal::InvalidRequest), false);
    // Row 32: what follows `Upgrade` is no tunnel, unless the answer says so.
    let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    passes(&[upgrade.as_slice(), b"\x81\x05hello\n"].concat(), upgrade, Some(Refusal::InvalidRequest), false);
}

#[test]
fn what_follows_a_request_for_an_upgrade_is_held_until_the_answer() {
    let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".as_slice();
    let reads = || [[upgrade, b"GET /a HTTP"].concat(), b"/1.1\r\nHost: a\r\n\r\n\x81\x05".to_vec(), vec![b'x'; 100]];
    let held = [GET, b"\x81\x05", &[b'x'; 100]].concat();
    let guard = || {
        let flag = Flag::default();
        (Guard::new(Script { reads: reads().into(), ends: false }, LIMITS, flag.clone()), flag)
    };
    let (mut answered, flag) = guard();
    assert_eq!(drain(&mut answered, 8192).bytes, upgrade);
    // A 101: whoever takes over gets all of it.
    let (mut switched, _) = guard();
    assert_eq!(drain(&mut switched, 8192).bytes, upgrade);
    assert_eq!(switched.into_parts().1, held);
    // Anything else: it is HTTP, and judged as such.
    flag.answered();
    assert_eq!(drain(&mut answered, 8192).bytes, GET);
    assert!(answered.held.starts_with(b"\x81\x05"));
}

#[test]
fn no_more_is_held_than_a_head_may_have() {
    let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec();
    let reads = std::iter::once(upgrade).chain((0..20).map(|_| vec![b'x'; 100]));
    let mut guard = Guard::new(Script { reads: reads.collect(), ends: true }, LIMITS, Flag::default());
    drain(&mut guard, 8192);
    let (script, held) = guard.into_parts();
    assert_eq!((held.len(), script.reads.len()), (600, 14));
}

/// Rows 24 to 27.
#[test]
fn a_broken_body_ends_the_stream_at_the_break() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
    for (good, bad) in [
        (&b"0"[..], &b"x5\r\nhello\r\n0\r\n\r\n"[..]),
        (b"", b"+5\r\nhello\r\n0\r\n\r\n"),
        (b"", b" 5\r\nhello\r\n0\r\n\r\n"),
        (b"", b"\r\nhello\r\n0\r\n\r\n"),
        (b"", b"g\r\n\r\n"),
        (b"5", b" \r\nhello\r\n0\r\n\r\n"),
        (b"5", b"\nhello\r\n0\r\n\r\n"),
        (b"5\r", b"hello\r\n0\r\n\r\n"),
        (b"000000000000005", b"0\r\n"),
        (b"5;x=", b"\ny\r\nhello\r\n0\r\n\r\n"),
        (b"5;x=\r", b"y\r\nhello\r\n0\r\n\r\n"),
        (b"5\r\nhello", b"\n0\r\n\r\n"),
        (b"5\r\nhello", b"!\r\n0\r\n\r\n"),
        (b"5\r\nhello\r", b"0\r\n\r\n"),
        (b"5\r\nhell\r", b"\n0\r\n\r\n"),
        (b"0\r\n", b"\n"),
        (b"0\r\n\r", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (b"0\r\nT: v\r\n", b" w\r\n\r\n"),
    ] {
        passes(&[head, good, bad].concat(), &[head, good].concat(), None, true);
    }
}

#[test]
fn one_empty_line_may_come_before_a_head() {
    let data = [b"\r\n".as_slice(), GET, b"\r\n", POST, b"\r\n", CHUNKED].concat();
    passes(&data, &data, None, true);
    for bad in [&b"\r\n\r\n"[..], b"\n", b"\r\r\n", b" \r\n", b"\r\n\n"] {
        passes(&[GET, bad, GET].concat(), GET, Some(Refusal::InvalidRequest), false);
    }
    // Alone it stays with the guard, as does any head that does not end.
    for part in [&b"\r"[..], b"\r\n", b"\r\nG", &GET[..GET.len() - 1]] {
        passes(&[GET, part].concat(), GET, None, true);
    }
}

#[test]
fn a_head_may_have_exactly_max_head_bytes() {
    let head = |len: usize| {
        let (start, end) = (b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(), b"\r\n\r\n".as_slice());
        [start, &vec![b'x'; len - start.len() - end.len()], end].concat()
    };
    for before in [&b""[..], b"\r\n", GET] {
        let fits = [before, &head(LIMITS.max_head), GET].concat();
        passes(&fits, &fits, None, true);
        let large = [before, &head(LIMITS.max_head + 1)].concat();
        let passed = if before == GET { GET } else { b"" };
        passes(&large, passed, Some(Refusal::HeadersTooLarge), false);
    }
    let endless = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(), &[b'x'; 5000]].concat();
    passes(&endless, b"", Some(Refusal::HeadersTooLarge), false);
    // A fault behind the limit is not what decides.
    passes(&[&endless[..600], b"\nX\r\n\r\n"].concat(), b"", Some(Refusal::HeadersTooLarge), false);
    passes(&[b'x'; 600], b"", Some(Refusal::UriTooLong), false);
    let long = [b"GET /".as_slice(), &[b'x'; 200], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    passes(&long, b"", Some(Refusal::UriTooLong), false);
}

#[test]
fn what_is_unread_is_known() {
    let unread = |data: &[u8]| pass([data.to_vec()], 8192).unread;
    assert!(!unread(b"") && !unread(GET) && !unread(POST) && !unread(CHUNKED));
    assert!(unread(&GET[..5]) && unread(&POST[..POST.len() - 1]) && unread(&CHUNKED[..CHUNKED.len() - 1]));
    assert!(unread(BAD));
}
